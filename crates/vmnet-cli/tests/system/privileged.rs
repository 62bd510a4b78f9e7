//! The helper on a real kernel, as a thread of the test in a namespace: what it does, and what it refuses.

use crate::machine::Machine;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use uuid::Uuid;
use vmnet_daemon::privileged::client::{Helper, HelperError};
use vmnet_daemon::privileged::name::{LinkName, Mark};
use vmnet_daemon::privileged::request::{Answer, Request, Why};
use vmnet_daemon::privileged::{process, wire};
use vmnet_linux::kernel::tap;

const NETWORK: Uuid = Uuid::from_u128(0x6ba7_b810_9dad_41d1_80b4_00c0_4fd4_30c8);

fn name(name: &str) -> LinkName {
    name.parse().unwrap()
}

fn mark(role: &str) -> Mark {
    Mark {
        network: NETWORK,
        role: role.parse().unwrap(),
    }
}

/// The daemon's end of a helper in the namespace.
fn start(machine: &Machine) -> (UnixStream, JoinHandle<()>) {
    let (ours, its) = UnixStream::pair().unwrap();
    let host = machine.host.clone();
    let helper = thread::spawn(move || {
        host.enter(|| process::serve(&its)).unwrap();
    });
    (ours, helper)
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, HelperError>) -> (Why, String) {
    match outcome {
        Err(HelperError::Refused(refusal)) => (refusal.why, refusal.reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tap_is_made_opened_again_and_ended() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let (ours, thread) = start(&machine);
    let mut helper = Helper::new(ours, None).unwrap();
    let first = helper
        .create_tap(name("vmnet-tap1"), mark("gateway"), false)
        .unwrap();
    tap::prepare(&first).unwrap();
    let second = helper.open_tap(name("vmnet-tap1")).unwrap();
    let shown = machine.ip("-d link show vmnet-tap1");
    assert!(shown.contains("multi_queue"), "{shown}");
    assert!(shown.contains("vnet_hdr"), "{shown}");
    assert!(
        shown.contains(&format!("alias openvmnet {NETWORK} gateway")),
        "{shown}"
    );
    let links = helper.links().unwrap();
    let found = links.iter().find(|link| link.name == "vmnet-tap1").unwrap();
    assert_eq!(found.mark, Some(mark("gateway")));
    assert_eq!(found.kind.as_deref(), Some("tun"));
    // A name is given once.
    let again = helper.create_tap(name("vmnet-tap1"), mark("gateway"), false);
    assert_eq!(refused(again).0, Why::InUse);
    drop((first, second));
    assert!(
        machine.ip("link show vmnet-tap1").is_empty(),
        "it ends with its queues"
    );
    // One that stays is there for the next service, until it is deleted.
    drop(
        helper
            .create_tap(name("vmnet-tap2"), mark("gateway"), true)
            .unwrap(),
    );
    tap::prepare(helper.open_tap(name("vmnet-tap2")).unwrap()).unwrap();
    helper.delete_link(name("vmnet-tap2")).unwrap();
    helper.delete_link(name("vmnet-tap2")).unwrap();
    assert!(machine.ip("link show vmnet-tap2").is_empty());
    let gone = helper.open_tap(name("vmnet-tap2"));
    assert_eq!(refused(gone).0, Why::Missing);
    drop(helper);
    thread.join().unwrap();
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let Some(machine) = Machine::new() else {
        return;
    };
    // Somebody else's, though it is called as ours are; and one of ours that is no tap.
    machine
        .host
        .ip(&["link", "add", "vmnet8", "type", "bridge"]);
    machine
        .host
        .ip(&["link", "set", "vmnet8", "alias", "VMware NAT"]);
    machine
        .host
        .ip(&["link", "add", "vmnet7", "type", "bridge"]);
    let alias = mark("bridge").to_string();
    machine.host.ip(&["link", "set", "vmnet7", "alias", &alias]);
    let (ours, thread) = start(&machine);
    let mut helper = Helper::new(ours, None).unwrap();
    for outcome in [
        helper.delete_link(name("vmnet8")),
        helper.open_tap(name("vmnet8")).map(drop),
        helper.open_tap(name("vmnet7")).map(drop),
    ] {
        assert_eq!(refused(outcome).0, Why::Forbidden);
    }
    let taken = helper.create_tap(name("vmnet8"), mark("gateway"), true);
    assert_eq!(refused(taken).0, Why::InUse);
    assert!(machine.ip("link show vmnet8").contains("VMware NAT"));
    assert!(
        !machine.ip("-br link").contains('~'),
        "nothing is left half made"
    );
    drop(helper);
    thread.join().unwrap();
}

#[test]
fn what_is_no_request_is_refused_and_the_next_one_answered() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let (mut ours, thread) = start(&machine);
    let answer = |socket: &UnixStream| {
        let (bytes, descriptors) = wire::read(socket).unwrap().unwrap();
        assert!(descriptors.is_empty());
        wire::parse::<Answer>(&bytes).unwrap()
    };
    for words in [
        r#"{"link-delete":{"name":"eth0"}}"#,
        r#"{"link-delete":{"name":"lo"}}"#,
        r#"{"link-delete":{"name":"vmnet0","also":"eth0"}}"#,
        r#"{"tap-create":{"name":"vmnet1","mark":{"network":"x","role":"a"},"stays":true}}"#,
        r#"{"execute":"/bin/sh"}"#,
        r#""link-list" "link-list""#,
        "",
        "\u{0}",
    ] {
        let length = u32::try_from(words.len()).unwrap();
        ours.write_all(&length.to_le_bytes()).unwrap();
        ours.write_all(words.as_bytes()).unwrap();
        match answer(&ours) {
            Answer::Refused(refusal) => assert_eq!(refusal.why, Why::Forbidden, "{words}"),
            other => panic!("{words}: {other:?}"),
        }
    }
    wire::write(&ours, &Request::LinkList, &[machine_descriptor().as_fd()]).unwrap();
    assert!(
        matches!(answer(&ours), Answer::Refused(_)),
        "no descriptors are taken"
    );
    wire::write(&ours, &Request::LinkList, &[]).unwrap();
    assert!(matches!(answer(&ours), Answer::Links(links) if !links.is_empty()));
    drop(ours);
    thread.join().unwrap();
}

fn machine_descriptor() -> std::fs::File {
    std::fs::File::open("/dev/null").unwrap()
}
