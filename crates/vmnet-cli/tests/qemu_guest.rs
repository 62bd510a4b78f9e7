//! A Linux guest in QEMU gets online: over stream sockets, over datagram sockets, over shared memory, and by
//! `vmnet qemu`.

mod asking;

use asking::Service;
use std::process::Command;
use std::time::Duration;

use vmnet_lab::prerequisite::Prerequisite;
use vmnet_lab::qemu::{Guest, Machine, Netdev};
use vmnet_lab::stage::Stage;
use vmnet_lab::world::dns::Transport;

const NEEDS: [Prerequisite; 4] = [
    Prerequisite::GuestKernel,
    Prerequisite::Program("qemu-system-x86_64"),
    Prerequisite::Program("busybox"),
    Prerequisite::Program("iperf3"),
];
/// 64 MiB.
const FILE: u64 = 64 << 20;
const SOON: Duration = Duration::from_secs(30);
const MINUTES: Duration = Duration::from_secs(180);

fn stage() -> Option<Stage> {
    Stage::new(env!("CARGO_BIN_EXE_vmnet"), &NEEDS)
}

/// What every guest must be able to do, however it is connected. Returns its address.
fn gets_online(stage: &Stage, guest: &mut Guest) -> String {
    let address = guest.lease("alpha");
    let gateway = guest.must(
        "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'",
        SOON,
    );
    assert!(
        guest
            .must("cat /etc/resolv.conf", SOON)
            .contains(&format!("nameserver {gateway}")),
        "the gateway {gateway} is the resolver"
    );
    guest.must(&format!("ping -c 3 -W 5 {gateway}"), SOON);
    guest.must("ping -c 2 -W 5 198.51.100.1", SOON);

    let found = guest.must("vmnet-lab-client resolve files.example.test", SOON);
    assert_eq!(found, "198.51.100.1");
    let asked = |transport| stage.world.dns().asked("files.example.test", transport);
    assert!(
        asked(Transport::Udp) + asked(Transport::Tcp) > 0,
        "the DNS server was asked"
    );

    let ours = pattern_sum();
    let theirs = format!("wget -q -O /tmp/file http://files.example.test/pattern/{FILE}");
    guest.must(&theirs, MINUTES);
    let sum = guest.must("sha256sum /tmp/file", MINUTES);
    assert!(sum.starts_with(&ours), "downloaded {sum}, sent {ours}");
    // The server compares what it gets with what it sent. (busybox' `wget --post-file` ends at the first zero byte.)
    let head = format!("POST /upload HTTP/1.1\\r\\nContent-Length: {FILE}\\r\\n\\r\\n");
    let line = format!("(printf '{head}'; cat /tmp/file) | nc files.example.test 80");
    let said = guest.must(&line, MINUTES);
    assert!(said.ends_with(&format!("ok {FILE}")), "{said}");
    guest.must("rm /tmp/file", SOON);

    for size in [1, 1000, 1472, 4000] {
        guest.must(
            &format!("vmnet-lab-client udp-echo 198.51.100.1:7 20 {size}"),
            SOON,
        );
    }
    is_refused_at_once(guest);
    let said = guest.must("vmnet-lab-client outcome 192.0.2.1:80 20", SOON);
    assert!(said.starts_with("unreachable"), "{said}");
    assert!(milliseconds(&said) < 5000, "{said}");
    address
}

/// The best of five: a machine that does something else must not fail the test.
fn is_refused_at_once(guest: &mut Guest) {
    let took = (0..5).map(|_| {
        let said = guest.must("vmnet-lab-client outcome 198.51.100.1:81 10", SOON);
        assert!(said.starts_with("refused"), "{said}");
        milliseconds(&said)
    });
    let best = took.min();
    assert!(
        best.is_some_and(|best| best <= 100),
        "refused after {best:?} ms"
    );
}

fn milliseconds(outcome: &str) -> u64 {
    let words: Vec<&str> = outcome.split_whitespace().collect();
    words[words.len() - 2].parse().expect("milliseconds")
}

