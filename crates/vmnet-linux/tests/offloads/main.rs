//! Ports with every kind of offload, in pairs and through the NAT: every byte arrives, whatever the two agreed on.
//!
//! | file | what |
//! | --- | --- |
//! | `client` | the other end of a port |
//! | `stack` | a TCP/IP stack behind one |
//! | `bursts` | segments of one connection, and others between them, in one burst of a ring |
//! | `vmms` | VMMs that go, come back, stop in the middle, and lie |

mod bursts;
mod client;
mod stack;
mod vmms;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use client::{Client, Way};
use stack::Stack;
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_linux::lane::{
    self, AttachError, Attachment, Handle, Ipv4, PortOffload, PortOptions, Settings,
};
use vmnet_virtio::net::Features;
use vmnet_wire::ethernet::Mac;
use vmnet_wire::tcp::{Fields, Flags, Seq};
use vmnet_wire::{segment, unfinished};

fn start() -> Handle {
    let ipv4 = Ipv4::new("192.168.77.0/24".parse().unwrap());
    let mut settings = Settings::shared("offloads", ipv4, Duration::from_secs(3600));
    settings.host_loopback = true;
    settings.resolvers = Some(Vec::new());
    lane::start(settings).unwrap()
}

/// Every kind of port: by stream, by datagrams or by rings, and all that can be agreed on.
fn kinds() -> Vec<(Way, PortOffload)> {
    let mut kinds = Vec::new();
    for bits in 0..16 {
        let agreed = PortOffload {
            virtio_header: bits & 1 != 0,
            tso: bits & 2 != 0,
            checksum: bits & 4 != 0,
        };
        if !(agreed.virtio_header && agreed.checksum) {
            let way = if bits & 8 != 0 {
                Way::Stream
            } else {
                Way::Dgram
            };
            kinds.push((way, agreed));
        }
    }
    let all = Features::ALL;
    let no_large = all.without(Features::GUEST_TSO4 | Features::GUEST_TSO6);
    for features in [
        all.without(Features::RING_PACKED),
        all,
        all.without(Features::MRG_RXBUF | Features::EVENT_IDX),
        no_large,
        Features::VERSION_1,
        Features::VERSION_1 | Features::RING_PACKED | Features::MRG_RXBUF,
    ] {
        kinds.push((Way::Rings(features), client::agreed_by(features)));
    }
    kinds
}

fn mac(number: usize) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, u8::try_from(number).unwrap()])
}

fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 77, 10 + u8::try_from(number).unwrap())
}

/// A TCP frame whose sums are empty.
fn segment_of(ends: Ends, sequence: usize, payload: &[u8]) -> Vec<u8> {
    let fields = Fields {
        source_port: 1000,
        destination_port: 2000,
        sequence: Seq(u32::try_from(sequence).unwrap()),
        acknowledgement: Seq(1),
        flags: Flags::ACK,
        window: 1000,
    };
    let mut frame = packets::tcp(ends, &fields, &[], payload);
    frame[24..26].fill(0);
    frame[50..52].fill(0);
    frame
}

fn send_all(client: &mut Client, ends: Ends, stream: &[u8]) {
    let size = if client.sends_large() { 60_001 } else { 1460 };
    for (index, piece) in stream.chunks(size).enumerate() {
        client.send(segment_of(ends, index * size, piece));
    }
}

fn receive_all(client: &mut Client, len: usize) -> Vec<u8> {
    let mut pieces = BTreeMap::new();
    let mut got = 0;
    let end = Instant::now() + Duration::from_secs(20);
    while got < len && Instant::now() < end {
        let Some(frame) = client.receive() else {
            continue;
        };
        if let Some((_, _, fields, payload)) = packets::read_tcp(&frame) {
            got += payload.len();
            pieces.insert(fields.sequence.0, payload);
        }
    }
    let mut stream = Vec::new();
    for (at, payload) in pieces {
        assert_eq!(at as usize, stream.len(), "in order, nothing twice");
        stream.extend(payload);
    }
    stream
}

