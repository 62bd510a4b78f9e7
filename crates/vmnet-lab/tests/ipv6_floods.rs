//! One guest sends all that it can of IPv6, or lies: the others go on.

use std::net::Ipv6Addr;
use std::time::Duration;

use vmnet_core::{Drop, PortId};
use vmnet_lab::sim::packets;
use vmnet_lab::sim::packets6::{self, Ends6, v6};
use vmnet_lab::sim::{Guest, Lan, Server, Talk};
use vmnet_wire::ethernet::{EtherType, Mac};
use vmnet_wire::icmpv6;
use vmnet_wire::ip::Protocol;
use vmnet_wire::ipv6::FragmentHeader;
use vmnet_wire::ndp::{self, Neighbour, RouterHead};
use zerocopy::IntoBytes;

const SECOND: Duration = Duration::from_secs(1);
const SERVER: &str = "[2001:db8::1]:80";
const FLOOD: u32 = 3000;

fn at(number: u32) -> Ipv6Addr {
    let [high, low] = [number >> 16, number & 0xffff].map(|half| u16::try_from(half).unwrap());
    Ipv6Addr::new(0xfd00, 0, 0, 0x64, 0, 0, high, low)
}

/// A MAC out of many.
fn mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([2, 9, a, b, c, d])
}

/// What a flooder sends for its `number`th frame.
fn flood(kind: &str, own: Mac, number: u32) -> Vec<u8> {
    let all = v6("ff02::1");
    match kind {
        "solicitations" => packets6::solicitation(own, at(0x10_0000 + number), at(1)),
        "solicitations of many stations" => {
            packets6::solicitation(mac(number), at(0x10_0000 + number), at(1))
        }
        "advertisements" => packets6::advertisement(own, at(0x10_0000 + number), own),
        "probes" => packets6::probe(own, at(0x10_0000 + number)),
        "router solicitations" => {
            let source = if number.is_multiple_of(2) {
                ndp::link_local(own)
            } else {
                Ipv6Addr::UNSPECIFIED
            };
            packets6::router_solicitation(own, source)
        }
        "router advertisements" => {
            let ends = Ends6::to_group(own, ndp::link_local(own), all);
            let head = RouterHead::new(64, 1800, false, false);
            packets6::icmp(ends, 255, head.as_bytes().to_vec())
        }
        "listener reports" => {
            // MLDv2 behind a router alert (RFC 3810 §5): so many groups that nobody can remember.
            let ends = Ends6::to_group(own, ndp::link_local(own), v6("ff02::16"));
            let group = Ipv6Addr::from_bits(0xff02 << 112 | u128::from(number));
            let report = [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &group.octets()].concat();
            let alert = [58, 0, 5, 2, 0, 0, 1, 0];
            let packet = [&alert[..], &packets6::summed(ends, report)].concat();
            packets6::ip(ends, Protocol::HOP_BY_HOP, 1, &packet)
        }
        "fragments" => {
            let ends = Ends6 {
                macs: (own, Mac([0x52, 0x55, 0, 0, 0, 1])),
                ips: (at(66), v6("2001:db8::1")),
            };
            let head = FragmentHeader::new(Protocol::UDP, number, 0, true);
            packets6::ip(
                ends,
                Protocol::FRAGMENT,
                64,
                &[head.as_bytes(), &[0; 8]].concat(),
            )
        }
        other => panic!("{other}"),
    }
}

