//! Taps of bridges, whose frames the kernel carries: who hears whom, whose a tap is, and that it outlives a service which cannot
//! start again. Guests are made of frames here.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use openvmnet::client::{CallError, Client};
use openvmnet::place::Scope;
use openvmnet::service::{InterfaceOptions, Kind, ServiceError};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;
use vmnet_lab::namespace::Namespace;
use vmnet_lab::process::Process;
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::packets6::{self, Ends6};
use vmnet_lab::stage::Stage;
use vmnet_linux::kernel::tap;
use vmnet_wire::ethernet::{EtherType, Mac};
use vmnet_wire::ip::Protocol;

const SOON: Duration = Duration::from_secs(30);
/// Long for a frame on one machine.
const SILENCE: Duration = Duration::from_millis(300);
const ALL: Mac = Mac([0xff; 6]);
/// Set aside for experiments (IEEE 802).
const EXPERIMENT: EtherType = EtherType(0x88b5);

fn stage() -> Option<Stage> {
    let stage = Stage::of_machine(env!("CARGO_BIN_EXE_vmnet"), &[])?;
    // SAFETY: no other thread of this process reads its environment now.
    unsafe { std::env::set_var("VMNET_SYSTEM_SOCKET", stage.world.machine_socket()) };
    Some(stage)
}

fn client(stage: &Stage) -> Client {
    let host = stage.world.host();
    host.enter(|| Client::connect_running_to(Scope::System).expect("the service"))
}

fn mac(number: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, number])
}

fn options(kind: Kind, number: u8, isolated: bool) -> InterfaceOptions {
    InterfaceOptions {
        mac: Some(mac(number).to_string()),
        isolated: Some(isolated),
        ..InterfaceOptions::new(kind)
    }
}

/// A guest of frames.
struct Guest {
    mac: Mac,
    frames: OwnedFd,
    /// Bytes before each frame.
    header: usize,
    _service: Client,
}

impl Guest {
    fn at_tap(stage: &Stage, network: &str, number: u8, isolated: bool) -> Self {
        let mut service = client(stage);
        let (_, queues) = service.open_tap(network, 1).expect("a tap");
        let frames = queues.into_iter().next().expect("a queue");
        let options = options(Kind::BridgeTap, number, isolated);
        let tap = frames.try_clone().unwrap();
        service
            .start_interface(network, options, vec![tap])
            .expect("an interface");
        Self {
            mac: mac(number),
            frames,
            header: 12,
            _service: service,
        }
    }

    /// One that comes by the service.
    fn at_socket(stage: &Stage, network: &str, number: u8, isolated: bool) -> Self {
        let mut service = client(stage);
        let (ours, its) = UnixDatagram::pair().unwrap();
        let options = options(Kind::Dgram, number, isolated);
        service
            .start_interface(network, options, vec![its.into()])
            .expect("an interface");
        Self {
            mac: mac(number),
            frames: ours.into(),
            header: 0,
            _service: service,
        }
    }

