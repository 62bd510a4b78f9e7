//! Ids, MACs and names: the same id has the same MAC, and no two live interfaces of a network have one.

use super::*;
use openvmnet::service::InterfaceOptions;

const ID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";
const MAC: &str = "52:54:00:12:34:56";

fn id(options: &mut InterfaceOptions) {
    options.id = Some(ID.to_owned());
}

fn mac(options: &mut InterfaceOptions) {
    options.mac = Some(MAC.to_owned());
}

fn stage() -> (Supervisor, ConnectionId) {
    let mut service = supervisor();
    let client = service.connected(1);
    service
        .open_network(client, None, Some(named("dev")))
        .unwrap();
    service
        .open_network(client, None, Some(named("other")))
        .unwrap();
    (service, client)
}

#[test]
fn without_an_id_each_gets_a_fresh_one() {
    let (mut service, client) = stage();
    let (one, _a) = start(&mut service, client, "dev", |_| {}).unwrap();
    let (two, _b) = start(&mut service, client, "dev", |_| {}).unwrap();
    assert_ne!(one.interface.id, two.interface.id);
    assert_ne!(one.interface.mac, two.interface.mac);
    let first = u8::from_str_radix(&one.interface.mac.unwrap()[..2], 16).unwrap();
    assert_eq!(first & 3, 2, "locally administered, of one");
    let (none, _c) = start(&mut service, client, "dev", |options| {
        options.allocate_mac = Some(false);
    })
    .unwrap();
    assert_eq!((none.interface.id, none.interface.mac), (None, None));
    assert_eq!(service.list_identities().len(), 2);
}

#[test]
fn the_same_id_has_the_same_mac_also_after_a_restart() {
    let (mut service, client) = stage();
    let (first, _guest) = start(&mut service, client, "dev", id).unwrap();
    assert_eq!(first.interface.id.as_deref(), Some(ID));
    service.stop_interface(first.interface.interface).unwrap();
    let (again, _guest) = start(&mut service, client, "other", id).unwrap();
    assert_eq!(again.interface.mac, first.interface.mac);
    service.end_all();
    let mut next = over(service.store.clone());
    let client = next.connected(1);
    next.open_network(client, Some("shared"), None).unwrap();
    let (after, _guest) = start(&mut next, client, "shared", id).unwrap();
    assert_eq!(after.interface.mac, first.interface.mac);
}

#[test]
fn an_unknown_id_is_adopted_with_its_mac() {
    let (mut service, client) = stage();
    let both = |options: &mut InterfaceOptions| {
        id(options);
        mac(options);
    };
    let (first, _guest) = start(&mut service, client, "dev", both).unwrap();
    assert_eq!(first.interface.mac.as_deref(), Some(MAC));
    service.stop_interface(first.interface.interface).unwrap();
    let (again, _guest) = start(&mut service, client, "dev", id).unwrap();
    assert_eq!(again.interface.mac.as_deref(), Some(MAC));
    service.stop_interface(again.interface.interface).unwrap();
    // It is its own for ever: no other for this id, and no other id for it.
    let other = start(&mut service, client, "dev", |options| {
        id(options);
        options.mac = Some("52:54:00:00:00:01".to_owned());
    });
    in_use(other.map(|(started, _)| started), MAC);
    let other = start(&mut service, client, "dev", |options| {
        mac(options);
        options.id = Some("7ba7b810-9dad-41d1-80b4-00c04fd430c8".to_owned());
    });
    in_use(other.map(|(started, _)| started), MAC);
    assert_eq!(service.list_identities().len(), 1);
}

#[test]
fn a_mac_that_is_live_is_granted_to_nobody_else() {
    let (mut service, client) = stage();
    let (live, guest) = start(&mut service, client, "dev", mac).unwrap();
    let before = service.list_identities();
    for change in [mac as fn(&mut InterfaceOptions), |options| {
        id(options);
        mac(options);
    }] {
        let refused = start(&mut service, client, "dev", change);
        in_use(refused.map(|(started, _)| started), MAC);
    }
    // What was refused left nothing behind.
    assert_eq!(service.list_identities(), before);
    assert_eq!(service.status().interfaces, 1);
    // Free as soon as the guest is gone, without anybody's word.
    drop(guest);
    eventually("the MAC is free", || {
        start(&mut service, client, "dev", mac)
            .is_ok_and(|(next, _)| next.interface.interface != live.interface.interface)
    });
}

