use super::*;
use proptest::prelude::*;

fn packet(next: Protocol, behind: &[u8]) -> Vec<u8> {
    let [from, to] = ["fe80::2".parse().unwrap(), "fe80::1".parse().unwrap()];
    let header = Header::new(from, to, next, 64, behind.len());
    [header.as_bytes(), behind].concat()
}

/// An extension header of eight bytes: what follows, and options or the like.
fn extension(next: Protocol, bytes: [u8; 6]) -> Vec<u8> {
    [&[next.0, 0][..], &bytes].concat()
}

const PADDING: [u8; 6] = [1, 4, 0, 0, 0, 0];

#[test]
fn headers_are_walked_to_the_protocol() {
    let alert = extension(Protocol::DESTINATION_OPTIONS, [5, 2, 0, 0, 1, 0]);
    let options = extension(Protocol::ROUTING, PADDING);
    let routing = extension(Protocol::UDP, [0; 6]);
    let behind = [alert, options, routing, vec![7; 9]].concat();
    let mut bytes = packet(Protocol::HOP_BY_HOP, &behind);
    bytes.extend([0xee; 3]); // link padding
    let read = Packet::read(&bytes, bytes.len()).unwrap();
    assert_eq!((read.protocol, read.header_len), (Protocol::UDP, 64));
    assert_eq!((read.payload, read.payload_len), (&[7; 9][..], 9));
    assert_eq!((read.problem, read.fragment), (None, None));
}

#[test]
fn fragments_are_found() {
    for (offset, more, walked) in [(0, true, true), (0, false, true), (16, false, false)] {
        let fragment = FragmentHeader::new(Protocol::DESTINATION_OPTIONS, 9, offset, more);
        let options = extension(Protocol::ICMPV6, PADDING);
        let behind = [fragment.as_bytes(), &options, &[1; 8]].concat();
        let bytes = packet(Protocol::FRAGMENT, &behind);
        let read = Packet::read(&bytes, bytes.len()).unwrap();
        let found = read.fragment.unwrap();
        assert_eq!((found.id, found.offset, found.more), (9, offset, more));
        assert_eq!(
            (found.at, found.next_header),
            (40, Protocol::DESTINATION_OPTIONS)
        );
        assert_eq!(read.piece().is_some(), more || offset > 0);
        let behind = if walked {
            (Protocol::ICMPV6, 56)
        } else {
            (Protocol::DESTINATION_OPTIONS, 48)
        };
        assert_eq!((read.protocol, read.header_len), behind);
    }
}

#[test]
fn what_a_receiver_must_not_pass_over() {
    let (first, last) = (Protocol::HOP_BY_HOP, Protocol::UDP);
    for (next, bytes, expected) in [
        (first, [0x1e, 4, 0, 0, 0, 0], None),
        (first, [0x5e, 4, 0, 0, 0, 0], Some((2, 42, Told::Nobody))),
        (first, [0, 0x9e, 3, 0, 0, 0], Some((2, 43, Told::Always))),
        (first, [0xc2, 4, 0, 1, 0, 0], Some((2, 42, Told::IfToOne))),
        (first, [0, 0, 0, 0, 0, 1], Some((0, 47, Told::Always))),
        (
            Protocol::ROUTING,
            [0, 1, 0, 0, 0, 0],
            Some((0, 42, Told::Always)),
        ),
        (Protocol::ROUTING, [0, 0, 0, 0, 0, 0], None),
        (Protocol::AUTHENTICATION, [0; 6], Some((1, 6, Told::Always))),
        (Protocol::HIP, [0; 6], Some((1, 6, Told::Always))),
    ] {
        let bytes = packet(next, &[extension(last, bytes), vec![0; 8]].concat());
        let problem = Packet::read(&bytes, bytes.len()).unwrap().problem;
        let expected = expected.map(|(code, at, told)| Problem { code, at, told });
        assert_eq!(problem, expected, "{next:?} {bytes:?}");
    }
    // Hop-by-hop options have one place.
    let misplaced = [extension(first, PADDING), extension(last, PADDING)].concat();
    let bytes = packet(Protocol::DESTINATION_OPTIONS, &misplaced);
    let problem = Packet::read(&bytes, bytes.len()).unwrap().problem.unwrap();
    assert_eq!((problem.code, problem.at), (1, 40));
}

#[test]
fn chains_have_an_end() {
    let long = |count: usize| {
        let mut behind = extension(Protocol::DESTINATION_OPTIONS, PADDING).repeat(count);
        behind.extend(extension(Protocol::UDP, PADDING));
        let bytes = packet(Protocol::DESTINATION_OPTIONS, &behind);
        Packet::read(&bytes, bytes.len()).map(|packet| packet.header_len)
    };
    assert_eq!(long(CHAIN_MAX - 1), Ok(40 + 8 * CHAIN_MAX));
    assert_eq!(long(CHAIN_MAX), Err(Malformed::Chain));
    let fragment = FragmentHeader::new(Protocol::FRAGMENT, 1, 0, true);
    let twice = [fragment.as_bytes(), fragment.as_bytes(), &[0; 8]].concat();
    let mut beyond = extension(Protocol::UDP, PADDING);
    beyond[1] = 1;
    for (next, behind, fault) in [
        (Protocol::FRAGMENT, twice, Malformed::Chain),
        (Protocol::FRAGMENT, vec![17; 7], Malformed::Chain),
        (Protocol::ROUTING, beyond, Malformed::Chain),
        (Protocol::HOP_BY_HOP, vec![], Malformed::Chain),
    ] {
        let bytes = packet(next, &behind);
        assert_eq!(Packet::read(&bytes, bytes.len()).unwrap_err(), fault);
    }
    let bytes = packet(Protocol::UDP, &[0; 8]);
    assert_eq!(Packet::read(&bytes, 47).unwrap_err(), Malformed::Short);
    assert_eq!(
        Packet::read(&bytes[..39], 47).unwrap_err(),
        Malformed::Short
    );
    let other = [&[0x45][..], &bytes[1..]].concat();
    assert_eq!(Packet::read(&other, 48).unwrap_err(), Malformed::Version);
}

proptest! {
    #[test]
    fn any_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 40..200),
        next in prop::sample::select(vec![0u8, 43, 44, 51, 60, 135]),
        len in 0usize..400,
    ) {
        let mut bytes = bytes;
        (bytes[0], bytes[6]) = (0x60, next);
        if let Ok(packet) = Packet::read(&bytes, len) {
            prop_assert!(packet.header_len + packet.payload_len <= len);
            prop_assert!(packet.payload.len() <= packet.payload_len);
        }
    }
}