/// The SHA-256 of the file that the server sends, by coreutils.
fn pattern_sum() -> String {
    use std::io::Read;
    let mut child = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("start sha256sum");
    vmnet_lab::pattern::write(&mut child.stdin.take().unwrap(), FILE).expect("feed sha256sum");
    let mut sum = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut sum)
        .expect("a sum");
    child.wait().expect("wait for sha256sum");
    sum.split_whitespace().next().expect("a sum").to_owned()
}

/// Two guests of one network: names, ping, TCP at full speed, both ways.
fn reach_each_other(stage: &Stage, netdev: &Netdev) {
    reach_each_other_by(stage, [netdev, netdev]);
}

fn reach_each_other_by(stage: &Stage, netdevs: [&Netdev; 2]) {
    let machine = Machine::new(&stage.world);
    let mut alpha = machine.boot(&stage.world, netdevs[0], 1);
    let mut beta = machine.boot(&stage.world, netdevs[1], 2);
    let (first, second) = (alpha.lease("alpha"), beta.lease("beta"));
    assert_ne!(first, second);
    alpha.must(&format!("ping -c 3 -W 5 {second}"), SOON);
    beta.must(&format!("ping -c 3 -W 5 {first}"), SOON);
    let found = beta.must("vmnet-lab-client resolve alpha.vmnet.internal", SOON);
    assert_eq!(found, first);
    alpha.must("iperf3 -s -D >/dev/null 2>&1; sleep 1", SOON);
    for direction in ["", "-R"] {
        let line = format!("iperf3 -c {first} -t 2 --connect-timeout 5000 {direction} -f k");
        let said = beta.must(&line, SOON);
        let received = said
            .lines()
            .find(|line| line.contains("receiver"))
            .expect("a sum");
        let words: Vec<&str> = received.split_whitespace().collect();
        let unit = words
            .iter()
            .position(|word| *word == "Kbits/sec")
            .expect("a unit");
        let speed: f64 = words[unit - 1].parse().expect("a number");
        assert!(speed > 0.0, "nothing arrived: {said}");
        println!("{direction:2} {received}");
    }
    // Listed as guests of the network, both.
    let leases = Service(stage).leases("lab");
    for address in [&first, &second] {
        assert!(
            leases.iter().any(|lease| lease.address == *address),
            "{leases:?}"
        );
    }
    alpha.power_off();
    beta.power_off();
}

#[test]
fn stream_guest_gets_online_and_its_address_stays() {
    let Some(stage) = stage() else { return };
    let path = stage.world.home().join("lab.stream");
    let _socket = stage.attach("lab", &["--stream", path.to_str().unwrap()]);
    let machine = Machine::new(&stage.world);
    let netdev = Netdev::Stream(path);
    let mut guest = machine.boot(&stage.world, &netdev, 1);
    let address = gets_online(&stage, &mut guest);
    guest.power_off();
    // Another guest takes a lease meanwhile; the first one still gets its own again.
    let mut other = machine.boot(&stage.world, &netdev, 2);
    assert_ne!(other.lease("other"), address);
    let mut again = machine.boot(&stage.world, &netdev, 1);
    assert_eq!(again.lease("alpha"), address);
}

#[test]
fn dgram_guest_gets_online() {
    let Some(stage) = stage() else { return };
    let path = stage.world.home().join("lab.dgram");
    let _socket = stage.attach("lab", &["--dgram", path.to_str().unwrap()]);
    let machine = Machine::new(&stage.world);
    let mut guest = machine.boot(&stage.world, &Netdev::Dgram(path), 1);
    gets_online(&stage, &mut guest);
    guest.power_off();
}