/// Waits until so many guests were heard: what goes to others is flooded to all.
fn settle(handle: &Handle, guests: usize) {
    let end = Instant::now() + Duration::from_secs(10);
    while handle
        .ports()
        .iter()
        .filter(|row| row.mac.is_some())
        .count()
        < guests
    {
        assert!(Instant::now() < end, "not all guests were heard");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_kind_speaks_to_every_other() {
    let handle = start();
    let mut clients: Vec<Client> = kinds()
        .into_iter()
        .map(|(way, agreed)| Client::join(&handle, way, agreed))
        .collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let own = (mac(number), address(number));
        client.send(packets::arp_request(own.0, own, [192, 168, 77, 9].into()));
    }
    settle(&handle, clients.len());
    let stream: Vec<u8> = (0..150_000u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    let mut large = 0;
    for from in 0..clients.len() {
        for to in (0..clients.len()).filter(|to| *to != from) {
            let ends = Ends {
                macs: (mac(from), mac(to)),
                ips: (address(from), address(to)),
            };
            send_all(&mut clients[from], ends, &stream);
            let before = clients[to].large;
            let got = receive_all(&mut clients[to], stream.len());
            let (sender, receiver) = (clients[from].agreed, clients[to].agreed);
            assert!(
                got == stream,
                "{sender:?} to {receiver:?}: {} bytes",
                got.len()
            );
            let came_large = clients[to].large > before;
            let should = clients[from].sends_large() && receiver.tso;
            assert_eq!(came_large, should, "{sender:?} to {receiver:?}");
            large += usize::from(came_large);
        }
    }
    assert!(large > 20, "{large}");
}

#[test]
fn every_kind_reaches_the_outside() {
    let handle = start();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let sent: Vec<u8> = (0..2_000_000u32)
        .map(|n| (n.wrapping_mul(n) >> 9) as u8)
        .collect();
    let expected = sent.clone();
    // Sends back what it hears.
    let echo = std::thread::spawn(move || {
        for _ in kinds() {
            let (mut peer, _) = server.accept().unwrap();
            let mut heard = vec![0; expected.len()];
            peer.read_exact(&mut heard).unwrap();
            assert!(heard == expected, "the outside heard something else");
            peer.write_all(&heard).unwrap();
        }
    });
    for (number, (way, agreed)) in kinds().into_iter().enumerate() {
        let client = Client::join(&handle, way, agreed);
        let mut stack = Stack::new(client, mac(number), address(number));
        let heard = stack.exchange([192, 168, 77, 1].into(), port, &sent);
        assert!(heard == sent, "{agreed:?}: {} bytes came back", heard.len());
        if agreed.tso {
            assert!(stack.large_in() > 0, "{agreed:?}: no large frame came");
        }
        handle.detach(stack.port());
    }
    echo.join().unwrap();
}

#[test]
fn a_hostile_header_is_a_counted_drop() {
    let handle = start();
    let agreed = PortOffload {
        virtio_header: true,
        tso: true,
        checksum: false,
    };
    let mut hostile = Client::join(&handle, Way::Dgram, agreed);
    let mut other = Client::join(&handle, Way::Dgram, agreed);
    let own = (mac(1), address(1));
    other.send(packets::arp_request(own.0, own, [192, 168, 77, 9].into()));
    settle(&handle, 1);
    let ends = Ends {
        macs: (mac(0), mac(1)),
        ips: (address(0), address(1)),
    };
    let frame = packets::udp(ends, (1, 2), 64, b"hello");
    let headers: [[u8; 12]; 6] = [
        // Kinds that nobody knows, or that the frame is not.
        [0, 77, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0],
        [1, 4, 54, 0, 0xb4, 5, 34, 0, 6, 0, 0, 0],
        // The checksum to be written over the source address, and far outside.
        [1, 0, 0, 0, 0, 0, 14, 0, 12, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
        // Segments of no bytes.
        [1, 1, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0],
    ];
    for header in headers {
        hostile.send_raw(&[&header[..], &frame].concat());
    }
    for len in 0..12 {
        hostile.send_raw(&[0; 12][..len]);
    }
    hostile.send(frame.clone());
    let heard = other
        .receive()
        .or_else(|| other.receive())
        .expect("the honest one");
    assert_eq!(packets::read_udp(&heard).unwrap().2, b"hello");
    let rows = handle.counters().rows;
    let malformed = rows.iter().find(|(name, _)| name == "drop-malformed");
    assert!(malformed.is_some_and(|(_, count)| *count >= 17), "{rows:?}");
}

#[test]
fn a_header_and_left_checksums_are_refused_together() {
    let handle = start();
    let (ours, _theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let options = PortOptions {
        offload: PortOffload {
            virtio_header: true,
            tso: false,
            checksum: true,
        },
        ..PortOptions::default()
    };
    let refused = handle.attach(Attachment::Dgram(ours.into()), options);
    assert!(matches!(refused, Err(AttachError::HeaderAndChecksum)));
}

/// A client that reads nothing for a while loses nothing of what the port's queue holds.
#[test]
fn a_slow_client_loses_nothing() {
    let handle = start();
    for way in [Way::Stream, Way::Dgram, Way::Rings(Features::VERSION_1)] {
        let mut quick = Client::join(&handle, Way::Stream, PortOffload::default());
        let mut slow = Client::join(&handle, way, PortOffload::default());
        let own = (mac(1), address(1));
        slow.send(packets::arp_request(own.0, own, [192, 168, 77, 9].into()));
        settle(&handle, 1);
        let ends = Ends {
            macs: (mac(0), mac(1)),
            ips: (address(0), address(1)),
        };
        let bytes: Vec<u8> = (0..900_000u32)
            .map(|n| (n.wrapping_mul(n) >> 8) as u8)
            .collect();
        send_all(&mut quick, ends, &bytes);
        std::thread::sleep(Duration::from_millis(300));
        assert!(receive_all(&mut slow, bytes.len()) == bytes);
        handle.detach(quick.id);
        handle.detach(slow.id);
    }
}

/// What comes in small segments, at once, goes on in large ones to whoever takes such, and to nobody else.
#[test]
fn small_segments_are_joined_for_those_who_take_large_ones() {
    let handle = start();
    let large = PortOffload {
        virtio_header: true,
        tso: true,
        checksum: false,
    };
    let mut sender = Client::join(&handle, Way::Stream, PortOffload::default());
    let mut takers = [
        Client::join(&handle, Way::Stream, large),
        Client::join(&handle, Way::Dgram, PortOffload::default()),
    ];
    for (number, client) in takers.iter_mut().enumerate() {
        let own = (mac(number), address(number));
        client.send(packets::arp_request(own.0, own, [192, 168, 77, 9].into()));
    }
    settle(&handle, takers.len());
    let bytes: Vec<u8> = (0..40_000u32)
        .map(|n| (n.wrapping_mul(n) >> 8) as u8)
        .collect();
    for (number, taker) in takers.iter_mut().enumerate() {
        let ends = Ends {
            macs: (mac(9), mac(number)),
            ips: (address(9), address(number)),
        };
        let mut burst = Vec::new();
        for (index, piece) in bytes.chunks(1460).enumerate() {
            let mut frame = segment_of(ends, index * 1460, piece);
            frame[20] |= 0x40; // DF, as TCP's packets have it
            let sums = unfinished::Leaves {
                sums: true,
                cutting_to: None,
            };
            let (offload, _) = unfinished::leave(&mut frame, sums).expect("TCP");
            segment::complete(&mut frame, &[], offload.checksum);
            burst.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
            burst.extend(frame);
        }
        sender.send_framed(&burst);
        assert!(receive_all(taker, bytes.len()) == bytes);
        assert_eq!(taker.large > 0, number == 0, "taker {number}");
    }
}
