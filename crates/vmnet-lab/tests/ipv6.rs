//! IPv6: neighbours, router advertisements, and the NAT.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use vmnet_core::{
    Drop, Event, Forward, ForwardGuest, ForwardProtocol, HostError, IcmpError, Port, PortId, Target,
};
use vmnet_lab::sim::apps::is_pattern;
use vmnet_lab::sim::internet::UdpHost;
use vmnet_lab::sim::packets;
use vmnet_lab::sim::packets6::{self, Ends6, v6};
use vmnet_lab::sim::{Guest, Lan, Server, Talk};
use vmnet_wire::icmpv6;
use vmnet_wire::ip::Protocol;
use vmnet_wire::ipv6;
use vmnet_wire::ndp::{self, Message};
use vmnet_wire::tcp;
use zerocopy::IntoBytes;

const SECOND: Duration = Duration::from_secs(1);
const SERVER: &str = "[2001:db8::1]:80";

fn at(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0x64, 0, 0, 0, number)
}

/// A guest of raw frames with the address `fd00:0:0:64::NUMBER`, which the gateway knows.
fn add_raw(lan: &mut Lan, number: u8) -> PortId {
    let port = lan.plug(Guest::raw(number, lan.start, lan.mtu));
    introduce(lan, port, number);
    port
}

fn introduce(lan: &mut Lan, port: PortId, number: u8) {
    let (mac, gateway) = (lan.guest(port).mac, lan.gateway6());
    let asked = packets6::solicitation(mac, at(number.into()), gateway);
    lan.inject(port, asked);
    lan.heard(port);
}

/// From a guest of raw frames to anybody, by way of the gateway.
fn outward(lan: &mut Lan, port: PortId, number: u8, to: &str) -> Ends6 {
    Ends6 {
        macs: (lan.guest(port).mac, lan.network.gateway_mac()),
        ips: (at(number.into()), v6(to)),
    }
}

fn advertisements(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let messages = frames.iter().filter_map(|frame| packets6::read_icmp(frame));
    messages
        .filter(|(kind, _, _)| *kind == icmpv6::ROUTER_ADVERTISEMENT)
        .map(|(_, _, seen)| seen.payload)
        .collect()
}

#[test]
fn neighbours_are_answered_for_the_gateways_addresses_alone() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = lan.plug(Guest::raw(9, lan.start, 1500));
    let (mac, gateway_mac) = (lan.guest(port).mac, lan.network.gateway_mac());
    let (own, link_local) = (at(9), ndp::link_local(gateway_mac));
    for target in [lan.gateway6(), link_local] {
        lan.inject(port, packets6::solicitation(mac, own, target));
        let heard = lan.heard(port);
        assert_eq!(heard.len(), 1, "{target}");
        let (kind, _, seen) = packets6::read_icmp(&heard[0]).unwrap();
        assert_eq!(
            (kind, seen.hop_limit),
            (icmpv6::NEIGHBOUR_ADVERTISEMENT, 255)
        );
        assert_eq!((seen.source, seen.destination), (target, own));
        let Some(Message::NeighbourAdvertisement {
            flags,
            target: of,
            options,
        }) = Message::read(&seen.payload)
        else {
            panic!("no advertisement");
        };
        assert_eq!(flags, ndp::ROUTER | ndp::SOLICITED | ndp::OVERRIDE);
        assert_eq!((of, options.target()), (target, Some(gateway_mac)));
    }
    // Not for others, and not for those who come from elsewhere or say nonsense.
    lan.inject(port, packets6::solicitation(mac, own, at(77)));
    let ends = Ends6::to_group(mac, own, ndp::solicited_node(lan.gateway6()));
    let message = ndp::Neighbour::solicitation(lan.gateway6(), mac);
    lan.inject(port, packets6::icmp(ends, 254, message.as_bytes().to_vec()));
    let mut broken = packets6::solicitation(mac, own, lan.gateway6());
    broken[14 + 40 + 2] ^= 1;
    lan.inject(port, broken);
    assert!(lan.heard(port).is_empty());
    let drops = lan.network.drops();
    assert_eq!(
        (drops.of(Drop::NeighbourDiscovery), drops.of(Drop::Checksum)),
        (1, 1)
    );
}

#[test]
fn the_gateways_addresses_are_defended() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = lan.plug(Guest::raw(9, lan.start, 1500));
    let other = lan.plug(Guest::raw(8, lan.start, 1500));
    let mac = lan.guest(port).mac;
    lan.inject(port, packets6::probe(mac, lan.gateway6()));
    let heard = lan.heard(port);
    let (kind, _, seen) = packets6::read_icmp(&heard[0]).unwrap();
    assert_eq!(kind, icmpv6::NEIGHBOUR_ADVERTISEMENT);
    assert_eq!(
        (seen.source, seen.destination),
        (lan.gateway6(), v6("ff02::1"))
    );
    // The answer is for who probed; the probe itself others see, as on any switch.
    assert_eq!(lan.heard(other).len(), 1);
    // Probes among guests pass, and nobody answers in their name.
    lan.inject(port, packets6::probe(mac, at(9)));
    assert_eq!((lan.heard(port).len(), lan.heard(other).len()), (0, 1));
    // What a guest wants and nobody contests is where rules find it.
    assert_eq!(lan.network.address6_of(lan.now, port), Some(at(9)));
    // Who has it is believed more than who wants it.
    let mac8 = lan.guest(other).mac;
    lan.inject(other, packets6::advertisement(mac8, at(7), mac8));
    lan.inject(port, packets6::probe(mac, at(7)));
    assert_eq!(lan.network.address6_of(lan.now, other), Some(at(7)));
    assert_eq!(lan.network.address6_of(lan.now, port), Some(at(9)));
}

#[test]
fn a_guest_finds_address_and_way_by_itself() {
    let mut lan = Lan::dual(|_| {});
    let port = lan.add_autonomous(2);
    let mac = lan.guest(port).mac;
    let own = lan.guest(port).address6().unwrap();
    let identifier = u64::from_be_bytes(ndp::link_local(mac).octets()[8..].try_into().unwrap());
    assert_eq!(own, lan.network.ipv6().unwrap().host(identifier));
    for (server, buffer) in [(Server::Echo, 64 << 10), (Server::Echo, 2 << 10)] {
        lan.internet.serve(SERVER, server);
        let from = 40_000 + buffer as u16;
        let to: SocketAddrV6 = SERVER.parse().unwrap();
        let handle = lan.guest(port).connect6(to, from, buffer);
        let mut talk = Talk::new(port, handle, 300_000);
        let done = lan.run_until(60 * SECOND, |lan| {
            talk.is_over(lan) && lan.network.flows() == 0
        });
        assert!(done, "{:?}", lan.network.drops().met().collect::<Vec<_>>());
        assert_eq!(talk.read.len(), 300_000);
        assert!(is_pattern(&talk.read));
    }
    assert_eq!(lan.network.address6_of(lan.now, port), Some(own));
}

