//! What can be asked for, and what cannot.

use super::*;

fn keys() -> InterfaceKeys {
    InterfaceKeys::default()
}

fn ip(text: &str) -> Option<Ipv4Addr> {
    Some(text.parse().unwrap())
}

fn range(start: &str, end: &str, mask: &str) -> InterfaceKeys {
    InterfaceKeys {
        start_address: ip(start),
        end_address: ip(end),
        subnet_mask: ip(mask),
        ..keys()
    }
}

fn status(keys: InterfaceKeys, mode: OperatingMode) -> Option<Status> {
    keys.build(mode).err().map(|error| error.status())
}

const INVALID: Option<Status> = Some(Status::InvalidArgument);
const FAILURE: Option<Status> = Some(Status::Failure);

#[test]
fn ranges_come_whole_and_are_private() {
    for (start, end, mask, expected) in [
        ("192.168.105.1", "192.168.105.254", "255.255.255.0", None),
        ("192.168.105.1", "192.168.105.1", "255.255.255.0", None),
        ("192.168.105.0", "192.168.105.200", "255.255.255.0", None),
        ("10.0.0.1", "10.0.255.254", "255.255.0.0", None),
        ("172.16.9.253", "172.16.9.254", "255.255.255.252", None),
        ("192.168.105.9", "192.168.105.1", "255.255.255.0", INVALID),
        ("192.168.105.1", "192.168.106.9", "255.255.255.0", INVALID),
        ("192.168.105.1", "192.168.105.9", "255.255.0.255", INVALID),
        ("192.168.105.1", "192.168.105.1", "255.255.255.255", INVALID),
        ("10.0.0.1", "10.0.0.9", "255.0.0.0", INVALID),
        ("8.8.8.1", "8.8.8.9", "255.255.255.0", FAILURE),
        ("169.254.1.1", "169.254.1.9", "255.255.0.0", FAILURE),
        ("172.32.0.1", "172.32.0.9", "255.255.255.0", FAILURE),
    ] {
        for mode in [OperatingMode::Shared, OperatingMode::Host] {
            let found = status(range(start, end, mask), mode);
            assert_eq!(found, expected, "{start} to {end}, {mask}");
        }
    }
    let whole = range("192.168.105.1", "192.168.105.254", "255.255.255.0");
    assert_eq!(
        status(
            InterfaceKeys {
                shared_interface_name: Some("eth0".to_owned()),
                ..whole.clone()
            },
            OperatingMode::Bridged
        ),
        INVALID
    );
    for left_out in 1..7 {
        let mut partial = whole.clone();
        if left_out & 1 != 0 {
            partial.start_address = None;
        }
        if left_out & 2 != 0 {
            partial.end_address = None;
        }
        if left_out & 4 != 0 {
            partial.subnet_mask = None;
        }
        assert_eq!(
            status(partial, OperatingMode::Shared),
            INVALID,
            "{left_out}"
        );
    }
}

#[test]
fn what_belongs_to_a_mode_is_not_for_others() {
    use OperatingMode::{Bridged, Host, Shared};
    let name = Some("eth0".to_owned());
    let mtu = |mtu| InterfaceKeys {
        mtu: Some(mtu),
        shared_interface_name: name.clone(),
        ..keys()
    };
    for (mtu, mode, expected) in [
        (mtu(1500), Shared, None),
        (mtu(576), Host, None),
        (mtu(65_520), Host, None),
        (mtu(575), Host, INVALID),
        (mtu(0), Shared, INVALID),
        (mtu(65_521), Shared, INVALID),
        (mtu(u64::MAX), Shared, INVALID),
        (mtu(1500), Bridged, INVALID),
    ] {
        assert_eq!(status(mtu, mode), expected);
    }
    let prefix = |text: &str| InterfaceKeys {
        nat66_prefix: Some(text.parse().unwrap()),
        ..keys()
    };
    assert_eq!(status(prefix("fd2d:1b24:620:47::"), Shared), None);
    assert_eq!(status(prefix("fd2d:1b24:620:47::"), Host), INVALID);
    assert_eq!(status(prefix("2001:db8::"), Shared), INVALID);
    assert_eq!(status(prefix("fc00::"), Shared), INVALID);
    for (len, expected) in [(64, None), (63, INVALID), (0, INVALID), (u64::MAX, INVALID)] {
        let keys = InterfaceKeys {
            nat66_prefix_length: Some(len),
            ..keys()
        };
        assert_eq!(status(keys, Shared), expected, "{len}");
    }
    assert_eq!(status(keys(), Bridged), INVALID, "no name");
    for bad in ["", "a/b", "a b", "sixteen-letters-"] {
        let keys = InterfaceKeys {
            shared_interface_name: Some(bad.to_owned()),
            ..keys()
        };
        assert_eq!(status(keys.clone(), Bridged), INVALID, "{bad}");
        assert_eq!(status(keys, Shared), None, "it means nothing there");
    }
}

#[test]
fn the_host_has_an_address_only_where_there_is_an_identifier() {
    use OperatingMode::{Bridged, Host, Shared};
    let identifier = Some(Uuid::from_u128(5));
    let host = |address: Option<&str>, mask: Option<&str>| InterfaceKeys {
        host_ip_address: address.and_then(ip),
        host_subnet_mask: mask.and_then(ip),
        ..keys()
    };
    let with = |keys: InterfaceKeys| InterfaceKeys {
        network_identifier: identifier,
        ..keys
    };
    let mask = Some("255.255.255.0");
    assert_eq!(status(with(keys()), Host), None);
    assert_eq!(status(with(keys()), Shared), INVALID);
    let named = InterfaceKeys {
        shared_interface_name: Some("eth0".to_owned()),
        ..with(keys())
    };
    assert_eq!(status(named, Bridged), INVALID);
    assert_eq!(status(with(host(Some("10.1.1.1"), mask)), Host), None);
    for public in ["8.8.8.1", "172.32.0.1", "127.0.0.1", "169.254.1.1"] {
        let failure = Some(Status::Failure);
        assert_eq!(
            status(with(host(Some(public), mask)), Host),
            failure,
            "{public}"
        );
    }
    assert_eq!(status(host(Some("10.1.1.1"), mask), Host), INVALID);
    assert_eq!(status(with(host(Some("10.1.1.1"), None)), Host), INVALID);
    assert_eq!(status(with(host(None, mask)), Host), INVALID);
    assert_eq!(status(with(host(Some("10.1.1.0"), mask)), Host), INVALID);
    assert_eq!(status(with(host(Some("10.1.1.255"), mask)), Host), INVALID);
    let six = |text: &str| InterfaceKeys {
        host_ipv6_address: Some(text.parse().unwrap()),
        ..keys()
    };
    assert_eq!(status(with(six("fd00:1::1")), Host), None);
    assert_eq!(status(six("fd00:1::1"), Host), INVALID);
    assert_eq!(status(with(six("2001:db8::1")), Host), INVALID);
}

#[test]
fn a_header_has_the_checksums_in_it() {
    let both = InterfaceKeys {
        enable_checksum_offload: Some(true),
        enable_virtio_header: Some(true),
        ..keys()
    };
    assert_eq!(status(both.clone(), OperatingMode::Host), INVALID);
    let refused = both.clone().build_on_network().unwrap_err();
    assert_eq!(refused.status(), Status::InvalidArgument);
    let one = InterfaceKeys {
        enable_checksum_offload: Some(false),
        ..both
    };
    assert_eq!(status(one.clone(), OperatingMode::Host), None);
    assert!(one.build_on_network().is_ok());
}
