//! What stays when the service ends, and what the configuration file says beside it.

use super::*;
use openvmnet::service::{ForwardRule, Guest, Protocol, Reservation};
use std::net::TcpListener;

fn reservation(address: &str, name: &str) -> Reservation {
    Reservation {
        address: address.to_owned(),
        mac: None,
        client_id: None,
        name: Some(name.to_owned()),
    }
}

fn rule() -> ForwardRule {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    ForwardRule {
        protocol: Protocol::Tcp,
        address: "127.0.0.1".to_owned(),
        first: port,
        last: port,
        except: Vec::new(),
        guest: Guest {
            address: None,
            mac: None,
            name: Some("web".to_owned()),
            interface: None,
        },
        guest_port: 80,
    }
}

/// The next service, after this one was killed.
fn restarted(mut service: Supervisor) -> Supervisor {
    service.end_all();
    let mut next = over(service.store.clone());
    next.restore();
    next
}

fn addresses(service: &Supervisor) -> Vec<(String, Option<String>)> {
    let rows = service.list_reservations(None).unwrap().into_iter();
    rows.map(|row| (row.reservation.address, row.reservation.name))
        .collect()
}

fn pair(address: &str, name: &str) -> (String, Option<String>) {
    (address.to_owned(), Some(name.to_owned()))
}

#[test]
fn what_was_put_on_a_network_before_it_was_kept_is_kept_too() {
    let mut service = supervisor();
    let client = service.connected(1);
    service
        .open_network(client, None, Some(at("dev", "10.213.40.0/24")))
        .unwrap();
    service
        .reserve_lease("dev", &reservation("10.213.40.9", "web"))
        .unwrap();
    let rule = rule();
    service.add_forward("dev", None, rule.clone()).unwrap();
    let (_, _guest) = start(&mut service, client, "dev", |_| {}).unwrap();
    let kept = service.create_network(named("dev")).unwrap();
    assert_eq!(kept.lifetime, Lifetime::Kept);
    service
        .reserve_lease("dev", &reservation("10.213.40.10", "db"))
        .unwrap();
    service
        .reserve_lease("dev", &reservation("10.213.40.11", "gone"))
        .unwrap();
    service.unreserve_lease("dev", "10.213.40.11").unwrap();
    // A guest has one reserved address: this moves it.
    service
        .reserve_lease("dev", &reservation("10.213.40.12", "db"))
        .unwrap();
    let mut next = restarted(service);
    let network = next.list_networks(Some("dev")).unwrap().remove(0);
    assert_eq!(
        (network.lifetime, network.holders, network.interfaces),
        (Lifetime::Kept, 0, 0)
    );
    assert_eq!(network.configuration, kept.configuration);
    assert_eq!(
        addresses(&next),
        [pair("10.213.40.9", "web"), pair("10.213.40.12", "db")]
    );
    let rules = next.list_forwards(None).unwrap();
    assert_eq!(
        rules.iter().map(|row| &row.rule).collect::<Vec<_>>(),
        [&rule]
    );
    let nobody = next.connected(1);
    next.delete_network(nobody, "dev", false).unwrap();
    let last = restarted(next);
    assert_eq!((last.status().networks, addresses(&last)), (0, Vec::new()));
}

#[test]
fn a_network_that_was_held_is_gone_after_a_restart() {
    let mut service = supervisor();
    let client = service.connected(1);
    service
        .open_network(client, None, Some(at("dev", "10.213.41.0/24")))
        .unwrap();
    service
        .reserve_lease("dev", &reservation("10.213.41.9", "web"))
        .unwrap();
    service.add_forward("dev", None, rule()).unwrap();
    let next = restarted(service);
    assert_eq!(
        (next.status().networks, next.list_forwards(None).unwrap()),
        (0, Vec::new())
    );
}

