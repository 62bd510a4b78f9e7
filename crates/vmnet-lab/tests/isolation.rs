//! Isolated ports: the gateway and the outside, and nobody else.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::socket::tcp::State;
use vmnet_core::{Drop, Forward, ForwardGuest, ForwardProtocol, Port, PortId};
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::{Guest, Lan, Server, Talk};
use vmnet_wire::ethernet::{EtherType, Mac};

const SECOND: Duration = Duration::from_secs(1);
const TEST: EtherType = EtherType(0x88b5);

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 64, last)
}

/// Raw guests 1 to `N`, isolated or not, which have all introduced themselves.
fn raw<const N: usize>(lan: &mut Lan, isolated: [bool; N]) -> ([PortId; N], [Mac; N]) {
    let mut number = 0;
    let ports = isolated.map(|isolated| {
        number += 1;
        let guest = Guest::raw(number, lan.start, 1500);
        let mac = guest.mac;
        let mut port = Port::new(256);
        port.isolated = isolated;
        let port = lan.plug_into(guest, port);
        let hello = packets::arp_request(mac, (mac, at(number + 1)), at(1));
        lan.inject(port, hello);
        port
    });
    let macs = ports.map(|port| lan.guest(port).mac);
    hears(lan, &ports);
    (ports, macs)
}

fn hears<const N: usize>(lan: &mut Lan, ports: &[PortId; N]) -> [usize; N] {
    ports.map(|port| lan.heard(port).len())
}

fn kept(lan: &Lan) -> u64 {
    lan.network.drops().of(Drop::Isolated)
}

#[test]
fn nothing_passes_between_an_isolated_port_and_another() {
    let mut lan = Lan::default();
    let (ports, macs) = raw(&mut lan, [true, true, false, false]);
    let isolated = [0, 1, 2, 3].map(|index: usize| lan.network.is_isolated(ports[index]));
    assert_eq!(isolated, [true, true, false, false]);
    assert_eq!(kept(&lan), 0, "what the gateway took was not lost");
    let unknown = Mac([2, 9, 9, 9, 9, 9]);
    let group = Mac([1, 0, 0x5e, 0, 0, 0xfb]);
    for (from, to, heard, lost) in [
        (0, macs[1], [0, 0, 0, 0], 1),
        (0, macs[2], [0, 0, 0, 0], 1),
        (2, macs[0], [0, 0, 0, 0], 1),
        (2, macs[3], [0, 0, 0, 1], 0),
        (0, unknown, [0, 0, 0, 0], 1),
        (2, unknown, [0, 0, 0, 1], 0),
        (0, group, [0, 0, 0, 0], 1),
        (3, group, [0, 0, 1, 0], 0),
        (1, Mac::BROADCAST, [0, 0, 0, 0], 1),
        (2, Mac::BROADCAST, [0, 0, 0, 1], 0),
    ] {
        let before = kept(&lan);
        lan.inject(ports[from], packets::frame((macs[from], to), TEST, b"psst"));
        assert_eq!(hears(&mut lan, &ports), heard, "{from} to {to}");
        assert_eq!(kept(&lan) - before, lost, "{from} to {to}");
    }
    // The gateway passes nothing on in their place.
    let ends = Ends {
        macs: (macs[0], lan.network.gateway_mac()),
        ips: (at(2), at(3)),
    };
    lan.inject(ports[0], packets::udp(ends, (1, 2), 64, b"psst"));
    assert_eq!(hears(&mut lan, &ports), [0; 4]);
    // Nor does anybody answer for them.
    lan.inject(
        ports[0],
        packets::arp_request(macs[0], (macs[0], at(2)), at(3)),
    );
    assert_eq!(hears(&mut lan, &ports), [0; 4]);
}

#[test]
fn a_whole_network_of_isolated_ports() {
    let mut lan = Lan::new(1500, |config| config.isolation = true);
    let (ports, macs) = raw(&mut lan, [false, false]);
    assert!(ports.iter().all(|port| lan.network.is_isolated(*port)));
    for to in [macs[1], Mac::BROADCAST] {
        lan.inject(ports[0], packets::frame((macs[0], to), TEST, b"psst"));
    }
    assert_eq!(hears(&mut lan, &ports), [0, 0]);
    assert_eq!(kept(&lan), 2);
}