#[test]
fn large_segments_for_ports_that_take_them() {
    let mut lan = Lan::dual(|_| {});
    let mut place = Port::new(256);
    place.large_segments = true;
    let guest = Guest::autonomous(2, lan.start, lan.mtu);
    let port = lan.plug_into(guest, place);
    assert!(lan.run_until(5 * SECOND, |lan| lan.guest(port).address6().is_some()));
    lan.internet.serve(SERVER, Server::Echo);
    let handle = lan
        .guest(port)
        .connect6(SERVER.parse().unwrap(), 40_000, 64 << 10);
    let mut talk = Talk::new(port, handle, 1_000_000);
    assert!(lan.run_until(60 * SECOND, |lan| talk.is_over(lan)));
    assert!(talk.read.len() == 1_000_000 && is_pattern(&talk.read));
}

#[test]
fn advertisements_come_when_they_are_due() {
    let mut lan = Lan::dual(|_| {});
    let start = lan.now;
    let port = lan.plug(Guest::raw(9, lan.start, 1500));
    lan.run_for(Duration::from_millis(1));
    // A port that is new hears one, whether its guest asks or not; others do not.
    assert_eq!(advertisements(&lan.heard(port)).len(), 1);
    let other = lan.plug(Guest::raw(8, lan.start, 1500));
    lan.run_for(Duration::from_millis(1));
    assert_eq!(advertisements(&lan.heard(other)).len(), 1);
    assert_eq!(advertisements(&lan.heard(port)).len(), 0);
    // Three within 16 seconds each, then every 200 to 600.
    let mut times = Vec::new();
    while times.len() < 8 {
        let limit = 700 * SECOND;
        let heard = lan.run_until(limit, |lan| !lan.guest(port).heard.is_empty());
        assert!(heard, "none for {limit:?}");
        assert_eq!(advertisements(&lan.heard(port)).len(), 1);
        times.push(lan.now - start);
    }
    let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(times[0] <= 17 * SECOND, "{times:?}");
    assert!(gaps[..2].iter().all(|gap| *gap <= 17 * SECOND), "{gaps:?}");
    let steady = 199 * SECOND..=601 * SECOND;
    assert!(gaps[2..].iter().all(|gap| steady.contains(gap)), "{gaps:?}");
    assert!(
        gaps[2..].windows(2).any(|pair| pair[0] != pair[1]),
        "by chance"
    );
}

#[test]
fn who_asks_for_a_router_is_answered() {
    let mut lan = Lan::dual(|_| {});
    let port = lan.plug(Guest::raw(9, lan.start, 1500));
    let other = lan.plug(Guest::raw(8, lan.start, 1500));
    lan.run_for(100 * SECOND);
    lan.heard(port);
    lan.heard(other);
    let mac = lan.guest(port).mac;
    let own = ndp::link_local(mac);
    // From an address: alone, and at once.
    lan.inject(port, packets6::router_solicitation(mac, own));
    let heard = lan.heard(port);
    let (kind, _, seen) = packets6::read_icmp(&heard[0]).unwrap();
    assert_eq!(
        (kind, seen.destination),
        (icmpv6::ROUTER_ADVERTISEMENT, own)
    );
    assert_eq!(
        (seen.source, seen.hop_limit),
        (ndp::link_local(lan.network.gateway_mac()), 255)
    );
    let asked = lan.heard(other);
    assert!(advertisements(&asked).is_empty());
    // Without one: all hear it within half a second, but not twice in three.
    lan.inject(
        port,
        packets6::router_solicitation(mac, Ipv6Addr::UNSPECIFIED),
    );
    lan.run_for(SECOND / 2);
    assert_eq!(advertisements(&lan.heard(other)).len(), 1);
    for _ in 0..100 {
        lan.inject(
            port,
            packets6::router_solicitation(mac, Ipv6Addr::UNSPECIFIED),
        );
    }
    lan.run_for(2 * SECOND);
    assert_eq!(advertisements(&lan.heard(other)).len(), 0);
    lan.run_for(2 * SECOND);
    assert_eq!(advertisements(&lan.heard(other)).len(), 1);
    // A flood from addresses is answered in part, and others are still told.
    for _ in 0..1000 {
        lan.guest(port)
            .inject(packets6::router_solicitation(mac, own));
    }
    lan.heard(port);
    lan.run_for(4 * SECOND);
    assert!(advertisements(&lan.heard(port)).len() < 200);
    assert_eq!(advertisements(&lan.heard(other)).len(), 1);
}

#[test]
fn where_nothing_leads_out_only_who_asks_is_told() {
    let quiet = |config: &mut vmnet_core::Config| (config.nat44, config.nat66) = (false, false);
    let mut lan = Lan::dual(quiet);
    let port = add_raw(&mut lan, 9);
    lan.run_for(700 * SECOND);
    assert_eq!(advertisements(&lan.heard(port)).len(), 0, "nobody asked");
    lan.shutdown();
    assert_eq!(advertisements(&lan.heard(port)).len(), 0, "nobody knows");
    // Who asks is answered, and reminded; who comes later is not told at once.
    let mut lan = Lan::dual(quiet);
    let port = add_raw(&mut lan, 9);
    let mac = lan.guest(port).mac;
    lan.inject(port, packets6::router_solicitation(mac, at(9)));
    assert_eq!(advertisements(&lan.heard(port)).len(), 1);
    let other = add_raw(&mut lan, 8);
    lan.run_for(100 * SECOND);
    assert_eq!(advertisements(&lan.heard(other)).len(), 0);
    lan.run_for(600 * SECOND);
    assert!(!advertisements(&lan.heard(port)).is_empty());
    lan.heard(other);
    lan.shutdown();
    assert_eq!(advertisements(&lan.heard(other)).len(), 1, "it ends");
    // As most systems ask: without an address.
    let mut lan = Lan::dual(quiet);
    let port = lan.add_autonomous(2);
    assert!(lan.guest(port).address6().is_some());
}

#[test]
fn the_last_advertisement_takes_everything_back() {
    let mut lan = Lan::dual(|_| {});
    let port = lan.add_autonomous(2);
    lan.guest(port).listening = true;
    lan.shutdown();
    let heard = advertisements(&lan.heard(port));
    let Some(Message::RouterAdvertisement { head, .. }) = Message::read(heard.last().unwrap())
    else {
        panic!("no advertisement");
    };
    assert_eq!(head.lifetime(), 0);
}

