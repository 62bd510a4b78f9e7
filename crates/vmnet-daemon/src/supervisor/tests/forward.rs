//! Rules: what they conflict with, and what they end with.

use super::*;
use openvmnet::service::{ForwardRule, Guest, Protocol};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn nobody() -> Guest {
    Guest {
        address: None,
        mac: None,
        name: None,
        interface: None,
    }
}

fn web() -> Guest {
    Guest {
        name: Some("web".to_owned()),
        ..nobody()
    }
}

fn rule(port: u16, guest: Guest) -> ForwardRule {
    ForwardRule {
        protocol: Protocol::Tcp,
        address: "127.0.0.1".to_owned(),
        first: port,
        last: port,
        except: Vec::new(),
        guest,
        guest_port: 80,
    }
}

fn stage() -> (Supervisor, ConnectionId) {
    let mut service = supervisor();
    let client = service.connected(1);
    service
        .open_network(client, None, Some(at("dev", "10.213.30.0/24")))
        .unwrap();
    service
        .open_network(client, None, Some(at("other", "10.213.31.0/24")))
        .unwrap();
    (service, client)
}

fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn a_rule_that_is_there_is_added_again_and_another_is_refused() {
    let (mut service, _) = stage();
    let port = free_port();
    let first = service.add_forward("dev", None, rule(port, web())).unwrap();
    assert!(listens(port));
    let again = service.add_forward("dev", None, rule(port, web())).unwrap();
    assert_eq!(again, first);
    let db = Guest {
        name: Some("db".to_owned()),
        ..nobody()
    };
    in_use(
        service.add_forward("dev", None, rule(port, db)),
        &format!("forward {}", first.forward),
    );
    in_use(
        service.add_forward("other", None, rule(port, web())),
        &port.to_string(),
    );
    let mut udp = rule(port, web());
    udp.protocol = Protocol::Udp;
    service.add_forward("dev", None, udp).unwrap();
    // A range beside it, and one over it.
    let mut range = rule(port, web());
    range.last = port.saturating_add(1);
    in_use(service.add_forward("dev", None, range), &port.to_string());
    assert_eq!(service.list_forwards(Some("dev")).unwrap().len(), 2);
    service.remove_forward(first.forward).unwrap();
    eventually("nobody listens", || !listens(port));
    not_found(service.remove_forward(first.forward), "forward");
}

#[test]
fn all_addresses_are_those_of_either_family() {
    // What is there, what is added, and whether it is there already (`Some(true)`), or clashes (`Some(false)`).
    for (first, second, outcome) in [
        ("0.0.0.0", "::", Some(true)),
        ("::", "0.0.0.0", Some(true)),
        ("127.0.0.1", "::", Some(false)),
        ("::", "127.0.0.1", Some(false)),
        ("::1", "::", Some(false)),
        ("0.0.0.0", "127.0.0.1", Some(false)),
        ("0.0.0.0", "::1", None),
        ("127.0.0.1", "::1", None),
    ] {
        let (mut service, _) = stage();
        let port = free_port();
        let on = |address: &str| ForwardRule {
            address: address.to_owned(),
            ..rule(port, web())
        };
        let there = service.add_forward("dev", None, on(first)).unwrap();
        let again = service.add_forward("dev", None, on(second));
        match outcome {
            Some(true) => assert_eq!(again.unwrap(), there, "{first} {second}"),
            Some(false) => {
                let named = format!("forward {} of the network dev", there.forward);
                in_use(again, &named);
            }
            None => assert_ne!(again.unwrap(), there, "{first} {second}"),
        }
        // To another guest it is another rule.
        let db = Guest {
            name: Some("db".to_owned()),
            ..nobody()
        };
        let other = ForwardRule {
            guest: db,
            ..on(second)
        };
        in_use(service.add_forward("dev", None, other), "forward ");
    }
}

#[test]
fn a_port_of_another_program_is_in_use() {
    let (mut service, _) = stage();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    in_use(
        service.add_forward("dev", None, rule(port, web())),
        &port.to_string(),
    );
    drop(listener);
    service.add_forward("dev", None, rule(port, web())).unwrap();
}

#[test]
fn what_a_rule_says_must_make_sense() {
    let (mut service, client) = stage();
    let (started, _guest) = start(&mut service, client, "other", |_| {}).unwrap();
    let elsewhere = started.interface.interface;
    let port = free_port();
    let cases: [(&str, ForwardRule); 9] = [
        ("to whom", rule(port, nobody())),
        (
            "one way",
            rule(
                port,
                Guest {
                    mac: Some("52:54:00:12:34:56".to_owned()),
                    ..web()
                },
            ),
        ),
        (
            "10.213.31.5",
            rule(
                port,
                Guest {
                    address: Some("10.213.31.5".to_owned()),
                    ..nobody()
                },
            ),
        ),
        (
            "10.213.30.1",
            rule(
                port,
                Guest {
                    address: Some("10.213.30.1".to_owned()),
                    ..nobody()
                },
            ),
        ),
        (
            "another network",
            rule(
                port,
                Guest {
                    interface: Some(elsewhere),
                    ..nobody()
                },
            ),
        ),
        ("no range", rule(0, web())),
        (
            "localhost",
            ForwardRule {
                address: "localhost".to_owned(),
                ..rule(port, web())
            },
        ),
        (
            "excepted",
            ForwardRule {
                except: vec![port],
                ..rule(port, web())
            },
        ),
        (
            "65535",
            ForwardRule {
                first: 20_000,
                last: 20_009,
                guest_port: 65_530,
                ..rule(port, web())
            },
        ),
    ];
    for (word, rule) in cases {
        invalid(service.add_forward("dev", None, rule), word);
    }
    assert_eq!(service.list_forwards(None).unwrap(), []);
    assert!(!listens(port));
}