#[test]
fn vmnet_qemu_gives_a_guest_a_card() {
    let Some(stage) = stage() else { return };
    let machine = Machine::new(&stage.world);
    let boot = || {
        let mut command = stage.vmnet(&["qemu", "--name", "alpha", "-p", "8022:22", "--"]);
        command.arg("qemu-system-x86_64");
        command.args(machine.arguments(&Netdev::Absent, 1));
        Guest::wait_for(command)
    };
    let mut guest = boot();
    gets_online(&stage, &mut guest);
    let mac = guest.must("cat /sys/class/net/eth0/address", SOON);
    guest.must("vmnet-lab-client listen-tcp 22 >/tmp/who & sleep 1", SOON);
    stage.world.outside().enter(|| {
        let at = "198.51.100.2:8022".parse().unwrap();
        vmnet_lab::client::connect::at_once(at, 10).expect("the forwarded port answers");
    });
    let who = guest.must("cat /tmp/who", SOON);
    assert!(
        who.contains("tcp 198.51.100.1:"),
        "the client's own address is seen: {who}"
    );
    guest.power_off();
    stage.wait_until_nothing_runs(SOON);

    let mut again = boot();
    assert_eq!(
        again.must("cat /sys/class/net/eth0/address", SOON),
        mac,
        "the MAC stays"
    );
}

/// A guest that knows IPv6 alone: an address and a router by its kernel, a resolver by rdisc6, the world by NAT66.
#[test]
fn a_guest_gets_online_by_ipv6_alone() {
    let needs = [&NEEDS[..], &[Prerequisite::Program("rdisc6")]].concat();
    let Some(stage) = Stage::new(env!("CARGO_BIN_EXE_vmnet"), &needs) else {
        return;
    };
    let machine = Machine::new(&stage.world);
    let prefix = "fd12:3456:789a:1::";
    let options = [
        "qemu",
        "--ipv6-prefix",
        prefix,
        "--name",
        "alpha",
        "-p",
        "8022:22",
    ];
    let mut command = stage.vmnet(&[&options[..], &["--"]].concat());
    command.arg("qemu-system-x86_64");
    command.args(machine.arguments(&Netdev::Absent, 1));
    let mut guest = Guest::wait_for(command);
    let address = guest.await_ipv6();
    assert!(address.starts_with("fd12:3456:789a:1:"), "{address}");
    let route = guest.must("ip -6 route show default", SOON);
    assert!(route.starts_with("default via fe80::"), "{route}");
    assert_eq!(guest.must("ip -4 -o address show dev eth0", SOON), "");

    let resolver = guest.must(
        "rdisc6 -1 eth0 | sed -n 's/^ Recursive DNS server *: *//p'",
        SOON,
    );
    assert_eq!(resolver, format!("{prefix}1"));
    guest.must(
        &format!("echo nameserver {resolver} >/etc/resolv.conf"),
        SOON,
    );
    guest.must(&format!("ping6 -c 3 -W 5 {prefix}1"), SOON);
    guest.must("ping6 -c 2 -W 5 2001:db8:1::1", SOON);
    let found = guest.must("vmnet-lab-client resolve6 six.example.test", SOON);
    assert_eq!(found, "2001:db8:1::1");

    let line = format!("wget -q -O /tmp/file http://six.example.test/pattern/{FILE}");
    guest.must(&line, MINUTES);
    let sum = guest.must("sha256sum /tmp/file", MINUTES);
    assert!(sum.starts_with(&pattern_sum()), "downloaded {sum}");
    guest.must("rm /tmp/file", SOON);
    // The server compares what it gets.
    let line = format!("vmnet-lab-client put six.example.test:80 {FILE}");
    guest.must(&line, MINUTES);
    for size in [1, 1452, 4000] {
        let line = format!("vmnet-lab-client udp-echo [2001:db8:1::1]:7 20 {size}");
        guest.must(&line, SOON);
    }
    let said = guest.must("vmnet-lab-client outcome [2001:db8:2::1]:80 20", SOON);
    assert!(said.starts_with("unreachable"), "{said}");
    let said = guest.must("vmnet-lab-client outcome [2001:db8:1::1]:81 20", SOON);
    assert!(said.starts_with("refused"), "{said}");

    guest.must("vmnet-lab-client listen-tcp 22 >/tmp/who & sleep 1", SOON);
    stage.world.outside().enter(|| {
        let at = "[2001:db8:1::2]:8022".parse().unwrap();
        vmnet_lab::client::connect::at_once(at, 10).expect("the forwarded port answers");
    });
    let who = guest.must("cat /tmp/who", SOON);
    assert!(who.contains("tcp [2001:db8:1::1]:"), "{who}");
    guest.power_off();
}

