//! What becomes of an address: offered, bound, given back, declined, run out.
//!
//! A server decides by its protocol what a message asks for, and does it here.

use super::Address;
use super::book::{Entry, Queue};
use super::identity::{self, Client, Station};
use super::lease::{self, Lease, LeaseChange, State};
use super::pool::{Pool, Range};
use std::time::{Duration, Instant};
use vmnet_wire::ethernet::Mac;

/// How long an offer is held.
pub(super) const OFFER_TIME: Duration = Duration::from_secs(60);
/// How long a declined address rests.
const DECLINE_TIME: Duration = Duration::from_secs(600);
/// Addresses that one MAC holds at most: firmware, boot loader and system may each have their own client id.
pub(super) const MAX_PER_MAC: usize = 8;

/// All addresses of one family on a network: whose they are, were, and are to be.
#[derive(Debug)]
pub struct Register<A> {
    pub(super) pool: Pool<A>,
}

impl<A: Address> Register<A> {
    /// A register without leases.
    pub(in crate::gateway) fn new(range: Range<A>) -> Self {
        Self {
            pool: Pool::new(range),
        }
    }

    /// Ends what has run out.
    pub(in crate::gateway) fn timeout(&mut self, now: Instant) -> Vec<LeaseChange<A>> {
        let mut changes = Vec::new();
        while let Some((_, address)) = self.pool.book().next().filter(|(at, _)| *at <= now) {
            let Some(mut entry) = self.pool.take(address) else {
                break;
            };
            match (entry.lease.state, entry.former.take()) {
                (State::Bound, _) => {
                    end(&mut entry, State::Expired, None);
                    changes.push(LeaseChange::Ended(entry.lease.clone()));
                    self.pool.put(entry);
                }
                (State::Offered, Some((state, ended))) => {
                    end(&mut entry, state, Some(ended));
                    self.pool.put(entry);
                }
                (State::Offered | State::Declined | State::Expired | State::Released, _) => {}
            }
        }
        changes
    }

    /// When something runs out next.
    pub(in crate::gateway) fn next_deadline(&self) -> Option<Instant> {
        self.pool.book().next().map(|(at, _)| at)
    }

    /// What is known of the addresses of one MAC.
    pub(crate) fn leases_of(&self, mac: Mac) -> impl Iterator<Item = &Lease<A>> {
        self.pool.book().of(mac).map(|entry| &entry.lease)
    }