#[test]
fn an_isolated_guest_has_the_gateway_and_the_outside() {
    let mut lan = Lan::default();
    lan.internet.serve("10.0.0.1:80", Server::Echo);
    lan.network.set_outside(Some([10, 0, 0, 99].into()));
    let add = |lan: &mut Lan, number: u8, name: &str, isolated: bool| {
        let mut guest = Guest::new(number, lan.start, 1500);
        guest.start_dhcp();
        let mut port = Port::new(256);
        (port.name, port.isolated) = (Some(name.to_owned()), isolated);
        let port = lan.plug_into(guest, port);
        assert!(lan.run_until(5 * SECOND, |lan| lan.guest(port).lease.is_some()));
        port
    };
    let alone = add(&mut lan, 2, "alone", true);
    let hermit = add(&mut lan, 3, "hermit", true);
    let plain = add(&mut lan, 4, "plain", false);
    for port in [alone, hermit, plain] {
        let handle = lan
            .guest(port)
            .connect(Lan::v4("10.0.0.1:80"), 50_000, 4096);
        let mut talk = Talk::new(port, handle, 1000);
        assert!(lan.run_until(5 * SECOND, |lan| talk.is_over(lan)));
        assert_eq!(talk.read.len(), 1000);
    }
    // They cannot reach each other, in any combination.
    for (from, to) in [(alone, hermit), (alone, plain), (plain, alone)] {
        let address = lan.address_of(to).unwrap();
        let served = lan.guest(to).listen(80, 4096);
        let handle = lan
            .guest(from)
            .connect(Lan::v4(&format!("{address}:80")), 50_001, 4096);
        let talk = Talk::new(from, handle, 0);
        let reached = lan.run_until(5 * SECOND, |lan| talk.state(lan) == State::Established);
        assert!(!reached);
        lan.guest(from).tcp(handle).abort();
        lan.guest(to).tcp(served).abort();
    }
    assert!(kept(&lan) > 0);
    // Names are known all the same, also of and to those that cannot be reached.
    let (raws, macs) = raw(&mut lan, [true]);
    let ends = Ends {
        macs: (macs[0], lan.network.gateway_mac()),
        ips: (at(2), lan.gateway()),
    };
    for (name, of) in [("hermit", hermit), ("plain", plain)] {
        let question = packets::dns_question(7, &format!("{name}.vmnet.internal"));
        lan.inject(raws[0], packets::udp(ends, (5353, 53), 64, &question));
        let heard = lan.heard(raws[0]);
        let answer = heard.iter().find_map(|frame| packets::read_udp(frame));
        let (_, _, answer) = answer.expect("an answer");
        assert_eq!(packets::dns_address(&answer), lan.address_of(of));
    }
    // A forwarded port leads to one, from outside and from another by the gateway's address.
    let (rule, _) = lan.forward(Forward {
        protocol: ForwardProtocol::Tcp,
        listen: "0.0.0.0:8080".parse().unwrap(),
        guest: ForwardGuest::Port(hermit),
        guest_port: 80,
    });
    let served = lan.guest(hermit).listen(80, 4096);
    let client = "203.0.113.9:7000".parse().unwrap();
    lan.dial(rule, client, Server::Manual).expect("served");
    let talk = Talk::new(hermit, served, 0);
    assert!(lan.run_until(SECOND, |lan| talk.state(lan) == State::Established));
    let served = lan.guest(hermit).listen(80, 4096);
    lan.guest(alone)
        .connect(Lan::v4("192.168.64.1:8080"), 50_002, 4096);
    let talk = Talk::new(hermit, served, 0);
    assert!(lan.run_until(SECOND, |lan| talk.state(lan) == State::Established));
}

