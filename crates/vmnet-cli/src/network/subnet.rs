//! Which subnet and which IPv6 prefix a private network gets.
//!
//! Those asked for; or the first /24 of a range that nothing else of the host uses, and a random prefix.

use std::net::{IpAddr, Ipv4Addr};
use vmnet_linux::kernel::route::Taken;
use vmnet_linux::lane::{Prefix, Subnet};

/// Random prefixes that are tried before one is taken that the host uses, too.
const TRIES: usize = 64;

/// There is no subnet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChooseError {
    #[error(
        "the subnet {subnet} is taken by the host: {user} uses {network}/{prefix_len}; choose another with --subnet"
    )]
    Taken {
        subnet: Subnet,
        user: String,
        network: IpAddr,
        prefix_len: u8,
    },
    #[error(
        "the IPv6 prefix {prefix} is taken by the host: {user} uses {network}/{prefix_len}; choose another with --ipv6-prefix"
    )]
    TakenPrefix {
        prefix: Prefix,
        user: String,
        network: IpAddr,
        prefix_len: u8,
    },
    #[error("a random IPv6 prefix: {0}")]
    Random(#[source] std::io::Error),
    #[error(
        "the host uses addresses in every /24 of 192.168.64.0 to 192.168.127.0 ({user} uses {network}/{prefix_len}): choose a subnet with --subnet, like 10.77.0.0/24"
    )]
    NoneFree {
        user: String,
        network: IpAddr,
        prefix_len: u8,
    },
}

/// Guests reach nobody of the outside at addresses of their own network: says so, if there can be somebody.
pub(crate) fn warn_of_public(subnet: Subnet) {
    if !Subnet::is_private(subnet.network(), subnet.prefix_len()) {
        tracing::warn!(
            "{subnet} is not private: its guests do not reach whoever has these addresses on the internet; 10.0.0.0/8, \
             172.16.0.0/12 and 192.168.0.0/16 are there for networks like this"
        );
    }
}

/// The subnet asked for, or the first free one of the default range; none that the host uses.
pub(super) fn choose(asked: Option<Subnet>, taken: &[Taken]) -> Result<Subnet, ChooseError> {
    let user_of = |subnet: Subnet| {
        let uses = |taken: &&Taken| matches!(taken.network, IpAddr::V4(network) if subnet.overlaps(network, taken.prefix_len));
        taken.iter().find(uses)
    };
    if let Some(subnet) = asked {
        warn_of_public(subnet);
        return match user_of(subnet) {
            None => Ok(subnet),
            Some(taken) => Err(ChooseError::Taken {
                subnet,
                user: describe(taken),
                network: taken.network,
                prefix_len: taken.prefix_len,
            }),
        };
    }
    let mut last = None;
    for third in 64..=127 {
        let Ok(subnet) = Subnet::new(Ipv4Addr::new(192, 168, third, 0), 24) else {
            continue;
        };
        match user_of(subnet) {
            None => return Ok(subnet),
            Some(taken) => last = Some(taken),
        }
    }
    let (user, network, prefix_len) = last.map_or_else(
        || ("the host".to_owned(), Ipv4Addr::UNSPECIFIED.into(), 0),
        |taken| (describe(taken), taken.network, taken.prefix_len),
    );
    Err(ChooseError::NoneFree {
        user,
        network,
        prefix_len,
    })
}

/// The prefix asked for, or a random one; none that the host uses.
pub(super) fn choose_prefix(asked: Option<Prefix>, taken: &[Taken]) -> Result<Prefix, ChooseError> {
    let user_of = |prefix: Prefix| taken.iter().find(|taken| taken.meets(prefix));
    if let Some(prefix) = asked {
        return match user_of(prefix) {
            None => Ok(prefix),
            Some(taken) => Err(ChooseError::TakenPrefix {
                prefix,
                user: describe(taken),
                network: taken.network,
                prefix_len: taken.prefix_len,
            }),
        };
    }
    let mut bits = [0; 7];
    // Each is one of 2^56: a second try is for hosts that use much of them.
    for _ in 0..TRIES {
        rustix::rand::getrandom(&mut bits[..], rustix::rand::GetRandomFlags::empty())
            .map_err(|error| ChooseError::Random(error.into()))?;
        if user_of(Prefix::random(bits)).is_none() {
            break;
        }
    }
    Ok(Prefix::random(bits))
}

fn describe(taken: &Taken) -> String {
    let kind = if taken.is_address {
        "an address"
    } else {
        "a route"
    };
    match &taken.interface {
        Some(interface) => format!("{kind} of interface {interface}"),
        None => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests;
