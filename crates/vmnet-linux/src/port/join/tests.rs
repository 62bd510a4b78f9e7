//! What was joined is cut again, and must be what it was.

use super::*;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use vmnet_wire::ethernet::{EtherType, Mac};
use vmnet_wire::segment::Cut;
use zerocopy::IntoBytes;

/// A segment whose sums are right.
#[derive(Clone, Debug)]
struct Made {
    v6: bool,
    sequence: u32,
    flags: u8,
    ttl: u8,
    id: u16,
    dont_fragment: bool,
    options: usize,
    payload: Vec<u8>,
}

impl Made {
    fn new(sequence: u32, payload: &[u8]) -> Self {
        Self {
            v6: false,
            sequence,
            flags: 0x10,
            ttl: 64,
            id: 7,
            dont_fragment: true,
            options: 0,
            payload: payload.to_vec(),
        }
    }

    fn frame(&self) -> Vec<u8> {
        let fields = tcp::Fields {
            source_port: 40_000,
            destination_port: 80,
            sequence: tcp::Seq(self.sequence),
            acknowledgement: tcp::Seq(9),
            flags: tcp::Flags(self.flags),
            window: 512,
        };
        let mut segment = tcp::Header::new(&fields, self.options, 0)
            .as_bytes()
            .to_vec();
        segment.resize(segment.len() + self.options, 1);
        segment.extend_from_slice(&self.payload);
        let (ether_type, ip, source, destination): (_, Vec<u8>, IpAddr, IpAddr) = if self.v6 {
            let ends = (Ipv6Addr::LOCALHOST, Ipv6Addr::from_bits(5));
            let header = ipv6::Header::new(ends.0, ends.1, Protocol::TCP, self.ttl, segment.len());
            (
                EtherType::IPV6,
                header.as_bytes().to_vec(),
                ends.0.into(),
                ends.1.into(),
            )
        } else {
            let fields = ipv4::Fields {
                source: Ipv4Addr::new(192, 168, 64, 2),
                destination: Ipv4Addr::new(10, 0, 0, 1),
                protocol: Protocol::TCP,
                ttl: self.ttl,
                id: self.id,
                dont_fragment: self.dont_fragment,
            };
            let header = ipv4::Header::new(&fields, segment.len());
            let ends = (fields.source.into(), fields.destination.into());
            (EtherType::IPV4, header.as_bytes().to_vec(), ends.0, ends.1)
        };
        let pseudo = ip::pseudo_header(source, destination, Protocol::TCP, segment.len());
        let sum = pseudo.with(&segment).finish();
        let (header, _) = tcp::Header::mut_from_prefix(&mut segment).unwrap();
        header.set(header.sequence(), header.flags(), sum);
        let ethernet = vmnet_wire::ethernet::Header::new(Mac([2; 6]), Mac([4; 6]), ether_type);
        [ethernet.as_bytes(), &ip, &segment].concat()
    }
}

/// Offers everything; whatever comes out, cut again where it is large.
fn through(frames: &[Vec<u8>]) -> (Vec<Vec<u8>>, usize) {
    let mut joining = Joining::default();
    let (mut out, mut large) = (Vec::new(), 0);
    let mut take = |joining: &mut Joining| {
        let Some((frame, offload)) = joining.take() else {
            return;
        };
        match offload.segmentation {
            None => out.push(frame.to_vec()),
            Some(segmentation) => {
                large += 1;
                let mut cut = Cut::new(frame, frame.len(), segmentation).expect("it can be cut");
                let payload = &frame[cut.headers()..];
                while let Some((head, range)) = cut.next(payload) {
                    out.push([head.bytes(), &payload[range]].concat());
                }
            }
        }
    };
    let mut passed = Vec::new();
    for frame in frames {
        loop {
            match joining.offer(frame, Offload::NONE) {
                Offered::Taken => break,
                Offered::Later => take(&mut joining),
                Offered::Not => {
                    take(&mut joining);
                    passed.push(frame.clone());
                    break;
                }
            }
        }
        if joining.is_ended() {
            take(&mut joining);
        }
    }
    take(&mut joining);
    out.extend(passed);
    (out, large)
}

fn run(count: u32, v6: bool) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| {
            let mut made = Made::new(100 + n * 1000, &[n as u8; 1000]);
            (made.v6, made.id) = (v6, n as u16);
            made.frame()
        })
        .collect()
}

#[test]
fn a_run_becomes_one_frame() {
    for v6 in [false, true] {
        let mut joining = Joining::default();
        for frame in run(5, v6) {
            assert_eq!(joining.offer(&frame, Offload::NONE), Offered::Taken);
        }
        let (frame, offload) = joining.take().unwrap();
        let headers = if v6 { 74 } else { 54 };
        assert_eq!(frame.len(), headers + 5000);
        let kind = if v6 { Kind::Tcp6 } else { Kind::Tcp4 };
        let segmentation = Segmentation {
            kind,
            size: 1000,
            ecn: false,
        };
        assert_eq!(offload.segmentation, Some(segmentation));
        assert!(joining.take().is_none());
        let (out, large) = through(&run(5, v6));
        assert_eq!((out, large), (run(5, v6), 1));
    }
}

