//! A host with two ways to one outside address: what guests send leaves by the interface that was chosen, also when it
//! has gone and come back; what is for the host itself does not leave.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use vmnet_lab::namespace::Namespace;
use vmnet_lab::prerequisite::{Prerequisite, all_present};
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_linux::lane::{self, Attachment, Handle, Ipv4, PortOptions, Settings, StartError};
use vmnet_wire::ethernet::Mac;
use vmnet_wire::tcp::{Fields, Flags, Seq};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const LONG: Duration = Duration::from_secs(10);

/// The host, and what is behind each of its two interfaces `up0` and `up1`.
struct Hosts {
    host: Namespace,
    behind: [Namespace; 2],
}

impl Hosts {
    fn new() -> Self {
        let hosts = Self {
            host: Namespace::new(),
            behind: [Namespace::new(), Namespace::new()],
        };
        hosts.plug(0);
        hosts.plug(1);
        for (namespace, name) in hosts.behind.iter().zip(["first", "second"]) {
            namespace.ip(&["address", "add", "203.0.113.1/32", "dev", "lo"]);
            namespace.enter(|| {
                answer(UdpSocket::bind((OUTSIDE, 7)).unwrap(), name);
                answer(UdpSocket::bind((OUTSIDE, 53)).unwrap(), name);
            });
        }
        hosts
    }

    /// Interface `number` appears, with its address and a default route; the first is preferred.
    fn plug(&self, number: usize) {
        let (name, net) = (format!("up{number}"), format!("10.77.{number}"));
        let behind = &self.behind[number];
        self.host.connect(&name, behind, "wire0");
        self.host
            .ip(&["address", "add", &format!("{net}.2/24"), "dev", &name]);
        behind.ip(&["address", "add", &format!("{net}.1/24"), "dev", "wire0"]);
        let metric = (10 + number).to_string();
        let via = format!("{net}.1");
        self.host.ip(&[
            "route", "add", "default", "via", &via, "dev", &name, "metric", &metric,
        ]);
    }
}

/// Answers every datagram by a name; ends with the process of the test.
fn answer(socket: UdpSocket, name: &'static str) {
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            let _gone = socket.send_to(name.as_bytes(), from);
        }
    });
}

fn start(hosts: &Hosts, external: Option<&str>) -> Result<Handle, StartError> {
    let ipv4 = Ipv4::new("192.168.77.0/24".parse().unwrap());
    let mut settings = Settings::shared("external", ipv4, Duration::from_secs(3600));
    settings.resolvers = Some(vec![SocketAddr::from((OUTSIDE, 53))]);
    settings.external_interface = external.map(str::to_owned);
    hosts.host.enter(|| lane::start(settings))
}

/// A guest that is nothing but frames.
struct Guest {
    socket: UnixDatagram,
    ends: Ends,
}

impl Guest {
    fn join(handle: &Handle) -> Self {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        handle
            .attach(Attachment::Dgram(theirs.into()), PortOptions::default())
            .unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mac = Mac([0x52, 0x54, 0, 0, 0, 9]);
        let guest = Self {
            socket: ours,
            ends: Ends {
                macs: (mac, Mac([0x5a, 0x94, 192, 168, 77, 1])),
                ips: (GUEST, OUTSIDE),
            },
        };
        guest.send(&packets::arp_request(mac, (mac, GUEST), GATEWAY));
        guest
    }

    fn send(&self, frame: &[u8]) {
        self.socket.send(frame).unwrap();
    }

    /// The first frame that `read` understands.
    fn hear<T>(&self, read: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let mut frame = [0; 2000];
        let end = Instant::now() + Duration::from_millis(500);
        while Instant::now() < end {
            if let Ok(len) = self.socket.recv(&mut frame)
                && let Some(found) = read(&frame[..len])
            {
                return Some(found);
            }
        }
        None
    }

    fn ask(&self, to: (Ipv4Addr, u16)) -> Option<String> {
        let ends = Ends {
            ips: (GUEST, to.0),
            ..self.ends
        };
        self.send(&packets::udp(ends, (5000, to.1), 64, b"who?"));
        self.hear(packets::read_udp)
            .map(|(_, _, answer)| String::from_utf8_lossy(&answer).into_owned())
    }

    /// Asks until the answer is `wanted`: the host needs a moment to hear of its own changes.
    fn ask_until(&self, wanted: &str) {
        let end = Instant::now() + LONG;
        while self.ask((OUTSIDE, 7)).as_deref() != Some(wanted) {
            assert!(Instant::now() < end, "nobody answered {wanted:?}");
        }
    }

