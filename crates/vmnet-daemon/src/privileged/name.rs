//! Names of links of ours, and what these say of themselves.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;
use vmnet_linux::kernel::link::NAME_MAX;

/// What names of our links begin with.
const PREFIX: &str = "vmnet";
/// What their aliases begin with.
const OWNER: &str = "openvmnet";
/// The longest role.
const ROLE_MAX: usize = 40;

/// This cannot be a name, or a mark, of a link of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be {1}")]
pub struct NotOurs(String, &'static str);

/// The name of a link of ours: `vmnet`, and up to ten lower-case letters, digits and hyphens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkName(String);

impl LinkName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LinkName {
    type Error = NotOurs;

    fn try_from(name: String) -> Result<Self, NotOurs> {
        let rest = name.strip_prefix(PREFIX).unwrap_or_default();
        if rest.is_empty() || name.len() > NAME_MAX || !rest.bytes().all(is_plain) {
            return Err(NotOurs(name, "the name of a link of vmnet"));
        }
        Ok(Self(name))
    }
}

impl FromStr for LinkName {
    type Err = NotOurs;

    fn from_str(name: &str) -> Result<Self, NotOurs> {
        name.to_owned().try_into()
    }
}

impl From<LinkName> for String {
    fn from(name: LinkName) -> Self {
        name.0
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a link is for, in one word: `bridge`, `gateway`, `guest-7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Role(String);

impl Role {
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Role {
    type Error = NotOurs;

    fn try_from(role: String) -> Result<Self, NotOurs> {
        if role.is_empty() || role.len() > ROLE_MAX || !role.bytes().all(is_plain) {
            return Err(NotOurs(role, "what a link is for"));
        }
        Ok(Self(role))
    }
}

impl FromStr for Role {
    type Err = NotOurs;

    fn from_str(role: &str) -> Result<Self, NotOurs> {
        role.to_owned().try_into()
    }
}

impl From<Role> for String {
    fn from(role: Role) -> Self {
        role.0
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

/// Whose a link is. As its alias: `openvmnet UUID ROLE`. A link with such an alias is ours, whatever it is called: only
/// who may change links can give it one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The network it belongs to.
    pub network: Uuid,
    /// What it is for.
    pub role: Role,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OWNER} {} {}", self.network, self.role.0)
    }
}

impl FromStr for Mark {
    type Err = NotOurs;

    fn from_str(alias: &str) -> Result<Self, NotOurs> {
        let foreign = || NotOurs(alias.to_owned(), "the alias of a link of vmnet");
        let mut words = alias.split(' ');
        let (Some(OWNER), Some(network), Some(role), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(foreign());
        };
        let network = Uuid::try_parse(network).map_err(|_| foreign())?;
        let role = role.parse()?;
        let mark = Self { network, role };
        // One spelling only, lest two links be taken for one.
        if mark.to_string() != alias {
            return Err(foreign());
        }
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_are_names() {
        for good in [
            "vmnet0",
            "vmnet127",
            "vmnet-1a2b3c4d",
            "vmnettap7",
            "vmnet12345678ab",
        ] {
            assert!(good.parse::<LinkName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "vmnet",
            "eth0",
            "vmne0",
            "Vmnet0",
            "vmnet0/..",
            "vmnet 0",
            "vmnet%d",
            "vmnet~1",
            "vmnet.7",
            "vmnet12345678abc",
            "vmnet\0",
            "../vmnet0",
            "vmnet0\n",
            "vmnetä",
        ] {
            assert!(bad.parse::<LinkName>().is_err(), "{bad}");
            let json = serde_json::to_string(bad).unwrap();
            assert!(serde_json::from_str::<LinkName>(&json).is_err(), "{bad}");
        }
    }

    #[test]
    fn marks_come_back_and_others_are_none() {
        let mark = Mark {
            network: Uuid::from_u128(7),
            role: "guest-12".parse().unwrap(),
        };
        assert_eq!(mark.to_string().parse::<Mark>(), Ok(mark));
        for alias in [
            "",
            "openvmnet",
            "openvmnet 00000000-0000-0000-0000-000000000007",
            "openvmnet 7 bridge",
            "openvmnet 00000000-0000-0000-0000-000000000007 bridge more",
            "openvmnet  00000000-0000-0000-0000-000000000007 bridge",
            "openvmnet 00000000000000000000000000000007 bridge",
            "openvmnet 00000000-0000-0000-0000-000000000007 Bridge",
            "uplink to openvmnet 00000000-0000-0000-0000-000000000007 bridge",
        ] {
            assert!(alias.parse::<Mark>().is_err(), "{alias}");
        }
    }
}
