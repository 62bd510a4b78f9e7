//! TCP of guests through the NAT.

use std::net::SocketAddrV6;
use std::time::Duration;

use smoltcp::socket::tcp::State;
use vmnet_core::{Action, Event, HostError, Port};
use vmnet_lab::sim::apps::is_pattern;
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::trace::Trace;
use vmnet_lab::sim::{Guest, Lan, Server, Talk, Trouble};
use vmnet_wire::offload::Offload;
use vmnet_wire::tcp::{Fields, Flags, Seq};

const SECOND: Duration = Duration::from_secs(1);
const SERVER: &str = "10.0.0.1:80";

fn open(lan: &mut Lan, server: Server, total: u64) -> Talk {
    lan.internet.serve(SERVER, server);
    let port = match lan.ports.keys().next() {
        Some(port) => *port,
        None => lan.add_guest(2),
    };
    let handle = lan.guest(port).connect(Lan::v4(SERVER), 49_152, 64 << 10);
    Talk::new(port, handle, total)
}

fn finish(lan: &mut Lan, talk: &mut Talk, limit: Duration) {
    let done = lan.run_until(limit, |lan| talk.is_over(lan) && lan.network.flows() == 0);
    let state = talk.state(lan);
    assert!(
        done,
        "not over after {:?}: {state:?}, flows {}, sent {}, read {}, drops {:?}",
        lan.now - lan.start,
        lan.network.flows(),
        talk.sent,
        talk.read.len(),
        lan.network.drops().met().collect::<Vec<_>>()
    );
    assert_eq!(lan.contract.living(), 0, "every socket was closed");
}

#[test]
fn the_guest_is_answered_when_the_host_has_answered() {
    let mut lan = Lan::default();
    lan.internet.latency = Duration::from_millis(300);
    let mut talk = open(&mut lan, Server::Echo, 100);
    lan.run_for(Duration::from_millis(250));
    assert_eq!(talk.state(&mut lan), State::SynSent);
    lan.run_for(Duration::from_millis(100));
    assert_eq!(talk.state(&mut lan), State::Established);
    finish(&mut lan, &mut talk, SECOND);
    assert_eq!(talk.read.len(), 100);
    assert!(is_pattern(&talk.read));
}

#[test]
fn a_short_conversation_segment_by_segment() {
    let mut lan = Lan::default();
    let port = lan.add_guest(2);
    lan.wire(port).trace = Some(Trace::default());
    let mut talk = open(&mut lan, Server::Echo, 10);
    finish(&mut lan, &mut talk, SECOND);
    insta::assert_snapshot!(lan.wire(port).trace.take().unwrap().text);
}

#[test]
fn refused_is_reset_at_once() {
    let mut lan = Lan::default();
    let talk = open(&mut lan, Server::Refuse, 0);
    assert!(
        lan.run_until(Duration::from_millis(50), |lan| talk.state(lan)
            == State::Closed)
    );
    assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
}

#[test]
fn unreachable_is_icmp() {
    for (error, code) in [
        (HostError::NetworkUnreachable, 0),
        (HostError::HostUnreachable, 1),
        (HostError::TimedOut, 1),
        (HostError::Forbidden, 13),
    ] {
        let mut lan = Lan::default();
        let port = lan.add_guest(2);
        lan.guest(port).listening = true;
        let _talk = open(&mut lan, Server::Error(error), 0);
        lan.run_for(Duration::from_millis(100));
        let icmp: Vec<_> = lan
            .heard(port)
            .iter()
            .filter_map(|f| packets::read_icmp(f))
            .collect();
        let (from, kind, got, rest) = icmp.first().expect("an ICMP error").clone();
        assert_eq!((from, kind, got), (lan.gateway(), 3, code), "{error:?}");
        // It quotes the guest's own SYN: its addresses and ports.
        assert_eq!(rest[4 + 12..4 + 20], [192, 168, 64, 2, 10, 0, 0, 1]);
        assert_eq!(rest[4 + 20..4 + 24], [0xc0, 0, 0, 80]);
        assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
    }
}

#[test]
fn a_silent_host_gives_the_flow_up_in_the_end() {
    let mut lan = Lan::default();
    let talk = open(&mut lan, Server::BlackHole, 0);
    lan.guest(talk.port)
        .tcp(talk.handle)
        .set_timeout(Some(smoltcp::time::Duration::from_secs(20)));
    lan.run_for(100 * SECOND);
    assert_eq!(
        lan.internet.targets.len(),
        1,
        "repeated SYNs open nothing more"
    );
    assert_eq!(talk.state(&mut lan), State::Closed);
    lan.run_for(400 * SECOND);
    assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
}

fn both_ways(lan: &mut Lan, up: u64, down: u64, limit: Duration) {
    let mut talk = open(lan, Server::Source(down), up);
    finish(lan, &mut talk, limit);
    assert_eq!(talk.read.len() as u64, down);
    assert!(is_pattern(&talk.read), "equal bytes down");
    let stream = lan.internet.last();
    assert_eq!(stream.read.len() as u64, up);
    assert!(is_pattern(&stream.read), "equal bytes up");
}

#[test]
fn a_lot_both_ways() {
    both_ways(&mut Lan::default(), 8 << 20, 8 << 20, 60 * SECOND);
}