#[test]
fn the_gateway_answers_pings() {
    let mut lan = Lan::dual(|_| {});
    let port = add_raw(&mut lan, 9);
    let gateway_mac = lan.network.gateway_mac();
    let mac = lan.guest(port).mac;
    let one = |to: Ipv6Addr| Ends6 {
        macs: (mac, gateway_mac),
        ips: (at(9), to),
    };
    let gateway = lan.gateway6();
    let link_local = ndp::link_local(gateway_mac);
    let all = v6("ff02::1");
    for (ends, from) in [
        (one(gateway), gateway),
        (one(link_local), link_local),
        (Ends6::to_group(mac, at(9), all), gateway),
    ] {
        for len in [0, 1, 56, 1452] {
            lan.inject(port, packets6::echo(ends, 1, 5, 6, &vec![0xa5; len]));
            let heard = lan.heard(port);
            let (kind, code, seen) = packets6::read_icmp(&heard[0]).expect("a reply");
            assert_eq!((kind, code, seen.source), (icmpv6::ECHO_REPLY, 0, from));
            assert_eq!(
                seen.payload[4..],
                [&[0, 5, 0, 6][..], &vec![0xa5; len]].concat()
            );
        }
    }
    // In fragments, both ways.
    let ends = one(gateway);
    let header = icmpv6::Header::echo(icmpv6::ECHO_REQUEST, 5, 7);
    let message = [header.as_bytes(), &vec![1; 60_000]].concat();
    let message = packets6::summed(ends, message);
    for frame in packets6::fragments(ends, Protocol::ICMPV6, 77, &message, 1500) {
        lan.guest(port).inject(frame);
    }
    lan.run_for(SECOND);
    let whole = joined(&lan.heard(port));
    assert_eq!(whole.len(), message.len());
    assert_eq!((whole[0], &whole[8..]), (icmpv6::ECHO_REPLY, &message[8..]));
    assert_eq!(icmpv6::checksum(gateway, at(9), &whole), 0);
}

/// Puts fragments of one packet together.
fn joined(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = Vec::new();
    for frame in frames {
        assert!(frame.len() <= 1514);
        let packet = ipv6::Packet::read(&frame[14..], frame.len() - 14).unwrap();
        let fragment = packet.fragment.expect("a fragment");
        let piece = &frame[14 + fragment.at + 8..];
        whole.resize(whole.len().max(fragment.offset + piece.len()), 0);
        whole[fragment.offset..fragment.offset + piece.len()].copy_from_slice(piece);
    }
    whole
}

#[test]
fn pings_of_the_outside() {
    let mut lan = Lan::dual(|_| {});
    let port = add_raw(&mut lan, 9);
    lan.internet.pingable.push(IpAddr::V6(v6("2001:db8::1")));
    let ends = outward(&mut lan, port, 9, "2001:db8::1");
    lan.inject(port, packets6::echo(ends, 64, 0x1234, 3, b"hello"));
    lan.run_for(SECOND);
    let heard = lan.heard(port);
    let (kind, _, seen) = packets6::read_icmp(&heard[0]).expect("a reply");
    assert_eq!(
        (kind, seen.source, seen.destination),
        (129, v6("2001:db8::1"), at(9))
    );
    assert_eq!(
        seen.payload[4..],
        [&[0x12, 0x34, 0, 3][..], b"hello"].concat()
    );
    assert!(
        lan.internet
            .targets
            .iter()
            .all(|(_, target)| *target == Target::Echo { v6: true })
    );
    // Nobody there.
    let ends = outward(&mut lan, port, 9, "2001:db8::2");
    lan.inject(port, packets6::echo(ends, 64, 0x1234, 4, b"hello"));
    lan.run_for(SECOND);
    let heard = lan.heard(port);
    let (kind, code, seen) = packets6::read_icmp(&heard[0]).expect("an error");
    assert_eq!((kind, code), (icmpv6::UNREACHABLE, 3));
    // It quotes the guest's own packet.
    let quoted = ipv6::Header::read(&seen.payload[8..]).unwrap();
    assert_eq!(
        (quoted.source(), quoted.destination()),
        (at(9), v6("2001:db8::2"))
    );
    assert_eq!(seen.payload[48..56][4..], [0x12, 0x34, 0, 4]);
}

#[test]
fn datagrams_both_ways() {
    let mut lan = Lan::dual(|_| {});
    let port = add_raw(&mut lan, 9);
    lan.internet.serve_udp("[2001:db8::1]:7", UdpHost::Echo);
    let ends = outward(&mut lan, port, 9, "2001:db8::1");
    lan.inject(port, packets6::udp(ends, (5000, 7), b"hello"));
    lan.run_for(SECOND);
    let heard = lan.heard(port);
    let seen = packets6::read_udp(&heard[0]).unwrap();
    assert_eq!(seen, (v6("2001:db8::1"), (7, 5000), b"hello".to_vec()));
    // Larger than the MTU, in fragments both ways.
    let payload = vec![7; 20_000];
    let datagram = packets6::datagram(ends, (5000, 7), &payload);
    for frame in packets6::fragments(ends, Protocol::UDP, 1, &datagram, 1500) {
        lan.guest(port).inject(frame);
    }
    lan.run_for(SECOND);
    assert_eq!(joined(&lan.heard(port))[8..], payload);
    assert!(!lan.internet.sent.last().unwrap().how.dont_fragment);
    assert!(lan.internet.sent[0].how.dont_fragment);
    // Without a checksum there is none.
    let mut bare = packets6::udp(ends, (5000, 7), b"hello");
    bare[14 + 40 + 6..14 + 40 + 8].fill(0);
    lan.inject(port, bare);
    assert_eq!(lan.network.drops().of(Drop::Checksum), 1);
}

#[test]
fn errors_about_datagrams_reach_the_guest() {
    let mut lan = Lan::dual(|_| {});
    let port = add_raw(&mut lan, 9);
    lan.internet
        .serve_udp("[2001:db8::1]:7", UdpHost::Error(1, 4));
    lan.internet
        .serve_udp("[2001:db8::1]:8", UdpHost::Narrow(1400));
    let ends = outward(&mut lan, port, 9, "2001:db8::1");
    for (to, len, expected) in [
        (7, 5, (icmpv6::UNREACHABLE, 4, 0)),
        (8, 1400, (icmpv6::PACKET_TOO_BIG, 0, 1400)),
    ] {
        lan.inject(port, packets6::udp(ends, (5000, to), &vec![1; len]));
        lan.run_for(SECOND);
        let heard = lan.heard(port);
        let (kind, code, seen) = packets6::read_icmp(&heard[0]).unwrap();
        let word = u32::from_be_bytes(seen.payload[4..8].try_into().unwrap());
        assert_eq!((kind, code, word), expected);
        assert_eq!(seen.destination, at(9));
        assert_eq!(seen.payload[48..52], [19, 136, 0, to as u8], "the ports");
    }
}

