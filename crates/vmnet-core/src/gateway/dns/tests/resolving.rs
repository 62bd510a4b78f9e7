use super::*;
use crate::gateway::dns::Drop;
use crate::gateway::dns::pending::{GUEST_BYTES, GUEST_LIMIT, NETWORK_BYTES, NETWORK_LIMIT};

const NOERROR: u8 = 0;
const FORMERR: u8 = 1;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const NOTIMP: u8 = 4;
const REFUSED: u8 = 5;

/// An answer record of a type that no decoder knows, and bytes behind the message's end.
const STRANGE: &[u8] = &[
    0xc0, 12, 0xff, 0x77, 0, 1, 0, 0, 0, 60, 0, 3, 1, 2, 3, 0xee, 0xee,
];

#[test]
fn both_ways_only_the_id_changes() {
    let mut bench = Bench::new(1);
    let mut asked = with_opt(query(0xbeef, "WwW.eXample.com", 0xff77), 1400, 0, true);
    asked[3] = 0x30; // AD and CD
    asked.extend([0, 0xfa, 0xce]); // something behind the message
    bench.query(&asked);
    let sent = bench.asked.pop().unwrap();
    assert_eq!(sent.resolver, resolver(0));
    assert_eq!(sent.transport, Transport::Udp);
    assert_eq!(sent.message[2..], asked[2..]);
    assert_ne!(sent.message[..2], asked[..2], "the guest's id went outside");

    let mut reply = answer(&sent.message, NOERROR, STRANGE);
    reply[2] |= 0x02; // TC: the guest has to see it
    bench.answer(sent.query, &reply);
    let got = bench.only_reply();
    assert_eq!(got[..2], asked[..2]);
    assert_eq!(got[2..], reply[2..]);
    assert_eq!(bench.forgotten, [sent.query]);
    assert_eq!(bench.proxy.in_flight(), (0, 0));
}

#[test]
fn unknown_opcodes_with_one_question_pass_and_answers_must_have_the_same() {
    let mut bench = Bench::new(1);
    let mut asked = query(1, "example.com", 6);
    asked[2] = 5 << 3; // UPDATE
    bench.query(&asked);
    let sent = bench.last_asked();
    let (query, mut reply) = (sent.query, sent.message.clone());
    assert_eq!(reply[2], 5 << 3);
    reply.truncate(12);
    reply[2] = 0x80; // an answer to a QUERY
    reply[5] = 0;
    bench.answer(query, &reply);
    assert_eq!(bench.replies, []);
    reply[2] = 0x80 | 5 << 3; // acknowledged without the zone, as RFC 2136 allows
    bench.answer(query, &reply);
    assert_eq!(bench.only_reply()[2..], reply[2..]);
}

#[test]
fn what_cannot_be_passed_on_is_refused() {
    let two = {
        let mut two = query(1, "example.com", 1);
        let second = two[12..].to_vec();
        two.extend(second);
        two[5] = 2;
        two
    };
    let pointer = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 1, 0, 1];
    let cut = query(1, "example.com", 1)[..20].to_vec();
    let none = vec![0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut session = none.clone();
    session[2] = 6 << 3;
    let long = query(1, &"abcdefgh.".repeat(40), 1);
    for (message, code) in [
        (two, FORMERR),
        (pointer, FORMERR),
        (cut, FORMERR),
        (none, FORMERR),
        (session, NOTIMP),
        (long, FORMERR),
    ] {
        let mut bench = Bench::new(1);
        bench.query(&message);
        let reply = bench.only_reply();
        assert_eq!(rcode(&reply), code, "{message:02x?}");
        assert_eq!(reply[2] & 0xf8, 0x80 | message[2] & 0x78);
        assert_eq!(reply[..2], message[..2]);
        assert_eq!(bench.asked, []);
        assert_eq!(bench.proxy.counters().refused_malformed, 1);
    }

    let mut bench = Bench::new(1);
    let transfer = query(1, "example.com", 252);
    bench.query_from(1, 1, Transport::Tcp, &transfer).unwrap();
    assert_eq!(rcode(&bench.only_reply()), NOTIMP);
}