/// A guest may have an address of each family; how an IPv6 address is written does not matter.
#[test]
fn reservations_of_both_families() {
    let mut service = supervisor();
    let mut dev = at("dev", "10.213.45.0/24");
    dev.ipv6_prefix = Some("fd12:3456:789a:1::/64".to_owned());
    service.create_network(dev).unwrap();
    let mut reserve = |address| service.reserve_lease("dev", &reservation(address, "web"));
    reserve("10.213.45.9").unwrap();
    reserve("fd12:3456:789a:0001:0:0::10").unwrap();
    reserve("FD12:3456:789a:1::11").unwrap();
    in_use(
        service.reserve_lease("dev", &reservation("fd12:3456:789a:1::11", "db")),
        "web",
    );
    for address in [
        "fd12:3456:789a:1::",
        "fd12:3456:789a:1::1",
        "fd12:3456:789a:2::9",
    ] {
        invalid(
            service.reserve_lease("dev", &reservation(address, "db")),
            address,
        );
    }
    let addresses = |service: &Supervisor| -> Vec<String> {
        let all = service.list_reservations(Some("dev")).unwrap();
        all.into_iter().map(|one| one.reservation.address).collect()
    };
    let both = ["10.213.45.9", "fd12:3456:789a:1::11"];
    assert_eq!(addresses(&service), both);
    let mut next = restarted(service);
    assert_eq!(addresses(&next), both);
    next.unreserve_lease("dev", "fd12:3456:789a:1:0::11")
        .unwrap();
    assert_eq!(addresses(&next), both[..1]);
    let mut without = at("quiet", "10.213.46.0/24");
    without.dhcp6 = Some(false);
    let client = next.connected(1);
    next.open_network(client, None, Some(without)).unwrap();
    invalid(
        next.reserve_lease("quiet", &reservation("fd12:3456:789a:1::9", "db")),
        "its DHCPv6 is off",
    );
}

#[test]
fn reservations_that_cannot_be_are_refused_with_the_reason() {
    let mut service = supervisor();
    let client = service.connected(1);
    service
        .open_network(client, None, Some(at("dev", "10.213.42.0/24")))
        .unwrap();
    service
        .reserve_lease("dev", &reservation("10.213.42.9", "web"))
        .unwrap();
    service
        .reserve_lease("dev", &reservation("10.213.42.9", "web"))
        .unwrap();
    in_use(
        service.reserve_lease("dev", &reservation("10.213.42.9", "db")),
        "web",
    );
    for address in ["10.213.42.0", "10.213.42.1", "10.213.42.255", "10.213.43.9"] {
        invalid(
            service.reserve_lease("dev", &reservation(address, "db")),
            address,
        );
    }
    invalid(
        service.reserve_lease("dev", &reservation("x", "db")),
        "no IP address",
    );
    let two = Reservation {
        mac: Some("52:54:00:12:34:56".to_owned()),
        ..reservation("10.213.42.10", "db")
    };
    invalid(service.reserve_lease("dev", &two), "one way");
    let hex = Reservation {
        name: None,
        client_id: Some("zz".to_owned()),
        ..reservation("10.213.42.10", "")
    };
    invalid(service.reserve_lease("dev", &hex), "hexadecimal");
    not_found(
        service.unreserve_lease("dev", "10.213.42.10"),
        "10.213.42.10",
    );
    not_found(service.release_lease("dev", "10.213.42.10"), "10.213.42.10");
    let mut without = at("quiet", "10.213.44.0/24");
    without.dhcp = Some(false);
    service.open_network(client, None, Some(without)).unwrap();
    invalid(
        service.reserve_lease("quiet", &reservation("10.213.44.9", "a")),
        "DHCP is off",
    );
}

#[test]
fn networks_of_the_configuration_file() {
    let mut service = supervisor();
    let rule = rule();
    let configured = Configured {
        configuration: at("dev", "10.213.45.0/24"),
        reservations: vec![reservation("10.213.45.9", "web")],
        forwards: vec![rule.clone()],
    };
    service.configure(&configured).unwrap();
    let network = service.list_networks(Some("dev")).unwrap().remove(0);
    assert_eq!(network.lifetime, Lifetime::Configured);
    let client = service.connected(1);
    service.open_network(client, Some("dev"), None).unwrap();
    service.disconnected(client);
    assert!(there(&service, "dev"));
    invalid(
        service.delete_network(client, "dev", true),
        "configuration file",
    );
    // What was added to it while it ran is there again, like what the file says.
    service
        .reserve_lease("dev", &reservation("10.213.45.10", "db"))
        .unwrap();
    let mut next = restarted(service);
    assert!(!there(&next, "dev"));
    next.configure(&configured).unwrap();
    assert_eq!(
        addresses(&next),
        [pair("10.213.45.9", "web"), pair("10.213.45.10", "db")]
    );
    assert_eq!(next.list_forwards(None).unwrap().len(), 1);
}

