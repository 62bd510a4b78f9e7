//! A network whose gateway is the host: the core has the switch and the gateway's services, and everything else goes to the
//! host behind the trunk.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use vmnet_core::{Config, Drop, Port, PortId};
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::packets6::{self, Ends6};
use vmnet_lab::sim::{Guest, Lan};
use vmnet_wire::arp;
use vmnet_wire::ethernet::{EtherType, Header, Mac};
use vmnet_wire::ip::Protocol;
use vmnet_wire::tcp::{Fields, Flags};
use vmnet_wire::{ipv6, ndp};
use zerocopy::{FromBytes, IntoBytes};

const HOST: Mac = Mac([0x5a, 0x94, 192, 168, 64, 1]);
const SECOND: Duration = Duration::from_secs(1);

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 64, last)
}

/// A network and its trunk.
fn network(change: impl FnOnce(&mut Config)) -> (Lan, PortId) {
    let mut lan = Lan::dual(|config| {
        config.host = Some(HOST);
        change(config);
    });
    let mut port = Port::new(4096);
    port.role = vmnet_core::Role::Trunk;
    let host = Guest::raw(200, lan.start, 1500);
    let trunk = lan.plug_into(host, port);
    (lan, trunk)
}

/// The Ethernet headers of what came to a port.
fn headers(lan: &mut Lan, port: PortId) -> Vec<Header> {
    let frames = lan.heard(port);
    let read = |frame: &Vec<u8>| Some(*Header::ref_from_prefix(frame).ok()?.0);
    frames.iter().filter_map(read).collect()
}

fn to_host(lan: &mut Lan, port: PortId, to: impl Into<Ipv4Addr>) -> Ends {
    Ends {
        macs: (lan.guest(port).mac, HOST),
        ips: (at(9), to.into()),
    }
}

/// Whether the port hears a UDP answer from this port of the gateway.
fn answered(lan: &mut Lan, port: PortId, from: u16) -> bool {
    let heard = lan.heard(port);
    let answers = heard.iter().filter_map(|frame| packets::read_udp(frame));
    let mut of_gateway = answers.filter(|(source, ports, _)| *source == at(1) && ports.0 == from);
    of_gateway.next().is_some()
}

#[test]
fn what_is_for_no_service_goes_to_the_host_as_it_came() {
    let (mut lan, trunk) = network(|_| {});
    let port = lan.add_raw(9);
    let services = lan.network.gateway_mac();
    assert_ne!(services, HOST);
    let outside = to_host(&mut lan, port, [203, 0, 113, 5]);
    let gateway = to_host(&mut lan, port, at(1));
    let syn = |to| Fields {
        source_port: 5000,
        destination_port: to,
        flags: Flags::SYN,
        ..Fields::default()
    };
    lan.heard(trunk);
    for packet in [
        packets::tcp(outside, &syn(80), &[], &[]),
        packets::tcp(outside, &syn(53), &[], &[]),
        packets::udp(outside, (5000, 53), 64, b"x"),
        packets::echo(outside, 64, 5, 5, b"x"),
        packets::tcp(gateway, &syn(80), &[], &[]),
        packets::udp(gateway, (5000, 7), 64, b"x"),
        packets::echo(gateway, 64, 5, 5, b"x"),
        packets::udp(gateway, (5000, 7), 1, b"traceroute"),
        packets::ip(gateway, Protocol(132), 64, b"12345678"),
    ] {
        lan.inject(port, packet.clone());
        assert_eq!(lan.heard(trunk), [packet]);
        assert!(lan.heard(port).is_empty(), "the core answered");
    }
    assert!(lan.internet.targets.is_empty() && lan.network.flows() == 0);
    // By the MAC of the services nothing else is reached.
    let wrong = Ends {
        macs: (gateway.macs.0, services),
        ..gateway
    };
    lan.inject(port, packets::echo(wrong, 64, 5, 5, b"x"));
    assert!(lan.heard(port).is_empty() && lan.heard(trunk).is_empty());
    assert_eq!(lan.network.drops().of(Drop::NoService), 1);
}