#[test]
fn what_goes_nowhere_is_told() {
    let mut lan = Lan::dual(|_| {});
    let port = add_raw(&mut lan, 9);
    let told = |lan: &mut Lan, frame: Vec<u8>| {
        lan.inject(port, frame);
        lan.run_for(SECOND / 10);
        let heard = lan.heard(port);
        let (kind, code, seen) = packets6::read_icmp(heard.first()?)?;
        Some((kind, code, seen.source))
    };
    let gateway = lan.gateway6();
    let far = outward(&mut lan, port, 9, "2001:db8::1");
    let near = outward(&mut lan, port, 9, "fd00:0:0:64::1");
    let expired = packets6::ip(
        far,
        Protocol::UDP,
        1,
        &packets6::datagram(far, (5, 7), b"x"),
    );
    let unknown = [&[17, 0, 0x9e, 1, 0, 0, 0, 0][..], &[0; 8]].concat();
    let unknown = packets6::ip(far, Protocol::DESTINATION_OPTIONS, 64, &unknown);
    let link_local = Ends6 {
        ips: (ndp::link_local(far.macs.0), far.ips.1),
        ..far
    };
    for (frame, expected) in [
        (expired, Some((icmpv6::TIME_EXCEEDED, 0, gateway))),
        (
            packets6::udp(near, (5, 99), b"x"),
            Some((icmpv6::UNREACHABLE, 4, gateway)),
        ),
        (unknown, Some((icmpv6::PARAMETER_PROBLEM, 2, gateway))),
        (
            packets6::udp(link_local, (5, 7), b"x"),
            Some((icmpv6::UNREACHABLE, 2, ndp::link_local(far.macs.1))),
        ),
    ] {
        assert_eq!(told(&mut lan, frame), expected);
    }
    for to in [
        "::1",
        "::ffff:127.0.0.1",
        "ff0e::1",
        "fe80::9",
        "fd00:0:0:64::77",
        "::",
    ] {
        let ends = outward(&mut lan, port, 9, to);
        assert_eq!(
            told(&mut lan, packets6::udp(ends, (5, 7), b"x")),
            None,
            "{to}"
        );
    }
    let strange = Ends6 {
        ips: (v6("2001:db8::9"), far.ips.1),
        ..far
    };
    assert_eq!(told(&mut lan, packets6::udp(strange, (5, 7), b"x")), None);
    assert!(lan.internet.sent.is_empty());
    assert_eq!(lan.network.drops().of(Drop::ForeignSource), 2);
}

#[test]
fn a_host_without_ipv6_is_told_at_once() {
    let mut lan = Lan::dual(|_| {});
    let port = lan.add_autonomous(2);
    lan.guest(port).listening = true;
    let none = Server::Error(HostError::NetworkUnreachable);
    lan.internet.serve(SERVER, none);
    lan.guest(port).heard.clear();
    lan.guest(port)
        .connect6(SERVER.parse().unwrap(), 40_000, 4096);
    lan.run_for(SECOND / 10);
    let heard = lan.heard(port);
    let errors: Vec<_> = heard
        .iter()
        .filter_map(|frame| packets6::read_icmp(frame))
        .filter(|(kind, ..)| *kind == icmpv6::UNREACHABLE)
        .collect();
    let [(_, code, seen)] = &errors[..] else {
        panic!("{errors:?}");
    };
    assert_eq!(*code, icmpv6::unreachable::NO_ROUTE);
    // It names the connection: whoever reads it finds the SYN's ports and number.
    assert_eq!(seen.payload[48..52], [0x9c, 0x40, 0, 80]);
    // The host knows no IPv6 at all: there is not even a socket.
    let port = add_raw(&mut lan, 9);
    let ends = outward(&mut lan, port, 9, "2001:db8::1");
    let datagram = packets6::udp(ends, (5000, 7), b"hello");
    for frame in [datagram, packets6::echo(ends, 64, 1, 1, b"hello")] {
        lan.inject(port, frame);
        let (socket, _) = *lan.internet.targets.last().unwrap();
        let error = HostError::NetworkUnreachable;
        lan.contract.failed(socket);
        lan.event(&Event::Failed { socket, error });
        lan.run_for(SECOND / 10);
        let heard = lan.heard(port);
        let (kind, code, seen) = packets6::read_icmp(heard.last().unwrap()).unwrap();
        assert_eq!(
            (kind, code),
            (icmpv6::UNREACHABLE, icmpv6::unreachable::NO_ROUTE)
        );
        let quoted = ipv6::Header::read(&seen.payload[8..]).unwrap();
        assert_eq!(quoted.destination(), ends.ips.1);
    }
    // Without NAT66 nobody even tries, and the router is none.
    let mut lan = Lan::dual(|config| config.nat66 = false);
    let port = add_raw(&mut lan, 9);
    let ends = outward(&mut lan, port, 9, "2001:db8::1");
    lan.inject(port, packets6::udp(ends, (5000, 7), b"hello"));
    let heard = lan.heard(port);
    let (kind, code, _) = packets6::read_icmp(&heard[0]).unwrap();
    assert_eq!(
        (kind, code),
        (icmpv6::UNREACHABLE, icmpv6::unreachable::PROHIBITED)
    );
    assert_eq!(lan.network.drops().of(Drop::NoWayOut), 1);
}

#[test]
fn the_hosts_services_are_the_gateways() {
    let mut lan = Lan::dual(|config| config.host_loopback = true);
    lan.network.set_outside6(Some(v6("2001:db8::99")));
    lan.internet.serve("[2001:db8::99]:80", Server::Echo);
    let port = lan.add_autonomous(2);
    let to = SocketAddrV6::new(lan.gateway6(), 80, 0, 0);
    let handle = lan.guest(port).connect6(to, 40_000, 4096);
    let mut talk = Talk::new(port, handle, 100);
    // The loopback refuses, the outside address answers.
    assert!(lan.run_until(5 * SECOND, |lan| talk.is_over(lan)));
    assert_eq!(talk.read.len(), 100);
    let targets: Vec<_> = lan.internet.targets.iter().map(|(_, to)| *to).collect();
    let tcp = |text: &str| Target::Tcp(text.parse().unwrap());
    assert_eq!(targets, [tcp("[::1]:80"), tcp("[2001:db8::99]:80")]);
}

