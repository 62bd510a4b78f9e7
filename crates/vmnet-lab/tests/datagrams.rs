//! UDP and echo of guests through the NAT; destinations; forwarded ports.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use smoltcp::socket::tcp::State;
use vmnet_core::{Drop, Forward, ForwardGuest, ForwardProtocol, PortId, Target};
use vmnet_lab::sim::apps::is_pattern;
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::{Guest, Lan, Server, Talk, UdpHost};
use vmnet_wire::ip::Protocol;

const SECOND: Duration = Duration::from_secs(1);

fn raw(lan: &mut Lan, to: [u8; 4]) -> (PortId, Ends) {
    let port = match lan.ports.keys().next() {
        Some(port) => *port,
        None => lan.add_raw(9),
    };
    let macs = (lan.guest(port).mac, lan.network.gateway_mac());
    (
        port,
        Ends {
            macs,
            ips: ([192, 168, 64, 9].into(), to.into()),
        },
    )
}

fn wait(lan: &mut Lan, port: PortId) -> Vec<Vec<u8>> {
    lan.run_for(Duration::from_millis(5));
    lan.heard(port)
}

#[test]
fn one_socket_for_all_peers_of_a_port() {
    let mut lan = Lan::default();
    for (address, host) in [
        ("10.0.0.1:7", UdpHost::Echo),
        ("10.0.0.2:7", UdpHost::EchoFrom(8)),
    ] {
        lan.internet.serve_udp(address, host);
    }
    let (port, first) = raw(&mut lan, [10, 0, 0, 1]);
    let (_, second) = raw(&mut lan, [10, 0, 0, 2]);
    lan.inject(port, packets::udp(first, (5000, 7), 33, b"one"));
    lan.inject(port, packets::udp(second, (5000, 7), 33, b"two"));
    assert_eq!(lan.internet.bare.len(), 1, "endpoint-independent mapping");
    let heard = wait(&mut lan, port);
    let got: Vec<_> = heard.iter().filter_map(|f| packets::read_udp(f)).collect();
    // The second answers from another port than it was asked at: endpoint-independent filtering.
    assert_eq!(
        got,
        [
            (Ipv4Addr::new(10, 0, 0, 1), (7, 5000), b"one".to_vec()),
            (Ipv4Addr::new(10, 0, 0, 2), (8, 5000), b"two".to_vec()),
        ]
    );
    assert_eq!(lan.internet.sent[0].how.ttl, 32);
    assert_eq!(heard[0][22], 54, "one hop less on the way back");
    lan.inject(port, packets::udp(first, (5001, 7), 33, b"three"));
    assert_eq!(lan.internet.bare.len(), 2);
}

#[test]
fn a_mapping_lives_five_minutes_from_its_last_use() {
    let mut lan = Lan::default();
    let (port, ends) = raw(&mut lan, [10, 0, 0, 1]);
    lan.inject(port, packets::udp(ends, (5000, 7), 64, b""));
    lan.run_for(Duration::from_secs(290));
    lan.inject(port, packets::udp(ends, (5000, 7), 64, b""));
    lan.run_for(Duration::from_secs(290));
    assert_eq!(lan.network.flows(), 1);
    lan.run_for(Duration::from_secs(20));
    assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
    assert!(lan.timeouts < 10);
}

#[test]
fn errors_about_datagrams_reach_the_guest() {
    let mut lan = Lan::default();
    lan.internet.serve_udp("10.0.0.1:7", UdpHost::Error(3, 3));
    lan.internet.serve_udp("10.0.0.1:8", UdpHost::Narrow(1400));
    let (port, ends) = raw(&mut lan, [10, 0, 0, 1]);
    lan.inject(port, packets::udp(ends, (5000, 7), 64, b"hello"));
    let heard = wait(&mut lan, port);
    let (from, kind, code, rest) = packets::read_icmp(&heard[0]).expect("an error");
    assert_eq!((from, kind, code), (Ipv4Addr::new(10, 0, 0, 1), 3, 3));
    assert_eq!(
        rest[4 + 12..4 + 24],
        [192, 168, 64, 9, 10, 0, 0, 1, 0x13, 0x88, 0, 7]
    );
    // Too large for the way, and not to be cut.
    let mut frame = packets::udp(ends, (5000, 8), 64, &[1; 1450]);
    let id = 9;
    let header = vmnet_wire::ipv4::Fields {
        source: ends.ips.0,
        destination: ends.ips.1,
        protocol: Protocol::UDP,
        ttl: 64,
        id,
        dont_fragment: true,
    };
    let bytes = vmnet_wire::ipv4::Header::new(&header, frame.len() - 34);
    frame[14..34].copy_from_slice(zerocopy::IntoBytes::as_bytes(&bytes));
    lan.inject(port, frame);
    let heard = wait(&mut lan, port);
    let (from, kind, code, rest) = packets::read_icmp(&heard[0]).expect("an error");
    assert_eq!((from, kind, code), (lan.gateway(), 3, 4));
    assert_eq!(rest[2..4], 1400u16.to_be_bytes(), "the next hop's MTU");
}

