//! One lease, and what can happen to it.

use std::net::IpAddr;
use std::time::Instant;
use vmnet_wire::ethernet::Mac;

/// What is known of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease<A> {
    /// The address.
    pub address: A,
    /// Who has or had it.
    pub mac: Mac,
    /// As the guest calls itself: option 61 of DHCPv4, if it sent one; the DUID of DHCPv6.
    pub client_id: Option<Vec<u8>>,
    /// Which of a guest's addresses this is (IAID), in DHCPv6.
    pub iaid: Option<u32>,
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
pub enum LeaseChange<A> {
    /// A guest has it, anew or for longer.
    Bound(Lease<A>),
    /// The guest has it no longer; `state` says why. A store keeps it for the guest, unless it is
    /// [`State::Declined`].
    Ended(Lease<A>),
    /// No longer remembered (its address went to another guest, or the guest to another address),
    /// and ended if it had not before.
    Forgotten(Lease<A>),
}

impl<A: Copy + Into<IpAddr>> Lease<A> {
    /// The same lease, of whichever family.
    pub fn any(&self) -> Lease<IpAddr> {
        self.at(self.address.into())
    }

    /// The same lease with its address told otherwise.
    pub(in crate::gateway) fn at<B>(&self, address: B) -> Lease<B> {
        Lease {
            address,
            mac: self.mac,
            client_id: self.client_id.clone(),
            iaid: self.iaid,
            host_name: self.host_name.clone(),
            name: self.name.clone(),
            expires: self.expires,
            state: self.state,
        }
    }
}

impl<A> Lease<A> {
    /// What the guest's key is made of, if it told anything.
    pub(super) fn id(&self) -> Option<Vec<u8>> {
        id(self.client_id.as_deref(), self.iaid)
    }
}

impl<A> LeaseChange<A> {
    /// The lease it is about.
    #[must_use]
    pub fn lease(&self) -> &Lease<A> {
        match self {
            Self::Bound(lease) | Self::Ended(lease) | Self::Forgotten(lease) => lease,
        }
    }
}

/// One identity out of a client id and the number of the address that a client wants by it.
pub(super) fn id(client_id: Option<&[u8]>, iaid: Option<u32>) -> Option<Vec<u8>> {
    let client_id = client_id?;
    let iaid = iaid.map(u32::to_be_bytes);
    Some(iaid.iter().flatten().chain(client_id).copied().collect())
}
