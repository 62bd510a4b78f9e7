//! Bursts of segments from a ring: those of a connection leave by one call of its socket as far as they go on from each
//! other, and whatever comes between them, every byte arrives once and in its place.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vmnet_linux::lane::{self, Handle, Ipv4, Settings};
use vmnet_virtio::frontend::{Frontend, Plan};
use vmnet_virtio::net::Features;
use vmnet_wire::ethernet::{self, EtherType, Mac};
use vmnet_wire::ip::{self, Protocol};
use vmnet_wire::offload::{Checksum, Kind, Offload, Segmentation};
use vmnet_wire::tcp::{Fields, Flags, Header, Segment, Seq};
use vmnet_wire::{ipv4, ipv6, segment};
use zerocopy::IntoBytes;

use crate::client::{self, take};
use crate::mac;

const SOON: Duration = Duration::from_secs(10);
const WINDOW: u16 = 60_000;
const MSS: usize = 1400;

/// The next frame of a burst.
#[derive(Clone, Copy, Debug)]
enum Piece {
    /// So many bytes more, whose sum is left to others.
    More(usize),
    /// The same, to be cut.
    Large(usize),
    /// The same with flags or a sum of its own.
    Pushed(usize),
    Summed(usize),
    /// Some of the bytes before again, and so many more.
    Again(usize, usize),
    /// Bytes that stand so far ahead: they are not taken.
    Ahead(usize),
    /// An acknowledgement alone.
    Bare,
    /// A frame that is no segment of anybody.
    Foreign,
    /// Bytes of the other connection.
    Other(usize),
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let len = || prop_oneof![1usize..MSS, 1000usize..MSS, Just(1usize)];
    let piece = prop_oneof![
        12 => len().prop_map(Piece::More),
        2 => len().prop_map(Piece::Pushed),
        1 => len().prop_map(Piece::Summed),
        2 => (1usize..3000, prop_oneof![Just(0), len()]).prop_map(|(back, len)| Piece::Again(back, len)),
        1 => (MSS + 1..9000).prop_map(Piece::Large),
        1 => (1usize..5000).prop_map(Piece::Ahead),
        1 => Just(Piece::Bare),
        1 => Just(Piece::Foreign),
        2 => len().prop_map(Piece::Other),
    ];
    // Fewer bytes than the window has.
    proptest::collection::vec(piece, 1..30)
}

/// One connection of the guest.
struct Talk {
    from: SocketAddr,
    to: SocketAddr,
    /// Bytes that were sent and that the network has acknowledged; the number before the first.
    sent: usize,
    acknowledged: usize,
    begin: Seq,
    peer: Seq,
}

struct Guest {
    vmm: Frontend,
    gateway: Mac,
}

fn byte(salt: u16, at: usize) -> u8 {
    (at.wrapping_mul(at) >> 7) as u8 ^ salt as u8
}

impl Guest {
    fn put(&mut self, header: [u8; 12], frame: &[u8]) {
        let queue = &mut self.vmm.pairs[0].transmit;
        let end = Instant::now() + SOON;
        while queue.driver.send(&header, &[frame]).is_err() {
            assert!(Instant::now() < end, "nobody takes frames from the ring");
            queue.flush().unwrap();
            queue.driver.reclaim().unwrap();
        }
    }

    fn flush(&mut self) {
        self.vmm.pairs[0].transmit.flush().unwrap();
    }