#[test]
fn hops_end_here() {
    let mut lan = Lan::default();
    lan.internet.pingable.push([10, 0, 0, 1].into());
    let (port, ends) = raw(&mut lan, [10, 0, 0, 1]);
    for frame in [
        packets::udp(ends, (5000, 7), 1, b"x"),
        packets::echo(ends, 1, 5, 5, b"x"),
    ] {
        lan.inject(port, frame);
        let heard = wait(&mut lan, port);
        let (from, kind, code, _) = packets::read_icmp(&heard[0]).expect("time exceeded");
        assert_eq!((from, kind, code), (lan.gateway(), 11, 0));
    }
    assert!(lan.internet.sent.is_empty() && lan.network.flows() == 0);
}

#[test]
fn the_gateways_services_are_the_end_of_the_way() {
    let mut lan = Lan::new(1500, |config| config.host_loopback = true);
    lan.internet.serve_udp("127.0.0.1:7", UdpHost::Echo);
    let (port, ends) = raw(&mut lan, [192, 168, 64, 1]);
    for ttl in [1, 0] {
        lan.inject(port, packets::udp(ends, (5000, 7), ttl, b"x"));
        let heard = wait(&mut lan, port);
        let (from, ports, payload) = packets::read_udp(&heard[0]).expect("an answer");
        assert_eq!((from, ports), (lan.gateway(), (7, 5000)));
        assert_eq!(payload, b"x");
    }
    assert!(lan.internet.sent.iter().all(|sent| sent.how.ttl == 1));
}

#[test]
fn no_errors_about_errors_or_to_many() {
    let mut lan = Lan::default();
    let (port, ends) = raw(&mut lan, [10, 0, 0, 1]);
    let (_, many) = raw(&mut lan, [224, 0, 0, 251]);
    let error = packets::ip(ends, Protocol::ICMPV4, 1, &[3, 3, 0xfc, 0xfc, 0, 0, 0, 0]);
    for frame in [error, packets::udp(many, (5353, 5353), 1, b"x")] {
        lan.inject(port, frame);
        assert!(wait(&mut lan, port).is_empty());
    }
    assert_eq!(lan.network.drops().of(Drop::Expired), 2);
}

#[test]
fn pings_of_the_outside() {
    let mut lan = Lan::default();
    lan.internet.pingable.push([10, 0, 0, 1].into());
    let (port, ends) = raw(&mut lan, [10, 0, 0, 1]);
    lan.inject(port, packets::echo(ends, 64, 5, 6, b"payload"));
    let heard = wait(&mut lan, port);
    let (from, kind, _, rest) = packets::read_icmp(&heard[0]).expect("a reply");
    assert_eq!((from, kind), (Ipv4Addr::new(10, 0, 0, 1), 0));
    assert_eq!(
        rest, b"\x00\x05\x00\x06payload",
        "the guest's own identifier"
    );
    let (_, nobody) = raw(&mut lan, [10, 0, 0, 2]);
    lan.inject(port, packets::echo(nobody, 64, 5, 7, b"payload"));
    let heard = wait(&mut lan, port);
    let (from, kind, code, rest) = packets::read_icmp(&heard[0]).expect("an error");
    assert_eq!((from, kind, code), (Ipv4Addr::new(10, 0, 0, 2), 3, 1));
    assert_eq!(
        rest[4 + 20..],
        [8, 0, rest[26], rest[27], 0, 5, 0, 7],
        "quotes the request"
    );
    assert_eq!(lan.network.flows(), 1, "one socket for one identifier");
    lan.run_for(Duration::from_secs(61));
    assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
}