#[test]
fn names_are_asked_by_ipv6_too() {
    let mut lan = Lan::dual(|_| {});
    let resolver: SocketAddr = "10.0.0.53:53".parse().unwrap();
    lan.internet
        .resolvers
        .insert(resolver, Some(Duration::from_millis(5)));
    lan.network.set_resolvers(lan.now, &[resolver]);
    let port = add_raw(&mut lan, 9);
    let link_local = ndp::link_local(lan.network.gateway_mac()).to_string();
    let question = packets::dns_question(7, "example.com");
    for own in [lan.gateway6().to_string(), link_local] {
        let ends = outward(&mut lan, port, 9, &own);
        lan.inject(port, packets6::udp(ends, (5353, 53), &question));
        lan.run_for(SECOND);
        let heard = lan.heard(port);
        // The answer comes from the address that was asked.
        let (from, ports, answer) = packets6::read_udp(&heard[0]).unwrap();
        assert_eq!((from, ports), (v6(&own), (53, 5353)));
        assert_eq!(answer[..2], [0, 7]);
    }
    // And by TCP.
    let port = lan.add_autonomous(3);
    let to = SocketAddrV6::new(lan.gateway6(), 53, 0, 0);
    lan.guest(port).connect6(to, 40_000, 4096);
    lan.run_for(SECOND);
    assert!(
        lan.internet
            .targets
            .iter()
            .any(|(_, to)| *to == Target::DnsStream)
    );
}

fn rule(protocol: ForwardProtocol, listen: &str, guest: ForwardGuest, guest_port: u16) -> Forward {
    Forward {
        protocol,
        listen: listen.parse().unwrap(),
        guest,
        guest_port,
    }
}

#[test]
fn clients_of_forwarded_ports_keep_their_address() {
    let mut lan = Lan::dual(|_| {});
    let port = lan.add_autonomous(2);
    let mac = lan.guest(port).mac;
    let own = lan.guest(port).address6().unwrap();
    let (rule, _) = lan.forward(rule(
        ForwardProtocol::Tcp,
        "[::]:8080",
        ForwardGuest::Mac(mac),
        80,
    ));
    let gateway = IpAddr::V6(lan.gateway6());
    for (client, seen) in [
        ("[2001:db8::7]:700", IpAddr::V6(v6("2001:db8::7"))),
        ("[::1]:700", gateway),
        ("10.0.0.9:700", gateway),
    ] {
        let handle = lan.guest(port).listen(80, 4096);
        let client = client.parse().unwrap();
        let stream = lan.dial(rule, client, Server::Echo);
        assert!(stream.is_some(), "{client}");
        lan.run_for(SECOND / 10);
        let remote = lan
            .guest(port)
            .tcp(handle)
            .remote_endpoint()
            .expect("a client");
        let remote = SocketAddr::new(remote.addr.into(), remote.port);
        assert_eq!((remote.ip(), remote.port()), (seen, 700));
        let local = lan.guest(port).tcp(handle).local_endpoint().unwrap();
        assert_eq!(IpAddr::from(local.addr), IpAddr::V6(own));
        lan.guest(port).tcp(handle).abort();
        lan.run_for(SECOND / 10);
    }
}

#[test]
fn a_rule_takes_the_family_of_its_client() {
    let mut lan = Lan::dual(|_| {});
    let port = lan.add_raw(9);
    introduce(&mut lan, port, 9);
    let to_port = ForwardGuest::Port(port);
    let (rule_id, _) = lan.forward(rule(ForwardProtocol::Tcp, "[::]:8080", to_port, 80));
    for (client, v6_syn) in [
        ("[2001:db8::7]:700", true),
        ("[::ffff:10.0.0.9]:700", false),
    ] {
        lan.heard(port);
        lan.dial(rule_id, client.parse().unwrap(), Server::Echo);
        lan.run_for(SECOND / 100);
        let heard = lan.heard(port);
        let syn = heard.first().expect("a SYN");
        assert_eq!(packets6::read(syn).is_some(), v6_syn, "{client}");
    }
    // One socket has all clients of a UDP rule: its guest is of the family that it listens for.
    let (_, socket) = lan.forward(rule(ForwardProtocol::Udp, "[::]:8053", to_port, 53));
    let socket = socket.unwrap();
    lan.heard(port);
    lan.datagram(socket, "[2001:db8::7]:700", b"who");
    let heard = lan.heard(port);
    let (from, ports, _) = packets6::read_udp(&heard[0]).unwrap();
    assert_eq!((from, ports), (v6("2001:db8::7"), (700, 53)));
    // Its answer leaves by that socket, and one to a client of the other family too.
    let answer = outward(&mut lan, port, 9, "2001:db8::7");
    lan.inject(port, packets6::udp(answer, (53, 700), b"me"));
    lan.datagram(socket, "10.0.0.9:701", b"who");
    let heard = lan.heard(port);
    let (from, ports, _) = packets6::read_udp(&heard[0]).unwrap();
    assert_eq!((from, ports), (lan.gateway6(), (701, 53)));
    let answer = outward(&mut lan, port, 9, "fd00:0:0:64::1");
    lan.inject(port, packets6::udp(answer, (53, 701), b"me"));
    let to: Vec<_> = lan
        .internet
        .sent
        .iter()
        .map(|sent| sent.how.to.to_string())
        .collect();
    assert_eq!(to, ["[2001:db8::7]:700", "10.0.0.9:701"]);
    assert!(lan.internet.sent.iter().all(|sent| sent.socket == socket));
}

#[test]
fn hairpin_by_the_gateways_ipv6_address() {
    let mut lan = Lan::dual(|_| {});
    let web = lan.add_autonomous(2);
    let mac = lan.guest(web).mac;
    lan.forward(rule(
        ForwardProtocol::Tcp,
        "[::]:8080",
        ForwardGuest::Mac(mac),
        80,
    ));
    let server = lan.guest(web).listen(80, 4096);
    let asking = lan.add_autonomous(3);
    let to = SocketAddrV6::new(lan.gateway6(), 8080, 0, 0);
    let handle = lan.guest(asking).connect6(to, 40_000, 4096);
    lan.run_for(SECOND);
    let remote = lan
        .guest(web)
        .tcp(server)
        .remote_endpoint()
        .expect("a client");
    assert_eq!(IpAddr::from(remote.addr), IpAddr::V6(lan.gateway6()));
    assert!(lan.guest(asking).tcp(handle).may_send());
}

/// What a guest says by ICMP about a packet that came to it in `frame`.
fn complaint(lan: &mut Lan, port: PortId, (kind, word): (u8, u32), frame: &[u8]) -> Vec<u8> {
    let seen = packets6::read(frame).expect("a packet by IPv6");
    let ends = Ends6 {
        macs: (lan.guest(port).mac, lan.network.gateway_mac()),
        ips: (seen.destination, seen.source),
    };
    let message = [icmpv6::Header::new(kind, 4, word).as_bytes(), &frame[14..]].concat();
    packets6::icmp(ends, 64, message)
}

