//! Forwarded ports that lead to a guest by its MAC or its name, wherever it is and also before it is there.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::socket::tcp::State;
use vmnet_core::{Dns, Drop, Forward, ForwardGuest, ForwardId, ForwardProtocol, Port, PortId};
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::{Guest, Lan, Server, Talk};
use vmnet_wire::ethernet::Mac;

const SECOND: Duration = Duration::from_secs(1);
const CLIENT: &str = "203.0.113.9:7000";

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 64, last)
}

fn rule(protocol: ForwardProtocol, guest: ForwardGuest) -> Forward {
    Forward {
        protocol,
        listen: "0.0.0.0:8080".parse().unwrap(),
        guest,
        guest_port: 80,
    }
}

fn web() -> ForwardGuest {
    ForwardGuest::Name("Web.vmnet.internal".parse().expect("a name"))
}

/// A guest with a DHCP client behind a port with a name.
fn lease(lan: &mut Lan, number: u8, name: &str) -> PortId {
    let mut guest = Guest::new(number, lan.start, 1500);
    guest.start_dhcp();
    let mut port = Port::new(256);
    port.name = Some(name.to_owned());
    let port = lan.plug_into(guest, port);
    assert!(lan.run_until(5 * SECOND, |lan| lan.guest(port).lease.is_some()));
    port
}

/// A client of a TCP rule comes; whether it reaches the guest behind a port.
fn reaches(lan: &mut Lan, rule: ForwardId, port: PortId) -> bool {
    let handle = lan.guest(port).listen(80, 4096);
    let talk = Talk::new(port, handle, 0);
    let client = CLIENT.parse().unwrap();
    if lan.dial(rule, client, Server::Manual).is_none() {
        return false;
    }
    lan.run_until(SECOND, |lan| talk.state(lan) == State::Established)
}

#[test]
fn a_tcp_rule_may_exist_before_its_guest() {
    let mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
    for guest in [ForwardGuest::Mac(mac), web()] {
        let mut lan = Lan::default();
        let (id, _) = lan.forward(rule(ForwardProtocol::Tcp, guest));
        let client = CLIENT.parse().unwrap();
        assert!(lan.dial(id, client, Server::Manual).is_none(), "{guest:?}");
        let other = lease(&mut lan, 3, "db");
        assert!(lan.dial(id, client, Server::Manual).is_none(), "{guest:?}");
        let port = lease(&mut lan, 2, "web");
        assert!(reaches(&mut lan, id, port), "{guest:?}");
        assert_ne!(lan.address_of(port), lan.address_of(other));
    }
}

#[test]
fn a_name_leads_to_whoever_has_it_now() {
    let mut lan = Lan::default();
    let (id, _) = lan.forward(rule(ForwardProtocol::Tcp, web()));
    let first = lease(&mut lan, 2, "web");
    assert!(reaches(&mut lan, id, first));
    lan.unplug(first);
    // When its lease has ended, so has its name.
    lan.run_for(3601 * SECOND);
    let client = CLIENT.parse().unwrap();
    assert!(lan.dial(id, client, Server::Manual).is_none());
    let second = lease(&mut lan, 3, "web");
    assert!(reaches(&mut lan, id, second));
}

#[test]
fn guests_with_addresses_of_their_own_are_found_too() {
    for guest in [ForwardGuest::Mac(Mac([0x52, 0x54, 0, 0, 0, 9])), web()] {
        let mut lan = Lan::new(1500, |config| {
            config.dhcp = None;
            config.dns = Dns::Off;
        });
        let raw = Guest::raw(9, lan.start, 1500);
        let mac = raw.mac;
        let mut port = Port::new(256);
        port.name = Some("web".to_owned());
        let port = lan.plug_into(raw, port);
        let gateway = lan.gateway();
        let speak = |lan: &mut Lan, address: Ipv4Addr| {
            lan.inject(port, packets::arp_request(mac, (mac, address), gateway));
            lan.heard(port);
        };
        let (rule, none) = lan.forward(rule(ForwardProtocol::Udp, guest));
        assert_eq!(none, None, "{guest:?} is not there yet");
        speak(&mut lan, at(9));
        let mut out = vmnet_core::Outbox::new();
        let now = lan.now;
        let socket = lan.network.forward_socket(now, rule, &mut out);
        let socket = socket.expect("it is there now");
        lan.adopt(socket, 8080);
        for address in [at(9), at(77), at(5)] {
            speak(&mut lan, address);
            lan.datagram(socket, CLIENT, b"x");
            let heard = lan.heard(port);
            let packet = vmnet_wire::ipv4::Packet::read(&heard[0][14..], heard[0].len() - 14);
            assert_eq!(packet.unwrap().header.destination(), address, "{guest:?}");
            // What it answers leaves by the rule's socket.
            let ends = Ends {
                macs: (mac, lan.network.gateway_mac()),
                ips: (address, [203, 0, 113, 9].into()),
            };
            lan.inject(port, packets::udp(ends, (80, 7000), 64, b"answer"));
            assert_eq!(lan.internet.sent.last().unwrap().socket, socket);
        }
        assert_eq!((lan.network.flows(), lan.contract.living()), (1, 1));
    }
}