#[test]
fn stream_guests_reach_each_other() {
    let Some(stage) = stage() else { return };
    let path = stage.world.home().join("lab.stream");
    let _socket = stage.attach("lab", &["--stream", path.to_str().unwrap()]);
    reach_each_other(&stage, &Netdev::Stream(path));
}

#[test]
fn dgram_guests_reach_each_other() {
    let Some(stage) = stage() else { return };
    let path = stage.world.home().join("lab.dgram");
    let _socket = stage.attach("lab", &["--dgram", path.to_str().unwrap()]);
    reach_each_other(&stage, &Netdev::Dgram(path));
}

/// A guest of QEMU and a command of `vmnet run` are on one network.
#[test]
fn a_guest_and_a_command_reach_each_other() {
    let Some(stage) = stage() else { return };
    let path = stage.world.home().join("lab.stream");
    let _socket = stage.attach("lab", &["--stream", path.to_str().unwrap()]);
    let mut guest = Machine::new(&stage.world).boot(&stage.world, &Netdev::Stream(path), 1);
    guest.lease("alpha");
    guest.must("vmnet-lab-client listen-tcp 5000 >/tmp/who & sleep 1", SOON);
    let options = ["--network", "lab", "--name", "beta"];
    let command = stage.client(&options, "at-once alpha.vmnet.internal:5000 20");
    vmnet_lab::process::Process::run(command, SOON).success();
    let who = guest.must("sed -n 2p /tmp/who", SOON);
    let address = who
        .strip_prefix("tcp ")
        .and_then(|it| it.split_once(':'))
        .expect("a client")
        .0;
    assert_ne!(
        address, "198.51.100.2",
        "guests reach each other without NAT"
    );
}

#[test]
fn vhost_user_guest_gets_online() {
    let Some(stage) = stage() else { return };
    let path = stage.world.home().join("lab.vhost");
    let _socket = stage.attach("lab", &["--vhost-user", path.to_str().unwrap()]);
    let machine = Machine::new(&stage.world);
    for queues in [1, 2] {
        let netdev = Netdev::VhostUser(path.clone(), queues, "");
        let mut guest = machine.boot(&stage.world, &netdev, 1);
        gets_online(&stage, &mut guest);
        let rings = guest.must("ls -d /sys/class/net/eth0/queues/rx-* | wc -l", SOON);
        assert_eq!(rings, queues.to_string());
        guest.power_off();
    }
}

/// Each thing that may be negotiated, switched off or on by itself.
#[test]
fn vhost_user_guests_without_one_thing_or_another() {
    let Some(stage) = stage() else { return };
    let path = stage.world.home().join("lab.vhost");
    let _socket = stage.attach("lab", &["--vhost-user", path.to_str().unwrap()]);
    let machine = Machine::new(&stage.world);
    for properties in [
        "csum=off",
        "guest_csum=off",
        "host_tso4=off,host_tso6=off",
        "guest_tso4=off,guest_tso6=off",
        "mrg_rxbuf=off",
        "packed=on",
        "indirect_desc=off",
        "event_idx=off",
        "csum=off,guest_csum=off,mrg_rxbuf=off,event_idx=off,indirect_desc=off",
    ] {
        println!("{properties}");
        let netdev = Netdev::VhostUser(path.clone(), 1, properties);
        let mut guest = machine.boot(&stage.world, &netdev, 1);
        guest.lease("alpha");
        guest.must("ping -c 2 -W 5 198.51.100.1", SOON);
        let ours = pattern_sum();
        let theirs = format!("wget -q -O /tmp/file http://198.51.100.1/pattern/{FILE}");
        guest.must(&theirs, MINUTES);
        let sum = guest.must("sha256sum /tmp/file", MINUTES);
        assert!(sum.starts_with(&ours), "{properties}: downloaded {sum}");
        let head = format!("POST /upload HTTP/1.1\\r\\nContent-Length: {FILE}\\r\\n\\r\\n");
        let line = format!("(printf '{head}'; cat /tmp/file) | nc 198.51.100.1 80");
        let said = guest.must(&line, MINUTES);
        assert!(
            said.ends_with(&format!("ok {FILE}")),
            "{properties}: {said}"
        );
        for size in [1, 1472, 4000] {
            let line = format!("vmnet-lab-client udp-echo 198.51.100.1:7 20 {size}");
            guest.must(&line, SOON);
        }
        guest.power_off();
    }
}

