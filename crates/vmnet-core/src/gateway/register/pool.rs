//! Which address does a guest get?
//!
//! In this order, the first that the guest may have:
//!
//! 1. the address reserved for it, unless another guest still has it;
//! 2. the address it has or had: a lease is remembered until somebody else needs its address;
//! 3. the address it asks for (option 50), if nobody has or had it;
//! 4. the first address nobody has or had, from the place that its client id hashes to, so that a guest
//!    gets the same one from a server that has forgotten everything;
//! 5. the address whose lease ended longest ago;
//! 6. the address offered longest ago and not taken yet.
//!
//! So a pool is dry only when every address is bound, declined or kept for somebody. An offer that gave way
//! loses nothing but its place: a REQUEST for it is granted if it comes before the other guest's, hence a
//! flood of DISCOVERs keeps nobody out, and it never touches a bound lease.

use super::Address;
use super::book::{Book, Entry, Queue};
use super::free::FreeMap;
use super::grant::MAX_PER_MAC;
use super::identity::Client;
use super::lease::State;
use super::reservation::{Reservations, Reservee};
use std::time::Instant;

/// All addresses a server can give: who has them and for whom they are kept.
#[derive(Debug)]
pub(super) struct Pool<A> {
    free: FreeMap<A>,
    book: Book<A>,
    reservations: Reservations<A>,
    range: Range<A>,
}

/// Which addresses a server gives.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Range<A> {
    /// The first and the last of the network: reservations may be anywhere in it.
    pub(in crate::gateway) network: (A, A),
    /// The first that is given to whoever comes.
    pub(in crate::gateway) first: A,
    /// The last one; the one before `first` if none is.
    pub(in crate::gateway) last: A,
    /// Those that are nobody's: the network's, the gateway's, the broadcast.
    pub(in crate::gateway) closed: Vec<A>,
}

impl<A: Address> Pool<A> {
    /// All addresses of a range, free.
    pub(super) fn new(range: Range<A>) -> Self {
        let mut free = FreeMap::new(range.first, range.last);
        for address in &range.closed {
            free.mark(*address, true);
        }
        let (book, reservations) = Default::default();
        Self {
            free,
            book,
            reservations,
            range,
        }
    }

    /// Whether a guest could have this address: of the network, and not one of those that are nobody's.
    pub(super) fn is_guest_address(&self, address: A) -> bool {
        let (first, last) = self.range.network;
        (first..=last).contains(&address) && !self.range.closed.contains(&address)
    }

    /// The address to offer to a guest.
    pub(super) fn choose(&self, client: &Client<A>, requested: Option<A>) -> Option<A> {
        let reserved = client
            .reserved
            .filter(|address| self.can_give_way(*address, client));
        let own = || client.own.filter(|address| self.may_have(*address, client));
        let requested = || requested.filter(|address| self.free.is_free(*address));
        let fresh = || self.free.after(client.key.place());
        let oldest = |queue| {
            self.book
                .queue(queue)
                .find(|address| self.may_have(*address, client))
        };
        reserved
            .or_else(own)
            .or_else(requested)
            .or_else(fresh)
            .or_else(|| oldest(Queue::Idle))
            .or_else(|| oldest(Queue::Offered))
    }

    /// Whether a guest may take an address that it asks for by a REQUEST.
    pub(super) fn may_take(&self, address: A, client: &Client<A>) -> bool {
        let moves = client
            .reserved
            .is_some_and(|r| r != address && self.can_give_way(r, client));
        let unclaimed = || match self.book.get(address).map(|entry| entry.lease.state) {
            None | Some(State::Offered) => true,
            Some(State::Bound | State::Expired | State::Released | State::Declined) => false,
        };
        let its_own = client.own.map_or_else(unclaimed, |own| own == address);
        its_own && !moves && self.may_have(address, client)
    }

    /// Whether an address could be a guest's at all: it is kept for it, or of the pool and kept for nobody.
    pub(super) fn may_have(&self, address: A, client: &Client<A>) -> bool {
        match self.reservations.holder(address) {
            Some(_) => client.reserved == Some(address),
            None => self.is_dynamic(address),
        }
    }

    /// Whether an address is of the pool, or kept for somebody beside it.
    pub(super) fn is_known(&self, address: A) -> bool {
        self.is_dynamic(address) || self.reservations.holder(address).is_some()
    }

    /// How many addresses may be declined at once: a quarter, so that no guest can close a pool by lies.
    pub(super) fn max_declined(&self) -> usize {
        usize::try_from(self.free.size() / 4)
            .unwrap_or(usize::MAX)
            .max(1)
    }

    /// How many addresses the guests behind one port may hold: half of them, so that no guest takes all under many names; a
    /// few in any pool.
    pub(super) fn port_share(&self) -> usize {
        let half = usize::try_from(self.free.size() / 2).unwrap_or(usize::MAX);
        half.max(MAX_PER_MAC)
    }

    /// Who has what.
    pub(super) fn book(&self) -> &Book<A> {
        &self.book
    }

    /// The store has a bound lease, until then at least.
    pub(super) fn set_stored(&mut self, address: A, until: Instant) {
        self.book.set_stored(address, until);
    }

    /// For whom addresses are kept.
    pub(super) fn reservations(&self) -> &Reservations<A> {
        &self.reservations
    }

    /// Writes an entry down.
    pub(super) fn put(&mut self, entry: Entry<A>) {
        let address = entry.lease.address;
        self.book.put(entry);
        self.mark(address);
    }

    /// Takes an entry out.
    pub(super) fn take(&mut self, address: A) -> Option<Entry<A>> {
        let entry = self.book.take(address);
        self.mark(address);
        entry
    }

    /// Keeps an address for a guest.
    pub(super) fn reserve(&mut self, reservee: Reservee, address: A) {
        let before = self.reservations.insert(reservee, address);
        for address in before.into_iter().chain([address]) {
            self.mark(address);
        }
    }

    /// Keeps nothing for a guest any more.
    pub(super) fn unreserve(&mut self, reservee: &Reservee) -> Option<A> {
        let address = self.reservations.remove(reservee)?;
        self.mark(address);
        Some(address)
    }

    fn is_dynamic(&self, address: A) -> bool {
        self.free.contains(address) && !self.range.closed.contains(&address)
    }

    /// Whether an address is the guest's own, or nobody's, or somebody's who has no right to it now.
    fn can_give_way(&self, address: A, client: &Client<A>) -> bool {
        let entry = self.book.get(address);
        client.own == Some(address)
            || entry.is_none_or(|entry| match entry.lease.state {
                State::Bound | State::Declined => false,
                State::Offered | State::Expired | State::Released => true,
            })
    }

    fn mark(&mut self, address: A) {
        let taken = self.range.closed.contains(&address)
            || self.book.get(address).is_some()
            || self.reservations.holder(address).is_some();
        self.free.mark(address, taken);
    }
}
