//! Leases stored, put back and ended, and addresses reserved: what the host has to do with them.

use core::net::IpAddr;
use std::time::Instant;

use crate::gateway::register::{Lease, ReserveError, Reservee, RestoreError, StoreTicket};
use crate::link::Link;
use crate::network::Network;
use crate::outbox::Outbox;

impl Network {
    /// Answers [`Action::StoreLeases`](crate::Action::StoreLeases). `stored`: the store has them, whatever
    /// happens to this process or the host. If not, it may have them or not; they are not acknowledged, and come again.
    pub fn leases_stored(
        &mut self,
        now: Instant,
        ticket: StoreTicket,
        stored: bool,
        out: &mut Outbox,
    ) {
        let Some(gateway) = self.gateway else {
            return;
        };
        let mut link = link!(self, gateway, now, out);
        self.services.leases_stored(&mut link, ticket, stored);
        self.follow = true;
    }

    /// Puts stored leases back, at start, after the reservations. The answer are those that do not fit to this network
    /// or to another lease; they are taken out of the store in time.
    pub fn restore_leases(&mut self, leases: Vec<Lease<IpAddr>>) -> Vec<(IpAddr, RestoreError)> {
        self.services.restore_leases(leases)
    }

    /// Ends a lease at once; its address is free. Answers whether there was one. A guest that still uses the
    /// address is not told: it is refused when it renews, if another has the address by then.
    pub fn release_lease(&mut self, now: Instant, address: IpAddr, out: &mut Outbox) -> bool {
        let Some(gateway) = self.gateway else {
            return false;
        };
        let mut link = link!(self, gateway, now, out);
        let released = self.services.release_lease(&mut link, address);
        self.follow = true;
        released
    }

    /// Keeps an address for a guest, from its next DHCP message on.
    ///
    /// # Errors
    /// See [`ReserveError`].
    pub fn reserve(&mut self, reservee: Reservee, address: IpAddr) -> Result<(), ReserveError> {
        self.services.reserve(reservee, address)
    }

    /// Takes the reservation of an address back and returns for whom it was.
    pub fn unreserve(&mut self, address: IpAddr) -> Option<Reservee> {
        self.services.unreserve(address)
    }

    /// All reservations, by address.
    pub fn reservations(&self) -> impl Iterator<Item = (&Reservee, IpAddr)> {
        self.services.reservations()
    }
}