#[test]
fn answers_and_scraps_are_dropped() {
    let mut bench = Bench::new(1);
    let backwards = answer(&query(1, "example.com", 1), NOERROR, &[]);
    assert_eq!(
        bench.query_from(1, 1, Transport::Udp, &backwards),
        Err(Drop::Answer)
    );
    for len in 0..12 {
        assert_eq!(
            bench.query_from(1, 1, Transport::Udp, &backwards[..len]),
            Err(Drop::Short)
        );
    }
    let counters = bench.proxy.counters();
    assert_eq!(
        (
            counters.dropped_answer,
            counters.dropped_short,
            counters.queries
        ),
        (1, 12, 13)
    );
    assert_eq!((bench.asked.len(), bench.replies.len()), (0, 0));
}

#[test]
fn an_answer_has_to_fit_its_query() {
    let mut bench = Bench::new(1);
    bench.query(&query(1, "eXaMple.com", 1));
    bench.query(&query(2, "other.example", 1));
    let (first, other) = (bench.asked.remove(0), bench.asked.remove(0));
    let good = answer(&first.message, NOERROR, STRANGE);
    let change = |place: usize, mask: u8| {
        let mut wrong = good.clone();
        wrong[place] ^= mask;
        wrong
    };
    let wrong = [
        change(0, 1),
        change(1, 0x80),
        change(2, 0x80),     // not an answer
        change(2, 0x08),     // another opcode
        change(5, 1),        // no question, but not an error
        change(5, 2),        // three questions
        change(14, 0x20),    // letter case
        change(26, 1),       // type
        change(28, 2),       // class
        good[..28].to_vec(), // cut off in the question
        good[..5].to_vec(),
        answer(&other.message, NOERROR, STRANGE),
        vec![],
    ];
    for message in &wrong {
        bench.answer(first.query, message);
        assert_eq!(bench.replies, [], "{message:02x?}");
    }
    assert_eq!(bench.proxy.counters().answers_wrong, wrong.len() as u64);
    // The right answer on the socket of another query is wrong there.
    bench.answer(other.query, &good);
    assert_eq!(bench.replies, []);
    bench.answer(first.query, &good);
    assert_eq!(bench.only_reply()[2..], good[2..]);
    bench.answer(first.query, &good);
    assert_eq!(bench.replies, []);
    assert_eq!(bench.proxy.counters().answers_late, 1);
}

#[test]
fn an_error_without_a_question_passes() {
    let mut bench = Bench::new(1);
    bench.query(&query(1, "example.com", 1));
    let sent = bench.last_asked();
    let mut reply = answer(&sent.message[..12], FORMERR, &[]);
    reply[5] = 0;
    let query = sent.query;
    bench.answer(query, &reply);
    assert_eq!(rcode(&bench.only_reply()), FORMERR);
}

#[test]
fn somebody_who_guesses_meets_a_fresh_socket() {
    let mut bench = Bench::new(1);
    bench.query(&query(1, "example.com", 1));
    let first = bench.asked.remove(0);
    let mut guess = answer(&first.message, NOERROR, STRANGE);
    guess[1] ^= 1;
    for _ in 0..32 {
        bench.answer(first.query, &guess);
    }
    assert_eq!(bench.forgotten, [first.query]);
    let second = bench.asked.remove(0);
    assert_ne!(second.message[..2], first.message[..2]);
    bench.answer(second.query, &answer(&second.message, NOERROR, STRANGE));
    assert_eq!(rcode(&bench.only_reply()), NOERROR);
    assert_eq!(bench.proxy.counters().answers_guessed, 1);
}

#[test]
fn a_silent_resolver_is_followed_by_the_next_and_then_avoided() {
    let mut bench = Bench::new(2);
    bench.query(&query(1, "example.com", 1));
    assert_eq!(bench.last_asked().resolver, resolver(0));
    bench.run(Duration::from_millis(1999));
    assert_eq!(bench.asked.len(), 1);
    bench.run(Duration::from_millis(1));
    assert_eq!(bench.asked.len(), 2);
    let second = bench.asked.remove(1);
    assert_eq!(second.resolver, resolver(1));
    bench.answer(second.query, &answer(&second.message, NOERROR, &[]));
    assert_eq!(rcode(&bench.only_reply()), NOERROR);
    assert_eq!(bench.forgotten.len(), 2, "both sockets are closed");

    // Half a minute long the living one comes first; after that the first one gets its chance again.
    bench.query(&query(2, "example.com", 1));
    assert_eq!(bench.last_asked().resolver, resolver(1));
    bench.run(Duration::from_secs(31));
    bench.query(&query(3, "example.com", 1));
    assert_eq!(bench.last_asked().resolver, resolver(0));
}

