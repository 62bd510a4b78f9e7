use super::*;
use crate::gateway::dhcp::guest::{DISCOVER, REQUEST, Wire, any_bytes, ip, mac};
use proptest::prelude::*;

fn parse(wire: &Wire) -> Result<Message, Drop> {
    let mut bytes = wire.bytes.clone();
    bytes.push(255);
    read(&bytes)
}

#[test]
fn every_field_is_read() {
    let wire = Wire::new(mac(7), REQUEST)
        .field(10, &[0x80, 0])
        .ciaddr(ip(9))
        .requested(ip(8))
        .server(ip(1))
        .option(51, &600_u32.to_be_bytes())
        .option(55, &[1, 3, 6])
        .option(57, &1472_u16.to_be_bytes())
        .option(61, b"\x01abcdef")
        .option(12, b"debian")
        .option(81, b"\0\0\0web");
    let message = parse(&wire).unwrap();
    assert!(message.wants_broadcast());
    let expected = Message {
        kind: Kind::Request,
        xid: 0xdead_beef,
        flags: 0x8000,
        ciaddr: Some(ip(9)),
        chaddr: mac(7),
        requested: Some(ip(8)),
        lease_time: Some(600),
        server: Some(ip(1)),
        wanted: Some(vec![1, 3, 6]),
        max_size: Some(1472),
        client_id: Some(b"\x01abcdef".to_vec()),
        host_name: Some(b"debian".to_vec()),
        fqdn: Some(b"\0\0\0web".to_vec()),
    };
    assert_eq!(message, expected);
}

#[test]
fn causes_of_refusal() {
    let discover = || Wire::new(mac(7), DISCOVER);
    for (what, wire, cause) in [
        ("a reply", discover().field(0, &[2]), Drop::NotARequest),
        (
            "no such operation",
            discover().field(0, &[3]),
            Drop::NotARequest,
        ),
        ("token ring", discover().field(1, &[4]), Drop::NotEthernet),
        (
            "a long address",
            discover().field(2, &[16]),
            Drop::NotEthernet,
        ),
        (
            "a huge address",
            discover().field(2, &[255]),
            Drop::NotEthernet,
        ),
        (
            "a group address",
            discover().field(28, &[0xff]),
            Drop::NotEthernet,
        ),
        (
            "a relayed one",
            discover().field(24, &[10, 0, 0, 1]),
            Drop::Relayed,
        ),
        ("no cookie", discover().field(236, &[0]), Drop::Bootp),
        ("no type", Wire::bare(mac(7)), Drop::Bootp),
        ("an OFFER", Wire::new(mac(7), 2), Drop::UnknownMessage),
        ("an ACK", Wire::new(mac(7), 5), Drop::UnknownMessage),
        ("a NAK", Wire::new(mac(7), 6), Drop::UnknownMessage),
        ("a FORCERENEW", Wire::new(mac(7), 9), Drop::UnknownMessage),
        ("type 77", Wire::new(mac(7), 77), Drop::UnknownMessage),
        ("two types", discover().option(53, &[1]), Drop::Malformed),
        (
            "a short address",
            discover().option(50, &[1, 2, 3]),
            Drop::Malformed,
        ),
        (
            "a long time",
            discover().option(51, &[0; 5]),
            Drop::Malformed,
        ),
        (
            "an odd overload",
            discover().option(52, &[1, 1]),
            Drop::Malformed,
        ),
        (
            "an id of 201 bytes",
            discover().option(61, &[1; 201]),
            Drop::ClientIdTooLong,
        ),
    ] {
        assert_eq!(parse(&wire), Err(cause), "{what}");
    }
    assert_eq!(read(&[1; 239]), Err(Drop::Malformed));
    assert_eq!(read(&[]), Err(Drop::Malformed));
}

