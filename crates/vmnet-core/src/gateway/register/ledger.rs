//! Leases are stored before they are acknowledged: what is still to be written, and which replies wait for it.
//!
//! - The unit is an address: a [write](LeaseWrite) says what the store is to have of it now, not what happened. An
//!   address that changes ten times while the store is busy is written once, so a guest that repeats its
//!   REQUEST costs nothing more, and a write that failed is made up for by the next.
//! - One batch is under way at a time, hence writes reach the store in order. What changes meanwhile goes
//!   into the next batch, together: the slower the store, the larger its batches.
//! - After a failure the store may have the batch or not; all of its addresses are written again, with the
//!   next change or after [`RETRY`].
//!
//! Bounds: an address is listed once; [`WAITING_MAX`] replies wait, one for an address.

use super::lease::{Lease, LeaseChange, State};
use super::{Address, HasRegister, Reply};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Replies that wait at once: above it, the one that waits longest is given up.
const WAITING_MAX: usize = 1024;
/// How long a reply may wait: its client has asked again since. Shorter than any part of a lease that
/// matters; clients count their lease from when they asked (RFC 2131 §4.4.1).
const WAIT: Duration = Duration::from_secs(10);
/// When a failed batch is tried again if nothing else is to be written before.
const RETRY: Duration = Duration::from_secs(5);

/// The name of a batch of writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreTicket {
    /// Each family counts for itself.
    is_ipv6: bool,
    number: u64,
}

/// What a store is to have of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseWrite<A> {
    /// This lease: bound, expired or released.
    Put(Lease<A>),
    /// Nothing.
    Remove(A),
}

/// What came of a batch.
#[derive(Debug)]
pub struct Settled<A> {
    /// Replies to send.
    pub replies: Vec<Reply<A>>,
    /// Leases that are stored and still run: their names are theirs now.
    pub bound: Vec<Lease<A>>,
    /// Leases that ended because their renewal was not stored.
    pub ended: Vec<LeaseChange<A>>,
    /// Replies that are not sent because their leases were not stored.
    pub refused: usize,
    /// Replies that are not sent because they waited too long, or their leases have ended since.
    pub late: usize,
}

/// What is to be written, and who waits.
#[derive(Debug)]
pub struct Ledger<A> {
    /// Addresses of which the store may not have what the table has.
    unwritten: BTreeSet<A>,
    /// Something is unwritten that was not tried yet.
    fresh: bool,
    /// When what failed is tried again.
    retry: Option<Instant>,
    under_way: Option<(StoreTicket, Vec<LeaseWrite<A>>)>,
    /// Of the batch that comes next.
    next: u64,
    waiting: BTreeMap<A, Waiting<A>>,
    /// In the order in which they came.
    by_age: BTreeMap<u64, A>,
    count: u64,
}

/// A reply that waits for the store.
#[derive(Debug)]
struct Waiting<A> {
    /// All that the reply speaks of; it is kept by the first.
    leases: Vec<Lease<A>>,
    reply: Reply<A>,
    ticket: StoreTicket,
    since: Instant,
    number: u64,
}

impl<A: Address> LeaseWrite<A> {
    /// The same for whichever family.
    pub(in crate::gateway) fn any(&self) -> LeaseWrite<IpAddr> {
        match self {
            Self::Put(lease) => LeaseWrite::Put(lease.any()),
            Self::Remove(address) => LeaseWrite::Remove((*address).into()),
        }
    }
}

impl<A> Default for Settled<A> {
    fn default() -> Self {
        Self {
            replies: Vec::new(),
            bound: Vec::new(),
            ended: Vec::new(),
            refused: 0,
            late: 0,
        }
    }
}

impl<A> Default for Ledger<A> {
    fn default() -> Self {
        Self {
            unwritten: BTreeSet::new(),
            fresh: false,
            retry: None,
            under_way: None,
            next: 0,
            waiting: BTreeMap::new(),
            by_age: BTreeMap::new(),
            count: 0,
        }
    }
}

impl<A: Address> Ledger<A> {
    /// Notes what is to be written. Call it with every change of the server, in order.
    pub fn note(&mut self, change: &LeaseChange<A>) {
        self.unwritten.insert(change.lease().address);
        self.fresh = true;
    }

    /// The store has something of an address that could not be restored: the next batch puts that right.
    pub fn refuse(&mut self, address: A) {
        self.unwritten.insert(address);
    }