#[test]
fn a_lot_both_ways_at_once() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::Echo, 8 << 20);
    finish(&mut lan, &mut talk, 60 * SECOND);
    assert_eq!(talk.read.len(), 8 << 20);
    assert!(is_pattern(&talk.read));
}

#[test]
fn a_lot_with_other_mtus_and_ports() {
    for (mtu, large) in [(576, false), (9000, true), (1500, true), (65_520, false)] {
        let mut lan = Lan::new(mtu, |_| {});
        let mut guest = Guest::new(2, lan.start, mtu);
        guest.set_address("192.168.64.2".parse().unwrap(), 24, lan.gateway());
        let mut port = Port::new(256);
        port.large_segments = large;
        let port = lan.plug_into(guest, port);
        both_ways(&mut lan, 2 << 20, 2 << 20, 60 * SECOND);
        assert!(
            lan.wire(port).largest <= usize::from(mtu) - 40,
            "MSS of {mtu}"
        );
    }
}

#[test]
fn a_bad_wire() {
    for seed in 0..12 {
        let mut lan = Lan::default();
        lan.dice = vmnet_lab::sim::Dice::new(seed);
        let port = lan.add_guest(2);
        let trouble = Trouble {
            loss: 5.0,
            duplicate: 2.0,
            reorder: 5.0,
            flip: 1.0,
        };
        (lan.wire(port).from_guest, lan.wire(port).to_guest) = (trouble, trouble);
        let mut talk = open(&mut lan, Server::Source(300_000), 300_000);
        // A lost last acknowledgement may leave the guest with a reset instead, so it reads first.
        let done = lan.run_until(7000 * SECOND, |lan| {
            talk.step(lan);
            lan.contract.opened > 0 && lan.network.flows() == 0
        });
        assert!(
            done,
            "seed {seed}: {:?} {} {}",
            talk.state(&mut lan),
            talk.sent,
            talk.read.len()
        );
        assert!(
            is_pattern(&talk.read) && talk.read.len() == 300_000,
            "seed {seed}: {}",
            talk.read.len()
        );
        let read = &lan.internet.last().read;
        assert!(
            is_pattern(read) && read.len() == 300_000,
            "seed {seed}: {}",
            read.len()
        );
        assert_eq!(lan.contract.living(), 0);
    }
}

#[test]
fn the_guest_closes_first_and_still_reads() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::Late(200_000), 50_000);
    finish(&mut lan, &mut talk, 20 * SECOND);
    assert_eq!(
        (talk.read.len(), lan.internet.last().read.len()),
        (200_000, 50_000)
    );
    assert!(is_pattern(&talk.read));
}

#[test]
fn the_host_closes_first_and_still_reads() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::Source(1000), 300_000);
    talk.close_last = true;
    // Nothing is sent before the host's end is seen.
    let total = std::mem::replace(&mut talk.total, 0);
    talk.close = false;
    assert!(lan.run_until(SECOND, |lan| {
        talk.step(lan);
        talk.state(lan) == State::CloseWait
    }));
    assert_eq!(talk.read.len(), 1000);
    (talk.total, talk.close) = (total, true);
    finish(&mut lan, &mut talk, 20 * SECOND);
    assert_eq!(lan.internet.last().read.len(), 300_000);
}

#[test]
fn a_reset_of_the_guest_reaches_the_host() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::Echo, 1000);
    talk.close = false;
    assert!(lan.run_until(SECOND, |lan| {
        talk.step(lan);
        talk.read.len() == 1000
    }));
    lan.guest(talk.port).tcp(talk.handle).abort();
    lan.run_for(Duration::from_millis(10));
    assert_eq!(lan.network.flows(), 0);
    assert!(lan.internet.past.last().unwrap().1, "reset, not closed");
}

#[test]
fn a_reset_of_the_host_reaches_the_guest() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::ResetAfter(5000), 1 << 20);
    assert!(lan.run_until(SECOND, |lan| {
        talk.step(lan);
        talk.state(lan) == State::Closed
    }));
    assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
}

#[test]
fn a_guest_that_does_not_read_for_an_hour() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::Source(1 << 20), 0);
    (talk.close, talk.deaf) = (false, true);
    lan.run_until(3600 * SECOND, |lan| {
        talk.step(lan);
        false
    });
    assert_eq!(
        lan.network.flows(),
        1,
        "a closed window is no reason to end a connection"
    );
    (talk.close, talk.deaf) = (true, false);
    finish(&mut lan, &mut talk, 30 * SECOND);
    assert!(talk.read.len() == 1 << 20 && is_pattern(&talk.read));
}

#[test]
fn a_lost_window_update_is_asked_for() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::Source(300_000), 0);
    (talk.close, talk.deaf) = (false, true);
    lan.run_until(5 * SECOND, |lan| {
        talk.step(lan);
        false
    });
    // The guest reads, and what it says about that is lost.
    lan.wire(talk.port).from_guest.loss = 100.0;
    talk.deaf = false;
    talk.step(&mut lan);
    lan.run_for(Duration::from_millis(100));
    lan.wire(talk.port).from_guest.loss = 0.0;
    let begin = lan.now;
    talk.close = true;
    finish(&mut lan, &mut talk, 30 * SECOND);
    assert!(lan.now - begin < 15 * SECOND, "{:?}", lan.now - begin);
    assert!(is_pattern(&talk.read) && talk.read.len() == 300_000);
}

