//! DHCPv6 server: addresses for guests that ask, and settings for everybody.
//!
//! | file | question it answers |
//! | --- | --- |
//! | `server`: [`Server`] | what is answered to which message, in which state |
//! | `association` | what becomes of one address that a message asks for |
//! | `message` | bytes to messages |
//! | `reply` | which options go into an answer, and their bytes; the only file that knows `dhcproto` |
//! | `config`: [`Config`] | what a network says about itself |
//!
//! Which address a guest gets, and what becomes of it, is the [`register`]'s. A guest is known by its
//! DUID and the number it gives to an address (IAID), and speaks for the MAC its frames come from alone: so copies of one
//! disk image, which have one DUID, are different guests, as they are in [`dhcp`](super::dhcp).
//!
//! RFC 8415 (protocol), 3646 (resolvers, search list), 4704 (names), 7083 (longest waits; now 8415 §18.2.1). Most guests have
//! addresses of their own making (RFC 4862) and ask for settings only, if at all.
//!
//! Sans-IO: the caller strips Ethernet, IP and UDP, and wraps what comes back. Not done: prefixes and temporary addresses,
//! which are refused as the protocol says; relay agents, unicast, reconfiguration, authentication, lease queries, NTP.

mod association;
mod config;
#[cfg(test)]
mod guest;
mod message;
mod reply;
mod server;

pub use config::{Config, ConfigError};
pub use server::Server;

use super::register;
use crate::outbox::PortId;
use std::net::Ipv6Addr;
use vmnet_wire::ethernet::Mac;

/// The UDP port a server listens on (RFC 8415 §7.2).
pub const SERVER_PORT: u16 = 547;
/// The UDP port a client listens on.
pub const CLIENT_PORT: u16 = 546;
/// Where clients find servers: all servers and relay agents of the link (RFC 8415 §7.1).
pub const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A lease of an IPv6 address.
pub type Lease = register::Lease<Ipv6Addr>;
/// What happens to one.
pub type LeaseChange = register::LeaseChange<Ipv6Addr>;
/// What a store is to have of one.
pub type LeaseWrite = register::LeaseWrite<Ipv6Addr>;
/// Which of them the store has.
pub type Ledger = register::Ledger<Ipv6Addr>;
/// A datagram to send, from the gateway's link-local address and port 547.
pub type Reply = register::Reply<Ipv6Addr>;
/// What a datagram led to.
pub type Answer = register::Answer<Ipv6Addr, Drop>;
/// What a guest gets.
pub type Outcome = register::Outcome<Ipv6Addr, Drop>;

/// A datagram that came to port 547.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who sent the frame.
    pub ethernet_source: Mac,
    /// Behind which port that is; `None`: one of many guests, each of which counts for itself.
    pub port: Option<PortId>,
    /// Who sent the packet: the guest's address on the link.
    pub source: Ipv6Addr,
    /// It was sent to an address of the gateway, and not to [`ALL_SERVERS`].
    pub to_one: bool,
    /// What UDP carried.
    pub payload: &'a [u8],
}

/// Why a datagram was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Drop {
    /// Shorter than a header, or an option that ends behind its message or has the wrong length.
    Malformed,
    /// Sent by servers only.
    NotARequest,
    /// A message type that servers do not take.
    UnknownMessage,
    /// Came through a relay agent; this server has its guests on its own link.
    Relayed,
    /// Without what its type needs, or with what it may not have: the client's or the server's id (RFC 8415 §16), or an
    /// address that a client of settings alone cannot ask for.
    Invalid,
    /// Addressed to another server.
    NotForUs,
    /// Not a DUID: empty, or longer than any.
    BadDuid,
    /// From nowhere, or from an address that is no guest's.
    BadSource,
    /// To the gateway alone, though it may only be sent to all servers (RFC 8415 §16).
    Unicast,
    /// A question whether addresses fit, without any (RFC 8415 §18.3.3).
    NothingToConfirm,
}