#[test]
fn the_configuration_file_has_the_last_word() {
    let mut service = supervisor();
    service.create_network(at("dev", "10.213.46.0/24")).unwrap();
    let mut next = restarted(service);
    let configured = Configured {
        configuration: at("dev", "10.213.47.0/24"),
        reservations: Vec::new(),
        forwards: Vec::new(),
    };
    next.configure(&configured).unwrap();
    let all = next.list_networks(None).unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].subnet.as_deref(), Some("10.213.47.0/24"));
    assert_eq!(all[0].lifetime, Lifetime::Configured);
    // Taken out of the file, the other is back.
    let mut last = restarted(next);
    let all = last.list_networks(None).unwrap();
    assert_eq!(all[0].subnet.as_deref(), Some("10.213.46.0/24"));
}

#[test]
fn a_network_that_cannot_be_started_is_not_lost() {
    let mut service = supervisor();
    service.create_network(at("dev", "10.213.48.0/24")).unwrap();
    let uuid = service.find("dev").unwrap();
    service.end_all();
    // What it leads through is not there now.
    let mut description = serde_json::to_value(at("dev", "10.213.48.0/24")).unwrap();
    description["uuid"] = uuid.to_string().into();
    description["external_interface"] = "no-such-if0".into();
    service.store.put_network(uuid, &description).unwrap();
    let mut next = restarted(service);
    let client = next.connected(1);
    for asked in [None, Some(named("dev"))] {
        let refused = next.open_network(client, Some("dev"), asked).unwrap_err();
        assert!(refused.reason().contains("no-such-if0"), "{refused}");
    }
    let refused = next.create_network(named("dev")).unwrap_err();
    assert!(refused.reason().contains("no-such-if0"), "{refused}");
    // Mended, it is there for whoever wants it.
    let mended = serde_json::to_value(at("dev", "10.213.48.0/24")).unwrap();
    next.store.put_network(uuid, &mended).unwrap();
    let mut last = restarted(next);
    assert!(there(&last, "dev"));
    // And it can be deleted although it does not run.
    last.end_all();
    last.store.put_network(uuid, &description).unwrap();
    let mut deleting = restarted(last);
    let client = deleting.connected(1);
    deleting.delete_network(client, "dev", false).unwrap();
    let mut fresh = restarted(deleting);
    let client = fresh.connected(1);
    not_found(fresh.open_network(client, Some("dev"), None), "dev");
}

#[test]
fn a_network_that_is_added_to_the_file_takes_no_others_subnet() {
    let of_file = |name: &str| Configured {
        configuration: NetworkConfiguration {
            name: Some(name.to_owned()),
            ..NetworkConfiguration::new(Mode::Shared)
        },
        reservations: Vec::new(),
        forwards: Vec::new(),
    };
    let all = |service: &mut Supervisor, names: &[&str]| {
        let file: Vec<Configured> = names.iter().map(|name| of_file(name)).collect();
        service.await_configured(&file);
        for one in &file {
            service.configure(one).unwrap();
        }
    };
    let subnet =
        |service: &mut Supervisor| service.list_networks(Some("b")).unwrap()[0].subnet.clone();
    let mut first = supervisor();
    all(&mut first, &["b"]);
    let chosen = subnet(&mut first);
    let mut next = restarted(first);
    all(&mut next, &["a", "b"]);
    assert_eq!(subnet(&mut next), chosen);
    // Nor does one that is not in the file.
    let client = next.connected(1);
    let other = next.open_network(client, Some("shared"), None).unwrap();
    assert_ne!(other.subnet, chosen);
}

#[test]
fn a_network_of_the_file_keeps_the_subnet_it_chose() {
    let of_file = |name: &str| Configured {
        configuration: named(name),
        reservations: Vec::new(),
        forwards: Vec::new(),
    };
    let mut service = supervisor();
    service.configure(&of_file("b")).unwrap();
    let subnet = service.list_networks(Some("b")).unwrap()[0].subnet.clone();
    let mut next = restarted(service);
    next.configure(&of_file("b")).unwrap();
    next.configure(&of_file("a")).unwrap();
    assert_eq!(next.list_networks(Some("b")).unwrap()[0].subnet, subnet);
    let mut last = restarted(next);
    assert!(!there(&last, "b"), "what the file says is not kept");
    last.configure(&of_file("a")).unwrap();
    last.configure(&of_file("b")).unwrap();
    assert_eq!(last.list_networks(Some("b")).unwrap()[0].subnet, subnet);
}

