//! Random guests against a simple model of what they were told: never two guests with one address.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Step {
    /// A message of this kind about one of three associations.
    Send {
        kind: u8,
        iaid: u32,
        about: About,
        rapid: bool,
    },
    Reserve(u64),
    Unreserve(u64),
    Forget,
    Wait(u64),
}

/// Which address a message tells.
#[derive(Debug, Clone, Copy)]
enum About {
    Nothing,
    Own,
    /// That of the guest with this number.
    Of(u8),
    Any(u64),
}

const GUESTS: u8 = 6;

fn step() -> impl Strategy<Value = Step> {
    let about = prop_oneof![
        3 => Just(About::Nothing),
        6 => Just(About::Own),
        2 => (0..GUESTS).prop_map(About::Of),
        1 => (0_u64..4).prop_map(About::Any),
    ];
    let kind = prop::sample::select(vec![
        SOLICIT, REQUEST, RENEW, REBIND, RELEASE, DECLINE, CONFIRM,
    ]);
    let send = (kind, 0_u32..3, about, any::<bool>());
    let send = send.prop_map(|(kind, iaid, about, rapid)| Step::Send {
        kind,
        iaid,
        about,
        rapid,
    });
    prop_oneof![
        20 => send,
        1 => (0_u64..4).prop_map(Step::Reserve),
        1 => (0_u64..4).prop_map(Step::Unreserve),
        1 => Just(Step::Forget),
        3 => prop_oneof![1_u64..90, 300_u64..5000].prop_map(Step::Wait),
    ]
}

/// A guest and one of its associations.
type Who = (u8, u32);

struct Model {
    server: Server,
    now: Instant,
    /// What guests were told to have, and until when.
    has: BTreeMap<Who, (Ipv6Addr, Instant)>,
    offered: BTreeMap<Who, Ipv6Addr>,
}

impl Model {
    /// Some guests are clones of one image.
    fn duid(guest: u8) -> Vec<u8> {
        duid(guest.min(3))
    }

    fn address_of(&self, who: Who) -> Option<Ipv6Addr> {
        self.has.get(&who).map(|(address, _)| *address)
    }

    /// A guest stops using an address that it named or was told to be over.
    fn end(&mut self, who: Who, address: Option<Ipv6Addr>) {
        if address.is_some() && self.address_of(who) == address {
            self.has.remove(&who);
        }
    }

    fn send(&mut self, guest: u8, kind: u8, iaid: u32, about: About, rapid: bool) {
        let who = (guest, iaid);
        let address = match about {
            About::Nothing => None,
            About::Own => self
                .address_of(who)
                .or_else(|| self.offered.get(&who).copied()),
            About::Of(other) => self.address_of((other, iaid)),
            About::Any(last) => Some(ip(0xd_0000 + last)),
        };
        let addresses: Vec<_> = address.into_iter().collect();
        let mut wire = Wire::bare(guest, kind).option(1, &Self::duid(guest));
        if [REQUEST, RENEW, RELEASE, DECLINE].contains(&kind) {
            wire = wire.ours();
        }
        if kind == SOLICIT && rapid {
            wire = wire.option(14, &[]);
        }
        if kind == SOLICIT {
            // Who starts anew has given up what it had.
            self.has.remove(&who);
        }
        let wire = wire.address(iaid, &addresses);
        let Outcome::Reply(reply) = wire.send(&mut self.server, self.now).outcome else {
            assert_eq!((kind, address), (CONFIRM, None));
            return;
        };
        let reply = Read::new(reply);
        if [RELEASE, DECLINE].contains(&kind) {
            return self.end(who, address);
        }
        for (address, seconds) in reply.granted().into_iter().flat_map(|g| g.addresses) {
            match (reply.kind, seconds) {
                (ADVERTISE, _) => drop(self.offered.insert(who, address)),
                (_, 0) => self.end(who, Some(address)),
                (_, seconds) => {
                    assert!(prefix().contains(address) && address != prefix().gateway());
                    let until = self.now + secs(seconds.into());
                    self.has.insert(who, (address, until));
                }
            }
        }
    }

    fn step(&mut self, guest: u8, step: &Step) {
        let register = self.server.register_mut();
        match *step {
            Step::Send {
                kind,
                iaid,
                about,
                rapid,
            } => self.send(guest, kind, iaid, about, rapid),
            Step::Reserve(last) => {
                let _refused = register.reserve(Reservee::Mac(mac(guest)), ip(0xd_0000 + last));
            }
            Step::Unreserve(last) => drop(register.unreserve(ip(0xd_0000 + last))),
            Step::Forget => {
                // Its administrator knows that the guest is gone.
                if let Some((address, _)) = self.has.remove(&(guest, 0)) {
                    register.forget(address);
                }
            }
            Step::Wait(seconds) => {
                self.now += secs(seconds);
                // Half of the time nobody calls at the deadline, and the next message finds it passed.
                if seconds % 2 == 0 {
                    self.server.timeout(self.now);
                    assert!(self.server.next_deadline().is_none_or(|at| at > self.now));
                }
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let now = self.now;
        self.has.retain(|_, (_, until)| *until > now);
        let mut owners = BTreeMap::new();
        for (who, (address, _)) in &self.has {
            let other = owners.insert(*address, *who);
            assert_eq!(other, None, "{address} is two guests'");
            assert_eq!(state(&self.server, *address), Some(State::Bound));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn never_two_guests_with_one_address(
        steps in prop::collection::vec((0..GUESTS, step()), 1..60),
    ) {
        let (server, now) = server();
        let (has, offered) = Default::default();
        let mut model = Model { server, now, has, offered };
        for (guest, step) in &steps {
            model.step(*guest, step);
        }
    }
}
