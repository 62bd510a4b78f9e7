//! DHCPv4 server: gives each guest an address that stays with it.
//!
//! | file | question it answers |
//! | --- | --- |
//! | `server`: [`Server`] | what is answered to which message, in which state |
//! | `server/host` | what the host does: leases put back and ended, addresses kept |
//! | `server/stored`, `ledger`: [`Ledger`] | which leases the store has, and who waits for it |
//! | `pool` | which address does a guest get |
//! | `free` | which addresses nobody has |
//! | `book` | who has which address, and until when |
//! | `lease`: [`Lease`], [`LeaseChange`] | what is known of one lease, and what happens to it |
//! | `identity` | are two messages from the same guest |
//! | `reservation`: [`Reservee`] | addresses kept for one guest by the host |
//! | `name` | which DNS name does a guest get |
//! | `message` | bytes to messages and back; the only file that knows `dhcproto` |
//! | `reply` | which options go into an answer, where the answer goes |
//! | `config`: [`Config`] | what a network says about itself |
//!
//! RFC 2131 (protocol), 2132 (options), 3396 (long options), 3397 (search list), 3442 (classless
//! routes), 4361 (client ids), 4702 (option 81, read only), 6842 (client id echoed).
//!
//! Sans-IO: the caller strips Ethernet, IP and UDP, and wraps what comes back. Not done: relay
//! agents, rapid commit, BOOTP, authentication, lease queries, probing an address before it is
//! offered (the guest does that, RFC 5227, and declines).

mod book;
mod config;
mod free;
#[cfg(test)]
mod guest;
mod identity;
mod lease;
mod ledger;
mod message;
mod name;
mod pool;
mod reply;
mod reservation;
mod server;

pub use config::{Config, ConfigError};
pub use lease::{Lease, LeaseChange, State};
pub use ledger::{LeaseWrite, Ledger, Settled, StoreTicket};
pub use reservation::{ReserveError, Reservee};
pub use server::{RestoreError, Server};

use std::net::Ipv4Addr;
use vmnet_wire::ethernet::Mac;

/// The UDP port a server listens on.
pub const SERVER_PORT: u16 = 67;
/// The UDP port a client listens on.
pub const CLIENT_PORT: u16 = 68;

/// A datagram that came to port 67.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Who sent the frame.
    pub ethernet_source: Mac,
    /// Who sent the packet; zero while the guest has no address.
    pub ip_source: Ipv4Addr,
    /// To whom: the gateway or a broadcast address.
    pub ip_destination: Ipv4Addr,
    /// What UDP carried.
    pub payload: &'a [u8],
}

/// A datagram to send, from the gateway's address and port 67.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Destination of the frame; may be broadcast.
    pub mac: Mac,
    /// Destination of the packet; may be 255.255.255.255.
    pub address: Ipv4Addr,
    /// Destination port, [`CLIENT_PORT`].
    pub port: u16,
    /// What UDP carries.
    pub payload: Vec<u8>,
}

/// What a datagram led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What to do for the guest.
    pub outcome: Outcome,
    /// What happened to leases, in order: this guest's, those that ended in the meantime, and those
    /// that gave way. Store them, then send the reply.
    pub changes: Vec<LeaseChange>,
}

/// What a guest gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An answer to send.
    Reply(Reply),
    /// Understood; the protocol has no answer to it (RELEASE, DECLINE).
    Noted,
    /// Not answered, for this cause.
    Dropped(Drop),
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
