//! TCP against a simple model: whatever both sides do in whatever order, over a bad wire and with full queues, the
//! bytes arrive in order and complete.

use std::time::Duration;

use proptest::prelude::*;
use vmnet_lab::sim::apps::is_pattern;
use vmnet_lab::sim::{Dice, Lan, Server, Talk, Trouble};

#[derive(Clone, Copy, Debug)]
enum Step {
    GuestSends(u16),
    GuestReads(bool),
    HostSends(u16),
    HostReads(u16),
    HostRoom(u16),
    PortStuck(bool),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u16>().prop_map(Step::GuestSends),
        any::<bool>().prop_map(Step::GuestReads),
        any::<u16>().prop_map(Step::HostSends),
        any::<u16>().prop_map(Step::HostReads),
        (300u16..).prop_map(Step::HostRoom),
        any::<bool>().prop_map(Step::PortStuck),
        (0u16..3000).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn bytes_arrive_in_order_and_complete(
        steps in proptest::collection::vec(step(), 1..60),
        seed: u64,
        bad: bool,
        buffer in 600usize..70_000,
    ) {
        let mut lan = Lan::default();
        lan.dice = Dice::new(seed);
        lan.internet.serve("10.0.0.1:80", Server::Manual);
        let port = lan.add_guest(2);
        lan.wire(port).limit = 8;
        let handle = lan.guest(port).connect(Lan::v4("10.0.0.1:80"), 50_000, buffer);
        let mut talk = Talk::new(port, handle, 0);
        talk.close = false;
        prop_assert!(lan.run_until(Duration::from_secs(2), |lan| lan.guest(port).tcp(handle).may_send()));
        if bad {
            let trouble = Trouble { loss: 4.0, duplicate: 2.0, reorder: 4.0, flip: 1.0 };
            (lan.wire(port).from_guest, lan.wire(port).to_guest) = (trouble, trouble);
        }
        let mut total = 0u64;
        for step in steps {
            match step {
                Step::GuestSends(count) => talk.total += u64::from(count),
                Step::GuestReads(reads) => talk.deaf = !reads,
                Step::HostSends(count) => {
                    total += u64::from(count);
                    lan.internet.only().receive_max = usize::MAX;
                    lan.internet.only().produce(total);
                }
                Step::HostReads(count) => {
                    lan.internet.only().consume(usize::from(count));
                }
                // The queue shrinks under bytes that were promised room: it takes a part, or nothing.
                Step::HostRoom(room) => lan.internet.only().send_max = usize::from(room),
                Step::PortStuck(stuck) => lan.wire(port).stuck = stuck,
                Step::Wait(time) => {
                    lan.run_until(Duration::from_millis(u64::from(time)), |lan| {
                        talk.step(lan);
                        false
                    });
                }
            }
            talk.step(&mut lan);
            lan.settle();
            prop_assert_eq!(lan.network.flows(), 1);
        }
        // Everybody reads, and closes.
        lan.wire(port).stuck = false;
        talk.deaf = false;
        talk.close = true;
        lan.internet.only().send_max = 65_536;
        lan.internet.only().finish();
        let over = lan.run_until(Duration::from_secs(7000), |lan| {
            talk.step(lan);
            for stream in lan.internet.streams.values_mut() {
                stream.consume(usize::MAX);
            }
            lan.network.flows() == 0
        });
        prop_assert!(over, "{:?} {:?}", talk.state(&mut lan), lan.network.drops().met().collect::<Vec<_>>());
        let (stream, by_reset) = lan.internet.past.last().expect("closed");
        prop_assert!(!by_reset);
        prop_assert!(is_pattern(&talk.read) && is_pattern(&stream.read));
        prop_assert_eq!((talk.read.len() as u64, stream.read.len() as u64), (total, talk.total));
        prop_assert_eq!(lan.contract.living(), 0);
    }
}