/// RFC 3396 §7: options, then `file`, then `sname`, if option 52 says that they hold options.
#[test]
fn overload_is_read_in_order() {
    let fields = |overload: &[u8]| {
        let wire = Wire::bare(mac(7)).option(12, b"a");
        let wire = if overload.is_empty() {
            wire
        } else {
            wire.option(52, overload)
        };
        wire.option(53, &[1])
            .field(108, &[12, 1, b'b', 255])
            .field(44, &[12, 2, b'c', b'd', 61, 2, 9, 9, 255])
    };
    for (overload, name, id) in [
        (&[][..], "a", false),
        (&[0], "a", false),
        (&[1], "ab", false),
        (&[2], "acd", true),
        (&[3], "abcd", true),
    ] {
        let message = parse(&fields(overload)).unwrap();
        assert_eq!(
            message.host_name.as_deref(),
            Some(name.as_bytes()),
            "{overload:?}"
        );
        assert_eq!(message.client_id.is_some(), id, "{overload:?}");
    }
}

#[test]
fn an_option_that_runs_over_the_end_is_not_there() {
    let mut wire = Wire::new(mac(7), DISCOVER);
    wire.bytes.extend([61, 20, 1, 2, 3]);
    assert_eq!(parse(&wire).unwrap().client_id, None);
}

#[test]
fn routes_hold_only_significant_bytes() {
    let routes = [
        (Ipv4Addr::new(10, 17, 0, 9), 16, ip(2)),
        (Ipv4Addr::new(10, 229, 0, 128), 25, ip(3)),
        (Ipv4Addr::UNSPECIFIED, 0, ip(1)),
        (ip(7), 32, ip(4)),
    ];
    let bytes = [
        &[16, 10, 17, 192, 168, 64, 2][..],
        &[25, 10, 229, 0, 128, 192, 168, 64, 3],
        &[0, 192, 168, 64, 1],
        &[32, 192, 168, 64, 7, 192, 168, 64, 4],
    ];
    assert_eq!(route_list(&routes), bytes.concat());
}

#[test]
fn search_list_bytes() {
    let names = ["vmnet.internal".to_owned(), "a".to_owned()];
    assert_eq!(search_list(&names), b"\x05vmnet\x08internal\0\x01a\0");
}

proptest! {
    #[test]
    fn pieces_of_a_long_option_are_put_together(
        name in prop::collection::vec(any::<u8>(), 1..1000),
        cuts in prop::collection::vec(1_usize..256, 1..12),
        between: bool,
    ) {
        let mut wire = Wire::new(mac(1), DISCOVER);
        let mut rest = name.as_slice();
        for cut in cuts.iter().cycle() {
            let (piece, more) = rest.split_at(rest.len().min(*cut));
            wire = wire.option(12, piece);
            if between {
                wire = wire.option(60, b"x");
                wire.bytes.push(0);
            }
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(parse(&wire).unwrap().host_name, Some(name));
    }

    /// What is written in pieces is put together by a reader that only knows pieces.
    #[test]
    fn long_options_round_trip(names in prop::collection::vec("[a-z]{1,63}", 0..30)) {
        let to = parse(&Wire::new(mac(1), DISCOVER)).unwrap();
        let head = Head { ciaddr: ip(3), yiaddr: ip(4) };
        let list = search_list(&names);
        let payload = write(&to, head, vec![Parameter::Search(names)], 65_000);
        let (mut at, mut value) = (240, Vec::new());
        while payload[at] != 255 {
            prop_assert_eq!(payload[at], 119);
            let len = usize::from(payload[at + 1]);
            value.extend_from_slice(&payload[at + 2..at + 2 + len]);
            at += 2 + len;
        }
        prop_assert_eq!(value, list);
    }

    #[test]
    fn no_bytes_panic(data in prop::collection::vec(any::<u8>(), 0..700)) {
        let _ = read(&data);
        any_bytes(&data);
    }

    #[test]
    fn no_options_panic(data in prop::collection::vec(any::<u8>(), 0..400), overload: u8) {
        let mut wire = Wire::new(mac(1), DISCOVER).option(52, &[overload]);
        wire.bytes.extend(&data);
        let _ = read(&wire.bytes);
        let filled = data.iter().copied().cycle().take(if data.is_empty() { 0 } else { 192 });
        let filled: Vec<u8> = filled.collect();
        let _ = read(&wire.field(44, &filled).bytes);
        any_bytes(&data);
    }
}
