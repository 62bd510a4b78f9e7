//! What the store has of a register, and what becomes of a lease that it does not take.
//!
//! A guest is told of a lease only when the store has it. Until then the register keeps the address for it,
//! so that nobody else gets it. A lease that was not stored goes back to what its guest knows: a renewal to the lease
//! before it, a first lease to an offer, which gives way to others.

use super::Address;
use super::book::Entry;
use super::grant::{OFFER_TIME, Register, end, former_of};
use super::lease::{Lease, LeaseChange, State};
use std::time::Instant;

impl<A: Address> Register<A> {
    /// What a store has to have of an address. `None`: nothing.
    pub(super) fn record(&self, address: A) -> Option<Lease<A>> {
        let entry = self.pool.book().get(address)?;
        let lease = entry.lease.clone();
        match lease.state {
            State::Bound | State::Expired | State::Released => Some(lease),
            State::Offered => former_of(entry).map(|(state, expires)| Lease {
                state,
                expires,
                name: None,
                ..lease
            }),
            State::Declined => None,
        }
    }

    /// The store has a bound lease. Answers whether it still is one.
    pub(super) fn stored(&mut self, lease: &Lease<A>) -> bool {
        let is = self.is(lease);
        if is {
            self.pool.set_stored(lease.address, lease.expires);
        }
        is
    }

    /// The store may not have a bound lease: its guest is not told of it.
    pub(super) fn not_stored(&mut self, now: Instant, lease: &Lease<A>) -> Option<LeaseChange<A>> {
        if !self.is(lease) {
            return None;
        }
        let mut entry = self.pool.take(lease.address)?;
        let mut change = None;
        match entry.stored {
            Some(until) if until > now => entry.lease.expires = until,
            Some(until) => {
                end(&mut entry, State::Expired, Some(until));
                change = Some(LeaseChange::Ended(entry.lease.clone()));
            }
            None => end(&mut entry, State::Offered, Some(now + OFFER_TIME)),
        }
        self.pool.put(entry);
        change
    }

    /// Whether a lease is still that of the guest it was made for.
    fn is(&self, lease: &Lease<A>) -> bool {
        let same = |entry: &Entry<A>| {
            let known = &entry.lease;
            known.state == State::Bound && (known.mac, known.id()) == (lease.mac, lease.id())
        };
        self.pool.book().get(lease.address).is_some_and(same)
    }
}
