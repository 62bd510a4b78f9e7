//! The rules of networks whose frames the kernel carries, given to the program `nft` (nft(8)).
//!
//! | file | what |
//! | --- | --- |
//! | [`render`] | the tables of one network, as text |
//! | [`opening`] | rules in tables of others, where these block our networks |
//! | [`forwarding`] | interfaces on which we have switched forwarding on, and what must not come of that |
//! | [`generation`] | whether rules have changed |
//! | [`program`] | running `nft` |
//!
//! Each network has two tables of its name, of the families inet and bridge. They are replaced in one transaction, and nothing
//! of them is read back. An accept of ours ends nothing but our own chain, and a drop of ours is final: so what others let
//! pass is not let pass by us, and where others block, a rule stands in their chain.

pub mod forwarding;
pub mod generation;
pub mod opening;
pub mod program;
pub mod render;

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
    /// Members whose guest has this MAC and no other.
    pub fixed: Vec<(String, [u8; 6])>,
    /// Ports that lead to guests.
    pub forwards: Vec<PortForward>,
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

/// Replaces the tables of a network by these rules, all at once.
///
/// # Errors
///
/// See [`NftError`].
pub fn apply(rules: &Rules) -> Result<(), NftError> {
    program::run(&render::network(rules)?)
}

/// Removes the tables of a network; those that are not there are no mistake.
///
/// # Errors
///
/// See [`NftError`].
pub fn remove(bridge: &str) -> Result<(), NftError> {
    program::run(&render::removal(bridge)?)
}