#[test]
fn a_slow_host_closes_the_window_and_loses_nothing() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::Slow(1000), 1 << 20);
    finish(&mut lan, &mut talk, 3 * SECOND);
    let read = &lan.internet.last().read;
    assert!(read.len() == 1 << 20 && is_pattern(read));
    assert_eq!(
        lan.network.drops().of(vmnet_core::Drop::HostFull),
        0,
        "never promised too much"
    );
}

#[test]
fn tiny_windows() {
    let mut lan = Lan::default();
    lan.internet.serve(SERVER, Server::Source(20_000));
    let port = lan.add_guest(2);
    let handle = lan.guest(port).connect(Lan::v4(SERVER), 50_000, 100);
    let mut talk = Talk::new(port, handle, 5000);
    finish(&mut lan, &mut talk, 60 * SECOND);
    assert!(is_pattern(&talk.read) && talk.read.len() == 20_000);
    assert_eq!(lan.internet.last().read.len(), 5000);
}

#[test]
fn both_sides_close_at_once() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::Manual, 0);
    talk.close = false;
    assert!(lan.run_until(SECOND, |lan| talk.state(lan) == State::Established));
    lan.internet.only().finish();
    lan.guest(talk.port).tcp(talk.handle).close();
    talk.close = true;
    finish(&mut lan, &mut talk, 5 * SECOND);
    assert!(!lan.internet.past.last().unwrap().1, "closed, not reset");
}

#[test]
fn a_rebooted_guest_may_use_the_same_port_again() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::Echo, 1000);
    talk.close = false;
    assert!(lan.run_until(SECOND, |lan| {
        talk.step(lan);
        talk.read.len() == 1000
    }));
    lan.guest(talk.port).reboot();
    lan.run_for(3 * SECOND);
    let mut again = open(&mut lan, Server::Echo, 2000);
    finish(&mut lan, &mut again, 10 * SECOND);
    assert_eq!(again.read.len(), 2000);
    assert_eq!(lan.contract.opened, 2);
}

// ---- guests that speak for themselves ------------------------------------------------------

struct Hand {
    lan: Lan,
    port: vmnet_core::PortId,
    ends: Ends,
    seq: u32,
    ack: u32,
}

impl Hand {
    fn new(server: Server) -> Self {
        let mut lan = Lan::default();
        lan.internet.serve(SERVER, server);
        let port = lan.add_raw(9);
        let mac = lan.guest(port).mac;
        let ends = Ends {
            macs: (mac, lan.network.gateway_mac()),
            ips: ([192, 168, 64, 9].into(), [10, 0, 0, 1].into()),
        };
        Self {
            lan,
            port,
            ends,
            seq: 1000,
            ack: 0,
        }
    }

    /// A segment of bytes that begins with this number.
    fn segment(&self, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let fields = Fields {
            source_port: 5000,
            destination_port: 80,
            sequence: Seq(sequence),
            acknowledgement: Seq(self.ack),
            flags: Flags::ACK,
            window: 4000,
        };
        packets::tcp(self.ends, &fields, &[], payload)
    }

    fn say(
        &mut self,
        flags: Flags,
        window: u16,
        options: &[u8],
        payload: &[u8],
    ) -> Vec<(Fields, Vec<u8>)> {
        let fields = Fields {
            source_port: 5000,
            destination_port: 80,
            sequence: Seq(self.seq),
            acknowledgement: Seq(self.ack),
            flags,
            window,
        };
        let frame = packets::tcp(self.ends, &fields, options, payload);
        self.lan.inject(self.port, frame);
        self.hear(Duration::from_millis(3))
    }

    fn hear(&mut self, time: Duration) -> Vec<(Fields, Vec<u8>)> {
        self.lan.run_for(time);
        let heard = self.lan.heard(self.port);
        heard
            .iter()
            .filter_map(|f| packets::read_tcp(f))
            .map(|(_, _, f, p)| (f, p))
            .collect()
    }

    fn shake(&mut self, options: &[u8], window: u16) {
        let heard = self.say(Flags::SYN, window, options, &[]);
        let (answer, _) = heard.last().expect("an answer");
        assert!(answer.flags.has(Flags::SYN | Flags::ACK));
        assert_eq!(answer.acknowledgement, Seq(self.seq + 1));
        (self.seq, self.ack) = (self.seq + 1, answer.sequence.0.wrapping_add(1));
    }
}

#[test]
fn no_scaling_and_a_small_mss() {
    let mut hand = Hand::new(Server::Source(10_000));
    hand.shake(&[2, 4, 0, 200], 4000);
    let heard = hand.say(Flags::ACK, 4000, &[], &[]);
    let got: usize = heard.iter().map(|(_, payload)| payload.len()).sum();
    assert_eq!(got, 4000, "all of the window and no more");
    assert!(
        heard
            .iter()
            .all(|(fields, payload)| payload.len() <= 200 && fields.window > 1000)
    );
}