    /// What is known of every address.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Lease<A>> {
        self.pool.book().leases()
    }

    /// What is known of one address.
    pub(crate) fn lease(&self, address: A) -> Option<&Lease<A>> {
        self.pool.book().get(address).map(|entry| &entry.lease)
    }

    /// The live lease with this name.
    pub(crate) fn named(&self, name: &str) -> Option<&Lease<A>> {
        self.pool.book().named(name)
    }

    /// Who sent a message. `id`: as it calls itself; `iaid`: which of its addresses it means.
    pub(in crate::gateway) fn client(
        &self,
        id: Option<Vec<u8>>,
        iaid: Option<u32>,
        station: Station,
        host_name: Option<String>,
    ) -> Client<A> {
        let mac = station.mac;
        let whole = lease::id(id.as_deref(), iaid);
        let (key, own) = identity::resolve(self.pool.book(), whole.as_deref(), mac);
        let reservations = self.pool.reservations();
        let reserved = reservations.of(id.as_deref(), mac, host_name.as_deref());
        Client {
            key,
            own,
            station,
            id,
            iaid,
            host_name,
            reserved,
        }
    }

    /// The address for a guest that may have one.
    pub(in crate::gateway) fn choose(&self, client: &Client<A>, wish: Option<A>) -> Option<A> {
        self.pool.choose(client, wish)
    }

    /// Whether a guest may take an address that it asks for.
    pub(in crate::gateway) fn may_take(&self, address: A, client: &Client<A>) -> bool {
        self.pool.may_take(address, client)
    }

    /// Whether a guest could have this address.
    pub(in crate::gateway) fn is_guest_address(&self, address: A) -> bool {
        self.pool.is_guest_address(address)
    }

    /// One MAC with many client ids does not get the whole pool, nor does one port with many MACs: whether it may hold one
    /// more.
    pub(in crate::gateway) fn has_share(&self, client: &Client<A>) -> bool {
        let live = |state| matches!(state, State::Bound | State::Offered);
        let own = client
            .own
            .and_then(|own| self.lease(own))
            .is_some_and(|lease| live(lease.state));
        let book = self.pool.book();
        let port_has_room = || {
            let port = client.station.port;
            port.is_none_or(|port| book.held_behind(port) < self.pool.port_share())
        };
        own || book.held_by(client.station.mac) < MAX_PER_MAC && port_has_room()
    }

    /// Holds an address, which [`choose`](Self::choose) has named, for a guest that may come for it.
    pub(in crate::gateway) fn offer(
        &mut self,
        now: Instant,
        address: A,
        client: &Client<A>,
        changes: &mut Vec<LeaseChange<A>>,
    ) {
        let own = self.lease(address).filter(|_| client.own == Some(address));
        if own.is_some_and(|lease| lease.state == State::Bound) {
            return;
        }
        let former = self.clear(address, client, changes);
        let mut entry = written(client, address, State::Offered, now + OFFER_TIME);
        entry.former = former;
        self.pool.put(entry);
    }

    /// Makes an address a guest's, which [`may_take`](Self::may_take) has allowed.
    pub(in crate::gateway) fn bind(
        &mut self,
        now: Instant,
        address: A,
        granted: Duration,
        client: &Client<A>,
        changes: &mut Vec<LeaseChange<A>>,
    ) {
        let own = self.lease(address).filter(|_| client.own == Some(address));
        let held = own.filter(|lease| lease.state == State::Bound);
        // A client that asks for less than it has may leave earlier, but need not.
        let expires = held.map_or(now, |lease| lease.expires).max(now + granted);
        let told_before = own.and_then(|lease| lease.host_name.clone());
        let stored = (self.pool.book().get(address))
            .filter(|_| held.is_some())
            .and_then(|entry| entry.stored);
        let former = self.clear(address, client, changes);
        let mut entry = written(client, address, State::Bound, expires);
        (entry.stored, entry.former) = (stored, former);
        entry.lease.host_name = client.host_name.clone().or(told_before);
        entry.lease.name = self.free_name(entry.lease.host_name.as_deref());
        changes.push(LeaseChange::Bound(entry.lease.clone()));
        self.pool.put(entry);
    }

    /// A guest found its address in use: it rests. Of too many that rest, the first is given again. Answers whether the
    /// guest had it.
    pub(in crate::gateway) fn decline(
        &mut self,
        now: Instant,
        address: A,
        client: &Client<A>,
        changes: &mut Vec<LeaseChange<A>>,
    ) -> bool {
        let Some(mut entry) = self.take_own(address, client, &[State::Bound, State::Offered])
        else {
            return false;
        };
        let (was, leased) = (entry.lease.state, was_leased(&entry));
        while self.pool.book().count(Queue::Declined) >= self.pool.max_declined() {
            let Some(rested) = self.pool.book().queue(Queue::Declined).next() else {
                break;
            };
            self.pool.take(rested);
        }
        end(&mut entry, State::Declined, Some(now + DECLINE_TIME));
        (entry.key, entry.former) = (None, None);
        if was == State::Bound {
            changes.push(LeaseChange::Ended(entry.lease.clone()));
        } else if leased {
            changes.push(LeaseChange::Forgotten(entry.lease.clone()));
        }
        self.pool.put(entry);
        true
    }

    /// A guest gives its address back. Answers whether it had it.
    pub(in crate::gateway) fn release(
        &mut self,
        now: Instant,
        address: A,
        client: &Client<A>,
        changes: &mut Vec<LeaseChange<A>>,
    ) -> bool {
        let Some(mut entry) = self.take_own(address, client, &[State::Bound]) else {
            return false;
        };
        end(&mut entry, State::Released, Some(now));
        changes.push(LeaseChange::Ended(entry.lease.clone()));
        self.pool.put(entry);
        true
    }

    /// The guest chose another server: what we offered is free again (RFC 2131 §4.3.2).
    pub(in crate::gateway) fn withdraw_offer(&mut self, client: &Client<A>) {
        let offered = |address: &A| {
            let own = self.lease(*address);
            own.is_some_and(|lease| {
                lease.state == State::Offered && lease.mac == client.station.mac
            })
        };
        let Some(address) = client.own.filter(offered) else {
            return;
        };
        if let Some(mut entry) = self.pool.take(address)
            && let Some((state, ended)) = entry.former.take()
        {
            end(&mut entry, state, Some(ended));
            self.pool.put(entry);
        }
    }

    /// The name a guest has, or would get.
    pub(in crate::gateway) fn name_of(&self, address: A, client: &Client<A>) -> Option<String> {
        let own = self.lease(address).filter(|_| client.own == Some(address));
        let has = own.and_then(|lease| lease.name.clone());
        has.or_else(|| self.free_name(client.host_name.as_deref()))
    }

    /// A name that no live lease has; the first to have one keeps it.
    pub(super) fn free_name(&self, name: Option<&str>) -> Option<String> {
        name.filter(|name| self.named(name).is_none())
            .map(str::to_owned)
    }

    /// Takes out what is in the way of writing `address` down for `client`: what another had there, and what
    /// the client had elsewhere. Returns what the address was to this client, if it had leased it.
    fn clear(
        &mut self,
        address: A,
        client: &Client<A>,
        changes: &mut Vec<LeaseChange<A>>,
    ) -> Option<(State, Instant)> {
        let mut former = None;
        for place in client
            .own
            .into_iter()
            .filter(|own| *own != address)
            .chain([address])
        {
            let Some(entry) = self.pool.take(place) else {
                continue;
            };
            if client.own == Some(address) && place == address {
                former = former_of(&entry);
            } else if was_leased(&entry) {
                changes.push(LeaseChange::Forgotten(entry.lease));
            }
        }
        former
    }

    /// Takes out a client's own entry, if it is in one of these states.
    fn take_own(&mut self, address: A, client: &Client<A>, states: &[State]) -> Option<Entry<A>> {
        let own = self.lease(address).filter(|_| client.own == Some(address));
        let held = own
            .is_some_and(|lease| states.contains(&lease.state) && lease.mac == client.station.mac);
        if held { self.pool.take(address) } else { None }
    }
}

