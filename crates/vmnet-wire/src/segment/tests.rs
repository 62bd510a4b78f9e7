//! Pieces are checked by an independent reader: their checksums, order and bytes.

use super::*;
use crate::ethernet::Mac;
use crate::offload::Offload;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use zerocopy::IntoBytes;

const V4: (IpAddr, IpAddr) = (
    IpAddr::V4(Ipv4Addr::new(192, 168, 64, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 168, 64, 2)),
);
const V6: (IpAddr, IpAddr) = (
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
);

fn frame((source, destination): (IpAddr, IpAddr), protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let transport = if protocol == Protocol::TCP {
        let fields = tcp::Fields {
            source_port: 80,
            destination_port: 4000,
            sequence: tcp::Seq(u32::MAX - 100),
            acknowledgement: tcp::Seq(5),
            flags: tcp::Flags::ACK | tcp::Flags::PSH | tcp::Flags::FIN | tcp::Flags::CWR,
            window: 100,
        };
        tcp::Header::new(&fields, 0, 0).as_bytes().to_vec()
    } else {
        udp::Header::new(53, 4000, payload.len(), 0)
            .as_bytes()
            .to_vec()
    };
    let len = transport.len() + payload.len();
    let (ether_type, packet) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let fields = ipv4::Fields {
                source,
                destination,
                protocol,
                ttl: 64,
                id: 9,
                dont_fragment: false,
            };
            (
                EtherType::IPV4,
                ipv4::Header::new(&fields, len).as_bytes().to_vec(),
            )
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => (
            EtherType::IPV6,
            ipv6::Header::new(source, destination, protocol, 64, len)
                .as_bytes()
                .to_vec(),
        ),
        _ => unreachable!(),
    };
    let mut bytes = ethernet::Header::new(Mac([2; 6]), Mac([4; 6]), ether_type)
        .as_bytes()
        .to_vec();
    bytes.extend(packet);
    let start = bytes.len();
    bytes.extend(transport);
    bytes.extend(payload);
    let pseudo = ip::pseudo_header(source, destination, protocol, len).folded();
    let offset = if protocol == Protocol::TCP { 16 } else { 6 };
    bytes[start + offset..start + offset + 2].copy_from_slice(&pseudo.to_be_bytes());
    bytes
}

fn cut(frame: &[u8], kind: Kind, size: u16) -> Vec<Vec<u8>> {
    let segmentation = Segmentation {
        kind,
        size,
        ecn: false,
    };
    let mut cut = Cut::new(frame, frame.len(), segmentation).unwrap();
    let payload = &frame[cut.headers()..];
    let mut pieces = Vec::new();
    while let Some((head, range)) = cut.next(payload) {
        let mut piece = head.bytes().to_vec();
        piece.extend(&payload[range]);
        pieces.push(piece);
    }
    pieces
}