#[test]
fn a_window_update_may_be_lost_though_bytes_are_out() {
    let mut hand = Hand::new(Server::Source(10_000));
    hand.shake(&[2, 4, 5, 0xb4], 1000);
    hand.say(Flags::ACK, 1000, &[], &[]);
    // The guest takes half of it back, closes its window, and its later update is lost.
    hand.ack += 500;
    hand.say(Flags::ACK, 0, &[], &[]);
    let heard = hand.hear(5 * SECOND);
    assert!(
        heard.len() >= 2,
        "the closed window is probed: {}",
        heard.len()
    );
}

#[test]
fn the_end_is_told_in_spite_of_a_closed_window() {
    let mut hand = Hand::new(Server::Source(1000));
    hand.shake(&[2, 4, 5, 0xb4], 1000);
    let heard = hand.say(Flags::ACK, 1000, &[], &[]);
    let (last, payload) = heard.last().unwrap();
    assert_eq!(payload.len(), 1000);
    assert!(
        last.flags.has(Flags::FIN),
        "the end comes with the last bytes"
    );
    hand.ack += 1000;
    // The FIN is said to be lost; the window is closed.
    hand.say(Flags::ACK, 0, &[], &[]);
    let heard = hand.hear(2 * SECOND);
    assert!(
        heard.iter().any(|(fields, _)| fields.flags.has(Flags::FIN)),
        "repeated"
    );
}

#[test]
fn a_repeated_syn_gets_the_same_answer() {
    let mut hand = Hand::new(Server::Echo);
    let first = hand.say(Flags::SYN, 4000, &[], &[]);
    let second = hand.say(Flags::SYN, 4000, &[], &[]);
    assert_eq!(first[0].0.sequence, second[0].0.sequence);
    assert_eq!(hand.lan.contract.opened, 1);
}

#[test]
fn an_unanswered_syn_ack_is_repeated_and_then_given_up() {
    let mut hand = Hand::new(Server::Echo);
    hand.say(Flags::SYN, 4000, &[], &[]);
    let heard = hand.hear(60 * SECOND);
    assert_eq!(heard.len(), 7);
    assert_eq!(
        (hand.lan.network.flows(), hand.lan.contract.living()),
        (0, 0)
    );
}

#[test]
fn acknowledgements_wait_for_more_while_bursts_follow_each_other_and_the_window_is_open() {
    // Segments that come at once, each of them a burst: how often they are acknowledged.
    for (another_follows, segments, least, most) in
        [(false, 10, 10, 10), (true, 10, 0, 0), (true, 40, 1, 20)]
    {
        let mut hand = Hand::new(Server::Manual);
        hand.shake(&[2, 4, 5, 0xb4], 4000);
        hand.say(Flags::ACK, 4000, &[], &[]);
        hand.lan.another_follows = another_follows;
        for _ in 0..segments {
            let frame = hand.segment(hand.seq, &[7; 1460]);
            hand.lan.guest(hand.port).inject(frame);
            hand.seq += 1460;
        }
        let mut heard = hand.hear(Duration::from_millis(3));
        let count = heard.len();
        assert!((least..=most).contains(&count), "{count} of {segments}");
        // The burst that follows is another guest's.
        let other = hand.lan.add_raw(10);
        let nothing = packets::arp_request(
            hand.lan.guest(other).mac,
            (hand.lan.guest(other).mac, [192, 168, 64, 10].into()),
            [192, 168, 64, 1].into(),
        );
        hand.lan.inject(other, nothing);
        heard.extend(hand.hear(Duration::from_millis(3)));
        let last = heard.last().map(|(fields, _)| fields.acknowledgement);
        assert_eq!(last, Some(Seq(hand.seq)), "nobody waits longer");
    }
}

/// What is answered at once takes back that an acknowledgement is due, and the next byte asks for one again, all in one burst.
#[test]
fn a_flow_that_is_answered_now_and_then_waits_once() {
    let mut hand = Hand::new(Server::Manual);
    hand.shake(&[2, 4, 5, 0xb4], 4000);
    hand.say(Flags::ACK, 4000, &[], &[]);
    let (now, mut out) = (hand.lan.now, vmnet_core::Outbox::new());
    let mut answers = 0;
    for turn in 0..5 {
        let now = now + Duration::from_micros(turn);
        for at in [
            hand.seq + 1_000_000,
            hand.seq,
            hand.seq + 1_000_000,
            hand.seq + 1460,
        ] {
            let frame = hand.segment(at, &[7; 1460]);
            let seen = vmnet_core::Frame::whole(&frame, Offload::VALID);
            let network = &mut hand.lan.network;
            network.receive(now, hand.port, &seen, &mut out);
            while let Some(action) = out.take() {
                match action {
                    Action::Send { socket, span } => {
                        let (taken, room) = (span.len, 1 << 20);
                        let sent = Event::Sent {
                            socket,
                            taken,
                            room,
                        };
                        network.event(now, &sent, &mut out);
                    }
                    Action::Reply { .. } => answers += 1,
                    _ => {}
                }
            }
        }
        hand.seq += 2920;
        // The core looks itself whether a flow stands in its list more than once.
        hand.lan.network.flush(now, true, &mut out);
    }
    assert_eq!(answers, 10, "each that is out of the window is answered");
}

