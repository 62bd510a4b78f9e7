use super::*;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;
use vmnet_wire::ethernet::{EtherType, Mac};
use vmnet_wire::tcp::{Fields, Header};
use vmnet_wire::{ipv4, ipv6};
use zerocopy::IntoBytes;

/// A segment of these fields in a frame.
fn frame(v6: bool, fields: &Fields, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let len = Header::LEN + options.len() + payload.len();
    let macs = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];
    let ether_type = if v6 { EtherType::IPV6 } else { EtherType::IPV4 };
    let ip = if v6 {
        let (source, destination) = (Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
        ipv6::Header::new(source, destination, Protocol::TCP, 64, len)
            .as_bytes()
            .to_vec()
    } else {
        let packet = ipv4::Fields {
            source: Ipv4Addr::new(192, 168, 64, 2),
            destination: Ipv4Addr::new(10, 0, 0, 1),
            protocol: Protocol::TCP,
            ttl: 64,
            id: 0,
            dont_fragment: true,
        };
        ipv4::Header::new(&packet, len).as_bytes().to_vec()
    };
    let ethernet = ethernet::Header::new(macs[0], macs[1], ether_type);
    let header = Header::new(fields, options.len(), 0);
    [
        ethernet.as_bytes(),
        &ip,
        header.as_bytes(),
        options,
        payload,
    ]
    .concat()
}

const FIELDS: Fields = Fields {
    source_port: 5000,
    destination_port: 80,
    sequence: Seq(u32::MAX - 5),
    acknowledgement: Seq(7),
    flags: Flags::ACK,
    window: 1000,
};

#[test]
fn what_goes_on_and_says_nothing_else_is_one_of_them() {
    let other = |change: fn(&mut Fields)| {
        let mut fields = Fields {
            sequence: FIELDS.sequence.advance(10),
            ..FIELDS
        };
        change(&mut fields);
        fields
    };
    type Change = fn(&mut Fields);
    let cases: &[(Change, bool)] = &[
        (|_| {}, true),
        (|fields| fields.flags = Flags::ACK | Flags::PSH, true),
        (|fields| fields.flags = Flags::ACK | Flags::FIN, false),
        (|fields| fields.flags = Flags::ACK | Flags::RST, false),
        (|fields| fields.flags = Flags::ACK | Flags::URG, false),
        (|fields| fields.flags = Flags::PSH, false),
        (|fields| fields.sequence = fields.sequence.advance(1), false),
        (|fields| fields.sequence = FIELDS.sequence, false),
        (|fields| fields.acknowledgement = Seq(8), false),
        (|fields| fields.window = 999, false),
        (|fields| fields.source_port = 5001, false),
        (|fields| fields.destination_port = 81, false),
    ];
    for v6 in [false, true] {
        let first = frame(v6, &FIELDS, &[], &[1; 10]);
        for (number, (change, goes_on)) in cases.iter().enumerate() {
            let mut succession = Succession::begin(&first, first.len()).unwrap();
            let next = frame(v6, &other(*change), &[], &[2; 20]);
            assert_eq!(succession.goes_on(&next, next.len()), *goes_on, "{number}");
            let third = Fields {
                sequence: FIELDS.sequence.advance(30),
                ..FIELDS
            };
            let third = frame(v6, &third, &[], &[3]);
            assert_eq!(succession.goes_on(&third, third.len()), *goes_on);
        }
        let next = other(|_| {});
        let mut succession = Succession::begin(&first, first.len()).unwrap();
        let bare = frame(v6, &next, &[], &[]);
        assert!(!succession.goes_on(&bare, bare.len()), "no bytes");
        let longer = frame(v6, &next, &[1, 1, 1, 1], &[2; 20]);
        assert!(!succession.goes_on(&longer, longer.len()), "longer headers");
        let elsewhere = frame(!v6, &next, &[], &[2; 20]);
        assert!(
            !succession.goes_on(&elsewhere, elsewhere.len()),
            "another family"
        );
        let mut padded = frame(v6, &next, &[], &[2; 20]);
        padded.push(0);
        assert!(
            !succession.goes_on(&padded, padded.len()),
            "padding is no payload"
        );
        let mut another = frame(v6, &next, &[], &[2; 20]);
        another[11] ^= 1;
        assert!(
            !succession.goes_on(&another, another.len()),
            "from another MAC"
        );
    }
    let syn = Fields {
        flags: Flags::SYN,
        ..FIELDS
    };
    let syn = frame(false, &syn, &[], &[1]);
    assert_eq!(Succession::begin(&syn, syn.len()), None);
}

proptest! {
    /// Only heads are looked at, of whatever frame.
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..120), more in 0usize..70_000) {
        let first = frame(false, &FIELDS, &[], &[1; 10]);
        let mut succession = Succession::begin(&first, first.len()).unwrap();
        let before = succession;
        prop_assert!(!succession.goes_on(&bytes, bytes.len() + more));
        prop_assert_eq!(succession, before);
        let _any = Succession::begin(&bytes, bytes.len() + more);
    }
}
