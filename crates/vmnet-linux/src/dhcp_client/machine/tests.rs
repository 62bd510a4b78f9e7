//! The states of RFC 2131 figure 5, walked with a clock that jumps.

use super::message::tests::{GUEST, MAC, SERVER, answer, decode, identity, usual};
use super::*;
use dhcproto::v4::{MessageType, OptionCode};

/// A client, its clock, and what it sent.
struct Bench {
    machine: Machine,
    start: Instant,
    now: Instant,
}

/// What was sent: how, what kind, and the exchange's number.
type Sent = (&'static str, MessageType, u32);

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(identity(), 42, now),
            start: now,
            now,
        }
    }

    /// Jumps to the deadline.
    fn wait(&mut self) -> (Option<News>, Vec<Sent>) {
        self.now = self.now.max(self.machine.deadline());
        let mut out = Vec::new();
        let news = self.machine.timeout(self.now, &mut out);
        (news, out.iter().map(describe).collect())
    }

    fn hear(&mut self, bytes: &[u8]) -> (Option<News>, Vec<Sent>) {
        let mut out = Vec::new();
        let news = self.machine.receive(self.now, bytes, &mut out);
        (news, out.iter().map(describe).collect())
    }

    fn age(&self) -> Duration {
        self.now - self.start
    }

    /// Walks to a lease of so many seconds.
    fn bound(seconds: u32) -> Self {
        let mut bench = Self::new();
        let (_, sent) = bench.wait();
        let xid = sent[0].2;
        bench.hear(&answer(xid, MessageType::Offer, vec![]));
        let (news, _) = bench.hear(&answer(xid, MessageType::Ack, usual(seconds)));
        assert!(matches!(news, Some(News::Leased(lease)) if lease.address == GUEST));
        bench
    }
}

fn describe(output: &Output) -> Sent {
    let (how, bytes) = match output {
        Output::Shout(bytes) => ("shout", bytes),
        Output::Broadcast(bytes) => ("broadcast", bytes),
        Output::Unicast(to, bytes) => {
            assert_eq!(*to, SERVER);
            ("unicast", bytes)
        }
    };
    let message = decode(bytes);
    assert_eq!(message.chaddr(), MAC.0);
    (how, message.opts().msg_type().unwrap(), message.xid())
}

#[test]
fn four_messages_make_a_lease() {
    let mut bench = Bench::new();
    assert_eq!(bench.machine.hearing(), Hearing::Packets);
    let (_, sent) = bench.wait();
    let [("shout", MessageType::Discover, xid)] = sent[..] else {
        panic!("{sent:?}")
    };
    let (news, sent) = bench.hear(&answer(xid, MessageType::Offer, vec![]));
    assert_eq!(
        (news, sent),
        (None, vec![("shout", MessageType::Request, xid)])
    );
    let (news, sent) = bench.hear(&answer(xid, MessageType::Ack, usual(3600)));
    assert!(matches!(news, Some(News::Leased(_))) && sent.is_empty());
    assert_eq!(bench.machine.hearing(), Hearing::Nothing);
    assert_eq!(
        bench.machine.deadline() - bench.start,
        Duration::from_secs(1800)
    );
}

#[test]
fn a_silent_network_is_asked_ever_more_rarely() {
    let mut bench = Bench::new();
    let mut ages = Vec::new();
    for _ in 0..9 {
        let (_, sent) = bench.wait();
        assert_eq!(sent.len(), 1);
        ages.push(bench.age().as_secs_f64());
    }
    let gaps: Vec<f64> = ages.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, nominal) in gaps.iter().zip([0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0]) {
        assert!(
            (0.75 * nominal..=1.26 * nominal).contains(gap),
            "{gap} for {nominal}"
        );
    }
    assert!(
        gaps[5] != gaps[6] || gaps[6] != gaps[7],
        "no jitter: {gaps:?}"
    );
}

#[test]
fn an_offer_that_is_not_kept_is_given_up() {
    let mut bench = Bench::new();
    let (_, sent) = bench.wait();
    let xid = sent[0].2;
    bench.hear(&answer(xid, MessageType::Offer, vec![]));
    for _ in 1..REQUESTS {
        assert_eq!(bench.wait().1, [("shout", MessageType::Request, xid)]);
    }
    let (_, sent) = bench.wait();
    let [("shout", MessageType::Discover, other)] = sent[..] else {
        panic!("{sent:?}")
    };
    assert_ne!(other, xid);
}