#[test]
fn bytes_out_of_order_and_beyond_the_window_are_not_taken() {
    let mut hand = Hand::new(Server::Echo);
    hand.shake(&[], 4000);
    hand.say(Flags::ACK, 4000, &[], b"abc");
    hand.seq += 10;
    let heard = hand.say(Flags::ACK, 4000, &[], b"later");
    assert_eq!(heard[0].0.acknowledgement, Seq(1004));
    hand.seq -= 10;
    // Overlapping what is there: only the rest is new.
    hand.say(Flags::ACK, 4000, &[], b"abcdef");
    assert_eq!(hand.lan.internet.only().read, b"abcdef");
    assert_eq!(
        hand.lan.network.drops().of(vmnet_core::Drop::OutOfWindow),
        1
    );
}

#[test]
fn bytes_beside_an_acknowledgement_that_cannot_be_are_not_taken() {
    let out_of_window = |hand: &Hand| hand.lan.network.drops().of(vmnet_core::Drop::OutOfWindow);
    let mut hand = Hand::new(Server::Echo);
    hand.shake(&[], 4000);
    let right = hand.ack;
    // Before the handshake is over: told by a reset with that very number, and the connection goes on waiting.
    for wrong in [right.wrapping_add(500), right.wrapping_sub(1)] {
        hand.ack = wrong;
        let heard = hand.say(Flags::ACK, 4000, &[], b"forged");
        let (reset, _) = heard.first().expect("a reset");
        assert_eq!((reset.flags, reset.sequence), (Flags::RST, Seq(wrong)));
        assert_eq!(hand.lan.internet.only().read, b"");
    }
    assert_eq!((hand.lan.network.flows(), out_of_window(&hand)), (1, 2));
    hand.ack = right;
    hand.say(Flags::ACK, 4000, &[], b"right");
    assert_eq!(hand.lan.internet.only().read, b"right");
    // Later: of a byte that was never sent, or of one of long ago, is told what is right.
    hand.seq += 5;
    for wrong in [right.wrapping_add(70_000), right.wrapping_sub(70_000)] {
        hand.ack = wrong;
        let heard = hand.say(Flags::ACK | Flags::FIN, 4000, &[], b"forged");
        let (told, _) = heard.first().expect("an answer");
        assert_eq!(
            (told.flags, told.acknowledgement),
            (Flags::ACK, Seq(hand.seq))
        );
        assert_eq!(hand.lan.internet.only().read, b"right");
    }
    assert_eq!(out_of_window(&hand), 4);
    hand.ack = right;
    hand.say(Flags::ACK, 4000, &[], b" on");
    assert_eq!(hand.lan.internet.only().read, b"right on");
}

#[test]
fn an_acknowledgement_outside_the_window_says_nothing() {
    let mut hand = Hand::new(Server::Source(10_000));
    hand.shake(&[2, 4, 5, 0xb4], 1000);
    hand.say(Flags::ACK, 1000, &[], &[]);
    let (seq, ack) = (hand.seq, hand.ack);
    for wrong in [seq.wrapping_sub(100), seq.wrapping_add(0x4000_0000)] {
        (hand.seq, hand.ack) = (wrong, ack + 1000);
        let heard = hand.say(Flags::ACK, 1000, &[], &[]);
        assert_eq!(heard.len(), 1, "told what is right, and sent no more");
        assert_eq!(
            (heard[0].0.acknowledgement, heard[0].1.len()),
            (Seq(seq), 0)
        );
    }
    hand.seq = seq;
    let heard = hand.say(Flags::ACK, 1000, &[], &[]);
    let got: usize = heard.iter().map(|(_, payload)| payload.len()).sum();
    assert_eq!(got, 1000);
}

#[test]
fn who_does_not_know_the_numbers_draws_no_connection_to_itself() {
    let mut hand = Hand::new(Server::Manual);
    let thief = hand.lan.add_raw(7);
    hand.shake(&[], 4000);
    hand.say(Flags::ACK, 4000, &[], b"mine");
    let mac = hand.lan.guest(thief).mac;
    let ends = Ends {
        macs: (mac, hand.ends.macs.1),
        ..hand.ends
    };
    for (flags, sequence) in [
        (Flags::ACK, hand.seq.wrapping_add(0x4000_0000)),
        (Flags::RST, hand.seq.wrapping_add(0x4000_0000)),
        (Flags::SYN, hand.seq.wrapping_add(0x4000_0000)),
    ] {
        let fields = Fields {
            source_port: 5000,
            destination_port: 80,
            sequence: Seq(sequence),
            acknowledgement: Seq(hand.ack),
            flags,
            window: 4000,
        };
        let frame = packets::tcp(ends, &fields, &[], b"");
        hand.lan.inject(thief, frame);
    }
    // What they said is not believed, and what comes for the connection comes to its guest.
    hand.lan.run_for(Duration::from_millis(10));
    hand.lan.heard(thief);
    hand.lan.internet.only().say(b"for the guest alone");
    hand.lan.settle();
    let heard = hand.hear(Duration::from_millis(10));
    let said: Vec<u8> = heard.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
    assert_eq!(said, b"for the guest alone");
    let stolen = hand.lan.heard(thief);
    assert!(
        stolen
            .iter()
            .all(|frame| packets::read_tcp(frame).is_none())
    );
}