#[test]
fn large_datagrams_in_fragments_both_ways() {
    let mut lan = Lan::default();
    lan.internet.serve_udp("10.0.0.1:7", UdpHost::Echo);
    let (port, ends) = raw(&mut lan, [10, 0, 0, 1]);
    let payload: Vec<u8> = (0..65_000u32).map(|at| (at % 251) as u8).collect();
    let datagram = packets::udp_packet(ends, (5000, 7), &payload);
    let mut frames = packets::fragments(ends, Protocol::UDP, 77, &datagram, 1500);
    frames.reverse();
    frames.swap(3, 20);
    for frame in frames {
        lan.guest(port).inject(frame);
    }
    let mut heard = wait(&mut lan, port);
    assert_eq!(lan.internet.sent.len(), 1);
    assert_eq!(lan.internet.sent[0].payload, payload);
    heard.retain(|frame| frame[12..14] == [8, 0]);
    let mut whole = vec![0; datagram.len()];
    let id = heard[0][18..20].to_vec();
    for frame in &heard {
        let packet = vmnet_wire::ipv4::Packet::read(&frame[14..], frame.len() - 14).unwrap();
        assert_eq!(frame[18..20], id);
        let at = packet.header.fragment_offset();
        whole[at..at + packet.payload_len].copy_from_slice(packet.payload);
    }
    assert_eq!(whole[8..], payload);
}

#[test]
fn fragments_of_two_packets_are_never_mixed() {
    let mut lan = Lan::default();
    lan.internet.serve_udp("10.0.0.1:7", UdpHost::Echo);
    lan.internet.pingable.push([10, 0, 0, 1].into());
    let (port, ends) = raw(&mut lan, [10, 0, 0, 1]);
    let (_, gateway) = raw(&mut lan, [192, 168, 64, 1]);
    let body = [1; 3000];
    for round in 0..3 {
        let udp = |from| (Protocol::UDP, packets::udp_packet(ends, (from, 7), &body));
        let echo = |id| (Protocol::ICMPV4, packets::echo_packet(id, round, &body));
        // Two mappings, two flows of echoes and the gateway itself: each sends in fragments.
        for (number, (ends, (protocol, packet))) in [
            (ends, udp(5000)),
            (ends, udp(5001)),
            (ends, echo(1)),
            (ends, echo(2)),
            (gateway, echo(3)),
        ]
        .into_iter()
        .enumerate()
        {
            let id = round * 8 + u16::try_from(number).unwrap();
            for frame in packets::fragments(ends, protocol, id, &packet, 1500) {
                lan.guest(port).inject(frame);
            }
        }
    }
    let heard = wait(&mut lan, port);
    let mut ids: Vec<u16> = heard
        .iter()
        .filter_map(|frame| vmnet_wire::ipv4::Packet::read(&frame[14..], frame.len() - 14).ok())
        .filter(|packet| packet.header.is_fragment() && packet.header.fragment_offset() == 0)
        .map(|packet| packet.header.id())
        .collect();
    assert_eq!(ids.len(), 15);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(
        ids.len(),
        15,
        "each packet has an identification of its own"
    );
}

#[test]
fn what_never_leaves() {
    let mut lan = Lan::new(1500, |config| config.host_loopback = true);
    lan.network.set_outside(Some([10, 0, 0, 99].into()));
    for to in [
        [127, 0, 0, 1],
        [224, 0, 0, 251],
        [255; 4],
        [0; 4],
        [0, 1, 2, 3],
        [240, 0, 0, 1],
        [192, 168, 64, 77],
    ] {
        let (port, ends) = raw(&mut lan, to);
        lan.inject(port, packets::udp(ends, (5000, 7), 64, b"x"));
        lan.inject(port, packets::echo(ends, 64, 5, 5, b"x"));
        let fields = vmnet_wire::tcp::Fields {
            source_port: 5000,
            destination_port: 80,
            flags: vmnet_wire::tcp::Flags::SYN,
            ..Default::default()
        };
        lan.inject(port, packets::tcp(ends, &fields, &[], &[]));
    }
    assert!(
        lan.internet.sent.is_empty() && lan.internet.targets.is_empty(),
        "{:?}",
        lan.internet.targets
    );
    assert_eq!(lan.network.drops().of(Drop::Destination), 21);
}

fn ask_gateway(lan: &mut Lan, port: u16) -> (Talk, bool) {
    let guest = match lan.ports.keys().next() {
        Some(port) => *port,
        None => lan.add_guest(2),
    };
    let to = format!("{}:{port}", lan.gateway());
    let from = 50_000 + u16::try_from(lan.internet.targets.len()).unwrap();
    let handle = lan.guest(guest).connect(Lan::v4(&to), from, 4096);
    let mut talk = Talk::new(guest, handle, 100);
    let over = lan.run_until(SECOND, |lan| talk.is_over(lan));
    (talk, over)
}