    fn send(&self, frame: &[u8]) {
        let mut bytes = vec![0; self.header];
        bytes.extend(frame);
        bytes.resize(bytes.len().max(self.header + 60), 0);
        let deadline = Instant::now() + SOON;
        // A tap takes nothing before it is up.
        while let Err(error) = rustix::io::write(&self.frames, &bytes) {
            assert!(Instant::now() < deadline, "{error}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn say(&self, to: Mac, word: &str) {
        self.send(&packets::frame((self.mac, to), EXPERIMENT, word.as_bytes()));
    }

    /// The first frame in time of which something is so.
    fn hears(&self, within: Duration, so: impl Fn(&[u8]) -> bool) -> bool {
        let deadline = Instant::now() + within;
        let mut bytes = vec![0; 70_000];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let left = rustix::event::Timespec::try_from(left).unwrap();
            let mut readable = [PollFd::new(&self.frames, PollFlags::IN)];
            poll(&mut readable, Some(&left)).unwrap();
            if readable[0].revents().is_empty() {
                continue;
            }
            match rustix::io::read(&self.frames, &mut bytes) {
                Ok(len) if so(&bytes[self.header.min(len)..len]) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn holds(frame: &[u8], word: &str) -> bool {
    frame
        .windows(word.len())
        .any(|part| part == word.as_bytes())
}

/// Whether what one says to all, and to the other, comes to that.
fn reach(from: &Guest, to: &Guest, within: Duration) -> (bool, bool) {
    let words = [ALL, to.mac].map(|receiver| {
        let word = format!("{} to {receiver}", from.mac);
        from.say(receiver, &word);
        to.hears(within, |frame| holds(frame, &word))
    });
    (words[0], words[1])
}

#[test]
fn an_isolated_tap_exchanges_frames_with_the_gateway_alone() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24");
    let alone = Guest::at_tap(&stage, "lan", 1, true);
    let also_alone = Guest::at_tap(&stage, "lan", 2, true);
    let plain = Guest::at_tap(&stage, "lan", 3, false);
    let other = Guest::at_tap(&stage, "lan", 4, false);
    let by_service = Guest::at_socket(&stage, "lan", 5, false);
    // What is to be let pass passes, so what does not is kept.
    for (from, to) in [
        (&plain, &other),
        (&plain, &by_service),
        (&by_service, &other),
    ] {
        assert_eq!(
            reach(from, to, SOON),
            (true, true),
            "{} {}",
            from.mac,
            to.mac
        );
    }
    for whoever in [&also_alone, &plain, &by_service] {
        let (its, own) = (whoever.mac, alone.mac);
        assert_eq!(reach(&alone, whoever, SILENCE), (false, false), "to {its}");
        assert_eq!(
            reach(whoever, &alone, SILENCE),
            (false, false),
            "{its} to {own}"
        );
    }
    // The gateway's services answer it.
    let discover = discover(alone.mac);
    alone.send(&discover);
    let offered =
        |frame: &[u8]| packets::read_udp(frame).is_some_and(|(_, ports, _)| ports == (67, 68));
    assert!(alone.hears(SOON, offered), "an offer");
    let own = packets6::v6("fe80::5054:ff:fe00:1");
    alone.send(&packets6::router_solicitation(alone.mac, own));
    let advertised =
        |frame: &[u8]| packets6::read_icmp(frame).is_some_and(|(kind, ..)| kind == 134);
    assert!(alone.hears(SOON, advertised), "an advertisement");
    let gateway = Ipv4Addr::new(10, 77, 9, 1);
    let own = (alone.mac, Ipv4Addr::new(10, 77, 9, 200));
    alone.send(&packets::arp_request(alone.mac, own, gateway));
    assert!(
        alone.hears(SOON, |frame| frame[12..14] == [8, 6]),
        "the host"
    );
    // Those questions were for nobody else.
    let leaked = |frame: &[u8]| frame[6..12] == alone.mac.0;
    for whoever in [&also_alone, &plain, &by_service] {
        assert!(!whoever.hears(SILENCE, leaked), "{}", whoever.mac);
    }
}

/// The host knows where an address of the network is.
fn is_known(stage: &Stage, address: IpAddr, mac: Mac) {
    let at = format!("{address} lladdr {mac} dev vmnet0");
    stage.on_host(&format!("ip neigh replace {at}"));
}

/// The MAC of a link of the host.
fn mac_of(stage: &Stage, link: &str) -> Mac {
    let said = stage.on_host(&format!("ip -o link show {link}"));
    let (_, said) = said.split_once("link/ether ").expect("a MAC");
    said.split(' ').next().unwrap_or_default().parse().unwrap()
}

/// The host is a router, also for what comes in by a bridge and goes out by it.
#[test]
fn an_isolated_tap_does_not_reach_others_by_way_of_the_host() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24 --ipv6-prefix fd77:9::/64");
    let alone = Guest::at_tap(&stage, "lan", 1, true);
    let plain = Guest::at_tap(&stage, "lan", 2, false);
    let other = Guest::at_tap(&stage, "lan", 3, false);
    let host = mac_of(&stage, "vmnet0");
    let v4 = |guest: &Guest| Ipv4Addr::new(10, 77, 9, 100 + guest.mac.0[5]);
    let v6 = |guest: &Guest| packets6::v6(&format!("fd77:9::{}", 100 + guest.mac.0[5]));
    for guest in [&alone, &plain, &other] {
        for address in [v4(guest).into(), v6(guest).into()] {
            is_known(&stage, address, guest.mac);
        }
    }
    // By each family: whether what one sends to another's address comes there, by this MAC.
    let reach = |from: &Guest, to: &Guest, by: Mac, within| {
        let macs = (from.mac, by);
        let words =
            ["4", "6"].map(|family| format!("{} to {} by {by}, {family}", from.mac, to.mac));
        let ips = (v4(from), v4(to));
        from.send(&packets::udp(
            Ends { macs, ips },
            (7, 7),
            64,
            words[0].as_bytes(),
        ));
        let ips = (v6(from), v6(to));
        from.send(&packets6::udp(
            Ends6 { macs, ips },
            (7, 7),
            words[1].as_bytes(),
        ));
        words.map(|word| to.hears(within, |frame| holds(frame, &word)))
    };
    let words = |from: &Guest, to: &Guest| format!("{} to {}", from.mac, to.mac);
    assert_eq!(
        reach(&plain, &other, host, SOON),
        [true; 2],
        "who is not isolated"
    );
    assert_eq!(
        reach(&other, &plain, host, SOON),
        [true; 2],
        "nor the other"
    );
    for (from, to) in [(&alone, &plain), (&plain, &alone)] {
        assert_eq!(
            reach(from, to, host, SILENCE),
            [false; 2],
            "{}",
            words(from, to)
        );
    }
    // The host takes what is for the MAC of its own end of a tap, too.
    let end = mac_of(&stage, "vmnet0-0");
    assert_eq!(
        reach(&alone, &plain, end, SILENCE),
        [false; 2],
        "by its tap"
    );
    // The host and the world are reached.
    let at = Ipv4Addr::new(10, 77, 9, 1);
    let service = stage.world.host().enter(|| {
        let socket = UdpSocket::bind((at, 7777)).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    });
    let ends = Ends {
        macs: (alone.mac, host),
        ips: (v4(&alone), at),
    };
    alone.send(&packets::udp(ends, (7, 7777), 64, b"knock"));
    let mut heard = [0; 100];
    let (length, from) = service.recv_from(&mut heard).expect("a knock");
    assert_eq!(&heard[..length], b"knock");
    service.send_to(b"who is there?", from).unwrap();
    assert!(alone.hears(SOON, |frame| holds(frame, "who is there?")));
}

/// A question for an address (RFC 2131).
fn discover(mac: Mac) -> Vec<u8> {
    let mut message = vec![0_u8; 240];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    // Answers are to be for all.
    message[10] = 0x80;
    message[28..34].copy_from_slice(&mac.0);
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, 1, 255]);
    let ends = Ends {
        macs: (mac, ALL),
        ips: (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
    };
    packets::udp(ends, (68, 67), 64, &message)
}

fn refused(outcome: Result<openvmnet::service::Started, CallError>) -> ServiceError {
    match outcome {
        Err(CallError::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tap_is_joined_once_and_by_who_has_the_hosts_own() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan");
    let mut service = client(&stage);
    let (opened, queues) = service.open_tap("lan", 1).expect("a tap");
    let own = queues.into_iter().next().expect("a queue");
    // Another of that name, of a namespace that is not the host's.
    let elsewhere = Namespace::new();
    let strange = elsewhere.enter(|| tap::open(&opened.name).expect("a tap"));
    let mut stranger = client(&stage);
    let error = stranger.start_interface("lan", options(Kind::BridgeTap, 7, true), vec![strange]);
    assert!(matches!(
        refused(error),
        ServiceError::InvalidArgument { .. }
    ));
    let member = || {
        stage
            .on_host(&format!("ip -o link show {}", opened.name))
            .contains("master")
    };
    assert!(!member());
    let again = || own.as_fd().try_clone_to_owned().unwrap();
    let first = service
        .start_interface("lan", options(Kind::BridgeTap, 1, false), vec![again()])
        .expect("an interface");
    let twice = service.start_interface("lan", options(Kind::BridgeTap, 2, false), vec![again()]);
    assert!(matches!(refused(twice), ServiceError::InUse { .. }));
    drop(stranger);
    assert!(member(), "it is as it was");
    service
        .stop_interface(first.interface.interface)
        .expect("its end");
}

#[test]
fn a_service_that_cannot_start_again_leaves_taps_to_their_guests() {
    let Some(mut stage) = stage() else { return };
    stage.says("network create lan");
    let (one, other) = (
        Guest::at_tap(&stage, "lan", 1, false),
        Guest::at_tap(&stage, "lan", 2, false),
    );
    assert_eq!(reach(&one, &other, SOON), (true, true));
    stage.machine().signal(Signal::KILL);
    stage.machine().wait(SOON);
    // Nobody else can set the rules meanwhile.
    let owner = own_table(&stage, "vmnet0");
    stage.start_machine();
    let said = Process::run(stage.vmnet(&["network", "create", "lan"]), SOON);
    assert!(said.stderr.contains("cannot be started"), "{}", said.stderr);
    assert_eq!(reach(&one, &other, SOON), (true, true), "they go on");
    drop(owner);
    // It is tried again when somebody wants it, and finds them.
    stage.says("run --network lan -- true");
    assert_eq!(reach(&one, &other, SOON), (true, true));
    let members = stage.on_host("ip -o link show master vmnet0");
    for member in ["vmnet0-0", "vmnet0-1", "vmnet0-gw"] {
        assert!(members.contains(member), "{members}");
    }
}

/// A program that has the tables of a network to itself, until it ends.
fn own_table(stage: &Stage, name: &str) -> Process {
    let mut command = stage.world.superusers("nft");
    command.arg("-i");
    let mut owner = Process::spawn(command);
    owner.write_line(&format!("delete table inet {name}"));
    owner.write_line(&format!("add table inet {name} {{ flags owner; }}"));
    let deadline = Instant::now() + SOON;
    while !stage.on_host("nft list ruleset").contains("flags owner") {
        assert!(Instant::now() < deadline, "{}", owner.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
    owner
}

#[test]
fn a_forwarded_port_that_was_refused_does_not_come_back() {
    let Some(mut stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24");
    let owner = own_table(&stage, "vmnet0");
    let words = ["forward", "add", "lan", "8080:10.77.9.7:80"];
    let said = Process::run(stage.vmnet(&words), SOON);
    assert!(!said.status.success(), "{}", said.stdout);
    drop(owner);
    let listed = |stage: &Stage| stage.says("forward list --json");
    assert!(!listed(&stage).contains("8080"));
    stage.machine().signal(Signal::TERM);
    stage.machine().wait(SOON);
    stage.start_machine();
    assert!(!listed(&stage).contains("8080"), "{}", listed(&stage));
    // And one that was taken does.
    stage.says("forward add lan 8081:10.77.9.7:80");
    stage.machine().signal(Signal::TERM);
    stage.machine().wait(SOON);
    stage.start_machine();
    assert!(listed(&stage).contains("8081"));
}

#[test]
fn a_guest_is_no_server_and_no_router_in_pieces_either() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24");
    let (one, other) = (
        Guest::at_tap(&stage, "lan", 1, false),
        Guest::at_tap(&stage, "lan", 2, false),
    );
    assert_eq!(reach(&one, &other, SOON), (true, true));
    let ends = Ends {
        macs: (one.mac, ALL),
        ips: (Ipv4Addr::new(10, 77, 9, 7), Ipv4Addr::BROADCAST),
    };
    let datagram = |ports, word: &str| packets::udp(ends, ports, 64, word.as_bytes());
    // An answer of a server that does not speak from a server's port.
    for (ports, passes) in [
        ((67, 68), false),
        ((4067, 68), false),
        ((68, 67), true),
        ((9, 9), true),
    ] {
        let word = format!("{ports:?} of IPv4");
        one.send(&datagram(ports, &word));
        let within = if passes { SOON } else { SILENCE };
        let heard = other.hears(within, |frame| holds(frame, &word));
        assert_eq!(heard, passes, "{word}");
    }
    // A first piece that ends before the header that would tell what it is; and pieces that tell.
    // To one: pieces for all are nobody's where bridged packets pass iptables.
    let six = Ends6 {
        macs: (one.mac, other.mac),
        ips: (packets6::v6("fe80::7"), packets6::v6("fe80::9")),
    };
    let piece = |next: u8, place: u16, rest: &[u8], word: &str| {
        let head = [next, 0, (place >> 8) as u8, place as u8, 0, 0, 0, 7];
        let payload = [&head[..], rest, word.as_bytes()].concat();
        packets6::ip(six, Protocol::FRAGMENT, 255, &payload)
    };
    let options = |next: u8, more: u8| [next, more, 1, 4, 0, 0, 0, 0];
    // Ten bytes of a message could be any: its first eight are missing here.
    let hidden = [
        piece(60, 1, &options(58, 0), ""),
        piece(60, 1, &options(58, 3), "said beyond this piece"),
        piece(43, 1, &[60, 0, 4, 0, 0, 0, 0, 0], ""),
        piece(60, 1, &options(17, 0), ""),
        piece(58, 1, &[134, 0], ""),
    ];
    let is_piece = |frame: &[u8]| {
        frame[12..14] == [0x86, 0xdd] && frame[20] == 44 && frame[6..12] == one.mac.0
    };
    for (at, frame) in hidden.iter().enumerate() {
        one.send(frame);
        assert!(!other.hears(SILENCE, is_piece), "{at}");
    }
    for (next, rest) in [
        (17, [0, 9, 0, 9, 0, 200, 0, 0]),
        (58, [128, 0, 0, 0, 0, 7, 0, 1]),
        (6, [0; 8]),
    ] {
        for place in [1, 8] {
            one.send(&piece(next, place, &rest, "and more of it"));
            assert!(other.hears(SOON, is_piece), "{next} at {place}");
        }
    }
}

/// Who flushes all rules takes away what keeps guests from the host's loopback, to which forwarded ports have opened the bridge.
/// Something else keeps them from it.
#[test]
fn a_flush_of_all_rules_does_not_open_the_loopback() {
    let Some(mut stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24");
    stage.says("forward add lan 8080:10.77.9.200:80");
    let setting = "cat /proc/sys/net/ipv4/conf/vmnet0/route_localnet";
    let opened = || stage.on_host(setting).trim() == "1";
    let deadline = Instant::now() + SOON;
    while !opened() {
        assert!(Instant::now() < deadline, "the loopback leads to the port");
        std::thread::sleep(Duration::from_millis(20));
    }
    let service = stage.world.host().enter(|| {
        let socket = UdpSocket::bind("127.0.0.1:7777").unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        socket
    });
    let guest = Guest::at_tap(&stage, "lan", 1, false);
    let host: Mac = stage
        .on_host("cat /sys/class/net/vmnet0/address || ip -o link show vmnet0 | sed 's,.*ether \\([^ ]*\\).*,\\1,'")
        .trim()
        .parse()
        .unwrap();
    // As it is, and with the tag of no VLAN, several times.
    let knock = || {
        let ends = Ends {
            macs: (guest.mac, host),
            ips: (Ipv4Addr::new(10, 77, 9, 5), Ipv4Addr::LOCALHOST),
        };
        let frame = packets::udp(ends, (4000, 7777), 64, b"knock");
        for tags in 0..4 {
            let tags = [0x81, 0, 0, 0].repeat(tags);
            guest.send(&[&frame[..12], &tags, &frame[12..]].concat());
        }
    };
    let heard = || service.recv(&mut [0; 100]).is_ok();
    // Nobody can set rules again.
    stage.machine().signal(Signal::STOP);
    stage.on_host("nft flush ruleset");
    knock();
    assert!(!heard(), "a guest reaches the loopback");
    // It is this that keeps it away, as long as the bridge is there.
    stage.machine().signal(Signal::KILL);
    stage.machine().wait(SOON);
    knock();
    assert!(!heard(), "the service is gone");
    stage.on_host("tc qdisc delete dev vmnet0-0 ingress");
    knock();
    for tags in 0..4 {
        assert!(
            heard(),
            "where nothing keeps it away, a knock with {tags} tags is heard"
        );
    }
}

/// The host would hand on to a guest of its bridge what comes from there with any address.
#[test]
fn an_isolated_tap_hears_no_foreign_address_by_way_of_the_host() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24 --ipv6-prefix fd77:9::/64");
    let alone = Guest::at_tap(&stage, "lan", 1, true);
    let plain = Guest::at_tap(&stage, "lan", 2, false);
    let other = Guest::at_tap(&stage, "lan", 3, false);
    let host = mac_of(&stage, "vmnet0");
    let [own, foreign, to] = ["fd77:9::102", "2001:db8::1", "fd77:9::101"].map(packets6::v6);
    is_known(&stage, to.into(), alone.mac);
    is_known(&stage, own.into(), plain.mac);
    for from in [own, foreign] {
        let ends = Ends6 {
            macs: (plain.mac, host),
            ips: (from, to),
        };
        plain.send(&packets6::udp(ends, (7, 7), b"psst"));
    }
    assert!(!alone.hears(SILENCE, |frame| holds(frame, "psst")));
    // Another guest hears both: so they were sent well.
    is_known(&stage, to.into(), other.mac);
    for from in [own, foreign] {
        let ends = Ends6 {
            macs: (plain.mac, host),
            ips: (from, to),
        };
        let word = format!("from {from}");
        plain.send(&packets6::udp(ends, (7, 7), word.as_bytes()));
        let within = if from == own { SOON } else { SILENCE };
        let heard = other.hears(within, |frame| holds(frame, &word));
        assert_eq!(heard, from == own, "{word}");
    }
}