/// A guest transfers and is answered while another floods.
fn goes_on(kind: &str) -> Lan {
    let mut lan = Lan::dual(|_| {});
    let port = lan.add_autonomous(2);
    let flooder = lan.plug(Guest::raw(66, lan.start, 1500));
    let own = lan.guest(flooder).mac;
    lan.guest(flooder).listening = false;
    lan.internet.serve(SERVER, Server::Echo);
    let handle = lan
        .guest(port)
        .connect6(SERVER.parse().unwrap(), 40_000, 64 << 10);
    let mut talk = Talk::new(port, handle, 200_000);
    for number in 0..FLOOD {
        lan.guest(flooder).inject(flood(kind, own, number));
        if number % 100 == 0 {
            talk.step(&mut lan);
            lan.run_for(Duration::from_micros(100));
        }
    }
    assert!(
        lan.run_until(30 * SECOND, |lan| talk.is_over(lan)),
        "{kind}"
    );
    assert_eq!(talk.read.len(), 200_000, "{kind}");
    // Who comes now finds everything.
    let late = lan.add_autonomous(3);
    let handle = lan
        .guest(late)
        .connect6(SERVER.parse().unwrap(), 40_000, 4096);
    let mut talk = Talk::new(late, handle, 100);
    assert!(lan.run_until(5 * SECOND, |lan| talk.is_over(lan)), "{kind}");
    let known = lan.guest(late).address6();
    assert_eq!(lan.network.address6_of(lan.now, late), known, "{kind}");
    lan
}

#[test]
fn others_go_on_while_one_floods() {
    for kind in [
        "solicitations",
        "advertisements",
        "probes",
        "listener reports",
    ] {
        goes_on(kind);
    }
    let lan = goes_on("solicitations of many stations");
    assert!(lan.network.drops().of(Drop::MacTableFull) > 0);
    let lan = goes_on("router advertisements");
    assert_eq!(
        lan.network.drops().of(Drop::RouterAdvertisement),
        u64::from(FLOOD)
    );
}

#[test]
fn a_flood_for_routers_is_answered_in_bounds() {
    let mut lan = goes_on("router solicitations");
    let flooder = *lan.ports.keys().nth(1).unwrap();
    // A burst of answers, and one to all every three seconds.
    assert!(
        lan.wire(flooder).frames < 400,
        "{}",
        lan.wire(flooder).frames
    );
}

#[test]
fn fragments_of_others_are_put_together_during_a_flood() {
    let mut lan = Lan::dual(|_| {});
    let flooder = lan.plug(Guest::raw(66, lan.start, 1500));
    let other = lan.plug(Guest::raw(9, lan.start, 1500));
    let gateway = lan.network.gateway_mac();
    let own = lan.guest(flooder).mac;
    let ends = Ends6 {
        macs: (lan.guest(other).mac, gateway),
        ips: (at(9), v6("2001:db8::1")),
    };
    let datagram = packets6::datagram(ends, (5, 7), &[3; 4000]);
    let mut pieces = packets6::fragments(ends, Protocol::UDP, 1, &datagram, 1500);
    let last = pieces.pop().unwrap();
    for piece in pieces {
        lan.inject(other, piece);
    }
    for number in 0..500 {
        lan.inject(flooder, flood("fragments", own, number));
    }
    lan.inject(other, last);
    assert_eq!(lan.internet.sent.last().unwrap().payload, [3; 4000]);
    // Overlapping ones are nobody's.
    let overlap = |at: usize, more: bool| {
        let head = FragmentHeader::new(Protocol::UDP, 77, at, more);
        let piece = [head.as_bytes(), &[0; 64]].concat();
        packets6::ip(ends, Protocol::FRAGMENT, 64, &piece)
    };
    lan.inject(other, overlap(0, true));
    lan.inject(other, overlap(32, false));
    assert_eq!(lan.network.drops().of(Drop::Fragment), 1);
}

/// What came to a guest, but for what the gateway advertises.
fn heard(lan: &mut Lan, port: PortId) -> usize {
    let frames = lan.heard(port);
    let router = |frame: &Vec<u8>| {
        packets6::read_icmp(frame).is_some_and(|(kind, ..)| kind == icmpv6::ROUTER_ADVERTISEMENT)
    };
    frames.iter().filter(|frame| !router(frame)).count()
}

