use super::*;
use proptest::prelude::*;

const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

fn address(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn addresses_and_groups() {
    let own = link_local(MAC);
    assert_eq!(own, address("fe80::5054:ff:fe12:3456"));
    let group = solicited_node(own);
    assert_eq!(group, address("ff02::1:ff12:3456"));
    assert_eq!(group_mac(group), Mac([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]));
}

#[test]
fn neighbours_are_read_as_written() {
    let target = address("fd00::2");
    let (from, to) = (address("fe80::1"), address("fe80::2"));
    let asked = Neighbour::solicitation(target, MAC).between(from, to);
    assert_eq!(icmpv6::checksum(from, to, asked.as_bytes()), 0);
    match Message::read(asked.as_bytes()) {
        Some(Message::NeighbourSolicitation {
            target: of,
            options,
        }) => {
            assert_eq!(
                (of, options.source(), options.target()),
                (target, Some(MAC), None)
            );
        }
        other => panic!("{other:?}"),
    }
    let told = Neighbour::advertisement(SOLICITED | ROUTER, target, MAC);
    match Message::read(told.as_bytes()) {
        Some(Message::NeighbourAdvertisement {
            flags,
            target: of,
            options,
        }) => {
            assert_eq!((flags, of), (SOLICITED | ROUTER, target));
            assert_eq!((options.source(), options.target()), (None, Some(MAC)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_advertisement_with_everything() {
    let names = b"\x05vmnet\x08internal\x00";
    let names = [&names[..], &[0; 8][..24 - names.len()]].concat();
    let message = [
        RouterHead::new(64, 1800, false, true).as_bytes(),
        LinkLayer::source(MAC).as_bytes(),
        Mtu::new(1500).as_bytes(),
        PrefixInformation::new(address("fd00:1::"), 64, 2_592_000, 604_800).as_bytes(),
        Rdnss::new(1800, address("fd00:1::1")).as_bytes(),
        Dnssl::new(1800, names.len()).unwrap().as_bytes(),
        &names,
    ]
    .concat();
    let Some(Message::RouterAdvertisement { head, options }) = Message::read(&message) else {
        panic!("no advertisement");
    };
    assert_eq!((head.lifetime(), head.hop_limit()), (1800, 64));
    assert!(!head.is_managed() && head.has_other());
    let seen: Vec<NdOption<'_>> = options.into_iter().collect();
    let [
        NdOption::Source(MAC),
        NdOption::Mtu(1500),
        NdOption::Prefix(prefix),
        rdnss,
        dnssl,
    ] = seen[..]
    else {
        panic!("{seen:?}");
    };
    assert_eq!(
        (prefix.prefix(), prefix.prefix_len()),
        (address("fd00:1::"), 64)
    );
    assert_eq!((prefix.valid(), prefix.preferred()), (2_592_000, 604_800));
    assert!(prefix.is_on_link() && prefix.is_autonomous());
    assert_eq!(
        rdnss,
        NdOption::Rdnss(1800, &[address("fd00:1::1").octets()])
    );
    assert_eq!(dnssl, NdOption::Dnssl(1800, &names));
}

#[test]
fn malformed_messages_are_none() {
    let good = Neighbour::solicitation(address("fd00::2"), MAC);
    let good = good.as_bytes();
    let with = |at: usize, value: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = value;
        bytes
    };
    for (bytes, what) in [
        (with(1, 1), "a code"),
        (with(8, 0xff), "a group as target"),
        (with(25, 0), "an option without length"),
        (with(25, 2), "an option beyond the end"),
        (with(0, icmpv6::REDIRECT), "a redirect"),
        (good[..23].to_vec(), "half a target"),
        (good[..31].to_vec(), "half an option"),
    ] {
        assert!(Message::read(&bytes).is_none(), "{what}");
    }
    // Options that are not known, or of a strange length, are passed over.
    let strange = [
        &good[..24],
        &[25, 1, 0, 0, 0, 0, 0, 1],
        &[99, 1, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let options = Message::read(&strange).unwrap().options();
    let kinds: Vec<_> = options.into_iter().collect();
    assert_eq!(kinds, [NdOption::Other(25), NdOption::Other(99)]);
}

proptest! {
    #[test]
    fn any_bytes(
        kind in icmpv6::ROUTER_SOLICITATION..=icmpv6::REDIRECT,
        rest in proptest::collection::vec(prop_oneof![any::<u8>(), 0u8..6], 0..120),
    ) {
        let message = [&[kind, 0, 0, 0][..], &rest].concat();
        if let Some(message) = Message::read(&message) {
            prop_assert!(message.options().into_iter().count() <= 15);
        }
    }
}
