//! Interfaces on the LAN of the host's card, through the machine's service.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{env, net::Ipv4Addr};

use openvmnet::{Interface, InterfaceConfiguration, shared_interfaces};
use vmnet_lab::host_on_lan::HostOnLan;
use vmnet_lab::prerequisite::{Prerequisite, all_present};

const SOON: Duration = Duration::from_secs(20);
/// Set in the process that is on the host.
const INSIDE: &str = "OPENVMNET_TEST_INSIDE";

fn executable() -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    let beside = own.parent()?.parent()?.join("vmnet");
    beside.is_file().then_some(beside)
}

/// Who has `address`, asked by the owner of `mac` at `own`.
fn arp(mac: [u8; 6], own: Ipv4Addr, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(own.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// Asks until the answer comes.
fn must_answer(interface: &Interface, own: Ipv4Addr, address: Ipv4Addr) {
    let mac = interface.parameters().mac_address.unwrap();
    let until = Instant::now() + SOON;
    let mut buffer = [0; 2048];
    loop {
        interface.write_packet(&arp(mac.0, own, address)).unwrap();
        interface.wait(Some(Duration::from_millis(200))).unwrap();
        while let Some(len) = interface.read_packet(&mut buffer).unwrap() {
            let frame = &buffer[..len];
            let is_answer = frame[..6] == mac.0 && frame.get(12..14) == Some(&[8, 6]);
            // Of another one's: it was asked twice.
            let is_theirs = frame.get(28..32) == Some(&address.octets());
            if is_answer && is_theirs && frame.get(20..22) == Some(&[0, 2]) {
                return;
            }
        }
        assert!(Instant::now() < until, "{address} does not answer");
    }
}

fn on_the_host() {
    let listed = shared_interfaces().unwrap();
    let card = listed.iter().find(|one| one.name == "eth0").unwrap();
    assert!(card.up && card.mtu == 1500, "{card:?}");
    assert!(listed.iter().all(|one| one.name != "lo"), "{listed:?}");
    let refused = InterfaceConfiguration::bridged("eth9").build().unwrap();
    assert!(Interface::start(&refused).is_err());
    let configuration = InterfaceConfiguration::bridged("eth0").build().unwrap();
    let one = Interface::start(&configuration).unwrap();
    let other = Interface::start(&configuration).unwrap();
    let [station, host, own]: [Ipv4Addr; 3] =
        [HostOnLan::STATION, HostOnLan::HOST, HostOnLan::FREE].map(|text| text.parse().unwrap());
    for interface in [&one, &other] {
        must_answer(interface, own, station);
        must_answer(interface, own, host);
    }
    // They are on one LAN, too.
    let mut buffer = [0; 2048];
    let hello = [
        &[0xff; 6],
        &[2, 0, 0, 0, 0, 5][..],
        &[0x88, 0xb5, 1, 2, 3, 4],
    ]
    .concat();
    let until = Instant::now() + SOON;
    loop {
        one.write_packet(&hello).unwrap();
        other.wait(Some(Duration::from_millis(200))).unwrap();
        let mut heard = false;
        while let Some(len) = other.read_packet(&mut buffer).unwrap() {
            heard |= buffer.get(12..18.min(len)) == Some(&[0x88, 0xb5, 1, 2, 3, 4]);
        }
        if heard {
            break;
        }
        assert!(Instant::now() < until, "nothing came");
    }
}

#[test]
fn an_interface_is_on_the_lan_of_the_hosts_card() {
    if env::var_os(INSIDE).is_some() {
        return on_the_host();
    }
    if !all_present(&[Prerequisite::Root, Prerequisite::Tun]) {
        return;
    }
    let Some(executable) = executable() else {
        let reason = "there is no executable `vmnet` beside the tests: `cargo build -p vmnet-cli`";
        assert!(env::var_os("CI").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
        return;
    };
    let lan = HostOnLan::new(&executable);
    let mut command = lan.command(&env::current_exe().unwrap());
    let status = command
        .args(["--exact", "an_interface_is_on_the_lan_of_the_hosts_card"])
        .args(["--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        // The machine's service has the list, too.
        .env("VMNET_SCOPE", "system")
        .env("XDG_RUNTIME_DIR", lan.folder())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}
