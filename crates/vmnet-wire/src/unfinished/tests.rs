use super::*;
use crate::ethernet::Mac;
use crate::segment::{self, Cut};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::IntoBytes;

const V4: (IpAddr, IpAddr) = (
    IpAddr::V4(Ipv4Addr::new(192, 168, 64, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 168, 64, 2)),
);
const V6: (IpAddr, IpAddr) = (
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
);

/// A frame whose sums are all empty.
fn frame((source, destination): (IpAddr, IpAddr), protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let transport = if protocol == Protocol::TCP {
        let fields = tcp::Fields {
            source_port: 80,
            destination_port: 4000,
            sequence: tcp::Seq(7),
            acknowledgement: tcp::Seq(5),
            flags: tcp::Flags::ACK | tcp::Flags::CWR,
            window: 100,
        };
        tcp::Header::new(&fields, 0, 0).as_bytes().to_vec()
    } else {
        let header = udp::Header::new(53, 4000, payload.len(), 0);
        header.as_bytes().to_vec()
    };
    let len = transport.len() + payload.len();
    let (ether_type, mut packet) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let fields = ipv4::Fields {
                source,
                destination,
                protocol,
                ttl: 64,
                id: 9,
                dont_fragment: false,
            };
            let header = ipv4::Header::new(&fields, len);
            (EtherType::IPV4, header.as_bytes().to_vec())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = ipv6::Header::new(source, destination, protocol, 64, len);
            (EtherType::IPV6, header.as_bytes().to_vec())
        }
        _ => unreachable!(),
    };
    if ether_type == EtherType::IPV4 {
        packet[10..12].fill(0);
    }
    let ethernet = ethernet::Header::new(Mac([2; 6]), Mac([4; 6]), ether_type);
    [ethernet.as_bytes(), &packet, &transport, payload].concat()
}

const BOTH: Leaves = Leaves {
    sums: true,
    cutting_to: Some(1500),
};

#[test]
fn empty_sums_are_made() {
    for ends in [V4, V6] {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            for len in [0, 1, 1001] {
                let mut bytes = frame(ends, protocol, &vec![7; len]);
                let whole = bytes.len();
                // Padding of the link is no part of it.
                bytes.extend([0xee; 9]);
                let (offload, end) = leave(&mut bytes, BOTH).unwrap();
                assert_eq!((end, offload.segmentation), (whole, None));
                bytes.truncate(end);
                assert!(is_sound(&bytes, &offload));
                segment::complete(&mut bytes, &[], offload.checksum);
                assert!(segment::verify(&bytes), "{protocol:?} {len}");
                assert!(Layout::find(&bytes, bytes.len()).is_some());
            }
        }
    }
}

#[test]
fn large_segments_are_cut_to_the_mtu_and_nothing_else() {
    for ends in [V4, V6] {
        let payload: Vec<u8> = (0..40_001u32).map(|n| n as u8).collect();
        let mut bytes = frame(ends, Protocol::TCP, &payload);
        let (offload, _) = leave(&mut bytes, BOTH).unwrap();
        assert!(is_sound(&bytes, &offload));
        let segmentation = offload.segmentation.unwrap();
        assert!(segmentation.ecn);
        let mut cut = Cut::new(&bytes, bytes.len(), segmentation).unwrap();
        let behind = &bytes[cut.headers()..];
        let mut joined = Vec::new();
        while let Some((head, range)) = cut.next(behind) {
            let piece = [head.bytes(), &behind[range.clone()]].concat();
            assert!(piece.len() <= 1514 && segment::verify(&piece));
            joined.extend_from_slice(&behind[range]);
        }
        assert_eq!(joined, payload);
    }
    let mut datagram = frame(V4, Protocol::UDP, &[1; 4000]);
    let (offload, _) = leave(&mut datagram, BOTH).unwrap();
    assert_eq!(offload.segmentation, None);
}

#[test]
fn what_is_not_left_is_not_touched() {
    let mut bytes = frame(V6, Protocol::TCP, b"hello");
    let before = bytes.clone();
    assert_eq!(leave(&mut bytes, Leaves::default()), None);
    let cutting = Leaves {
        sums: false,
        cutting_to: Some(1500),
    };
    assert_eq!(leave(&mut bytes, cutting), None);
    assert_eq!(bytes, before);
}