#[test]
fn a_refusal_starts_again_but_not_at_once() {
    let mut bench = Bench::new();
    let (_, sent) = bench.wait();
    let xid = sent[0].2;
    bench.hear(&answer(xid, MessageType::Offer, vec![]));
    let (news, sent) = bench.hear(&answer(xid, MessageType::Nak, vec![]));
    assert_eq!((news, sent), (None, vec![]));
    assert!(bench.machine.deadline() > bench.now + Duration::from_millis(300));
    assert_eq!(bench.wait().1[0].1, MessageType::Discover);
}

#[test]
fn a_lease_is_renewed_at_half_its_time() {
    let mut bench = Bench::bound(3600);
    let (news, sent) = bench.wait();
    assert_eq!((news, bench.age()), (None, Duration::from_secs(1800)));
    let [("unicast", MessageType::Request, xid)] = sent[..] else {
        panic!("{sent:?}")
    };
    assert_eq!(bench.machine.hearing(), Hearing::Datagrams);
    let (news, _) = bench.hear(&answer(xid, MessageType::Ack, usual(3600)));
    assert!(matches!(news, Some(News::Leased(_))));
    assert_eq!(
        bench.machine.deadline() - bench.now,
        Duration::from_secs(1800)
    );
}

#[test]
fn a_silent_server_is_asked_then_anybody_then_the_lease_is_lost() {
    let mut bench = Bench::bound(3600);
    let mut history = Vec::new();
    let news = loop {
        let (news, sent) = bench.wait();
        history.extend(
            sent.iter()
                .map(|(how, kind, _)| (bench.age().as_secs(), *how, *kind)),
        );
        if news.is_some() {
            break news;
        }
    };
    assert_eq!(news, Some(News::Lost));
    assert_eq!(bench.age(), Duration::from_secs(3600));
    let (last, extended) = history.split_last().unwrap();
    assert_eq!(*last, (3600, "shout", MessageType::Discover));
    for (age, how, kind) in extended {
        let expected = if *age < 3150 { "unicast" } else { "broadcast" };
        assert_eq!((*how, *kind), (expected, MessageType::Request), "at {age}");
    }
    assert!(extended.iter().any(|(_, how, _)| *how == "broadcast"));
    for pair in extended.windows(2).filter(|pair| pair[0].1 == pair[1].1) {
        assert!(
            pair[1].0 - pair[0].0 >= 59,
            "more often than the RFC wants: {extended:?}"
        );
    }
}

#[test]
fn a_refused_renewal_loses_the_lease() {
    let mut bench = Bench::bound(3600);
    let (_, sent) = bench.wait();
    let (news, _) = bench.hear(&answer(sent[0].2, MessageType::Nak, vec![]));
    assert_eq!(news, Some(News::Lost));
    assert_eq!(bench.wait().1[0].1, MessageType::Discover);
}

#[test]
fn answers_nobody_asked_for_change_nothing() {
    let mut bench = Bench::bound(3600);
    let deadline = bench.machine.deadline();
    for kind in [MessageType::Offer, MessageType::Ack, MessageType::Nak] {
        let (news, sent) = bench.hear(&answer(bench.machine.xid, kind, usual(60)));
        assert_eq!((news, sent.len()), (None, 0), "{kind:?}");
    }
    assert_eq!(bench.machine.deadline(), deadline);
}

#[test]
fn a_release_goes_to_the_server_and_ends_it_all() {
    let mut bench = Bench::bound(3600);
    let mut out = Vec::new();
    bench.machine.release(bench.now, &mut out);
    let [Output::Unicast(_, bytes)] = &out[..] else {
        panic!("{out:?}")
    };
    let message = decode(bytes);
    assert_eq!(message.opts().msg_type(), Some(MessageType::Release));
    assert_eq!(message.ciaddr(), GUEST);
    assert!(message.opts().contains(OptionCode::ServerIdentifier));
    assert_eq!(bench.machine.hearing(), Hearing::Nothing);
    assert!(bench.wait().1.is_empty());
}

/// A second of lease must not make a busy loop of us.
#[test]
fn a_tiny_lease_is_not_hurried() {
    let mut bench = Bench::bound(1);
    let mut steps = 0;
    while bench.wait().0 != Some(News::Lost) {
        steps += 1;
        assert!(steps < 5);
    }
}
