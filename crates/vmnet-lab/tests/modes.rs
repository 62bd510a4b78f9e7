//! What a network is configured to be: shared, host, private, and between these.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::socket::tcp::State;
use vmnet_core::{Config, Dhcp, Dns, Drop, Forward, ForwardGuest, ForwardProtocol, Ipv4, PortId};
use vmnet_lab::sim::lan::LEASE;
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::{Guest, Lan, Server, Talk, UdpHost};
use vmnet_wire::ip::Protocol;
use vmnet_wire::tcp::{Fields, Flags};

const SECOND: Duration = Duration::from_secs(1);

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 64, last)
}

fn host_mode(config: &mut Config) {
    (config.dns, config.nat44) = (Dns::Local, false);
}

fn private(config: &mut Config) {
    (config.ipv4, config.dhcp) = (None, None);
    (config.dns, config.nat44) = (Dns::Off, false);
}

/// A guest with a DHCP client, and whether it got a lease.
fn dhcp_guest(lan: &mut Lan, number: u8) -> (PortId, bool) {
    let mut guest = Guest::new(number, lan.start, 1500);
    guest.start_dhcp();
    let port = lan.plug(guest);
    let leased = lan.run_until(5 * SECOND, |lan| lan.guest(port).lease.is_some());
    (port, leased)
}

/// A raw guest at 192.168.64.9 that speaks to `to` by way of the gateway.
fn raw(lan: &mut Lan, to: impl Into<Ipv4Addr>) -> (PortId, Ends) {
    let port = lan.add_raw(9);
    let ends = Ends {
        macs: (lan.guest(port).mac, lan.network.gateway_mac()),
        ips: (at(9), to.into()),
    };
    (port, ends)
}

/// ICMP messages among what a guest has heard: from whom, type, code.
fn icmp(lan: &mut Lan, port: PortId) -> Vec<(Ipv4Addr, u8, u8)> {
    let heard = lan.heard(port);
    let messages = heard.iter().filter_map(|frame| packets::read_icmp(frame));
    messages
        .map(|(from, kind, code, _)| (from, kind, code))
        .collect()
}

/// What a question is answered with: the response code, and an address.
fn ask(lan: &mut Lan, port: PortId, ends: Ends, name: &str) -> Option<(u8, Option<Ipv4Addr>)> {
    let question = packets::dns_question(7, name);
    lan.heard(port);
    lan.inject(port, packets::udp(ends, (5353, 53), 64, &question));
    let heard = lan.heard(port);
    let (_, _, answer) = heard.iter().find_map(|frame| packets::read_udp(frame))?;
    Some((answer[3] & 15, packets::dns_address(&answer)))
}

// ---- host mode -----------------------------------------------------------------------------

#[test]
fn a_host_network_refuses_the_outside_at_once() {
    let mut lan = Lan::new(1500, host_mode);
    lan.network.set_outside(Some([10, 0, 0, 99].into()));
    lan.internet.serve("203.0.113.5:80", Server::Echo);
    lan.internet.serve_udp("203.0.113.5:7", UdpHost::Echo);
    lan.internet.pingable.push([203, 0, 113, 5].into());
    let (port, ends) = raw(&mut lan, [203, 0, 113, 5]);
    let syn = Fields {
        source_port: 5000,
        destination_port: 80,
        flags: Flags::SYN,
        ..Fields::default()
    };
    let packets = [
        packets::tcp(ends, &syn, &[], &[]),
        packets::udp(ends, (5000, 7), 64, b"x"),
        packets::echo(ends, 64, 5, 5, b"x"),
        packets::ip(ends, Protocol(132), 64, b"12345678"),
        // It would not have been forwarded, so it does not expire here either.
        packets::udp(ends, (5000, 7), 1, b"traceroute"),
    ];
    for (count, packet) in packets.into_iter().enumerate() {
        lan.inject(port, packet);
        let said = icmp(&mut lan, port);
        assert_eq!(said, [(lan.gateway(), 3, 13)], "packet {count}");
        assert_eq!(lan.network.drops().of(Drop::NoWayOut), count as u64 + 1);
    }
    // The host's own outside address is outside as well, and multicast is not worth an answer.
    for (to, said) in [([10, 0, 0, 99], 1), ([224, 0, 0, 251], 0)] {
        let ends = Ends {
            ips: (ends.ips.0, to.into()),
            ..ends
        };
        lan.inject(port, packets::udp(ends, (5000, 7), 64, b"x"));
        assert_eq!(icmp(&mut lan, port).len(), said);
    }
    assert!(lan.internet.targets.is_empty() && lan.network.flows() == 0);
    // A program hears of it without waiting.
    let guest = lan.add_guest(2);
    lan.guest(guest).listening = true;
    let before = lan.now;
    lan.guest(guest)
        .connect(Lan::v4("203.0.113.5:80"), 50_000, 4096);
    assert!(lan.run_until(SECOND, |lan| !icmp(lan, guest).is_empty()));
    assert!(lan.now - before < Duration::from_millis(1));
}