#[test]
fn services_of_the_host_by_the_gateways_address() {
    let mut lan = Lan::default();
    lan.internet.serve("10.0.0.99:80", Server::Echo);
    lan.internet.serve("127.0.0.1:81", Server::Echo);
    // Without an outside address nothing is there.
    assert_eq!(ask_gateway(&mut lan, 80).0.read.len(), 0);
    assert!(lan.internet.targets.is_empty());
    lan.network.set_outside(Some([10, 0, 0, 99].into()));
    assert_eq!(ask_gateway(&mut lan, 80).0.read.len(), 100);
    assert_eq!(
        ask_gateway(&mut lan, 81).0.read.len(),
        0,
        "the host's loopback stays its own"
    );
}

#[test]
fn the_hosts_loopback_on_demand() {
    let mut lan = Lan::new(1500, |config| config.host_loopback = true);
    lan.network.set_outside(Some([10, 0, 0, 99].into()));
    lan.internet.serve("10.0.0.99:80", Server::Echo);
    lan.internet.serve("127.0.0.1:81", Server::Echo);
    assert_eq!(ask_gateway(&mut lan, 81).0.read.len(), 100);
    assert_eq!(
        ask_gateway(&mut lan, 80).0.read.len(),
        100,
        "after the loopback has refused"
    );
    let (talk, over) = ask_gateway(&mut lan, 82);
    assert!(over && talk.read.is_empty(), "refused by both is refused");
    lan.run_for(SECOND);
    assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
}

fn rule(protocol: ForwardProtocol, guest: ForwardGuest) -> Forward {
    Forward {
        protocol,
        listen: "0.0.0.0:8080".parse().unwrap(),
        guest,
        guest_port: 80,
    }
}

#[test]
fn a_forwarded_tcp_port() {
    let mut lan = Lan::default();
    let guest = lan.add_guest(2);
    let address = ForwardGuest::Address([192, 168, 64, 2].into());
    let (rule, _) = lan.forward(rule(ForwardProtocol::Tcp, address));
    for (client, seen) in [
        ("203.0.113.9:7000", "203.0.113.9:7000"),
        ("127.0.0.1:7001", "192.168.64.1:7001"),
        ("192.168.64.2:7002", "192.168.64.1:7002"),
    ] {
        let handle = lan.guest(guest).listen(80, 64 << 10);
        let socket = lan
            .dial(rule, client.parse().unwrap(), Server::Source(100_000))
            .expect("served");
        let mut talk = Talk::new(guest, handle, 100_000);
        assert!(
            lan.run_until(SECOND, |lan| talk.state(lan) == State::Established),
            "{client}"
        );
        let peer = lan.guest(guest).tcp(handle).remote_endpoint().unwrap();
        assert_eq!(peer.to_string(), seen);
        assert!(lan.run_until(20 * SECOND, |lan| talk.is_over(lan)
            && lan.network.flows() == 0));
        assert!(talk.read.len() == 100_000 && is_pattern(&talk.read));
        let read = &lan.internet.last().read;
        assert!(read.len() == 100_000 && is_pattern(read));
        assert!(!lan.internet.streams.contains_key(&socket));
    }
    // Nobody listens: the client hears of it at once.
    lan.dial(rule, "203.0.113.9:7003".parse().unwrap(), Server::Manual)
        .expect("tried");
    lan.run_for(Duration::from_millis(100));
    assert!(lan.internet.past.last().unwrap().1, "reset");
    assert_eq!(lan.contract.living(), 0);
}

#[test]
fn a_forward_to_a_guest_that_is_not_there() {
    let mut lan = Lan::default();
    let address = ForwardGuest::Address([192, 168, 64, 77].into());
    let (rule, _) = lan.forward(rule(ForwardProtocol::Tcp, address));
    let listener = lan.add_raw(8);
    lan.dial(rule, "203.0.113.9:7003".parse().unwrap(), Server::Manual)
        .expect("tried");
    lan.run_for(60 * SECOND);
    assert!(lan.internet.past.last().unwrap().1, "reset in the end");
    assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
    let heard = lan.heard(listener);
    assert!(
        !heard.is_empty() && heard.iter().all(|frame| frame[12..14] == [8, 6]),
        "only asked for by ARP"
    );
}