#[test]
fn a_late_answer_of_the_first_resolver_still_counts() {
    let mut bench = Bench::new(2);
    bench.query(&query(1, "slow.example.com", 1));
    bench.run(Duration::from_secs(3));
    assert_eq!(bench.asked.len(), 2);
    let first = bench.asked.remove(0);
    bench.answer(first.query, &answer(&first.message, NXDOMAIN, &[]));
    assert_eq!(rcode(&bench.only_reply()), NXDOMAIN);
    // It is alive after all.
    bench.query(&query(2, "example.com", 1));
    assert_eq!(bench.last_asked().resolver, resolver(0));
}

#[test]
fn one_slow_name_does_not_condemn_a_resolver() {
    let mut bench = Bench::new(2);
    bench.query(&query(1, "slow.example.com", 1));
    bench.run(Duration::from_secs(1));
    bench.query(&query(2, "quick.example.com", 1));
    let quick = bench.asked.remove(1);
    bench.answer(quick.query, &answer(&quick.message, NOERROR, &[]));
    bench.run(Duration::from_secs(1));
    assert_eq!(
        bench.last_asked().resolver,
        resolver(1),
        "the slow name is asked elsewhere"
    );
    bench.query(&query(3, "example.com", 1));
    assert_eq!(bench.last_asked().resolver, resolver(0));
}

#[test]
fn an_unreachable_resolver_costs_no_time() {
    let mut bench = Bench::new(3);
    bench.query(&query(1, "example.com", 1));
    for n in 0..2 {
        assert_eq!(bench.last_asked().resolver, resolver(n));
        let query = bench.last_asked().query;
        bench.fail(query);
    }
    let third = bench.asked.pop().unwrap();
    assert_eq!(third.resolver, resolver(2));
    bench.answer(third.query, &answer(&third.message, NOERROR, &[]));
    assert_eq!(rcode(&bench.only_reply()), NOERROR);
    assert_eq!(bench.seconds(), 0.0);
    assert_eq!(bench.proxy.counters().resolver_failed, 2);
    bench.query(&query(2, "example.com", 1));
    assert_eq!(bench.last_asked().resolver, resolver(2));
    // TCP is another matter: nothing is known about it.
    bench
        .query_from(1, 2, Transport::Tcp, &query(3, "example.com", 1))
        .unwrap();
    let tcp = bench.last_asked();
    assert_eq!((tcp.resolver, tcp.transport), (resolver(0), Transport::Tcp));
}

#[test]
fn when_all_are_unreachable_the_guest_hears_at_once() {
    let mut bench = Bench::new(2);
    bench.query(&with_opt(query(0x55aa, "example.com", 1), 1232, 0, true));
    for _ in 0..2 {
        let query = bench.last_asked().query;
        bench.fail(query);
    }
    let reply = bench.only_reply();
    assert_eq!((rcode(&reply), &reply[..2]), (SERVFAIL, &[0x55, 0xaa][..]));
    assert_eq!(
        (reply[5], reply[11]),
        (1, 1),
        "the question and EDNS are repeated"
    );
    assert!(bench.is_quiet());
}

#[test]
fn refusals_lead_on_and_the_last_one_is_passed() {
    let mut bench = Bench::new(2);
    bench.query(&query(1, "example.com", 1));
    let first = bench.asked.pop().unwrap();
    bench.answer(first.query, &answer(&first.message, REFUSED, &[]));
    assert_eq!(bench.replies, []);
    let second = bench.asked.pop().unwrap();
    assert_eq!(second.resolver, resolver(1));
    let last = answer(&second.message, SERVFAIL, STRANGE);
    bench.answer(second.query, &last);
    let reply = bench.only_reply();
    assert_eq!(reply[..2], [0, 1]);
    assert_eq!(reply[2..], last[2..]);
    assert_eq!(
        bench.asked.len(),
        0,
        "nobody is asked twice after a refusal"
    );
    assert_eq!(bench.proxy.in_flight(), (0, 0));

    // A refusal is about a name; the resolver stays first for others.
    bench.query(&query(2, "example.org", 1));
    let first = bench.asked.pop().unwrap();
    assert_eq!(first.resolver, resolver(0));
    bench.answer(first.query, &answer(&first.message, SERVFAIL, &[]));
    let second = bench.asked.pop().unwrap();
    bench.answer(second.query, &answer(&second.message, NOERROR, &[]));
    assert_eq!(rcode(&bench.only_reply()), NOERROR);
}