    /// Keeps the reply about leases, just noted, until the store has them: one batch has all of them. A repeated question
    /// gets one answer: the last. Answers whether another reply was given up for it.
    pub fn hold(&mut self, now: Instant, leases: Vec<Lease<A>>, reply: Reply<A>) -> bool {
        let Some(address) = leases.first().map(|lease| lease.address) else {
            return false;
        };
        self.drop_waiting(address);
        let oldest = self.by_age.first_key_value().map(|(_, address)| *address);
        let given_up = oldest.filter(|_| self.waiting.len() >= WAITING_MAX);
        given_up
            .into_iter()
            .for_each(|address| drop(self.drop_waiting(address)));
        let number = self.count;
        self.count += 1;
        self.by_age.insert(number, address);
        let waiting = Waiting {
            ticket: self.ticket(),
            since: now,
            leases,
            reply,
            number,
        };
        self.waiting.insert(address, waiting);
        given_up.is_some()
    }

    /// The next batch, if there is something to write and nothing under way. To be stored all or nothing,
    /// and [settled](Self::settle) then.
    pub fn write(
        &mut self,
        now: Instant,
        server: &impl HasRegister<A>,
    ) -> Option<(StoreTicket, Vec<LeaseWrite<A>>)> {
        let due = self.fresh || self.retry.is_some_and(|at| at <= now);
        if !due || self.under_way.is_some() || self.unwritten.is_empty() {
            return None;
        }
        (self.fresh, self.retry) = (false, None);
        let write = |address| {
            let lease = server.register().record(address);
            lease.map_or(LeaseWrite::Remove(address), LeaseWrite::Put)
        };
        let writes: Vec<_> = std::mem::take(&mut self.unwritten)
            .into_iter()
            .map(write)
            .collect();
        let batch = (self.ticket(), writes);
        self.next += 1;
        self.under_way = Some(batch.clone());
        Some(batch)
    }

    /// The store has a batch, for good, or may not have it. Ask for the next [batch](Self::write) then. Nothing
    /// happens if the batch is not the one under way.
    pub fn settle(
        &mut self,
        now: Instant,
        server: &mut impl HasRegister<A>,
        ticket: StoreTicket,
        stored: bool,
    ) -> Settled<A> {
        let mut settled = Settled::default();
        let Some((_, writes)) = self.under_way.take_if(|(name, _)| *name == ticket) else {
            return settled;
        };
        for write in writes {
            match write {
                LeaseWrite::Put(lease) if stored => {
                    if lease.state == State::Bound && server.register_mut().stored(&lease) {
                        settled.bound.push(lease);
                    }
                }
                LeaseWrite::Put(lease) => {
                    // A lease that was asked for again has its own try in the next batch.
                    let again = self.unwritten.contains(&lease.address);
                    if !again && lease.state == State::Bound {
                        settled
                            .ended
                            .extend(server.register_mut().not_stored(now, &lease));
                    }
                    self.unwritten.insert(lease.address);
                }
                LeaseWrite::Remove(_) if stored => {}
                LeaseWrite::Remove(address) => drop(self.unwritten.insert(address)),
            }
        }
        if !stored {
            self.retry = Some(now + RETRY);
        }
        self.answer(now, server, ticket, stored, &mut settled);
        settled
    }

    /// When a failed batch is to be tried again.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.retry.filter(|_| self.under_way.is_none())
    }

    /// Replies that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn answer(
        &mut self,
        now: Instant,
        server: &impl HasRegister<A>,
        ticket: StoreTicket,
        stored: bool,
        settled: &mut Settled<A>,
    ) {
        let of_batch = self
            .waiting
            .values()
            .filter(|waiting| waiting.ticket == ticket);
        let addresses: Vec<_> = of_batch
            .filter_map(|waiting| waiting.leases.first())
            .map(|lease| lease.address)
            .collect();
        for address in addresses {
            let Some(waiting) = self.drop_waiting(address) else {
                continue;
            };
            let runs = waiting.leases.iter().all(|held| {
                let lease = server.register().lease(held.address);
                lease.is_some_and(|lease| lease.state == State::Bound && lease.mac == held.mac)
            });
            if !stored {
                settled.refused += 1;
            } else if runs && now.saturating_duration_since(waiting.since) <= WAIT {
                settled.replies.push(waiting.reply);
            } else {
                settled.late += 1;
            }
        }
    }

    fn ticket(&self) -> StoreTicket {
        StoreTicket {
            is_ipv6: A::LAST.into().is_ipv6(),
            number: self.next,
        }
    }

    fn drop_waiting(&mut self, address: A) -> Option<Waiting<A>> {
        let waiting = self.waiting.remove(&address)?;
        self.by_age.remove(&waiting.number);
        Some(waiting)
    }
}
