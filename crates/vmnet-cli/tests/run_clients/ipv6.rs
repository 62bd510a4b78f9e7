//! IPv6 in `vmnet run`, from the first moment on: addresses, the world by NAT66, names, forwarded ports; and a host without.

use std::net::{IpAddr, SocketAddr};

use vmnet_lab::client;
use vmnet_lab::process::Process;
use vmnet_lab::stage::Stage;
use vmnet_lab::world::dns::Transport;
use vmnet_lab::world::{FAR6, HOST, HOST6, SERVER, SERVER6};

use super::{SOON, await_forwards, stage};

const PREFIX: &str = "fd12:3456:789a:1::/64";
const GATEWAY: &str = "fd12:3456:789a:1::1";
const OPTIONS: [&str; 2] = ["--ipv6-prefix", PREFIX];
/// 64 MiB.
const FILE: u64 = 64 << 20;

fn run(stage: &Stage, script: &str) -> String {
    Process::run(stage.shell(&OPTIONS, script), SOON).success()
}

fn milliseconds(outcome: &str) -> u64 {
    let words: Vec<&str> = outcome.split_whitespace().collect();
    words[words.len() - 2].parse().expect("milliseconds")
}

#[test]
fn a_command_finds_an_address_and_a_way_out() {
    let Some(stage) = stage(&[]) else { return };
    let said = run(
        &stage,
        "ip -6 -o address show dev eth0 scope global; ip -6 route show default",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].contains("inet6 fd12:3456:789a:1:"), "{said}");
    assert!(!lines[0].contains("tentative"), "{said}");
    // 30 and 7 days, as vmnet has them.
    assert!(
        lines[0].contains("valid_lft 2592000sec preferred_lft 604800sec"),
        "{said}"
    );
    assert!(lines[1].starts_with("default via fe80::"), "{said}");
}

#[test]
fn the_first_thing_a_command_does_may_be_ipv6() {
    let Some(stage) = stage(&[]) else { return };
    for _ in 0..10 {
        let command = stage.client(&OPTIONS, "tcp-ask [2001:db8:1::1]:9000");
        let seen = Process::run(command, SOON).success();
        assert!(seen.starts_with(&format!("[{HOST6}]:")), "{seen}");
    }
}

#[test]
fn a_network_without_ipv6_has_none() {
    let Some(stage) = stage(&[]) else { return };
    let script = "ip -6 -o address show dev eth0 scope global; ip -6 route show default";
    let said = Process::run(stage.shell(&["--no-ipv6"], script), SOON).success();
    assert_eq!(said, "");
}

#[test]
fn ping_reaches_the_gateway_and_the_world() {
    let Some(stage) = stage(&["ping"]) else {
        return;
    };
    for address in [GATEWAY, "2001:db8:1::1", "2001:db8:9::9"] {
        run(&stage, &format!("ping -6 -c 3 -i 0.2 -W 5 {address}"));
    }
    let script = "ping -6 -c 1 -W 5 $(ip -6 route show default | cut -d ' ' -f 3)%eth0";
    run(&stage, script);
}

#[test]
fn transfers_arrive_whole_both_ways() {
    let Some(stage) = stage(&[]) else { return };
    // Every byte is compared, at the client and at the server.
    for verb in ["get", "put"] {
        let words = format!("{verb} [2001:db8:1::1]:80 {FILE}");
        Process::run(stage.client(&OPTIONS, &words), SOON).success();
    }
    for options in [["--mtu", "1280"], ["--mtu", "65520"]] {
        for verb in ["get", "put"] {
            let words = format!("{verb} [2001:db8:1::1]:80 20000000");
            Process::run(stage.client(&options, &words), SOON).success();
        }
    }
}

#[test]
fn halves_of_streams_close_alone() {
    let Some(stage) = stage(&[]) else { return };
    stage.must("close-first [2001:db8:1::1]:9001 8000000", SOON);
    stage.must("close-last [2001:db8:1::1]:9002 8000000", SOON);
    assert_eq!(stage.world.half_close().wait(2, SOON), 16_000_000);
    stage.must("at-once [2001:db8:1::1]:7 200", SOON);
}

#[test]
fn datagrams_of_all_sizes_come_back() {
    let Some(stage) = stage(&[]) else { return };
    for size in [1, 512, 1452, 1453, 4000, 20_000, 60_000] {
        stage.must(&format!("udp-echo [2001:db8:1::1]:7 20 {size}"), SOON);
    }
}