    fn frame(&self, talk: &Talk, flags: Flags, at: usize, len: usize) -> Vec<u8> {
        let fields = Fields {
            source_port: talk.from.port(),
            destination_port: talk.to.port(),
            sequence: talk.begin.advance(u32::try_from(at).unwrap()),
            acknowledgement: talk.peer,
            flags,
            window: WINDOW,
        };
        let (salt, total) = (talk.from.port(), Header::LEN + len);
        let (packet, ether_type) = match (talk.from.ip(), talk.to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let fields = ipv4::Fields {
                    source,
                    destination,
                    protocol: Protocol::TCP,
                    ttl: 64,
                    id: 0,
                    dont_fragment: true,
                };
                let header = ipv4::Header::new(&fields, total);
                (header.as_bytes().to_vec(), EtherType::IPV4)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = ipv6::Header::new(source, destination, Protocol::TCP, 64, total);
                (header.as_bytes().to_vec(), EtherType::IPV6)
            }
            _ => unreachable!("both are of one family"),
        };
        let ethernet = ethernet::Header::new(self.gateway, mac(1), ether_type);
        let sum = ip::pseudo_header(talk.from.ip(), talk.to.ip(), Protocol::TCP, total);
        let header = Header::new(&fields, 0, sum.folded());
        let mut frame = [ethernet.as_bytes(), &packet, header.as_bytes()].concat();
        frame.extend((at..at + len).map(|at| byte(salt, at)));
        frame
    }

    /// A segment of bytes from `at` on; who leaves its sum to others says so.
    fn segment(&mut self, talk: &Talk, flags: Flags, (at, len): (usize, usize), summed: bool) {
        let mut frame = self.frame(talk, flags, at, len);
        let transport = frame.len() - len - Header::LEN;
        let partial = Offload::partial(transport, Header::CHECKSUM_OFFSET);
        let checksum = if summed {
            segment::complete(&mut frame, &[], partial);
            Checksum::Unverified
        } else {
            partial
        };
        let kind = if talk.from.is_ipv4() {
            Kind::Tcp4
        } else {
            Kind::Tcp6
        };
        let offload = Offload {
            checksum,
            segmentation: (len > MSS).then_some(Segmentation {
                kind,
                size: MSS as u16,
                ecn: false,
            }),
        };
        self.put(offload.write(frame.len() - len), &frame);
    }

    /// Reads what came, until `done` says that it is enough.
    fn hear(&mut self, talks: &mut [Talk; 2], done: impl Fn(&[Talk; 2]) -> bool) {
        let end = Instant::now() + SOON;
        loop {
            let queue = &mut self.vmm.pairs[0].receive;
            while let Some(bytes) = take(queue) {
                let frame = &bytes[12..];
                let Some(layout) = segment::Layout::find(frame, frame.len()) else {
                    continue;
                };
                let Some(segment) = Segment::read(&frame[layout.transport..]) else {
                    continue;
                };
                let fields = segment.fields;
                let ports = (fields.source_port, fields.destination_port);
                let is_to = |talk: &&mut Talk| (talk.to.port(), talk.from.port()) == ports;
                let Some(talk) = talks.iter_mut().find(is_to) else {
                    continue;
                };
                assert!(!fields.flags.has(Flags::RST), "the network has given up");
                if fields.flags.has(Flags::SYN) {
                    talk.peer = fields.sequence.advance(1);
                }
                let number = (fields.acknowledgement - talk.begin) as usize;
                assert!(
                    number <= talk.sent + 1,
                    "acknowledges {number} of {}: {fields:?}",
                    talk.sent
                );
                talk.acknowledged = talk.acknowledged.max(number);
            }
            if done(talks) {
                return;
            }
            assert!(Instant::now() < end, "the network does not answer");
            queue.wait(Duration::from_millis(1)).unwrap();
        }
    }

    fn send(&mut self, talks: &mut [Talk; 2], number: usize, piece: Piece) {
        let talk = &talks[number];
        let (flags, sent) = (Flags::ACK, talk.sent);
        let len = match piece {
            Piece::More(len) => {
                self.segment(talk, flags, (sent, len), false);
                len
            }
            Piece::Large(len) => {
                self.segment(talk, flags, (sent, len), false);
                len
            }
            Piece::Pushed(len) => {
                self.segment(talk, flags | Flags::PSH, (sent, len), false);
                len
            }
            Piece::Summed(len) => {
                self.segment(talk, flags, (sent, len), true);
                len
            }
            Piece::Again(back, len) => {
                let back = back.min(sent).min(MSS - len.min(MSS - 1));
                self.segment(talk, flags, (sent - back, back + len), false);
                len
            }
            Piece::Ahead(by) => {
                self.segment(talk, flags, (sent + by, 10), false);
                0
            }
            Piece::Bare => {
                self.segment(talk, flags, (sent, 0), false);
                0
            }
            Piece::Foreign => {
                let mut frame = self.frame(talk, flags, sent, 100);
                frame[12..14].copy_from_slice(&[0x88, 0xb5]);
                self.put([0; 12], &frame);
                0
            }
            Piece::Other(len) => return self.send(talks, 1 - number, Piece::More(len)),
        };
        talks[number].sent += len;
    }
}

