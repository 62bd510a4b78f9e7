//! Which ways packets take on networks that the kernel carries: round by the host and back to a guest, and out by the interface
//! that was chosen, which is told of a user's network too. Guests are commands, and namespaces at taps of the bridge.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use openvmnet::client::Client;
use openvmnet::place::Scope;
use openvmnet::service::{InterfaceOptions, Kind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use rustix::process::Signal;
use vmnet_lab::client;
use vmnet_lab::namespace::Namespace;
use vmnet_lab::prerequisite::Prerequisite;
use vmnet_lab::process::Process;
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::stage::{NETWORK, Stage};
use vmnet_lab::world::{FAR, FAR6, HOST, SERVER};
use vmnet_linux::kernel::tap;
use vmnet_wire::ethernet::Mac;
use vmnet_wire::ip::Protocol;

const SOON: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn stage() -> Option<Stage> {
    let also = ["ping", "busybox"].map(Prerequisite::Program);
    Stage::of_machine(env!("CARGO_BIN_EXE_vmnet"), &also)
}

#[track_caller]
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + 20 * SECOND;
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits for rules of the host that contain all of these.
#[track_caller]
fn await_rules(stage: &Stage, parts: &[&str]) {
    eventually(&format!("{parts:?}"), || {
        let rules = stage.on_host("nft list ruleset");
        parts.iter().all(|part| rules.contains(part))
    });
}

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// A command that listens.
fn listening(stage: &Stage, options: &[&str], words: &str) -> Process {
    let process = Process::spawn(stage.client(options, words));
    process.wait_for_output("ready", SOON, |text| text.contains("ready\n").then_some(()));
    process
}

/// A guest at a tap of the network's bridge: a namespace, whose own tap a thread joins to that of the bridge, as a VMM does.
struct TapGuest {
    inside: Namespace,
    address: Ipv4Addr,
    _service: Client,
}

impl TapGuest {
    fn new(stage: &Stage, number: u8) -> Self {
        Self::with(stage, number, |_| {})
    }

    fn with(stage: &Stage, number: u8, set: impl FnOnce(&mut InterfaceOptions)) -> Self {
        // SAFETY: no other thread of this process reads its environment now.
        unsafe { std::env::set_var("VMNET_SYSTEM_SOCKET", stage.world.machine_socket()) };
        let (mut service, outer) = stage.world.host().enter(|| {
            let mut service = Client::connect_running_to(Scope::System).expect("the service");
            service
                .open_network(Some(NETWORK), None)
                .expect("a network");
            let (_, taps) = service.open_tap(NETWORK, 1).expect("a tap");
            (service, taps.into_iter().next().expect("a queue"))
        });
        let mac = format!("52:54:00:00:00:{number:02x}");
        let mut options = InterfaceOptions {
            mac: Some(mac.clone()),
            only_mac: Some(true),
            ..InterfaceOptions::new(Kind::BridgeTap)
        };
        set(&mut options);
        let joined = outer.as_fd().try_clone_to_owned().expect("a descriptor");
        service
            .start_interface(NETWORK, options, vec![joined])
            .expect("an interface");
        let inside = Namespace::new();
        let inner = inside.enter(|| tap::open("eth0")).expect("a tap");
        let (from, to) = (outer.try_clone().unwrap(), inner.try_clone().unwrap());
        for (from, to) in [(from, to), (inner, outer)] {
            std::thread::spawn(move || {
                let mut frame = vec![0; 70_000];
                // They end with the process of the test.
                loop {
                    let mut readable = [PollFd::new(&from, PollFlags::IN)];
                    poll(&mut readable, None).expect("wait for a frame");
                    while let Ok(len) = rustix::io::read(&from, &mut frame) {
                        let _lost = rustix::io::write(&to, &frame[..len]);
                    }
                }
            });
        }
        let address = Ipv4Addr::new(192, 168, 64, number);
        inside.ip(&["link", "set", "eth0", "address", &mac]);
        inside.ip(&["link", "set", "eth0", "up"]);
        inside.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"]);
        inside.ip(&["route", "add", "default", "via", "192.168.64.1"]);
        Self {
            inside,
            address,
            _service: service,
        }
    }

    /// Has the client listen there.
    fn listen(&self, stage: &Stage, words: &str) -> Process {
        let mut command = self.inside.command(stage.client_path());
        command.args(words.split_whitespace());
        let process = Process::spawn(command);
        process.wait_for_output("ready", SOON, |text| text.contains("ready\n").then_some(()));
        process
    }

    #[track_caller]
    fn reaches(&self, to: SocketAddr) {
        let reached = self.inside.enter(|| client::connect::at_once(to, 20));
        reached.unwrap_or_else(|error| panic!("{} to {to}: {error}", self.address));
    }
}

/// Whether bridged packets pass the rules of routed ones; Docker has them do so, and new namespaces begin so.
fn bridged_rules(stage: &Stage, on: bool) {
    let value = u8::from(on);
    stage.on_host(&format!(
        "cd /proc/sys/net/bridge 2>/dev/null || exit 0; \
             echo {value} >bridge-nf-call-iptables; echo {value} >bridge-nf-call-ip6tables"
    ));
}

#[test]
fn commands_reach_forwarded_ports_that_lead_to_guests_of_their_own_network() {
    let Some(stage) = stage() else { return };
    let _web = listening(&stage, &["-p", "8080:80"], "listen-tcp 80");
    let dns = listening(&stage, &["-p", "5353:53/udp"], "listen-udp 53");
    await_rules(&stage, &["map tcp4 {", "map tcp6 {", "map udp4 {"]);
    let own = stage.client_path();
    let script = format!(
        "{own} listen-tcp 80 >/dev/null & for i in $(seq 100); do \
         {own} at-once 192.168.64.1:8082 5 2>/dev/null && exit 0; sleep 0.1; done; exit 1"
    );
    for on in [true, false] {
        bridged_rules(&stage, on);
        for to in [
            "192.168.64.1:8080",
            "198.51.100.2:8080",
            "[2001:db8:1::2]:8080",
        ] {
            stage.must(&format!("at-once {to} 20"), SOON);
        }
        stage.must("udp-echo 192.168.64.1:5353 20 1200", SOON);
        // And their own.
        Process::run(stage.shell(&["-p", "8082:80"], &script), SOON).success();
    }
    // They look as the host does, whose address stands for theirs.
    assert!(
        dns.stdout().contains("udp 192.168.64.1:"),
        "{}",
        dns.stdout()
    );
}

#[test]
fn guests_at_taps_reach_forwarded_ports_that_lead_to_each_other_and_to_themselves() {
    let Some(stage) = stage() else { return };
    stage.says(&format!("network create {NETWORK}"));
    let (one, other) = (TapGuest::new(&stage, 201), TapGuest::new(&stage, 202));
    let served = one.listen(&stage, "listen-tcp 80");
    let _web = listening(&stage, &["-p", "8080:80"], "listen-tcp 80");
    stage.says(&format!("forward add {NETWORK} 8083:{}:80", one.address));
    await_rules(&stage, &["8080 : ", "8083 : "]);
    for on in [true, false] {
        bridged_rules(&stage, on);
        for gateway in [Ipv4Addr::new(192, 168, 64, 1), HOST] {
            other.reaches(at(gateway, 8083));
            one.reaches(at(gateway, 8083));
            one.reaches(at(gateway, 8080));
            stage.must(&format!("at-once {gateway}:8083 20"), SOON);
        }
        // What a guest sends to all does not come back to it.
        one.inside.ip(&["neigh", "flush", "dev", "eth0"]);
        other.reaches(at(one.address, 80));
        let mut twice = one.inside.command("ping");
        twice.args(["-b", "-c", "3", "-i", "0.2", "-W", "1", "192.168.64.255"]);
        let said = Process::run(twice, SOON).stdout;
        assert!(!said.contains("192.168.64.201"), "{said}");
    }
    let seen = served.stdout();
    let strange = |line: &&str| line.starts_with("tcp") && !line.contains("192.168.64.");
    assert!(seen.lines().find(strange).is_none(), "{seen}");
}

/// Rules change whenever guests come and go. What they lead to is not looked up in nothing for a moment then.
#[test]
fn no_connection_is_refused_while_rules_change() {
    let Some(stage) = stage() else { return };
    stage.says(&format!("network create {NETWORK}"));
    let (one, other) = (TapGuest::new(&stage, 201), TapGuest::new(&stage, 202));
    let _served = one.listen(&stage, "listen-tcp 80");
    let add = format!("forward add {NETWORK}");
    stage.says(&format!("{add} 8083:{}:80", one.address));
    await_rules(&stage, &["8083 : "]);
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            for _ in 0..40 {
                stage.says(&format!("{add} 8084:{}:80", other.address));
                stage.says(&format!("forward remove {NETWORK} 8084"));
            }
        });
        while !changes.is_finished() {
            one.reaches(at(HOST, 8083));
        }
    });
}

