//! Which IPv6 prefix a network gets: the one asked for, or one of its own that looks random (RFC 4193 §3.2).
//!
//! A network's own prefix is made of its UUID and of the machine, so it is the same whenever the network is made again,
//! without anything having been stored, and another one on each machine and for each user.

use super::{Occupied, text};
use openvmnet::service::{NetworkConfiguration, ServiceError};
use std::sync::OnceLock;
use uuid::Uuid;
use vmnet_linux::lane::Prefix;

/// Prefixes are made under this name.
const PREFIXES: Uuid = Uuid::from_u128(0x3b1d_7c52_0a8e_4f6b_9c41_766d_6e36_7021);
/// So many of them the host may use before we give up. Each is one of 2^56.
const TRIES: u8 = 64;

/// The prefix of a network; `None` if it knows no IPv6, which it does not `without` having been asked for a prefix.
pub(super) fn of(
    asked: &NetworkConfiguration,
    without: bool,
    network: Uuid,
    occupied: &Occupied,
) -> Result<Option<Prefix>, ServiceError> {
    if let Some(text) = &asked.ipv6_prefix {
        let prefix = text::prefix(text)?;
        return match occupied.user_of_prefix(prefix) {
            None => Ok(Some(prefix)),
            Some(user) => Err(ServiceError::InUse {
                reason: format!("the IPv6 prefix {prefix} is taken: {user}; choose another"),
            }),
        };
    }
    if without || asked.ipv6 == Some(false) {
        return Ok(None);
    }
    let own = (0..TRIES).map(|attempt| made_of(machine(), network, attempt));
    own.into_iter()
        .find(|prefix| occupied.user_of_prefix(*prefix).is_none())
        .map(Some)
        .ok_or_else(|| ServiceError::InUse {
            reason: "the host uses all of fd00::/8: choose an IPv6 prefix of it, or no IPv6"
                .to_owned(),
        })
}

/// A prefix of a network's own.
fn made_of(machine: &[u8], network: Uuid, attempt: u8) -> Prefix {
    let name = [machine, network.as_bytes(), &[attempt]].concat();
    let [a, b, c, d, e, f, _, g, ..] = Uuid::new_v5(&PREFIXES, &name).into_bytes();
    // The byte between says what kind of UUID it is.
    Prefix::random([a, b, c, d, e, f, g])
}

/// What tells this machine and user from others. Never told to anybody but as a hash (machine-id(5)).
fn machine() -> &'static [u8] {
    static MACHINE: OnceLock<Vec<u8>> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let files = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
        let read = |path| std::fs::read(path).ok().filter(|id| id.len() >= 32);
        let id = files.into_iter().find_map(read);
        // Without one, prefixes of networks that are not created are others after a restart.
        let mut id = id.unwrap_or_else(|| Uuid::new_v4().as_bytes().to_vec());
        id.extend(rustix::process::getuid().as_raw().to_be_bytes());
        id
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_same_prefix_each_time_and_no_other_has_it() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let prefix = made_of(b"machine", one, 0);
        assert_eq!(prefix.to_string(), "fd2e:baa2:2c7a:adb1::/64");
        assert_eq!(prefix, made_of(b"machine", one, 0));
        for different in [
            made_of(b"machine", other, 0),
            made_of(b"another", one, 0),
            made_of(b"machine", one, 1),
        ] {
            assert_ne!(prefix, different);
        }
    }

    #[test]
    fn the_machine_is_the_same_all_along() {
        assert_eq!(machine(), machine());
        assert!(machine().len() > 16);
    }
}