/// One guest by shared memory and one by datagrams, without any offload.
#[test]
fn vhost_user_and_dgram_guests_reach_each_other() {
    let Some(stage) = stage() else { return };
    let home = stage.world.home();
    let (shared, dgram) = (home.join("lab.vhost"), home.join("lab.dgram"));
    let _one = stage.attach("lab", &["--vhost-user", shared.to_str().unwrap()]);
    let _other = stage.attach("lab", &["--dgram", dgram.to_str().unwrap()]);
    let netdevs = [Netdev::VhostUser(shared, 1, ""), Netdev::Dgram(dgram)];
    reach_each_other_by(&stage, [&netdevs[0], &netdevs[1]]);
}

/// QEMU is killed in the middle of transfers. Its port waits for the next, and another guest goes on.
#[test]
fn a_vhost_user_guest_killed_under_load() {
    let Some(stage) = stage() else { return };
    let home = stage.world.home();
    let (first, second) = (home.join("one.vhost"), home.join("two.vhost"));
    let _one = stage.attach("lab", &["--vhost-user", first.to_str().unwrap()]);
    let _other = stage.attach("lab", &["--vhost-user", second.to_str().unwrap()]);
    let machine = Machine::new(&stage.world);
    let boot = |path: &std::path::Path, number| {
        let netdev = Netdev::VhostUser(path.to_owned(), 1, "");
        machine.boot(&stage.world, &netdev, number)
    };
    let mut stays = boot(&second, 2);
    stays.lease("beta");
    stays.must("iperf3 -s -D >/dev/null 2>&1; sleep 1", SOON);
    let server = stays.must(
        "ip -4 -o address show dev eth0 | sed 's,.*inet \\([0-9.]*\\)/.*,\\1,'",
        SOON,
    );
    let mut address = None;
    for _ in 0..2 {
        let mut killed = boot(&first, 1);
        let leased = killed.lease("alpha");
        assert_eq!(
            *address.get_or_insert_with(|| leased.clone()),
            leased,
            "it stays"
        );
        killed.must(
            "(wget -q -O /dev/null http://198.51.100.1/pattern/2000000000 &) ; sleep 1",
            SOON,
        );
        let load = format!("(iperf3 -c {server} -t 60 >/dev/null 2>&1 &) ; sleep 2");
        killed.must(&load, SOON);
        // Dropping it kills QEMU.
        drop(killed);
        stays.must("ping -c 2 -W 5 198.51.100.1", SOON);
    }
    stays.must(
        "wget -q -O /dev/null http://198.51.100.1/pattern/8000000",
        SOON,
    );
    stays.power_off();
}

#[test]
fn vmnet_qemu_gives_a_guest_several_queues() {
    let Some(stage) = stage() else { return };
    let machine = Machine::new(&stage.world);
    let mut command = stage.vmnet(&["qemu", "--name", "alpha", "--queues", "2", "--"]);
    command.args(["qemu-system-x86_64", "-smp", "2"]);
    command.args(machine.arguments(&Netdev::Absent, 1));
    let mut guest = Guest::wait_for(command);
    gets_online(&stage, &mut guest);
    let rings = guest.must("ls -d /sys/class/net/eth0/queues/rx-* | wc -l", SOON);
    assert_eq!(rings, "2");
    guest.power_off();
}
