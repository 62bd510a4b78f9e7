//! Virtual machines on networks that the kernel carries: QEMU has a tap of the network's bridge, and its frames never come to
//! the service; so they go on when that is killed.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vmnet_lab::client;
use vmnet_lab::prerequisite::Prerequisite;
use vmnet_lab::qemu::{Guest, Machine, Netdev};
use vmnet_lab::stage::Stage;
use vmnet_lab::world::{HOST, HOST6};

const NEEDS: [Prerequisite; 4] = [
    Prerequisite::GuestKernel,
    Prerequisite::Program("qemu-system-x86_64"),
    Prerequisite::Program("busybox"),
    Prerequisite::Program("iperf3"),
];
const SOON: Duration = Duration::from_secs(30);
const MINUTES: Duration = Duration::from_secs(120);
const LAN: &str = "lan";
/// Bytes of a transfer that is over in a moment.
const SOME: u64 = 16 << 20;

fn stage() -> Option<Stage> {
    Stage::of_machine(env!("CARGO_BIN_EXE_vmnet"), &NEEDS)
}

/// Boots a guest by `vmnet qemu --nic tap`.
fn boot(stage: &Stage, options: &[&str], processors: &str) -> Guest {
    let machine = Machine::new(&stage.world);
    let words = [
        &["qemu", "--network", LAN, "--nic", "tap"],
        options,
        &["--"],
    ]
    .concat();
    let mut command = stage.vmnet(&words);
    command
        .arg("qemu-system-x86_64")
        .args(["-smp", processors])
        .args(machine.arguments(&Netdev::Absent, 1));
    Guest::wait_for(command)
}

#[track_caller]
fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn reached(stage: &Stage, at: impl Into<IpAddr>, port: u16) {
    let at = SocketAddr::new(at.into(), port);
    stage.world.outside().enter(|| {
        client::connect::at_once(at, 10).unwrap_or_else(|error| panic!("{at}: {error}"));
    });
}

/// A lease, names, and every byte of transfers by both families; from outside by a forwarded port.
fn gets_online(stage: &Stage, guest: &mut Guest) {
    let address = guest.lease("alpha");
    assert!(address.starts_with("192.168.64."), "{address}");
    guest.must("ping -c 2 -W 5 192.168.64.1", SOON);
    guest.must("ping -c 2 -W 5 198.51.100.1", SOON);
    let found = guest.must("vmnet-lab-client resolve files.example.test", SOON);
    assert_eq!(found, "198.51.100.1");
    guest.await_ipv6();
    guest.must("ping6 -c 2 -W 5 2001:db8:1::1", SOON);
    for server in ["198.51.100.1", "[2001:db8:1::1]"] {
        guest.must(&format!("vmnet-lab-client get {server}:80 {SOME}"), MINUTES);
        guest.must(&format!("vmnet-lab-client put {server}:80 {SOME}"), MINUTES);
        for size in [1, 1400, 4000] {
            let line = format!("vmnet-lab-client udp-echo {server}:7 20 {size}");
            guest.must(&line, SOON);
        }
    }
    guest.must("vmnet-lab-client listen-tcp 22 >/tmp/who & sleep 1", SOON);
    reached(stage, HOST, 8022);
    reached(stage, HOST6, 8022);
    let who = guest.must("cat /tmp/who", SOON);
    assert!(who.contains("tcp 198.51.100.1:"), "{who}");
}

#[test]
fn a_machine_with_a_tap_of_its_own_gets_online() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 192.168.64.0/24");
    let options = ["--name", "alpha", "-p", "8022:22"];
    let mut guest = boot(&stage, &options, "1");
    let listed = stage.says("interface list --json");
    assert!(listed.contains("bridge_tap"), "{listed}");
    // The sums of what it sends are left to whoever is next, and its segments are cut on the host's card, not before.
    let features = guest.must("cat /sys/bus/virtio/devices/virtio0/features", SOON);
    let has = |bit: usize| features.as_bytes().get(bit) == Some(&b'1');
    assert!(has(0) && has(1), "checksum offload: {features}");
    assert!(has(11) && has(7), "segmentation offload: {features}");
    gets_online(&stage, &mut guest);
    guest.power_off();
    eventually("its tap is gone", || {
        !stage.on_host("ip -o link").contains("vmnet0-0")
    });
}