#[test]
fn hairpin() {
    let mut lan = Lan::default();
    let (client, server) = (lan.add_guest(2), lan.add_guest(3));
    let address = ForwardGuest::Address([192, 168, 64, 3].into());
    lan.forward(rule(ForwardProtocol::Tcp, address));
    let served = lan.guest(server).listen(80, 64 << 10);
    let handle = lan
        .guest(client)
        .connect(Lan::v4("192.168.64.1:8080"), 50_000, 64 << 10);
    let mut asks = Talk::new(client, handle, 50_000);
    let mut serves = Talk::new(server, served, 70_000);
    serves.close_last = true;
    let over = lan.run_until(20 * SECOND, |lan| {
        asks.is_over(lan) & serves.is_over(lan) && lan.network.flows() == 0
    });
    assert!(
        over,
        "{:?} {:?}",
        asks.state(&mut lan),
        serves.state(&mut lan)
    );
    assert_eq!((asks.read.len(), serves.read.len()), (70_000, 50_000));
    assert!(is_pattern(&asks.read) && is_pattern(&serves.read));
    assert_eq!(lan.contract.living(), 0);
}

#[test]
fn a_forwarded_udp_port() {
    let mut lan = Lan::default();
    let (port, _) = raw(&mut lan, [0; 4]);
    let address = ForwardGuest::Address([192, 168, 64, 9].into());
    let (id, socket) = lan.forward(rule(ForwardProtocol::Udp, address));
    let socket = socket.expect("a socket");
    lan.datagram(socket, "203.0.113.9:7000", b"question");
    lan.datagram(socket, "127.0.0.1:7001", b"from the host");
    let heard: Vec<_> = lan
        .heard(port)
        .iter()
        .filter_map(|f| packets::read_udp(f))
        .collect();
    assert_eq!(
        heard,
        [
            (
                Ipv4Addr::new(203, 0, 113, 9),
                (7000, 80),
                b"question".to_vec()
            ),
            (
                Ipv4Addr::new(192, 168, 64, 1),
                (7001, 80),
                b"from the host".to_vec()
            ),
        ]
    );
    // Answers leave by the same socket, to the real clients.
    let (_, ends) = raw(&mut lan, [203, 0, 113, 9]);
    lan.inject(port, packets::udp(ends, (80, 7000), 64, b"answer"));
    let (_, ends) = raw(&mut lan, [192, 168, 64, 1]);
    lan.inject(port, packets::udp(ends, (80, 7001), 64, b"to the host"));
    let sent: Vec<_> = lan
        .internet
        .sent
        .iter()
        .map(|s| (s.socket, s.how.to.to_string()))
        .collect();
    assert_eq!(
        sent,
        [
            (socket, "203.0.113.9:7000".into()),
            (socket, "127.0.0.1:7001".into())
        ]
    );
    lan.run_for(1000 * SECOND);
    assert_eq!(lan.network.flows(), 1, "it lives as long as its rule");
    let mut out = vmnet_core::Outbox::new();
    lan.network.remove_forward(id, &mut out);
    assert_eq!(out.take(), Some(vmnet_core::Action::Close { socket }));
    assert_eq!(lan.network.flows(), 0);
}

/// A guest with a DHCP client and a UDP socket at port 80; its address.
fn boot(lan: &mut Lan, port: PortId, number: u8) -> (Ipv4Addr, smoltcp::iface::SocketHandle) {
    let (now, mtu) = (lan.start, lan.mtu);
    *lan.guest(port) = Guest::new(number, now, mtu);
    lan.guest(port).start_dhcp();
    assert!(lan.run_until(30 * SECOND, |lan| lan.guest(port).lease.is_some()));
    let address = lan.guest(port).address().unwrap();
    (address, lan.guest(port).bind_udp(80))
}

fn heard_by(
    lan: &mut Lan,
    port: PortId,
    handle: smoltcp::iface::SocketHandle,
) -> Result<Vec<u8>, smoltcp::socket::udp::RecvError> {
    let socket = lan.guest(port).udp(handle);
    socket.recv().map(|(bytes, _)| bytes.to_vec())
}

#[test]
fn a_forwarded_udp_port_follows_its_guest() {
    let mut lan = Lan::default();
    let guest = Guest::raw(2, lan.start, lan.mtu);
    let port = lan.plug(guest);
    let (first, handle) = boot(&mut lan, port, 2);
    let (id, socket) = lan.forward(rule(ForwardProtocol::Udp, ForwardGuest::Port(port)));
    let socket = socket.expect("a socket");
    lan.datagram(socket, "203.0.113.9:7000", b"to the first");
    assert_eq!(heard_by(&mut lan, port, handle).unwrap(), b"to the first");
    // The guest is replaced by one with another card, and so another address.
    let (second, handle) = boot(&mut lan, port, 3);
    assert_ne!(first, second);
    lan.datagram(socket, "203.0.113.9:7000", b"to the second");
    assert_eq!(heard_by(&mut lan, port, handle).unwrap(), b"to the second");
    let client = (smoltcp::wire::IpAddress::v4(203, 0, 113, 9), 7000);
    lan.guest(port)
        .udp(handle)
        .send_slice(b"answer", client)
        .unwrap();
    lan.run_for(Duration::from_millis(5));
    let sent = lan.internet.sent.last().expect("an answer");
    assert_eq!(
        (sent.socket, sent.payload.as_slice()),
        (socket, &b"answer"[..])
    );
    let mut out = vmnet_core::Outbox::new();
    assert_eq!(
        lan.network.forward_socket(lan.now, id, &mut out),
        Some(socket),
        "one socket as long as the rule"
    );
    assert_eq!((lan.network.flows(), lan.contract.living()), (1, 1));
}