#[test]
fn services_answer_guests_on_both_sides_of_the_trunk() {
    let (mut lan, trunk) = network(|_| {});
    let port = lan.add_raw(9);
    let services = lan.network.gateway_mac();
    let question = packets::dns_question(7, "nobody.vmnet.internal");
    let ends = to_host(&mut lan, port, at(1));
    lan.heard(port);
    lan.inject(port, packets::udp(ends, (5353, 53), 64, &question));
    assert!(answered(&mut lan, port, 53));
    // The host's bridge gives questions to the MAC of the services.
    let ends = Ends {
        macs: (Mac([0x52, 0x54, 0, 0, 0, 77]), services),
        ips: (at(77), at(1)),
    };
    lan.heard(trunk);
    lan.inject(trunk, packets::udp(ends, (5353, 53), 64, &question));
    assert!(answered(&mut lan, trunk, 53));
    let syn = Fields {
        source_port: 5000,
        destination_port: 53,
        flags: Flags::SYN,
        window: 1000,
        ..Fields::default()
    };
    lan.inject(trunk, packets::tcp(ends, &syn, &[], &[]));
    lan.run_for(SECOND);
    let heard = lan.heard(trunk);
    let mut segments = heard.iter().filter_map(|frame| packets::read_tcp(frame));
    assert!(
        segments.any(|(from, _, fields, _)| {
            from == at(1) && fields.flags == Flags::SYN | Flags::ACK
        })
    );
    // A lease by broadcast.
    let mut guest = Guest::new(3, lan.start, 1500);
    guest.start_dhcp();
    let port = lan.plug(guest);
    assert!(lan.run_until(5 * SECOND, |lan| lan.guest(port).lease.is_some()));
}

#[test]
fn the_host_is_found_at_its_own_mac() {
    let (mut lan, trunk) = network(|_| {});
    let port = lan.add_raw(9);
    let own = lan.guest(port).mac;
    lan.heard(port);
    lan.inject(port, packets::arp_request(own, (own, at(9)), at(1)));
    let heard = lan.heard(port);
    let reply = arp::Packet::read(&heard[0][Header::LEN..]).unwrap();
    assert_eq!((reply.sender(), reply.sender_mac()), (at(1), HOST));
    // Behind the trunk the host answers for itself.
    lan.heard(trunk);
    let other = Mac([0x52, 0x54, 0, 0, 0, 77]);
    lan.inject(trunk, packets::arp_request(other, (other, at(77)), at(1)));
    assert!(lan.heard(trunk).is_empty());
    assert_eq!(lan.heard(port).len(), 1, "a question to all reaches all");
}

#[test]
fn the_host_hears_where_a_guest_is() {
    let (mut lan, trunk) = network(|_| {});
    let port = lan.add_raw(9);
    let own = lan.guest(port).mac;
    // What it asked for by ARP.
    let reply = arp::Packet::reply(own, at(9), HOST, at(1));
    let frame = packets::frame((own, HOST), EtherType::ARP, reply.as_bytes());
    lan.heard(trunk);
    lan.inject(port, frame.clone());
    assert_eq!(lan.heard(trunk), [frame]);
    // And by neighbour discovery.
    let address = ndp::link_local(own);
    let told = ndp::Neighbour::advertisement(ndp::SOLICITED | ndp::OVERRIDE, address, own)
        .between(address, ndp::link_local(HOST));
    let header = ipv6::Header::new(
        address,
        ndp::link_local(HOST),
        Protocol::ICMPV6,
        ndp::HOP_LIMIT,
        told.as_bytes().len(),
    );
    let packet = [header.as_bytes(), told.as_bytes()].concat();
    let frame = packets::frame((own, HOST), EtherType::IPV6, &packet);
    lan.heard(trunk);
    lan.inject(port, frame.clone());
    assert_eq!(lan.heard(trunk), [frame]);
}

#[test]
fn advertisements_name_the_host_as_the_router() {
    let (mut lan, trunk) = network(|_| {});
    lan.run_for(20 * SECOND);
    let frames = lan.heard(trunk);
    let found = frames.iter().find(|frame| {
        Header::ref_from_prefix(frame)
            .is_ok_and(|(header, _)| header.ether_type() == EtherType::IPV6)
            && frame.get(54) == Some(&134)
    });
    let frame = found.expect("an advertisement");
    let (header, _) = Header::ref_from_prefix(frame).unwrap();
    assert_eq!(header.source, lan.network.gateway_mac());
    assert_eq!(frame[22..38], ndp::link_local(HOST).octets());
    // The router's MAC (option 1) is behind the 16 bytes of the message.
    assert_eq!(frame[70..78], [&[1, 1][..], HOST.as_bytes()].concat());
}