#[test]
fn a_client_that_a_guest_refuses_by_icmp_hears_so_at_once() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = add_raw(&mut lan, 9);
    let other = add_raw(&mut lan, 8);
    let guest = ForwardGuest::Port(port);
    let (rule, _) = lan.forward(rule(ForwardProtocol::Tcp, "[::]:8080", guest, 80));
    // From its own address, and from the gateway's.
    for client in ["[2001:db8::7]:700", "[::1]:700"] {
        lan.heard(port);
        let socket = lan.dial(rule, client.parse().unwrap(), Server::Echo);
        let socket = socket.expect("a flow");
        lan.run_for(SECOND / 100);
        let syn = lan.heard(port).pop().expect("a SYN");
        let unreachable = (icmpv6::UNREACHABLE, 0);
        // Not about another connection, nor a segment that was not sent; nor by another guest.
        let mut wrong = syn.clone();
        wrong[14 + 40 + 7] ^= 1;
        let wrong = complaint(&mut lan, port, unreachable, &wrong);
        lan.inject(port, wrong);
        let mut lie = complaint(&mut lan, port, unreachable, &syn);
        lie[6..12].copy_from_slice(&lan.guest(other).mac.0);
        lan.inject(other, lie);
        assert!(lan.internet.streams.contains_key(&socket), "{client}");
        let told = complaint(&mut lan, port, unreachable, &syn);
        lan.inject(port, told);
        assert!(!lan.internet.streams.contains_key(&socket), "{client}");
        let (_, by_reset) = lan.internet.past.last().expect("a closed stream");
        assert!(by_reset, "{client}");
    }
}

#[test]
fn segments_too_large_for_a_link_behind_the_guest_come_again_smaller() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = add_raw(&mut lan, 9);
    let guest = ForwardGuest::Port(port);
    let (rule, _) = lan.forward(rule(ForwardProtocol::Tcp, "[::]:8080", guest, 80));
    lan.heard(port);
    let client = "[2001:db8::7]:700".parse().unwrap();
    lan.dial(rule, client, Server::Source(5000))
        .expect("a flow");
    lan.run_for(SECOND / 100);
    let syn = packets6::read(&lan.heard(port)[0]).unwrap();
    let syn = tcp::Segment::read(&syn.payload).unwrap().fields;
    let ends = outward(&mut lan, port, 9, "2001:db8::7");
    // SYN and ACK with the largest segment that the link has: 1440 bytes.
    let fields = tcp::Fields {
        source_port: 80,
        destination_port: 700,
        sequence: tcp::Seq(1),
        acknowledgement: syn.sequence.advance(1),
        flags: tcp::Flags::SYN | tcp::Flags::ACK,
        window: 60_000,
    };
    let mut answer = tcp::Header::new(&fields, 4, 0).as_bytes().to_vec();
    answer.extend([2, 4, 0x05, 0xa0]);
    let sum =
        vmnet_wire::ip::pseudo_header(ends.ips.0.into(), ends.ips.1.into(), Protocol::TCP, 24);
    let sum = sum.with(&answer).finish();
    answer[16..18].copy_from_slice(&sum.to_be_bytes());
    lan.inject(port, packets6::ip(ends, Protocol::TCP, 64, &answer));
    lan.run_for(SECOND / 100);
    let sizes = |frames: &[Vec<u8>]| -> Vec<usize> {
        let segments = frames.iter().filter_map(|frame| packets6::read(frame));
        segments
            .map(|seen| seen.payload.len() - 20)
            .filter(|len| *len > 0)
            .collect()
    };
    let heard = lan.heard(port);
    assert_eq!(sizes(&heard)[..3], [1440, 1440, 1440]);
    let first = heard.iter().find(|frame| frame.len() > 1000).unwrap();
    // Less than any link has is not believed.
    for (mtu, size) in [(1400, 1340), (68, 1220)] {
        let told = complaint(&mut lan, port, (icmpv6::PACKET_TOO_BIG, mtu), first);
        lan.inject(port, told);
        lan.run_for(SECOND / 100);
        let sizes = sizes(&lan.heard(port));
        assert_eq!(sizes.iter().sum::<usize>(), 5000, "{mtu}");
        assert_eq!(sizes.iter().max(), Some(&size), "{mtu}");
    }
}

#[test]
fn one_guests_errors_leave_others_theirs() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = add_raw(&mut lan, 9);
    let other = add_raw(&mut lan, 8);
    let ends = outward(&mut lan, port, 9, "2001:db8::1");
    for _ in 0..300 {
        // A packet whose hops are used up.
        let datagram = packets6::datagram(ends, (5, 7), b"x");
        let expired = packets6::ip(ends, Protocol::UDP, 1, &datagram);
        lan.guest(port).inject(expired);
    }
    lan.run_for(Duration::from_millis(10));
    assert!(lan.network.drops().of(Drop::IcmpRate) > 100);
    lan.heard(other);
    let ends = outward(&mut lan, other, 8, "2001:db8::1");
    let datagram = packets6::datagram(ends, (5, 7), b"x");
    lan.inject(other, packets6::ip(ends, Protocol::UDP, 1, &datagram));
    let (kind, ..) = packets6::read_icmp(&lan.heard(other)[0]).expect("an error");
    assert_eq!(kind, icmpv6::TIME_EXCEEDED);
}

#[test]
fn a_hairpin_to_a_guest_known_by_its_ipv6_address() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let web = add_raw(&mut lan, 9);
    let asking = add_raw(&mut lan, 8);
    let guest = ForwardGuest::Address(IpAddr::V6(at(9)));
    lan.forward(rule(ForwardProtocol::Tcp, "[::]:8080", guest, 80));
    lan.forward(rule(ForwardProtocol::Udp, "[::]:8053", guest, 53));
    // By either of the gateway's addresses, the guest itself too.
    let (gateway4, gateway6) = (lan.gateway(), lan.gateway6());
    for (from, number) in [(asking, 8), (web, 9)] {
        let macs = (lan.guest(from).mac, lan.network.gateway_mac());
        let own4 = std::net::Ipv4Addr::new(192, 168, 64, number);
        let ends6 = Ends6 {
            macs,
            ips: (at(number.into()), gateway6),
        };
        let ends4 = packets::Ends {
            macs,
            ips: (own4, gateway4),
        };
        for v6 in [true, false] {
            lan.heard(web);
            lan.heard(from);
            let port = 5000 + u16::from(number) * 10 + u16::from(v6);
            let question = if v6 {
                packets6::udp(ends6, (port, 8053), b"who")
            } else {
                packets::udp(ends4, (port, 8053), 64, b"who")
            };
            lan.inject(from, question);
            lan.run_for(SECOND / 10);
            let came: Vec<_> = lan.heard(web);
            let came = came.iter().find_map(|frame| packets6::read_udp(frame));
            let (client, ports, question) = came.expect("a question by IPv6");
            assert_eq!(
                (client, ports.1, &question[..]),
                (gateway6, 53, &b"who"[..])
            );
            let ends = outward(&mut lan, web, 9, &gateway6.to_string());
            lan.inject(web, packets6::udp(ends, (53, ports.0), b"me"));
            lan.run_for(SECOND / 10);
            let heard = lan.heard(from);
            let answered = heard.iter().any(|frame| {
                if v6 {
                    packets6::read_udp(frame) == Some((gateway6, (8053, port), b"me".to_vec()))
                } else {
                    frame.ends_with(b"me") && frame[23] == 17
                }
            });
            assert!(answered, "{number} {v6}");
            // A connection leads there as well.
            lan.heard(web);
            let fields = tcp::Fields {
                source_port: port,
                destination_port: 8080,
                flags: tcp::Flags::SYN,
                window: 1000,
                ..tcp::Fields::default()
            };
            let syn = if v6 {
                packets6::tcp(ends6, &fields, b"")
            } else {
                packets::tcp(ends4, &fields, &[], b"")
            };
            lan.inject(from, syn);
            lan.run_for(SECOND / 10);
            let came = lan.heard(web);
            let syns = came.iter().filter_map(|frame| packets6::read(frame));
            let mut syns = syns.filter(|seen| seen.protocol == Protocol::TCP);
            let called = syns.any(|seen| {
                let segment = tcp::Segment::read(&seen.payload).unwrap();
                seen.source == gateway6 && segment.fields.destination_port == 80
            });
            assert!(called, "{number} {v6}");
        }
    }
}