#[test]
fn urgent_bytes_are_bytes() {
    let mut hand = Hand::new(Server::Echo);
    hand.shake(&[], 4000);
    hand.say(Flags::ACK | Flags::URG, 4000, &[], b"urgent");
    assert_eq!(hand.lan.internet.only().read, b"urgent");
}

#[test]
fn a_keepalive_is_answered() {
    let mut hand = Hand::new(Server::Echo);
    hand.shake(&[], 4000);
    hand.say(Flags::ACK, 4000, &[], &[]);
    hand.seq -= 1;
    let heard = hand.say(Flags::ACK, 4000, &[], &[]);
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].0.acknowledgement, Seq(1001));
}

#[test]
fn a_guessed_reset_is_questioned() {
    let mut hand = Hand::new(Server::Echo);
    hand.shake(&[], 4000);
    hand.say(Flags::ACK, 4000, &[], &[]);
    hand.seq += 100;
    let heard = hand.say(Flags::RST, 0, &[], &[]);
    assert_eq!((heard.len(), hand.lan.network.flows()), (1, 1));
    hand.seq -= 100;
    hand.say(Flags::RST, 0, &[], &[]);
    assert_eq!(
        (hand.lan.network.flows(), hand.lan.contract.living()),
        (0, 0)
    );
}

#[test]
fn a_segment_of_no_connection_is_reset() {
    let mut hand = Hand::new(Server::Echo);
    hand.ack = 777;
    let heard = hand.say(Flags::ACK, 4000, &[], b"lost");
    assert_eq!(heard[0].0.flags, Flags::RST);
    assert_eq!(heard[0].0.sequence, Seq(777));
    assert!(
        hand.say(Flags::RST, 0, &[], &[]).is_empty(),
        "a reset is not answered"
    );
}

#[test]
fn a_guest_forgets_an_old_connection_and_answers_the_new_one() {
    let mut hand = Hand::new(Server::Echo);
    let (rule, _) = hand.lan.forward(vmnet_core::Forward {
        protocol: vmnet_core::ForwardProtocol::Tcp,
        listen: "0.0.0.0:8080".parse().unwrap(),
        guest: vmnet_core::ForwardGuest::Address(hand.ends.ips.0.into()),
        guest_port: 5000,
    });
    // The client has the address and the port that `say` speaks to.
    let client = SERVER.parse().unwrap();
    hand.lan.dial(rule, client, Server::Manual).expect("tried");
    let heard = hand.hear(Duration::from_millis(3));
    let isn = heard.first().expect("a SYN").0.sequence;
    assert_eq!(heard[0].0.flags, Flags::SYN);
    // Of an old connection: a challenge (RFC 5961 §4), as long as it is not reset.
    (hand.seq, hand.ack) = (77_000, isn.0.wrapping_add(99_000));
    let heard = hand.say(Flags::ACK, 1000, &[], &[]);
    let (reset, _) = heard.first().expect("a reset");
    assert_eq!(
        (reset.flags, reset.sequence),
        (Flags::RST, Seq(hand.ack)),
        "the very number that the guest believes"
    );
    let reset_of_old = hand.say(Flags::RST | Flags::ACK, 1000, &[], &[]);
    assert!(reset_of_old.is_empty(), "a wrong reset is not answered");
    assert_eq!(hand.lan.network.flows(), 1, "nor believed");
    // The connection is asked for again, and stands.
    let heard = hand.hear(Duration::from_millis(250));
    assert_eq!(heard.first().map(|(f, _)| f.flags), Some(Flags::SYN));
    (hand.seq, hand.ack) = (5, isn.0.wrapping_add(1));
    let heard = hand.say(Flags::SYN | Flags::ACK, 1000, &[], &[]);
    let (answer, _) = heard.first().expect("the third of three");
    assert_eq!((answer.flags, answer.acknowledgement), (Flags::ACK, Seq(6)));
}

#[test]
fn a_wrong_checksum_is_dropped() {
    let mut hand = Hand::new(Server::Echo);
    hand.shake(&[], 4000);
    let mut frame = hand.segment(hand.seq, b"right");
    *frame.last_mut().unwrap() ^= 1;
    hand.lan.inject(hand.port, frame);
    assert_eq!(hand.lan.network.drops().of(vmnet_core::Drop::Checksum), 1);
    assert_eq!(hand.lan.internet.only().read, b"");
}

// ---- many, and for long --------------------------------------------------------------------

#[test]
fn an_idle_connection_ends_after_two_hours_and_four_minutes() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::Echo, 10);
    talk.close = false;
    lan.run_until(SECOND, |lan| {
        talk.step(lan);
        false
    });
    lan.run_for(Duration::from_secs(2 * 3600 + 3 * 60));
    assert_eq!(lan.network.flows(), 1);
    assert!(
        lan.timeouts < 50,
        "idle costs nothing: {} calls",
        lan.timeouts
    );
    lan.run_for(Duration::from_secs(120));
    assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
    // The guest hears of it when it speaks again.
    talk.total += 10;
    talk.step(&mut lan);
    lan.run_for(SECOND);
    assert_eq!(talk.state(&mut lan), State::Closed);
}

