//! Ten thousand forwarded ports by one rule.

use crate::daemon::{self, Usage};
use crate::play;
use openvmnet::client::{CallError, Client};
use openvmnet::service::{ForwardRule, Guest, Mode, NetworkConfiguration, Protocol, ServiceError};
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A network namespace of its own: nobody else listens there.
const BEFORE: [&str; 5] = [
    "unshare",
    "-rn",
    "sh",
    "-c",
    "ip link set lo up || exit 77; exec \"$0\" \"$@\"",
];
const PORTS: u16 = 10_000;
const FIRST: u16 = 12_000;
/// Left out of the range.
const EXCEPT: [u16; 10] = [
    12_001, 12_500, 13_000, 14_000, 15_000, 16_000, 17_000, 18_000, 19_000, 20_000,
];
const NETWORK: &str = "ports";

/// Debug builds are slower and larger than what was promised.
const GENEROUS: u32 = if cfg!(debug_assertions) { 3 } else { 1 };
const MEMORY_KIB: i64 = 8 << 10;
const TIME: Duration = Duration::from_millis(500);

#[test]
fn ten_thousand_ports_by_one_rule() {
    play::below("ports::ten_thousand_ports_by_one_rule", &BEFORE, |_| {
        story()
    });
}

fn address() -> String {
    "127.0.0.1".to_owned()
}

fn rule(first: u16, last: u16) -> ForwardRule {
    ForwardRule {
        protocol: Protocol::Tcp,
        address: address(),
        first,
        last,
        except: Vec::new(),
        guest: Guest {
            address: Some("10.217.0.9".to_owned()),
            mac: None,
            name: None,
            interface: None,
        },
        guest_port: first,
    }
}

fn large() -> ForwardRule {
    let mut rule = rule(FIRST, FIRST + PORTS + 9);
    rule.except = EXCEPT.to_vec();
    rule
}

fn configuration() -> NetworkConfiguration {
    let mut configuration = NetworkConfiguration::new(Mode::Shared);
    configuration.name = Some(NETWORK.to_owned());
    configuration.subnet = Some("10.217.0.1/24".to_owned());
    configuration
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, CallError>) -> ServiceError {
    match outcome {
        Err(CallError::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn story() {
    let mut client = Client::connect().unwrap();
    client.create_network(configuration()).unwrap();
    // What the first of anything costs is not the ports'.
    let small = client
        .add_forward(NETWORK, None, rule(9_000, 9_000))
        .unwrap();
    client.remove_forward(small.forward).unwrap();
    let before = daemon::usage(&mut client);
    let begin = Instant::now();
    let added = client.add_forward(NETWORK, None, large()).unwrap();
    let took = begin.elapsed();
    let after = daemon::usage(&mut client);
    println!(
        "{PORTS} ports in {took:?}, memory grew by {} KiB, {} more files",
        after.memory - before.memory,
        after.files - before.files
    );
    assert_eq!(after.files - before.files, usize::from(PORTS));
    assert!(took < TIME * GENEROUS);
    assert!(after.memory - before.memory < MEMORY_KIB * i64::from(GENEROUS));
    conflicts(&mut client, added.forward);
    let number = restored(client);
    let mut client = Client::connect().unwrap();
    removed(&mut client, number, before);
    few_files();
}

fn conflicts(client: &mut Client, number: u64) {
    // The same again is the same.
    let again = client.add_forward(NETWORK, None, large()).unwrap();
    assert_eq!(again.forward, number);
    let before = daemon::usage(client);
    let error = refused(client.add_forward(NETWORK, None, rule(11_990, 12_000)));
    let ServiceError::InUse { reason } = &error else {
        panic!("{error:?}")
    };
    assert!(reason.contains(&format!("forward {number}")), "{reason}");
    // What was left out is free.
    let hole = client
        .add_forward(NETWORK, None, rule(EXCEPT[1], EXCEPT[1]))
        .unwrap();
    client.remove_forward(hole.forward).unwrap();
    // Somebody else's port inside a range: nothing of the range stays.
    let foreign = TcpListener::bind((address(), 11_500)).unwrap();
    let error = refused(client.add_forward(NETWORK, None, rule(11_000, 11_900)));
    let ServiceError::InUse { reason } = &error else {
        panic!("{error:?}")
    };
    assert!(reason.contains("11500"), "{reason}");
    drop(foreign);
    TcpListener::bind((address(), 11_499)).unwrap();
    assert_eq!(daemon::usage(client).files, before.files);
}

/// A kept network has its rules again.
fn restored(mut client: Client) -> u64 {
    let pid = client.status().unwrap().pid;
    kill_process(
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    let begin = Instant::now();
    // The kernel closes ten thousand sockets, and then the service's.
    let mut client = loop {
        match client.status() {
            Ok(_) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => break Client::connect().unwrap(),
        }
    };
    let forwards = client.list_forwards(Some(NETWORK)).unwrap().forwards;
    println!(
        "killed and started again with all ports in {:?}",
        begin.elapsed()
    );
    assert_eq!(forwards.len(), 1, "{forwards:?}");
    assert_eq!(forwards[0].rule, large());
    TcpListener::bind((address(), FIRST)).expect_err("the service listens");
    forwards[0].forward
}

fn removed(client: &mut Client, number: u64, before: Usage) {
    let begin = Instant::now();
    client.remove_forward(number).unwrap();
    let took = begin.elapsed();
    let after = daemon::usage(client);
    println!("removed in {took:?}: {after:?}, before {before:?}");
    assert!(after.files <= before.files + 1);
    for port in [FIRST, FIRST + 5_000, FIRST + PORTS + 9] {
        TcpListener::bind((address(), port)).unwrap();
    }
    assert!(took < TIME * GENEROUS);
    client.delete_network(NETWORK, false).unwrap();
}

/// A service that may open few files says so, and goes on.
fn few_files() {
    let socket = play::folder().join("service/few.sock");
    let mut daemon = crate::stage::Playing(
        Command::new("sh")
            .args(["-c", "ulimit -n 512; exec \"$0\" daemon --no-state"])
            .arg(play::folder().join("vmnet"))
            .env("VMNET_SOCKET", &socket)
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    crate::stage::eventually("it listens", || UnixStream::connect(&socket).is_ok());
    let mut client = Client::over(UnixStream::connect(&socket).unwrap()).unwrap();
    client
        .open_network(Some(NETWORK), Some(configuration()))
        .unwrap();
    let before = daemon::of_process(daemon.0.id());
    let error = refused(client.add_forward(NETWORK, None, large()));
    let ServiceError::Exhausted { reason } = &error else {
        panic!("{error:?}")
    };
    println!("with 512 files: {reason}");
    assert!(
        reason.contains("512") && reason.contains("LimitNOFILE"),
        "{reason}"
    );
    assert_eq!(daemon::of_process(daemon.0.id()).files, before.files);
    client
        .add_forward(NETWORK, None, rule(FIRST, FIRST + 99))
        .unwrap();
    drop(client);
    daemon.kill(Signal::TERM);
    assert!(daemon.0.wait().unwrap().success());
}
