//! Which subnets are free.

use super::*;

fn taken(text: &str, interface: &str) -> Taken {
    let (network, prefix_len) = text.split_once('/').unwrap();
    Taken {
        network: network.parse().unwrap(),
        prefix_len: prefix_len.parse().unwrap(),
        interface: (!interface.is_empty()).then(|| interface.to_owned()),
        is_address: false,
    }
}

#[test]
fn the_first_free_subnet_is_taken() {
    for (host, expected) in [
        (vec![], "192.168.64.0/24"),
        (vec![taken("192.168.1.0/24", "eth0")], "192.168.64.0/24"),
        (vec![taken("192.168.64.7/32", "lo")], "192.168.65.0/24"),
        (vec![taken("192.168.64.0/19", "eth0")], "192.168.96.0/24"),
        (
            vec![
                taken("192.168.65.0/24", ""),
                taken("192.168.64.128/25", "x"),
            ],
            "192.168.66.0/24",
        ),
    ] {
        assert_eq!(
            choose(None, &host).unwrap().to_string(),
            expected,
            "{host:?}"
        );
    }
}

#[test]
fn a_taken_subnet_is_refused_by_name() {
    let host = [taken("10.0.0.0/8", "tun0")];
    let error = choose(Some("10.1.0.0/24".parse().unwrap()), &host)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("interface tun0") && error.contains("10.0.0.0/8"),
        "{error}"
    );
    assert!(choose(Some("11.1.0.0/24".parse().unwrap()), &host).is_ok());
    let all = [taken("192.168.0.0/16", "wg0")];
    let error = choose(None, &all).unwrap_err().to_string();
    assert!(
        error.contains("wg0") && error.contains("--subnet"),
        "{error}"
    );
}
