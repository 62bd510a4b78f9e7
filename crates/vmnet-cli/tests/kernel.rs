//! Networks of the machine's service that the kernel carries: the host on them, its rules beside those of others, and what is
//! left when the service is killed. What guests see is told in `kernel_stories`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vmnet_lab::client;
use vmnet_lab::namespace::Namespace;
use vmnet_lab::prerequisite::Prerequisite;
use vmnet_lab::process::Process;
use vmnet_lab::stage::{NETWORK, Stage};
use vmnet_lab::world::{HOST, SERVER};
use vmnet_linux::kernel::forwarding::{self, Wanted};
use vmnet_linux::kernel::nft::Record;

const SOON: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn stage(also: &[&'static str]) -> Option<Stage> {
    let also: Vec<_> = also.iter().copied().map(Prerequisite::Program).collect();
    Stage::of_machine(env!("CARGO_BIN_EXE_vmnet"), &also)
}

/// A guest that listens, and its address.
fn listening(stage: &Stage, options: &[&str], words: &str) -> (Process, Ipv4Addr) {
    let address = "ip -4 -o address show dev eth0 | sed 's,.*inet \\([0-9.]*\\)/.*,\\1,'";
    let script = format!("{address}; exec {} {words}", stage.client_path());
    let process = Process::spawn(stage.shell(options, &script));
    let found = process.wait_for_output("ready", SOON, |text| {
        text.contains("ready\n")
            .then(|| text.lines().next().unwrap_or_default().to_owned())
    });
    (process, found.parse().expect("an address"))
}

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

fn outcome(to: SocketAddr) -> String {
    client::connect::outcome(to, 5 * SECOND).0
}

#[track_caller]
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + 20 * SECOND;
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn host_and_guests_reach_each_other_by_address_and_nothing_gets_out() {
    let Some(stage) = stage(&["ping"]) else {
        return;
    };
    stage.says("network create lan --mode host --subnet 10.77.9.0/24");
    stage.world.serve_echo_on_host(at([10, 77, 9, 1], 8888));
    let options = ["--network", "lan"];
    let (_guest, guest) = listening(&stage, &options, "listen-tcp 80");
    stage.world.host().enter(|| {
        client::connect::at_once(at(guest, 80), 20).expect("the host reaches a guest");
    });
    stage.on_host(&format!("ping -c 2 -i 0.2 -W 5 {guest}"));
    let inside = |words: &str| Process::run(stage.client(&options, words), SOON);
    inside("at-once 10.77.9.1:8888 20").success();
    inside("udp-echo 10.77.9.1:8888 20 1200").success();
    for words in ["outcome 198.51.100.1:7 10", "outcome 198.51.100.2:80 10"] {
        let said = inside(words).success();
        assert!(said.starts_with("unreachable"), "{words}: {said}");
    }
    let udp = inside("udp-ask 198.51.100.1:9000 who");
    assert!(!udp.status.success(), "{}", udp.stdout);
}

#[test]
fn a_network_without_an_address_of_the_host_has_none() {
    let Some(stage) = stage(&[]) else { return };
    stage.says("network create lan --private");
    let addresses = stage.on_host("ip -o address show dev vmnet0");
    assert_eq!(addresses, "");
    stage.says("network create other --private --subnet 10.77.3.7/24");
    let addresses = stage.on_host("ip -o address show dev vmnet1");
    assert!(addresses.contains("10.77.3.7/24"), "{addresses}");
}

#[test]
fn a_forwarded_port_is_reached_from_everywhere_and_rules_change_while_it_runs() {
    let Some(stage) = stage(&[]) else { return };
    let (guest, address) = listening(&stage, &["--name", "web"], "listen-tcp 80");
    let reached = |to: SocketAddr, times| client::connect::at_once(to, times);
    let from_host = |to, times| stage.world.host().enter(|| reached(to, times));
    let from_outside = |to, times| stage.world.outside().enter(|| reached(to, times));
    stage.says(&format!("forward add {NETWORK} 8080:web:80"));
    stage.says(&format!(
        "forward add {NETWORK} 198.51.100.2:8081:{address}:80"
    ));
    from_outside(at(HOST, 8080), 20).expect("from outside");
    from_outside(at(HOST, 8081), 20).expect("at one address");
    assert!(guest.stdout().contains(&format!("tcp {SERVER}:")));
    from_host(at([127, 0, 0, 1], 8080), 20).expect("from the loopback");
    from_host(at(HOST, 8080), 20).expect("from the host");
    assert!(
        from_host(at([127, 0, 0, 1], 8081), 1).is_err(),
        "not its address"
    );
    // Hairpin: by the gateway and by the host, from another guest and from itself.
    for to in ["192.168.64.1:8080", "198.51.100.2:8080"] {
        stage.must(&format!("at-once {to} 20"), SOON);
    }
    let list = stage.says("forward list --json");
    let all: serde_json::Value = serde_json::from_str(&list).unwrap();
    for rule in all["forwards"].as_array().unwrap() {
        stage.says(&format!("forward remove {}", rule["forward"]));
    }
    stage.world.outside().enter(|| {
        assert_eq!(outcome(at(HOST, 8080)), "refused");
        assert_eq!(outcome(at(HOST, 8081)), "refused");
    });
    // Nobody comes in by a guest's own address.
    stage
        .world
        .outside()
        .ip(&["route", "add", "192.168.64.0/24", "via", &HOST.to_string()]);
    stage
        .world
        .outside()
        .enter(|| assert_ne!(outcome(at(address, 80)), "connected"));
}

#[test]
fn a_port_of_an_address_that_the_host_has_lost_leads_nobody_astray() {
    let Some(stage) = stage(&[]) else { return };
    // An address of the outside, which the host has for a while.
    let servers = at([203, 0, 113, 9], 7);
    stage.on_host("ip address add 203.0.113.9/32 dev lo");
    let (guest, address) = listening(&stage, &[], "listen-tcp 7");
    stage.says(&format!("forward add {NETWORK} 203.0.113.9:7:{address}:7"));
    let from_host = || {
        stage
            .world
            .host()
            .enter(|| client::connect::at_once(servers, 5))
    };
    let came = |guest: &Process| guest.stdout().matches("tcp ").count();
    from_host().expect("the guest, by the host's address");
    eventually("the guest has heard", || came(&guest) >= 5);
    let before = came(&guest);
    stage.on_host("ip address del 203.0.113.9/32 dev lo");
    from_host().expect("who has the address now");
    assert_eq!(came(&guest), before, "the guest is not asked");
}

#[test]
fn isolated_guests_reach_the_world_and_not_each_other() {
    let Some(stage) = stage(&[]) else { return };
    stage.says("network create lan --isolation");
    let options = ["--network", "lan"];
    let (_guest, guest) = listening(&stage, &options, "listen-tcp 80");
    let inside = |words: &str| Process::run(stage.client(&options, words), SOON).success();
    inside("at-once 198.51.100.1:7 20");
    let said = inside(&format!("outcome {guest}:80 3"));
    assert!(!said.starts_with("connected"), "{said}");
    stage.world.host().enter(|| {
        client::connect::at_once(at(guest, 80), 5).expect("the host reaches it");
    });
}

/// What Docker, firewalld and a careful administrator have.
const OTHERS: &str = r#"
table ip filter {
    chain DOCKER-USER { counter packets 0 bytes 0 return; }
    chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; iifname "docker0" accept; }
}
table ip6 filter {
    chain FORWARD { type filter hook forward priority filter; policy drop; iifname "docker0" accept; }
}
table inet firewalld {
    chain filter_FORWARD {
        type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        iifname "lo" accept
        reject with icmpx admin-prohibited
    }
}
table inet mine {
    set ports { type inet_service; elements = { 22, 80 } }
    chain output { type filter hook output priority filter; policy accept; tcp dport @ports accept; }
}
"#;

