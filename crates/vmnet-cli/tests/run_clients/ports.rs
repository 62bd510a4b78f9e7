//! Forwarded ports: a client outside reaches a command, which sees the client's own address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use vmnet_lab::client;
use vmnet_lab::process::Process;
use vmnet_lab::stage::Stage;
use vmnet_lab::world::{HOST, SERVER};

use super::{SOON, await_forwards, stage};

fn listening(stage: &Stage, options: &[&str], words: &str) -> Process {
    let process = Process::spawn(stage.client(options, words));
    process.wait_for_output("ready", SOON, |text| text.contains("ready\n").then_some(()));
    process
}

fn at(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

fn outcome(to: SocketAddr) -> String {
    client::connect::outcome(to, Duration::from_secs(5)).0
}

#[test]
fn tcp_is_forwarded_and_the_client_is_seen() {
    let Some(stage) = stage(&[]) else { return };
    let inside = listening(&stage, &["-p", "8080:80"], "listen-tcp 80");
    await_forwards(&stage, &["tcp4"]);
    stage.world.outside().enter(|| {
        client::connect::at_once(at(HOST, 8080), 50).expect("the forwarded port answers");
        assert_eq!(outcome(at(HOST, 80)), "refused", "only 8080 is forwarded");
    });
    let seen = inside.stdout();
    assert!(seen.contains(&format!("tcp {SERVER}:")), "{seen}");
    assert_eq!(
        seen.lines().filter(|line| line.starts_with("tcp")).count(),
        50
    );
}

#[test]
fn udp_is_forwarded_and_the_client_is_seen() {
    let Some(stage) = stage(&[]) else { return };
    let inside = listening(&stage, &["-p", "5353:53/udp"], "listen-udp 53");
    await_forwards(&stage, &["udp4"]);
    stage.world.outside().enter(|| {
        client::datagram::echo(at(HOST, 5353), 50, 1200).expect("the forwarded port answers");
    });
    let seen = inside.stdout();
    assert!(seen.contains(&format!("udp {SERVER}:")), "{seen}");
}

#[test]
fn an_address_limits_who_reaches_a_forwarded_port() {
    let Some(stage) = stage(&[]) else { return };
    let _inside = listening(&stage, &["-p", "127.0.0.1:8080:80"], "listen-tcp 80");
    await_forwards(&stage, &["tcp4-at"]);
    stage.world.host().enter(|| {
        let local = at([127, 0, 0, 1], 8080);
        client::connect::at_once(local, 5).expect("the host reaches it");
    });
    stage
        .world
        .outside()
        .enter(|| assert_eq!(outcome(at(HOST, 8080)), "refused"));
}

#[test]
fn a_forwarded_port_where_nobody_listens_closes_soon() {
    let Some(stage) = stage(&[]) else { return };
    let script = "echo ready; read line";
    let inside = Process::spawn(stage.shell(&["-p", "8080:80"], script));
    inside.wait_for_output("ready", SOON, |text| text.contains("ready\n").then_some(()));
    stage.world.outside().enter(|| {
        let result = client::connect::at_once(at(HOST, 8080), 1);
        assert!(result.is_err(), "an echo came from nobody");
    });
}

#[test]
fn a_port_that_is_taken_is_named() {
    let Some(stage) = stage(&[]) else { return };
    stage.world.serve_echo_on_host(at(HOST, 8080));
    let spec = format!("{HOST}:8080:80");
    let finished = Process::run(stage.shell(&["-p", &spec], "true"), SOON);
    assert!(!finished.status.success());
    assert!(finished.stderr.contains("8080"), "{}", finished.stderr);
}

#[test]
fn a_hundred_megabytes_come_in_by_a_forwarded_port() {
    let Some(stage) = stage(&[]) else { return };
    let _inside = listening(&stage, &["-p", "9002:9002"], "serve-pattern 9002");
    await_forwards(&stage, &["tcp4"]);
    stage.world.outside().enter(|| {
        client::transfer::close_first(at(HOST, 9002), 100_000_000).expect("it comes back whole");
    });
}