/// A guest that moves all the time makes the gateway look at its many rules now and then, and not at each packet.
#[test]
fn many_rules_follow_a_restless_guest_at_their_leisure() {
    let mut lan = Lan::default();
    let (port, _) = raw(&mut lan, [0; 4]);
    let guest = lan.guest(port).mac;
    let gateway = lan.gateway();
    let speak_from = |lan: &mut Lan, last: u8| {
        let hello = packets::arp_request(guest, (guest, [192, 168, 64, last].into()), gateway);
        lan.inject(port, hello);
        lan.heard(port);
    };
    let mut socket = None;
    for number in 0..500 {
        let rule = Forward {
            listen: SocketAddr::from(([0, 0, 0, 0], 10_000 + number)),
            ..rule(ForwardProtocol::Udp, ForwardGuest::Mac(guest))
        };
        socket = lan.forward(rule).1;
    }
    let led_to = |lan: &mut Lan| {
        lan.datagram(socket.unwrap(), "203.0.113.9:7000", b"x");
        let heard = lan.heard(port);
        heard.last().map(|frame| frame[14 + 16 + 3])
    };
    lan.run_for(SECOND);
    speak_from(&mut lan, 10);
    assert_eq!(led_to(&mut lan), Some(10), "at once");
    for last in [11, 12, 13, 14] {
        speak_from(&mut lan, last);
        assert_eq!(led_to(&mut lan), Some(10), "not again so soon");
    }
    // Nothing has to happen for it.
    lan.run_for(Duration::from_millis(20));
    assert_eq!(led_to(&mut lan), Some(14));
}

#[test]
fn a_forwarded_udp_port_finds_its_address_at_another_card() {
    let mut lan = Lan::default();
    let (port, _) = raw(&mut lan, [0; 4]);
    let address = ForwardGuest::Address([192, 168, 64, 9].into());
    let (_, socket) = lan.forward(rule(ForwardProtocol::Udp, address));
    lan.datagram(socket.unwrap(), "203.0.113.9:7000", b"one");
    assert_eq!(lan.heard(port).len(), 1);
    let new = lan.add_raw(10);
    let mac = lan.guest(new).mac;
    let gateway = lan.gateway();
    let hello = packets::arp_request(mac, (mac, [192, 168, 64, 9].into()), gateway);
    lan.inject(new, hello);
    lan.heard(port);
    lan.heard(new);
    lan.datagram(socket.unwrap(), "203.0.113.9:7000", b"two");
    assert_eq!((lan.heard(port).len(), lan.heard(new).len()), (0, 1));
}

#[test]
fn two_rules_lead_to_one_udp_port() {
    let mut lan = Lan::default();
    let (port, ends) = raw(&mut lan, [203, 0, 113, 9]);
    let address = ForwardGuest::Address([192, 168, 64, 9].into());
    let (first, one) = lan.forward(rule(ForwardProtocol::Udp, address));
    let (_, two) = lan.forward(Forward {
        listen: "0.0.0.0:9090".parse().unwrap(),
        ..rule(ForwardProtocol::Udp, address)
    });
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one, two);
    for socket in [one, two] {
        lan.datagram(socket, "203.0.113.9:7000", b"x");
        assert_eq!(lan.heard(port).len(), 1);
    }
    lan.unforward(first);
    lan.datagram(two, "203.0.113.9:7000", b"x");
    assert_eq!(lan.heard(port).len(), 1);
    lan.inject(port, packets::udp(ends, (80, 7000), 64, b"answer"));
    assert_eq!(lan.internet.sent.last().unwrap().socket, two);
    assert_eq!((lan.network.flows(), lan.contract.living()), (1, 1));
}

