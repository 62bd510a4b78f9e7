//! Random guests against a simple model of what they were told.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const FIRST: u8 = 10;
const LAST: u8 = 15;

#[derive(Debug, Clone)]
enum Step {
    Discover(Option<u8>),
    /// SELECTING for the address of the last offer, or for any.
    Select(Option<u8>),
    SelectOther,
    Reboot(u8),
    Renew(Option<u8>),
    Decline(u8),
    Release(Option<u8>),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let address = FIRST - 2..=LAST + 2;
    let maybe = prop::option::of(address.clone());
    prop_oneof![
        4 => maybe.clone().prop_map(Step::Discover),
        6 => Just(Step::Select(None)),
        1 => address.clone().prop_map(|a| Step::Select(Some(a))),
        1 => Just(Step::SelectOther),
        2 => address.clone().prop_map(Step::Reboot),
        3 => maybe.clone().prop_map(Step::Renew),
        1 => address.prop_map(Step::Decline),
        2 => maybe.prop_map(Step::Release),
        2 => prop_oneof![1_u64..90, 300_u64..5000].prop_map(Step::Wait),
    ]
}

/// A guest, and what it believes.
#[derive(Debug, Clone, Default)]
struct Believes {
    offered: Option<Ipv4Addr>,
    /// Its address, and until when.
    has: Option<(Ipv4Addr, Instant)>,
}

struct Model {
    server: Server,
    now: Instant,
    guests: BTreeMap<u8, Believes>,
    store: BTreeMap<Ipv4Addr, Lease>,
}

