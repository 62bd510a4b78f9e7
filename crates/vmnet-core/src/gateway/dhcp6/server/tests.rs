use super::*;
use crate::gateway::dhcp6::guest::{
    ADVERTISE, CONFIRM, DECLINE, INFORMATION, LEASE, NO_ADDRESS, NO_BINDING, NO_PREFIX,
    NOT_ON_LINK, REBIND, RELEASE, RENEW, REPLY, REQUEST, Read, SERVER, SOLICIT, SUCCESS,
    USE_MULTICAST, Wire, boot, config, duid, ip, mac, prefix, server,
};
use crate::gateway::register::{ReserveError, Reservee, RestoreError, State};
use std::time::Duration;

mod property;
mod table;

const FOREIGN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn state(server: &Server, address: Ipv6Addr) -> Option<State> {
    server.lease(address).map(|lease| lease.state)
}

fn solicit(guest: u8) -> Wire {
    Wire::new(guest, SOLICIT).address(1, &[])
}

fn request(guest: u8, address: Ipv6Addr) -> Wire {
    Wire::new(guest, REQUEST).ours().address(1, &[address])
}

fn renew(guest: u8, address: Ipv6Addr) -> Wire {
    Wire::new(guest, RENEW).ours().address(1, &[address])
}

fn name(option: &[u8]) -> String {
    let (mut rest, mut text) = (option, String::new());
    while let Some((len, tail)) = rest.split_first().filter(|(len, _)| **len > 0) {
        let (label, tail) = tail.split_at(usize::from(*len));
        text += std::str::from_utf8(label).unwrap();
        text.push('.');
        rest = tail;
    }
    text
}

#[test]
fn an_advertise_option_by_option() {
    let (mut server, now) = server();
    let advertise = solicit(7)
        .wants(&[24, 23, 82, 83, 31, 56])
        .named(0, "web")
        .ask(&mut server, now);
    assert_eq!(advertise.kind, ADVERTISE);
    assert_eq!(advertise.codes(), [2, 1, 3, 7, 24, 23, 82, 83, 39]);
    assert_eq!(advertise.get(2), Some(&SERVER[..]));
    assert_eq!(advertise.get(1), Some(&duid(7)[..]));
    assert_eq!(advertise.get(7), Some(&[255][..]));
    assert_eq!(name(advertise.get(24).unwrap()), "vmnet.internal.");
    assert_eq!(advertise.get(23), Some(&prefix().gateway().octets()[..]));
    assert_eq!(advertise.get(82), Some(&300_u32.to_be_bytes()[..]));
    let fqdn = advertise.get(39).unwrap();
    assert_eq!(
        (fqdn[0], name(&fqdn[1..])),
        (3, "web.vmnet.internal.".into())
    );
    let granted = advertise.granted();
    assert_eq!((granted[0].iaid, granted[0].times), (1, (1800, 2880)));
    assert_eq!(granted[0].addresses[0].1, 3600);
}

#[test]
fn a_client_that_lists_nothing_gets_resolvers_and_search_list() {
    let (mut server, now) = server();
    let codes = |wire: Wire, server: &mut Server| wire.ask(server, now).codes();
    assert_eq!(codes(solicit(1), &mut server), [2, 1, 3, 7, 23, 24]);
    assert_eq!(codes(solicit(1).wants(&[]), &mut server), [2, 1, 3, 7]);
    assert_eq!(
        codes(solicit(1).wants(&[24, 24, 99, 24]), &mut server),
        [2, 1, 3, 7, 24]
    );
}

#[test]
fn settings_alone_for_everybody() {
    let (mut server, now) = server();
    let reply = Wire::bare(1, INFORMATION)
        .wants(&[23, 24, 32])
        .ask(&mut server, now);
    assert_eq!((reply.kind, reply.codes()), (REPLY, vec![2, 23, 24, 32]));
    assert_eq!(reply.get(32), Some(&3600_u32.to_be_bytes()[..]));
    let named = Wire::new(1, INFORMATION).ours().ask(&mut server, now);
    assert_eq!(named.codes(), [2, 1, 23, 24]);
    assert_eq!(server.leases().count(), 0);
    for bad in [
        Wire::new(1, INFORMATION).option(2, b"\0\x03another"),
        Wire::new(1, INFORMATION).address(1, &[]),
        Wire::new(1, INFORMATION).unicast(),
    ] {
        bad.refused(&mut server, now);
    }
}

#[test]
fn a_server_without_names() {
    let now = Instant::now();
    let mut server = Server::new(Config {
        domain: String::new(),
        resolvers: Vec::new(),
        ..config()
    })
    .unwrap();
    let reply = Wire::new(1, INFORMATION)
        .wants(&[23, 24, 39])
        .ask(&mut server, now);
    assert_eq!(reply.codes(), [2, 1]);
}