#[test]
fn nobody_but_the_trunk_speaks_for_the_host() {
    let (mut lan, trunk) = network(|_| {});
    let port = lan.add_raw(9);
    let other = lan.add_raw(10);
    lan.heard(other);
    let frame = packets::frame((HOST, Mac::BROADCAST), EtherType(0x88b5), b"x");
    lan.inject(port, frame.clone());
    lan.inject(
        port,
        packets::arp_request(lan.network.gateway_mac(), (HOST, at(9)), at(10)),
    );
    let own = lan.guest(port).mac;
    lan.inject(port, packets::arp_request(own, (HOST, at(9)), at(10)));
    assert!(lan.heard(other).is_empty());
    assert_eq!(lan.network.drops().of(Drop::Spoofed), 3);
    lan.inject(trunk, frame);
    assert_eq!(headers(&mut lan, other).len(), 1);
}

/// A bridge that has lost its rules for a moment sends back what it was given.
#[test]
fn a_guest_does_not_move_behind_the_trunk_while_it_has_a_port() {
    let (mut lan, trunk) = network(|_| {});
    let port = lan.add_raw(9);
    let other = lan.add_raw(10);
    let mac = lan.guest(port).mac;
    let hello = packets::frame((mac, Mac::BROADCAST), EtherType(0x88b5), b"x");
    lan.inject(port, hello.clone());
    lan.heard(other);
    lan.inject(trunk, hello.clone());
    assert!(lan.heard(other).is_empty());
    assert_eq!(lan.network.drops().of(Drop::Looped), 1);
    let macs = |lan: &Lan, port| lan.network.macs_behind(port).collect::<Vec<_>>();
    assert_eq!(macs(&lan, port), [mac]);
    // Without its port it may be there, and come from there to another.
    lan.unplug(port);
    lan.inject(trunk, hello.clone());
    assert_eq!(lan.heard(other).len(), 1);
    assert!(macs(&lan, trunk).contains(&mac));
    let again = lan.plug(Guest::raw(9, lan.start, 1500));
    lan.inject(again, hello);
    assert_eq!(macs(&lan, again), [mac]);
}

#[test]
fn isolated_guests_have_the_host_and_nobody_behind_it() {
    let (mut lan, trunk) = network(|config| config.isolation = true);
    let port = lan.add_raw(9);
    let outside = to_host(&mut lan, port, [203, 0, 113, 5]);
    lan.heard(trunk);
    let ping = packets::echo(outside, 64, 5, 5, b"x");
    lan.inject(port, ping.clone());
    assert_eq!(lan.heard(trunk), [ping]);
    let back = Ends {
        macs: (HOST, outside.macs.0),
        ips: (outside.ips.1, outside.ips.0),
    };
    lan.heard(port);
    let answer = packets::udp(back, (80, 5000), 64, b"x");
    lan.inject(trunk, answer.clone());
    assert_eq!(lan.heard(port), [answer]);
    // Neither to a guest behind the trunk, nor from one.
    let other = Mac([0x52, 0x54, 0, 0, 0, 77]);
    for (by, heard, macs) in [
        (trunk, port, (other, outside.macs.0)),
        (trunk, port, (other, Mac::BROADCAST)),
        (port, trunk, (outside.macs.0, other)),
        (port, trunk, (outside.macs.0, Mac::BROADCAST)),
    ] {
        lan.inject(by, packets::frame(macs, EtherType(0x88b5), b"x"));
        assert!(lan.heard(heard).is_empty(), "{macs:?}");
    }
}

/// The host is a router. To an isolated guest it is none to others, nor from them.
#[test]
fn nothing_goes_round_by_the_host_to_an_isolated_guest_or_from_one() {
    let (mut lan, trunk) = network(|_| {});
    let plain = lan.add_raw(9);
    let mut port = Port::new(256);
    port.isolated = true;
    let alone = lan.plug_into(Guest::raw(10, lan.start, 1500), port);
    let v6 = |host: &str| packets6::v6(&format!("fd00:0:0:64::{host}"));
    let outside = (
        Ipv4Addr::from([203, 0, 113, 5]),
        packets6::v6("2001:db8::1"),
    );
    let guest = |number: u8| (at(number), v6(&number.to_string()));
    let gateway = (lan.gateway(), lan.gateway6());
    let datagrams = |macs, from: (Ipv4Addr, Ipv6Addr), to: (Ipv4Addr, Ipv6Addr)| {
        let ips = (from.0, to.0);
        let v4 = packets::udp(Ends { macs, ips }, (7, 7), 64, b"x");
        let ips = (from.1, to.1);
        [v4, packets6::udp(Ends6 { macs, ips }, (7, 7), b"x")]
    };
    let kept = |lan: &Lan| lan.network.drops().of(Drop::Isolated);
    for (port, own, to, passes) in [
        (plain, guest(9), guest(8), true),
        (alone, guest(10), guest(8), false),
        (alone, guest(10), guest(9), false),
        (alone, guest(10), outside, true),
        (alone, guest(10), gateway, true),
    ] {
        let macs = (lan.guest(port).mac, HOST);
        for datagram in datagrams(macs, own, to) {
            let before = kept(&lan);
            lan.heard(trunk);
            lan.inject(port, datagram);
            assert_eq!(
                lan.heard(trunk).len(),
                usize::from(passes),
                "{own:?} {to:?}"
            );
            assert_eq!(kept(&lan) - before, u64::from(!passes));
        }
    }
    for (port, own, from, passes) in [
        (plain, guest(9), guest(8), true),
        (alone, guest(10), guest(8), false),
        (alone, guest(10), guest(9), false),
        (alone, guest(10), outside, true),
        (alone, guest(10), gateway, true),
    ] {
        let mac = lan.guest(port).mac;
        for datagram in datagrams((HOST, mac), from, own) {
            lan.heard(port);
            lan.inject(trunk, datagram);
            assert_eq!(
                lan.heard(port).len(),
                usize::from(passes),
                "{from:?} {own:?}"
            );
        }
    }
}