#[test]
fn a_port_leads_to_an_address_of_each_family() {
    let (mut service, client) = stage();
    let mut asked = at("six", "10.213.32.0/24");
    asked.ipv6_prefix = Some("fd12:3456:789a:32::/64".to_owned());
    service.open_network(client, None, Some(asked)).unwrap();
    let port = free_port();
    let on = |protocol, listen: &str, guest: &str| ForwardRule {
        protocol,
        address: listen.to_owned(),
        ..rule(
            port,
            Guest {
                address: Some(guest.to_owned()),
                ..nobody()
            },
        )
    };
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let v6 = on(protocol, "::", "fd12:3456:789a:32::9");
        let v4 = on(protocol, "0.0.0.0", "10.213.32.9");
        let first = service.add_forward("six", None, v6.clone()).unwrap();
        let second = service.add_forward("six", None, v4).unwrap();
        assert_ne!(first.forward, second.forward);
        assert_eq!(service.add_forward("six", None, v6).unwrap(), first);
    }
    assert!(listens(port) && TcpStream::connect(("::1", port)).is_ok());
    for (network, guest, word) in [
        ("six", "fd12:3456:789a:33::9", "fd12:3456:789a:32::/64"),
        ("six", "fd12:3456:789a:32::1", "not the gateway's"),
        ("six", "10.213.30.9", "10.213.32.0/24"),
        ("six", "web.example", "no IP address"),
    ] {
        let mut rule = on(Protocol::Tcp, "127.0.0.1", guest);
        rule.first = free_port();
        rule.last = rule.first;
        invalid(service.add_forward(network, None, rule), word);
    }
}

#[test]
fn an_interface_that_a_rule_ends_with_must_be_there() {
    let (mut service, client) = stage();
    let (started, _guest) = start(&mut service, client, "other", |_| {}).unwrap();
    let elsewhere = started.interface.interface;
    let port = free_port();
    not_found(
        service.add_forward("dev", Some(9999), rule(port, web())),
        "9999",
    );
    invalid(
        service.add_forward("dev", Some(elsewhere), rule(port, web())),
        "another network",
    );
    not_found(service.add_forward("none", None, rule(port, web())), "none");
    assert_eq!(service.list_forwards(None).unwrap(), []);
    assert!(!listens(port));
}

#[test]
fn rules_of_an_interface_end_with_it_and_rules_of_a_network_stay() {
    let (mut service, client) = stage();
    let other = service.connected(2);
    let (its, stays, to_it) = (free_port(), free_port(), free_port());
    let (started, _guest) = start(&mut service, other, "dev", |_| {}).unwrap();
    let interface = started.interface.interface;
    service
        .add_forward("dev", Some(interface), rule(its, nobody()))
        .unwrap();
    let by_number = Guest {
        interface: Some(interface),
        ..nobody()
    };
    let tied = service
        .add_forward("dev", None, rule(to_it, by_number))
        .unwrap();
    assert_eq!(tied.interface, Some(interface));
    service
        .add_forward("dev", None, rule(stays, web()))
        .unwrap();
    service.disconnected(other);
    eventually("its ports are free", || !listens(its) && !listens(to_it));
    assert!(listens(stays));
    let left = service.list_forwards(None).unwrap();
    assert_eq!(
        left.iter().map(|row| row.rule.first).collect::<Vec<_>>(),
        [stays]
    );
    service.disconnected(client);
    eventually("the network's end with it", || !listens(stays));
}

#[test]
fn the_port_of_a_guest_that_went_by_itself_is_free() {
    let (mut service, client) = stage();
    let port = free_port();
    let (started, guest) = start(&mut service, client, "dev", |_| {}).unwrap();
    let first = service.add_forward(
        "dev",
        Some(started.interface.interface),
        rule(port, nobody()),
    );
    first.unwrap();
    drop(guest);
    eventually("another may have it", || {
        service
            .add_forward("other", None, rule(port, web()))
            .is_ok()
    });
}

#[test]
fn rules_of_guests_end_with_the_listener_they_came_by() {
    let (mut service, client) = stage();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guests");
    let listener = UnixListener::bind(&path).unwrap();
    let options = InterfaceOptions::new(Kind::StreamListener);
    let started = service
        .start_interface(client, "dev", options, vec![listener.into()])
        .unwrap();
    let listener = started.interface.interface;
    let _guest = UnixStream::connect(&path).unwrap();
    let mut guest = None;
    eventually("the guest is seen", || {
        let all = service.list_interfaces(Some("dev")).unwrap();
        guest = all
            .iter()
            .find(|row| row.listener == Some(listener))
            .map(|row| row.interface);
        guest.is_some()
    });
    let port = free_port();
    invalid(
        service.add_forward("dev", Some(listener), rule(port, nobody())),
        "several guests",
    );
    service
        .add_forward("dev", guest, rule(port, nobody()))
        .unwrap();
    service.stop_interface(listener).unwrap();
    assert_eq!(service.list_forwards(None).unwrap(), []);
    assert_eq!(service.status().interfaces, 0);
    eventually("nobody listens", || !listens(port));
}
