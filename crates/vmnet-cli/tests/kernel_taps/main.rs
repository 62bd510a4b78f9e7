//! Taps of bridges, whose frames the kernel carries: who hears whom, whose a tap is, and that it outlives a service which cannot
//! start again. Guests are made of frames here.

mod guest;
mod isolation;
mod loopback;

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use openvmnet::client::CallError;
use openvmnet::service::{Kind, ServiceError};
use rustix::process::Signal;
use vmnet_lab::namespace::Namespace;
use vmnet_lab::process::Process;
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_lab::sim::packets6::{self, Ends6};
use vmnet_lab::stage::Stage;
use vmnet_linux::kernel::tap;
use vmnet_wire::ip::Protocol;

use guest::{ALL, Guest, SILENCE, SOON, client, holds, options, reach, stage};

fn refused(outcome: Result<openvmnet::service::Started, CallError>) -> ServiceError {
    match outcome {
        Err(CallError::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tap_is_joined_once_and_by_who_has_the_hosts_own() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan");
    let mut service = client(&stage);
    let (opened, queues) = service.open_tap("lan", 1).expect("a tap");
    let own = queues.into_iter().next().expect("a queue");
    // Another of that name, of a namespace that is not the host's.
    let elsewhere = Namespace::new();
    let strange = elsewhere.enter(|| tap::open(&opened.name).expect("a tap"));
    let mut stranger = client(&stage);
    let error = stranger.start_interface("lan", options(Kind::BridgeTap, 7, true), vec![strange]);
    assert!(matches!(
        refused(error),
        ServiceError::InvalidArgument { .. }
    ));
    let member = || {
        stage
            .on_host(&format!("ip -o link show {}", opened.name))
            .contains("master")
    };
    assert!(!member());
    let again = || own.as_fd().try_clone_to_owned().unwrap();
    let first = service
        .start_interface("lan", options(Kind::BridgeTap, 1, false), vec![again()])
        .expect("an interface");
    let twice = service.start_interface("lan", options(Kind::BridgeTap, 2, false), vec![again()]);
    assert!(matches!(refused(twice), ServiceError::InUse { .. }));
    drop(stranger);
    assert!(member(), "it is as it was");
    service
        .stop_interface(first.interface.interface)
        .expect("its end");
}

#[test]
fn a_service_that_cannot_start_again_leaves_taps_to_their_guests() {
    let Some(mut stage) = stage() else { return };
    stage.says("network create lan");
    let (one, other) = (
        Guest::at_tap(&stage, "lan", 1, false),
        Guest::at_tap(&stage, "lan", 2, false),
    );
    assert_eq!(reach(&one, &other, SOON), (true, true));
    stage.machine().signal(Signal::KILL);
    stage.machine().wait(SOON);
    // Nobody else can set the rules meanwhile.
    let owner = own_table(&stage, "vmnet0");
    stage.start_machine();
    let said = Process::run(stage.vmnet(&["network", "create", "lan"]), SOON);
    assert!(said.stderr.contains("cannot be started"), "{}", said.stderr);
    assert_eq!(reach(&one, &other, SOON), (true, true), "they go on");
    drop(owner);
    // It is tried again when somebody wants it, and finds them.
    stage.says("run --network lan -- true");
    assert_eq!(reach(&one, &other, SOON), (true, true));
    let members = stage.on_host("ip -o link show master vmnet0");
    for member in ["vmnet0-0", "vmnet0-1", "vmnet0-gw"] {
        assert!(members.contains(member), "{members}");
    }
}

/// A program that has the tables of a network to itself, until it ends.
fn own_table(stage: &Stage, name: &str) -> Process {
    let mut command = stage.world.superusers("nft");
    command.arg("-i");
    let mut owner = Process::spawn(command);
    owner.write_line(&format!("delete table inet {name}"));
    owner.write_line(&format!("add table inet {name} {{ flags owner; }}"));
    let deadline = Instant::now() + SOON;
    while !stage.on_host("nft list ruleset").contains("flags owner") {
        assert!(Instant::now() < deadline, "{}", owner.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
    owner
}

#[test]
fn a_forwarded_port_that_was_refused_does_not_come_back() {
    let Some(mut stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24");
    let owner = own_table(&stage, "vmnet0");
    let words = ["forward", "add", "lan", "8080:10.77.9.7:80"];
    let said = Process::run(stage.vmnet(&words), SOON);
    assert!(!said.status.success(), "{}", said.stdout);
    drop(owner);
    let listed = |stage: &Stage| stage.says("forward list --json");
    assert!(!listed(&stage).contains("8080"));
    stage.machine().signal(Signal::TERM);
    stage.machine().wait(SOON);
    stage.start_machine();
    assert!(!listed(&stage).contains("8080"), "{}", listed(&stage));
    // And one that was taken does.
    stage.says("forward add lan 8081:10.77.9.7:80");
    stage.machine().signal(Signal::TERM);
    stage.machine().wait(SOON);
    stage.start_machine();
    assert!(listed(&stage).contains("8081"));
}

#[test]
fn a_guest_is_no_server_and_no_router_in_pieces_either() {
    let Some(stage) = stage() else { return };
    stage.says("network create lan --subnet 10.77.9.0/24");
    let (one, other) = (
        Guest::at_tap(&stage, "lan", 1, false),
        Guest::at_tap(&stage, "lan", 2, false),
    );
    assert_eq!(reach(&one, &other, SOON), (true, true));
    let ends = Ends {
        macs: (one.mac, ALL),
        ips: (Ipv4Addr::new(10, 77, 9, 7), Ipv4Addr::BROADCAST),
    };
    let datagram = |ports, word: &str| packets::udp(ends, ports, 64, word.as_bytes());
    // An answer of a server that does not speak from a server's port.
    for (ports, passes) in [
        ((67, 68), false),
        ((4067, 68), false),
        ((68, 67), true),
        ((9, 9), true),
    ] {
        let word = format!("{ports:?} of IPv4");
        one.send(&datagram(ports, &word));
        let within = if passes { SOON } else { SILENCE };
        let heard = other.hears(within, |frame| holds(frame, &word));
        assert_eq!(heard, passes, "{word}");
    }
    // A first piece that ends before the header that would tell what it is; and pieces that tell.
    // To one: pieces for all are nobody's where bridged packets pass iptables.
    let six = Ends6 {
        macs: (one.mac, other.mac),
        ips: (packets6::v6("fe80::7"), packets6::v6("fe80::9")),
    };
    let piece = |next: u8, place: u16, rest: &[u8], word: &str| {
        let head = [next, 0, (place >> 8) as u8, place as u8, 0, 0, 0, 7];
        let payload = [&head[..], rest, word.as_bytes()].concat();
        packets6::ip(six, Protocol::FRAGMENT, 255, &payload)
    };
    let options = |next: u8, more: u8| [next, more, 1, 4, 0, 0, 0, 0];
    // Ten bytes of a message could be any: its first eight are missing here.
    let hidden = [
        piece(60, 1, &options(58, 0), ""),
        piece(60, 1, &options(58, 3), "said beyond this piece"),
        piece(43, 1, &[60, 0, 4, 0, 0, 0, 0, 0], ""),
        piece(60, 1, &options(17, 0), ""),
        piece(58, 1, &[134, 0], ""),
    ];
    let is_piece = |frame: &[u8]| {
        frame[12..14] == [0x86, 0xdd] && frame[20] == 44 && frame[6..12] == one.mac.0
    };
    for (at, frame) in hidden.iter().enumerate() {
        one.send(frame);
        assert!(!other.hears(SILENCE, is_piece), "{at}");
    }
    for (next, rest) in [
        (17, [0, 9, 0, 9, 0, 200, 0, 0]),
        (58, [128, 0, 0, 0, 0, 7, 0, 1]),
        (6, [0; 8]),
    ] {
        for place in [1, 8] {
            one.send(&piece(next, place, &rest, "and more of it"));
            assert!(other.hears(SOON, is_piece), "{next} at {place}");
        }
    }
}