#[test]
fn no_frame_is_larger_than_a_packet_may_be() {
    let (out, large) = through(&run(200, false));
    assert_eq!((out.len(), large), (200, 4));
}

#[test]
fn a_push_or_a_short_one_ends_it() {
    let mut pushed = Made::new(1100, &[1; 1000]);
    pushed.flags = 0x18;
    let first = Made::new(100, &[0; 1000]);
    for last in [pushed, Made::new(1100, &[1; 10])] {
        let mut joining = Joining::default();
        assert_eq!(joining.offer(&first.frame(), Offload::NONE), Offered::Taken);
        assert!(!joining.is_ended());
        assert_eq!(joining.offer(&last.frame(), Offload::NONE), Offered::Taken);
        assert!(joining.is_ended());
        let next = Made::new(2100, &[2; 1000]);
        assert_eq!(joining.offer(&next.frame(), Offload::NONE), Offered::Later);
        let (frame, _) = joining.take().unwrap();
        let segment = tcp::Segment::read(&frame[34..]).unwrap();
        assert_eq!(segment.fields.flags, tcp::Flags(last.flags));
    }
}

#[test]
fn what_differs_is_not_joined() {
    let changes: [fn(&mut Made); 6] = [
        |made| made.sequence += 1,
        |made| made.ttl = 63,
        |made| made.options = 4,
        |made| made.dont_fragment = false,
        |made| made.payload.push(1),
        |made| made.v6 = true,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut joining = Joining::default();
        let first = Made::new(100, &[0; 1000]).frame();
        assert_eq!(joining.offer(&first, Offload::NONE), Offered::Taken);
        let mut next = Made::new(1100, &[1; 1000]);
        change(&mut next);
        assert_eq!(
            joining.offer(&next.frame(), Offload::NONE),
            Offered::Later,
            "change {number}"
        );
    }
}

#[test]
fn what_says_more_passes_alone() {
    for flags in [0x02, 0x11, 0x14, 0x30, 0x50, 0x90, 0x00] {
        let mut made = Made::new(1, b"x");
        made.flags = flags;
        let offered = Joining::default().offer(&made.frame(), Offload::NONE);
        assert_eq!(offered, Offered::Not, "flags {flags:#x}");
    }
    let empty = Made::new(1, b"").frame();
    assert_eq!(
        Joining::default().offer(&empty, Offload::NONE),
        Offered::Not
    );
    let mut broken = Made::new(1, b"abc").frame();
    broken[55] ^= 1;
    assert_eq!(
        Joining::default().offer(&broken, Offload::NONE),
        Offered::Not
    );
}

#[test]
fn one_alone_stays_as_it_was() {
    let frame = Made::new(1, b"abc").frame();
    let mut joining = Joining::default();
    assert_eq!(joining.offer(&frame, Offload::NONE), Offered::Taken);
    assert_eq!(joining.take(), Some((&frame[..], Offload::VALID)));
}

proptest! {
    /// Every segment comes out as it went in, those that pass alone too.
    #[test]
    fn nothing_is_lost(pieces in proptest::collection::vec((1usize..1500, 0u8..8, 0usize..3), 1..80), v6: bool) {
        let (mut sequence, mut id) = (u32::MAX - 20_000, 60_000u16);
        let frames: Vec<Vec<u8>> = pieces
            .iter()
            .map(|(len, odd, options)| {
                let mut made = Made::new(sequence, &vec![*odd; *len]);
                (made.v6, made.id, made.options) = (v6, id, options * 4);
                made.dont_fragment = false;
                sequence = sequence.wrapping_add(*len as u32 + u32::from(*odd == 7));
                id = id.wrapping_add(1 + u16::from(*odd == 6));
                made.flags = match odd { 5 => 0x18, 4 => 0x11, _ => 0x10 };
                made.frame()
            })
            .collect();
        let (mut out, _) = through(&frames);
        let mut frames = frames;
        frames.sort();
        out.sort();
        prop_assert_eq!(out, frames);
    }

    #[test]
    fn any_bytes(mut frame in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..200, value: u8) {
        let mut joining = Joining::default();
        let _ = joining.offer(&frame, Offload::VALID);
        let made = Made::new(1, &frame).frame();
        frame = made;
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
        let _ = joining.offer(&frame, Offload::VALID);
        let _ = joining.take();
        let partial = Offload { checksum: Offload::partial(34, 16), segmentation: None };
        let _ = joining.offer(&frame, partial);
        let _ = joining.offer(&frame, partial);
        let _ = joining.take();
    }
}
