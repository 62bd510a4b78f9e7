//! The rules of networks whose frames the kernel carries, given to the program `nft` (nft(8)).
//!
//! | file | what |
//! | --- | --- |
//! | [`render`] | the tables of one network, as text |
//! | `text` | chains and sets, as text |
//! | `guard` | nobody speaks in the gateway's name |
//! | `usual_frames` | the short way through the guard, for nearly all frames |
//! | `translation` | whose address stands for whom, and where forwarded ports lead |
//! | `isolation` | members that are apart from all others |
//! | [`chains`] | chains of the host, and which of them block |
//! | [`opening`] | rules in tables of others, where these block our networks |
//! | [`forwarding`] | interfaces on which we have switched forwarding on, and what must not come of that |
//! | [`generation`] | whether anybody has changed a rule |
//! | [`program`] | running `nft` |
//!
//! Each network has two tables of its name, of the families inet and bridge. They are replaced in one transaction, and nothing
//! of them is read back. An accept of ours ends nothing but our own chain, and a drop of ours is final: so what others let
//! pass is not let pass by us, and where others block, a rule stands in their chain.

pub mod chains;
pub mod forwarding;
pub mod generation;
mod guard;
mod isolation;
pub mod opening;
pub mod program;
pub mod render;
mod text;
mod translation;
mod usual_frames;

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use forwarding::Record;
pub use program::NftError;

/// What names of our bridges and their members begin with.
pub const PREFIX: &str = "vmnet";
/// The comment of what is ours.
pub const COMMENT: &str = "openvmnet";

/// The rules of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// The bridge; its members are called after it, with a hyphen and a word behind it.
    pub bridge: String,
    /// The member behind which the gateway's services are.
    pub trunk: String,
    /// The MAC of the host on the bridge.
    pub host: [u8; 6],
    /// The MAC of the gateway's services.
    pub services: [u8; 6],
    /// The IPv4 subnet, if the host has an address on it.
    pub ipv4: Option<Inet>,
    /// The IPv6 prefix, if the host has an address on it.
    pub ipv6: Option<Inet6>,
    /// Guests get addresses and routers here: no other is to be their router or server.
    pub serves: bool,
    /// The gateway answers questions about names.
    pub dns: bool,
    /// Guests do not reach each other.
    pub isolation: bool,
    /// The only interface by which guests reach the outside, if one was chosen.
    pub external: Option<String>,
    /// Bridges of our other networks, which guests of this one do not reach.
    pub others: Vec<String>,
    /// Members of the bridge, the trunk among them. Those that are not there any more do no harm.
    pub members: Vec<String>,
    /// Members that exchange frames with the host and the gateway's services alone, where not all are apart.
    pub isolated: Vec<String>,
    /// Of the guests behind the trunk some are apart. Our switch sees to it, but for what the host has taken from anybody.
    pub isolated_behind: bool,
    /// Bridged packets pass the rules of routed ones (`br_netfilter`).
    pub bridged_pass: bool,
    /// Somebody else has the host take packets of its loopback from the bridge, or from all interfaces (`route_localnet`).
    pub loopback_open: bool,
    /// Members whose guest has this MAC and no other.
    pub fixed: Vec<(String, [u8; 6])>,
    /// Ports that lead to guests.
    pub forwards: Vec<PortForward>,
}

impl Rules {
    /// Rules keep isolated members apart, and the kernel's own means does not: where bridged packets pass the rules of routed ones,
    /// it bridges what a forwarded port leads back to the bridge, and would drop it between two such members.
    #[must_use]
    pub fn keep_apart_alone(&self) -> bool {
        self.bridged_pass && !self.forwards.is_empty()
    }

    /// Clients on the host's loopback reach guests by forwarded ports, for which the kernel opens it to the bridge.
    #[must_use]
    pub fn opens_loopback(&self) -> bool {
        self.forwards.iter().any(|it| it.guest.is_ipv4())
    }

    /// Packets of the loopback have to be kept from coming by the bridge: the host does not refuse them by itself, or soon will
    /// no more.
    #[must_use]
    pub fn guards_loopback(&self) -> bool {
        self.loopback_open || self.opens_loopback()
    }