#[test]
fn a_rule_follows_its_guest_to_ipv6_when_it_is_heard() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = lan.plug(Guest::raw(9, lan.start, 1500));
    let mac = lan.guest(port).mac;
    let own4 = std::net::Ipv4Addr::new(192, 168, 64, 9);
    let ends = packets::Ends {
        macs: (mac, lan.network.gateway_mac()),
        ips: (own4, lan.gateway()),
    };
    // Nobody knows of it but its IPv4 address: clients of either family come by that, from the gateway's address.
    lan.inject(port, packets::udp(ends, (5, 9), 64, b"x"));
    let guest = ForwardGuest::Port(port);
    let (tcp_rule, _) = lan.forward(rule(ForwardProtocol::Tcp, "[::]:8080", guest, 80));
    let (_, socket) = lan.forward(rule(ForwardProtocol::Udp, "[::]:8053", guest, 53));
    let socket = socket.expect("a guest with an address");
    let by_v6 = |lan: &mut Lan, number: u16| {
        let client = SocketAddr::new(v6("2001:db8::7").into(), 700 + number);
        lan.heard(port);
        lan.dial(tcp_rule, client, Server::Echo).expect("a flow");
        lan.datagram(socket, &client.to_string(), b"who");
        lan.run_for(SECOND / 10);
        let heard = lan.heard(port);
        let of = |protocol: Protocol| {
            heard.iter().any(|frame| {
                packets6::read(frame)
                    .is_some_and(|seen| seen.protocol == protocol && seen.destination == at(9))
            })
        };
        (of(Protocol::TCP), of(Protocol::UDP), heard.len())
    };
    let (tcp, udp, count) = by_v6(&mut lan, 1);
    assert!(!tcp && !udp && count >= 2);
    // It takes an IPv6 address, which its probe tells (RFC 4862): from now on clients are who they are.
    lan.inject(port, packets6::probe(mac, at(9)));
    let (tcp, udp, _) = by_v6(&mut lan, 2);
    assert!(tcp && udp);
}

#[test]
fn a_guest_that_never_spoke_is_asked_for() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = lan.plug(Guest::raw(9, lan.start, 1500));
    let mac = lan.guest(port).mac;
    // The switch knows its MAC, and nobody its address.
    lan.inject(port, packets6::probe(mac, at(99)));
    let guest = ForwardGuest::Address(IpAddr::V6(at(9)));
    let (rule, _) = lan.forward(rule(ForwardProtocol::Tcp, "[::]:8080", guest, 80));
    lan.heard(port);
    lan.dial(rule, "[2001:db8::7]:700".parse().unwrap(), Server::Echo)
        .unwrap();
    lan.run_for(Duration::from_millis(1));
    let heard = lan.heard(port);
    let (kind, _, seen) = packets6::read_icmp(&heard[0]).unwrap();
    assert_eq!(kind, icmpv6::NEIGHBOUR_SOLICITATION);
    assert_eq!(
        (seen.source, seen.destination),
        (lan.gateway6(), ndp::solicited_node(at(9)))
    );
    let ends = Ends6 {
        macs: (mac, lan.network.gateway_mac()),
        ips: (at(9), lan.gateway6()),
    };
    let answer = ndp::Neighbour::advertisement(ndp::SOLICITED | ndp::OVERRIDE, at(9), mac);
    lan.inject(port, packets6::icmp(ends, 255, answer.as_bytes().to_vec()));
    lan.run_for(SECOND / 10);
    let heard = lan.heard(port);
    let syn = packets6::read(heard.last().unwrap()).unwrap();
    assert_eq!((syn.protocol, syn.destination), (Protocol::TCP, at(9)));
    assert_eq!(syn.source, v6("2001:db8::7"));
}

#[test]
fn a_hairpin_by_datagrams() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let web = add_raw(&mut lan, 9);
    let asking = add_raw(&mut lan, 8);
    lan.heard(web);
    let guest = ForwardGuest::Port(web);
    lan.forward(rule(ForwardProtocol::Udp, "[::]:8053", guest, 53));
    let ends = outward(&mut lan, asking, 8, "fd00:0:0:64::1");
    lan.inject(asking, packets6::udp(ends, (5000, 8053), b"who"));
    lan.run_for(SECOND / 10);
    let (from, ports, question) = packets6::read_udp(&lan.heard(web)[0]).unwrap();
    assert_eq!((from, question), (lan.gateway6(), b"who".to_vec()));
    let ends = outward(&mut lan, web, 9, "fd00:0:0:64::1");
    lan.inject(web, packets6::udp(ends, (53, ports.0), b"me"));
    lan.run_for(SECOND / 10);
    let seen = packets6::read_udp(&lan.heard(asking)[0]).unwrap();
    assert_eq!(seen, (lan.gateway6(), (8053, 5000), b"me".to_vec()));
}