#[test]
fn a_checksum_never_lands_in_a_header_that_was_judged() {
    let partial = |start, offset| Offload {
        checksum: Checksum::Partial { start, offset },
        segmentation: None,
    };
    let mut tcp4 = frame(V4, Protocol::TCP, &[1; 100]);
    sum_ipv4_header(&mut tcp4);
    // The source address, the MACs, a port; then what is right, and a packet inside.
    for (start, offset, sound) in [
        (14, 12, false),
        (0, 6, false),
        (34, 0, false),
        (34, 18, false),
        (20, 14, false),
        (34, 16, true),
        (60, 6, true),
        (34, 140, false),
        (u16::MAX, u16::MAX, false),
    ] {
        assert_eq!(
            is_sound(&tcp4, &partial(start, offset)),
            sound,
            "{start} {offset}"
        );
    }
    let mut arp = tcp4.clone();
    arp[12..14].copy_from_slice(&[8, 6]);
    assert!(!is_sound(&arp, &partial(14, 14)));
    let tagged = [&tcp4[..12], &[0x81, 0, 0, 5], &tcp4[12..]].concat();
    assert!(!is_sound(&tagged, &partial(18, 12)));
    assert!(is_sound(&tagged, &partial(38, 16)));
    let gso = |kind| Offload {
        checksum: Offload::partial(34, 16),
        segmentation: Some(Segmentation {
            kind,
            size: 1000,
            ecn: false,
        }),
    };
    assert!(is_sound(&tcp4, &gso(Kind::Tcp4)));
    assert!(!is_sound(&tcp4, &gso(Kind::Tcp6)));
    assert!(!is_sound(&tcp4, &gso(Kind::Udp)));
}

#[test]
fn a_checksum_never_changes_what_ipv6_was_judged_by() {
    let partial = |start, offset| Offload {
        checksum: Checksum::Partial { start, offset },
        segmentation: None,
    };
    let udp = frame(V6, Protocol::UDP, &[1; 100]);
    // The same as an ICMPv6 message of neighbour discovery.
    let mut ndp = udp.clone();
    (ndp[20], ndp[54], ndp[55]) = (58, 136, 0);
    let mut piece = udp.clone();
    piece[20] = Protocol::FRAGMENT.0;
    piece.splice(54..54, [17, 0, 0, 1, 0, 0, 0, 7]);
    // Behind options, a protocol that nobody here knows.
    let mut options = udp.clone();
    options[20] = Protocol::DESTINATION_OPTIONS.0;
    options.splice(54..54, [253, 0, 1, 4, 0, 0, 0, 0]);
    for frame in [&mut piece, &mut options] {
        frame[18..20].copy_from_slice(&116u16.to_be_bytes());
    }
    let tagged = |frame: &[u8]| [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
    for (what, frame, start, offset, sound) in [
        ("its place", udp.clone(), 54, 6, true),
        ("a port", udp.clone(), 54, 2, false),
        ("its place", ndp.clone(), 54, 2, true),
        ("the kind", ndp.clone(), 54, 0, false),
        ("the target", ndp.clone(), 62, 14, false),
        ("a piece", piece, 62, 6, false),
        ("the next header", options.clone(), 54, 0, false),
        ("behind it", options, 62, 0, true),
        ("its place", tagged(&udp), 58, 6, true),
        ("a port", tagged(&udp), 58, 2, false),
        ("the target", tagged(&ndp), 66, 14, false),
    ] {
        let judged = is_sound(&frame, &partial(start, offset));
        assert_eq!(judged, sound, "{what}: {start} {offset}");
    }
}

proptest! {
    #[test]
    fn any_frame_with_any_header(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        header: [u8; 12],
        ip in prop_oneof![Just([8u8, 0, 0x45]), Just([0x86, 0xdd, 0x60]), Just([8, 0, 0x4f]), Just([8, 6, 0])],
    ) {
        if let Some(place) = bytes.get_mut(12..15) {
            place.copy_from_slice(&ip);
        }
        if let Ok(offload) = Offload::read(&header) {
            let addresses = bytes.get(..14).map(<[u8]>::to_vec);
            if is_sound(&bytes, &offload) {
                let mut done = bytes.clone();
                segment::complete(&mut done, &[], offload.checksum);
                prop_assert_eq!(done.get(..14).map(<[u8]>::to_vec), addresses);
                if ip[2] == 0x45 {
                    prop_assert_eq!(done.get(14..34), bytes.get(14..34));
                }
            }
        }
        let len = bytes.len();
        if let Some((offload, end)) = leave(&mut bytes, BOTH) {
            prop_assert!(end <= len);
            prop_assert!(is_sound(&bytes[..end], &offload));
        }
    }
}