/// An entry for a client.
fn written<A>(client: &Client<A>, address: A, state: State, expires: Instant) -> Entry<A> {
    let lease = Lease {
        address,
        mac: client.station.mac,
        client_id: client.id.clone(),
        iaid: client.iaid,
        host_name: client.host_name.clone(),
        name: None,
        expires,
        state,
    };
    Entry {
        lease,
        key: Some(client.key.clone()),
        former: None,
        stored: None,
        port: client.station.port,
    }
}

/// Ends a lease or an offer: it has no name any more.
pub(super) fn end<A>(entry: &mut Entry<A>, state: State, at: Option<Instant>) {
    entry.lease.state = state;
    entry.lease.expires = at.unwrap_or(entry.lease.expires);
    entry.lease.name = None;
    entry.stored = None;
}

/// What an entry is again if an offer of it is not taken, or its lease not stored.
pub(super) fn former_of<A>(entry: &Entry<A>) -> Option<(State, Instant)> {
    match entry.lease.state {
        State::Expired | State::Released => Some((entry.lease.state, entry.lease.expires)),
        State::Offered | State::Bound => entry.former,
        State::Declined => None,
    }
}

/// Whether callers have heard of this lease: an offer alone is not worth a word.
pub(super) fn was_leased<A>(entry: &Entry<A>) -> bool {
    match entry.lease.state {
        State::Bound | State::Expired | State::Released => true,
        State::Offered => entry.former.is_some(),
        State::Declined => false,
    }
}
