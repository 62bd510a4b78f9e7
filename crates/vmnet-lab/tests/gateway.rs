//! The gateway: ARP, echo, DHCP, DNS.

use std::time::Duration;

use vmnet_core::{Drop, Port, Target};
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::{Guest, Lan, Talk};
use vmnet_wire::arp;
use zerocopy::FromBytes;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn arp_is_answered_for_the_gateway_alone() {
    let mut lan = Lan::default();
    let port = lan.add_raw(9);
    let mac = lan.guest(port).mac;
    let (gateway, own) = (lan.gateway(), [192, 168, 64, 9].into());
    lan.inject(port, packets::arp_request(mac, (mac, own), gateway));
    let heard = lan.heard(port);
    assert_eq!(heard.len(), 1);
    let reply = arp::Packet::ref_from_prefix(&heard[0][14..]).unwrap().0;
    assert_eq!(reply.operation(), arp::Operation::Reply);
    assert_eq!(
        (reply.sender(), reply.sender_mac()),
        (gateway, lan.network.gateway_mac())
    );
    assert_eq!((reply.target(), reply.target_mac()), (own, mac));
    lan.inject(
        port,
        packets::arp_request(mac, (mac, own), [192, 168, 64, 77].into()),
    );
    assert!(lan.heard(port).is_empty());
    // A probe for the gateway's address (RFC 5227) hears that it is taken.
    lan.inject(
        port,
        packets::arp_request(mac, (mac, [0, 0, 0, 0].into()), gateway),
    );
    assert_eq!(lan.heard(port).len(), 1);
}

#[test]
fn the_gateway_answers_pings() {
    let mut lan = Lan::default();
    let port = lan.add_raw(9);
    let ends = Ends {
        macs: (lan.guest(port).mac, lan.network.gateway_mac()),
        ips: ([192, 168, 64, 9].into(), lan.gateway()),
    };
    for len in [0, 1, 56, 1472] {
        lan.inject(port, packets::echo(ends, 1, 5, 6, &vec![0xa5; len]));
        let heard = lan.heard(port);
        let (from, kind, code, rest) = packets::read_icmp(&heard[0]).expect("a reply");
        assert_eq!((from, kind, code), (lan.gateway(), 0, 0));
        assert_eq!(rest, [&[0, 5, 0, 6][..], &vec![0xa5; len]].concat());
    }
    // In fragments, both ways.
    let message = packets::echo_packet(5, 7, &vec![1; 60_000]);
    for frame in packets::fragments(ends, vmnet_wire::ip::Protocol::ICMPV4, 77, &message, 1500) {
        lan.guest(port).inject(frame);
    }
    lan.run_for(SECOND);
    let heard = lan.heard(port);
    let whole = reassemble(&heard);
    assert_eq!(whole.len(), message.len());
    assert_eq!(whole[8..], message[8..]);
}

/// Puts fragments of one datagram together.
fn reassemble(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut whole = vec![0; 0];
    for frame in frames {
        let packet = vmnet_wire::ipv4::Packet::read(&frame[14..], frame.len() - 14).unwrap();
        assert!(frame.len() <= 1514);
        let at = packet.header.fragment_offset();
        whole.resize(whole.len().max(at + packet.payload_len), 0);
        whole[at..at + packet.payload_len].copy_from_slice(packet.payload);
    }
    whole
}

#[test]
fn dhcp_through_the_whole_network() {
    let mut lan = Lan::default();
    let mut guest = Guest::new(2, lan.start, 1500);
    guest.start_dhcp();
    let port = lan.plug(guest);
    let bystander = lan.add_raw(9);
    assert!(lan.run_until(5 * SECOND, |lan| lan.guest(port).lease.is_some()));
    let gateway = lan.gateway();
    let lease = lan.guest(port).lease.clone().unwrap();
    let address = lease.address.address();
    assert_eq!(lease.router, Some(gateway));
    assert_eq!(lease.address.prefix_len(), 24);
    assert_eq!(lease.dns_servers.first(), Some(&gateway));
    assert_eq!(lan.address_of(port), Some(address));
    let heard = lan.heard(bystander);
    assert!(
        heard
            .iter()
            .all(|frame| packets::read_udp(frame).is_none_or(|(_, ports, _)| ports.1 == 67))
    );
    // The same guest gets the same address again, and keeps it by renewing.
    lan.guest(port).reboot();
    lan.guest(port).lease = None;
    lan.guest(port).start_dhcp();
    assert!(lan.run_until(5 * SECOND, |lan| lan.guest(port).lease.is_some()));
    assert_eq!(
        lan.guest(port).lease.as_ref().unwrap().address.address(),
        address
    );
    lan.run_for(3 * 3600 * SECOND);
    assert_eq!(lan.address_of(port), Some(address));
    // Another gets another.
    let mut guest = Guest::new(3, lan.start, 1500);
    guest.start_dhcp();
    let other = lan.plug(guest);
    assert!(lan.run_until(5 * SECOND, |lan| lan.guest(other).lease.is_some()));
    assert_ne!(
        lan.guest(other).lease.as_ref().unwrap().address.address(),
        address
    );
}