/// What forwards.
fn settings(stage: &Stage) -> String {
    stage.on_host("cd /proc/sys/net; cat ipv4/conf/*/forwarding ipv6/conf/*/forwarding ipv6/conf/*/accept_ra; \
         cat ipv6/conf/*/force_forwarding 2>/dev/null || true",
    )
}

#[test]
fn rules_of_others_let_us_pass_and_are_the_same_afterwards() {
    let Some(mut stage) = stage(&[]) else { return };
    std::fs::write(stage.world.home().join("others"), OTHERS).unwrap();
    stage.on_host(&format!(
        "nft -f {}",
        stage.world.home().join("others").display()
    ));
    // What was counted is no rule.
    let listed = |stage: &Stage| stage.on_host("nft -s list ruleset");
    let (before, set_before) = (listed(&stage), settings(&stage));
    stage.says(&format!("network create {NETWORK}"));
    let (guest, _) = listening(&stage, &["-p", "8080:80"], "listen-tcp 80");
    stage.must("at-once 198.51.100.1:7 20", SOON);
    stage.must("tcp-ask [2001:db8:1::1]:9000", SOON);
    stage.must("udp-echo 198.51.100.1:7 20 1200", SOON);
    stage.world.outside().enter(|| {
        client::connect::at_once(at(HOST, 8080), 20).expect("the forwarded port answers");
    });
    let during = listed(&stage);
    assert!(during.contains("comment \"openvmnet\""), "{during}");
    drop(guest);
    eventually("the guest is gone", || {
        !stage.says("interface list").contains(NETWORK)
    });
    stage.says(&format!("network delete {NETWORK}"));
    assert_eq!(listed(&stage), before);
    assert_eq!(settings(&stage), set_before);
    // The same by an orderly end of the service.
    stage.says(&format!("network create {NETWORK}"));
    assert_ne!(listed(&stage), before);
    stage.machine().signal(Signal::TERM);
    stage.machine().wait(SOON);
    assert_eq!(listed(&stage), before);
    assert_eq!(settings(&stage), set_before);
    assert!(!stage.on_host("ip -o link").contains("vmnet"));
}