#[test]
fn a_udp_rule_leads_nowhere_while_its_guest_has_no_address() {
    let mut lan = Lan::default();
    let port = lease(&mut lan, 2, "web");
    let address = lan.address_of(port).unwrap();
    let (id, socket) = lan.forward(rule(ForwardProtocol::Udp, web()));
    let socket = socket.expect("it has an address");
    let handle = lan.guest(port).bind_udp(80);
    lan.datagram(socket, CLIENT, b"one");
    assert!(lan.guest(port).udp(handle).can_recv());
    lan.unplug(port);
    lan.run_for(3601 * SECOND);
    // Somebody else at the same address is not the guest that was meant.
    let mut other = Guest::new(3, lan.start, 1500);
    other.set_address(address, 24, lan.gateway());
    let other = lan.plug(other);
    let handle = lan.guest(other).bind_udp(80);
    let hello = packets::arp_request(
        lan.guest(other).mac,
        (lan.guest(other).mac, address),
        lan.gateway(),
    );
    lan.inject(other, hello);
    lan.guest(other).listening = true;
    lan.heard(other);
    let lost = lan.network.drops().of(Drop::NoNeighbour);
    lan.datagram(socket, CLIENT, b"two");
    assert!(!lan.guest(other).udp(handle).can_recv());
    assert_eq!(lan.network.drops().of(Drop::NoNeighbour), lost + 1);
    // An error about what was sent before is nobody's either.
    lan.event(&vmnet_core::Event::TooLarge {
        socket,
        to: CLIENT.parse().unwrap(),
        mtu: 1000,
    });
    lan.run_for(SECOND);
    assert!(lan.heard(other).is_empty(), "not even asked for");
    // The guest comes back, by another card.
    let back = lease(&mut lan, 4, "web");
    let handle = lan.guest(back).bind_udp(80);
    lan.datagram(socket, CLIENT, b"three");
    lan.run_for(SECOND);
    assert!(lan.guest(back).udp(handle).can_recv());
    lan.unforward(id);
    assert_eq!((lan.network.flows(), lan.contract.living()), (0, 0));
}

#[test]
fn a_name_that_was_given_is_not_taken_by_who_calls_itself_so() {
    let mut lan = Lan::default();
    let (id, _) = lan.forward(rule(ForwardProtocol::Tcp, web()));
    // Its owner has given the name to a guest that has no address yet.
    let mut port = Port::new(256);
    port.name = Some("web".to_owned());
    let mut guest = Guest::new(2, lan.start, 1500);
    guest.start_dhcp();
    guest.paused = true;
    let meant = lan.plug_into(guest, port);
    let before = lan.network.leases().count();
    let other = lan.add_raw(9);
    let ends = Ends {
        macs: (lan.guest(other).mac, Mac::BROADCAST),
        ips: (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
    };
    for kind in [1, 3] {
        let message = dhcp_message(ends.macs.0, kind, "web");
        lan.inject(other, packets::udp(ends, (68, 67), 64, &message));
    }
    assert_eq!(lan.network.leases().count(), before + 1);
    let client = CLIENT.parse().unwrap();
    assert!(lan.dial(id, client, Server::Manual).is_none());
    lan.guest(meant).paused = false;
    assert!(lan.run_until(60 * SECOND, |lan| lan.guest(meant).lease.is_some()));
    assert!(reaches(&mut lan, id, meant));
}

/// A DISCOVER, or a REQUEST for 192.168.64.100, of a guest that calls itself `name`.
fn dhcp_message(mac: Mac, kind: u8, name: &str) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&mac.0);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, kind, 12, u8::try_from(name.len()).unwrap()]);
    message.extend(name.as_bytes());
    message.extend([50, 4, 192, 168, 64, 100]);
    if kind == 3 {
        message.extend([54, 4, 192, 168, 64, 1]);
    }
    message.push(255);
    message
}

#[test]
fn a_hairpin_to_a_name() {
    let mut lan = Lan::default();
    let (server, client) = (lease(&mut lan, 2, "web"), lan.add_guest(3));
    lan.forward(rule(ForwardProtocol::Tcp, web()));
    let served = lan.guest(server).listen(80, 4096);
    let handle = lan
        .guest(client)
        .connect(Lan::v4("192.168.64.1:8080"), 50_000, 4096);
    let mut asks = Talk::new(client, handle, 1000);
    let mut serves = Talk::new(server, served, 2000);
    serves.close_last = true;
    assert!(lan.run_until(5 * SECOND, |lan| asks.is_over(lan) & serves.is_over(lan)));
    assert_eq!((asks.read.len(), serves.read.len()), (2000, 1000));
}
