//! Guests on the LAN of the host's interface, by each method: the LAN's own DHCP server and router serve them, they reach its
//! stations, the host and each other, and the interface is afterwards as it was.
//!
//! | file | what |
//! | --- | --- |
//! | `lan` | a host and its LAN, made of two namespaces |
//! | `node` | who speaks to whom |
//! | `trunk` | VLANs of virtual machines |

mod lan;
mod node;
mod trunk;

use lan::{Lan, Shape};
use node::{Guest, Node, speak};
use std::time::Duration;
use vmnet_lab::prerequisite::{Prerequisite, all_present};
use vmnet_lab::process::Process;
use vmnet_lab::qemu::{Guest as Machine, Netdev};

const SOON: Duration = Duration::from_secs(30);
const NEEDS: [Prerequisite; 5] = [
    Prerequisite::Root,
    Prerequisite::Tun,
    Prerequisite::UserNamespaces,
    Prerequisite::Program("dnsmasq"),
    Prerequisite::Program("ethtool"),
];
/// What virtual machines take besides.
const MACHINE_NEEDS: [Prerequisite; 3] = [
    Prerequisite::GuestKernel,
    Prerequisite::Program("qemu-system-x86_64"),
    Prerequisite::Program("busybox"),
];
/// Bytes of a large transfer, each way.
const LARGE: u64 = 32 << 20;

/// One way onto a LAN.
#[derive(Clone, Copy, Debug)]
struct Way {
    method: &'static str,
    shape: Shape,
    interface: &'static str,
}

const BRIDGE: Way = Way {
    method: "bridge",
    shape: Shape::Bridge,
    interface: "eth0",
};
const PACKET: Way = Way {
    method: "packet",
    shape: Shape::Plain,
    interface: "eth0",
};
const MACVTAP: Way = Way {
    method: "macvtap",
    shape: Shape::Plain,
    interface: "eth0",
};

fn lan(way: Way) -> Option<Lan> {
    all_present(&NEEDS).then(|| Lan::new(way.shape))
}

fn create(lan: &Lan, way: Way, more: &[&str]) {
    let words = [
        &[
            "network",
            "create",
            "lan0",
            "--mode",
            "bridged",
            "--interface",
            way.interface,
            "--method",
            way.method,
        ],
        more,
    ]
    .concat();
    let said = Process::run(lan.vmnet(&words), SOON).success();
    assert!(said.contains(way.method), "{said}");
}

/// Everybody to everybody, by both families; then much at once between guests and each of the others.
fn all_speak(nodes: &[&dyn Node]) {
    for from in nodes {
        for to in nodes {
            if from.name() == to.name() || !(from.is_guest() || to.is_guest()) {
                continue;
            }
            speak(*from, *to, 300_000);
        }
    }
}

fn much(one: &dyn Node, other: &dyn Node) {
    let at = other.v4();
    one.must(&format!("close-first {at}:7001 {LARGE}"));
}

fn the_story(way: Way) {
    let Some(lan) = lan(way) else { return };
    let (before, configured) = (lan.snapshot(), lan.configuration());
    let daemon = lan.daemon();
    create(&lan, way, &[]);
    let one = Guest::run(&lan, "one");
    let two = Guest::attach(&lan, "two");
    let (host, station) = (lan.host_node(), lan.station_node());
    // The addresses are the LAN's.
    for guest in [&one, &two] {
        assert!(guest.v4().starts_with("10.91.0.1"), "{}", guest.v4());
        assert!(guest.v6().starts_with("fd91::"), "{}", guest.v6());
    }
    assert_eq!(lan.leases(), 2, "dnsmasq gave the addresses");
    all_speak(&[&one, &two, &host, &station]);
    for other in [&host as &dyn Node, &station, &two] {
        much(&one, other);
        much(other, &one);
    }
    // Both are guests still, with what they were given.
    let listed = lan.interfaces();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert!(listed.iter().all(|one| one["mtu"] == 1500), "{listed:?}");
    lan.has(&configured);
    drop((one, two));
    lan.end(daemon);
    lan.is_as(&before, "after the end of the service");
}

#[test]
fn guests_are_on_the_lan_by_a_bridge() {
    the_story(BRIDGE);
}

#[test]
fn guests_are_on_the_lan_by_a_packet_socket() {
    the_story(PACKET);
}

#[test]
fn guests_are_on_the_lan_by_macvtaps() {
    the_story(MACVTAP);
}

/// Killed with its helper under a guest: the interface is as before at once, or after the next start, and the guest is on the
/// LAN again then.
fn killed(way: Way) {
    let Some(lan) = lan(way) else { return };
    let before = lan.snapshot();
    let daemon = lan.daemon();
    create(&lan, way, &[]);
    let guest = Guest::run(&lan, "one");
    let (host, station) = (lan.host_node(), lan.station_node());
    speak(&guest, &station, 1000);
    lan.kill(daemon);
    if way.method != "macvtap" {
        lan.is_as(&before, "at once");
    }
    let daemon = lan.daemon();
    lan.eventually("the guest is back", || lan.interfaces().len() == 1);
    for node in [&host as &dyn Node, &station] {
        speak(&guest, node, 1000);
        speak(node, &guest, 1000);
    }
    drop(guest);
    Process::run(lan.vmnet(&["network", "delete", "lan0"]), SOON).success();
    lan.is_as(&before, "after the network");
    lan.end(daemon);
    lan.is_as(&before, "after the service");
}

