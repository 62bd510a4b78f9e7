//! Guests that are apart from all others: frames, and what goes round by the host.

use std::net::{Ipv4Addr, UdpSocket};

use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::packets6::{self, Ends6};
use vmnet_lab::stage::Stage;
use vmnet_wire::ethernet::Mac;
use vmnet_wire::ip::Protocol;

use crate::guest::{
    ALL, Guest, SILENCE, SOON, holds, is_known, mac_of, reach, reach_by, say_by, stage,
};

#[test]
fn an_isolated_tap_exchanges_frames_with_the_gateway_alone() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24");
    let alone = Guest::at_tap(&stage, "lan", 1, true);
    let also_alone = Guest::at_tap(&stage, "lan", 2, true);
    let plain = Guest::at_tap(&stage, "lan", 3, false);
    let other = Guest::at_tap(&stage, "lan", 4, false);
    let by_service = Guest::at_socket(&stage, "lan", 5, false);
    // What is to be let pass passes, so what does not is kept.
    for (from, to) in [
        (&plain, &other),
        (&plain, &by_service),
        (&by_service, &other),
    ] {
        assert_eq!(
            reach(from, to, SOON),
            (true, true),
            "{} {}",
            from.mac,
            to.mac
        );
    }
    for whoever in [&also_alone, &plain, &by_service] {
        let (its, own) = (whoever.mac, alone.mac);
        assert_eq!(reach(&alone, whoever, SILENCE), (false, false), "to {its}");
        assert_eq!(
            reach(whoever, &alone, SILENCE),
            (false, false),
            "{its} to {own}"
        );
    }
    // The gateway's services answer it.
    let discover = discover(alone.mac);
    alone.send(&discover);
    let offered =
        |frame: &[u8]| packets::read_udp(frame).is_some_and(|(_, ports, _)| ports == (67, 68));
    assert!(alone.hears(SOON, offered), "an offer");
    let own = packets6::v6("fe80::5054:ff:fe00:1");
    alone.send(&packets6::router_solicitation(alone.mac, own));
    let advertised =
        |frame: &[u8]| packets6::read_icmp(frame).is_some_and(|(kind, ..)| kind == 134);
    assert!(alone.hears(SOON, advertised), "an advertisement");
    let gateway = Ipv4Addr::new(10, 77, 9, 1);
    let own = (alone.mac, Ipv4Addr::new(10, 77, 9, 200));
    alone.send(&packets::arp_request(alone.mac, own, gateway));
    assert!(
        alone.hears(SOON, |frame| frame[12..14] == [8, 6]),
        "the host"
    );
    // Those questions were for nobody else.
    let leaked = |frame: &[u8]| frame[6..12] == alone.mac.0;
    for whoever in [&also_alone, &plain, &by_service] {
        assert!(!whoever.hears(SILENCE, leaked), "{}", whoever.mac);
    }
}

/// It reaches the host, and the host it.
fn has_the_host(stage: &Stage, guest: &Guest, host: Mac) {
    let at = Ipv4Addr::new(10, 77, 9, 1);
    let service = stage.world.host().enter(|| {
        let socket = UdpSocket::bind((at, 7777)).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    });
    let ends = Ends {
        macs: (guest.mac, host),
        ips: (guest.v4(), at),
    };
    guest.send(&packets::udp(ends, (7, 7777), 64, b"knock"));
    let (length, from) = service.recv_from(&mut [0; 100]).expect("a knock");
    assert_eq!(length, 5);
    service.send_to(b"who is there?", from).unwrap();
    assert!(guest.hears(SOON, |frame| holds(frame, "who is there?")));
}

/// The host is a router, also for what comes in by a bridge and goes out by it.
#[test]
fn an_isolated_tap_does_not_reach_others_by_way_of_the_host() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24 --ipv6-prefix fd77:9::/64");
    let alone = Guest::at_tap(&stage, "lan", 1, true);
    let plain = Guest::at_tap(&stage, "lan", 2, false);
    let other = Guest::at_tap(&stage, "lan", 3, false);
    let host = mac_of(&stage, "vmnet0");
    for guest in [&alone, &plain, &other] {
        for address in [guest.v4().into(), guest.v6().into()] {
            is_known(&stage, address, guest.mac);
        }
    }
    let words = |from: &Guest, to: &Guest| format!("{} to {}", from.mac, to.mac);
    assert_eq!(
        reach_by(host, &plain, &other, SOON),
        [true; 2],
        "who is not isolated"
    );
    assert_eq!(
        reach_by(host, &other, &plain, SOON),
        [true; 2],
        "nor the other"
    );
    for (from, to) in [(&alone, &plain), (&plain, &alone)] {
        assert_eq!(
            reach_by(host, from, to, SILENCE),
            [false; 2],
            "{}",
            words(from, to)
        );
    }
    // The host takes what is for the MAC of its own end of a tap, too.
    let end = mac_of(&stage, "vmnet0-0");
    assert_eq!(
        reach_by(end, &alone, &plain, SILENCE),
        [false; 2],
        "by its tap"
    );
    has_the_host(&stage, &alone, host);
}

