use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::gateway::dns::pending::{GUEST_LIMIT, NETWORK_LIMIT};

/// Something a guest, a resolver or the clock does.
#[derive(Clone, Debug)]
enum Event {
    Query {
        guest: u64,
        asker: u32,
        tcp: bool,
        message: Vec<u8>,
    },
    /// An answer to one of the open attempts, with one bit changed if `flip` is given.
    Answer {
        which: usize,
        rcode: u8,
        flip: Option<usize>,
    },
    Rubbish {
        which: u64,
        message: Vec<u8>,
    },
    Fail {
        which: usize,
    },
    Leave {
        asker: u32,
    },
    Resolvers {
        count: usize,
    },
    Wait {
        milliseconds: u64,
    },
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-cA-C]{1,3}(\\.[a-c]{1,3}){0,3}",
        "[a-c]\\.vmnet\\.internal",
        "[0-9]\\.64\\.168\\.192\\.in-addr\\.arpa"
    ]
}

fn sane() -> impl Strategy<Value = Vec<u8>> {
    (
        0..8_u16,
        name(),
        prop_oneof![Just(1_u16), Just(28), any::<u16>()],
        any::<bool>(),
    )
        .prop_map(|(id, name, kind, opt)| {
            let plain = query(id, &name, kind);
            if opt {
                with_opt(plain, 1232, 0, true)
            } else {
                plain
            }
        })
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let broken = (sane(), any::<prop::sample::Index>(), any::<u8>()).prop_map(
        |(mut message, place, byte)| {
            let place = place.index(message.len());
            message[place] = byte;
            message
        },
    );
    prop_oneof![4 => sane(), 3 => broken, 1 => vec(any::<u8>(), 0..80)]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..4_u64, 0..6_u32, any::<bool>(), message())
            .prop_map(|(guest, asker, tcp, message)| Event::Query { guest, asker, tcp, message }),
        4 => (any::<usize>(), prop_oneof![Just(0_u8), Just(2), Just(3), Just(5)], proptest::option::of(any::<usize>()))
            .prop_map(|(which, rcode, flip)| Event::Answer { which, rcode, flip }),
        1 => (0..50_u64, vec(any::<u8>(), 0..60)).prop_map(|(which, message)| Event::Rubbish { which, message }),
        1 => any::<usize>().prop_map(|which| Event::Fail { which }),
        1 => (0..6_u32).prop_map(|asker| Event::Leave { asker }),
        1 => (0..4_usize).prop_map(|count| Event::Resolvers { count }),
        2 => (0..4000_u64).prop_map(|milliseconds| Event::Wait { milliseconds }),
    ]
}

/// The attempts that were not forgotten yet.
fn open(bench: &Bench) -> Vec<(QueryId, Vec<u8>)> {
    bench
        .asked
        .iter()
        .filter(|asked| !bench.forgotten.contains(&asked.query))
        .map(|asked| (asked.query, asked.message.clone()))
        .collect()
}

fn happen(bench: &mut Bench, event: Event) {
    match event {
        Event::Query {
            guest,
            asker,
            tcp,
            message,
        } => {
            let transport = if tcp { Transport::Tcp } else { Transport::Udp };
            let before = bench.asked.len() + bench.replies.len();
            let result = bench.query_from(guest, asker, transport, &message);
            let after = bench.asked.len() + bench.replies.len();
            assert_eq!(
                result.is_ok(),
                after > before,
                "a drop is silent, everything else is not"
            );
        }
        Event::Answer { which, rcode, flip } => {
            let open = open(bench);
            let Some((query, asked)) = open.get(which % open.len().max(1)) else {
                return;
            };
            let mut message = answer(asked, rcode, &[]);
            // Id, QR, opcode and the question; the flags between and the counts behind are not compared.
            let places: Vec<usize> = (0..21).chain(96..question_end(asked) * 8).collect();
            let before = bench.replies.len();
            if let Some(flip) = flip {
                let place = places[flip % places.len()];
                message[place / 8] ^= 0x80 >> (place % 8);
                bench.answer(*query, &message);
                assert_eq!(
                    bench.replies.len(),
                    before,
                    "a wrong answer reached a guest"
                );
            } else {
                bench.answer(*query, &message);
                let replied = bench.replies.len() - before;
                assert!(
                    rcode == 2 || rcode == 5 || replied == 1,
                    "a right answer was lost"
                );
            }
        }
        Event::Rubbish { which, message } => bench.answer(QueryId::from(which), &message),
        Event::Fail { which } => {
            let open = open(bench);
            if let Some((query, _)) = open.get(which % open.len().max(1)) {
                bench.fail(*query);
            }
        }
        Event::Leave { asker } => {
            let mut out = vec![];
            bench.proxy.forget_asker(asker, &mut out);
            assert!(
                out.iter()
                    .all(|output| matches!(output, Output::Forget { .. }))
            );
            bench.take(out);
        }
        Event::Resolvers { count } => {
            let addresses: Vec<SocketAddr> = (0..count).map(resolver).collect();
            bench.proxy.set_resolvers(bench.now, &addresses);
        }
        Event::Wait { milliseconds } => bench.run(Duration::from_millis(milliseconds)),
    }
}

