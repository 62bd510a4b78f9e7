//! DPDK's virtio-user as a front end that we did not write: two ports of one network, and frames that run round.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use vmnet_lab::prerequisite::{Prerequisite, all_present};
use vmnet_lab::testpmd::{self, Port, Testpmd};
use vmnet_linux::lane::{self, Attachment, Handle, Ipv4, PortOptions, Settings, VhostUserSocket};

const SOON: Duration = Duration::from_secs(30);
const MACS: [&str; 2] = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"];
/// Frames that testpmd begins with, at each port.
const BEGIN: u64 = 32;

fn network() -> Handle {
    let ipv4 = Ipv4::new("192.168.77.0/24".parse().unwrap());
    let mut settings = Settings::shared("testpmd", ipv4, Duration::from_secs(3600));
    settings.resolvers = Some(Vec::new());
    lane::start(settings).unwrap()
}

/// Frames run from one port to the other and back for a while, by what the ports have negotiated; then they are caught
/// and counted: none may be missing, and none there twice.
fn run(more: &str) {
    if !all_present(&[Prerequisite::Program(testpmd::PROGRAM)]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let handle = network();
    let sockets = [0, 1].map(|number: usize| {
        let socket = folder.path().join(number.to_string());
        let listener = UnixListener::bind(&socket).unwrap();
        let attachment = Attachment::VhostUser(VhostUserSocket::Listen(listener));
        handle.attach(attachment, PortOptions::default()).unwrap();
        socket
    });
    let port = |number: usize| Port {
        socket: &sockets[number],
        mac: MACS[number],
        more,
    };
    let mut testpmd = Testpmd::start(folder.path(), &[port(0), port(1)]);
    // Each port sends what came by the other one, in its own name and to the other one.
    testpmd.say("set fwd mac");
    testpmd.say("start tx_first 1");
    let begun = Instant::now();
    let heard = || {
        handle
            .ports()
            .iter()
            .filter(|row| row.mac.is_some())
            .count()
    };
    while heard() < 2 {
        assert!(testpmd.is_running(), "testpmd ended");
        assert!(begun.elapsed() < SOON, "no frames came");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_secs(2));
    testpmd.say("stop");
    testpmd.say("set fwd rxonly");
    testpmd.say("start");
    std::thread::sleep(Duration::from_millis(500));
    testpmd.say("stop");
    let counts = testpmd.quit(SOON);
    let drops: Vec<_> = handle.counters().rows.into_iter().collect();
    let [ran, caught] = counts.as_slice() else {
        panic!("{counts:?}");
    };
    println!("{more}: {ran:?}, {caught:?}");
    for port in 0..2 {
        assert!(ran.received[port] > 2_000, "{ran:?}");
        assert_eq!(ran.dropped[port], 0, "testpmd had room: {ran:?}");
        // What came by one port went out of the other.
        assert_eq!(ran.sent[port], ran.received[1 - port] + BEGIN, "{ran:?}");
    }
    let all: u64 = caught.received.iter().sum();
    assert_eq!(all, 2 * BEGIN, "{ran:?} {caught:?} {drops:?}");
}

#[test]
fn split_rings() {
    run("mrg_rxbuf=1,in_order=0");
}

#[test]
fn in_order() {
    run("mrg_rxbuf=1,in_order=1");
}

#[test]
fn without_mergeable_buffers() {
    run("mrg_rxbuf=0,in_order=0");
}

#[test]
fn packed_rings() {
    run("packed_vq=1,in_order=0");
}