#[test]
fn silence_ends_after_nine_seconds() {
    for (resolvers, expected) in [(1, [0, 0, 0, 0]), (2, [0, 1, 0, 1]), (3, [0, 1, 2, 0])] {
        let mut bench = Bench::new(resolvers);
        bench.query(&query(1, "example.com", 1));
        bench.run(Duration::from_millis(8999));
        assert_eq!(bench.replies, []);
        let order: Vec<SocketAddr> = bench.asked.iter().map(|asked| asked.resolver).collect();
        assert_eq!(order, expected.map(resolver));
        bench.run(Duration::from_millis(1));
        assert_eq!(rcode(&bench.only_reply()), SERVFAIL);
        assert!(bench.is_quiet());
        assert_eq!(bench.proxy.counters().unanswered, 1);
        assert_eq!(bench.proxy.next_deadline(), None);
    }
}

#[test]
fn no_resolver_is_an_error_at_once() {
    let mut bench = Bench::new(0);
    bench.query(&query(1, "example.com", 1));
    assert_eq!(rcode(&bench.only_reply()), SERVFAIL);
    assert_eq!(bench.proxy.counters().refused_no_resolver, 1);
    assert_eq!(bench.proxy.next_deadline(), None);
}

#[test]
fn the_gateway_is_never_its_own_resolver() {
    let mut bench = Bench::new(0);
    let addresses: Vec<SocketAddr> = [
        "192.168.64.1:53",
        "[fd00:64::1]:53",
        "[::ffff:192.168.64.1]:53",
        "224.0.0.251:5353",
        "127.0.0.53:0",
    ]
    .map(|address| address.parse().unwrap())
    .to_vec();
    bench.proxy.set_resolvers(bench.now, &addresses);
    bench.query(&query(1, "example.com", 1));
    assert_eq!(rcode(&bench.only_reply()), SERVFAIL);
    assert_eq!(bench.asked, []);
    bench
        .proxy
        .set_resolvers(bench.now, &[addresses[0], "127.0.0.53:53".parse().unwrap()]);
    bench.query(&query(1, "example.com", 1));
    assert_eq!(bench.last_asked().resolver.to_string(), "127.0.0.53:53");
}

#[test]
fn queries_in_flight_follow_a_change_of_resolvers() {
    let mut bench = Bench::new(1);
    bench.query(&query(1, "example.com", 1));
    bench.run(Duration::from_secs(1));
    bench.proxy.set_resolvers(bench.now, &[resolver(1)]);
    bench.run(Duration::from_secs(1));
    let second = bench.asked.pop().unwrap();
    assert_eq!(second.resolver, resolver(1));
    bench.answer(second.query, &answer(&second.message, NOERROR, &[]));
    assert_eq!(rcode(&bench.only_reply()), NOERROR);

    bench.query(&query(2, "example.com", 1));
    bench.proxy.set_resolvers(bench.now, &[]);
    bench.run(Duration::from_secs(9));
    assert_eq!(rcode(&bench.only_reply()), SERVFAIL);
    assert!(bench.proxy.in_flight() == (0, 0));
}

#[test]
fn a_repeated_query_costs_nothing_outside() {
    let mut bench = Bench::new(1);
    let message = query(1, "example.com", 1);
    bench.query(&message);
    for _ in 0..10 {
        bench.run(Duration::from_millis(100));
        assert_eq!(
            bench.query_from(1, 1, Transport::Udp, &message),
            Err(Drop::Repeated)
        );
    }
    assert_eq!(bench.asked.len(), 1);
    assert_eq!(bench.proxy.counters().dropped_repeated, 10);
    // Another port, id, name, letter case, guest or transport is another query.
    bench.query_from(1, 2, Transport::Udp, &message).unwrap();
    bench.query_from(2, 1, Transport::Udp, &message).unwrap();
    bench.query_from(1, 1, Transport::Tcp, &message).unwrap();
    bench.query(&query(2, "example.com", 1));
    bench.query(&query(1, "example.org", 1));
    bench.query(&query(1, "Example.com", 1));
    bench.query(&query(1, "example.com", 28));
    assert_eq!(bench.asked.len(), 8);
    // One answer, one reply; afterwards the same query is new.
    let first = bench.asked.remove(0);
    bench.answer(first.query, &answer(&first.message, NOERROR, &[]));
    assert_eq!(bench.replies.len(), 1);
    bench.query(&message);
    assert_eq!(bench.asked.len(), 8);
}

