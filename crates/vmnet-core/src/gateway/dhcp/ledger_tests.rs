//! A server, its ledger, and a store that is slow, fails, lies dead, or forgets what it did not acknowledge.

use super::{Lease, LeaseChange, LeaseWrite, Ledger, Reply, Server, State, StoreTicket};
use crate::gateway::dhcp::guest::{
    ACK, DECLINE, DISCOVER, GATEWAY, NAK, OFFER, RELEASE, REQUEST, Read, Wire, config, ip, mac,
};
use crate::gateway::dhcp::{Drop, Outcome, Reservee};
use crate::gateway::register::HasRegister;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const FIRST: u8 = 10;
const LAST: u8 = 15;
const GUESTS: u8 = 9;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Stored,
    /// Neither stored nor acknowledged.
    Failed,
    /// Stored, but nobody knows.
    Unknown,
}

#[derive(Debug, Clone)]
enum Step {
    Discover(Option<u8>),
    Select(Option<u8>),
    Reboot(u8),
    Renew(Option<u8>),
    Decline(u8),
    Release,
    Wait(u64),
    Settle(Fate),
    /// The process dies; the batch under way is in the store, or not.
    Crash(bool),
    Reserve(u8),
    Unreserve,
    Forget(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let address = FIRST - 2..=LAST + 2;
    let maybe = prop::option::of(address.clone());
    let fate =
        prop_oneof![6 => Just(Fate::Stored), 1 => Just(Fate::Failed), 1 => Just(Fate::Unknown)];
    prop_oneof![
        6 => maybe.clone().prop_map(Step::Discover),
        8 => Just(Step::Select(None)),
        1 => address.clone().prop_map(|a| Step::Select(Some(a))),
        2 => address.clone().prop_map(Step::Reboot),
        4 => maybe.prop_map(Step::Renew),
        1 => address.clone().prop_map(Step::Decline),
        2 => Just(Step::Release),
        3 => prop_oneof![0_u64..20, 20_u64..90, 300_u64..5000].prop_map(Step::Wait),
        12 => fate.prop_map(Step::Settle),
        1 => any::<bool>().prop_map(Step::Crash),
        1 => address.clone().prop_map(Step::Reserve),
        1 => Just(Step::Unreserve),
        1 => address.prop_map(Step::Forget),
    ]
}

/// A guest, and what it believes.
#[derive(Debug, Clone, Default)]
struct Believes {
    offered: Option<Ipv4Addr>,
    /// What it asked for last, and when: a lease counts from there.
    asked: BTreeMap<Ipv4Addr, Instant>,
    /// Its address, and until when.
    has: Option<(Ipv4Addr, Instant)>,
}

struct Model {
    server: Server,
    ledger: Ledger,
    now: Instant,
    guests: BTreeMap<u8, Believes>,
    reservations: BTreeMap<u8, Ipv4Addr>,
    disk: BTreeMap<Ipv4Addr, Lease>,
    batch: Option<(StoreTicket, Vec<LeaseWrite>)>,
}

impl Model {
    fn new() -> Self {
        Self {
            server: Server::new(config(FIRST, LAST)).unwrap(),
            ledger: Ledger::default(),
            now: Instant::now(),
            guests: (0..GUESTS)
                .map(|guest| (guest, Believes::default()))
                .collect(),
            reservations: BTreeMap::new(),
            disk: BTreeMap::new(),
            batch: None,
        }
    }

    fn id(guest: u8) -> Option<&'static [u8]> {
        match guest {
            0 | 1 => None,
            2 => Some(b"\x01two"),
            3 => Some(b"\xff\0\0\0\x07three"),
            _ => Some(b"\xff\0\0\0\x08clone"),
        }
    }