#[test]
fn an_id_is_one_interfaces_at_a_time_and_free_when_its_guest_goes() {
    let (mut service, client) = stage();
    let (live, guest) = start(&mut service, client, "dev", id).unwrap();
    let refused = start(&mut service, client, "other", id).map(|(started, _)| started);
    in_use(refused, &format!("interface {}", live.interface.interface));
    in_use(service.forget_identity(ID), ID);
    drop(guest);
    // Nobody looks at the network that it was on.
    eventually("the id is free on another network", || {
        start(&mut service, client, "other", id)
            .is_ok_and(|(next, _)| next.interface.mac == live.interface.mac)
    });
    eventually("it can be forgotten", || {
        service.forget_identity(ID).is_ok()
    });
    not_found(service.forget_identity(ID), ID);
    invalid(service.forget_identity("x"), "UUID");
}

#[test]
fn a_start_that_fails_leaves_no_identity() {
    let (mut service, client) = stage();
    let refused = start(&mut service, client, "dev", |options| {
        options.virtio_header = Some(true);
        options.checksum_offload = Some(true);
    });
    invalid(refused.map(|(started, _)| started), "header");
    assert_eq!(service.list_identities(), Vec::new());
    for (options, count) in [
        (InterfaceOptions::new(Kind::Stream), 0),
        (InterfaceOptions::new(Kind::Stream), 2),
    ] {
        let descriptors = (0..count)
            .map(|_| UnixStream::pair().unwrap().0.into())
            .collect();
        let refused = service.start_interface(client, "dev", options, descriptors);
        invalid(refused, &format!("{count} came"));
    }
    assert_eq!(service.list_identities(), Vec::new());
}

#[test]
fn a_descriptor_must_be_of_its_kind() {
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    let (mut service, client) = stage();
    let stream = || OwnedFd::from(UnixStream::pair().unwrap().0);
    let dgram = || OwnedFd::from(UnixDatagram::pair().unwrap().0);
    let unbound = || OwnedFd::from(UnixDatagram::unbound().unwrap());
    let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    for (kind, descriptor) in [
        (Kind::Stream, dgram()),
        (Kind::Stream, file()),
        (Kind::Stream, tcp()),
        (Kind::StreamListener, stream()),
        (Kind::StreamListener, tcp()),
        (Kind::Dgram, stream()),
        (Kind::Dgram, unbound()),
        (Kind::DgramListener, dgram()),
        (Kind::DgramListener, stream()),
        (Kind::Tap, stream()),
        (Kind::Tap, file()),
    ] {
        let options = InterfaceOptions::new(kind);
        invalid(
            service.start_interface(client, "dev", options, vec![descriptor]),
            "the descriptor is not",
        );
    }
    assert_eq!(service.status().interfaces, 0);
}

#[test]
fn names_are_unique_on_a_network() {
    let (mut service, client) = stage();
    let web = |options: &mut InterfaceOptions| options.name = Some("Web".to_owned());
    let (first, guest) = start(&mut service, client, "dev", web).unwrap();
    assert_eq!(first.interface.name.as_deref(), Some("web"));
    let second = start(&mut service, client, "dev", |options| {
        options.name = Some("wEB".to_owned());
    });
    in_use(second.map(|(started, _)| started), "web");
    start(&mut service, client, "other", web).unwrap();
    drop(guest);
    eventually("the name is free", || {
        start(&mut service, client, "dev", web).is_ok()
    });
    for name in ["", "-a", "a-", "a.b", "a b", &"a".repeat(64)] {
        let refused = start(&mut service, client, "dev", |options| {
            options.name = Some(name.to_owned());
        });
        invalid(refused.map(|(started, _)| started), name);
    }
}

#[test]
fn a_guest_has_neither_the_gateways_mac_nor_a_name_of_others() {
    let mut service = supervisor();
    let client = service.connected(1);
    service
        .open_network(client, None, Some(at("dev", "10.213.70.0/24")))
        .unwrap();
    let gateway = |options: &mut InterfaceOptions| options.mac = Some("5a:94:0a:d5:46:01".into());
    let refused = start(&mut service, client, "dev", gateway);
    let reason = refused.unwrap_err().reason().to_owned();
    assert!(reason.contains("the network's gateway"), "{reason}");
    let named = |options: &mut InterfaceOptions| options.name = Some("Gateway".into());
    let refused = start(&mut service, client, "dev", named);
    let reason = refused.unwrap_err().reason().to_owned();
    assert!(reason.contains("no guest's name"), "{reason}");
}