#[test]
fn two_thousand_flows_and_a_limit() {
    let mut lan = Lan::new(1500, |config| config.flows_max = 1000);
    lan.internet.serve(SERVER, Server::Manual);
    let port = lan.add_guest(2);
    let mut handles = Vec::new();
    for number in 0..1000u16 {
        handles.push(
            lan.guest(port)
                .connect(Lan::v4(SERVER), 10_000 + number, 512),
        );
        if number % 100 == 0 {
            lan.run_for(Duration::from_millis(5));
        }
    }
    lan.run_for(Duration::from_millis(50));
    assert_eq!(lan.network.flows(), 1000);
    // All are in use: the next is refused.
    let refused = lan.guest(port).connect(Lan::v4(SERVER), 9000, 512);
    lan.run_for(Duration::from_millis(50));
    assert_eq!(lan.network.flows(), 1000);
    assert!(lan.network.drops().of(vmnet_core::Drop::FlowsFull) > 0);
    lan.guest(port).tcp(refused).abort();
    // Later the idle ones give way to others, which all work.
    lan.run_for(20 * SECOND);
    lan.internet.serve(SERVER, Server::Echo);
    for number in 0..1000u16 {
        let handle = lan
            .guest(port)
            .connect(Lan::v4(SERVER), 20_000 + number, 512);
        let mut talk = Talk::new(port, handle, 100);
        let over = lan.run_until(SECOND, |lan| talk.is_over(lan));
        assert!(
            over && talk.read.len() == 100,
            "{number}: {:?}",
            talk.state(&mut lan)
        );
        lan.guest(port).tcp(handle).abort();
        assert!(lan.network.flows() <= 1000);
    }
    assert!(lan.contract.living() <= 1000);
}

#[test]
fn a_guest_that_fills_the_table_shuts_nobody_out() {
    let mut lan = Lan::new(1500, |config| config.flows_max = 100);
    lan.internet.serve(SERVER, Server::Echo);
    let (greedy, modest) = (lan.add_raw(9), lan.add_guest(2));
    let macs = (lan.guest(greedy).mac, lan.network.gateway_mac());
    let ends = Ends {
        macs,
        ips: ([192, 168, 64, 9].into(), [10, 0, 0, 1].into()),
    };
    let flood = |lan: &mut Lan, from: u16| {
        for port in from..from + 150 {
            lan.inject(greedy, packets::udp(ends, (port, 7), 64, b"x"));
        }
        lan.heard(greedy);
    };
    flood(&mut lan, 10_000);
    assert_eq!(lan.network.flows(), 100);
    // All are in use, and yet the other gets online, again and again.
    let mut talks = Vec::new();
    for number in 0..40 {
        let handle = lan
            .guest(modest)
            .connect(Lan::v4(SERVER), 50_000 + number, 4096);
        let mut talk = Talk::new(modest, handle, 100);
        talk.close = false;
        let read = lan.run_until(SECOND, |lan| {
            talk.step(lan);
            talk.read.len() == 100
        });
        assert!(read, "connection {number}");
        talks.push(talk);
    }
    // The flood goes on, and takes nothing from the other.
    flood(&mut lan, 20_000);
    assert_eq!(lan.network.flows(), 100);
    for talk in &mut talks {
        talk.total = 200;
        let read = lan.run_until(SECOND, |lan| {
            talk.step(lan);
            talk.read.len() == 200
        });
        assert!(read, "{:?}", talk.state(&mut lan));
    }
}

#[test]
fn a_stuck_port_blocks_nobody_else() {
    let mut lan = Lan::default();
    lan.internet.serve(SERVER, Server::Source(4 << 20));
    let (first, second) = (lan.add_guest(2), lan.add_guest(3));
    lan.wire(first).limit = 16;
    let handle = lan.guest(first).connect(Lan::v4(SERVER), 50_000, 64 << 10);
    let mut stuck = Talk::new(first, handle, 0);
    stuck.close_last = true;
    lan.run_until(Duration::from_millis(20), |lan| {
        stuck.step(lan);
        false
    });
    assert!(!stuck.read.is_empty());
    lan.wire(first).stuck = true;
    let handle = lan.guest(second).connect(Lan::v4(SERVER), 50_000, 64 << 10);
    let mut free = Talk::new(second, handle, 0);
    free.close_last = true;
    assert!(lan.run_until(20 * SECOND, |lan| {
        stuck.step(lan);
        free.is_over(lan)
    }));
    assert!(free.read.len() == 4 << 20 && is_pattern(&free.read));
    // Half an hour later the guest reads again, and nothing is lost.
    lan.run_for(1800 * SECOND);
    lan.wire(first).stuck = false;
    finish(&mut lan, &mut stuck, 30 * SECOND);
    assert!(stuck.read.len() == 4 << 20 && is_pattern(&stuck.read));
}

