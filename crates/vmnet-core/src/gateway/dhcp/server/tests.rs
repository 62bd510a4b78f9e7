use super::*;
use crate::gateway::dhcp::guest::{
    ACK, DECLINE, DISCOVER, GATEWAY, INFORM, LEASE, NAK, OFFER, RELEASE, REQUEST, Read, Wire, XID,
    boot, config, ip, mac,
};
use crate::gateway::dhcp::{ReserveError, Reservee, RestoreError, State};
use std::time::Duration;
use vmnet_wire::ethernet::Mac;

mod property;
mod table;

const OTHER_SERVER: Ipv4Addr = ip(250);

fn server(first: u8, last: u8) -> (Server, Instant) {
    (Server::new(config(first, last)).unwrap(), Instant::now())
}

fn state(server: &Server, address: Ipv4Addr) -> Option<State> {
    server.lease(address).map(|lease| lease.state)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn discover(n: u8) -> Wire {
    Wire::new(mac(n), DISCOVER)
}

fn select(n: u8, address: Ipv4Addr) -> Wire {
    Wire::new(mac(n), REQUEST)
        .requested(address)
        .server(GATEWAY)
}

fn renew(n: u8, address: Ipv4Addr) -> Wire {
    Wire::new(mac(n), REQUEST).ciaddr(address)
}

fn release(n: u8, address: Ipv4Addr) -> Wire {
    Wire::new(mac(n), RELEASE)
        .ciaddr(address)
        .server(GATEWAY)
        .unicast()
}

#[test]
fn an_offer_byte_by_byte() {
    let (mut server, now) = server(10, 20);
    let id = b"\xff\x01\x02\x03\x04\x00\x02\x00\x00\xab\x11machine!";
    let offer = discover(7)
        .id(Some(id))
        .option(55, &[3, 1, 119, 6, 15, 26, 28, 99])
        .ask(&mut server, now);
    assert_eq!((offer.reply.mac, offer.reply.port), (mac(7), 68));
    assert_eq!(offer.reply.address, offer.yiaddr());
    assert_eq!(offer.reply.payload[4..8], XID);
    assert_eq!(
        offer.reply.payload[28..44],
        [0x52, 0x54, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    for (field, at) in [("ciaddr", 12), ("siaddr", 20), ("giaddr", 24)] {
        assert_eq!(offer.at(at), Ipv4Addr::UNSPECIFIED, "{field}");
    }
    let expected: [(u8, &[u8]); 13] = [
        (53, &[OFFER]),
        (54, &[192, 168, 64, 1]),
        (51, &3600_u32.to_be_bytes()),
        (58, &1800_u32.to_be_bytes()),
        (59, &3150_u32.to_be_bytes()),
        (1, &[255, 255, 255, 0]),
        (3, &[192, 168, 64, 1]),
        (119, b"\x05vmnet\x08internal\0\x07example\x03org\0"),
        (6, &[192, 168, 64, 1]),
        (15, b"vmnet.internal"),
        (26, &1400_u16.to_be_bytes()),
        (28, &[192, 168, 64, 255]),
        (61, id),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(code, value)| (*code, value.to_vec()))
        .collect();
    assert_eq!(offer.options, expected);
}

#[test]
fn the_parameter_list_decides_what_comes_and_in_which_order() {
    let (mut server, now) = server(10, 20);
    let always = [53, 54, 51, 58, 59, 1];
    for (list, rest) in [
        (&[][..], &[3, 6, 15, 26, 28, 119][..]),
        (&[1], &[3, 6]),
        (&[6, 3], &[6, 3]),
        (&[26, 26, 3, 1, 26, 6], &[26, 3, 6]),
        (&[121, 12, 42, 26], &[26, 3, 6]),
    ] {
        let offer = discover(1).option(55, list).ask(&mut server, now);
        assert_eq!(offer.codes(), [&always, rest].concat(), "{list:?}");
    }
}

#[test]
fn classless_routes_bring_the_default_route() {
    let routes = vec![(Ipv4Addr::new(10, 0, 0, 0), 8, ip(5))];
    let now = Instant::now();
    let mut server = Server::new(Config {
        routes,
        ..config(10, 20)
    })
    .unwrap();
    let offer = discover(1).option(55, &[121, 3]).ask(&mut server, now);
    assert_eq!(
        offer.get(121).unwrap(),
        [8, 10, 192, 168, 64, 5, 0, 192, 168, 64, 1]
    );
    assert_eq!(
        discover(1).option(55, &[3]).ask(&mut server, now).get(121),
        None
    );
    let default = vec![(Ipv4Addr::UNSPECIFIED, 0, ip(5))];
    let mut server = Server::new(Config {
        routes: default,
        ..config(10, 20)
    })
    .unwrap();
    let offer = discover(1).option(55, &[121]).ask(&mut server, now);
    assert_eq!(offer.get(121).unwrap(), [0, 192, 168, 64, 5]);
}

#[test]
fn a_reply_fits_into_what_the_client_takes() {
    let search: Vec<_> = (0..20)
        .map(|i| format!("{}{i}.example.org", "x".repeat(20)))
        .collect();
    let now = Instant::now();
    let mut server = Server::new(Config {
        search,
        mtu: 1500,
        ..config(10, 20)
    })
    .unwrap();
    let ask = |server: &mut Server, size: Option<u16>| {
        let wire = discover(1).option(55, &[119, 26]).id(Some(&[7; 200]));
        let wire = match size {
            Some(size) => wire.option(57, &size.to_be_bytes()),
            None => wire,
        };
        wire.ask(server, now)
    };
    for size in [None, Some(0), Some(576)] {
        let small = ask(&mut server, size);
        assert!(small.reply.payload.len() <= 548);
        assert_eq!(
            (small.get(119), small.get(26).is_some()),
            (None, true),
            "{size:?}"
        );
        assert_eq!(small.get(61).unwrap(), [7; 200]);
    }
    let large = ask(&mut server, Some(1500));
    assert_eq!(
        large.get(119).unwrap().len(),
        20 * 35 + 10,
        "a list in three pieces"
    );
    assert!(large.reply.payload.len() <= 1472);
}

/// RFC 2131 §4.1.
#[test]
fn destinations() {
    let (mut server, now) = server(10, 20);
    let everybody = (Mac::BROADCAST, Ipv4Addr::BROADCAST);
    let to = |read: Read| (read.reply.mac, read.reply.address);
    let broadcast = |wire: Wire| wire.field(10, &[0x80, 0]);
    let offer = discover(1).ask(&mut server, now);
    let address = offer.yiaddr();
    let unicast = (mac(1), address);
    assert_eq!(to(offer), unicast);
    assert_eq!(to(broadcast(discover(1)).ask(&mut server, now)), everybody);
    assert_eq!(to(select(1, address).ask(&mut server, now)), unicast);
    assert_eq!(
        to(broadcast(select(1, address)).ask(&mut server, now)),
        everybody
    );
    let ack = broadcast(renew(1, address).unicast()).ask(&mut server, now);
    assert_eq!((ack.at(12), ack.yiaddr()), (address, address));
    assert_eq!(to(ack), unicast, "a client with an address takes unicast");
    assert_eq!(to(renew(1, address).ask(&mut server, now)), unicast);
    let nak = renew(1, Ipv4Addr::new(10, 0, 0, 1))
        .unicast()
        .ask(&mut server, now);
    assert_eq!(
        (nak.kind(), nak.yiaddr(), nak.at(12)),
        (NAK, Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)
    );
    assert_eq!(nak.codes(), [53, 54, 56]);
    assert_eq!(to(nak), everybody);
    let inform = broadcast(Wire::new(mac(3), INFORM).ciaddr(ip(99))).ask(&mut server, now);
    assert_eq!(to(inform), (mac(3), ip(99)));
}

#[test]
fn inform_brings_settings_without_address_and_times() {
    let (mut server, now) = server(10, 20);
    let ack = Wire::new(mac(3), INFORM)
        .ciaddr(ip(99))
        .option(55, &[26])
        .ask(&mut server, now);
    assert_eq!(
        (ack.kind(), ack.yiaddr(), ack.at(12)),
        (ACK, Ipv4Addr::UNSPECIFIED, ip(99))
    );
    assert_eq!(ack.codes(), [53, 54, 1, 26, 3, 6]);
    let mut from_source = Wire::new(mac(3), INFORM);
    assert_eq!(from_source.refused(&mut server, now), Drop::Malformed);
    from_source.ip_source = ip(98);
    assert_eq!(from_source.ask(&mut server, now).reply.address, ip(98));
    let far = Wire::new(mac(3), INFORM).ciaddr(Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(far.refused(&mut server, now), Drop::WrongNetwork);
    assert_eq!(server.leases().count(), 0);
}

#[test]
fn a_guest_speaks_for_itself_and_to_us() {
    let (mut server, now) = server(10, 20);
    let mut wire = discover(1);
    wire.source = mac(2);
    assert_eq!(wire.refused(&mut server, now), Drop::Impostor);
    let mut wire = discover(1);
    wire.ip_destination = ip(77);
    assert_eq!(wire.refused(&mut server, now), Drop::NotForUs);
    wire.ip_destination = ip(255);
    assert_eq!(wire.ask(&mut server, now).kind(), OFFER);
}

#[test]
fn lease_times_are_negotiated() {
    let (mut server, now) = server(10, 20);
    for (asked, granted) in [(1, 60), (600, 600), (u32::MAX, 3600)] {
        let offer = discover(1)
            .option(51, &asked.to_be_bytes())
            .ask(&mut server, now);
        assert_eq!(
            (offer.seconds(51), offer.seconds(58)),
            (granted, granted / 2)
        );
        assert!(offer.seconds(58) < offer.seconds(59) && offer.seconds(59) < granted);
    }
    let address = boot(&mut server, now, mac(1), None);
    assert_eq!(server.lease(address).unwrap().expires, now + LEASE);
    renew(1, address)
        .option(51, &60_u32.to_be_bytes())
        .ask(&mut server, now + secs(10));
    assert_eq!(
        server.lease(address).unwrap().expires,
        now + LEASE,
        "never earlier than promised"
    );
}

#[test]
fn a_guest_gets_its_address_again() {
    let (mut server, now) = server(10, 200);
    let addresses: Vec<_> = (0..50)
        .map(|n| boot(&mut server, now, mac(n), None))
        .collect();
    let later = now + LEASE * 3;
    for (n, address) in (0..50).zip(&addresses).rev() {
        assert_eq!(
            boot(&mut server, later, mac(n), None),
            *address,
            "remembered after its end"
        );
    }
    // A server that has forgotten everything, and guests that come in another order without a wish.
    let (mut fresh, _) = self::server(10, 200);
    let again = (0..50)
        .rev()
        .filter(|n| boot(&mut fresh, now, mac(*n), None) == addresses[usize::from(*n)]);
    assert!(again.count() >= 40, "most do not collide");
    let (mut fresh, _) = self::server(10, 200);
    for (n, address) in (0..50).zip(&addresses).rev() {
        assert_eq!(
            discover(n)
                .requested(*address)
                .ask(&mut fresh, now)
                .yiaddr(),
            *address,
            "asked for"
        );
    }
}

#[test]
fn a_restart_without_a_store_loses_no_guest() {
    let (mut server, now) = server(10, 20);
    assert_eq!(renew(1, ip(13)).unicast().ask(&mut server, now).kind(), ACK);
    assert_eq!(renew(2, ip(14)).ask(&mut server, now).kind(), ACK);
    assert_eq!(
        renew(3, ip(13)).unicast().ask(&mut server, now).kind(),
        NAK,
        "another guest's"
    );
    assert_eq!(
        renew(3, ip(9)).unicast().ask(&mut server, now).kind(),
        NAK,
        "beside the pool"
    );
    assert_eq!(
        renew(3, GATEWAY).unicast().ask(&mut server, now).kind(),
        NAK
    );
}

#[test]
fn the_closed_addresses_are_never_given() {
    let now = Instant::now();
    let mut server = Server::new(Config {
        prefix_len: 29,
        ..config(0, 7)
    })
    .unwrap();
    let got: std::collections::BTreeSet<_> = (1..=5)
        .map(|n| boot(&mut server, now, mac(n), None))
        .collect();
    assert_eq!(got, (2..=6).map(ip).collect());
    assert_eq!(discover(6).refused(&mut server, now), Drop::NoFreeAddress);
}

#[test]
fn the_lease_that_ended_first_is_reclaimed_first() {
    let (mut server, now) = server(10, 12);
    let old = boot(&mut server, now, mac(1), None);
    let older = boot(&mut server, now + secs(1), mac(2), None);
    let live = boot(&mut server, now + secs(2), mac(3), None);
    release(2, older).send(&mut server, now + secs(3));
    let late = now + LEASE + secs(1);
    assert_eq!(renew(3, live).ask(&mut server, late - secs(10)).kind(), ACK);
    let answer = discover(4).send(&mut server, late);
    assert!(
        matches!(&answer.changes[..], [LeaseChange::Ended(a), LeaseChange::Forgotten(b)]
        if a.address == old && b.address == older && b.mac == mac(2)),
        "{answer:?}"
    );
    assert_eq!(boot(&mut server, late, mac(4), None), older);
    assert_eq!(boot(&mut server, late, mac(5), None), old);
    assert_eq!(discover(6).refused(&mut server, late), Drop::NoFreeAddress);
}

#[test]
fn a_flood_of_discovers_keeps_nobody_out_and_moves_no_lease() {
    let (mut server, now) = server(10, 29);
    let bound: Vec<_> = (0..10)
        .map(|n| boot(&mut server, now, mac(n), None))
        .collect();
    let honest = discover(100).ask(&mut server, now).yiaddr();
    for i in 0..5000_u16 {
        let [a, b] = i.to_be_bytes();
        let flood = Wire::new(Mac([2, 0xff, 0, 0, a, b]), DISCOVER);
        assert_eq!(flood.ask(&mut server, now).kind(), OFFER);
        assert!(server.leases().count() <= 20);
    }
    assert_ne!(
        server.lease(honest).unwrap().mac,
        mac(100),
        "its offer was pushed out"
    );
    assert_eq!(
        select(100, honest).ask(&mut server, now).kind(),
        ACK,
        "but is granted"
    );
    for (n, address) in (0..10).zip(bound) {
        assert_eq!(
            server.lease(address).map(|lease| (lease.mac, lease.state)),
            Some((mac(n), State::Bound))
        );
    }
    assert_eq!(server.timeout(now + secs(60)).len(), 0);
    assert_eq!(server.leases().count(), 11, "offers leave no trace");
}

#[test]
fn one_port_with_many_stations_leaves_half_of_the_pool_to_others() {
    let (mut server, now) = server(10, 49);
    let mut ports = slotmap::SlotMap::<PortId, ()>::with_key();
    let [greedy, modest] = [ports.insert(()), ports.insert(())];
    let answered = |server: &mut Server, from: std::ops::Range<u8>, port| {
        let asked = from.filter(|n| {
            let offered = discover(*n).behind(port).send(server, now);
            let Outcome::Reply(offer) = offered.outcome else {
                return false;
            };
            let address = Read::new(offer).yiaddr();
            let taken = select(*n, address).behind(port).ask(server, now);
            assert_eq!(taken.kind(), ACK);
            true
        });
        asked.count()
    };
    assert_eq!(answered(&mut server, 0..40, greedy), 20);
    let refused = discover(60).behind(greedy).refused(&mut server, now);
    assert_eq!(refused, Drop::TooManyAddresses);
    assert_eq!(answered(&mut server, 100..140, modest), 20);
    // Who has an address keeps it, and may come back behind another port; what is given back may be asked for.
    let own = server.leases().next().expect("a lease").clone();
    let renewed = select(own.mac.0[5], own.address).behind(modest);
    assert_eq!(renewed.ask(&mut server, now).kind(), ACK);
    assert_eq!(answered(&mut server, 60..62, greedy), 0, "none is free");
    let other = server.leases().nth(1).expect("a lease").clone();
    let release = Wire::new(other.mac, RELEASE).ciaddr(other.address);
    release.server(GATEWAY).unicast().send(&mut server, now);
    assert_eq!(answered(&mut server, 60..62, greedy), 1);
}

#[test]
fn one_station_with_many_ids_does_not_get_the_pool() {
    let (mut server, now) = server(10, 99);
    for id in 0..8 {
        boot(&mut server, now, mac(1), Some(&[1, id]));
    }
    let ninth = discover(1).id(Some(&[1, 8]));
    assert_eq!(ninth.refused(&mut server, now), Drop::TooManyAddresses);
    let selecting = select(1, ip(90)).id(Some(&[1, 8]));
    assert_eq!(selecting.refused(&mut server, now), Drop::TooManyAddresses);
    assert_eq!(
        discover(1).id(Some(&[1, 3])).ask(&mut server, now).kind(),
        OFFER
    );
    assert_eq!(
        ninth.ask(&mut server, now + LEASE).kind(),
        OFFER,
        "when the others have ended"
    );
}

#[test]
fn clones_with_one_client_id_get_two_addresses() {
    let (mut server, now) = server(10, 20);
    let id = Some(&b"\xff\0\0\0\x01\0\x02clone"[..]);
    let first = boot(&mut server, now, mac(1), id);
    let second = boot(&mut server, now, mac(2), id);
    assert_ne!(first, second);
    assert_eq!(boot(&mut server, now + secs(9), mac(2), id), second);
    assert_eq!(boot(&mut server, now + secs(9), mac(1), id), first);
    assert_eq!(
        release(2, first).id(id).refused(&mut server, now),
        Drop::NoSuchLease
    );
}

#[test]
fn a_client_id_moves_to_another_station_when_its_lease_has_ended() {
    let (mut server, now) = server(10, 20);
    let id = Some(&b"\xff\0\0\0\x01\0\x02guest"[..]);
    let address = boot(&mut server, now, mac(1), id);
    release(1, address).id(id).send(&mut server, now);
    assert_eq!(boot(&mut server, now, mac(2), id), address);
    assert_ne!(boot(&mut server, now, mac(1), id), address);
}

#[test]
fn boot_stages_with_and_without_id_share_an_address() {
    let (mut server, now) = server(10, 20);
    let id = Some(&b"\xff\0\0\0\x01\0\x02guest"[..]);
    let address = boot(&mut server, now, mac(1), None);
    for stage in [id, None, id] {
        assert_eq!(boot(&mut server, now, mac(1), stage), address);
    }
    assert_eq!(server.leases().count(), 1);
}

#[test]
fn declined_addresses_rest_but_never_more_than_a_quarter() {
    let (mut server, now) = server(10, 17);
    let mut declined = Vec::new();
    for n in 1..=3 {
        let address = boot(&mut server, now + secs(n.into()), mac(n), None);
        let answer = Wire::new(mac(n), DECLINE)
            .requested(address)
            .server(GATEWAY)
            .send(&mut server, now);
        assert!(
            matches!(&answer.changes[..], [LeaseChange::Ended(lease)] if lease.state == State::Declined)
        );
        declined.push(address);
    }
    let resting: Vec<_> = server
        .leases()
        .filter(|l| l.state == State::Declined)
        .map(|l| l.address)
        .collect();
    assert_eq!(resting.len(), 2);
    let again = discover(9)
        .requested(resting[0])
        .ask(&mut server, now)
        .yiaddr();
    assert!(!resting.contains(&again));
    assert_eq!(select(8, resting[0]).ask(&mut server, now).kind(), NAK);
    assert_eq!(server.timeout(now + secs(600) + secs(9)), []);
    assert_eq!(server.leases().count(), 0);
}

#[test]
fn names_are_labels_and_the_first_keeps_one() {
    let (mut server, now) = server(10, 20);
    let named = |n: u8, address| {
        select(n, address)
            .option(12, b"Web.example.org")
            .option(55, &[12])
    };
    let first = discover(1).ask(&mut server, now).yiaddr();
    assert_eq!(
        named(1, first).ask(&mut server, now).get(12),
        Some(&b"web"[..])
    );
    let second = discover(2).ask(&mut server, now).yiaddr();
    assert_eq!(named(2, second).ask(&mut server, now).get(12), None);
    let lease = server.lease(second).unwrap();
    assert_eq!(
        (lease.host_name.as_deref(), &lease.name),
        (Some("web"), &None)
    );
    assert_eq!(server.named("web").unwrap().address, first);
    renew(1, first).ask(&mut server, now);
    assert_eq!(
        server.named("web").unwrap().address,
        first,
        "kept though the renewal did not tell it"
    );
    let answer = release(1, first).send(&mut server, now);
    assert!(matches!(&answer.changes[..], [LeaseChange::Ended(lease)] if lease.name.is_none()));
    assert_eq!(server.named("web"), None);
    renew(2, second).ask(&mut server, now);
    assert_eq!(
        server.named("web").unwrap().address,
        second,
        "free for the other when it renews"
    );
    let fqdn = discover(3)
        .option(81, b"\0\0\0mail.example.")
        .option(55, &[12])
        .ask(&mut server, now);
    assert_eq!(fqdn.get(12), Some(&b"mail"[..]));
}

#[test]
fn reservations_are_kept_and_guests_move_to_them() {
    let (mut server, now) = server(10, 12);
    server
        .register_mut()
        .reserve(Reservee::Mac(mac(1)), ip(11))
        .unwrap();
    server
        .register_mut()
        .reserve(Reservee::ClientId(b"\x01id".to_vec()), ip(50))
        .unwrap();
    server
        .register_mut()
        .reserve(Reservee::Name("Db.local".into()), ip(12))
        .unwrap();
    assert_eq!(
        discover(5).requested(ip(11)).ask(&mut server, now).yiaddr(),
        ip(10)
    );
    assert_eq!(select(6, ip(11)).ask(&mut server, now).kind(), NAK);
    assert_eq!(boot(&mut server, now, mac(5), None), ip(10));
    assert_eq!(discover(6).refused(&mut server, now), Drop::NoFreeAddress);
    assert_eq!(boot(&mut server, now, mac(1), None), ip(11));
    assert_eq!(boot(&mut server, now, mac(2), Some(b"\x01id")), ip(50));
    assert_eq!(
        discover(7).option(12, b"db").ask(&mut server, now).yiaddr(),
        ip(12)
    );
    // An address that another guest has is not kept for anybody else until that guest is gone.
    assert_eq!(
        server.register_mut().reserve(Reservee::Mac(mac(1)), ip(10)),
        Err(ReserveError::Held(ip(10).into(), mac(5), None))
    );
    assert_eq!(renew(1, ip(11)).ask(&mut server, now).kind(), ACK);
    assert_eq!(renew(5, ip(10)).ask(&mut server, now).kind(), ACK);
    assert_eq!(
        release(5, ip(10)).send(&mut server, now).outcome,
        Outcome::Noted
    );
    server
        .register_mut()
        .reserve(Reservee::Mac(mac(1)), ip(10))
        .unwrap();
    assert_eq!(
        renew(1, ip(11)).ask(&mut server, now).kind(),
        NAK,
        "its own is free"
    );
    assert_eq!(boot(&mut server, now, mac(1), None), ip(10));
    let kept = Reservee::Mac(mac(1));
    assert_eq!(server.register_mut().unreserve(ip(10)), Some(kept));
    assert_eq!(server.register_mut().unreserve(ip(10)), None);
    assert_eq!(renew(1, ip(10)).ask(&mut server, now).kind(), ACK);
    for bad in [GATEWAY, ip(0), ip(255), Ipv4Addr::new(10, 0, 0, 1)] {
        assert_eq!(
            server.register_mut().reserve(Reservee::Mac(mac(9)), bad),
            Err(ReserveError::NotAGuestAddress(bad.into()))
        );
    }
    let taken = server.register_mut().reserve(Reservee::Mac(mac(9)), ip(12));
    assert_eq!(
        taken,
        Err(ReserveError::Taken(
            ip(12).into(),
            Reservee::Name("db".into())
        ))
    );
    let name = Reservee::Name("gateway".into());
    assert_eq!(
        server.register_mut().reserve(name, ip(20)),
        Err(ReserveError::Name("gateway".into()))
    );
    assert_eq!(server.register_mut().reservations().count(), 2);
}

#[test]
fn stored_leases_come_back() {
    let (mut server, now) = server(10, 20);
    let id = Some(&b"\x01id"[..]);
    let a = boot(&mut server, now, mac(1), id);
    let b = discover(2)
        .option(12, b"web")
        .ask(&mut server, now)
        .yiaddr();
    select(2, b).option(12, b"web").ask(&mut server, now);
    let stored: Vec<Lease> = server.leases().cloned().collect();
    let (mut again, _) = self::server(10, 20);
    for lease in &stored {
        again.register_mut().restore(lease.clone()).unwrap();
    }
    assert_eq!(again.leases().cloned().collect::<Vec<_>>(), stored);
    assert_eq!(again.named("web").unwrap().address, b);
    assert_eq!(
        Wire::new(mac(1), REQUEST)
            .requested(a)
            .id(id)
            .ask(&mut again, now)
            .kind(),
        ACK
    );
    assert_eq!(again.next_deadline(), Some(now + LEASE));
    let lease = stored[0].clone();
    let address = lease.address;
    assert_eq!(
        again.register_mut().restore(lease.clone()),
        Err(RestoreError::AddressTaken(address.into()))
    );
    let elsewhere = Lease {
        address: ip(19),
        ..lease.clone()
    };
    assert_eq!(
        again.register_mut().restore(elsewhere),
        Err(RestoreError::GuestTaken(ip(19).into(), address.into()))
    );
    // Beside the pool: a guest that runs still uses it, one that has gone does not. Nobody has the gateway's.
    let stray = |address, state| Lease {
        address,
        mac: mac(9),
        client_id: None,
        state,
        ..lease.clone()
    };
    for (address, state) in [(ip(9), State::Expired), (GATEWAY, State::Bound)] {
        assert_eq!(
            again.register_mut().restore(stray(address, state)),
            Err(RestoreError::UnknownAddress(address.into()))
        );
    }
    again
        .register_mut()
        .restore(stray(ip(9), State::Bound))
        .unwrap();
    assert_eq!(
        again.register_mut().reserve(Reservee::Mac(mac(8)), ip(9)),
        Err(ReserveError::Held(ip(9).into(), mac(9), None))
    );
    assert_eq!(renew(9, ip(9)).ask(&mut again, now).kind(), NAK);
    let offer = Lease {
        state: State::Offered,
        ..lease
    };
    assert_eq!(
        again.register_mut().restore(offer),
        Err(RestoreError::NoLease(address.into()))
    );
    assert!(matches!(
        again.register_mut().forget(address),
        Some(LeaseChange::Forgotten(_))
    ));
    assert_eq!(again.register_mut().forget(address), None);
}

#[test]
fn time_ends_leases() {
    let (mut server, now) = server(10, 20);
    assert_eq!(server.next_deadline(), None);
    let address = boot(&mut server, now, mac(1), None);
    assert_eq!(server.next_deadline(), Some(now + LEASE));
    assert_eq!(server.timeout(now + LEASE - secs(1)), []);
    let changes = server.timeout(now + LEASE);
    assert!(matches!(&changes[..], [LeaseChange::Ended(lease)] if lease.state == State::Expired));
    assert_eq!(
        (server.next_deadline(), state(&server, address)),
        (None, Some(State::Expired))
    );
    // An offer of a remembered lease that is not taken leaves it as it was.
    let before = server.lease(address).cloned();
    let later = now + LEASE * 2;
    assert_eq!(discover(1).ask(&mut server, later).yiaddr(), address);
    assert_eq!(state(&server, address), Some(State::Offered));
    assert_eq!(
        discover(1).ask(&mut server, later + secs(59)).yiaddr(),
        address
    );
    assert_eq!(server.timeout(later + secs(119)), []);
    assert_eq!(server.lease(address).cloned(), before);
}

/// Found by `guests_never_collide`: a remembered lease that is offered and then declined has ended before.
#[test]
fn a_declined_offer_of_a_remembered_lease_is_forgotten_not_ended_again() {
    let (mut server, now) = server(10, 20);
    let address = boot(&mut server, now, mac(1), None);
    assert_eq!(server.timeout(now + LEASE).len(), 1);
    assert_eq!(discover(1).ask(&mut server, now + LEASE).yiaddr(), address);
    let decline = Wire::new(mac(1), DECLINE)
        .requested(address)
        .server(GATEWAY);
    let answer = decline.send(&mut server, now + LEASE);
    assert!(
        matches!(&answer.changes[..], [LeaseChange::Forgotten(lease)] if lease.address == address)
    );
    assert_eq!(state(&server, address), Some(State::Declined));
}

#[test]
fn an_empty_pool_serves_those_with_a_reservation() {
    let mut server = Server::new(config(2, 1)).unwrap();
    let now = Instant::now();
    assert_eq!(
        Wire::new(mac(1), DISCOVER).refused(&mut server, now),
        Drop::NoFreeAddress
    );
    server
        .register_mut()
        .reserve(Reservee::Mac(mac(1)), ip(77))
        .unwrap();
    assert_eq!(boot(&mut server, now, mac(1), None), ip(77));
    for (other, wanted) in [(2, None), (3, Some(ip(77))), (4, Some(ip(2)))] {
        let mut discover = Wire::new(mac(other), DISCOVER);
        if let Some(wanted) = wanted {
            discover = discover.requested(wanted);
        }
        assert_eq!(discover.refused(&mut server, now), Drop::NoFreeAddress);
    }
    // What a guest declines rests, and nothing else is there for it.
    let decline = Wire::new(mac(1), DECLINE).requested(ip(77)).server(GATEWAY);
    decline.send(&mut server, now);
    assert_eq!(
        Wire::new(mac(1), DISCOVER).refused(&mut server, now),
        Drop::NoFreeAddress
    );
    server.register_mut().unreserve(ip(77)).unwrap();
    assert_eq!(server.leases().count(), 1);
}