/// Isolation is between guests. A forwarded port is the host's, which isolated guests reach as they reach all of it.
#[test]
fn isolated_guests_at_taps_reach_forwarded_ports_and_not_each_other() {
    for (network, guests) in [("--isolation", false), ("", true)] {
        let Some(mut stage) = stage() else { return };
        stage.says(&format!("network create {NETWORK} {network}"));
        let guest = |number| TapGuest::with(&stage, number, |it| it.isolated = Some(guests));
        let (one, other) = (guest(201), guest(202));
        let _served = one.listen(&stage, "listen-tcp 80");
        stage.says(&format!("forward add {NETWORK} 8083:{}:80", one.address));
        await_rules(&stage, &["8083 : "]);
        let connects = |from: &TapGuest, to| {
            let (outcome, _) = from.inside.enter(|| client::connect::outcome(to, SECOND));
            outcome == "connected"
        };
        for on in [true, false, true] {
            bridged_rules(&stage, on);
            // Rules follow in a moment.
            for gateway in [Ipv4Addr::new(192, 168, 64, 1), HOST] {
                for from in [&other, &one] {
                    let what = format!("{network} {on}: {} to {gateway}", from.address);
                    eventually(&what, || connects(from, at(gateway, 8083)));
                }
            }
            assert!(!connects(&other, at(one.address, 80)), "{network} {on}");
        }
        // Rules alone keep them apart now; the next service knows that they are.
        stage.machine().signal(Signal::KILL);
        stage.machine().wait(SOON);
        stage.start_machine();
        eventually("the network is there again", || {
            stage.says("network list").contains(NETWORK)
        });
        assert!(!connects(&other, at(one.address, 80)), "{network}: anew");
        let gateway = Ipv4Addr::new(192, 168, 64, 1);
        eventually("by the next service", || {
            connects(&other, at(gateway, 8083))
        });
    }
}