#[test]
fn the_switch_keeps_lies_to_itself() {
    let mut lan = Lan::dual(|_| {});
    let liar = lan.plug(Guest::raw(66, lan.start, 1500));
    let victim = lan.plug(Guest::raw(9, lan.start, 1500));
    let (own, of_victim) = (lan.guest(liar).mac, lan.guest(victim).mac);
    lan.run_for(SECOND);
    heard(&mut lan, victim);
    let gateway = lan.gateway6();
    let link_local = ndp::link_local(own);
    let one = Ends6 {
        macs: (own, of_victim),
        ips: (link_local, at(9)),
    };
    let head = RouterHead::new(64, 1800, false, false);
    let redirect = [&[icmpv6::REDIRECT, 0, 0, 0][..], &[0; 36]].concat();
    let hidden = FragmentHeader::new(Protocol::DESTINATION_OPTIONS, 1, 0, true);
    let hidden = [hidden.as_bytes(), &[58, 0, 1, 4, 0, 0, 0, 0]].concat();
    let spoofed = Ends6 {
        ips: (gateway, at(9)),
        ..one
    };
    for (frame, cause) in [
        (
            packets6::icmp(one, 255, head.as_bytes().to_vec()),
            Drop::RouterAdvertisement,
        ),
        (packets6::icmp(one, 255, redirect), Drop::Redirect),
        (packets6::udp(one, (547, 546), b"x"), Drop::Dhcp6Server),
        (
            packets6::ip(one, Protocol::FRAGMENT, 64, &hidden),
            Drop::HiddenHeaders,
        ),
        (packets6::udp(spoofed, (1, 2), b"x"), Drop::Spoofed),
        (packets6::advertisement(own, gateway, own), Drop::Spoofed),
    ] {
        let before = lan.network.drops().of(cause);
        lan.inject(liar, frame);
        assert_eq!(lan.network.drops().of(cause), before + 1, "{cause:?}");
        assert_eq!(heard(&mut lan, victim), 0, "{cause:?}");
    }
    // What is honest passes, multicast too.
    let group = Ends6::to_group(own, link_local, v6("ff02::fb"));
    for frame in [
        packets6::udp(one, (1, 2), b"x"),
        packets6::udp(group, (5353, 5353), b"x"),
        packets6::advertisement(own, link_local, own),
    ] {
        lan.inject(liar, frame);
        assert_eq!(heard(&mut lan, victim), 1);
    }
}

/// What makes another network of a shared one.
type Change = fn(&mut vmnet_core::Config);

#[test]
fn nobody_is_a_router_where_the_gateway_serves_guests() {
    let router = Guest::raw(66, std::time::Instant::now(), 1500).mac;
    let one = Ends6::to_group(router, ndp::link_local(router), v6("ff02::1"));
    let head = RouterHead::new(64, 1800, false, false);
    let redirect = [&[icmpv6::REDIRECT, 0, 0, 0][..], &[0; 36]].concat();
    let frames = [
        (
            packets6::icmp(one, 255, head.as_bytes().to_vec()),
            Drop::RouterAdvertisement,
        ),
        (packets6::icmp(one, 255, redirect), Drop::Redirect),
        (packets6::udp(one, (547, 546), b"x"), Drop::Dhcp6Server),
    ];
    let networks: [(&str, bool, Change); 4] = [
        ("shared", true, |_| {}),
        ("host", true, |config| config.nat44 = false),
        ("shared without DHCP", true, |config| config.dhcp = None),
        // Guests are among themselves with theirs.
        ("private", false, |config| {
            (config.dhcp, config.nat44) = (None, false);
        }),
    ];
    for (name, guarded, change) in networks {
        let mut lan = Lan::new(1500, change);
        let liar = lan.plug(Guest::raw(66, lan.start, 1500));
        let victim = lan.plug(Guest::raw(9, lan.start, 1500));
        for (frame, cause) in &frames {
            lan.inject(liar, frame.clone());
            let (came, refused) = (lan.heard(victim).len(), lan.network.drops().of(*cause));
            let expected = if guarded { (0, 1) } else { (1, 0) };
            assert_eq!((came, refused), expected, "{name}: {cause:?}");
        }
        // What is honest passes.
        lan.inject(liar, packets6::udp(one, (5353, 5353), b"x"));
        assert_eq!(lan.heard(victim).len(), 1, "{name}");
    }
}

