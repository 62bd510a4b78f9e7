//! Networks of several modes on a lane, and guests that speak to them by a socket pair.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use vmnet_linux::lane::{
    self, Attachment, Dhcp, Dns, Forward, ForwardError, ForwardGuest, Handle, Ipv4, MTU_MAX,
    MTU_MIN, PortId, PortOptions, Protocol, Settings, StartError,
};
use vmnet_wire::arp;
use vmnet_wire::ethernet::{EtherType, Header, Mac};
use zerocopy::{FromBytes, IntoBytes};

const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 222, last)
}

fn host_at(last: u8) -> Ipv4 {
    let subnet = "192.168.222.0/24".parse().unwrap();
    Ipv4::with_gateway(subnet, at(last)).unwrap()
}

/// A private switch, to be changed.
fn settings(name: &str) -> Settings {
    Settings {
        name: name.to_owned(),
        ipv4: None,
        dhcp: None,
        dns: Dns::Off,
        nat44: false,
        ipv6: None,
        nat66: false,
        router_advertisement: false,
        dhcp6: None,
        isolation: false,
        mtu: 1500,
        domain: "vmnet.internal".to_owned(),
        host: None,
        host_loopback: false,
        resolvers: Some(Vec::new()),
        external_interface: None,
        moved: None,
        leases: None,
        restored: Vec::new(),
        reservations: Vec::new(),
    }
}

struct Guest {
    socket: UnixStream,
    port: PortId,
}

impl Guest {
    fn attach(handle: &Handle, options: PortOptions) -> Self {
        let (socket, ours) = UnixStream::pair().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let port = handle
            .attach(Attachment::Stream(ours.into()), options)
            .unwrap();
        Self { socket, port }
    }

    fn send(&mut self, frame: &[u8]) {
        let len = u32::try_from(frame.len()).unwrap().to_be_bytes();
        self.socket.write_all(&[&len, frame].concat()).unwrap();
    }

    fn receive(&mut self) -> Vec<u8> {
        let mut len = [0; 4];
        self.socket.read_exact(&mut len).unwrap();
        let mut frame = vec![0; usize::try_from(u32::from_be_bytes(len)).unwrap()];
        self.socket.read_exact(&mut frame).unwrap();
        frame
    }

    fn ask_for(&mut self, own: Ipv4Addr, target: Ipv4Addr) {
        let ethernet = Header::new(Mac::BROADCAST, MAC, EtherType::ARP);
        let request = arp::Packet::request(MAC, own, target);
        self.send(&[ethernet.as_bytes(), request.as_bytes()].concat());
    }
}

fn forward(guest: ForwardGuest) -> Forward {
    Forward {
        protocol: Protocol::Tcp,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        guest,
        guest_port: 80,
    }
}

#[test]
fn a_private_switch_joins_guests_and_forwards_nothing() {
    let handle = lane::start(settings("private")).unwrap();
    let mut one = Guest::attach(&handle, PortOptions::default());
    let mut other = Guest::attach(&handle, PortOptions::default());
    one.ask_for(at(9), at(1));
    let heard = other.receive();
    let packet = arp::Packet::read(&heard[Header::LEN..]).unwrap();
    assert_eq!((packet.sender(), packet.target()), (at(9), at(1)));
    let refused = handle.forward(forward(ForwardGuest::Port(one.port)));
    assert!(
        matches!(refused, Err(ForwardError::NoGateway)),
        "{refused:?}"
    );
    assert!(handle.leases().is_empty());
    let rows = handle.ports();
    assert!(
        rows.len() == 2
            && rows
                .iter()
                .all(|row| row.address.is_none() && !row.isolated)
    );
}

