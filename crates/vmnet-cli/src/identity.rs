//! Names of networks and guests, and MACs that stay with a name.

use std::fmt;
use std::str::FromStr;
use vmnet_wire::ethernet::Mac;

/// The name of a network, of at most 32 letters, digits, `-`, `_` and inner dots; or its UUID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NetworkName(String);

/// The name of a guest: one label of a host name (RFC 1123 §2.1), kept in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GuestName(String);

/// A name breaks the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error(
        "`{0}` is no network name: use 1 to 32 of the letters a-z A-Z, digits, - _ and ., with a letter or digit first"
    )]
    Network(String),
    #[error(
        "`{0}` is no guest name: use 1 to 63 of the letters a-z, digits and -, with a letter or digit first and last"
    )]
    Guest(String),
    #[error("`{0}` is no guest's name: it means something else to every resolver; choose another")]
    Reserved(String),
}

/// Names that mean something else to every resolver, or to guests of ours: no guest has them.
const RESERVED: [&str; 5] = ["gateway", "host", "localhost", "wpad", "isatap"];

impl FromStr for NetworkName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let starts = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        let is_long = text.len() > 32 && uuid::Uuid::try_parse(text).is_err();
        if !starts || is_long || !text.bytes().all(allowed) {
            return Err(NameError::Network(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for GuestName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let inner = !text.starts_with('-') && !text.ends_with('-');
        if text.is_empty() || text.len() > 63 || !inner || !text.bytes().all(allowed) {
            return Err(NameError::Guest(text.to_owned()));
        }
        let name = text.to_ascii_lowercase();
        if RESERVED.contains(&&*name) {
            return Err(NameError::Reserved(name));
        }
        Ok(Self(name))
    }
}

impl NetworkName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a UUID.
    pub(crate) fn is_uuid(&self) -> bool {
        self.0.len() == 36 && uuid::Uuid::try_parse(&self.0).is_ok()
    }
}

impl GuestName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The nearest guest name to any text; `None` if nothing of it is left.
    pub(crate) fn nearest(text: &str) -> Option<Self> {
        let mapped: String = text
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .take(63)
            .collect();
        mapped.trim_matches('-').parse().ok()
    }
}

impl fmt::Display for NetworkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The MAC that this user's guest `name` always has on `network`: locally administered, unicast.
pub(crate) fn stable_mac(uid: u32, network: &str, name: &str) -> Mac {
    let mut hash = fnv(0xcbf2_9ce4_8422_2325, &uid.to_be_bytes());
    hash = fnv(hash, network.as_bytes());
    hash = fnv(hash, &[0]);
    hash = fnv(hash, name.as_bytes());
    // FNV mixes its high bits well and its low ones badly: fold.
    hash ^= hash >> 32;
    local(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
}

/// A MAC nobody had before.
pub(crate) fn random_mac() -> std::io::Result<Mac> {
    let mut bytes = [0; 8];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(local(bytes))
}

/// A 64-bit hash that stays the same over versions and machines (FNV-1a), for lists of words.
pub(crate) fn stable_hash<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    words.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        fnv(fnv(hash, word), &[0])
    })
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// 6 of the bytes, with the bits of a locally administered unicast address (IEEE 802 §8.2).
fn local(bytes: [u8; 8]) -> Mac {
    let [a, b, c, d, e, f, ..] = bytes;
    Mac([a & 0xfc | 0x02, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn network_names() {
        let uuid = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
        for good in ["lan", "LAN-1", "a", "my.net_2", uuid, &"x".repeat(32)] {
            assert!(good.parse::<NetworkName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a b",
            "ä",
            "a\0",
            &"x".repeat(33),
        ] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn guest_names() {
        assert_eq!("Web-1".parse::<GuestName>().unwrap().as_str(), "web-1");
        for bad in [
            "",
            "-a",
            "a-",
            "a.b",
            "a_b",
            "ä",
            "gateway",
            "Host",
            "localhost",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<GuestName>().is_err(), "{bad}");
        }
        assert_eq!(
            GuestName::nearest("Debian 12 (test)").unwrap().as_str(),
            "debian-12--test"
        );
        assert_eq!(GuestName::nearest("..."), None);
    }

    #[test]
    fn a_mac_stays_and_differs() {
        // Written down: a new version must not give guests new addresses.
        assert_eq!(stable_mac(1000, "lan", "web").to_string(), MAC_OF_WEB);
        let mut seen = HashSet::new();
        for uid in [0, 1000, 1001] {
            for network in ["lan", "lan2", "private"] {
                for guest in 0..200 {
                    let mac = stable_mac(uid, network, &format!("vm{guest}"));
                    assert!(mac.is_unicast() && mac.0[0] & 2 == 2, "{mac}");
                    assert!(seen.insert(mac), "{mac} twice");
                }
            }
        }
        assert_ne!(random_mac().unwrap(), random_mac().unwrap());
    }

    const MAC_OF_WEB: &str = "46:52:63:79:59:c3";
}
