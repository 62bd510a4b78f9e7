//! Guests do not reach what listens on the host's loopback, whoever has opened that to their bridge.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::stage::Stage;
use vmnet_wire::ethernet::Mac;

use crate::guest::{Guest, SILENCE, SOON, mac_of, stage};

/// A service of the host, on its loopback alone.
fn listens(stage: &Stage) -> UdpSocket {
    stage.world.host().enter(|| {
        let socket = UdpSocket::bind("127.0.0.1:7777").unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        socket
    })
}

/// As it is, and with the tag of no VLAN, several times.
fn knock(guest: &Guest, host: Mac) {
    let ends = Ends {
        macs: (guest.mac, host),
        ips: (Ipv4Addr::new(10, 77, 9, 5), Ipv4Addr::LOCALHOST),
    };
    let frame = packets::udp(ends, (4000, 7777), 64, b"knock");
    for tags in 0..4 {
        let tags = [0x81, 0, 0, 0].repeat(tags);
        guest.send(&[&frame[..12], &tags, &frame[12..]].concat());
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
    let service = listens(&stage);
    let guest = Guest::at_tap(&stage, "lan", 1, false);
    let host = mac_of(&stage, "vmnet0");
    let knock = || knock(&guest, host);
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

/// Somebody opens the loopback to all interfaces of the host, and has a port of his own on the bridge.
#[test]
fn who_opens_the_loopback_to_all_does_not_open_it_to_guests() {
    let Some(mut stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24");
    stage.on_host("cd /proc/sys/net/bridge && echo 0 >bridge-nf-call-iptables && echo 0 >bridge-nf-call-ip6tables || true");
    let service = listens(&stage);
    let guests = [
        Guest::at_tap(&stage, "lan", 1, false),
        Guest::at_strange_tap(&stage, "own0", 2),
    ];
    let host = mac_of(&stage, "vmnet0");
    let heard = || service.recv(&mut [0; 100]).is_ok();
    for opened in ["all", "vmnet0", "all"] {
        stage.on_host(&format!(
            "echo 1 >/proc/sys/net/ipv4/conf/{opened}/route_localnet"
        ));
        // Rules follow in a moment.
        std::thread::sleep(Duration::from_secs(1));
        for guest in &guests {
            knock(guest, host);
            assert!(!heard(), "{} reaches the loopback, {opened}", guest.mac);
        }
    }
    // One that was there before is kept away while somebody has flushed all rules, too.
    stage.machine().signal(Signal::STOP);
    stage.on_host("nft flush ruleset");
    let [tap, own] = &guests;
    knock(tap, host);
    assert!(!heard(), "without rules");
    knock(own, host);
    assert!(heard(), "where nothing keeps it away");
    stage.machine().signal(Signal::CONT);
}
