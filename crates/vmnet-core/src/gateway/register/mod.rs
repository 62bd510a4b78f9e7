//! Who has which address: the part of a DHCP server that does not depend on the version of DHCP.
//!
//! | file | question it answers |
//! | --- | --- |
//! | `book` | who has which address, and until when |
//! | `free` | which addresses nobody has |
//! | `pool` | which address does a guest get |
//! | `grant`: [`Register`] | what becomes of an address: offered, bound, declined, released, run out |
//! | `host` | what the host does: leases put back and ended, addresses kept |
//! | `stored`, `ledger`: [`Ledger`] | which leases the store has, and who waits for it |
//! | `lease`: [`Lease`], [`LeaseChange`] | what is known of one lease, and what happens to it |
//! | `identity` | are two messages from the same guest |
//! | `reservation`: [`Reservee`] | addresses kept for one guest by the host |
//! | `name` | which DNS name does a guest get |
//!
//! Both servers, [`dhcp`](super::dhcp) and [`dhcp6`](super::dhcp6), have one of these: for addresses of their
//! family ([`Address`]). Messages, times on the wire and options are theirs.

mod book;
mod free;
mod grant;
mod host;
mod identity;
mod lease;
mod ledger;
mod name;
mod pool;
mod reservation;
mod stored;

pub use grant::Register;
pub use host::RestoreError;
pub use lease::{Lease, LeaseChange, State};
pub use ledger::{LeaseWrite, Ledger, Settled, StoreTicket};
pub use reservation::{ReserveError, Reservee};

pub(super) use free::size;
pub(super) use identity::{Client, MAX_CLIENT_ID, Station};
pub(super) use name::{label, label_of_fqdn, label_of_wire_name};
pub(super) use pool::Range;

use std::fmt::{Debug, Display};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vmnet_wire::ethernet::Mac;

/// Addresses in the largest pool: a table of leases is never bigger.
pub(super) const MAX_POOL: u32 = 1 << 16;

/// An address of one family.
pub trait Address: Copy + Ord + Debug + Display + Into<IpAddr> + 'static {
    /// The first of all.
    const FIRST: Self;
    /// The last of all.
    const LAST: Self;
    /// As a number.
    fn bits(self) -> u128;
    /// From a number; bits that the family does not have are left out.
    fn from_bits(bits: u128) -> Self;
    /// If it is of this family.
    fn of(address: IpAddr) -> Option<Self>;
}

impl Address for Ipv4Addr {
    const FIRST: Self = Self::UNSPECIFIED;
    const LAST: Self = Self::BROADCAST;

    fn bits(self) -> u128 {
        self.to_bits().into()
    }

    fn from_bits(bits: u128) -> Self {
        let [.., a, b, c, d] = bits.to_be_bytes();
        Self::new(a, b, c, d)
    }

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }
}

impl Address for Ipv6Addr {
    const FIRST: Self = Self::UNSPECIFIED;
    const LAST: Self = Self::from_bits(u128::MAX);

    fn bits(self) -> u128 {
        self.to_bits()
    }

    fn from_bits(bits: u128) -> Self {
        Self::from_bits(bits)
    }

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        }
    }
}

/// A datagram of a server to a guest, from the server's address and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<A> {
    /// Destination of the frame; may be broadcast.
    pub mac: Mac,
    /// Destination of the packet; may be all of the link.
    pub address: A,
    /// Destination port: that of clients.
    pub port: u16,
    /// What UDP carries.
    pub payload: Vec<u8>,
}

/// What a datagram led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<A, D> {
    /// What to do for the guest.
    pub outcome: Outcome<A, D>,
    /// What happened to leases, in order: this guest's, those that ended in the meantime, and those
    /// that gave way. Store them, then send the reply.
    pub changes: Vec<LeaseChange<A>>,
}

/// What a guest gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<A, D> {
    /// An answer to send.
    Reply(Reply<A>),
    /// Understood; the protocol has no answer to it.
    Noted,
    /// Not answered, for this cause.
    Dropped(D),
}

/// Whoever has a register: a server.
pub trait HasRegister<A> {
    /// Its register.
    fn register(&self) -> &Register<A>;
    /// Its register, to change it.
    fn register_mut(&mut self) -> &mut Register<A>;
}
