//! DHCPv4 server: gives each guest an address that stays with it.
//!
//! | file | question it answers |
//! | --- | --- |
//! | `server`: [`Server`] | what is answered to which message, in which state |
//! | `message` | bytes to messages and back; the only file that knows `dhcproto` |
//! | `reply` | which options go into an answer, where the answer goes |
//! | `config`: [`Config`] | what a network says about itself |
//!
//! Which address a guest gets, and what becomes of it, is the [`register`]'s.
//!
//! RFC 2131 (protocol), 2132 (options), 3396 (long options), 3397 (search list), 3442 (classless
//! routes), 4361 (client ids), 4702 (option 81, read only), 6842 (client id echoed).
//!
//! Sans-IO: the caller strips Ethernet, IP and UDP, and wraps what comes back. Not done: relay
//! agents, rapid commit, BOOTP, authentication, lease queries, probing an address before it is
//! offered (the guest does that, RFC 5227, and declines).

mod config;
#[cfg(test)]
mod guest;
#[cfg(test)]
mod ledger_tests;
mod message;
mod reply;
mod server;

pub use super::register::{ReserveError, Reservee, RestoreError, Settled, State, StoreTicket};
pub use config::{Config, ConfigError};
pub use server::Server;

use super::register;
use crate::outbox::PortId;
use std::net::Ipv4Addr;
use vmnet_wire::ethernet::Mac;

/// A lease of an IPv4 address.
pub type Lease = register::Lease<Ipv4Addr>;
/// What happens to one.
pub type LeaseChange = register::LeaseChange<Ipv4Addr>;
/// What a store is to have of one.
pub type LeaseWrite = register::LeaseWrite<Ipv4Addr>;
/// Which of them the store has.
pub type Ledger = register::Ledger<Ipv4Addr>;
/// A datagram to send, from the gateway's address and port 67.
pub type Reply = register::Reply<Ipv4Addr>;
/// What a datagram led to.
pub type Answer = register::Answer<Ipv4Addr, Drop>;
/// What a guest gets. RELEASE and DECLINE are noted.
pub type Outcome = register::Outcome<Ipv4Addr, Drop>;

/// The UDP port a server listens on.
pub const SERVER_PORT: u16 = 67;
/// The UDP port a client listens on.
pub const CLIENT_PORT: u16 = 68;

/// A datagram that came to port 67.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who sent the frame.
    pub ethernet_source: Mac,
    /// Behind which port that is; `None`: one of many guests, each of which counts for itself.
    pub port: Option<PortId>,
    /// Who sent the packet; zero while the guest has no address.
    pub ip_source: Ipv4Addr,
    /// To whom: the gateway or a broadcast address.
    pub ip_destination: Ipv4Addr,
    /// What UDP carried.
    pub payload: &'a [u8],
}

/// Why a datagram was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Drop {
    /// Shorter than a header, an option of the wrong length, or a message without the address it is about.
    Malformed,
    /// A reply or an unknown operation: only requests come to a server.
    NotARequest,
    /// The hardware address in the message is not an Ethernet station's.
    NotEthernet,
    /// `chaddr` is not the sender of the frame: a guest speaks for itself only.
    Impostor,
    /// Came through a relay agent; this server has its guests on its own link.
    Relayed,
    /// BOOTP: no message type.
    Bootp,
    /// A message type that servers do not take.
    UnknownMessage,
    /// Addressed to another server, by its IP destination or by option 54.
    NotForUs,
    /// A client id longer than any that RFC 4361 can make.
    ClientIdTooLong,
    /// Every address is held by a guest or quarantined.
    NoFreeAddress,
    /// One MAC address holds as many addresses as one may.
    TooManyAddresses,
    /// INIT-REBOOT of a client without a lease: RFC 2131 §4.3.2 asks for silence.
    UnknownClient,
    /// RELEASE or DECLINE of an address that this client does not have.
    NoSuchLease,
    /// INFORM from an address that is not of this subnet.
    WrongNetwork,
}