    fn step(&mut self, guest: u8, step: &Step) {
        match step {
            Step::Wait(seconds) => {
                self.now += secs(*seconds);
                let changes = self.server.timeout(self.now);
                self.note(&changes);
            }
            Step::Settle(fate) => self.settle(*fate),
            Step::Crash(written) => self.crash(*written),
            Step::Reserve(address) => {
                let reservee = Reservee::Mac(mac(guest));
                if self
                    .server
                    .register_mut()
                    .reserve(reservee, ip(*address))
                    .is_ok()
                {
                    self.reservations.insert(guest, ip(*address));
                }
            }
            Step::Unreserve => {
                if let Some(kept) = self.reservations.remove(&guest) {
                    let reservee = self.server.register_mut().unreserve(kept);
                    assert_eq!(reservee, Some(Reservee::Mac(mac(guest))));
                }
            }
            Step::Forget(address) => {
                if let Some(change) = self.server.register_mut().forget(ip(*address)) {
                    self.note(&[change]);
                }
                // Its administrator knows that the guest is gone.
                for believes in self.guests.values_mut() {
                    believes.has = believes.has.filter(|(has, _)| *has != ip(*address));
                }
            }
            message => {
                if let Some(wire) = self.wire(guest, message) {
                    self.send(guest, message, &wire.id(Self::id(guest)));
                }
            }
        }
        self.write();
    }

    fn wire(&mut self, guest: u8, step: &Step) -> Option<Wire> {
        let now = self.now;
        let believes = self.guests.get_mut(&guest).unwrap();
        let has = believes.has.map(|(address, _)| address);
        let wire = |kind| Wire::new(mac(guest), kind);
        let mut ask = |address| {
            believes.asked.insert(address, now);
        };
        Some(match step {
            Step::Discover(None) => wire(DISCOVER),
            Step::Discover(Some(wish)) => wire(DISCOVER).requested(ip(*wish)),
            Step::Select(other) => {
                let address = other.map(ip).or(believes.offered)?;
                ask(address);
                wire(REQUEST).requested(address).server(GATEWAY)
            }
            Step::Reboot(address) => {
                ask(ip(*address));
                wire(REQUEST).requested(ip(*address))
            }
            Step::Renew(other) => {
                let address = other.map(ip).or(has)?;
                ask(address);
                wire(REQUEST).ciaddr(address)
            }
            Step::Decline(address) => {
                believes.has = believes.has.filter(|(has, _)| *has != ip(*address));
                wire(DECLINE).requested(ip(*address)).server(GATEWAY)
            }
            Step::Release => {
                let (address, _) = believes.has.take()?;
                wire(RELEASE).ciaddr(address).server(GATEWAY)
            }
            other => panic!("{other:?} is no message"),
        })
    }

    /// What `Services::receive_dhcp` does.
    fn send(&mut self, guest: u8, step: &Step, wire: &Wire) {
        let answer = wire.send(&mut self.server, self.now);
        self.note(&answer.changes);
        let bound = answer.changes.into_iter().find_map(|change| match change {
            LeaseChange::Bound(lease) => Some(lease),
            _ => None,
        });
        match (answer.outcome, bound) {
            (Outcome::Reply(reply), Some(lease)) => {
                assert!(!self.ledger.hold(self.now, vec![lease], reply));
            }
            (Outcome::Reply(reply), None) => self.learn(guest, reply),
            (Outcome::Dropped(Drop::NoFreeAddress), _) => {
                let held = |address| {
                    self.reservations.values().any(|kept| *kept == address)
                        || self.server.lease(address).is_some_and(|lease| {
                            matches!(lease.state, State::Bound | State::Declined)
                        })
                };
                assert!((FIRST..=LAST).map(ip).all(held), "dry");
            }
            (Outcome::Noted, _) => {}
            (Outcome::Dropped(Drop::NotForUs | Drop::UnknownClient | Drop::NoSuchLease), _) => {}
            (other, _) => panic!("{step:?}: {other:?}"),
        }
    }

    fn learn(&mut self, guest: u8, reply: Reply) {
        let read = Read::new(reply);
        let believes = self.guests.get_mut(&guest).unwrap();
        let address = read.yiaddr();
        match read.kind() {
            OFFER => {
                believes.offered = Some(address);
                // A guest that discovers has stopped using what it had.
                believes.has = believes.has.filter(|(has, _)| *has == address);
            }
            ACK => {
                // One that was refused since listens to no earlier answer.
                if let Some(asked) = believes.asked.get(&address) {
                    believes.has = Some((address, *asked + secs(read.seconds(51).into())));
                }
            }
            NAK => {
                (believes.has, believes.offered) = (None, None);
                believes.asked.clear();
            }
            kind => panic!("a reply of type {kind}"),
        }
    }

    fn note(&mut self, changes: &[LeaseChange]) {
        changes.iter().for_each(|change| self.ledger.note(change));
    }