#[test]
fn a_network_keeps_its_ipv6_prefix() {
    let mut service = supervisor();
    let client = service.connected(1);
    let prefix = |service: &mut Supervisor, name| {
        let networks = service.list_networks(Some(name)).unwrap();
        networks[0].ipv6_prefix.clone().unwrap()
    };
    let mut asked = at("chosen", "10.213.53.0/24");
    asked.ipv6_prefix = Some("fd12:0:0:7::1".to_owned());
    service.create_network(asked).unwrap();
    service
        .create_network(at("kept", "10.213.54.0/24"))
        .unwrap();
    let held = Some(at("held", "10.213.55.0/24"));
    service
        .open_network(client, Some("held"), held.clone())
        .unwrap();
    assert_eq!(prefix(&mut service, "chosen"), "fd12:0:0:7::/64");
    let before = ["kept", "held"].map(|name| prefix(&mut service, name));
    assert_ne!(before[0], before[1]);
    let mut next = restarted(service);
    let client = next.connected(1);
    next.open_network(client, Some("held"), held).unwrap();
    assert_eq!(prefix(&mut next, "chosen"), "fd12:0:0:7::/64");
    let after = ["kept", "held"].map(|name| prefix(&mut next, name));
    assert_eq!(after, before);
}

#[test]
fn a_network_of_before_ipv6_gets_a_prefix_and_keeps_it() {
    let mut service = supervisor();
    let uuid = service
        .create_network(at("old", "10.213.56.0/24"))
        .unwrap()
        .uuid
        .parse()
        .unwrap();
    let stored = |service: &Supervisor| {
        let mut networks = service.store.networks().into_iter();
        networks.find(|(id, _)| *id == uuid).unwrap().1
    };
    let mut old = stored(&service);
    for key in [
        "ipv6",
        "ipv6_prefix",
        "nat66",
        "router_advertisement",
        "dhcp6",
    ] {
        old.as_object_mut().unwrap().remove(key).unwrap();
    }
    service.store.put_network(uuid, &old).unwrap();
    let mut next = restarted(service);
    let network = next.list_networks(Some("old")).unwrap().remove(0);
    assert!(network.nat66 && network.router_advertisement && network.dhcp6);
    let prefix = network.ipv6_prefix.unwrap();
    assert_eq!(stored(&next)["ipv6_prefix"], prefix.as_str());
}

#[test]
fn a_mistake_on_one_network_of_the_file_keeps_no_other_from_starting() {
    let mut service = supervisor();
    let taken = rule();
    let _listener = TcpListener::bind(("127.0.0.1", taken.first)).unwrap();
    let configured = Configured {
        configuration: at("dev", "10.213.49.0/24"),
        reservations: vec![reservation("10.99.0.1", "elsewhere")],
        forwards: vec![taken],
    };
    service.configure(&configured).unwrap();
    assert!(there(&service, "dev"));
    assert_eq!(service.list_forwards(None).unwrap(), []);
}

#[test]
fn rules_that_share_a_range_are_kept_apart() {
    let mut service = supervisor();
    service.create_network(at("dev", "10.213.50.0/24")).unwrap();
    let mut one = rule();
    one.last = one.first + 3;
    one.except = vec![one.first, one.first + 1, one.first, 9];
    let mut other = one.clone();
    other.except = vec![other.first + 2, other.first + 3];
    let first = service.add_forward("dev", None, one.clone()).unwrap();
    // In order, each once, and none that excepts nothing.
    assert_eq!(first.rule.except, [one.first, one.first + 1]);
    assert_eq!(service.add_forward("dev", None, one).unwrap(), first);
    service.add_forward("dev", None, other).unwrap();
    let mut next = restarted(service);
    assert_eq!(next.list_forwards(None).unwrap().len(), 2);
    let number = next.list_forwards(None).unwrap()[0].forward;
    next.remove_forward(number).unwrap();
    let next = restarted(next);
    assert_eq!(next.list_forwards(None).unwrap().len(), 1);
}

#[test]
fn no_network_takes_the_place_of_another() {
    let mut service = supervisor();
    let client = service.connected(1);
    let uuid = service
        .create_network(at("dev", "10.213.51.0/24"))
        .unwrap()
        .uuid;
    let rule = rule();
    service.add_forward("dev", None, rule).unwrap();
    service.delete_network(client, "dev", false).unwrap();
    let mut by_uuid = NetworkConfiguration::new(Mode::Shared);
    by_uuid.subnet = Some("10.213.52.0/24".to_owned());
    service
        .open_network(client, Some(&uuid), Some(by_uuid))
        .unwrap();
    let refused = service.create_network(named("dev")).unwrap_err();
    assert!(matches!(refused, ServiceError::Exists { .. }), "{refused}");
    assert_eq!(service.list_networks(None).unwrap().len(), 1);
}
