//! What the host does to a register: leases put back at start and ended, addresses kept for guests.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::book::Entry;
use super::grant::{Register, was_leased};
use super::lease::{Lease, LeaseChange, State};
use super::reservation::{ReserveError, Reservee};
use super::{Address, identity, name};
use vmnet_wire::ethernet::Mac;

/// Reservations at most; as many as a pool has addresses.
const MAX_RESERVATIONS: usize = 1 << 16;

/// Why a lease cannot be restored; the caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The network has changed since.
    #[error("{0} is no longer an address for guests of this network; forget this lease")]
    UnknownAddress(IpAddr),
    /// Another lease has the address.
    #[error("{0} is leased already")]
    AddressTaken(IpAddr),
    /// The guest has another address.
    #[error("{0} is not restored: its guest has {1} already")]
    GuestTaken(IpAddr, IpAddr),
    /// An offer or a declined address is no lease.
    #[error("{0} is not a lease: only bound, expired and released ones are restored")]
    NoLease(IpAddr),
}

impl<A: Address> Register<A> {
    /// Puts stored leases back, at start, after the reservations: first those that run, then what ended last. So
    /// where two are at odds, the one that matters more comes back. The answer are those that do not fit.
    pub(in crate::gateway) fn restore_all(
        &mut self,
        mut leases: Vec<Lease<A>>,
    ) -> Vec<(A, RestoreError)> {
        leases.sort_by_key(|lease| Reverse((lease.state == State::Bound, lease.expires)));
        let restore = |lease: Lease<A>| {
            let address = lease.address;
            self.restore(lease).err().map(|error| (address, error))
        };
        leases.into_iter().filter_map(restore).collect()
    }

    /// Puts one stored lease back. Its name is its own again if no other
    /// lease has it. One that runs is taken beside the pool too: its guest uses the address, so nobody
    /// else may get it, and it is refused when it renews.
    ///
    /// # Errors
    /// It does not fit to this network or to what was restored before; nothing is changed then.
    pub(in crate::gateway) fn restore(&mut self, mut lease: Lease<A>) -> Result<(), RestoreError> {
        let address = lease.address;
        let fits = match lease.state {
            State::Bound => self.pool.is_guest_address(address),
            State::Expired | State::Released => self.pool.is_known(address),
            State::Offered | State::Declined => return Err(RestoreError::NoLease(address.into())),
        };
        if !fits {
            return Err(RestoreError::UnknownAddress(address.into()));
        }
        if self.lease(address).is_some() {
            return Err(RestoreError::AddressTaken(address.into()));
        }
        lease.client_id = lease.client_id.filter(|id| !id.is_empty());
        let id = lease.id();
        let key = identity::restored(self.pool.book(), id.as_deref(), lease.mac)
            .map_err(|other| RestoreError::GuestTaken(address.into(), other.into()))?;
        lease.host_name = lease
            .host_name
            .and_then(|name| name::label(name.as_bytes()));
        let live = lease.state == State::Bound;
        lease.name = self.free_name(lease.host_name.as_deref().filter(|_| live));
        let stored = live.then_some(lease.expires);
        self.pool.put(Entry {
            lease,
            key: Some(key),
            former: None,
            stored,
            port: None,
        });
        Ok(())
    }

    /// Forgets an address at once, for the host's administrator: its guest is refused at the next renewal,
    /// unless nobody else has the address then. `None` if nothing was known.
    pub(in crate::gateway) fn forget(&mut self, address: A) -> Option<LeaseChange<A>> {
        let entry = self.pool.take(address)?;
        was_leased(&entry).then_some(LeaseChange::Forgotten(entry.lease))
    }

    /// Keeps an address for a guest. It may lie beside the pool. If the guest has another one now, it moves at
    /// its next message.
    ///
    /// # Errors
    /// The address or the name cannot be a guest's, it is another's reservation, or another has it leased.
    pub(in crate::gateway) fn reserve(
        &mut self,
        reservee: Reservee,
        address: A,
    ) -> Result<(), ReserveError> {
        if !self.pool.is_guest_address(address) {
            return Err(ReserveError::NotAGuestAddress(address.into()));
        }
        let reservee = normal(reservee)?;
        let reservations = self.pool.reservations();
        if let Some(holder) = reservations.holder(address).filter(|h| **h != reservee) {
            return Err(ReserveError::Taken(address.into(), holder.clone()));
        }
        let live = self
            .lease(address)
            .filter(|lease| lease.state == State::Bound);
        if let Some(lease) = live.filter(|lease| !reservee.is_holder(lease)) {
            let name = lease.name.clone();
            return Err(ReserveError::Held(address.into(), lease.mac, name));
        }
        if reservations.len() >= MAX_RESERVATIONS {
            return Err(ReserveError::TooMany(MAX_RESERVATIONS));
        }
        self.pool.reserve(reservee, address);
        Ok(())
    }

    /// Takes a reservation back. A guest that has its address keeps it as a lease of the
    /// pool, or until it renews if the address is beside the pool.
    pub(in crate::gateway) fn unreserve(&mut self, address: A) -> Option<Reservee> {
        let reservee = self.pool.reservations().holder(address)?.clone();
        self.pool.unreserve(&reservee);
        Some(reservee)
    }

    /// All reservations, by address.
    pub(in crate::gateway) fn reservations(&self) -> impl Iterator<Item = (&Reservee, A)> {
        self.pool.reservations().iter()
    }

    /// For whom an address is kept.
    pub(in crate::gateway) fn kept_for(&self, address: A) -> Option<&Reservee> {
        self.pool.reservations().holder(address)
    }

    /// The address that a MAC has leased now; one of them if it has several.
    pub(in crate::gateway) fn bound_to(&self, mac: Mac) -> Option<A> {
        let address = self.pool.book().any_of(mac)?;
        let lease = self.lease(address)?;
        (lease.state == State::Bound).then_some(address)
    }
}

/// A reservee with its name as guests' names are written.
fn normal(reservee: Reservee) -> Result<Reservee, ReserveError> {
    match reservee {
        Reservee::Name(told) => {
            let label = name::label(told.as_bytes());
            label.map(Reservee::Name).ok_or(ReserveError::Name(told))
        }
        Reservee::Mac(_) | Reservee::ClientId(_) => Ok(reservee),
    }
}