#[test]
fn what_a_killed_service_has_left_is_taken_over_or_removed() {
    let Some(mut stage) = stage(&["ping"]) else {
        return;
    };
    let before = stage.on_host("nft -s list ruleset");
    stage.says("network create lan");
    // One that nobody keeps ends with the service.
    let (mut held, _) = listening(&stage, &["--network", "held"], "listen-tcp 80");
    let index = |stage: &Stage| stage.on_host("ip -o link show vmnet0 | cut -d: -f1");
    let first = index(&stage);
    // It would start a service of its own in the place of the one that was killed.
    held.signal(Signal::STOP);
    stage.machine().signal(Signal::KILL);
    stage.machine().wait(SOON);
    drop(held);
    assert_eq!(index(&stage), first, "the bridge stays");
    stage.start_machine();
    // It answers when it has looked at what was left.
    assert!(stage.says("network list").contains("lan"));
    assert_eq!(index(&stage), first, "it is taken over");
    assert!(
        !stage.on_host("ip -o link").contains("vmnet1"),
        "and the other is gone"
    );
    let options = ["--network", "lan"];
    Process::run(stage.client(&options, "at-once 198.51.100.1:7 20"), SOON).success();
    stage.says("network delete lan");
    assert_eq!(stage.on_host("nft -s list ruleset"), before);
    assert!(!stage.on_host("ip -o link").contains("vmnet"));
}

/// A VMM whose owner is gone: nobody will bring it back, and the bridge is its own as long as it is there.
#[test]
fn what_a_vmm_is_still_on_is_removed_when_that_ends() {
    let Some(mut stage) = stage(&[]) else { return };
    let before = stage.on_host("nft -s list ruleset");
    // In the place of QEMU: what it leaves behind has inherited the tap.
    let script = "sleep 1000 >/dev/null 2>&1 & echo at $!; wait";
    let words = ["qemu", "--network", "held", "--nic", "tap", "--", "sh"];
    let mut command = stage.vmnet(&words);
    command.args(["-c", script]);
    let mut owner = Process::spawn(command);
    let vmm: i32 = owner.wait_for_output("the VMM", SOON, |text| {
        let number = text.strip_prefix("at ")?.strip_suffix('\n')?;
        number.parse().ok()
    });
    let links = |stage: &Stage| stage.on_host("ip -o link");
    assert!(links(&stage).contains("vmnet0-0"), "{}", links(&stage));
    owner.signal(Signal::STOP);
    stage.machine().signal(Signal::KILL);
    stage.machine().wait(SOON);
    drop(owner);
    stage.start_machine();
    assert!(!stage.says("network list").contains("held"));
    std::thread::sleep(2 * SECOND);
    assert!(links(&stage).contains("vmnet0-0"), "{}", links(&stage));
    let vmm = rustix::process::Pid::from_raw(vmm).unwrap();
    rustix::process::kill_process(vmm, Signal::KILL).unwrap();
    eventually("it is removed", || !links(&stage).contains("vmnet"));
    assert_eq!(stage.on_host("nft -s list ruleset"), before);
}

