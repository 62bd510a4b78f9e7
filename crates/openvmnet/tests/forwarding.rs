//! Guests behind interfaces: addresses, the host, and ports that are forwarded to them (vmnet-api §4.7 to 4.14).

mod guest;
mod world;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::thread;

use guest::Guest;
use openvmnet::interface::AddressFamily;
use openvmnet::{
    Interface, InterfaceConfiguration, Network, NetworkConfiguration, NetworkMode,
    PortForwardingRule, Protocol, Status,
};
use smoltcp::socket::tcp;
use world::inside;

/// A port of the host that nobody has.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn rule(external_port: u16, to: IpAddr, internal_port: u16) -> PortForwardingRule {
    PortForwardingRule {
        protocol: Protocol::Tcp,
        external_port,
        internal_address: to,
        internal_port,
    }
}

#[test]
fn a_client_of_the_host_reaches_a_guest() {
    inside("a_client_of_the_host_reaches_a_guest", || {
        let shared = InterfaceConfiguration::shared().build().unwrap();
        let interface = Interface::start(&shared).unwrap();
        let mut guest = Guest::new(&interface);
        let (address, router) = guest.lease();
        assert_eq!(Some(router), interface.parameters().start_address);
        guest.ping(router);
        let port = free_port();
        interface
            .add_port_forwarding_rule(&rule(port, address.into(), 8080))
            .unwrap();
        let socket = guest.listen(8080);
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            stream.write_all(b"hello, guest").unwrap();
            let mut answer = [0; 11];
            stream.read_exact(&mut answer).unwrap();
            answer
        });
        let heard = guest.until("a client's words", |sockets, _| {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(socket);
            let mut heard = [0; 12];
            if socket.recv_queue() < 12 {
                return None;
            }
            socket.recv_slice(&mut heard).unwrap();
            socket.send_slice(b"hello, host").unwrap();
            Some(heard)
        });
        assert_eq!(&heard, b"hello, guest");
        guest.until("the answer is heard", |_, _| {
            client.is_finished().then_some(())
        });
        assert_eq!(&client.join().unwrap(), b"hello, host");
    });
}

#[test]
fn rules_are_the_interfaces_and_end_with_it() {
    inside("rules_are_the_interfaces_and_end_with_it", || {
        let shared = InterfaceConfiguration::shared().build().unwrap();
        let (one, other) = (
            Interface::start(&shared).unwrap(),
            Interface::start(&shared).unwrap(),
        );
        let host = one.parameters().start_address.unwrap().to_bits();
        let guest = IpAddr::V4(Ipv4Addr::from_bits(host + 9));
        let (first, second) = (free_port(), free_port());
        let list = |of: &Interface| of.port_forwarding_rules(AddressFamily::Inet).unwrap();
        assert_eq!(list(&one), []);
        let remove = |of: &Interface, port| {
            of.remove_port_forwarding_rule(Protocol::Tcp, port, AddressFamily::Inet)
                .map_err(|error| error.status())
        };
        assert_eq!(remove(&one, first), Err(Status::Failure), "there is none");
        one.add_port_forwarding_rule(&rule(first, guest, 80))
            .unwrap();
        one.add_port_forwarding_rule(&rule(first, guest, 80))
            .unwrap();
        one.add_port_forwarding_rule(&rule(second, guest, 81))
            .unwrap();
        let add = |of: &Interface, rule| {
            of.add_port_forwarding_rule(&rule)
                .map_err(|error| error.status())
        };
        assert_eq!(add(&one, rule(first, guest, 82)), Err(Status::Failure));
        assert_eq!(add(&other, rule(first, guest, 82)), Err(Status::Failure));
        assert_eq!(add(&one, rule(0, guest, 80)), Err(Status::InvalidArgument));
        assert_eq!(add(&one, rule(1, guest, 0)), Err(Status::InvalidArgument));
        let mut rules = list(&one);
        rules.sort_by_key(|rule| rule.internal_port);
        assert_eq!(rules, [rule(first, guest, 80), rule(second, guest, 81)]);
        assert_eq!(list(&other), [], "they are not the network's");
        assert_eq!(one.port_forwarding_rules(AddressFamily::Inet6).unwrap(), []);
        // The same port by the other family, if it was given a prefix.
        if let Some(prefix) = one.parameters().nat66_prefix {
            let six = IpAddr::V6((prefix.to_bits() | 0x77).into());
            one.add_port_forwarding_rule(&rule(first, six, 83)).unwrap();
            let six = [rule(first, six, 83)];
            assert_eq!(
                one.port_forwarding_rules(AddressFamily::Inet6).unwrap(),
                six
            );
        }
        assert_eq!(remove(&one, first), Ok(()));
        assert_eq!(remove(&one, first), Err(Status::Failure));
        assert_eq!(list(&one), [rule(second, guest, 81)]);
        one.stop().unwrap();
        assert_eq!(add(&other, rule(second, guest, 99)), Ok(()));
    });
}

#[test]
fn on_a_network_rules_are_the_networks() {
    inside("on_a_network_rules_are_the_networks", || {
        let (first, second) = (free_port(), free_port());
        let mut configuration = NetworkConfiguration::new(NetworkMode::Shared);
        let subnet: Ipv4Addr = [10, 98, 1, 1].into();
        let guest = IpAddr::V4([10, 98, 1, 9].into());
        configuration
            .set_ipv4_subnet(subnet, [255, 255, 255, 0].into())
            .unwrap()
            .add_port_forwarding_rule(Protocol::Tcp, 80, first, guest)
            .unwrap();
        let network = Network::create(&configuration).unwrap();
        let on = InterfaceConfiguration::on_network().build().unwrap();
        let one = Interface::start_on(&network, &on).unwrap();
        let list = |of: &Interface| of.port_forwarding_rules(AddressFamily::Inet).unwrap();
        assert_eq!(list(&one), [rule(first, guest, 80)]);
        one.add_port_forwarding_rule(&rule(second, guest, 81))
            .unwrap();
        // They stay when the interface goes, and when the service is killed.
        one.stop().unwrap();
        world::kill_service();
        let other = Interface::start_on(&network, &on).unwrap();
        let mut rules = list(&other);
        rules.sort_by_key(|rule| rule.internal_port);
        assert_eq!(rules, [rule(first, guest, 80), rule(second, guest, 81)]);
        other
            .remove_port_forwarding_rule(Protocol::Tcp, first, AddressFamily::Inet)
            .unwrap();
        assert_eq!(list(&other), [rule(second, guest, 81)]);
    });
}