/// The same of commands, on both datapaths.
#[test]
fn isolated_commands_reach_forwarded_ports_and_not_each_other() {
    let of_user = || Stage::new(env!("CARGO_BIN_EXE_vmnet"), &[]);
    for (stage, calls) in [(of_user(), false), (stage(), true), (stage(), false)] {
        let Some(stage) = stage else { return };
        stage.says("network create apart --subnet 192.168.70.0/24");
        let options = ["--network", "apart", "--isolated"];
        let serving = [&options[..], &["--name", "web", "-p", "8085:80"]].concat();
        let web = listening(&stage, &serving, "listen-tcp 80");
        bridged_rules(&stage, calls);
        let says = |words: &str| Process::run(stage.client(&options, words), SOON);
        for to in ["192.168.70.1:8085", "198.51.100.2:8085"] {
            eventually(to, || says(&format!("at-once {to} 5")).status.success());
        }
        let own = says("resolve web.vmnet.internal").success();
        let said = says(&format!("outcome {}:80 1", own.trim())).success();
        assert!(!said.starts_with("connected"), "{said}");
        drop(web);
    }
}

/// Sends first pieces of packets of which no other comes, in all more bytes than the host has room for.
fn flood_with_pieces(from: Ipv4Addr, to: Ipv4Addr) {
    let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).expect("a socket");
    let ends = Ends {
        macs: (Mac::default(), Mac::default()),
        ips: (from, to),
    };
    for id in 0..6000 {
        let pieces = packets::fragments(ends, Protocol::UDP, id, &[0; 2960], 1500);
        let (_, packet) = pieces[0].split_at(14);
        // What finds no room on the way is as good as lost.
        let _full = sendto(&raw, packet, SendFlags::empty(), &SocketAddr::from((to, 0)));
    }
}

