//! Queries of guests that wait for an answer, and how many may.
//!
//! A guest at its limit is refused: what it asked first is closest to an answer. A full network makes room by ending
//! the oldest query of the guest with the most, unless that is the one who asks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::{Guest, QueryId, Transport};

/// Queries in flight of one guest; a browser that opens many pages needs about a hundred.
pub(super) const GUEST_LIMIT: usize = 128;

/// Queries in flight of a network. Each may hold a few sockets of the host.
pub(super) const NETWORK_LIMIT: usize = 1024;

/// Bytes of queries in flight of one guest: room for every query a UDP client sends, and for a few large updates.
pub(super) const GUEST_BYTES: usize = 256 * 1024;

/// Bytes of queries in flight of a network.
pub(super) const NETWORK_BYTES: usize = 4 * 1024 * 1024;

/// The number of a query of a guest; a later one is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(u64);

/// One query of a guest.
#[derive(Debug)]
pub(super) struct Waiting<A> {
    pub(super) guest: Guest,
    pub(super) asker: A,
    pub(super) transport: Transport,
    /// As the guest sent it.
    pub(super) message: Box<[u8]>,
    pub(super) id: u16,
    pub(super) opcode: u8,
    pub(super) question: Box<[u8]>,
    pub(super) plan: Plan,
    /// Attempts whose answer would still be taken, oldest first.
    pub(super) live: Vec<QueryId>,
    /// When to ask the next resolver, or to end.
    pub(super) next: Instant,
    /// When to end in any case.
    pub(super) give_up: Instant,
    /// The last refusal of a resolver: what the guest gets if nothing better comes.
    pub(super) refusal: Option<Box<[u8]>>,
}

/// Which resolver comes next.
#[derive(Debug, Default)]
pub(super) struct Plan {
    order: Vec<Candidate>,
    at: usize,
    attempts: u32,
}

#[derive(Debug)]
struct Candidate {
    address: SocketAddr,
    out: bool,
}

/// Refused, unreachable and silent resolvers together: more messages than this are never sent for one query.
const ATTEMPT_LIMIT: u32 = 12;

impl Plan {
    pub(super) fn new(order: Vec<SocketAddr>) -> Self {
        let order = order
            .into_iter()
            .map(|address| Candidate {
                address,
                out: false,
            })
            .collect();
        Self {
            order,
            at: 0,
            attempts: 0,
        }
    }

    /// Begins a new order, without a new allowance.
    pub(super) fn replace(&mut self, order: Vec<SocketAddr>) {
        *self = Self {
            attempts: self.attempts,
            ..Self::new(order)
        };
    }

    /// The next resolver in turn that has not refused.
    pub(super) fn next(&mut self) -> Option<SocketAddr> {
        if self.attempts >= ATTEMPT_LIMIT {
            return None;
        }
        for _ in 0..self.order.len() {
            let candidate = self.order.get(self.at);
            self.at = self.at.saturating_add(1).checked_rem(self.order.len())?;
            if let Some(candidate) = candidate.filter(|candidate| !candidate.out) {
                self.attempts = self.attempts.saturating_add(1);
                return Some(candidate.address);
            }
        }
        None
    }

    /// This resolver will not be asked again for this query.
    pub(super) fn rule_out(&mut self, address: SocketAddr) {
        if let Some(candidate) = self
            .order
            .iter_mut()
            .find(|candidate| candidate.address == address)
        {
            candidate.out = true;
        }
    }
}

/// Whether there is room for one more query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// After this query, the oldest of the busiest guest, is ended.
    Evict(Number),
    GuestFull,
    NetworkFull,
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    queries: usize,
    bytes: usize,
}

impl Share {
    fn add(&mut self, bytes: usize) {
        self.queries = self.queries.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn subtract(&mut self, bytes: usize) {
        self.queries = self.queries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// All queries that wait.
#[derive(Debug)]
pub(super) struct Pending<A> {
    queries: BTreeMap<Number, Waiting<A>>,
    guests: BTreeMap<Guest, Share>,
    all: Share,
    following: u64,
}

impl<A: Copy + Eq> Pending<A> {
    pub(super) fn new() -> Self {
        Self {
            queries: BTreeMap::new(),
            guests: BTreeMap::new(),
            all: Share::default(),
            following: 0,
        }
    }

    pub(super) fn insert(&mut self, query: Waiting<A>) -> Number {
        let number = Number(self.following);
        self.following = self.following.saturating_add(1);
        self.guests
            .entry(query.guest)
            .or_default()
            .add(query.message.len());
        self.all.add(query.message.len());
        self.queries.insert(number, query);
        number
    }

    pub(super) fn remove(&mut self, number: Number) -> Option<Waiting<A>> {
        let query = self.queries.remove(&number)?;
        self.all.subtract(query.message.len());
        if let Some(share) = self.guests.get_mut(&query.guest) {
            share.subtract(query.message.len());
            if share.queries == 0 {
                self.guests.remove(&query.guest);
            }
        }
        Some(query)
    }

    pub(super) fn get_mut(&mut self, number: Number) -> Option<&mut Waiting<A>> {
        self.queries.get_mut(&number)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiting<A>> {
        self.queries.values_mut()
    }

    /// The queries for which `wanted` holds.
    pub(super) fn numbers(&self, wanted: impl Fn(&Waiting<A>) -> bool) -> Vec<Number> {
        self.queries
            .iter()
            .filter(|(_, query)| wanted(query))
            .map(|(number, _)| *number)
            .collect()
    }

    /// When the first of all has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queries.values().map(|query| query.next).min()
    }

    pub(super) fn has(
        &self,
        guest: Guest,
        asker: A,
        transport: Transport,
        id: u16,
        question: &[u8],
    ) -> bool {
        self.guests.contains_key(&guest)
            && self.queries.values().any(|query| {
                query.id == id
                    && query.guest == guest
                    && query.asker == asker
                    && query.transport == transport
                    && *query.question == *question
            })
    }

    pub(super) fn room(&self, guest: Guest, bytes: usize) -> Room {
        let share = self.guests.get(&guest).copied().unwrap_or_default();
        if share.queries >= GUEST_LIMIT || share.bytes.saturating_add(bytes) > GUEST_BYTES {
            return Room::GuestFull;
        }
        let queries_full = self.all.queries >= NETWORK_LIMIT;
        if !queries_full && self.all.bytes.saturating_add(bytes) <= NETWORK_BYTES {
            return Room::Free;
        }
        let weight = |share: &Share| {
            if queries_full {
                share.queries
            } else {
                share.bytes
            }
        };
        self.guests
            .iter()
            .max_by_key(|(_, share)| weight(share))
            .filter(|(_, busiest)| weight(busiest) > weight(&share).saturating_add(1))
            .and_then(|(busiest, _)| {
                self.queries
                    .iter()
                    .find(|(_, query)| query.guest == *busiest)
            })
            .map_or(Room::NetworkFull, |(oldest, _)| Room::Evict(*oldest))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether the sums fit the queries.
    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        let bytes: usize = self.queries.values().map(|query| query.message.len()).sum();
        let by_guest: usize = self.guests.values().map(|share| share.queries).sum();
        self.all.bytes == bytes
            && self.all.queries == self.queries.len()
            && by_guest == self.queries.len()
    }
}