#[test]
fn what_is_refused_or_unreachable_is_said_at_once() {
    let Some(stage) = stage(&[]) else { return };
    let refused = (0..5).map(|_| {
        let said = stage.must("outcome [2001:db8:1::1]:81 10", SOON);
        assert!(said.starts_with("refused"), "{said}");
        milliseconds(&said)
    });
    assert!(refused.min().is_some_and(|best| best <= 100));
    let said = stage.must("outcome [2001:db8:2::1]:80 20", SOON);
    assert!(said.starts_with("unreachable"), "{said}");
    assert!(milliseconds(&said) < 5000, "{said}");
    let datagram = Process::run(stage.client(&[], "udp-ask [2001:db8:1::1]:81 hello"), SOON);
    assert!(datagram.stderr.contains("refused"), "{}", datagram.stderr);
}

#[test]
fn one_guest_port_is_one_port_outside_for_all_peers() {
    let Some(stage) = stage(&[]) else { return };
    let said = stage.must(
        "udp-two-peers [2001:db8:1::1]:9000 [2001:db8:1::53]:9000",
        SOON,
    );
    let mut seen = said.split_whitespace();
    let (first, second) = (seen.next(), seen.next());
    assert!(first.is_some() && first == second, "{said}");
    assert!(said.starts_with(&format!("[{HOST6}]:")), "{said}");
}

#[test]
fn names_have_addresses_of_both_families() {
    let Some(stage) = stage(&["dig"]) else { return };
    let server = SERVER6.to_string();
    assert_eq!(stage.must("resolve6 both.example.test", SOON), server);
    assert_eq!(stage.must("resolve6 six.example.test", SOON), server);
    assert!(stage.world.dns().asked("six.example.test", Transport::Udp) > 0);
    // The gateway answers at its IPv6 address too, by UDP and by TCP.
    for transport in ["+notcp", "+tcp"] {
        let script = format!("dig {transport} +short +tries=1 @{GATEWAY} six.example.test AAAA");
        assert_eq!(run(&stage, &script), server);
    }
    stage.must("get six.example.test:80 100000", SOON);
}

pub(crate) fn listening(stage: &Stage, options: &[&str], words: &str) -> Process {
    let process = Process::spawn(stage.client(options, words));
    process.wait_for_output("ready", SOON, |text| text.contains("ready\n").then_some(()));
    process
}

pub(crate) fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

#[test]
fn a_forwarded_port_is_reached_by_both_families_and_the_clients_are_seen() {
    let Some(stage) = stage(&[]) else { return };
    let inside = listening(&stage, &["-p", "8080:80"], "listen-tcp 80");
    await_forwards(&stage, &["tcp4", "tcp6"]);
    stage.world.outside().enter(|| {
        client::connect::at_once(at(HOST6, 8080), 20).expect("by IPv6");
        client::connect::at_once(at(HOST, 8080), 20).expect("by IPv4");
    });
    let seen = inside.stdout();
    for client in [format!("tcp [{SERVER6}]:"), format!("tcp {SERVER}:")] {
        let count = seen.lines().filter(|line| line.starts_with(&client));
        assert_eq!(count.count(), 20, "{client}: {seen}");
    }
}

#[test]
fn a_forwarded_port_for_datagrams_is_reached_by_both_families() {
    let Some(stage) = stage(&[]) else { return };
    let inside = listening(&stage, &["-p", "5353:53/udp"], "listen-udp 53");
    await_forwards(&stage, &["udp4", "udp6"]);
    stage.world.outside().enter(|| {
        client::datagram::echo(at(HOST, 5353), 100, 1200).expect("by IPv4");
        client::datagram::echo(at(HOST6, 5353), 100, 1200).expect("by IPv6");
    });
    let seen = inside.stdout();
    for client in [format!("udp [{SERVER6}]:"), format!("udp {SERVER}:")] {
        assert!(seen.contains(&client), "{client}: {seen}");
    }
}

#[test]
fn a_host_without_ipv6_says_so_at_once() {
    let Some(stage) = stage(&["ping"]) else {
        return;
    };
    stage.world.switch_ipv6_off();
    // The name has an IPv6 address all the same; who tries it first goes on to the other without a wait.
    assert_eq!(
        stage.must("resolve6 both.example.test", SOON),
        SERVER6.to_string()
    );
    let said = stage.must("six-first both.example.test:7 10", SOON);
    let expected = format!("{SERVER6} unreachable, {SERVER} connected");
    assert!(said.starts_with(&expected), "{said}");
    let best = (0..5).map(|_| milliseconds(&stage.must("six-first both.example.test:7 10", SOON)));
    assert!(best.min().is_some_and(|best| best <= 100));
    let ping = Process::run(stage.shell(&[], "ping -6 -c 1 -W 5 2001:db8:1::1"), SOON);
    assert!(ping.stdout.contains("No route"), "{ping:?}");
    // A port without an address is IPv4's then, and nobody hears of it.
    let inside = listening(&stage, &["-p", "8080:80"], "listen-tcp 80");
    await_forwards(&stage, &["tcp4"]);
    stage.world.outside().enter(|| {
        client::connect::at_once(at(HOST, 8080), 5).expect("by IPv4");
    });
    assert!(inside.stdout().contains(&format!("tcp {SERVER}:")));
}