/// A network with a guest named `web` that has a lease, a raw guest, and a resolver.
fn with_names() -> (Lan, std::net::Ipv4Addr, vmnet_core::PortId, Ends) {
    let mut lan = Lan::default();
    let mut guest = Guest::new(2, lan.start, 1500);
    guest.start_dhcp();
    let mut port = Port::new(256);
    port.name = Some("web".to_owned());
    let named = lan.plug_into(guest, port);
    assert!(lan.run_until(5 * SECOND, |lan| lan.guest(named).lease.is_some()));
    let address = lan.address_of(named).unwrap();
    let raw = lan.add_raw(9);
    let ends = Ends {
        macs: (lan.guest(raw).mac, lan.network.gateway_mac()),
        ips: ([192, 168, 64, 9].into(), lan.gateway()),
    };
    (lan, address, raw, ends)
}

#[test]
fn names_by_datagram() {
    let (mut lan, address, raw, ends) = with_names();
    let ask = |lan: &mut Lan, name: &str, wait: Duration| {
        lan.inject(
            raw,
            packets::udp(ends, (5353, 53), 64, &packets::dns_question(0x1234, name)),
        );
        lan.run_for(wait);
        lan.heard(raw)
            .iter()
            .find_map(|frame| packets::read_udp(frame))
    };
    let (from, ports, answer) = ask(&mut lan, "web.vmnet.internal", SECOND).expect("an answer");
    assert_eq!((from, ports), (lan.gateway(), (53, 5353)));
    assert_eq!(answer[..2], [0x12, 0x34]);
    assert_eq!(packets::dns_address(&answer), Some(address));
    let (_, _, answer) = ask(&mut lan, "gateway.vmnet.internal", SECOND).unwrap();
    assert_eq!(packets::dns_address(&answer), Some(lan.gateway()));
    assert!(
        lan.internet.asked.is_empty(),
        "names of guests do not leave"
    );
    // Others are asked outside; the first resolver is silent, the second slow.
    let resolvers = ["10.0.0.53:53", "10.0.0.54:53"].map(|text| text.parse().unwrap());
    lan.internet.resolvers.insert(resolvers[0], None);
    lan.internet
        .resolvers
        .insert(resolvers[1], Some(Duration::from_millis(100)));
    let now = lan.now;
    lan.network.set_resolvers(now, &resolvers);
    let (_, _, answer) = ask(&mut lan, "example.com", 10 * SECOND).expect("an answer in the end");
    assert_eq!(packets::dns_address(&answer), Some(lan.internet.resolved));
    assert!(lan.internet.asked.iter().any(|(to, _)| *to == resolvers[0]));
    assert!(
        lan.internet
            .asked
            .iter()
            .all(|(_, message)| message[..2] != [0x12, 0x34]),
        "ids are ours"
    );
}

#[test]
fn names_by_stream() {
    let (mut lan, address, _, _) = with_names();
    let port = lan.add_guest(5);
    let gateway = format!("{}:53", lan.gateway());
    let handle = lan.guest(port).connect(Lan::v4(&gateway), 50_000, 4096);
    let mut talk = Talk::new(port, handle, 0);
    talk.close = false;
    let question = packets::dns_question(7, "web.vmnet.internal");
    let framed = [
        &u16::try_from(question.len()).unwrap().to_be_bytes()[..],
        &question,
    ]
    .concat();
    assert!(lan.run_until(SECOND, |lan| lan.guest(port).tcp(handle).may_send()));
    // Two questions in pieces on one connection.
    for piece in [&framed[..1], &framed[1..10], &framed[10..], &framed] {
        lan.guest(port).tcp(handle).send_slice(piece).unwrap();
        lan.run_for(Duration::from_millis(20));
    }
    talk.close = true;
    assert!(lan.run_until(5 * SECOND, |lan| talk.is_over(lan)));
    let len = usize::from(u16::from_be_bytes([talk.read[0], talk.read[1]]));
    assert_eq!(packets::dns_address(&talk.read[2..2 + len]), Some(address));
    assert_eq!(talk.read.len(), 2 * (2 + len));
    assert!(matches!(lan.internet.targets[0].1, Target::DnsStream));
    assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
}