#[test]
fn a_bridge_loses_nothing_when_the_service_is_killed() {
    killed(BRIDGE);
}

#[test]
fn an_interface_loses_nothing_when_the_service_is_killed() {
    killed(PACKET);
}

#[test]
fn macvtaps_are_removed_after_the_service_was_killed() {
    killed(MACVTAP);
}

/// The next service knows nothing of the network, and nobody brings it back.
#[test]
fn what_is_left_of_a_network_that_does_not_come_back_is_removed() {
    for way in [BRIDGE, PACKET, MACVTAP] {
        let Some(lan) = lan(way) else { return };
        let before = lan.snapshot();
        let daemon = lan.daemon();
        create(&lan, way, &[]);
        let guest = Guest::run(&lan, "one");
        lan.kill(daemon);
        drop(guest);
        let daemon = lan.daemon_with("other");
        lan.is_as(&before, "after the next start");
        lan.end(daemon);
        lan.is_as(&before, "after its end");
    }
}

#[test]
fn isolated_guests_reach_the_lan_and_the_host_alone() {
    for way in [BRIDGE, PACKET, MACVTAP] {
        let Some(lan) = lan(way) else { return };
        let daemon = lan.daemon();
        create(&lan, way, &["--isolation"]);
        let (one, two) = (Guest::run(&lan, "one"), Guest::run(&lan, "two"));
        let (host, station) = (lan.host_node(), lan.station_node());
        for node in [&host as &dyn Node, &station] {
            speak(&one, node, 1000);
            speak(node, &two, 1000);
        }
        let outcome = one.must(&format!("outcome {}:7001 2", two.v4()));
        assert!(
            outcome.starts_with("unreachable") || outcome.starts_with("timeout"),
            "{way:?}: {outcome}"
        );
        drop((one, two));
        lan.end(daemon);
    }
}

/// A Linux guest in QEMU, whose memory is shared with the service.
#[test]
fn a_virtual_machine_is_on_the_lan() {
    if !all_present(&MACHINE_NEEDS) {
        return;
    }
    let Some(lan) = lan(PACKET) else { return };
    let daemon = lan.daemon();
    create(&lan, PACKET, &[]);
    let machine = vmnet_lab::qemu::Machine::at(lan.path());
    let mut command = lan.vmnet(&["qemu", "--network", "lan0", "--name", "vm", "--"]);
    command
        .arg("qemu-system-x86_64")
        .args(machine.arguments(&Netdev::Absent, 1));
    let mut vm = Machine::wait_for(command);
    let address = vm.lease("vm");
    assert!(address.starts_with("10.91.0.1"), "{address}");
    let six = vm.await_ipv6();
    assert!(six.contains("fd91::"), "{six}");
    vm.must(
        "vmnet-lab-client serve-pattern 7001 >/dev/null 2>&1 &",
        SOON,
    );
    for at in ["10.91.0.1", "10.91.0.2", "[fd91::1]", "[fd91::2]"] {
        let line = format!("vmnet-lab-client close-first {at}:7001 4000000");
        vm.must(&line, SOON);
    }
    let (host, station) = (lan.host_node(), lan.station_node());
    for node in [&host as &dyn Node, &station] {
        node.must(&format!("close-first {address}:7001 4000000"));
    }
    vm.power_off();
    lan.end(daemon);
}

#[test]
fn what_cannot_be_is_said() {
    let Some(lan) = lan(PACKET) else { return };
    let listed = Process::run(lan.vmnet(&["network", "bridgeable"]), SOON).success();
    assert!(
        listed.contains("eth0") && !listed.contains("lo "),
        "{listed}"
    );
    // A service of a user has not the rights.
    let user = lan.user_daemon();
    let refused = lan.refused("eth0", &[]);
    assert!(refused.contains("vmnet daemon --system"), "{refused}");
    drop(user);
    let daemon = lan.daemon();
    for (interface, more, word) in [
        ("eth9", &[][..], "eth0"),
        ("lo", &[], "no interface that guests can be bridged to"),
        ("eth0", &["--mtu", "1400"], "MTU"),
        ("eth0", &["--subnet", "10.1.0.0/24"], "leave subnet out"),
        ("eth0", &["--method", "bridge"], "no bridge"),
    ] {
        let refused = lan.refused(interface, more);
        assert!(refused.contains(word), "{word}: {refused}");
    }
    create(&lan, PACKET, &[]);
    let forward = ["forward", "add", "lan0", "8080:web:80"];
    let said = Process::run(lan.vmnet(&forward), SOON);
    assert!(
        !said.status.success() && said.stderr.contains("forwarded ports"),
        "{said:?}"
    );
    lan.end(daemon);
}
