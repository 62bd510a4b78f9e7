//! One lease, and what can happen to it.

use std::net::Ipv4Addr;
use std::time::Instant;
use vmnet_wire::ethernet::Mac;

/// What is known of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Who has or had it.
    pub mac: Mac,
    /// Option 61 as the guest sent it, if it did.
    pub client_id: Option<Vec<u8>>,
    /// What the guest calls itself, as one DNS label in lower case.
    pub host_name: Option<String>,
    /// The name that is this lease's in DNS: `host_name`, unless another live lease had it first.
    /// Only a [`State::Bound`] lease has one.
    pub name: Option<String>,
    /// When `state` ends ([`State::Offered`], [`State::Bound`], [`State::Declined`]) or when the
    /// lease ended ([`State::Expired`], [`State::Released`]).
    pub expires: Instant,
    /// Where the lease stands.
    pub state: State,
}

/// Where a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Offered, not yet taken.
    Offered,
    /// A guest has it.
    Bound,
    /// Was not renewed in time; remembered for its guest until another one needs it.
    Expired,
    /// Was given back; remembered for its guest until another one needs it.
    Released,
    /// A guest found the address in use; nobody gets it for a while.
    Declined,
}

/// Something happened to a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange {
    /// A guest has it, anew or for longer.
    Bound(Lease),
    /// The guest has it no longer; `state` says why. A store keeps it for the guest, unless it is
    /// [`State::Declined`].
    Ended(Lease),
    /// No longer remembered (its address went to another guest, or the guest to another address),
    /// and ended if it had not before.
    Forgotten(Lease),
}