#[test]
fn nothing_hides_behind_an_llc_header() {
    let mut lan = Lan::dual(|_| {});
    let liar = lan.plug(Guest::raw(66, lan.start, 1500));
    let victim = lan.plug(Guest::raw(9, lan.start, 1500));
    let own = lan.guest(liar).mac;
    lan.run_for(SECOND);
    heard(&mut lan, victim);
    let ends = Ends6::to_group(own, ndp::link_local(own), v6("ff02::1"));
    let head = RouterHead::new(64, 1800, false, false);
    let packet = packets6::icmp(ends, 255, head.as_bytes().to_vec())[14..].to_vec();
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd][..], &packet].concat();
    let length = u16::try_from(snap.len()).unwrap();
    let tagged = [&[0, 0][..], &length.to_be_bytes(), &snap].concat();
    for (kind, payload) in [(length, snap), (0x8100, tagged)] {
        let before = lan.network.drops().of(Drop::RouterAdvertisement);
        lan.inject(liar, packets::frame(ends.macs, EtherType(kind), &payload));
        let after = lan.network.drops().of(Drop::RouterAdvertisement);
        assert_eq!((after, heard(&mut lan, victim)), (before + 1, 0), "{kind}");
    }
    // Other protocols of 802.2 pass: spanning tree.
    let bpdu = [&[0x42, 0x42, 3][..], &[0; 35]].concat();
    lan.inject(liar, packets::frame(ends.macs, EtherType(38), &bpdu));
    assert_eq!(heard(&mut lan, victim), 1);
}

#[test]
fn what_the_gateway_cannot_take_of_a_group_others_still_hear() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = lan.plug(Guest::raw(66, lan.start, 1500));
    let other = lan.plug(Guest::raw(9, lan.start, 1500));
    let own = lan.guest(port).mac;
    let foreign = Ends6::to_group(own, v6("2001:db8::66"), v6("ff02::1"));
    let local = Ends6::to_group(own, ndp::link_local(own), v6("ff02::1"));
    // An option that nobody knows, and that is to be passed over by none (RFC 8200 §4.2).
    let option = [17, 0, 0x80, 4, 0, 0, 0, 0];
    let odd = [&option[..], &packets6::datagram(local, (1, 2), b"x")].concat();
    for (what, frame) in [
        ("foreign", packets6::udp(foreign, (1, 2), b"x")),
        (
            "odd",
            packets6::ip(local, Protocol::DESTINATION_OPTIONS, 64, &odd),
        ),
    ] {
        lan.inject(port, frame);
        assert_eq!(lan.heard(other).len(), 1, "{what}");
    }
}

#[test]
fn an_isolated_guest_does_not_take_anothers_address() {
    let mut lan = Lan::dual(|config| config.isolation = true);
    let victim = lan.plug(Guest::raw(9, lan.start, 1500));
    let liar = lan.plug(Guest::raw(66, lan.start, 1500));
    let (of_victim, own) = (lan.guest(victim).mac, lan.guest(liar).mac);
    let gateway = lan.gateway6();
    lan.inject(victim, packets6::solicitation(of_victim, at(9), gateway));
    let ends = Ends6 {
        macs: (own, lan.network.gateway_mac()),
        ips: (at(9), v6("2001:db8::1")),
    };
    let told = Neighbour::advertisement(ndp::OVERRIDE, at(9), own);
    let to_gateway = Ends6 {
        ips: (at(66), gateway),
        ..ends
    };
    for frame in [
        packets6::udp(ends, (5, 7), b"x"),
        packets6::solicitation(own, at(9), gateway),
        packets6::advertisement(own, at(9), own),
        packets6::icmp(to_gateway, 255, told.as_bytes().to_vec()),
    ] {
        let before = lan.network.drops().of(Drop::Spoofed);
        lan.inject(liar, frame);
        assert_eq!(lan.network.drops().of(Drop::Spoofed), before + 1);
    }
    assert!(lan.internet.sent.is_empty());
    assert_eq!(lan.network.address6_of(lan.now, victim), Some(at(9)));
    // A guest that comes back with another card gets its address when the old one is gone.
    lan.unplug(victim);
    lan.inject(liar, packets6::solicitation(own, at(9), gateway));
    assert_eq!(lan.network.address6_of(lan.now, liar), Some(at(9)));
}