#[test]
fn a_host_network_has_its_gateway() {
    let mut lan = Lan::new(1500, host_mode);
    lan.network.set_outside(Some([10, 0, 0, 99].into()));
    lan.internet.serve("10.0.0.99:80", Server::Echo);
    lan.internet.serve_udp("10.0.0.99:7", UdpHost::Echo);
    let (guest, leased) = dhcp_guest(&mut lan, 2);
    assert!(leased);
    let lease = lan.guest(guest).lease.clone().expect("a lease");
    assert_eq!(lease.router, None, "there is no way out to name");
    assert_eq!(lease.dns_servers.first(), Some(&lan.gateway()));
    // A service of the host, by TCP and UDP.
    let handle = lan
        .guest(guest)
        .connect(Lan::v4("192.168.64.1:80"), 50_000, 4096);
    let mut talk = Talk::new(guest, handle, 10_000);
    assert!(lan.run_until(5 * SECOND, |lan| talk.is_over(lan)));
    assert_eq!(talk.read.len(), 10_000);
    let gateway = lan.gateway();
    let (port, ends) = raw(&mut lan, gateway);
    lan.inject(port, packets::udp(ends, (5000, 7), 64, b"there?"));
    lan.run_for(SECOND);
    let heard = lan.heard(port);
    let (from, ports, payload) = packets::read_udp(&heard[0]).expect("an answer");
    assert_eq!((from, ports), (lan.gateway(), (7, 5000)));
    assert_eq!(payload, b"there?");
    // The mapping that this made lets nobody else in.
    let socket = lan.internet.sent.last().expect("sent").socket;
    lan.datagram(socket, "203.0.113.5:7", b"stranger");
    assert!(lan.heard(port).is_empty());
    assert_eq!(lan.network.drops().of(Drop::Filtered), 1);
    lan.datagram(socket, "10.0.0.99:7", b"host");
    assert_eq!(lan.heard(port).len(), 1);
    // Ping, a closed port, another guest.
    lan.inject(port, packets::echo(ends, 1, 5, 6, b"ping"));
    assert_eq!(icmp(&mut lan, port), [(gateway, 0, 0)]);
    let other = lan.add_guest(3);
    let served = lan.guest(other).listen(80, 4096);
    let asking = lan
        .guest(guest)
        .connect(Lan::v4("192.168.64.3:80"), 50_001, 4096);
    let served = Talk::new(other, served, 0);
    assert!(lan.run_until(SECOND, |lan| served.state(lan) == State::Established));
    assert_eq!(lan.guest(guest).tcp(asking).state(), State::Established);
}