#[test]
fn nothing_in_pieces_goes_round_by_the_host_either() {
    let (mut lan, trunk) = network(|_| {});
    let mut port = Port::new(256);
    port.isolated = true;
    let alone = lan.plug_into(Guest::raw(10, lan.start, 1500), port);
    let macs = (lan.guest(alone).mac, HOST);
    let ips = (at(10), at(8));
    let v4 = Ends { macs, ips };
    let ips = (
        packets6::v6("fd00:0:0:64::10"),
        packets6::v6("fd00:0:0:64::8"),
    );
    let v6 = Ends6 { macs, ips };
    let datagram = packets::udp(v4, (7, 7), 64, &[7; 4000]);
    let mut pieces = packets::fragments(v4, Protocol::UDP, 7, &datagram[34..], 1500);
    pieces.extend(packets6::fragments(
        v6,
        Protocol::UDP,
        7,
        &datagram[34..],
        1500,
    ));
    lan.heard(trunk);
    for piece in pieces {
        lan.inject(alone, piece);
    }
    let to_host = |header: &Header| header.destination == HOST;
    assert!(!headers(&mut lan, trunk).iter().any(to_host));
    let kept = lan.network.drops().of(Drop::Isolated);
    assert_eq!(kept, 2, "one datagram of each family");
}

#[test]
fn what_comes_in_pieces_goes_to_the_host_when_all_are_there() {
    let (mut lan, trunk) = network(|_| {});
    let port = lan.add_raw(9);
    let services = lan.network.gateway_mac();
    let own = to_host(&mut lan, port, [203, 0, 113, 5]);
    let datagram = packets::udp(own, (5000, 7), 64, &[7; 4000]);
    lan.heard(trunk);
    // By a guest of ours, and by one behind the trunk, of which the host's bridge gives us the pieces.
    let others = Ends {
        macs: (Mac([0x52, 0x54, 0, 0, 0, 77]), services),
        ips: (at(77), own.ips.1),
    };
    for (by, ends, from) in [(port, own, own.macs.0), (trunk, others, services)] {
        for mtu in [1500, 1280] {
            let pieces = |ends| packets::fragments(ends, Protocol::UDP, 7, &datagram[34..], mtu);
            for piece in pieces(ends).into_iter().rev() {
                assert!(lan.heard(trunk).is_empty());
                lan.inject(by, piece);
            }
            // As large as the guest has made them: a path may take no larger ones.
            let macs = (from, HOST);
            assert_eq!(lan.heard(trunk), pieces(Ends { macs, ..ends }));
        }
    }
}

#[test]
fn pieces_of_one_guest_leave_room_for_those_of_others() {
    let (mut lan, trunk) = network(|_| {});
    let services = lan.network.gateway_mac();
    let behind = |last: u8| Ends {
        macs: (Mac([0x52, 0x54, 0, 0, 0, last]), services),
        ips: (at(last), [203, 0, 113, 5].into()),
    };
    let pieces = |last, id| packets::fragments(behind(last), Protocol::UDP, id, &[7; 4000], 1500);
    let good = pieces(78, 1);
    let (last, first) = good.split_last().unwrap();
    for piece in first {
        lan.inject(trunk, piece.clone());
    }
    for id in 0..500 {
        lan.inject(trunk, pieces(77, id).remove(0));
    }
    lan.heard(trunk);
    lan.inject(trunk, last.clone());
    assert_eq!(lan.heard(trunk).len(), good.len());
}