impl Model {
    /// Some guests have a client id, some do not, and two are clones.
    fn id(guest: u8) -> Option<&'static [u8]> {
        match guest {
            0 | 1 => None,
            2 => Some(b"\x01two"),
            3 => Some(b"\xff\0\0\0\x07three"),
            _ => Some(b"\xff\0\0\0\x08clone"),
        }
    }

    fn live(&self) -> BTreeMap<Ipv4Addr, u8> {
        let mut live = BTreeMap::new();
        for (guest, believes) in &self.guests {
            if let Some((address, until)) = believes.has
                && until > self.now
            {
                let other = live.insert(address, *guest);
                assert_eq!(other, None, "{address} is two guests'");
            }
        }
        live
    }

    fn step(&mut self, guest: u8, step: &Step) {
        let believes = self.guests.entry(guest).or_default().clone();
        let source = mac(guest);
        let (has, now) = (believes.has.map(|(address, _)| address), self.now);
        let wire = match step {
            Step::Wait(seconds) => {
                self.now += secs(*seconds);
                // Half of the time nobody calls at the deadline, and the next message finds it passed.
                if seconds % 2 == 0 {
                    let changes = self.server.timeout(self.now);
                    self.follow(changes);
                    assert!(self.server.next_deadline().is_none_or(|at| at > self.now));
                }
                return;
            }
            Step::Discover(wish) => {
                let wire = Wire::new(source, DISCOVER);
                match wish {
                    Some(wish) => wire.requested(ip(*wish)),
                    None => wire,
                }
            }
            Step::Select(other) => {
                let Some(address) = other.map(ip).or(believes.offered) else {
                    return;
                };
                Wire::new(source, REQUEST)
                    .requested(address)
                    .server(GATEWAY)
            }
            Step::SelectOther => Wire::new(source, REQUEST)
                .requested(ip(12))
                .server(OTHER_SERVER),
            Step::Reboot(address) => Wire::new(source, REQUEST).requested(ip(*address)),
            Step::Renew(other) => {
                let Some(address) = other.map(ip).or(has) else {
                    return;
                };
                Wire::new(source, REQUEST).ciaddr(address)
            }
            Step::Decline(address) => Wire::new(source, DECLINE)
                .requested(ip(*address))
                .server(GATEWAY),
            Step::Release(other) => {
                let Some(address) = other.map(ip).or(has) else {
                    return;
                };
                Wire::new(source, RELEASE).ciaddr(address).server(GATEWAY)
            }
        };
        let known: Option<Lease> = self
            .server
            .leases()
            .find(|lease| lease.mac == source)
            .cloned();
        let answer = wire.id(Self::id(guest)).send(&mut self.server, now);
        self.learn(guest, step, answer, known.as_ref());
    }

    /// What a store does with changes.
    fn follow(&mut self, changes: Vec<LeaseChange>) {
        for change in changes {
            match change {
                LeaseChange::Bound(lease) => drop(self.store.insert(lease.address, lease)),
                LeaseChange::Ended(lease) => {
                    let before = self
                        .store
                        .remove(&lease.address)
                        .expect("ended before it began");
                    assert_eq!(before.state, State::Bound, "ended twice");
                    if lease.state != State::Declined {
                        self.store.insert(lease.address, lease);
                    }
                }
                LeaseChange::Forgotten(lease) => {
                    self.store
                        .remove(&lease.address)
                        .expect("forgotten, never known");
                }
            }
        }
    }

    /// A store that followed the changes knows what the server knows.
    fn check_store(&self) {
        for lease in self.server.leases() {
            let stored = self.store.get(&lease.address);
            match lease.state {
                State::Bound => assert_eq!(stored, Some(lease)),
                State::Expired | State::Released => {
                    let stored = stored.expect("remembered, but not stored");
                    assert_eq!((stored.state, stored.expires), (lease.state, lease.expires));
                }
                State::Declined => assert_eq!(stored, None),
                State::Offered => assert!(stored.is_none_or(|lease| lease.state != State::Bound)),
            }
        }
        for address in self.store.keys() {
            assert!(
                self.server.lease(*address).is_some(),
                "{address} is stored only"
            );
        }
    }

    /// What the guest believes after the answer.
    fn learn(&mut self, guest: u8, step: &Step, answer: Answer, known: Option<&Lease>) {
        let now = self.now;
        self.follow(answer.changes);
        match answer.outcome {
            Outcome::Reply(reply) => {
                let read = Read::new(reply);
                let believes = self.guests.get_mut(&guest).unwrap();
                match read.kind() {
                    OFFER => {
                        let address = read.yiaddr();
                        believes.offered = Some(address);
                        let leased = [State::Bound, State::Expired, State::Released];
                        let remembered = known.filter(|l| leased.contains(&l.state));
                        if let Some(lease) = remembered {
                            assert_eq!(address, lease.address, "not what guest {guest} had");
                        }
                        // A guest that discovers has stopped using what it had.
                        believes.has = believes.has.filter(|(has, _)| *has == address);
                    }
                    ACK => {
                        let until = now + secs(read.seconds(51).into());
                        if let Some((before, then)) = believes.has
                            && before == read.yiaddr()
                        {
                            assert!(until >= then.min(until), "time goes on");
                        }
                        let lease = self.server.lease(read.yiaddr()).unwrap();
                        assert!(lease.expires >= until, "the server keeps what it promised");
                        if let Some(before) =
                            known.filter(|l| l.address == lease.address && l.state == State::Bound)
                        {
                            assert!(lease.expires >= before.expires, "a lease got shorter");
                        }
                        believes.has = Some((read.yiaddr(), until));
                    }
                    NAK => (believes.has, believes.offered) = (None, None),
                    kind => panic!("a reply of type {kind}"),
                }
            }
            Outcome::Noted => {
                let believes = self.guests.get_mut(&guest).unwrap();
                let address = match step {
                    Step::Decline(address) => Some(ip(*address)),
                    Step::Release(address) => {
                        address.map(ip).or_else(|| believes.has.map(|(a, _)| a))
                    }
                    other => panic!("{other:?} has an answer"),
                };
                believes.has = believes.has.filter(|(has, _)| Some(*has) != address);
            }
            Outcome::Dropped(Drop::NoFreeAddress) => {
                let held = [State::Bound, State::Declined];
                let full = (FIRST..=LAST).all(|last| {
                    state(&self.server, ip(last)).is_some_and(|state| held.contains(&state))
                });
                assert!(full, "dry while an address is free");
            }
            Outcome::Dropped(Drop::NotForUs | Drop::UnknownClient | Drop::NoSuchLease) => {}
            Outcome::Dropped(cause) => panic!("{step:?} dropped: {cause:?}"),
        }
    }

    /// Holds after every step.
    fn check(&self) {
        for (address, guest) in self.live() {
            let lease = self
                .server
                .lease(address)
                .unwrap_or_else(|| panic!("{address} is nobody's"));
            assert_eq!((lease.mac, lease.state), (mac(guest), State::Bound));
        }
        let pool = ip(FIRST)..=ip(LAST);
        let mut owners = BTreeMap::new();
        let mut names = BTreeMap::new();
        for lease in self.server.leases() {
            assert!(pool.contains(&lease.address));
            if lease.state != State::Declined {
                let other = owners.insert((lease.client_id.clone(), lease.mac), lease.address);
                assert_eq!(other, None, "one guest with two addresses");
            }
            if let Some(name) = &lease.name {
                assert_eq!(
                    names.insert(name.clone(), lease.address),
                    None,
                    "one name twice"
                );
            }
        }
        self.check_store();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// More guests than addresses, so that everything runs out.
    #[test]
    fn guests_never_collide(steps in prop::collection::vec((0_u8..9, step()), 1..150)) {
        let (server, now) = server(FIRST, LAST);
        let mut model = Model { server, now, guests: BTreeMap::new(), store: BTreeMap::new() };
        for (guest, step) in &steps {
            model.step(*guest, step);
            model.check();
        }
    }
}