#[test]
fn an_answer_for_a_stream_that_is_gone() {
    let (mut lan, _, _, _) = with_names();
    let resolver = "10.0.0.53:53".parse().unwrap();
    lan.internet
        .resolvers
        .insert(resolver, Some(Duration::from_millis(500)));
    let now = lan.now;
    lan.network.set_resolvers(now, &[resolver]);
    let port = lan.add_guest(5);
    let gateway = format!("{}:53", lan.gateway());
    let handle = lan.guest(port).connect(Lan::v4(&gateway), 50_000, 4096);
    assert!(lan.run_until(SECOND, |lan| lan.guest(port).tcp(handle).may_send()));
    let question = packets::dns_question(7, "example.com");
    let framed = [
        &u16::try_from(question.len()).unwrap().to_be_bytes()[..],
        &question,
    ]
    .concat();
    lan.guest(port).tcp(handle).send_slice(&framed).unwrap();
    lan.run_for(Duration::from_millis(100));
    lan.guest(port).tcp(handle).abort();
    // The contract ends the test if an action names the stream.
    lan.run_for(10 * SECOND);
    assert_eq!(lan.contract.living(), 0);
}

#[test]
fn a_gateway_service_that_is_none() {
    let (mut lan, _, raw, ends) = with_names();
    lan.inject(raw, packets::udp(ends, (5000, 9), 64, b"discard"));
    let heard = lan.heard(raw);
    let (from, kind, code, _) = packets::read_icmp(&heard[0]).expect("port unreachable");
    assert_eq!((from, kind, code), (lan.gateway(), 3, 3));
    assert_eq!(lan.network.drops().of(Drop::NoService), 1);
    assert_eq!(lan.network.flows(), 0, "what goes nowhere needs no socket");
}

/// The names of ports come back with the first frame after a restart, without DHCP; with a store, and those of guests that
/// ask anew.
#[test]
fn names_of_restored_leases() {
    use vmnet_core::gateway::register::{Lease, State};
    let mut lan = Lan::new(1500, |config| config.store_leases = true);
    let named = |lan: &mut Lan, number: u8, name: &str, asks: bool| {
        let mut guest = Guest::new(number, lan.start, 1500);
        if asks {
            guest.start_dhcp();
        }
        let mut port = Port::new(256);
        port.name = Some(name.to_owned());
        lan.plug_into(guest, port)
    };
    let address = std::net::Ipv4Addr::new(192, 168, 64, 77);
    let silent = named(&mut lan, 3, "db", false);
    let (mac, expires) = (lan.guest(silent).mac, lan.now + 1000 * SECOND);
    let refused = lan.network.restore_leases(vec![Lease {
        address: address.into(),
        mac,
        client_id: None,
        iaid: None,
        host_name: Some("called-so-by-itself".to_owned()),
        name: None,
        expires,
        state: State::Bound,
    }]);
    assert_eq!(refused, []);
    let asking = named(&mut lan, 2, "web", true);
    assert!(lan.run_until(5 * SECOND, |lan| lan.guest(asking).lease.is_some()));
    let gateway = (lan.network.gateway_mac(), lan.gateway());
    let ends = Ends {
        macs: (mac, gateway.0),
        ips: (address, gateway.1),
    };
    lan.inject(silent, packets::udp(ends, (9, 9), 64, &[]));
    let raw = lan.add_raw(9);
    let ends = Ends {
        macs: (lan.guest(raw).mac, gateway.0),
        ips: ([192, 168, 64, 9].into(), gateway.1),
    };
    let web = lan.address_of(asking);
    for (name, wanted) in [("web", web), ("db", Some(address))] {
        let question = packets::dns_question(1, &format!("{name}.vmnet.internal"));
        lan.inject(raw, packets::udp(ends, (5353, 53), 64, &question));
        lan.run_for(SECOND);
        let heard = lan.heard(raw);
        let answer = heard.iter().find_map(|frame| packets::read_udp(frame));
        assert_eq!(packets::dns_address(&answer.expect("an answer").2), wanted);
    }
}