#[test]
fn a_silent_neighbour_is_asked_before_it_is_forgotten() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = add_raw(&mut lan, 9);
    let guest = ForwardGuest::Address(IpAddr::V6(at(9)));
    let (rule, _) = lan.forward(rule(ForwardProtocol::Tcp, "[::]:8080", guest, 80));
    let mut client = 700;
    let mut asked = |lan: &mut Lan| {
        client += 1;
        let from = SocketAddr::new(IpAddr::V6(v6("2001:db8::7")), client);
        lan.heard(port);
        lan.dial(rule, from, Server::Echo).unwrap();
        lan.run_for(Duration::from_millis(1));
        let heard = lan.heard(port);
        let messages = heard.iter().filter_map(|frame| packets6::read_icmp(frame));
        let solicited = messages
            .filter(|(kind, _, _)| *kind == icmpv6::NEIGHBOUR_SOLICITATION)
            .map(|(_, _, seen)| seen.destination);
        let called = heard.iter().filter_map(|frame| packets6::read(frame));
        let called = called.filter(|seen| seen.protocol == Protocol::TCP).count();
        (solicited.collect::<Vec<_>>(), called)
    };
    assert_eq!(asked(&mut lan), (vec![], 1), "heard a moment ago");
    lan.run_for(40 * SECOND);
    // It is called, and asked by the way. Neither is answered, not when they are repeated: nobody knows where it is.
    assert_eq!(asked(&mut lan), (vec![at(9)], 1));
    lan.run_for(10 * SECOND);
    let group = ndp::solicited_node(at(9));
    assert_eq!(asked(&mut lan), (vec![group], 0));
    introduce(&mut lan, port, 9);
    assert_eq!(asked(&mut lan), (vec![], 1));
}

#[test]
fn a_guest_that_was_silent_for_long_keeps_its_forwards() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = add_raw(&mut lan, 9);
    let mac = lan.guest(port).mac;
    let rules = [ForwardGuest::Port(port), ForwardGuest::Mac(mac)].map(|guest| {
        let (rule, _) = lan.forward(rule(ForwardProtocol::Tcp, "[::]:8080", guest, 80));
        rule
    });
    for (rule, client) in rules.into_iter().zip(700..) {
        lan.run_for(400 * SECOND);
        assert_eq!(lan.network.address6_of(lan.now, port), Some(at(9)));
        let client = SocketAddr::new(IpAddr::V6(v6("2001:db8::7")), client);
        lan.heard(port);
        assert!(lan.dial(rule, client, Server::Echo).is_some());
        lan.run_for(Duration::from_millis(1));
        // Nobody knows where it is now: it is asked for, and called when it answers.
        let seen = packets6::read(&lan.heard(port)[0]).unwrap();
        assert_eq!(seen.destination, ndp::solicited_node(at(9)));
        introduce(&mut lan, port, 9);
        lan.run_for(SECOND);
        let heard = lan.heard(port);
        let mut seen = heard.iter().filter_map(|frame| packets6::read(frame));
        assert!(seen.any(|seen| seen.protocol == Protocol::TCP));
    }
}

#[test]
fn nobody_of_the_outside_has_an_address_of_the_link() {
    let mut lan = Lan::dual(|_| {});
    let port = add_raw(&mut lan, 9);
    let ends = outward(&mut lan, port, 9, "2001:db8::1");
    lan.inject(port, packets6::udp(ends, (5000, 7), b"hello"));
    lan.run_for(SECOND);
    let (socket, _) = *lan.internet.targets.last().unwrap();
    lan.heard(port);
    for (from, comes) in [
        ("[2001:db8::2]:7", 1),
        ("[fe80::5]:7", 0),
        ("[fd00:0:0:64::8]:7", 0),
        ("[fd00:0:0:64::1]:7", 0),
        ("[::1]:7", 0),
    ] {
        let before = lan.network.drops().of(Drop::Filtered);
        lan.datagram(socket, from, b"psst");
        let came = lan.heard(port);
        let came = came.iter().filter(|f| packets6::read_udp(f).is_some());
        assert_eq!(came.count(), comes, "{from}");
        let filtered = lan.network.drops().of(Drop::Filtered) - before;
        assert_eq!(filtered, 1 - comes as u64, "{from}");
    }
    // What a router at the host's link reports, the gateway does.
    for (router, reports) in [
        ("2001:db8::fe", v6("2001:db8::fe")),
        ("fe80::fe", lan.gateway6()),
    ] {
        let error = IcmpError {
            to: "[2001:db8::1]:7".parse().unwrap(),
            from: router.parse().unwrap(),
            kind: icmpv6::UNREACHABLE,
            code: 0,
            mtu: 0,
        };
        lan.event(&Event::Error {
            socket,
            error,
            original: b"hello",
        });
        lan.run_for(SECOND / 10);
        let heard = lan.heard(port);
        let (kind, _, seen) = heard.iter().find_map(|f| packets6::read_icmp(f)).unwrap();
        assert_eq!((kind, seen.source), (icmpv6::UNREACHABLE, reports));
    }
}

#[test]
fn later_fragments_are_never_neighbour_discovery() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = add_raw(&mut lan, 9);
    let ends = outward(&mut lan, port, 9, "fd00:0:0:64::1");
    // All bytes of its body could be the type of a solicitation.
    let header = icmpv6::Header::echo(icmpv6::ECHO_REQUEST, 5, 7);
    let message = [header.as_bytes(), &[135; 4000]].concat();
    let message = packets6::summed(ends, message);
    for frame in packets6::fragments(ends, Protocol::ICMPV6, 77, &message, 1500) {
        lan.guest(port).inject(frame);
    }
    lan.run_for(SECOND);
    assert_eq!(lan.network.drops().of(Drop::NeighbourDiscovery), 0);
    let whole = joined(&lan.heard(port));
    assert_eq!((whole[0], &whole[8..]), (icmpv6::ECHO_REPLY, &message[8..]));
}

#[test]
fn a_neighbour_is_asked_for_once_a_second() {
    let mut lan = Lan::dual(|config| config.router_advertisement = false);
    let port = add_raw(&mut lan, 9);
    lan.internet.serve_udp("[2001:db8::1]:7", UdpHost::Silent);
    let ends = outward(&mut lan, port, 9, "2001:db8::1");
    lan.inject(port, packets6::udp(ends, (5000, 7), b"hello"));
    let (socket, _) = *lan.internet.targets.last().unwrap();
    lan.run_for(250 * SECOND);
    lan.datagram(socket, "[2001:db8::1]:7", b"still there?");
    // The switch forgets where it is, before its mapping ends.
    let other = lan.plug(Guest::raw(8, lan.start, 1500));
    lan.run_for(60 * SECOND);
    for (wait, expected) in [(0, 1), (0, 0), (998, 0), (2, 1), (0, 0)] {
        lan.run_for(Duration::from_millis(wait));
        lan.heard(other);
        for _ in 0..20 {
            let from = "[2001:db8::1]:7".parse().unwrap();
            lan.event(&Event::Datagram {
                socket,
                from,
                head: b"psst",
                len: 4,
                segment: None,
                ttl: 60,
            });
        }
        lan.run_for(Duration::from_micros(100));
        let heard = lan.heard(other);
        let messages = heard.iter().filter_map(|frame| packets6::read_icmp(frame));
        let asked_for = messages.filter(|(kind, ..)| *kind == icmpv6::NEIGHBOUR_SOLICITATION);
        assert_eq!(asked_for.count(), expected, "{wait}");
    }
}
