//! Tables of what is understood and what is refused, and the round trip of anything that is understood.

use super::*;
use proptest::prelude::*;
use std::net::Ipv6Addr;

fn spec(address: &str, host: RangeInclusive<u16>, guest: u16, protocol: Protocol) -> PortSpec {
    PortSpec {
        address: address.parse().unwrap(),
        host,
        guest,
        protocol,
    }
}

#[test]
fn understood() {
    use Protocol::{Tcp, Udp};
    for (text, expected) in [
        ("8080:80", spec("::", 8080..=8080, 80, Tcp)),
        ("0.0.0.0:8080:80", spec("0.0.0.0", 8080..=8080, 80, Tcp)),
        ("8080:80/tcp", spec("::", 8080..=8080, 80, Tcp)),
        ("53:53/udp", spec("::", 53..=53, 53, Udp)),
        ("127.0.0.1:8080:80", spec("127.0.0.1", 8080..=8080, 80, Tcp)),
        ("[::1]:8080:80/udp", spec("::1", 8080..=8080, 80, Udp)),
        ("[::]:8080:80", spec("::", 8080..=8080, 80, Tcp)),
        ("8000-8009:9000-9009", spec("::", 8000..=8009, 9000, Tcp)),
        ("1-65535:1-65535", spec("::", 1..=65535, 1, Tcp)),
        ("65535:65535", spec("::", 65535..=65535, 65535, Tcp)),
    ] {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
}

#[test]
fn refused() {
    use ParsePortError as E;
    let port = |text: &str| E::Port(text.into());
    let address = |text: &str| E::Address(text.into());
    for (text, expected) in [
        ("", E::NoGuestPort),
        ("8080", E::NoGuestPort),
        ("127.0.0.1:8080", E::NoGuestPort),
        ("8080:", port("")),
        (":80", port("")),
        ("0:80", port("0")),
        ("8080:0", port("0")),
        ("65536:80", port("65536")),
        ("+80:80", port("+80")),
        (" 80:80", port(" 80")),
        ("80-:80", port("")),
        ("8080:80/sctp", E::Protocol("sctp".into())),
        ("8080:80/", E::Protocol(String::new())),
        ("localhost:8080:80", address("localhost")),
        ("::1:8080:80", address("::1")),
        ("[::1:8080:80", address("[::1:8080")),
        ("[127.0.0.1]:8080:80", address("[127.0.0.1]:8080")),
        ("9-8:9-8", E::Backwards("9-8".into())),
        ("8000-8001:80", E::Lengths("8000-8001".into(), "80".into())),
    ] {
        assert_eq!(text.parse::<PortSpec>(), Err(expected), "{text}");
    }
}

#[test]
fn a_range_pairs_in_order() {
    let spec: PortSpec = "127.0.0.1:8000-8002:65533-65535".parse().unwrap();
    let pairs: Vec<_> = spec
        .pairs()
        .map(|(host, guest)| (host.port(), guest))
        .collect();
    assert_eq!(pairs, [(8000, 65533), (8001, 65534), (8002, 65535)]);
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again(
        v4 in any::<Option<[u8; 4]>>(), v6 in any::<[u8; 16]>(),
        host in 1u16.., guest in 1u16.., more in 0u16..100, udp in any::<bool>(),
    ) {
        let more = more.min(u16::MAX - host).min(u16::MAX - guest);
        let spec = PortSpec {
            address: v4.map_or_else(|| Ipv6Addr::from(v6).into(), |v4| Ipv4Addr::from(v4).into()),
            host: host..=host + more,
            guest,
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
        };
        prop_assert_eq!(spec.to_string().parse(), Ok(spec));
    }

    #[test]
    fn nothing_panics(text in "[\\[\\]0-9:./a-f-]{0,30}") {
        if let Ok(spec) = text.parse::<PortSpec>() {
            prop_assert_eq!(spec.pairs().count(), usize::from(spec.host.end() - spec.host.start()) + 1);
        }
    }
}

#[test]
fn what_needs_the_same_port_clashes() {
    let clash = |one: &str, other: &str| {
        let (one, other): (PortSpec, PortSpec) = (one.parse().unwrap(), other.parse().unwrap());
        assert_eq!(one.clashes(&other), other.clashes(&one), "{one} {other}");
        one.clashes(&other)
    };
    assert!(clash("80:80", "80:81"));
    assert!(clash("127.0.0.1:80:80", "80:81"));
    assert!(clash("8000-8010:1-11", "8010-8020:1-11"));
    assert!(!clash("80:80", "80:80/udp"));
    assert!(!clash("127.0.0.1:80:80", "127.0.0.2:80:80"));
    assert!(!clash("8000-8010:1-11", "8011:1"));
    assert!(clash("80:80", "[::1]:80:80"));
    assert!(clash("80:80", "0.0.0.0:80:80"));
    assert!(!clash("0.0.0.0:80:80", "[::1]:80:80"));
}
