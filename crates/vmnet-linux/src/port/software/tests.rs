use super::*;
use vmnet_wire::offload::Segmentation;

/// A TCP frame of IPv4 with `len` bytes of payload, no sums but IPv4's.
fn frame(len: usize) -> Vec<u8> {
    let fields = vmnet_wire::ipv4::Fields {
        source: [192, 168, 64, 2].into(),
        destination: [192, 168, 64, 3].into(),
        protocol: vmnet_wire::ip::Protocol::TCP,
        ttl: 64,
        id: 1,
        dont_fragment: true,
    };
    let header = vmnet_wire::ipv4::Header::new(&fields, 20 + len);
    let mut bytes = vec![2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 0, 2, 8, 0];
    bytes.extend_from_slice(zerocopy_bytes(&header));
    bytes.extend([0x1f, 0x90, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0]);
    bytes.extend([0; 4]);
    bytes.extend((0..len).map(|n| n as u8));
    bytes
}

fn zerocopy_bytes(header: &vmnet_wire::ipv4::Header) -> &[u8] {
    // A header is its bytes, in the order of the wire.
    zerocopy::IntoBytes::as_bytes(header)
}

const LARGE: Offload = Offload {
    checksum: Checksum::Partial {
        start: 34,
        offset: 16,
    },
    segmentation: Some(Segmentation {
        kind: Kind::Tcp4,
        size: 1460,
        ecn: false,
    }),
};

fn given(bytes: &[u8], split: usize, offload: Offload, takes: PortOffload) -> Vec<Vec<u8>> {
    let (head, body) = bytes.split_at(split);
    sent(head, Body::plain(body), offload, takes)
}

/// The same of a frame whose bytes from `split` on are in a guest's memory, in pieces of `piece`.
fn given_by_guest(
    bytes: &[u8],
    (split, piece): (usize, usize),
    offload: Offload,
    takes: PortOffload,
) -> Vec<Vec<u8>> {
    let (head, body) = bytes.split_at(split);
    let mut own = vmnet_virtio::memory::OwnMemory::new(1 << 20).unwrap();
    let places: Vec<_> = body
        .chunks(piece)
        .map(|chunk| own.take(chunk.len() as u64, 1).unwrap())
        .collect();
    let far: Vec<_> = places
        .iter()
        .zip(body.chunks(piece))
        .map(|(at, chunk)| {
            let slice = own.map().guest(*at, chunk.len() as u64).unwrap();
            slice.copy_from(chunk);
            slice
        })
        .collect();
    sent(head, Body::new(&[], &far), offload, takes)
}

fn sent(head: &[u8], body: Body<'_>, offload: Offload, takes: PortOffload) -> Vec<Vec<u8>> {
    let frame = Outgoing {
        head,
        body,
        offload,
    };
    let mut out = Vec::new();
    send(&frame, 1500, takes, &mut Vec::new(), &mut |pieces| {
        let mut whole = Vec::new();
        pieces.append_to(&mut whole);
        out.push(whole);
        Ok(())
    })
    .unwrap();
    out
}

#[test]
fn each_port_gets_what_it_takes() {
    let bytes = frame(50_000);
    let (header, tso) = (true, true);
    for (takes, count, prefix) in [
        ((false, false), 35, 0),
        ((header, false), 35, 12),
        ((false, tso), 1, 0),
        ((header, tso), 1, 12),
    ] {
        let takes = PortOffload {
            virtio_header: takes.0,
            tso: takes.1,
            checksum: false,
        };
        // A frame of another guest's, and one of our own, whose payload lies elsewhere.
        for split in [bytes.len(), 54] {
            let out = given(&bytes, split, LARGE, takes);
            assert_eq!(out.len(), count, "{takes:?}");
            for came in &out {
                let (said, frame) = came.split_at(prefix);
                match (said, count) {
                    ([], _) => assert!(segment::verify(frame)),
                    (said, 1) => {
                        let said = said.try_into().unwrap();
                        assert_eq!(Offload::read(said), Ok(LARGE));
                        assert_eq!(said[2..4], [54, 0], "bytes of headers");
                    }
                    (said, _) => {
                        assert_eq!(Offload::read(said.try_into().unwrap()), Ok(Offload::VALID));
                        assert!(segment::verify(frame));
                    }
                }
            }
        }
    }
}

#[test]
fn who_relies_on_us_gets_no_wrong_sum() {
    let mut bytes = frame(100);
    let takes = PortOffload {
        checksum: true,
        ..PortOffload::default()
    };
    let partial = Offload {
        segmentation: None,
        ..LARGE
    };
    unfinished::set_pseudo_sum(&mut bytes, 154).unwrap();
    let whole = given(&bytes, 154, partial, takes).remove(0);
    assert_eq!(
        given(&whole, 154, Offload::NONE, takes),
        std::slice::from_ref(&whole)
    );
    bytes = whole;
    bytes[100] ^= 1;
    let wrong = Outgoing {
        head: &bytes,
        body: Body::EMPTY,
        offload: Offload::NONE,
    };
    let refused = send(&wrong, 1500, takes, &mut Vec::new(), &mut |_| Ok(()));
    assert_eq!(refused, Err(Drop::Checksum));
    assert_eq!(
        send(
            &wrong,
            1500,
            PortOffload::default(),
            &mut Vec::new(),
            &mut |_| Ok(())
        ),
        Ok(())
    );
}

#[test]
fn a_frame_in_a_guests_memory_is_like_any_other() {
    let whole = frame(50_000);
    let small = frame(700);
    let datagram_sized = Offload {
        segmentation: None,
        ..LARGE
    };
    for (bytes, offload) in [
        (&whole, &LARGE),
        (&small, &datagram_sized),
        (&small, &Offload::NONE),
        (&small, &Offload::VALID),
    ] {
        for bits in 0..8 {
            let takes = PortOffload {
                virtio_header: bits & 1 != 0,
                tso: bits & 2 != 0,
                checksum: bits & 4 != 0,
            };
            if takes.virtio_header && takes.checksum {
                continue;
            }
            if takes.checksum && *offload == Offload::NONE {
                continue; // Its sum is wrong, see below.
            }
            let plain = given(bytes, bytes.len(), *offload, takes);
            for place in [(256, 4096), (134, 1000), (54, 60_000)] {
                assert_eq!(
                    given_by_guest(bytes, place, *offload, takes),
                    plain,
                    "{takes:?}"
                );
            }
        }
    }
}

#[test]
fn vlan_tags_are_not_of_the_mtu() {
    for (tags, whole) in [
        (vec![], 1514),
        (vec![[0x81, 0, 0, 5]], 1518),
        (vec![[0x88, 0xa8, 0, 5], [0x81, 0, 0, 5]], 1522),
    ] {
        for len in [whole, whole + 1] {
            // Of a kind that cannot be fragmented.
            let mut bytes = vec![2; 12];
            bytes.extend(tags.concat());
            bytes.extend([0x88, 0xb5]);
            bytes.resize(len, 0);
            let frame = Outgoing {
                head: &bytes,
                body: Body::EMPTY,
                offload: Offload::VALID,
            };
            let mut count = 0;
            let sent = send(
                &frame,
                1500,
                PortOffload::default(),
                &mut Vec::new(),
                &mut |_| {
                    count += 1;
                    Ok(())
                },
            );
            let fits = len == whole;
            assert_eq!(sent.is_ok(), fits, "{len} with {} tags", tags.len());
            assert_eq!(count, usize::from(fits));
        }
    }
}
