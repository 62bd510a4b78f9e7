//! Who has which address, and until when: the table of leases with its indexes.
//!
//! Bounded by the pool and the reservations: one entry for an address. All keys a guest chooses live in
//! ordered trees, which no choice of keys makes slow.

use super::Address;
use super::identity::Key;
use super::lease::{Lease, State};
use crate::outbox::PortId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use vmnet_wire::ethernet::Mac;

/// What is written down about an address.
#[derive(Debug, Clone)]
pub(super) struct Entry<A> {
    /// What callers see.
    pub(super) lease: Lease<A>,
    /// Whose it is; nobody's while it is declined.
    pub(super) key: Option<Key>,
    /// What an offered address was to the same guest before: it is that again if the offer is not taken.
    /// A bound one has it until the lease is stored.
    pub(super) former: Option<(State, Instant)>,
    /// How long a bound lease runs as the store has it: its guest was told of no more. `None` before it is
    /// stored the first time, and on networks whose leases are not stored.
    pub(super) stored: Option<Instant>,
    /// Behind which port its guest asked for it; `None` for what was put back.
    pub(super) port: Option<PortId>,
}

impl<A> Entry<A> {
    /// The port that it is held for, while it is.
    fn holder(&self) -> Option<PortId> {
        let held = matches!(self.lease.state, State::Offered | State::Bound);
        self.port.filter(|_| held)
    }
}

/// In which queue an entry waits; in each the earliest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// Remembered leases, waiting to be needed.
    Idle,
    /// Offers, waiting to be taken.
    Offered,
    /// Live leases, waiting for renewal.
    Bound,
    /// Declined addresses, waiting for better times.
    Declined,
}

impl From<State> for Queue {
    fn from(state: State) -> Self {
        match state {
            State::Offered => Self::Offered,
            State::Bound => Self::Bound,
            State::Expired | State::Released => Self::Idle,
            State::Declined => Self::Declined,
        }
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Book<A> {
    entries: BTreeMap<A, Entry<A>>,
    by_key: BTreeMap<Key, A>,
    by_mac: BTreeSet<(Mac, A)>,
    by_name: BTreeMap<String, A>,
    /// How many are held for guests behind each port.
    per_port: BTreeMap<PortId, usize>,
    idle: BTreeSet<(Instant, A)>,
    offered: BTreeSet<(Instant, A)>,
    bound: BTreeSet<(Instant, A)>,
    declined: BTreeSet<(Instant, A)>,
}

impl<A> Default for Book<A> {
    fn default() -> Self {
        Self {
            entries: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_mac: BTreeSet::new(),
            by_name: BTreeMap::new(),
            per_port: BTreeMap::new(),
            idle: BTreeSet::new(),
            offered: BTreeSet::new(),
            bound: BTreeSet::new(),
            declined: BTreeSet::new(),
        }
    }
}

impl<A: Address> Book<A> {
    /// What is written about an address.
    pub(super) fn get(&self, address: A) -> Option<&Entry<A>> {
        self.entries.get(&address)
    }

    /// Every lease, by address.
    pub(super) fn leases(&self) -> impl Iterator<Item = &Lease<A>> {
        self.entries.values().map(|entry| &entry.lease)
    }

    /// Writes an entry down. Whatever its address, key or name had before must be taken out first.
    pub(super) fn put(&mut self, entry: Entry<A>) {
        let lease = &entry.lease;
        let address = lease.address;
        debug_assert!(!self.entries.contains_key(&address), "{address} is taken");
        if let Some(key) = &entry.key {
            let other = self.by_key.insert(key.clone(), address);
            debug_assert_eq!(other, None, "one address for one guest");
        }
        if let Some(name) = &lease.name {
            let other = self.by_name.insert(name.clone(), address);
            debug_assert_eq!(other, None, "one lease for one name");
        }
        self.by_mac.insert((lease.mac, address));
        if let Some(port) = entry.holder() {
            *self.per_port.entry(port).or_default() += 1;
        }
        let waiting = (lease.expires, address);
        self.waiting_mut(lease.state.into()).insert(waiting);
        self.entries.insert(address, entry);
    }

    /// Takes an entry out.
    pub(super) fn take(&mut self, address: A) -> Option<Entry<A>> {
        let entry = self.entries.remove(&address)?;
        let lease = &entry.lease;
        if let Some(key) = &entry.key {
            self.by_key.remove(key);
        }
        if let Some(name) = &lease.name {
            self.by_name.remove(name);
        }
        self.by_mac.remove(&(lease.mac, address));
        if let Some(port) = entry.holder()
            && let Some(held) = self.per_port.get_mut(&port)
        {
            *held = held.saturating_sub(1);
            if *held == 0 {
                self.per_port.remove(&port);
            }
        }
        let waiting = (lease.expires, address);
        self.waiting_mut(lease.state.into()).remove(&waiting);
        Some(entry)
    }

    /// The store has a bound lease, until then at least.
    pub(super) fn set_stored(&mut self, address: A, until: Instant) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.stored = entry.stored.max(Some(until));
            entry.former = None;
        }
    }