    /// The kernel is to keep this member from others of its kind.
    #[must_use]
    pub fn isolates(&self, member: &str) -> bool {
        let apart = self.isolation || self.isolated.iter().any(|it| it == member);
        apart && member != self.trunk && !self.keep_apart_alone()
    }
}

/// A subnet with the host's address in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inet {
    /// The subnet.
    pub network: Ipv4Addr,
    /// Its length.
    pub prefix_len: u8,
    /// The host's address.
    pub gateway: Ipv4Addr,
    /// Guests reach the outside by the host's addresses.
    pub nat: bool,
}

/// A prefix with the host's address in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inet6 {
    /// The prefix, of 64 bits.
    pub network: Ipv6Addr,
    /// The host's address.
    pub gateway: Ipv6Addr,
    /// Its address on the link alone.
    pub link_local: Ipv6Addr,
    /// Guests reach the outside by the host's addresses.
    pub nat: bool,
}

/// A port of the host that leads to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortForward {
    /// TCP, else UDP.
    pub tcp: bool,
    /// The host's address that the client speaks to; none for all of the guest's family.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub port: u16,
    /// The guest's address.
    pub guest: IpAddr,
    /// The guest's port.
    pub guest_port: u16,
}

/// Whether text can stand in a rule as the name of an interface, and means that one alone.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
    (1..=15).contains(&name.len()) && name.bytes().all(plain)
}

/// Sets these rules in place of what the tables of a network have, all at once. From then on they keep apart what is of none of our
/// networks ([`forwarding`]), as those of the other `carriers` do; `record`: what is switched on.
///
/// # Errors
///
/// See [`NftError`].
pub fn apply(rules: &Rules, record: &Record, carriers: &BTreeSet<String>) -> Result<(), NftError> {
    let mut carriers = carriers.clone();
    carriers.insert(rules.bridge.clone());
    let text = render::network(rules)? + &forwarding::render(record, &carriers);
    match program::run(&text) {
        // What is there may have been made by another version, with chains at other hooks.
        Err(NftError::Refused(_)) => program::run(&(render::removal(&rules.bridge)? + &text)),
        done => done,
    }
}

/// The bridges whose tables stand, as far as can be told without reading rules: somebody may have flushed them all.
///
/// # Errors
///
/// See [`NftError`].
pub fn standing() -> Result<BTreeSet<String>, NftError> {
    Ok(standing_in(&program::ask(&["list", "tables"])?))
}

fn standing_in(said: &serde_json::Value) -> BTreeSet<String> {
    let all = said.get("nftables").and_then(serde_json::Value::as_array);
    let of = |family: &str| -> BTreeSet<String> {
        let tables = all.into_iter().flatten().filter_map(|it| it.get("table"));
        let own = tables.filter(|table| table.get("family").is_some_and(|it| it == family));
        own.filter_map(|table| Some(table.get("name")?.as_str()?.to_owned()))
            .collect()
    };
    of("inet").intersection(&of("bridge")).cloned().collect()
}

/// Removes the tables of a network; those that are not there are no mistake. The other `carriers` keep apart what is of none of our
/// networks then, or if there are none, a chain.
///
/// # Errors
///
/// See [`NftError`].
pub fn remove(bridge: &str, record: &Record, carriers: &BTreeSet<String>) -> Result<(), NftError> {
    program::run(&(render::removal(bridge)? + &forwarding::render(record, carriers)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_network_stands_with_both_its_tables() {
        let table = |family: &str, name: &str| json!({"table": {"family": family, "name": name, "handle": 1}});
        let said = json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            table("inet", "vmnet0"),
            table("bridge", "vmnet0"),
            table("inet", "vmnet1"),
            table("bridge", "vmnet2"),
            table("ip", "vmnet2"),
        ]});
        assert_eq!(standing_in(&said), BTreeSet::from(["vmnet0".to_owned()]));
        assert_eq!(standing_in(&json!({"nftables": 7})), BTreeSet::new());
    }
}