/// curl, which tries the other family after 200 ms; here only after ten seconds, so that a wait is seen.
#[test]
fn a_client_with_happy_eyeballs_does_not_wait() {
    let Some(stage) = stage(&["curl", "unshare"]) else {
        return;
    };
    // Addresses of a local prefix are to be preferred to IPv4, which they are not as a rule (RFC 6724 §2.1).
    let script = "
        printf '%s\\n' 'label ::/0 1' 'label ::ffff:0:0/96 4' \
            'precedence ::/0 40' 'precedence ::ffff:0:0/96 10' >$HOME/gai.conf
        mount --bind $HOME/gai.conf /etc/gai.conf
        for i in 1 2 3 4 5; do
            # The server says no HTTP, which is as well.
            curl -sv --happy-eyeballs-timeout-ms 10000 -m 9 -o /dev/null http://both.example.test:7/ \
                -w 'by %{remote_ip} after %{time_connect}\\n' 2>$HOME/said || :
        done
        cat $HOME/said >&2";
    let connects = |six: bool| {
        let command = stage.run(&["--root"], &["unshare", "-m", "sh", "-c", script]);
        let outcome = Process::run(command, SOON);
        assert!(
            outcome.stderr.contains(&format!("Trying {SERVER6}"))
                || outcome.stderr.contains(&format!("Trying [{SERVER6}]")),
            "it did not try IPv6 first: {outcome:?}"
        );
        let by = if six {
            SERVER6.to_string()
        } else {
            SERVER.to_string()
        };
        let said = outcome.success();
        let times: Vec<f64> = said_behind(&said, &format!("by {by} after"))
            .iter()
            .map(|time| time.parse().expect("seconds"))
            .collect();
        assert_eq!(times.len(), 5, "{said}");
        let best = times.into_iter().fold(f64::MAX, f64::min);
        assert!(best <= 0.1, "{said}");
    };
    connects(true);
    stage.world.switch_ipv6_off();
    connects(false);
}

#[test]
fn a_host_that_gets_ipv6_while_a_guest_runs_gives_it_to_the_guest() {
    let Some(stage) = stage(&[]) else { return };
    let route = ["-6", "route", "del", "default"];
    stage.world.host().ip(&route);
    let script = format!(
        "{client} outcome [2001:db8:9::9]:7 10; echo first; read line; {client} outcome [2001:db8:9::9]:7 10",
        client = stage.client_path()
    );
    let mut inside = Process::spawn(stage.shell(&[], &script));
    inside.wait_for_output("first", SOON, |text| text.contains("first\n").then_some(()));
    assert!(
        inside.stdout().starts_with("unreachable"),
        "{}",
        inside.stdout()
    );
    let server = SERVER6.to_string();
    stage
        .world
        .host()
        .ip(&["-6", "route", "add", "default", "via", &server]);
    inside.write_line("go on");
    let said = inside.wait(SOON).success();
    assert!(said.contains("first\nconnected"), "{said}");
}

/// What a tool says behind the first words of a line.
pub(crate) fn said_behind<'a>(text: &'a str, words: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::trim);
    lines
        .filter_map(|line| line.strip_prefix(words))
        .map(|rest| rest.trim_start_matches([' ', ':']).trim())
        .collect()
}