#[test]
fn rapid_commit_needs_no_second_question() {
    let (mut server, now) = server();
    let reply = solicit(1).option(14, &[]).ask(&mut server, now);
    assert_eq!((reply.kind, reply.get(14)), (REPLY, Some(&[][..])));
    assert_eq!(state(&server, reply.only()), Some(State::Bound));
    // A wish for an address of elsewhere is a wish.
    let reply = Wire::new(2, SOLICIT)
        .address(1, &[FOREIGN])
        .option(14, &[])
        .ask(&mut server, now);
    assert!(prefix().contains(reply.only()));
    // Nothing to be had at once: the usual answer.
    let temporary = Wire::new(3, SOLICIT)
        .option(4, &[0, 0, 0, 1])
        .option(14, &[]);
    let reply = temporary.ask(&mut server, now);
    assert_eq!((reply.kind, reply.get(14)), (ADVERTISE, None));
}

#[test]
fn what_is_not_given_here() {
    let (mut server, now) = server();
    let advertise = Wire::new(1, SOLICIT)
        .option(4, &[0, 0, 0, 8])
        .option(25, &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0])
        .ask(&mut server, now);
    let granted = advertise.granted();
    let told: Vec<_> = granted
        .iter()
        .map(|granted| (granted.code, granted.iaid, granted.status))
        .collect();
    assert_eq!(told, [(4, 8, Some(NO_ADDRESS)), (25, 9, Some(NO_PREFIX))]);
}

#[test]
fn several_addresses_for_one_guest_up_to_its_share() {
    let (mut server, now) = server();
    let mut wire = Wire::new(1, SOLICIT).option(14, &[]);
    for iaid in 0..20 {
        wire = wire.address(iaid, &[]);
    }
    let reply = wire.ask(&mut server, now);
    let granted = reply.granted();
    assert_eq!(granted.len(), 8, "the first eight are answered");
    let mut addresses: Vec<_> = granted.iter().map(|g| g.addresses[0].0).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 8);
    let more = Wire::new(1, SOLICIT).address(77, &[]).ask(&mut server, now);
    assert_eq!(more.granted()[0].status, Some(NO_ADDRESS));
    // Another DUID of the same MAC does not help; another guest is not concerned.
    let disguised = Wire::new(9, SOLICIT).from(mac(1)).address(1, &[]);
    let more = disguised.ask(&mut server, now);
    assert_eq!(more.granted()[0].status, Some(NO_ADDRESS));
    boot(&mut server, now, 2);
}

/// A guest with a thousand DUIDs holds eight addresses, and no lease of another is touched.
#[test]
fn a_flood_of_duids() {
    let (mut server, now) = server();
    let first = boot(&mut server, now, 1);
    for number in 0..1000_u16 {
        let [a, b] = number.to_be_bytes();
        let wire = Wire::bare(66, SOLICIT).option(1, &[0, 4, 9, a, b]);
        wire.address(1, &[first])
            .option(14, &[])
            .ask(&mut server, now);
    }
    assert_eq!(server.leases().count(), 9);
    assert_eq!(state(&server, first), Some(State::Bound));
    boot(&mut server, now, 2);
}

#[test]
fn clones_of_one_image_are_two_guests() {
    let (mut server, now) = server();
    let first = boot(&mut server, now, 1);
    let clone = Wire::bare(2, SOLICIT)
        .option(1, &duid(1))
        .address(1, &[first]);
    let other = clone.ask(&mut server, now).only();
    assert_ne!(first, other);
    let request = Wire::bare(2, REQUEST).option(1, &duid(1)).ours();
    assert_eq!(
        request.address(1, &[other]).ask(&mut server, now).only(),
        other
    );
    // Each goes on with its own.
    assert_eq!(renew(1, first).ask(&mut server, now).only(), first);
    let again = Wire::bare(2, RENEW).option(1, &duid(1)).ours();
    assert_eq!(
        again.address(1, &[other]).ask(&mut server, now).only(),
        other
    );
}

#[test]
fn a_server_that_has_forgotten_everything() {
    let (mut one, now) = server();
    let addresses: Vec<_> = (1..50).map(|guest| boot(&mut one, now, guest)).collect();
    let (mut other, _) = server();
    for (guest, address) in (1..50).zip(&addresses) {
        // It grants what guests have, and would give the same to those that start anew.
        if guest % 2 == 0 {
            assert_eq!(renew(guest, *address).ask(&mut other, now).only(), *address);
        } else {
            assert_eq!(boot(&mut other, now, guest), *address);
        }
    }
}

#[test]
fn what_a_guest_may_not_keep_ends_in_the_answer_that_brings_another() {
    let (mut server, now) = server();
    let first = boot(&mut server, now, 1);
    server
        .register_mut()
        .reserve(Reservee::Mac(mac(1)), ip(0x77))
        .unwrap();
    let reply = renew(1, first).ask(&mut server, now);
    let granted = reply.granted();
    assert_eq!(granted[0].addresses, [(ip(0x77), 3600), (first, 0)]);
    assert_eq!(granted[0].times, (1800, 2880));
    assert_eq!(state(&server, first), None);
    // From another network.
    let reply = Wire::new(2, REBIND)
        .address(1, &[FOREIGN])
        .ask(&mut server, now);
    let granted = reply.granted();
    assert_eq!(granted[0].addresses[1], (FOREIGN, 0));
    assert!(prefix().contains(granted[0].addresses[0].0));
}