/// A question for an address (RFC 2131).
fn discover(mac: Mac) -> Vec<u8> {
    let mut message = vec![0_u8; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    // Answers are to be for all.
    message[10] = 0x80;
    message[28..34].copy_from_slice(&mac.0);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, 1, 255]);
    let ends = Ends {
        macs: (mac, ALL),
        ips: (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
    };
    packets::udp(ends, (68, 67), 64, &message)
}

/// The host would hand on to a guest of its bridge what comes from there with any address.
#[test]
fn an_isolated_tap_hears_no_foreign_address_by_way_of_the_host() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24 --ipv6-prefix fd77:9::/64");
    let alone = Guest::at_tap(&stage, "lan", 1, true);
    let plain = Guest::at_tap(&stage, "lan", 2, false);
    let other = Guest::at_tap(&stage, "lan", 3, false);
    let host = mac_of(&stage, "vmnet0");
    let [own, foreign, to] = ["fd77:9::102", "2001:db8::1", "fd77:9::101"].map(packets6::v6);
    is_known(&stage, to.into(), alone.mac);
    is_known(&stage, own.into(), plain.mac);
    for from in [own, foreign] {
        let ends = Ends6 {
            macs: (plain.mac, host),
            ips: (from, to),
        };
        plain.send(&packets6::udp(ends, (7, 7), b"psst"));
    }
    assert!(!alone.hears(SILENCE, |frame| holds(frame, "psst")));
    // Another guest hears both: so they were sent well.
    is_known(&stage, to.into(), other.mac);
    for from in [own, foreign] {
        let ends = Ends6 {
            macs: (plain.mac, host),
            ips: (from, to),
        };
        let word = format!("from {from}");
        plain.send(&packets6::udp(ends, (7, 7), word.as_bytes()));
        let within = if from == own { SOON } else { SILENCE };
        let heard = other.hears(within, |frame| holds(frame, &word));
        assert_eq!(heard, from == own, "{word}");
    }
}

/// One at a socket, behind the trunk, is as apart as one at a tap: from those at taps and from those beside it, isolated or not.
#[test]
fn an_isolated_socket_reaches_nobody_and_is_reached_by_nobody() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24 --ipv6-prefix fd77:9::/64");
    let alone = Guest::at_socket(&stage, "lan", 1, true);
    let beside = Guest::at_socket(&stage, "lan", 2, false);
    let also_alone = Guest::at_socket(&stage, "lan", 3, true);
    let tap = Guest::at_tap(&stage, "lan", 4, false);
    let host = mac_of(&stage, "vmnet0");
    let are_known = |guest: &Guest| {
        for address in [guest.v4().into(), guest.v6().into()] {
            is_known(&stage, address, guest.mac);
        }
    };
    [&alone, &beside, &also_alone, &tap]
        .into_iter()
        .for_each(are_known);
    for (from, to) in [(&beside, &tap), (&tap, &beside)] {
        let words = format!("{} to {}", from.mac, to.mac);
        assert_eq!(reach(from, to, SOON), (true, true), "{words}");
        assert_eq!(reach_by(host, from, to, SOON), [true; 2], "{words}");
    }
    // From an address that is not the network's, which the host would hand on as any.
    for guest in [&beside, &alone] {
        let ends = Ends6 {
            macs: (tap.mac, host),
            ips: (packets6::v6("2001:db8::1"), guest.v6()),
        };
        tap.send(&packets6::udp(ends, (7, 7), b"psst"));
    }
    assert!(!alone.hears(SILENCE, |frame| holds(frame, "psst")));
    assert!(
        !beside.hears(SILENCE, |frame| holds(frame, "psst")),
        "it cannot be told who is isolated"
    );
    let tap_alone = Guest::at_tap(&stage, "lan", 5, true);
    are_known(&tap_alone);
    let others = [&beside, &also_alone, &tap, &tap_alone];
    for other in others {
        for (from, to) in [(&alone, other), (other, &alone)] {
            let words = format!("{} to {}", from.mac, to.mac);
            from.say(ALL, &words);
            from.say(to.mac, &words);
            say_by(host, from, to);
        }
    }
    let (from_it, to_it) = (format!("{} to ", alone.mac), format!(" to {}", alone.mac));
    for other in others {
        assert!(
            !other.hears(SILENCE, |frame| holds(frame, &from_it)),
            "{}",
            other.mac
        );
    }
    assert!(!alone.hears(SILENCE, |frame| holds(frame, &to_it)));
    // Nor in pieces, which our services put together for the host.
    let ends = Ends {
        macs: (alone.mac, host),
        ips: (alone.v4(), tap.v4()),
    };
    let datagram = packets::udp(ends, (7, 7), 64, &[b'x'; 2000]);
    for piece in packets::fragments(ends, Protocol::UDP, 9, &datagram[34..], 1500) {
        alone.send(&piece);
    }
    let of_alone = |frame: &[u8]| frame[26..30] == alone.v4().octets();
    assert!(!tap.hears(SILENCE, of_alone), "in pieces");
    has_the_host(&stage, &alone, host);
}