#[test]
fn pieces_of_packets_of_one_guest_leave_room_for_those_of_others() {
    let Some(stage) = stage() else { return };
    stage.says(&format!("network create {NETWORK}"));
    let [hostile, good, third] = [201, 202, 203].map(|number| TapGuest::new(&stage, number));
    let far = at(SERVER, 7);
    let echoed = |guest: &TapGuest, to| guest.inside.enter(|| client::datagram::echo(to, 20, 8000));
    for on in ["for all", "here", "nowhere"] {
        bridged_rules(&stage, on == "for all");
        stage.on_host(&format!(
            "ip link set vmnet0 type bridge nf_call_iptables {0} nf_call_ip6tables {0}",
            u8::from(on == "here")
        ));
        // To the outside, to the host, and to another guest, which has room of its own for them.
        for to in [FAR, Ipv4Addr::new(192, 168, 64, 1), third.address] {
            hostile.reaches(at(SERVER, 7));
            hostile
                .inside
                .enter(|| flood_with_pieces(hostile.address, to));
            echoed(&good, far).unwrap_or_else(|error| panic!("flood to {to}, {on}: {error}"));
            stage.must("udp-echo 198.51.100.1:7 20 8000", SOON);
        }
        // The hostile one itself, after what it did.
        echoed(&hostile, far).expect("its own pieces");
    }
}

#[test]
fn guests_at_taps_have_the_names_that_their_owners_gave() {
    let Some(stage) = stage() else { return };
    stage.says(&format!("network create {NETWORK}"));
    let guest = TapGuest::with(&stage, 203, |options| {
        options.name = Some("disk".to_owned())
    });
    stage.says(&format!(
        "lease reserve {NETWORK} 192.168.64.203 --mac 52:54:00:00:00:cb"
    ));
    stage.says(&format!("forward add {NETWORK} 8084:disk:80"));
    // It has its address from itself first, and speaks.
    let _served = guest.listen(&stage, "listen-tcp 80");
    guest.reaches(at(SERVER, 7));
    await_rules(&stage, &["8084 : 192.168.64.203 . 80"]);
    stage.must("at-once 198.51.100.2:8084 5", SOON);
    // With a lease, DNS knows it too, whatever it calls itself.
    let mut dhcp = guest.inside.command("busybox");
    dhcp.args([
        "udhcpc",
        "-i",
        "eth0",
        "-n",
        "-q",
        "-f",
        "-s",
        "/bin/true",
        "-x",
        "hostname:myself",
    ]);
    Process::run(dhcp, SOON).success();
    let resolved = stage.must("resolve disk.vmnet.internal", SOON);
    assert_eq!(resolved.trim(), "192.168.64.203");
    let list = stage.says("interface list");
    drop(guest);
    assert!(list.contains("disk"), "{list}");
    // Its owner's name ends with its interface; the guest has then the one that it gave itself.
    eventually("the name is gone", || {
        let words = "resolve disk.vmnet.internal";
        !Process::run(stage.client(&[], words), SOON)
            .status
            .success()
    });
}