#[test]
fn radvdump_reads_what_is_advertised_as_a_configuration() {
    let Some(stage) = stage(&["rdisc6", "radvdump", "stdbuf"]) else {
        return;
    };
    let options = [&OPTIONS[..], &["--root"]].concat();
    // What it has read is complete when the line behind the last brace is there.
    let script = "stdbuf -oL radvdump >$HOME/dump 2>&1 & dump=$!
         for try in $(seq 50); do
             rdisc6 -1 eth0 >/dev/null; sleep 0.1
             grep -q '^}; # End of interface definition' $HOME/dump && break
         done
         kill $dump; cat $HOME/dump";
    let said = Process::run(stage.shell(&options, script), SOON).success();
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let prefix = format!("prefix {PREFIX}");
    let resolver = format!("RDNSS {GATEWAY}");
    for line in [
        "interface eth0",
        "AdvSendAdvert on;",
        "AdvManagedFlag on;",
        "AdvOtherConfigFlag on;",
        "AdvDefaultLifetime 1800;",
        "AdvLinkMTU 1500;",
        &prefix,
        "AdvValidLifetime 2592000;",
        "AdvPreferredLifetime 604800;",
        "AdvOnLink on;",
        "AdvAutonomous on;",
        &resolver,
        "DNSSL vmnet.internal",
    ] {
        assert!(lines.contains(&line), "{line}: {said}");
    }
}

#[test]
fn other_peoples_tools_agree_on_what_is_advertised() {
    let Some(stage) = stage(&["rdisc6", "ndisc6", "tshark"]) else {
        return;
    };
    let options = [&OPTIONS[..], &["--root"]].concat();
    let script = format!(
        "tshark -n -i eth0 -a duration:6 -f icmp6 -w $HOME/seen.pcap >/dev/null 2>&1 & sleep 2
         rdisc6 -1 eth0 >$HOME/rdisc6; ndisc6 -q {GATEWAY} eth0 >$HOME/ndisc6; wait
         cat $HOME/rdisc6; echo; sed 's/^/gateway at /' $HOME/ndisc6; ip -o link show eth0
         tshark -n -V -r $HOME/seen.pcap -Y icmpv6.type==134 2>/dev/null"
    );
    let said = Process::run(stage.shell(&options, &script), SOON).success();
    for (tool, other, value) in [
        ("Stateful address conf.", "..0. .... = Home Agent", "Yes"),
        ("Router lifetime", "Router lifetime (s)", "1800"),
        ("Valid time", "Valid Lifetime", "2592000"),
        ("Pref. time", "Preferred Lifetime", "604800"),
        ("MTU", "MTU", "1500"),
        ("Recursive DNS server", "Recursive DNS Servers", GATEWAY),
        ("DNS search list", "Domain Names", "vmnet.internal"),
    ] {
        let rdisc6 = said_behind(&said, tool);
        assert!(
            rdisc6.iter().any(|it| it.starts_with(value)),
            "{tool}: {said}"
        );
        assert!(!said_behind(&said, other).is_empty(), "{other}: {said}");
        if other.ends_with("Agent") {
            continue;
        }
        let tshark = said_behind(&said, other);
        assert!(
            tshark.iter().any(|it| it.starts_with(value)),
            "{other}: {said}"
        );
    }
    assert!(
        said.contains("Managed address configuration: Set"),
        "{said}"
    );
    assert!(
        said.contains(&format!("Prefix                   : {PREFIX}")),
        "{said}"
    );
    assert!(said.contains("Prefix: fd12:3456:789a:1::\n"), "{said}");
    // The router is where the gateway is.
    let gateway = said_behind(&said, "gateway at");
    let router = said_behind(&said, "Source link-layer address");
    assert_eq!(router.first(), gateway.first(), "{said}");
    assert!(said.contains("[Checksum Status: Good]"), "{said}");
}

/// Resident memory of a process, in KiB.
fn resident(pid: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = said_behind(&status, "VmRSS");
    let number = line.first().and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).expect("KiB")
}

#[test]
fn a_guest_that_floods_leaves_the_others_working() {
    let Some(stage) = stage(&["ping"]) else {
        return;
    };
    let vmnet = |words: &[&str]| Process::run(stage.vmnet(words), SOON);
    let options = ["--network", "lab"];
    // What the service needs with a guest that came and went.
    vmnet(&["network", "create", "lab", "--ipv6-prefix", PREFIX]).success();
    Process::run(
        stage.client(&["--network", "lab"], "get [2001:db8:1::1]:80 1000000"),
        SOON,
    )
    .success();
    let service = super::service_of(&stage).pid().expect("it runs");
    let before = resident(service);
    let flooding = format!("flood6 {GATEWAY} eth0 8");
    let mut hostile = Process::spawn(stage.client(
        &[&options[..], &["--name", "hostile", "--root"]].concat(),
        &flooding,
    ));
    let client = stage.client_path();
    let script = format!(
        "ping -6 -c 5 -i 0.2 -W 5 {GATEWAY} && {client} get [2001:db8:1::1]:80 20000000 &&
         {client} put [2001:db8:1::1]:80 20000000 && {client} at-once [2001:db8:1::1]:7 50 &&
         {client} udp-echo [2001:db8:1::1]:7 50 3000 && {client} resolve6 six.example.test &&
         ip -6 route show default"
    );
    let named = [&options[..], &["--name", "good"]].concat();
    let said = Process::run(stage.shell(&named, &script), SOON).success();
    // No other router but the network's: what the hostile one advertised was dropped.
    let routers = said.lines().filter(|line| line.contains("default via"));
    assert_eq!(routers.count(), 1, "{said}");
    assert!(said.contains("proto ra"), "{said}");
    let sent = hostile.wait(SOON).success();
    let count: usize = sent.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(count > 10_000, "{sent}");
    // Neighbours, groups and pieces without end leave no more than the tables' limits.
    let grown = resident(service).saturating_sub(before);
    assert!(grown < 24 << 10, "{before} KiB, and {grown} more");
    // Still as it was for who comes later.
    let late = [&options[..], &["--name", "late"]].concat();
    Process::run(stage.client(&late, "get [2001:db8:1::1]:80 1000000"), SOON).success();
}

