use super::*;
use proptest::prelude::*;
use vmnet_wire::ndp::{Message, NdOption};

fn contents() -> Contents {
    Contents {
        prefix: "fd00:0:0:64::/64".parse().unwrap(),
        mtu: 1500,
        mac: Mac([2; 6]),
        router: true,
        quiet: false,
        dhcp6: true,
        domain: Some("vmnet.internal".to_owned()),
    }
}

/// Router lifetime, flags, prefix lifetimes, lifetimes of resolver and domain.
type Said = (u16, (bool, bool), (u32, u32), Option<u32>, Option<u32>);

fn said(message: &[u8]) -> Said {
    let Some(Message::RouterAdvertisement { head, options }) = Message::read(message) else {
        panic!("no advertisement");
    };
    let mut said = (
        head.lifetime(),
        (head.is_managed(), head.has_other()),
        (0, 0),
        None,
        None,
    );
    for option in options {
        match option {
            NdOption::Prefix(prefix) => {
                assert_eq!(prefix.prefix(), contents().prefix.network());
                assert!(prefix.is_on_link() && prefix.is_autonomous());
                said.2 = (prefix.valid(), prefix.preferred());
            }
            NdOption::Source(mac) => assert_eq!(mac, contents().mac),
            NdOption::Mtu(mtu) => assert_eq!(mtu, 1500),
            NdOption::Rdnss(lifetime, addresses) => {
                assert_eq!(addresses, [contents().prefix.gateway().octets()]);
                said.3 = Some(lifetime);
            }
            NdOption::Dnssl(lifetime, names) => {
                assert_eq!(names, b"\x05vmnet\x08internal\x00");
                said.4 = Some(lifetime);
            }
            other => panic!("{other:?}"),
        }
    }
    said
}

#[test]
fn what_is_said_of_which_network() {
    let month = (2_592_000, 604_800);
    let (dns, none) = (Some(1800), None);
    for (router, dhcp6, domain, ends, expected) in [
        (
            true,
            true,
            true,
            false,
            (1800, (true, true), month, dns, dns),
        ),
        (
            true,
            false,
            true,
            false,
            (1800, (false, false), month, dns, dns),
        ),
        (false, true, true, false, (0, (true, true), month, dns, dns)),
        (
            true,
            true,
            false,
            false,
            (1800, (true, true), month, none, none),
        ),
        (
            true,
            true,
            true,
            true,
            (0, (false, false), (7200, 0), Some(0), Some(0)),
        ),
    ] {
        let contents = Contents {
            router,
            dhcp6,
            domain: contents().domain.filter(|_| domain),
            ..contents()
        };
        assert_eq!(said(&contents.message(ends)), expected);
    }
}

#[test]
fn domains_that_cannot_be_are_left_out() {
    let of = |domain: &str| {
        let domain = Some(domain.to_owned());
        let message = Contents {
            domain,
            ..contents()
        }
        .message(false);
        Message::read(&message)
            .unwrap()
            .options()
            .into_iter()
            .count()
    };
    assert_eq!(of("internal"), 5);
    assert_eq!(of(""), 4);
    assert_eq!(of(&"a".repeat(64)), 4);
    assert_eq!(of(&"abc.".repeat(1000)), 4);
}

proptest! {
    #[test]
    fn intervals_keep_within_their_bounds(seed: [u8; 16]) {
        let now = Instant::now();
        let mut advertiser = Advertiser::new(now, &contents(), seed);
        prop_assert!(advertiser.next >= now && advertiser.next <= now + INITIAL_MAX);
        for _ in 0..50 {
            let wait = advertiser.chance(INTERVAL_MIN, INTERVAL_MAX);
            prop_assert!((INTERVAL_MIN..=INTERVAL_MAX).contains(&wait));
        }
    }
}