#[test]
fn a_session_that_closes_takes_its_queries_along() {
    let mut bench = Bench::new(1);
    for id in 0..5 {
        bench
            .query_from(1, 70, Transport::Tcp, &query(id, "example.com", 1))
            .unwrap();
    }
    bench
        .query_from(1, 71, Transport::Tcp, &query(1, "example.com", 1))
        .unwrap();
    let mut out = vec![];
    bench.proxy.forget_asker(70, &mut out);
    bench.take(out);
    assert_eq!(bench.forgotten.len(), 5);
    assert_eq!(bench.replies, []);
    assert_eq!(bench.proxy.in_flight(), (1, 1));
    let left = bench.asked.pop().unwrap();
    bench.answer(left.query, &answer(&left.message, NOERROR, &[]));
    assert_eq!(bench.replies[0].0, 71);
}

#[test]
fn a_guest_cannot_take_more_than_its_share() {
    let mut bench = Bench::new(1);
    for n in 0..1000_u16 {
        bench
            .query_from(1, u32::from(n), Transport::Udp, &query(n, "example.com", 1))
            .unwrap();
    }
    assert_eq!(bench.proxy.in_flight(), (GUEST_LIMIT, GUEST_LIMIT));
    assert_eq!(bench.replies.len(), 1000 - GUEST_LIMIT);
    assert!(
        bench
            .replies
            .iter()
            .all(|(_, reply)| rcode(reply) == SERVFAIL)
    );
    assert_eq!(
        bench.proxy.counters().refused_guest_limit,
        1000 - GUEST_LIMIT as u64
    );
    bench
        .query_from(2, 1, Transport::Udp, &query(1, "example.com", 1))
        .unwrap();
    assert_eq!(bench.proxy.in_flight().0, GUEST_LIMIT + 1);
    bench.run(Duration::from_secs(9));
    assert!(bench.is_quiet());
}

#[test]
fn a_full_network_still_serves_a_guest_with_little() {
    let mut bench = Bench::new(1);
    let guests = NETWORK_LIMIT / GUEST_LIMIT;
    for guest in 0..guests as u64 {
        for n in 0..GUEST_LIMIT as u16 {
            bench
                .query_from(
                    guest,
                    u32::from(n),
                    Transport::Udp,
                    &query(n, "example.com", 1),
                )
                .unwrap();
        }
    }
    assert_eq!(bench.replies, []);
    bench
        .query_from(99, 4711, Transport::Udp, &query(1, "example.com", 1))
        .unwrap();
    assert_eq!(bench.proxy.in_flight().0, NETWORK_LIMIT);
    assert_eq!(bench.proxy.counters().evicted, 1);
    let (asker, reply) = bench.replies.pop().unwrap();
    assert_eq!(
        (asker, rcode(&reply)),
        (0, SERVFAIL),
        "the oldest of a busy guest"
    );
    assert_eq!(
        bench.last_asked().message[2..],
        query(1, "example.com", 1)[2..]
    );
}

#[test]
fn large_queries_are_bounded_too() {
    let mut bench = Bench::new(1);
    let mut large = query(1, "example.com", 1);
    large.resize(60_000, 0);
    for n in 0..10 {
        bench.query_from(1, n, Transport::Tcp, &large).unwrap();
    }
    assert_eq!(bench.proxy.in_flight().0, GUEST_BYTES / 60_000);
    for guest in 2..100 {
        for n in 0..4 {
            bench.query_from(guest, n, Transport::Tcp, &large).unwrap();
        }
    }
    assert!(bench.proxy.in_flight().0 * 60_000 <= NETWORK_BYTES);
    assert!(bench.proxy.counters().refused_network_limit > 0);
    assert!(bench.proxy.is_consistent());
    bench.run(Duration::from_secs(9));
    assert!(bench.is_quiet());
}

#[test]
fn ids_do_not_follow_each_other() {
    let mut bench = Bench::new(1);
    for n in 0..100 {
        bench
            .query_from(1, n, Transport::Udp, &query(1, "example.com", 1))
            .unwrap();
    }
    let ids: Vec<u16> = bench
        .asked
        .iter()
        .map(|asked| u16::from_be_bytes([asked.message[0], asked.message[1]]))
        .collect();
    let steps: std::collections::HashSet<u16> = ids
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]))
        .collect();
    assert!(steps.len() > 90, "{ids:?}");
    let numbers: Vec<u64> = bench.asked.iter().map(|asked| asked.query.into()).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<u64>>());
    assert_eq!(QueryId::from(numbers[7]), bench.asked[7].query);
}