    /// The address of a guest.
    pub(super) fn find(&self, key: &Key) -> Option<A> {
        self.by_key.get(key).copied()
    }

    /// Which lease has a name.
    pub(super) fn named(&self, name: &str) -> Option<&Lease<A>> {
        self.get(*self.by_name.get(name)?).map(|entry| &entry.lease)
    }

    /// An address of a MAC, a live one if there is one.
    pub(super) fn any_of(&self, mac: Mac) -> Option<A> {
        let owned = self.of(mac).filter(|entry| entry.key.is_some());
        let best = owned.max_by_key(|entry| match entry.lease.state {
            State::Bound => 2,
            State::Offered => 1,
            State::Expired | State::Released | State::Declined => 0,
        });
        best.map(|entry| entry.lease.address)
    }

    /// How many addresses a MAC holds, offers included.
    pub(super) fn held_by(&self, mac: Mac) -> usize {
        let held = |entry: &&Entry<A>| matches!(entry.lease.state, State::Offered | State::Bound);
        self.of(mac).filter(held).count()
    }

    /// How many addresses are held for the guests behind a port, offers included.
    pub(super) fn held_behind(&self, port: PortId) -> usize {
        self.per_port.get(&port).copied().unwrap_or(0)
    }

    /// A queue's addresses, the earliest first.
    pub(super) fn queue(&self, queue: Queue) -> impl Iterator<Item = A> {
        self.waiting(queue).iter().map(|(_, address)| *address)
    }

    /// How long a queue is.
    pub(super) fn count(&self, queue: Queue) -> usize {
        self.waiting(queue).len()
    }

    /// When the next entry's state ends, and whose.
    pub(super) fn next(&self) -> Option<(Instant, A)> {
        [Queue::Offered, Queue::Bound, Queue::Declined]
            .into_iter()
            .filter_map(|queue| self.waiting(queue).first().copied())
            .min()
    }

    fn waiting(&self, queue: Queue) -> &BTreeSet<(Instant, A)> {
        match queue {
            Queue::Idle => &self.idle,
            Queue::Offered => &self.offered,
            Queue::Bound => &self.bound,
            Queue::Declined => &self.declined,
        }
    }

    fn waiting_mut(&mut self, queue: Queue) -> &mut BTreeSet<(Instant, A)> {
        match queue {
            Queue::Idle => &mut self.idle,
            Queue::Offered => &mut self.offered,
            Queue::Bound => &mut self.bound,
            Queue::Declined => &mut self.declined,
        }
    }

    /// What is written about the addresses of a MAC.
    pub(super) fn of(&self, mac: Mac) -> impl Iterator<Item = &Entry<A>> {
        self.by_mac
            .range((mac, A::FIRST)..=(mac, A::LAST))
            .filter_map(|(_, address)| self.get(*address))
    }
}