#[test]
fn a_host_network_knows_names_of_guests_alone() {
    let mut lan = Lan::new(1500, host_mode);
    let resolver = "10.0.0.53:53".parse().unwrap();
    lan.internet
        .resolvers
        .insert(resolver, Some(Duration::from_millis(1)));
    let now = lan.now;
    lan.network.set_resolvers(now, &[resolver]);
    let mut guest = Guest::new(2, lan.start, 1500);
    guest.start_dhcp();
    let mut place = vmnet_core::Port::new(256);
    place.name = Some("web".to_owned());
    let web = lan.plug_into(guest, place);
    assert!(lan.run_until(5 * SECOND, |lan| lan.guest(web).lease.is_some()));
    let address = lan.address_of(web);
    let gateway = lan.gateway();
    let (port, ends) = raw(&mut lan, gateway);
    for (name, answer) in [
        ("web.vmnet.internal", (0, address)),
        ("web", (0, address)),
        ("gateway.vmnet.internal", (0, Some(gateway))),
        ("nobody.vmnet.internal", (3, None)),
        ("example.com", (5, None)),
        ("nobody", (5, None)),
    ] {
        assert_eq!(ask(&mut lan, port, ends, name), Some(answer), "{name}");
    }
    assert!(lan.internet.asked.is_empty(), "nobody outside is asked");
    assert_eq!(lan.network.dns_counters().refused_outside, 2);
}

#[test]
fn a_forward_leads_into_a_host_network() {
    let mut lan = Lan::new(1500, host_mode);
    // A guest that knows no way out, as after DHCP.
    let mut guest = Guest::new(2, lan.start, 1500);
    guest.set_address(at(2), 24, None);
    let guest = lan.plug(guest);
    let rule = Forward {
        protocol: ForwardProtocol::Tcp,
        listen: "0.0.0.0:8080".parse().unwrap(),
        guest: ForwardGuest::Address(at(2).into()),
        guest_port: 80,
    };
    let (tcp, _) = lan.forward(rule);
    let handle = lan.guest(guest).listen(80, 64 << 10);
    let client = "203.0.113.9:7000".parse().unwrap();
    lan.dial(tcp, client, Server::Source(100_000))
        .expect("served");
    let mut talk = Talk::new(guest, handle, 100_000);
    assert!(lan.run_until(SECOND, |lan| talk.state(lan) == State::Established));
    let peer = lan.guest(guest).tcp(handle).remote_endpoint().unwrap();
    assert_eq!(peer.to_string(), "192.168.64.1:7000");
    assert!(lan.run_until(20 * SECOND, |lan| talk.is_over(lan)
        && lan.network.flows() == 0));
    assert_eq!(talk.read.len(), 100_000);
    // By UDP two clients stay apart, and each hears its own answer.
    let (port, mut ends) = raw(&mut lan, at(1));
    let (_, socket) = lan.forward(Forward {
        protocol: ForwardProtocol::Udp,
        guest: ForwardGuest::Address(at(9).into()),
        ..rule
    });
    for client in ["203.0.113.9:7000", "203.0.113.10:7000"] {
        lan.datagram(socket.unwrap(), client, b"x");
        let heard = lan.heard(port);
        let (from, ports, _) = packets::read_udp(&heard[0]).expect("a datagram");
        assert_eq!((from, ports.1), (at(1), 80));
        ends.ips.1 = from;
        lan.inject(port, packets::udp(ends, (80, ports.0), 64, b"answer"));
        let sent = lan.internet.sent.last().expect("an answer");
        assert_eq!(sent.how.to, client.parse().unwrap());
    }
}

// ---- private switches ----------------------------------------------------------------------

