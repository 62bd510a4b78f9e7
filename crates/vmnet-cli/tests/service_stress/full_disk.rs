//! The disk is full: no lease is acknowledged that is not stored, guests that have theirs go on, and when there is room
//! again all is well without a restart.

use crate::guest::{self, Ask, Told, mac_of, numbered, plain};
use crate::play;
use crate::stage::{Playing, eventually};
use openvmnet::client::{CallError, Client};
use openvmnet::service::{Mode, NetworkConfiguration, ServiceError};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A namespace in which the state is on a small disk of its own.
const BEFORE: [&str; 5] = [
    "unshare",
    "-rm",
    "sh",
    "-c",
    "mount -t tmpfs -o size=4m,mode=700 tmpfs '{state}' || exit 77; exec \"$0\" \"$@\"",
];
const NETWORK: &str = "full";
/// A guest that gets nothing asks for so long.
const WHILE: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_full_disk_acknowledges_nothing_and_room_heals_it() {
    play::below(
        "full_disk::a_full_disk_acknowledges_nothing_and_room_heals_it",
        &BEFORE,
        |_| story(),
    );
}

fn story() {
    let log = play::folder().join("run/daemon.log");
    // Its log is on another disk.
    let mut daemon = Playing(
        Command::new(play::folder().join("vmnet"))
            .arg("daemon")
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap(),
    );
    let socket = play::folder().join("service/vmnet.sock");
    eventually("it listens", || UnixStream::connect(&socket).is_ok());
    let mut client = Client::connect_running().unwrap();
    let mut configuration = NetworkConfiguration::new(Mode::Shared);
    configuration.name = Some(NETWORK.to_owned());
    configuration.subnet = Some("10.219.0.1/18".to_owned());
    client.create_network(configuration.clone()).unwrap();
    let (started, old) = guest::start(&mut client, NETWORK, plain()).unwrap();
    let mac = mac_of(&started);
    let address = old.lease(mac);
    let mut new = given_mac(&mut client, 50_000);

    let filler = play::folder().join("state/filler");
    fill(&filler);
    // Rooms inside the file are used up first.
    let mut acknowledged = Vec::new();
    let mut next = 0;
    let refused = loop {
        let asks = (next..next + 100).map(|guest| Ask::Any(numbered(guest)));
        next += 100;
        let deadline = std::time::Instant::now() + WHILE;
        let left = new.ask_all(
            asks,
            50,
            || std::time::Instant::now() < deadline,
            |ask, told| acknowledged.push((ask, told)),
        );
        if !left.is_empty() {
            break left;
        }
        assert!(next < 8000, "the disk never was full");
        // A port has no more than 512 guests.
        new = given_mac(&mut client, 50_000 + next);
    };
    println!(
        "{} leases went into what room the file had; then {} were not acknowledged",
        acknowledged.len(),
        refused.len()
    );
    names_the_disk(&log);
    refusals(&mut client);
    others_go_on(&mut client, &old, mac, address);

    fs::remove_file(&filler).unwrap();
    let deadline = std::time::Instant::now() + SOON;
    let left = new.ask_all(
        refused,
        50,
        || std::time::Instant::now() < deadline,
        |ask, told| acknowledged.push((ask, told)),
    );
    assert!(left.is_empty(), "room again, and no lease: {left:?}");
    guest::start(&mut client, NETWORK, plain()).unwrap();
    client.create_network(other()).unwrap();
    let pid = client.status().unwrap().pid;
    assert_eq!(pid, daemon.0.id(), "it was not started again");
    // And all of it is on the disk.
    daemon.kill(Signal::KILL);
    daemon.0.wait().unwrap();
    let mut client = Client::connect().unwrap();
    let leases = client.list_leases(Some(NETWORK)).unwrap().leases;
    for (ask, told) in acknowledged {
        let (Ask::Any(mac), Told::Acknowledged(address)) = (ask, told) else {
            panic!("{ask:?}: {told:?}")
        };
        let (address, mac) = (address.to_string(), mac.to_string());
        assert!(
            leases
                .iter()
                .any(|lease| lease.address == address && lease.mac == mac),
            "{mac} was told {address}"
        );
    }
}

/// An interface that needs no store.
fn given_mac(client: &mut Client, number: usize) -> guest::Place {
    let mut given = plain();
    given.mac = Some(numbered(number).to_string());
    guest::start(client, NETWORK, given).unwrap().1
}

/// Until nothing goes in any more.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let mut size = 64 << 10;
    while size > 0 {
        if file.write_all(&vec![1; size]).is_err() {
            size /= 2;
        }
    }
}

fn names_the_disk(log: &Path) {
    let said = fs::read_to_string(log).unwrap();
    let line = said
        .lines()
        .find(|line| line.contains("cannot be stored"))
        .unwrap_or_else(|| panic!("no word of it in the log: {said}"));
    println!("the log says: {line}");
    assert!(
        line.contains("store.redb") && line.contains("No space left"),
        "{line}"
    );
}

fn other() -> NetworkConfiguration {
    let mut configuration = NetworkConfiguration::new(Mode::Shared);
    configuration.name = Some("other".to_owned());
    configuration.subnet = Some("10.220.0.1/24".to_owned());
    configuration
}

/// What must stay is refused, with the reason.
fn refusals(client: &mut Client) {
    match client.create_network(other()) {
        Err(CallError::Refused(ServiceError::StoreFailed { reason })) => {
            assert!(reason.contains("No space left"), "{reason}");
        }
        outcome => panic!("{outcome:?}"),
    }
    let networks = client.list_networks(None).unwrap().networks;
    assert_eq!(networks.len(), 1, "nothing of it is left: {networks:?}");
    match guest::start(client, NETWORK, plain()) {
        Err(CallError::Refused(ServiceError::StoreFailed { .. })) => {}
        outcome => panic!("a fresh id cannot be stored: {outcome:?}"),
    }
}

/// An interface that needs no store, the gateway, and the lists.
fn others_go_on(
    client: &mut Client,
    old: &guest::Place,
    mac: vmnet_wire::ethernet::Mac,
    address: std::net::Ipv4Addr,
) {
    given_mac(client, 60_000);
    let gateway = "10.219.0.1".parse().unwrap();
    eventually("the gateway answers", || {
        old.drain();
        let ask = vmnet_lab::sim::packets::arp_request(mac, (mac, address), gateway);
        old.send(&ask).unwrap();
        old.receive().is_some()
    });
    let leases = client.list_leases(Some(NETWORK)).unwrap().leases;
    let own = address.to_string();
    assert!(leases.iter().any(|lease| lease.address == own));
}