/// The last datagram that left: by which socket, to whom.
fn left(lan: &Lan) -> (vmnet_core::SocketId, String) {
    let sent = lan.internet.sent.last().expect("one left");
    (sent.socket, sent.how.to.to_string())
}

#[test]
fn answers_leave_by_the_rule_that_the_client_came_by() {
    let mut lan = Lan::default();
    let (port, _) = raw(&mut lan, [0; 4]);
    let address = ForwardGuest::Address([192, 168, 64, 9].into());
    let mut rules = Vec::new();
    for listen in ["0.0.0.0:8080", "0.0.0.0:9090", "127.0.0.1:9091"] {
        let listen = listen.parse().unwrap();
        let rule = rule(ForwardProtocol::Udp, address);
        let (id, socket) = lan.forward(Forward { listen, ..rule });
        rules.push((id, socket.unwrap()));
    }
    // Three clients by three rules, among them one client by two, and one whose address the guest cannot know.
    let came = [
        (rules[1].1, "203.0.113.9:7000"),
        (rules[0].1, "203.0.113.8:7000"),
        (rules[0].1, "203.0.113.9:7000"),
        (rules[2].1, "127.0.0.1:7000"),
        (rules[1].1, "127.0.0.1:7000"),
    ];
    let mut seen = Vec::new();
    for (socket, client) in came {
        for _ in 0..2 {
            lan.datagram(socket, client, b"question");
            let heard = lan.heard(port);
            let (from, (client_port, _), _) = packets::read_udp(&heard[0]).expect("a datagram");
            seen.push((from, client_port));
        }
    }
    for pair in seen.chunks(2) {
        assert_eq!(pair[0], pair[1], "a client stays who it is");
    }
    let mut different: Vec<_> = seen.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), came.len(), "nobody is taken for another");
    assert_eq!(seen[0], (Ipv4Addr::new(203, 0, 113, 9), 7000));
    for (index, (socket, client)) in came.into_iter().enumerate() {
        let (address, client_port) = seen[2 * index];
        let (_, ends) = raw(&mut lan, address.octets());
        lan.inject(port, packets::udp(ends, (80, client_port), 64, b"answer"));
        assert_eq!(left(&lan), (socket, client.to_owned()));
    }
    // Whom the guest speaks to first is spoken to by the first rule's socket.
    let (_, ends) = raw(&mut lan, [203, 0, 113, 1]);
    lan.inject(port, packets::udp(ends, (80, 53), 64, b"hello"));
    assert_eq!(left(&lan), (rules[0].1, "203.0.113.1:53".to_owned()));
    // The first rule goes: its clients are nobody's, the others' stay.
    lan.unforward(rules[0].0);
    let (_, ends) = raw(&mut lan, [203, 0, 113, 9]);
    lan.inject(port, packets::udp(ends, (80, seen[0].1), 64, b"answer"));
    assert_eq!(left(&lan), (rules[1].1, "203.0.113.9:7000".to_owned()));
    assert_eq!(lan.contract.living(), 2);
}

#[test]
fn a_rule_that_follows_its_guest_away_leaves_the_port_to_others() {
    let mut lan = Lan::default();
    let guest = Guest::raw(2, lan.start, lan.mtu);
    let port = lan.plug(guest);
    let (first, _) = boot(&mut lan, port, 2);
    let (_, follower) = lan.forward(rule(ForwardProtocol::Udp, ForwardGuest::Port(port)));
    let address = ForwardGuest::Address(first.into());
    let (_, stayer) = lan.forward(Forward {
        listen: "0.0.0.0:9090".parse().unwrap(),
        ..rule(ForwardProtocol::Udp, address)
    });
    let (second, handle) = boot(&mut lan, port, 3);
    assert_ne!(first, second);
    lan.datagram(follower.unwrap(), "203.0.113.9:7000", b"follows");
    assert_eq!(heard_by(&mut lan, port, handle).unwrap(), b"follows");
    // Somebody else has the first address now.
    let other = lan.add_raw(8);
    let macs = (lan.guest(other).mac, lan.network.gateway_mac());
    let ips = (first, Ipv4Addr::new(203, 0, 113, 9));
    lan.inject(
        other,
        packets::udp(Ends { macs, ips }, (80, 7000), 64, b"x"),
    );
    assert_eq!(left(&lan).0, stayer.unwrap());
}