/// Another way out beside the world's: interface `up1` of the host, behind which is a server at the address of [`FAR`].
struct SecondUplink {
    behind: Namespace,
}

impl SecondUplink {
    fn new(stage: &Stage) -> Self {
        let behind = Namespace::new();
        behind.sysctl("net.ipv4.ip_forward", "1");
        behind.sysctl("net.ipv6.conf.all.forwarding", "1");
        behind.ip(&["address", "add", &format!("{FAR}/32"), "dev", "lo"]);
        behind.ip(&["address", "add", &format!("{FAR6}/128"), "dev", "lo"]);
        let this = Self { behind };
        this.plug(stage);
        for far in [IpAddr::V4(FAR), IpAddr::V6(FAR6)] {
            this.behind.enter(|| answer(at(far, 9999), "second"));
            stage
                .world
                .outside()
                .enter(|| answer(at(far, 9999), "first"));
        }
        this
    }

    fn plug(&self, stage: &Stage) {
        let host = stage.world.host();
        host.connect("up1", &self.behind, "wire");
        let behind = &self.behind;
        behind.ip(&["address", "add", "10.88.0.1/24", "dev", "wire"]);
        behind.ip(&[
            "address",
            "add",
            "2001:db8:88::1/64",
            "dev",
            "wire",
            "nodad",
        ]);
        host.ip(&["address", "add", "10.88.0.2/24", "dev", "up1"]);
        host.ip(&["address", "add", "2001:db8:88::2/64", "dev", "up1", "nodad"]);
        for (via, metric) in [("10.88.0.1", "500"), ("2001:db8:88::1", "5000")] {
            let route = [
                "route", "add", "default", "via", via, "dev", "up1", "metric", metric,
            ];
            host.ip(&route);
        }
    }
}

/// Answers every datagram by a name; ends with the process of the test.
fn answer(at: SocketAddr, name: &'static str) {
    let socket = UdpSocket::bind(at).expect("a server outside");
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((_, from)) = socket.recv_from(&mut question) {
            let _gone = socket.send_to(name.as_bytes(), from);
        }
    });
}

/// Who answers a command of a network, at the address that both uplinks lead to.
fn who(stage: &Stage, network: &str, far: impl Into<IpAddr>) -> Option<String> {
    let words = format!("udp-ask {} who", at(far, 9999));
    let said = Process::run(stage.client(&["--network", network], &words), SOON);
    said.status.success().then(|| said.stdout.trim().to_owned())
}

fn routing(stage: &Stage) -> String {
    // Tables of ours are those from 0x766d0000.
    let all = "ip rule; ip -6 rule; (ip route show table all; ip -6 route show table all) | grep 'table 198685' || true";
    stage.on_host(all)
}