#[test]
fn on_a_private_switch_guests_are_among_themselves() {
    let mut lan = Lan::new(1500, private);
    assert_eq!(lan.network.ipv4(), None);
    let (client, server) = (lan.add_guest(2), lan.add_guest(3));
    let served = lan.guest(server).listen(80, 64 << 10);
    let handle = lan
        .guest(client)
        .connect(Lan::v4("192.168.64.3:80"), 50_000, 64 << 10);
    let mut asks = Talk::new(client, handle, 100_000);
    let mut serves = Talk::new(server, served, 100_000);
    serves.close_last = true;
    assert!(lan.run_until(20 * SECOND, |lan| asks.is_over(lan) & serves.is_over(lan)));
    assert_eq!((asks.read.len(), serves.read.len()), (100_000, 100_000));
    // Nobody gives addresses, nobody is the gateway, and any address is as good as another.
    let (_, leased) = dhcp_guest(&mut lan, 4);
    assert!(!leased);
    let (port, mut ends) = raw(&mut lan, at(1));
    let listener = lan.add_raw(10);
    lan.heard(port);
    lan.inject(
        port,
        packets::arp_request(ends.macs.0, (ends.macs.0, at(9)), at(1)),
    );
    assert!(lan.heard(port).is_empty());
    assert_eq!(lan.heard(listener).len(), 1, "asked of all");
    ends.ips.0 = [10, 9, 9, 9].into();
    lan.inject(port, packets::echo(ends, 64, 5, 5, b"x"));
    assert_eq!(lan.heard(listener).len(), 1, "nobody's: to all");
    let mac = lan.network.gateway_mac();
    lan.inject(port, packets::arp_request(mac, (mac, at(1)), at(10)));
    assert_eq!(lan.heard(listener).len(), 1, "the gateway's MAC is free");
    // Nothing can be forwarded, and nothing is due.
    let (rule, socket) = lan.forward(Forward {
        protocol: ForwardProtocol::Udp,
        listen: "0.0.0.0:8080".parse().unwrap(),
        guest: ForwardGuest::Address(at(2).into()),
        guest_port: 80,
    });
    let client = "203.0.113.9:7000".parse().unwrap();
    assert_eq!(socket, None);
    assert!(lan.dial(rule, client, Server::Manual).is_none());
    assert_eq!(lan.network.next_deadline(), None);
    assert_eq!(lan.network.drops().met().count(), 0);
    assert!(lan.internet.targets.is_empty());
}

#[test]
fn a_private_switch_with_an_address_of_the_host() {
    let mut lan = Lan::new(1500, |config| {
        let subnet = "192.168.64.0/24".parse().unwrap();
        let host = Ipv4::with_gateway(subnet, at(50)).unwrap();
        private(config);
        config.ipv4 = Some(host);
    });
    lan.network.set_outside(Some([10, 0, 0, 99].into()));
    lan.internet.serve_udp("10.0.0.99:53", UdpHost::Echo);
    lan.internet.serve_udp("10.0.0.99:67", UdpHost::Echo);
    let (port, ends) = raw(&mut lan, at(50));
    lan.inject(
        port,
        packets::arp_request(ends.macs.0, (ends.macs.0, at(9)), at(50)),
    );
    assert_eq!(lan.heard(port).len(), 1);
    lan.inject(port, packets::echo(ends, 64, 5, 5, b"x"));
    assert_eq!(icmp(&mut lan, port), [(at(50), 0, 0)]);
    // The first address is a guest's like any other.
    let first = lan.add_guest(1);
    let served = lan.guest(first).listen(80, 4096);
    let other = lan.add_guest(2);
    lan.guest(other)
        .connect(Lan::v4("192.168.64.1:80"), 50_000, 4096);
    let served = Talk::new(first, served, 0);
    assert!(lan.run_until(SECOND, |lan| served.state(lan) == State::Established));
    // No DHCP, no DNS, and those of the host are not in their place.
    let (_, leased) = dhcp_guest(&mut lan, 4);
    assert!(!leased);
    lan.heard(port);
    for service in [53, 67] {
        lan.inject(port, packets::udp(ends, (5000, service), 64, b"hello"));
        assert_eq!(icmp(&mut lan, port), [(at(50), 3, 3)], "port {service}");
    }
    let handle = lan
        .guest(other)
        .connect(Lan::v4("192.168.64.50:53"), 50_001, 4096);
    let talk = Talk::new(other, handle, 0);
    assert!(lan.run_until(5 * SECOND, |lan| talk.state(lan) == State::Closed));
    assert!(lan.internet.sent.is_empty() && lan.internet.targets.is_empty());
}

// ---- addresses -----------------------------------------------------------------------------

