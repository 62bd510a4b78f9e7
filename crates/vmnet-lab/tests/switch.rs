//! The switch: learning, moves, ageing, spoofing.

use std::time::Duration;

use vmnet_core::{Drop, Port, PortId};
use vmnet_lab::sim::apps::is_pattern;
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::{Guest, Lan, Talk};
use vmnet_wire::ethernet::{EtherType, Mac};
use vmnet_wire::ip::Protocol;

const TEST: EtherType = EtherType(0x88b5);

fn three() -> (Lan, [PortId; 3], [Mac; 3]) {
    let mut lan = Lan::default();
    let ports = [1u8, 2, 3].map(|number| {
        let guest = Guest::raw(number, lan.start, 1500);
        lan.plug(guest)
    });
    let macs = ports.map(|port| lan.guest(port).mac);
    (lan, ports, macs)
}

fn hears(lan: &mut Lan, ports: &[PortId; 3]) -> [usize; 3] {
    ports.map(|port| lan.heard(port).len())
}

#[test]
fn what_is_learned_is_not_flooded() {
    let (mut lan, ports, macs) = three();
    lan.inject(
        ports[0],
        packets::frame((macs[0], macs[1]), TEST, b"who knows"),
    );
    assert_eq!(hears(&mut lan, &ports), [0, 1, 1], "unknown: to all others");
    lan.inject(ports[1], packets::frame((macs[1], macs[0]), TEST, b"here"));
    assert_eq!(hears(&mut lan, &ports), [1, 0, 0]);
    lan.inject(
        ports[0],
        packets::frame((macs[0], macs[1]), TEST, b"thanks"),
    );
    assert_eq!(hears(&mut lan, &ports), [0, 1, 0]);
    for group in [Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 0xfb])] {
        lan.inject(ports[0], packets::frame((macs[0], group), TEST, b"all"));
        assert_eq!(hears(&mut lan, &ports), [0, 1, 1]);
    }
}

#[test]
fn a_mac_moves_and_ages() {
    let (mut lan, ports, macs) = three();
    lan.inject(ports[1], packets::frame((macs[1], macs[0]), TEST, b""));
    lan.inject(ports[2], packets::frame((macs[1], macs[0]), TEST, b"moved"));
    hears(&mut lan, &ports);
    lan.inject(ports[0], packets::frame((macs[0], macs[1]), TEST, b""));
    assert_eq!(hears(&mut lan, &ports), [0, 0, 1]);
    lan.run_for(Duration::from_secs(299));
    lan.inject(ports[0], packets::frame((macs[0], macs[1]), TEST, b""));
    assert_eq!(hears(&mut lan, &ports), [0, 0, 1]);
    lan.run_for(Duration::from_secs(2));
    lan.inject(ports[0], packets::frame((macs[0], macs[1]), TEST, b""));
    assert_eq!(
        hears(&mut lan, &ports),
        [0, 1, 1],
        "forgotten after five minutes"
    );
}

#[test]
fn a_gone_port_is_forgotten() {
    let (mut lan, ports, macs) = three();
    lan.inject(ports[1], packets::frame((macs[1], macs[0]), TEST, b""));
    let guest = lan.unplug(ports[1]);
    lan.heard(ports[2]);
    lan.inject(ports[0], packets::frame((macs[0], guest.mac), TEST, b""));
    assert_eq!(lan.heard(ports[2]).len(), 1);
}

#[test]
fn nobody_speaks_for_the_gateway() {
    let (mut lan, ports, macs) = three();
    let (gateway, gateway_mac) = (lan.gateway(), lan.network.gateway_mac());
    let theirs = [192, 168, 64, 2].into();
    let lies = [
        packets::frame((gateway_mac, macs[1]), TEST, b"its MAC"),
        packets::arp_request(macs[0], (macs[0], gateway), theirs),
        packets::arp_request(macs[0], (gateway_mac, theirs), theirs),
        packets::ip(
            Ends {
                macs: (macs[0], macs[1]),
                ips: (gateway, theirs),
            },
            Protocol(253),
            9,
            b"",
        ),
        packets::udp(
            Ends {
                macs: (macs[0], Mac::BROADCAST),
                ips: (gateway, theirs),
            },
            (67, 68),
            9,
            b"",
        ),
        packets::udp(
            Ends {
                macs: (macs[0], gateway_mac),
                ips: (gateway, theirs),
            },
            (67, 68),
            9,
            b"",
        ),
    ];
    for (count, lie) in lies.into_iter().enumerate() {
        lan.inject(ports[0], lie);
        assert_eq!(hears(&mut lan, &ports), [0, 0, 0], "lie {count}");
        assert_eq!(lan.network.drops().of(Drop::Spoofed), count as u64 + 1);
    }
}

#[test]
fn a_fixed_mac_is_kept_and_group_sources_are_refused() {
    let mut lan = Lan::default();
    let guest = Guest::raw(1, lan.start, 1500);
    let mac = guest.mac;
    let mut port = Port::new(256);
    port.mac = Some(mac);
    let port = lan.plug_into(guest, port);
    let other = lan.add_raw(2);
    for (source, count) in [
        (mac, 1),
        (Mac([2; 6]), 0),
        (Mac::BROADCAST, 0),
        (Mac::ZERO, 0),
    ] {
        lan.inject(port, packets::frame((source, Mac::BROADCAST), TEST, b""));
        assert_eq!(lan.heard(other).len(), count, "{source}");
    }
    let drops = lan.network.drops();
    assert_eq!((drops.of(Drop::Spoofed), drops.of(Drop::SourceMac)), (1, 2));
}

#[test]
fn a_foreign_source_address_does_not_leave() {
    let mut lan = Lan::default();
    let port = lan.add_raw(9);
    let mac = lan.guest(port).mac;
    for source in [
        [10, 9, 9, 9],
        [192, 168, 64, 255],
        [192, 168, 64, 0],
        [0, 0, 0, 0],
        [127, 0, 0, 1],
    ] {
        let ends = Ends {
            macs: (mac, lan.network.gateway_mac()),
            ips: (source.into(), [10, 0, 0, 1].into()),
        };
        lan.inject(port, packets::udp(ends, (1, 2), 9, b"x"));
    }
    assert_eq!(lan.network.drops().of(Drop::ForeignSource), 5);
    assert!(lan.internet.sent.is_empty() && lan.network.flows() == 0);
}

#[test]
fn two_guests_talk_directly() {
    let mut lan = Lan::default();
    let (first, second) = (lan.add_guest(2), lan.add_guest(3));
    let third = lan.add_raw(4);
    let server = lan.guest(second).listen(80, 64 << 10);
    let client = lan
        .guest(first)
        .connect(Lan::v4("192.168.64.3:80"), 50_000, 64 << 10);
    let mut served = Talk::new(second, server, 100_000);
    served.close_last = true;
    let mut asked = Talk::new(first, client, 100_000);
    assert!(
        lan.run_until(Duration::from_secs(20), |lan| served.is_over(lan)
            & asked.is_over(lan))
    );
    for read in [&served.read, &asked.read] {
        assert!(read.len() == 100_000 && is_pattern(read));
    }
    assert_eq!(lan.network.flows(), 0);
    let heard = lan.heard(third);
    assert!(
        heard.iter().all(|frame| frame[..6] == [0xff; 6]),
        "only ARP goes to all"
    );
}