#[test]
fn the_kernel_is_for_the_machines_service_alone() {
    let Some(stage) = Stage::new(env!("CARGO_BIN_EXE_vmnet"), &[]) else {
        return;
    };
    let words = ["network", "create", "lan", "--datapath", "kernel"];
    let refused = Process::run(stage.vmnet(&words), SOON);
    assert!(!refused.status.success());
    assert!(
        refused.stderr.contains("vmnet daemon --system"),
        "{}",
        refused.stderr
    );
    assert!(!stage.on_host("ip -o link").contains("vmnet"));
}

/// Whether the host's rules let our network pass in this chain of others.
fn lets_pass(stage: &Stage, chain: &str) -> bool {
    let rules = stage.on_host(&format!("nft list chain {chain}"));
    rules.contains("iifname \"vmnet0\"") && rules.contains("oifname \"vmnet0\"")
}

#[test]
fn rules_that_somebody_flushed_come_back() {
    let Some(mut stage) = stage(&["ping"]) else {
        return;
    };
    let (before, set_before) = (stage.on_host("nft -s list ruleset"), settings(&stage));
    stage.says(&format!("network create {NETWORK}"));
    let (guest, address) = listening(&stage, &["--name", "web", "-p", "8080:80"], "listen-tcp 80");
    let loopback = |stage: &Stage| {
        let setting = "/proc/sys/net/ipv4/conf/vmnet0/route_localnet";
        stage.on_host(&format!("cat {setting}")).trim() == "1"
    };
    eventually("the loopback leads to the port", || loopback(&stage));
    // The guest is known by all its addresses, and nothing changes by itself any more.
    eventually("the port leads to both addresses", || {
        let rules = stage.on_host("nft list ruleset");
        rules.contains("dnat ip to") && rules.contains("dnat ip6 to")
    });
    // What `systemctl reload nftables` does.
    for _ in 0..2 {
        stage.on_host("nft flush ruleset");
        eventually("the rules stand", || {
            // Without rules a bridge in hairpin mode gives a guest's frames back to the switch, which takes it to be elsewhere
            // until it speaks again.
            stage.on_host(&format!("ping -c 1 -W 1 {address} >/dev/null || true"));
            let rules = stage.on_host("nft list ruleset");
            let parts = [
                "table inet vmnet0",
                "table bridge vmnet0",
                "vmnet-forwarding",
                "dport map",
            ];
            parts.iter().all(|part| rules.contains(part))
        });
        stage.must("at-once 198.51.100.1:7 20", SOON);
        stage.world.outside().enter(|| {
            client::connect::at_once(at(HOST, 8080), 5).expect("the forwarded port");
        });
    }
    // Docker comes when we are there, firewalld and ufw are reloaded.
    std::fs::write(stage.world.home().join("others"), OTHERS).unwrap();
    let load = format!("nft -f {}", stage.world.home().join("others").display());
    let reloads = [
        load.clone(),
        format!(
            "nft 'delete table inet firewalld'; nft 'delete table ip filter'; nft 'delete table ip6 filter'; nft 'delete table inet mine'; {load}"
        ),
        "nft flush chain ip filter DOCKER-USER; nft flush chain ip6 filter FORWARD".to_owned(),
    ];
    for reload in reloads {
        stage.on_host(&reload);
        for chain in [
            "ip filter DOCKER-USER",
            "ip6 filter FORWARD",
            "inet firewalld filter_FORWARD",
        ] {
            eventually(chain, || lets_pass(&stage, chain));
        }
        stage.must("at-once 198.51.100.1:7 20", SOON);
        stage.must("tcp-ask [2001:db8:1::1]:9000", SOON);
    }
    drop(guest);
    eventually("the port is gone", || !loopback(&stage));
    // What was switched on is given back, though what was written down was flushed.
    stage.on_host("nft flush ruleset");
    stage.machine().signal(Signal::TERM);
    stage.machine().wait(SOON);
    assert_eq!(stage.on_host("nft -s list ruleset"), before);
    assert_eq!(settings(&stage), set_before);
}

