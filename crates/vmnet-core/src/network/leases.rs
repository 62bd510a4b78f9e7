//! Leases stored, put back and ended, and addresses reserved: what the host has to do with them.

use core::net::Ipv4Addr;
use std::time::Instant;

use crate::gateway::dhcp::{self, Lease, ReserveError, Reservee, RestoreError, StoreTicket};
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
    pub fn restore_leases(&mut self, leases: Vec<Lease>) -> Vec<(Ipv4Addr, RestoreError)> {
        self.services.restore_leases(leases)
    }

    /// Ends a lease at once; its address is free. Answers whether there was one. A guest that still uses the
    /// address is not told: it is refused when it renews, if another has the address by then.
    pub fn release_lease(&mut self, now: Instant, address: Ipv4Addr, out: &mut Outbox) -> bool {
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
    pub fn reserve(&mut self, reservee: Reservee, address: Ipv4Addr) -> Result<(), ReserveError> {
        let dhcp = self.services.dhcp.as_mut();
        dhcp.ok_or(ReserveError::NoServer)?
            .reserve(reservee, address)
    }

    /// Takes a reservation back and returns its address.
    pub fn unreserve(&mut self, reservee: &Reservee) -> Option<Ipv4Addr> {
        self.services.dhcp.as_mut()?.unreserve(reservee)
    }

    /// All reservations, by address.
    pub fn reservations(&self) -> impl Iterator<Item = (&Reservee, Ipv4Addr)> {
        let dhcp = self.services.dhcp.iter();
        dhcp.flat_map(dhcp::Server::reservations)
    }
}