#[test]
fn reservations_by_duid_mac_and_name() {
    let (mut server, now) = server();
    let kept = |server: &mut Server, reservee, last| {
        server.register_mut().reserve(reservee, ip(last)).unwrap();
    };
    kept(&mut server, Reservee::ClientId(duid(1)), 0x11);
    kept(&mut server, Reservee::Mac(mac(2)), 0x12);
    kept(&mut server, Reservee::Name("db".into()), 0x13);
    let named = Wire::new(3, SOLICIT).address(1, &[]).named(1, "db");
    for (wire, last) in [(solicit(1), 0x11), (solicit(2), 0x12), (named, 0x13)] {
        assert_eq!(wire.ask(&mut server, now).only(), ip(last));
        // What is kept is nobody else's.
        let thief = Wire::new(9, SOLICIT)
            .address(1, &[ip(last)])
            .option(14, &[]);
        assert_ne!(thief.ask(&mut server, now).only(), ip(last));
    }
    // It is one address: the second association gets another.
    let two = Wire::new(2, SOLICIT).address(1, &[]).address(2, &[]);
    let two = two.ask(&mut server, now).granted();
    assert_eq!(two[0].addresses[0].0, ip(0x12));
    assert_ne!(two[1].addresses[0].0, ip(0x12));
    let gateway = prefix().gateway();
    for bad in [gateway, prefix().network(), FOREIGN] {
        let refused = server.register_mut().reserve(Reservee::Mac(mac(5)), bad);
        assert_eq!(refused, Err(ReserveError::NotAGuestAddress(bad.into())));
    }
}

#[test]
fn names_are_the_first_ones() {
    let (mut server, now) = server();
    let ask = |guest, server: &mut Server, flags| {
        let wire = solicit(guest)
            .option(14, &[])
            .named(flags, "Web.example.org");
        let reply = wire.ask(server, now);
        let fqdn = reply.get(39).unwrap().to_vec();
        (fqdn[0], name(&fqdn[1..]))
    };
    assert_eq!(ask(1, &mut server, 1), (1, "web.vmnet.internal.".into()));
    // The second one keeps what it calls itself, and nobody puts that into DNS.
    assert_eq!(ask(2, &mut server, 0), (4, "Web.example.org.".into()));
    assert_eq!(server.register().named("web").map(|l| l.mac), Some(mac(1)));
}

#[test]
fn declined_addresses_rest() {
    let (mut server, now) = server();
    let address = boot(&mut server, now, 1);
    let decline = Wire::new(1, DECLINE).ours().address(1, &[address]);
    let reply = decline.ask(&mut server, now);
    assert_eq!((reply.kind, reply.status()), (REPLY, Some(SUCCESS)));
    assert_eq!(state(&server, address), Some(State::Declined));
    let other = boot(&mut server, now, 1);
    assert_ne!(other, address);
    assert_eq!(server.timeout(now + secs(600)), []);
    assert_eq!(state(&server, address), None);
}

#[test]
fn leases_end_and_are_remembered() {
    let (mut server, now) = server();
    let address = boot(&mut server, now, 1);
    assert_eq!(server.next_deadline(), Some(now + LEASE));
    let ended = server.timeout(now + LEASE);
    assert!(matches!(&ended[..], [LeaseChange::Ended(lease)] if lease.address == address));
    assert_eq!(state(&server, address), Some(State::Expired));
    assert_eq!(boot(&mut server, now + LEASE, 1), address);
}

#[test]
fn stored_leases_come_back() {
    let (mut one, now) = server();
    let address = boot(&mut one, now, 1);
    let lease = one.lease(address).unwrap().clone();
    assert_eq!(
        (lease.iaid, lease.client_id.clone()),
        (Some(1), Some(duid(1)))
    );
    let (mut other, _) = server();
    let refused = other.register_mut().restore_all(vec![lease.clone()]);
    assert_eq!(refused, []);
    // The other association of the guest is another lease.
    let more = Wire::new(1, SOLICIT).address(2, &[]).ask(&mut other, now);
    assert_ne!(more.only(), address);
    assert_eq!(renew(1, address).ask(&mut other, now).only(), address);
    let mut foreign = lease;
    foreign.address = FOREIGN;
    let unknown = RestoreError::UnknownAddress(FOREIGN.into());
    assert_eq!(other.register_mut().restore(foreign), Err(unknown));
}

#[test]
fn what_comes_from_nowhere() {
    let (mut server, now) = server();
    for source in [Ipv6Addr::UNSPECIFIED, FOREIGN, Ipv6Addr::LOCALHOST] {
        let mut wire = solicit(1);
        wire.source = source;
        assert_eq!(wire.refused(&mut server, now), Drop::BadSource);
    }
}