#[test]
fn a_host_address_answers_and_ports_tell_what_they_are() {
    let mut settings = settings("host");
    settings.ipv4 = Some(host_at(50));
    let handle = lane::start(settings).unwrap();
    let isolated = PortOptions {
        isolated: true,
        ..PortOptions::default()
    };
    let mut guest = Guest::attach(&handle, isolated);
    let plain = Guest::attach(&handle, PortOptions::default());
    guest.ask_for(at(9), at(50));
    let heard = guest.receive();
    let (reply, _) = arp::Packet::ref_from_prefix(&heard[Header::LEN..]).unwrap();
    assert_eq!((reply.sender(), reply.target()), (at(50), at(9)));
    let rows = handle.ports();
    let row = |port| rows.iter().find(|row| row.id == port).unwrap();
    assert!(row(guest.port).isolated && !row(plain.port).isolated);
    assert_eq!(
        row(guest.port).address,
        Some(at(9)),
        "the one it speaks from"
    );
    // Rules: to whom there can be one.
    for (guest, good) in [
        (ForwardGuest::Address(at(9).into()), true),
        (ForwardGuest::Address(at(50).into()), false),
        (ForwardGuest::Address(at(255).into()), false),
        (ForwardGuest::Address([10, 0, 0, 1].into()), false),
        (ForwardGuest::Mac(MAC), true),
        (ForwardGuest::Name("web".parse().unwrap()), true),
    ] {
        let made = handle.forward(forward(guest));
        assert_eq!(made.is_ok(), good, "{guest:?}: {made:?}");
        if let Err(error) = made {
            assert!(matches!(error, ForwardError::NotAGuest(..)));
            assert!(error.to_string().contains("192.168.222.50"), "{error}");
        }
    }
    let refused = handle.forward(forward(ForwardGuest::Address("fd00::9".parse().unwrap())));
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("no IPv6 prefix"), "{text}");
}

#[test]
fn a_prefix_alone_is_enough_to_forward_to_its_guests() {
    let mut settings = settings("six");
    settings.ipv4 = None;
    settings.ipv6 = Some("fd12:3456:789a:1::/64".parse().unwrap());
    let handle = lane::start(settings).unwrap();
    for (guest, said) in [
        ("fd12:3456:789a:1::9", None),
        ("fd12:3456:789a:1::1", Some("not the gateway's")),
        ("fd12:3456:789a:2::9", Some("fd12:3456:789a:1::/64")),
        ("2001:db8::9", Some("fd12:3456:789a:1::/64")),
        ("192.168.222.9", Some("no IPv4 subnet")),
    ] {
        let made = handle.forward(forward(ForwardGuest::Address(guest.parse().unwrap())));
        let text = made.err().map(|error| error.to_string());
        assert_eq!(text.is_some(), said.is_some(), "{guest}: {text:?}");
        let text = text.unwrap_or_default();
        assert!(text.contains(said.unwrap_or_default()), "{guest}: {text}");
    }
    handle
        .forward(forward(ForwardGuest::Name("web".parse().unwrap())))
        .unwrap();
}

#[test]
fn all_ports_of_an_isolated_network_are() {
    let mut settings = settings("isolated");
    settings.isolation = true;
    let handle = lane::start(settings).unwrap();
    let _guest = Guest::attach(&handle, PortOptions::default());
    assert!(handle.ports().iter().all(|row| row.isolated));
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    type Change = fn(&mut Settings);
    let faults: [(Change, &str); 5] = [
        (|s| s.mtu = MTU_MIN - 1, "it must be 576 to 65520"),
        (|s| s.mtu = MTU_MAX + 1, "it must be 576 to 65520"),
        (|s| s.nat44 = true, "cannot have NAT"),
        (|s| s.dns = Dns::Local, "cannot have DNS"),
        (
            |s| {
                let lease_time = Duration::from_secs(3600);
                s.ipv4 = Some(host_at(1));
                s.dhcp = Some(Dhcp {
                    first: at(2),
                    last: Ipv4Addr::new(192, 168, 223, 1),
                    lease_time,
                });
            },
            "not inside the subnet",
        ),
    ];
    for (change, reason) in faults {
        let mut settings = settings("wrong");
        change(&mut settings);
        let error = lane::start(settings).expect_err(reason);
        assert!(matches!(error, StartError::Config(_)), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    for mtu in [MTU_MIN, MTU_MAX] {
        let mut settings = settings("sizes");
        settings.mtu = mtu;
        assert!(lane::start(settings).is_ok());
    }
}