/// What begins with an address that is not the network's is no guest's, at a port of ours as at one of the administrator's.
#[test]
fn the_host_hands_on_nothing_from_addresses_of_others() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24");
    let only_mac = Guest::at_tap_with(&stage, "lan", 2, |it| it.only_mac = Some(true));
    let plain = Guest::at_tap(&stage, "lan", 3, false);
    let to = Guest::at_tap(&stage, "lan", 4, false);
    let host = mac_of(&stage, "vmnet0");
    is_known(&stage, to.v4().into(), to.mac);
    let hands_on = |from: &Guest, source: Ipv4Addr, within| {
        let (macs, ips) = ((from.mac, host), (source, to.v4()));
        let word = format!("{source} at {}", from.mac);
        from.send(&packets::udp(
            Ends { macs, ips },
            (7, 7),
            64,
            word.as_bytes(),
        ));
        to.hears(within, |frame| holds(frame, &word))
    };
    let foreign = Ipv4Addr::new(10, 99, 9, 9);
    for from in [&only_mac, &plain] {
        assert!(hands_on(from, from.v4(), SOON), "{}", from.mac);
        assert!(!hands_on(from, foreign, SILENCE), "{}", from.mac);
    }
    let strange = Guest::at_strange_tap(&stage, "own0", 1);
    assert!(hands_on(&strange, strange.v4(), SOON));
    assert!(!hands_on(&strange, foreign, SILENCE));
}

/// Also not where it is sent to a forwarded port at the gateway's address, which the host lets in from all of its guests.
#[test]
fn a_forwarded_port_takes_nothing_from_addresses_of_others() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24 --ipv6-prefix fd77:9::/64");
    let plain = Guest::at_tap(&stage, "lan", 3, false);
    let to = Guest::at_tap(&stage, "lan", 4, false);
    stage.says("forward add lan 5300:10.77.9.104:7/udp");
    stage.says("forward add lan 5301:[fd77:9::104]:7/udp");
    let host = mac_of(&stage, "vmnet0");
    for guest in [&plain, &to] {
        is_known(&stage, guest.v4().into(), guest.mac);
        is_known(&stage, guest.v6().into(), guest.mac);
    }
    let macs = (plain.mac, host);
    let hears = |word: &str, within| to.hears(within, |frame| holds(frame, word));
    for (source, within) in [(plain.v4(), SOON), (Ipv4Addr::new(10, 99, 9, 9), SILENCE)] {
        let ips = (source, Ipv4Addr::new(10, 77, 9, 1));
        let word = format!("from {source}");
        plain.send(&packets::udp(
            Ends { macs, ips },
            (9, 5300),
            64,
            word.as_bytes(),
        ));
        assert_eq!(hears(&word, within), source == plain.v4(), "{word}");
    }
    for (source, within) in [(plain.v6(), SOON), (packets6::v6("2001:db8::1"), SILENCE)] {
        let ips = (source, packets6::v6("fd77:9::1"));
        let word = format!("from {source}");
        plain.send(&packets6::udp(
            Ends6 { macs, ips },
            (9, 5301),
            word.as_bytes(),
        ));
        assert_eq!(hears(&word, within), source == plain.v6(), "{word}");
    }
}

/// Who asks for the gateway with an address that is not the network's takes no place in the host's one table of neighbours.
#[test]
fn the_host_learns_no_neighbour_from_addresses_of_others() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24");
    let guest = Guest::at_tap(&stage, "lan", 3, false);
    for number in 1..50 {
        let own = (guest.mac, Ipv4Addr::new(10, 99, 9, number));
        guest.send(&packets::arp_request(
            guest.mac,
            own,
            Ipv4Addr::new(10, 77, 9, 1),
        ));
    }
    let own = (guest.mac, guest.v4());
    guest.send(&packets::arp_request(
        guest.mac,
        own,
        Ipv4Addr::new(10, 77, 9, 1),
    ));
    let answer = |frame: &[u8]| frame.get(12..14) == Some(&[8, 6]);
    assert!(guest.hears(SOON, answer), "the last question is answered");
    let known = stage.on_host("ip -4 neigh show dev vmnet0");
    assert!(!known.contains("10.99.9."), "{known}");
}