#[test]
fn a_gateway_in_the_middle_and_a_pool_on_one_side() {
    let subnet = "192.168.64.0/24".parse().unwrap();
    let mut lan = Lan::new(1500, |config| {
        config.ipv4 = Some(Ipv4::with_gateway(subnet, at(100)).unwrap());
        config.dhcp = Some(Dhcp {
            first: at(101),
            last: at(103),
            lease_time: LEASE,
        });
    });
    lan.internet.serve("10.0.0.1:80", Server::Echo);
    let mut given = Vec::new();
    for number in 2..5 {
        let (port, leased) = dhcp_guest(&mut lan, number);
        assert!(leased);
        let lease = lan.guest(port).lease.clone().expect("a lease");
        assert_eq!(lease.router, Some(at(100)));
        given.push(lease.address.address());
        let handle = lan
            .guest(port)
            .connect(Lan::v4("10.0.0.1:80"), 50_000, 4096);
        let mut talk = Talk::new(port, handle, 1000);
        assert!(lan.run_until(5 * SECOND, |lan| talk.is_over(lan)));
        assert_eq!(talk.read.len(), 1000);
    }
    given.sort_unstable();
    assert_eq!(given, [at(101), at(102), at(103)]);
    assert!(!dhcp_guest(&mut lan, 6).1, "the pool is dry");
    // Addresses on the other side are guests' too, the first one included; the gateway's is not.
    for number in [1, 99] {
        let guest = lan.add_guest(number);
        let handle = lan
            .guest(guest)
            .connect(Lan::v4("10.0.0.1:80"), 50_000, 4096);
        let mut talk = Talk::new(guest, handle, 1000);
        assert!(lan.run_until(5 * SECOND, |lan| talk.is_over(lan)));
        assert_eq!(talk.read.len(), 1000);
    }
    let liar = lan.add_raw(9);
    let mac = lan.guest(liar).mac;
    lan.inject(liar, packets::arp_request(mac, (mac, at(100)), at(1)));
    assert_eq!(lan.network.drops().of(Drop::Spoofed), 1);
}

#[test]
fn without_dhcp_a_guest_may_serve_it() {
    let mut lan = Lan::new(1500, |config| {
        config.dhcp = None;
        config.dns = Dns::Off;
    });
    lan.internet.serve("10.0.0.1:80", Server::Echo);
    let listener = lan.add_raw(9);
    let (_, leased) = dhcp_guest(&mut lan, 4);
    assert!(!leased);
    let heard = lan.heard(listener);
    let is_request =
        |frame: &Vec<u8>| packets::read_udp(frame).is_some_and(|(_, ports, _)| ports.1 == 67);
    assert!(heard.iter().any(is_request), "another guest hears it");
    let guest = lan.add_guest(2);
    let handle = lan
        .guest(guest)
        .connect(Lan::v4("10.0.0.1:80"), 50_000, 4096);
    let mut talk = Talk::new(guest, handle, 1000);
    assert!(lan.run_until(5 * SECOND, |lan| talk.is_over(lan)));
    assert_eq!(talk.read.len(), 1000);
    assert_eq!(lan.address_of(guest), Some(at(2)), "as it speaks");
    assert_eq!(lan.network.leases().count(), 0);
}

#[test]
fn a_pool_of_reservations_alone_gives_nothing_to_others() {
    let mut lan = Lan::new(1500, |config| {
        let ipv4 = config.ipv4.unwrap();
        config.dhcp = Some(Dhcp::reserved_only(&ipv4, LEASE));
    });
    assert!(!dhcp_guest(&mut lan, 4).1);
    assert!(lan.network.drops().of(Drop::Dhcp) > 0);
}

#[test]
fn resolvers_are_named_while_the_gateway_is_none() {
    let outside = Ipv4Addr::new(9, 9, 9, 9);
    for (resolvers, expected) in [(vec![outside], Some(outside)), (vec![], None)] {
        let mut lan = Lan::new(1500, |config| {
            config.dns = Dns::Off;
            config.resolvers_offered = resolvers;
        });
        let (port, leased) = dhcp_guest(&mut lan, 2);
        assert!(leased);
        let lease = lan.guest(port).lease.clone().expect("a lease");
        assert_eq!(lease.dns_servers.first().copied(), expected);
    }
}