#[test]
fn a_guest_that_moves_from_a_full_port_reads_on_at_once() {
    let mut lan = Lan::default();
    lan.internet.serve(SERVER, Server::Source(1 << 20));
    let full = lan.add_guest(2);
    lan.wire(full).limit = 4;
    let handle = lan.guest(full).connect(Lan::v4(SERVER), 50_000, 512 << 10);
    let mut talk = Talk::new(full, handle, 0);
    talk.close_last = true;
    assert!(lan.run_until(SECOND, |lan| talk.state(lan) == State::Established));
    lan.wire(full).stuck = true;
    lan.run_for(Duration::from_millis(20));
    // The old port stays as it is, full and still there; its guest turns up at another.
    let away = Guest::raw(9, lan.start, lan.mtu);
    let guest = std::mem::replace(lan.guest(full), away);
    let (mac, gateway) = (guest.mac, lan.gateway());
    let free = lan.plug(guest);
    talk.port = free;
    let frames = lan.wire(free).frames;
    let hello = packets::arp_request(mac, (mac, [192, 168, 64, 2].into()), gateway);
    lan.inject(free, hello);
    lan.run_for(Duration::from_millis(1));
    let fresh = lan.wire(free).frames - frames;
    assert!(
        fresh > 1,
        "more than the answer to its ARP request: {fresh}"
    );
    finish(&mut lan, &mut talk, 60 * SECOND);
    assert!(talk.read.len() == 1 << 20 && is_pattern(&talk.read));
}

#[test]
fn a_removed_port_orphans_its_flows() {
    let mut lan = Lan::default();
    let other = lan.add_raw(8);
    let port = lan.add_guest(2);
    lan.internet.serve(SERVER, Server::Source(64 << 20));
    let handle = lan.guest(port).connect(Lan::v4(SERVER), 50_000, 64 << 10);
    let mut talk = Talk::new(port, handle, 0);
    lan.run_until(Duration::from_millis(20), |lan| {
        talk.step(lan);
        false
    });
    lan.unplug(port);
    assert_eq!(lan.network.flows(), 1);
    lan.heard(other);
    lan.run_for(20 * SECOND);
    let leaked = lan
        .heard(other)
        .iter()
        .filter(|f| packets::read_tcp(f).is_some())
        .count();
    assert_eq!(leaked, 0, "nobody else hears what was for the lost guest");
    lan.run_for(20 * SECOND);
    assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
}

#[test]
fn a_guest_that_comes_back_by_another_port_goes_on() {
    let mut lan = Lan::default();
    let port = lan.add_guest(2);
    lan.internet.serve(SERVER, Server::Source(8 << 20));
    lan.wire(port).limit = 16;
    let handle = lan.guest(port).connect(Lan::v4(SERVER), 50_000, 64 << 10);
    let mut talk = Talk::new(port, handle, 0);
    talk.close_last = true;
    lan.run_until(Duration::from_millis(20), |lan| {
        talk.step(lan);
        false
    });
    // Its queue is full when it goes.
    lan.wire(port).stuck = true;
    lan.run_for(SECOND);
    let guest = lan.unplug(port);
    lan.run_for(2 * SECOND);
    talk.port = lan.plug(guest);
    lan.guest(talk.port)
        .tcp(handle)
        .set_keep_alive(Some(smoltcp::time::Duration::from_secs(1)));
    finish(&mut lan, &mut talk, 60 * SECOND);
    assert!(talk.read.len() == 8 << 20 && is_pattern(&talk.read));
}

/// A lane that hears that a port has room again must not sleep while streams wait in line for it.
#[test]
fn a_port_that_has_room_again_puts_its_streams_in_line() {
    let mut lan = Lan::default();
    let mut talk = open(&mut lan, Server::Manual, 0);
    talk.close = false;
    let port = *lan.ports.keys().next().expect("a guest");
    assert!(lan.run_until(SECOND, |lan| {
        talk.step(lan);
        talk.state(lan) == State::Established
    }));
    assert!(!lan.network.has_reads(), "nothing is there");
    lan.network.set_port_ready(port, false);
    lan.internet.only().receive_max = usize::MAX;
    lan.internet.only().produce(100_000);
    lan.settle();
    assert!(!lan.network.has_reads(), "the port is full");
    lan.network.set_port_ready(port, true);
    assert!(lan.network.has_reads());
    let arrived = lan.run_until(SECOND, |lan| {
        talk.step(lan);
        talk.read.len() == 100_000
    });
    assert!(arrived && is_pattern(&talk.read));
}

#[test]
fn a_loopback_without_a_way_is_not_the_end() {
    // As on a host that has switched IPv6 off.
    let mut lan = Lan::dual(|config| config.host_loopback = true);
    lan.network
        .set_outside6(Some("2001:db8::99".parse().unwrap()));
    let none = Server::Error(HostError::NetworkUnreachable);
    lan.internet.serve("[::1]:80", none);
    lan.internet.serve("[2001:db8::99]:80", Server::Echo);
    let port = lan.add_autonomous(2);
    let to = SocketAddrV6::new(lan.gateway6(), 80, 0, 0);
    let handle = lan.guest(port).connect6(to, 40_000, 4096);
    let mut talk = Talk::new(port, handle, 100);
    assert!(lan.run_until(5 * SECOND, |lan| talk.is_over(lan)));
    assert_eq!(talk.read.len(), 100);
    assert_eq!(lan.internet.targets.len(), 2, "each is tried once");
}