fn start() -> Handle {
    let ipv4 = Ipv4::new("192.168.77.0/24".parse().unwrap());
    let mut settings = Settings::shared("bursts", ipv4, Duration::from_secs(3600));
    settings.host_loopback = true;
    settings.resolvers = Some(Vec::new());
    settings.ipv6 = Some("fd00:77::/64".parse().unwrap());
    lane::start(settings).unwrap()
}

/// What two servers heard of a guest's two connections, each its own bytes.
///
/// The network may still know connections of stories before: the guest's ports are new ones.
fn run(handle: &Handle, ports: [u16; 2], (v6, packed): (bool, bool), bursts: &[Vec<Piece>]) {
    let split = Features::ALL.without(Features::RING_PACKED);
    let plan = Plan {
        features: if packed { Features::ALL } else { split },
        receive_buffer: 2048,
        ..Plan::new()
    };
    let (id, mut vmm) = client::vmm(handle, &plan);
    let (own, gateway): (IpAddr, IpAddr) = if v6 {
        let own = "fd00:77::11".parse::<Ipv6Addr>().unwrap();
        (own.into(), "fd00:77::1".parse::<Ipv6Addr>().unwrap().into())
    } else {
        let gateway = Ipv4Addr::new(192, 168, 77, 1);
        (crate::address(1).into(), gateway.into())
    };
    vmm.pairs[0].receive.flush().unwrap();
    let mut guest = Guest {
        vmm,
        gateway: lane::gateway_mac(Some(Ipv4::new("192.168.77.0/24".parse().unwrap())), None),
    };
    let loopback = if v6 { "[::1]:0" } else { "127.0.0.1:0" };
    let mut servers = Vec::new();
    let mut talks = ports.map(|port| {
        let listener = TcpListener::bind(loopback).unwrap();
        let to = SocketAddr::new(gateway, listener.local_addr().unwrap().port());
        servers.push(std::thread::spawn(move || {
            let mut heard = Vec::new();
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_to_end(&mut heard).unwrap();
            heard
        }));
        Talk {
            from: SocketAddr::new(own, port),
            to,
            sent: 0,
            acknowledged: 0,
            begin: Seq(u32::MAX - 20_000),
            peer: Seq(0),
        }
    });
    for talk in &talks {
        let mut syn = Talk { ..*talk };
        syn.begin = Seq(syn.begin.0.wrapping_sub(1));
        guest.segment(&syn, Flags::SYN, (0, 0), false);
    }
    guest.flush();
    guest.hear(&mut talks, |talks| {
        talks.iter().all(|talk| talk.peer != Seq(0))
    });
    for burst in bursts {
        for piece in burst {
            guest.send(&mut talks, 0, *piece);
        }
        guest.flush();
        // Within the window: none of it is lost.
        guest.hear(&mut talks, |talks| {
            talks.iter().all(|talk| talk.acknowledged == talk.sent)
        });
    }
    for talk in &talks {
        guest.segment(talk, Flags::ACK | Flags::FIN, (talk.sent, 0), false);
    }
    guest.flush();
    for (talk, server) in talks.iter().zip(servers) {
        let heard = server.join().unwrap();
        let salt = talk.from.port();
        let expected: Vec<u8> = (0..talk.sent).map(|at| byte(salt, at)).collect();
        assert!(heard == expected, "{} of {} bytes", heard.len(), talk.sent);
    }
    handle.detach(id);
}

#[test]
fn every_byte_of_a_burst_arrives_once_whatever_comes_between() {
    let handle = start();
    let next_port = AtomicU16::new(5000);
    let mut runner = TestRunner::new(Config {
        cases: 40,
        failure_persistence: None,
        ..Config::default()
    });
    let stories = (
        any::<(bool, bool)>(),
        proptest::collection::vec(pieces(), 1..12),
    );
    runner
        .run(&stories, |(how, bursts)| {
            let port = next_port.fetch_add(2, Ordering::Relaxed);
            run(&handle, [port, port + 1], how, &bursts);
            Ok(())
        })
        .unwrap();
}