    /// Connects from a port, and answers with the flags that come back.
    fn connect(&self, from: u16) -> Option<Flags> {
        let fields = Fields {
            source_port: from,
            destination_port: 80,
            sequence: Seq(1),
            acknowledgement: Seq(0),
            flags: Flags::SYN,
            window: 1000,
        };
        self.send(&packets::tcp(self.ends, &fields, &[], &[]));
        self.hear(packets::read_tcp)
            .map(|(_, _, fields, _)| fields.flags)
    }
}

#[test]
fn everything_leaves_by_the_interface_that_was_chosen() {
    if !all_present(&[Prerequisite::Root]) {
        return;
    }
    let hosts = Hosts::new();
    let _server = hosts.behind[1].enter(|| TcpListener::bind((OUTSIDE, 80)).unwrap());
    hosts.host.enter(|| {
        answer(UdpSocket::bind("10.77.1.2:9").unwrap(), "host");
        answer(
            UdpSocket::bind("10.77.0.2:9").unwrap(),
            "other address of the host",
        );
    });
    let by_routes = start(&hosts, None).unwrap();
    let guest = Guest::join(&by_routes);
    guest.ask_until("first");
    assert!(
        guest.connect(6000).unwrap().has(Flags::RST),
        "nobody listens there"
    );
    drop(by_routes);

    let handle = start(&hosts, Some("up1")).unwrap();
    let guest = Guest::join(&handle);
    guest.ask_until("second");
    assert!(guest.connect(6000).unwrap().has(Flags::SYN));
    // The gateway is the host at that interface; its other addresses are not looked for outside either.
    assert_eq!(guest.ask((GATEWAY, 9)).as_deref(), Some("host"));
    let other = Ipv4Addr::new(10, 77, 0, 2);
    let answer = guest.ask((other, 9));
    assert_eq!(answer.as_deref(), Some("other address of the host"));
    assert_eq!(
        guest.ask((OUTSIDE, 7)).as_deref(),
        Some("second"),
        "as before"
    );
    // Resolvers are asked by it too: the answer of this one is no DNS, but it was asked.
    let asked = hosts.behind[1].enter(|| {
        let heard = || std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let before = datagrams_in(&heard());
        let question = packets::dns_question(7, "example.com");
        let ends = Ends {
            ips: (GUEST, GATEWAY),
            ..guest.ends
        };
        guest.send(&packets::udp(ends, (5300, 53), 64, &question));
        std::thread::sleep(Duration::from_millis(300));
        datagrams_in(&heard()) - before
    });
    assert!(asked > 0, "the resolver was not asked by this interface");
}

/// `Udp: InDatagrams` of `/proc/net/snmp`.
fn datagrams_in(snmp: &str) -> u64 {
    let row = snmp.lines().filter(|line| line.starts_with("Udp:")).nth(1);
    row.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn an_interface_that_goes_and_comes_back() {
    if !all_present(&[Prerequisite::Root]) {
        return;
    }
    let hosts = Hosts::new();
    let handle = start(&hosts, Some("up1")).unwrap();
    let guest = Guest::join(&handle);
    guest.ask_until("second");
    hosts.host.ip(&["link", "delete", "up1"]);
    let unreachable = |guest: &Guest, from: u16| {
        guest.send(&packets::udp(guest.ends, (from, 7), 64, b"who?"));
        guest.hear(|frame| {
            assert!(
                packets::read_udp(frame).is_none(),
                "nothing leaves by another way"
            );
            packets::read_icmp(frame).map(|(_, kind, code, _)| (kind, code))
        })
    };
    // A flow that was there, and one that is new.
    assert_eq!(unreachable(&guest, 5000), Some((3, 0)));
    assert_eq!(unreachable(&guest, 5001), Some((3, 0)));
    hosts.plug(1);
    guest.ask_until("second");
    let ends = guest.ends;
    guest.send(&packets::udp(ends, (5001, 7), 64, b"who?"));
    assert!(guest.hear(packets::read_udp).is_some(), "both come back");
}

#[test]
fn an_interface_that_is_not_there_is_an_error_that_lists_those_that_are() {
    if !all_present(&[Prerequisite::Root]) {
        return;
    }
    let hosts = Hosts::new();
    let error = start(&hosts, Some("up7")).unwrap_err().to_string();
    assert_eq!(error, "the host has no interface up7; it has lo, up0, up1");
}