#[test]
fn what_guests_send_leaves_by_the_interface_that_was_chosen_and_no_other() {
    let Some(mut stage) = stage() else { return };
    let second = SecondUplink::new(&stage);
    let before = routing(&stage);
    stage.says("network create any");
    stage.says("network create by1 --external-interface up1");
    for far in [IpAddr::V4(FAR), IpAddr::V6(FAR6)] {
        assert_eq!(who(&stage, "any", far).as_deref(), Some("first"), "{far}");
        assert_eq!(who(&stage, "by1", far).as_deref(), Some("second"), "{far}");
    }
    let inside = |words: &str| {
        let said = Process::run(stage.client(&["--network", "by1"], words), SOON);
        said.stdout
    };
    // What the host reaches directly by another is asked for by this one, behind which it is not.
    for words in ["outcome 198.51.100.1:7 3", "outcome [2001:db8:1::1]:7 3"] {
        let said = inside(words);
        assert!(!said.starts_with("connected"), "{words}: {said}");
    }
    // Clients of forwarded ports come by any, and the host is where it was.
    let options = ["--network", "by1", "-p", "8080:80"];
    let web = listening(&stage, &options, "listen-tcp 80");
    await_rules(&stage, &["map tcp4 {", "map tcp6 {"]);
    for address in [IpAddr::V4(HOST), IpAddr::V6(vmnet_lab::world::HOST6)] {
        stage.world.outside().enter(|| {
            client::connect::at_once(at(address, 8080), 20).expect("by the other uplink");
        });
        let words = format!("at-once {} 20", at(address, 8080));
        Process::run(stage.client(&["--network", "by1"], &words), SOON).success();
    }
    for address in ["10.88.0.2", "2001:db8:88::2"] {
        let address: IpAddr = address.parse().unwrap();
        second.behind.enter(|| {
            client::connect::at_once(at(address, 8080), 20).expect("by the chosen uplink");
        });
    }
    drop(web);
    // It goes and comes back.
    stage.on_host("ip link delete up1");
    for far in [IpAddr::V4(FAR), IpAddr::V6(FAR6)] {
        assert_eq!(who(&stage, "by1", far), None, "nothing leaves by the other");
    }
    second.plug(&stage);
    eventually("it leaves by the interface again", || {
        [IpAddr::V4(FAR), IpAddr::V6(FAR6)]
            .iter()
            .all(|far| who(&stage, "by1", *far).as_deref() == Some("second"))
    });
    // A killed service leaves the way as it is, and the next one takes it over.
    let rules = |stage: &Stage| stage.on_host("ip rule; ip -6 rule");
    let during = rules(&stage);
    assert!(during.contains("iif vmnet1"), "{during}");
    stage.machine().signal(Signal::KILL);
    stage.machine().wait(SOON);
    assert_eq!(rules(&stage), during);
    stage.start_machine();
    assert_eq!(who(&stage, "by1", FAR).as_deref(), Some("second"));
    assert_eq!(rules(&stage), during);
    stage.says("network delete by1");
    stage.says("network delete any");
    assert_eq!(routing(&stage), before);
}

#[test]
fn it_leaves_by_the_chosen_interface_on_a_network_of_a_user_too() {
    let Some(stage) = Stage::new(env!("CARGO_BIN_EXE_vmnet"), &[]) else {
        return;
    };
    let second = SecondUplink::new(&stage);
    stage.says("network create any");
    stage.says("network create by1 --external-interface up1");
    let far = [IpAddr::V4(FAR), IpAddr::V6(FAR6)];
    for far in far {
        assert_eq!(who(&stage, "any", far).as_deref(), Some("first"), "{far}");
        assert_eq!(who(&stage, "by1", far).as_deref(), Some("second"), "{far}");
    }
    stage.on_host("ip link delete up1");
    for far in far {
        assert_eq!(who(&stage, "by1", far), None, "{far} by the other");
    }
    second.plug(&stage);
    eventually("it leaves by the interface again", || {
        far.iter()
            .all(|far| who(&stage, "by1", *far).as_deref() == Some("second"))
    });
}

#[test]
fn a_way_that_a_killed_service_has_left_is_removed_with_its_network() {
    let Some(mut stage) = stage() else { return };
    let _second = SecondUplink::new(&stage);
    let before = routing(&stage);
    stage.says("network create by1 --external-interface up1");
    assert!(routing(&stage).contains("iif vmnet0"));
    stage.machine().signal(Signal::KILL);
    stage.machine().wait(SOON);
    // Somebody tidies up, and the rule leads from nowhere.
    stage.on_host("ip link delete vmnet0");
    std::fs::remove_dir_all(stage.world.machine_state()).unwrap();
    stage.start_machine();
    assert!(!stage.says("network list").contains("by1"));
    assert_eq!(routing(&stage), before);
}