#[test]
fn guests_of_a_named_network_reach_each_other() {
    let Some(stage) = stage(&["ping"]) else {
        return;
    };
    let one = ["--network", "lab", "--name", "one"];
    let script = format!(
        "ip -6 -o address show dev eth0 scope global | sed 's,.*inet6 \\([0-9a-f:]*\\)/.*,at \\1,'
         exec {} listen-tcp 5000",
        stage.client_path()
    );
    let inside = Process::spawn(stage.shell(&one, &script));
    inside.wait_for_output("ready", SOON, |text| text.contains("ready\n").then_some(()));
    let said = inside.stdout();
    let address = said.lines().find_map(|line| line.strip_prefix("at "));
    let address = address.expect("an address").to_owned();
    let other = ["--network", "lab", "--name", "two"];
    Process::run(
        stage.shell(&other, &format!("ping -6 -c 2 -W 5 {address}")),
        SOON,
    )
    .success();
    Process::run(
        stage.client(&other, &format!("at-once [{address}]:5000 10")),
        SOON,
    )
    .success();
    let isolated = ["--network", "lab", "--name", "three", "--isolated"];
    let words = format!("outcome [{address}]:5000 2");
    let said = Process::run(stage.client(&isolated, &words), SOON).success();
    assert!(!said.starts_with("connected"), "{said}");
}

#[test]
fn a_network_keeps_its_prefix_and_a_guest_its_address() {
    let Some(mut stage) = stage(&[]) else { return };
    let options = ["--network", "lab", "--name", "web"];
    let script = "ip -6 -o address show dev eth0 scope global | tr -s ' ' | cut -d ' ' -f 4";
    let before = Process::run(stage.shell(&options, script), SOON).success();
    super::restart(&mut stage);
    let after = Process::run(stage.shell(&options, script), SOON).success();
    assert_eq!(before, after);
    assert!(before.starts_with("fd"), "{before}");
}

#[test]
fn a_host_network_has_addresses_and_no_way_out() {
    let Some(stage) = stage(&["ping"]) else {
        return;
    };
    let options = ["--network", "host"];
    let script = format!(
        "ip -6 -o address show dev eth0 scope global; ip -6 route show default;
         {} outcome [2001:db8:1::1]:7 5",
        stage.client_path()
    );
    let said = Process::run(stage.shell(&options, &script), SOON).success();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(
        lines[0].contains("inet6 fd") && lines[1].starts_with("unreachable"),
        "{said}"
    );
}

#[test]
fn a_datagram_too_large_for_the_path_is_cut_by_the_guest() {
    let Some(stage) = stage(&["ping"]) else {
        return;
    };
    let (far, server) = (format!("{FAR6}/128"), SERVER6.to_string());
    let route = ["-6", "route", "add", &far, "via", &server, "mtu", "1400"];
    stage.world.host().ip(&route);
    // The first is answered by "packet too big", and those that follow go in pieces.
    let ask = format!("{} udp-echo [2001:db8:9::9]:7 5 1440", stage.client_path());
    let said = Process::run(stage.shell(&[], &format!("{ask}; {ask}")), SOON);
    assert!(said.status.success(), "{said:?}");
    assert!(said.stderr.contains("Message too long"), "{said:?}");
    stage.must("get [2001:db8:9::9]:80 1000000", SOON);
    let ping = "ping -6 -M do -s 1440 -c 1 -W 2 2001:db8:9::9";
    let finished = Process::run(stage.shell(&[], ping), SOON);
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains("Packet too big: mtu=1400"), "{said}");
}
