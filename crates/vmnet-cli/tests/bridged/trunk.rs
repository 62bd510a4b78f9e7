//! VLANs of virtual machines on a LAN: who is on one hears others on it with the tag, whichever offloads its card has.
//!
//! The kernels of guests have VLANs, whatever the kernel has that the test runs on.

use super::{MACHINE_NEEDS, PACKET, SOON, create, lan};
use crate::lan::Lan;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use vmnet_lab::prerequisite::all_present;
use vmnet_lab::process::Process;
use vmnet_lab::qemu::{Guest, Machine, Netdev};

const LONG: Duration = Duration::from_secs(90);
/// Bytes of a transfer, each way.
const LARGE: u64 = 4_000_000;

/// Begins to boot; on VLAN 5 it has the address with this number.
fn boot(command: Command, number: u8) -> Guest {
    let mut guest = Guest::wait_for(command);
    let line = format!(
        "ip link set eth0 up; vconfig add eth0 5 >/dev/null; echo 0 >/proc/sys/net/ipv6/conf/eth0.5/accept_dad; \
         ip link set eth0.5 up; ip address add 10.5.0.{number}/24 dev eth0.5; \
         ip -6 address add fd05::{number}/64 dev eth0.5; \
         vmnet-lab-client serve-pattern 7001 >/dev/null 2>&1 & \
         vmnet-lab-client listen-udp 7002 >/dev/null 2>&1 & sleep 1"
    );
    guest.must(&line, SOON);
    guest
}

fn at_tap(lan: &Lan, machine: &Machine, number: u8) -> Guest {
    lan.station_ip(&["tuntap", "add", "trunk0", "mode", "tap", "vnet_hdr"]);
    lan.station_ip(&["link", "set", "trunk0", "master", "lan", "up"]);
    let mut command = lan.on_station("qemu-system-x86_64");
    command.args(machine.arguments(&Netdev::Tap("trunk0".to_owned()), number));
    boot(command, number)
}

fn sharing_memory(lan: &Lan, machine: &Machine, number: u8) -> Guest {
    let mut command = lan.vmnet(&["qemu", "--network", "lan0", "--name", "shared", "--"]);
    command
        .arg("qemu-system-x86_64")
        .args(machine.arguments(&Netdev::Absent, number));
    boot(command, number)
}

/// A card without offloads, and what keeps it on the network.
fn at_socket(lan: &Lan, machine: &Machine, number: u8, path: &Path) -> (Process, Guest) {
    let words = ["attach", "lan0", "--stream", path.to_str().unwrap()];
    let attached = Process::spawn(lan.vmnet(&words));
    lan.eventually("the socket is there", || path.exists());
    let mut command = lan.on_station("qemu-system-x86_64");
    command.args(machine.arguments(&Netdev::Stream(path.to_owned()), number));
    (attached, boot(command, number))
}

#[test]
fn vlans_of_guests_pass_by_a_packet_socket() {
    if !all_present(&MACHINE_NEEDS) {
        return;
    }
    let Some(lan) = lan(PACKET) else { return };
    let daemon = lan.daemon();
    create(&lan, PACKET, &[]);
    let machine = Machine::at(lan.path());
    let path = lan.path().join("stream");
    let mut station = at_tap(&lan, &machine, 1);
    let mut shared = sharing_memory(&lan, &machine, 2);
    let (attached, mut socket) = at_socket(&lan, &machine, 3, &path);
    for (from, others) in [
        (&mut station, [2, 3]),
        (&mut shared, [1, 3]),
        (&mut socket, [1, 2]),
    ] {
        for other in others {
            from.must(&format!("ping -c 2 -W 5 10.5.0.{other}"), SOON);
            for at in [format!("10.5.0.{other}"), format!("[fd05::{other}]")] {
                let line = format!("vmnet-lab-client close-first {at}:7001 {LARGE}");
                from.must(&line, LONG);
                let line = format!("vmnet-lab-client udp-echo {at}:7002 5 1400");
                from.must(&line, SOON);
            }
        }
        // Who is not on the VLAN is not there.
        let (status, _) = from.shell(
            "ip address add 10.5.1.9/24 dev eth0; ping -I eth0 -c 1 -W 1 10.5.0.1",
            SOON,
        );
        assert_ne!(status, 0, "the LAN itself answers for a VLAN");
    }
    for guest in [station, shared, socket] {
        guest.power_off();
    }
    drop(attached);
    lan.end(daemon);
}