/// Who has no lease has an address all the same, as long as it is heard.
#[test]
fn an_isolated_guest_takes_nobodys_address() {
    let mut lan = Lan::default();
    let echo = vmnet_lab::sim::UdpHost::Echo;
    lan.internet.serve_udp("10.0.0.1:7", echo);
    let (ports, macs) = raw(&mut lan, [true, true, false]);
    let gateway = lan.network.gateway_mac();
    let spoofed = |lan: &Lan| lan.network.drops().of(Drop::Spoofed);
    for (thief, victim) in [(0, 1), (1, 0), (2, 0), (0, 2)] {
        let address = at(2 + u8::try_from(victim).unwrap());
        let before = spoofed(&lan);
        let ends = Ends {
            macs: (macs[thief], gateway),
            ips: (address, [10, 0, 0, 1].into()),
        };
        lan.inject(ports[thief], packets::udp(ends, (5000, 7), 64, b"mine"));
        let claim = packets::arp_request(macs[thief], (macs[thief], address), at(1));
        lan.inject(ports[thief], claim);
        assert_eq!(spoofed(&lan), before + 2, "{thief} as {victim}");
    }
    assert!(lan.internet.sent.is_empty());
    // Each has its own, and a guest that was not heard for long has none.
    let ends = Ends {
        macs: (macs[0], gateway),
        ips: (at(2), [10, 0, 0, 1].into()),
    };
    lan.inject(ports[0], packets::udp(ends, (5000, 7), 64, b"mine"));
    lan.run_for(SECOND);
    assert_eq!(lan.internet.sent.len(), 1);
    lan.run_for(400 * SECOND);
    let ends = Ends {
        macs: (macs[1], gateway),
        ..ends
    };
    lan.inject(ports[1], packets::udp(ends, (5001, 7), 64, b"mine"));
    lan.run_for(SECOND);
    assert_eq!(lan.internet.sent.len(), 2);
}

#[test]
fn an_isolated_guest_takes_nobodys_place() {
    let mut lan = Lan::default();
    lan.internet
        .serve_udp("10.0.0.1:7", vmnet_lab::sim::UdpHost::Echo);
    let (ports, macs) = raw(&mut lan, [true, false, true]);
    let gateway_mac = lan.network.gateway_mac();
    let spoofed = |lan: &Lan| lan.network.drops().of(Drop::Spoofed);
    // Neither an isolated one that of a plain one, nor the other way round; and what was learned stays.
    for (thief, victim) in [(0, 1), (1, 0), (2, 0)] {
        let before = spoofed(&lan);
        let ends = Ends {
            macs: (macs[victim], gateway_mac),
            ips: (at(2), [10, 0, 0, 1].into()),
        };
        lan.inject(ports[thief], packets::udp(ends, (5000, 7), 64, b"mine"));
        assert_eq!(spoofed(&lan), before + 1);
        let macs: Vec<Mac> = lan.network.macs_behind(ports[victim]).collect();
        assert_eq!(macs, [ends.macs.0]);
    }
    assert!(lan.internet.sent.is_empty());
    // Its owner may say where a MAC belongs, and then it does.
    let mut port = Port::new(256);
    (port.isolated, port.mac) = (true, Some(macs[0]));
    let given = lan.plug_into(Guest::raw(1, lan.start, 1500), port);
    lan.inject(given, packets::frame((macs[0], gateway_mac), TEST, b""));
    assert_eq!(
        lan.network.macs_behind(given).collect::<Vec<_>>(),
        [macs[0]]
    );
}

#[test]
fn an_isolated_guest_does_not_speak_from_the_address_of_another() {
    let mut lan = Lan::default();
    lan.internet
        .serve_udp("10.0.0.1:7", vmnet_lab::sim::UdpHost::Echo);
    let mut guest = Guest::new(7, lan.start, 1500);
    guest.start_dhcp();
    let leased = lan.plug(guest);
    assert!(lan.run_until(5 * SECOND, |lan| lan.guest(leased).lease.is_some()));
    let address = lan.address_of(leased).unwrap();
    let (ports, macs) = raw(&mut lan, [true]);
    let lies = [
        packets::arp_request(macs[0], (macs[0], address), at(1)),
        packets::udp(
            Ends {
                macs: (macs[0], lan.network.gateway_mac()),
                ips: (address, [10, 0, 0, 1].into()),
            },
            (5000, 7),
            64,
            b"mine",
        ),
    ];
    for lie in lies {
        let before = lan.network.drops().of(Drop::Spoofed);
        lan.inject(ports[0], lie);
        assert_eq!(lan.network.drops().of(Drop::Spoofed), before + 1);
    }
    assert!(hears(&mut lan, &ports) == [0] && lan.internet.sent.is_empty());
}