/// A guest with a UDP socket of its own.
fn udp_guest(lan: &mut Lan, number: u8, port: u16) -> (PortId, smoltcp::iface::SocketHandle) {
    let guest = lan.add_guest(number);
    let handle = lan.guest(guest).bind_udp(port);
    // From now on it is known where it is.
    let anybody = (smoltcp::wire::IpAddress::v4(10, 0, 0, 1), 9);
    let socket = lan.guest(guest).udp(handle);
    socket.send_slice(b"hello", anybody).unwrap();
    lan.run_for(SECOND);
    (guest, handle)
}

#[test]
fn udp_hairpin() {
    let mut lan = Lan::default();
    let (client, asks) = udp_guest(&mut lan, 2, 5000);
    let (server, serves) = udp_guest(&mut lan, 3, 80);
    let address = ForwardGuest::Address([192, 168, 64, 3].into());
    for listen in ["0.0.0.0:8080", "0.0.0.0:9090"] {
        let listen = listen.parse().unwrap();
        let rule = rule(ForwardProtocol::Udp, address);
        lan.forward(Forward { listen, ..rule });
    }
    for listen in [8080u16, 9090] {
        for round in 0..2 {
            let to = (smoltcp::wire::IpAddress::v4(192, 168, 64, 1), listen);
            let question = format!("question {round} at {listen}");
            let socket = lan.guest(client).udp(asks);
            socket.send_slice(question.as_bytes(), to).unwrap();
            lan.run_for(SECOND);
            let socket = lan.guest(server).udp(serves);
            let (heard, from) = socket.recv().map(|(b, from)| (b.to_vec(), from)).unwrap();
            assert_eq!(heard, question.as_bytes());
            assert_eq!(
                from.endpoint.addr, to.0,
                "the server knows it as the gateway"
            );
            let socket = lan.guest(server).udp(serves);
            socket.send_slice(b"answer", from.endpoint).unwrap();
            lan.run_for(SECOND);
            let socket = lan.guest(client).udp(asks);
            let (heard, from) = socket.recv().map(|(b, from)| (b.to_vec(), from)).unwrap();
            assert_eq!(heard, b"answer");
            assert_eq!(
                (from.endpoint.addr, from.endpoint.port),
                to,
                "from where it was asked"
            );
        }
    }
    let flows = lan.network.flows();
    assert_eq!(flows, 3, "two rules and the client's mapping");
}

#[test]
fn a_guest_reaches_its_own_forwarded_port() {
    let mut lan = Lan::default();
    let (guest, serves) = udp_guest(&mut lan, 2, 80);
    let asks = lan.guest(guest).bind_udp(5000);
    let address = ForwardGuest::Address([192, 168, 64, 2].into());
    lan.forward(rule(ForwardProtocol::Udp, address));
    let to = (smoltcp::wire::IpAddress::v4(192, 168, 64, 1), 8080);
    let socket = lan.guest(guest).udp(asks);
    socket.send_slice(b"question", to).unwrap();
    lan.run_for(SECOND);
    let socket = lan.guest(guest).udp(serves);
    let from = socket.recv().map(|(_, from)| from.endpoint).unwrap();
    socket.send_slice(b"answer", from).unwrap();
    lan.run_for(SECOND);
    assert_eq!(heard_by(&mut lan, guest, asks).unwrap(), b"answer");
}

#[test]
fn a_guest_silent_for_long_is_asked_for_again() {
    let mut lan = Lan::default();
    let guest = lan.add_guest(2);
    let other = lan.add_raw(8);
    let address = ForwardGuest::Address([192, 168, 64, 2].into());
    let (_, socket) = lan.forward(rule(ForwardProtocol::Udp, address));
    let handle = lan.guest(guest).bind_udp(80);
    lan.datagram(socket.unwrap(), "203.0.113.9:7000", b"lost");
    lan.run_for(SECOND);
    lan.datagram(socket.unwrap(), "203.0.113.9:7000", b"heard");
    let got = lan
        .guest(guest)
        .udp(handle)
        .recv()
        .map(|(bytes, _)| bytes.to_vec());
    assert_eq!(got.as_deref(), Ok(&b"heard"[..]));
    assert!(
        lan.heard(other)
            .iter()
            .all(|frame| packets::read_udp(frame).is_none())
    );
}

#[test]
fn only_what_is_needed_is_opened() {
    let mut lan = Lan::default();
    let (port, ends) = raw(&mut lan, [10, 0, 0, 1]);
    lan.inject(port, packets::udp(ends, (5000, 7), 64, b""));
    assert_eq!(lan.internet.targets.len(), 1);
    assert!(matches!(
        lan.internet.targets[0].1,
        Target::Udp { v6: false }
    ));
    assert_eq!(
        lan.internet.sent[0].payload, b"",
        "an empty datagram is one"
    );
}