/// Where the first question of a message ends.
fn question_end(message: &[u8]) -> usize {
    let mut place = 12;
    while message[place] != 0 {
        place += usize::from(message[place]) + 1;
    }
    place + 5
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Every query ends, every socket is closed once, every sum stays right, and wrong answers reach nobody.
    #[test]
    fn any_course_of_events_comes_to_an_end(events in vec(event(), 1..120)) {
        let mut bench = Bench::new(2);
        bench.proxy.set_name("a", "192.168.64.5".parse().unwrap()).unwrap();
        for event in events {
            happen(&mut bench, event);
            prop_assert!(bench.proxy.is_consistent());
            prop_assert_eq!(bench.proxy.in_flight().1, open(&bench).len());
            prop_assert!(bench.proxy.in_flight().0 == 0 || bench.proxy.next_deadline().is_some());
        }
        bench.run(Duration::from_secs(9));
        prop_assert!(bench.is_quiet());
    }

    #[test]
    fn any_bytes_of_a_guest_are_survived(
        message in vec(any::<u8>(), 0..200),
        flags in any::<[u8; 2]>(),
        tcp in any::<bool>(),
    ) {
        let mut bench = Bench::new(1);
        let mut message = message;
        // Mostly a query with one question, so that the rest is looked at.
        for (place, byte) in [(2, flags[0] & 0x7f), (3, flags[1]), (4, 0), (5, 1)] {
            if let Some(slot) = message.get_mut(place) {
                *slot = byte;
            }
        }
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let result = bench.query_from(1, 1, transport, &message);
        prop_assert_eq!(result.is_ok(), bench.asked.len() + bench.replies.len() == 1);
        for (_, reply) in &bench.replies {
            prop_assert_eq!(&reply[..2], &message[..2]);
            prop_assert!(reply[2] & 0x80 != 0);
        }
        for asked in &bench.asked {
            prop_assert_eq!(&asked.message[2..], &message[2..]);
        }
    }

    /// Behind a question of ours anything may come; the answer can always be decoded.
    #[test]
    fn any_bytes_behind_a_local_question_are_survived(tail in vec(any::<u8>(), 0..100), counts in any::<[u8; 3]>()) {
        let mut bench = Bench::new(1);
        let mut message = query(77, "gateway.vmnet.internal", 1);
        for (place, count) in [7, 9, 11].into_iter().zip(counts) {
            message[place] = count % 4;
        }
        message.extend(tail);
        bench.query(&message);
        prop_assert!(bench.asked.is_empty());
        let reply = bench.only_reply();
        prop_assert!(hickory_proto::op::Message::from_vec(&reply).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn floods_stay_within_the_limits(guests in 1..40_u64, count in 1..3000_usize, seed in any::<u64>()) {
        let mut bench = Bench::new(1);
        let mut state = seed | 1;
        for n in 0..count {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let message = query(n as u16, "example.com", 1);
            let asker = u32::try_from(n).unwrap();
            bench.query_from((state >> 33) % guests, asker, Transport::Udp, &message).unwrap();
            let (queries, attempts) = bench.proxy.in_flight();
            prop_assert!(queries <= NETWORK_LIMIT.min(GUEST_LIMIT * guests as usize));
            prop_assert_eq!(attempts, queries);
        }
        prop_assert!(bench.proxy.is_consistent());
        bench.run(Duration::from_secs(9));
        prop_assert!(bench.is_quiet());
        prop_assert_eq!(bench.replies.len(), count, "everybody hears something");
    }
}