proptest! {
    #[test]
    fn segments_are_whole_and_in_order(
        payload in proptest::collection::vec(any::<u8>(), 1..5000), size in 1u16..2000, v6: bool,
    ) {
        let (ends, kind) = if v6 { (V6, Kind::Tcp6) } else { (V4, Kind::Tcp4) };
        let pieces = cut(&frame(ends, Protocol::TCP, &payload), kind, size);
        let mut joined = Vec::<u8>::new();
        let first = tcp::Seq(u32::MAX - 100);
        for (index, piece) in pieces.iter().enumerate() {
            prop_assert!(verify(piece));
            let layout = Layout::find(piece, piece.len()).unwrap();
            let segment = tcp::Segment::read(&piece[layout.transport..]).unwrap();
            prop_assert_eq!((segment.fields.sequence - first) as usize, joined.len());
            let last = index + 1 == pieces.len();
            prop_assert_eq!(segment.fields.flags.has(tcp::Flags::FIN | tcp::Flags::PSH), last);
            prop_assert_eq!(segment.fields.flags.has(tcp::Flags::CWR), index == 0);
            joined.extend(&piece[layout.payload..]);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn tags_are_those_of_each_piece(
        payload in proptest::collection::vec(any::<u8>(), 1..5000), size in 100u16..2000, v6: bool, udp: bool, tags in 1usize..=2,
    ) {
        let ends = if v6 { V6 } else { V4 };
        let (protocol, kind) = match (udp, v6) {
            (true, _) => (Protocol::UDP, Kind::Udp),
            (false, true) => (Protocol::TCP, Kind::Tcp6),
            (false, false) => (Protocol::TCP, Kind::Tcp4),
        };
        let tag = |frame: &[u8]| {
            let both = [[0x88, 0xa8, 0, 7], [0x81, 0, 0xe0, 5]];
            [&frame[..12], both[2 - tags..].as_flattened(), &frame[12..]].concat()
        };
        let plain = frame(ends, protocol, &payload);
        let pieces: Vec<_> = cut(&plain, kind, size).iter().map(|piece| tag(piece)).collect();
        prop_assert_eq!(cut(&tag(&plain), kind, size), pieces);
    }

    #[test]
    fn datagrams_are_whole(payload in proptest::collection::vec(any::<u8>(), 1..5000), size in 1u16..2000) {
        let pieces = cut(&frame(V4, Protocol::UDP, &payload), Kind::Udp, size);
        let bodies: Vec<u8> = pieces.iter().flat_map(|piece| {
            assert!(verify(piece));
            piece[42..].to_vec()
        }).collect();
        prop_assert_eq!(bodies, payload);
    }

    #[test]
    fn a_completed_checksum_is_right(
        payload in proptest::collection::vec(any::<u8>(), 0..2000), tcp: bool, at in 0usize..2000,
    ) {
        let (protocol, offset) = if tcp { (Protocol::TCP, 16) } else { (Protocol::UDP, 6) };
        let mut whole = frame(V4, protocol, &payload);
        let split = (54 + at).min(whole.len());
        let (head, rest) = whole.split_at_mut(split);
        complete(head, rest, Offload::partial(34, offset));
        prop_assert!(verify(&whole));
    }

    #[test]
    fn fragments_join_to_the_whole(payload in proptest::collection::vec(any::<u8>(), 0..9000), mtu in 68usize..3000) {
        let whole = frame(V4, Protocol::UDP, &payload);
        let mut joined = Vec::<u8>::new();
        let mut more = true;
        for (head, range) in Fragments::new(&whole, mtu).unwrap() {
            let mut piece = head.bytes().to_vec();
            piece.extend(&whole[range]);
            let packet = ipv4::Packet::read(&piece[14..], piece.len() - 14).unwrap();
            prop_assert!(piece.len() - 14 <= mtu);
            prop_assert_eq!(packet.header.fragment_offset(), joined.len());
            prop_assert_eq!(packet.header.id(), 9);
            more = packet.header.more_fragments();
            joined.extend(packet.payload);
        }
        prop_assert!(!more);
        prop_assert_eq!(&joined, &whole[34..]);
    }

    #[test]
    fn ipv6_fragments_join_to_the_whole(payload in proptest::collection::vec(any::<u8>(), 0..9000), mtu in 1280usize..3000) {
        let whole = frame(V6, Protocol::UDP, &payload);
        let mut joined = Vec::<u8>::new();
        let mut last = None;
        for (head, range) in Fragments::new(&whole, mtu).unwrap() {
            let mut piece = head.bytes().to_vec();
            piece.extend(&whole[range]);
            prop_assert!(piece.len() - 14 <= mtu);
            let packet = ipv6::Packet::read(&piece[14..], piece.len() - 14).unwrap();
            let fragment = packet.fragment.unwrap();
            prop_assert_eq!(fragment.next_header, Protocol::UDP);
            prop_assert_eq!(fragment.offset, joined.len());
            prop_assert!(last.is_none_or(|(id, more)| more && id == fragment.id));
            last = Some((fragment.id, fragment.more));
            joined.extend(packet.payload);
        }
        prop_assert!(!last.unwrap().1);
        prop_assert_eq!(&joined, &whole[54..]);
    }

    #[test]
    fn segments_behind_extension_headers_are_whole(payload in proptest::collection::vec(any::<u8>(), 1..5000), size in 500u16..1400) {
        let mut large = frame(V6, Protocol::TCP, &payload);
        large.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
        large[20] = Protocol::DESTINATION_OPTIONS.0;
        let len = u16::try_from(payload.len() + 28).unwrap();
        large[18..20].copy_from_slice(&len.to_be_bytes());
        let segmentation = Segmentation { kind: Kind::Tcp6, size, ecn: false };
        let mut cut = Cut::new(&large, large.len(), segmentation).unwrap();
        let behind = &large[cut.headers()..];
        let mut joined = Vec::<u8>::new();
        while let Some((head, range)) = cut.next(behind) {
            let mut piece = head.bytes().to_vec();
            piece.extend(&behind[range]);
            let layout = Layout::find(&piece, piece.len()).unwrap();
            prop_assert_eq!((layout.transport, layout.end), (62, piece.len()));
            prop_assert!(verify(&piece));
            joined.extend(&piece[layout.payload..]);
        }
        prop_assert_eq!(joined, payload);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in 0usize..300, size: u16) {
        let mut bytes = bytes;
        let _ = verify(&bytes);
        for kind in [Kind::Tcp4, Kind::Tcp6, Kind::Udp] {
            if let Some(mut cut) = Cut::new(&bytes, len, Segmentation { kind, size, ecn: true }) {
                while cut.next(&[0; 300]).is_some() {}
            }
        }
        if let Some(fragments) = Fragments::new(&bytes, usize::from(size)) {
            let _ = fragments.count();
        }
        complete(&mut bytes, &[1, 2, 3], Checksum::Partial { start: size, offset: 3 });
    }
}

#[test]
fn a_frame_that_is_not_what_it_claims_is_not_cut() {
    let udp = frame(V4, Protocol::UDP, &[1; 3000]);
    let segmentation = Segmentation {
        kind: Kind::Tcp4,
        size: 1000,
        ecn: false,
    };
    assert!(Cut::new(&udp, udp.len(), segmentation).is_none());
    let mut fixed = udp.clone();
    fixed[20] |= 0x40; // DF
    assert!(Fragments::new(&fixed, 1500).is_none());
    let tcp = frame(V6, Protocol::TCP, &[1; 3000]);
    assert!(Fragments::new(&tcp, 1500).is_none());
}