#[test]
fn interfaces_that_are_called_as_ours_are_somebody_elses() {
    let Some(stage) = stage(&[]) else { return };
    std::fs::write(stage.world.home().join("others"), OTHERS).unwrap();
    stage.on_host(&format!(
        "nft -f {}",
        stage.world.home().join("others").display()
    ));
    // VMware's, with a machine on it.
    let guest = Namespace::new();
    stage.world.host().connect("vmnet8", &guest, "eth0");
    for address in ["172.16.8.1/24", "fd08::1/64"] {
        stage
            .world
            .host()
            .ip(&["address", "add", address, "dev", "vmnet8", "nodad"]);
    }
    guest.ip(&["address", "add", "172.16.8.2/24", "dev", "eth0"]);
    guest.ip(&["route", "add", "default", "via", "172.16.8.1"]);
    let listener = guest.enter(|| std::net::TcpListener::bind("172.16.8.2:80").unwrap());
    stage.says(&format!("network create {NETWORK}"));
    let rules = stage.on_host("nft list ruleset");
    assert!(
        rules.contains("iifname \"vmnet0\" accept comment"),
        "{rules}"
    );
    assert!(!rules.contains("vmnet*"), "{rules}");
    // Others' rules are what they were for it: nothing gets through.
    guest.enter(|| assert_ne!(outcome(at([198, 51, 100, 1], 7)), "connected"));
    // Guests of ours reach it as they reach all of the host's networks, by the host's address.
    for chain in ["ip filter", "ip6 filter"] {
        stage.on_host(&format!("nft delete table {chain}"));
    }
    stage.on_host("nft delete table inet firewalld");
    let said = std::thread::scope(|scope| {
        let peer = scope.spawn(|| listener.accept().unwrap().1.ip());
        let said = stage.must("outcome 172.16.8.2:80 10", SOON);
        if !said.starts_with("connected") {
            // Ends the wait.
            let _ended = guest.enter(|| std::net::TcpStream::connect("172.16.8.2:80"));
        }
        (said, peer.join().unwrap())
    });
    assert!(said.0.starts_with("connected"), "{}", said.0);
    assert_eq!(said.1, IpAddr::from([172, 16, 8, 1]));
}

#[test]
fn one_switch_for_all_of_ipv6_is_given_back_as_it_was() {
    let Some(stage) = Stage::new(env!("CARGO_BIN_EXE_vmnet"), &[Prerequisite::Program("nft")])
    else {
        return;
    };
    let wanted = |names: &[&str]| Wanted {
        v6: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Wanted::default()
    };
    // An administrator's router between two networks, and what is to come.
    stage.on_host("for name in br0 br1 other0; do ip link add $name type bridge; done; cd /proc/sys/net/ipv6/conf; \
         echo 1 >br0/forwarding; echo 1 >br1/forwarding; echo 2 >br1/accept_ra; echo 1 >default/forwarding",
    );
    let before = settings(&stage);
    let follow = |names: &[&str], written: &mut Record| {
        stage.world.host().enter(|| {
            forwarding::follow(&wanted(names), false, written, &BTreeSet::new()).unwrap()
        });
    };
    let mut written = Record::default();
    follow(&["other0"], &mut written);
    let all = "/proc/sys/net/ipv6/conf/all/forwarding";
    assert_eq!(stage.on_host(&format!("cat {all}")).trim(), "1");
    // Another helper finds it written down, this one knows it though somebody flushed all rules.
    for flushed in [false, true] {
        if flushed {
            follow(&["other0"], &mut written);
            stage.on_host("nft flush ruleset");
            follow(&[], &mut written);
        } else {
            follow(&[], &mut Record::default());
        }
        assert_eq!(settings(&stage), before, "{flushed}");
    }
}