    fn write(&mut self) {
        if let Some(batch) = self.ledger.write(self.now, &self.server) {
            let before = self.batch.replace(batch);
            assert_eq!(before, None, "one batch at a time");
        }
    }

    fn settle(&mut self, fate: Fate) {
        let Some((ticket, writes)) = self.batch.take() else {
            return;
        };
        if fate != Fate::Failed {
            self.store(writes);
        }
        let stored = fate == Fate::Stored;
        let settled = self
            .ledger
            .settle(self.now, &mut self.server, ticket, stored);
        assert!(stored || settled.replies.is_empty(), "not acknowledged");
        self.note(&settled.ended);
        for reply in settled.replies {
            let guest = reply.mac.0[5];
            let guest = if reply.mac.is_unicast() {
                guest
            } else {
                // A broadcast reply names its guest in `chaddr`.
                reply.payload[33]
            };
            self.learn(guest, reply);
        }
    }

    fn store(&mut self, writes: Vec<LeaseWrite>) {
        for write in writes {
            match write {
                LeaseWrite::Put(lease) => drop(self.disk.insert(lease.address, lease)),
                LeaseWrite::Remove(address) => drop(self.disk.remove(&address)),
            }
        }
    }

    /// A new server knows what the store has, and the reservations.
    fn crash(&mut self, written: bool) {
        if let Some((_, writes)) = self.batch.take().filter(|_| written) {
            self.store(writes);
        }
        self.server = Server::new(config(FIRST, LAST)).unwrap();
        self.ledger = Ledger::default();
        for (guest, address) in &self.reservations {
            let reservee = Reservee::Mac(mac(*guest));
            self.server
                .register_mut()
                .reserve(reservee, *address)
                .unwrap();
        }
        let stored = self.disk.values().cloned().collect();
        for (address, error) in self.server.register_mut().restore_all(stored) {
            assert_ne!(self.disk[&address].state, State::Bound, "{error}");
            self.ledger.refuse(address);
        }
    }

    /// Holds after every step.
    fn check(&self) {
        let mut live = BTreeMap::new();
        for (guest, believes) in &self.guests {
            let Some((address, until)) = believes.has.filter(|(_, until)| *until > self.now) else {
                continue;
            };
            assert_eq!(
                live.insert(address, guest),
                None,
                "{address} is two guests'"
            );
            for (whose, lease) in [
                ("table", self.server.lease(address)),
                ("store", self.disk.get(&address)),
            ] {
                let lease = lease.unwrap_or_else(|| panic!("{address}: not in the {whose}"));
                let known = (lease.mac, lease.state);
                assert_eq!(known, (mac(*guest), State::Bound), "the {whose}");
                assert!(lease.expires >= until, "the {whose} lets {address} end");
            }
        }
        let writes = self.batch.as_ref().map_or(0, |(_, writes)| writes.len());
        assert!(
            writes <= usize::from(LAST - FIRST) + 5,
            "one for an address"
        );
    }

    /// The store works again, all leases end: the pool serves as many guests as it has addresses.
    fn recover(&mut self) {
        for guest in 0..GUESTS {
            self.step(guest, &Step::Unreserve);
        }
        self.step(0, &Step::Wait(10_000));
        let guests = LAST - FIRST + 1;
        for step in [Step::Discover(None), Step::Select(None)] {
            for guest in 0..guests {
                self.guests.get_mut(&guest).unwrap().has = None;
                self.step(guest, &step);
            }
        }
        while self.batch.is_some() {
            self.step(0, &Step::Settle(Fate::Stored));
            self.check();
        }
        for guest in 0..guests {
            assert!(self.guests[&guest].has.is_some(), "guest {guest} has none");
        }
        for lease in self.server.leases() {
            assert_eq!(self.disk.get(&lease.address), Some(lease));
        }
        let stored = self
            .disk
            .keys()
            .all(|address| self.server.lease(*address).is_some());
        assert!(stored, "the store has more");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Any messages, jumps of time, stores that fail and processes that die.
    #[test]
    fn what_was_acknowledged_stays(steps in prop::collection::vec((0..GUESTS, step()), 1..200)) {
        let mut model = Model::new();
        for (guest, step) in &steps {
            model.step(*guest, step);
            model.check();
        }
        model.recover();
    }
}