#[test]
fn a_machine_with_several_queues_gets_online() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 192.168.64.0/24");
    let options = ["--name", "alpha", "-p", "8022:22", "--queues", "2"];
    let mut guest = boot(&stage, &options, "2");
    let rings = guest.must("ls -d /sys/class/net/eth0/queues/rx-* | wc -l", SOON);
    assert_eq!(rings, "2");
    let tap = stage.on_host("ip -d link show vmnet0-0");
    // The guest's driver uses as many as it has processors.
    assert!(tap.contains("numqueues 2"), "{tap}");
    gets_online(&stage, &mut guest);
    guest.power_off();
}

/// A transfer goes on while nobody serves, and the next service takes everything over.
#[test]
fn a_flow_outlives_the_service() {
    let Some(mut stage) = stage() else { return };
    let rules = stage.on_host("nft -s list ruleset");
    stage.says("network create lan --subnet 192.168.64.0/24");
    let options = ["--name", "alpha", "-p", "8022:22"];
    let mut guest = boot(&stage, &options, "1");
    let address = guest.lease("alpha");
    guest.must("vmnet-lab-client listen-tcp 22 >/tmp/who & sleep 1", SOON);
    reached(&stage, HOST, 8022);

    let bytes: u64 = 2 << 30;
    let line = format!("vmnet-lab-client put 198.51.100.1:80 {bytes} >/tmp/put 2>&1 &");
    guest.must(&line, SOON);
    let sent = "cat /sys/class/net/eth0/statistics/tx_bytes";
    let moved = |guest: &mut Guest| -> u64 { guest.must(sent, SOON).parse().unwrap() };
    eventually("it begins", || moved(&mut guest) > SOME);
    // No service, also not one that a client would start.
    let index = |stage: &Stage| stage.on_host("ip -o link show vmnet0 | cut -d: -f1");
    let bridge = index(&stage);
    stage.machine().signal(Signal::KILL);
    stage.machine().wait(SOON);
    let before = moved(&mut guest);
    eventually("it goes on without a service", || {
        moved(&mut guest) > before + 4 * SOME
    });
    reached(&stage, HOST, 8022);
    assert_eq!(guest.must("cat /tmp/put", SOON), "", "it is not over yet");

    stage.start_machine();
    eventually("its machine is on the network again", || {
        stage.says("interface list --json").contains("bridge_tap")
    });
    assert_eq!(index(&stage), bridge, "the bridge is the same one");
    let before = moved(&mut guest);
    eventually("it goes on with the next one", || {
        moved(&mut guest) > before + 4 * SOME
    });
    assert_eq!(guest.must("cat /tmp/put", SOON), "", "it is still the same");
    // The service's own things work again.
    let found = guest.must("vmnet-lab-client resolve files.example.test", SOON);
    assert_eq!(found, "198.51.100.1");
    assert_eq!(guest.lease("alpha"), address);
    eventually("the port is forwarded by the next one", || {
        stage.says("forward list").contains("8022")
    });
    reached(&stage, HOST, 8022);
    let leases = stage.says("lease list");
    assert!(leases.contains(&address), "{leases}");
    // The server compares every byte.
    let done = || guest.must("cat /tmp/put", SOON);
    let mut done = done;
    let deadline = Instant::now() + MINUTES;
    let said = loop {
        let said = done();
        if !said.is_empty() {
            break said;
        }
        assert!(Instant::now() < deadline, "the transfer does not end");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(said.starts_with("ok "), "{said}");

    guest.power_off();
    stage.says("network delete lan");
    stage.machine().signal(Signal::TERM);
    stage.machine().wait(SOON);
    assert_eq!(stage.on_host("nft -s list ruleset"), rules);
    assert!(!stage.on_host("ip -o link").contains("vmnet"));
}
