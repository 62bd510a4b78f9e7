//! What a command can reach, what is refused, and how soon it knows.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use vmnet_lab::process::Process;
use vmnet_lab::stage::Stage;
use vmnet_lab::world::{HOST, HTTP_PORT};

use super::{SOON, stage};

const OPTIONS: [&str; 2] = ["--subnet", "10.77.5.0/24"];

fn milliseconds(outcome: &str) -> u64 {
    let words: Vec<&str> = outcome.split_whitespace().collect();
    words[words.len() - 2].parse().expect("milliseconds")
}

#[test]
fn a_refused_port_is_refused_within_100_ms() {
    let Some(stage) = stage(&[]) else { return };
    let script = format!(
        "for i in 1 2 3 4 5; do {} outcome 198.51.100.1:81 10; done",
        stage.client_path()
    );
    let said = Process::run(stage.shell(&[], &script), SOON).success();
    assert!(
        said.lines().all(|line| line.starts_with("refused")),
        "{said}"
    );
    // The best of five: a machine that does something else must not fail the test.
    let best = said.lines().map(milliseconds).min();
    assert!(best.is_some_and(|best| best <= 100), "{said}");
}

#[test]
fn an_unreachable_address_is_said_to_be_so() {
    let Some(stage) = stage(&[]) else { return };
    let said = stage.must("outcome 192.0.2.1:80 20", SOON);
    assert!(said.starts_with("unreachable"), "{said}");
    assert!(milliseconds(&said) < 5000, "{said}");
}

#[test]
fn a_refused_datagram_is_told() {
    let Some(stage) = stage(&[]) else { return };
    let finished = Process::run(stage.client(&[], "udp-ask 198.51.100.1:81 hello"), SOON);
    assert!(!finished.status.success());
    assert!(finished.stderr.contains("refused"), "{}", finished.stderr);
}

#[test]
fn datagrams_of_all_sizes_come_back() {
    let Some(stage) = stage(&[]) else { return };
    for size in [1, 512, 1472, 1473, 4000, 20_000, 60_000] {
        stage.must(&format!("udp-echo 198.51.100.1:7 20 {size}"), SOON);
    }
}

#[test]
fn the_world_sees_the_address_of_the_host() {
    let Some(stage) = stage(&[]) else { return };
    let seen = [
        stage.must("tcp-ask 198.51.100.1:9000", SOON),
        stage.must("udp-ask 198.51.100.1:9000 who", SOON),
    ];
    assert!(
        seen.iter().all(|it| it.starts_with(&format!("{HOST}:"))),
        "{seen:?}"
    );
}

#[test]
fn one_guest_port_is_one_port_outside_for_all_peers() {
    let Some(stage) = stage(&[]) else { return };
    // RFC 4787: two peers of one socket see the same address and port.
    let said = stage.must("udp-two-peers 198.51.100.1:9000 198.51.100.53:9000", SOON);
    let mut seen = said.split_whitespace();
    let (first, second) = (seen.next(), seen.next());
    assert!(first.is_some() && first == second, "{said}");
}

#[test]
fn ping_reaches_the_gateway_and_the_world() {
    let Some(stage) = stage(&["ping"]) else {
        return;
    };
    for address in ["10.77.5.1", "198.51.100.1", "203.0.113.9"] {
        let script = format!("ping -c 3 -i 0.2 -W 5 {address}");
        // Ordinary users ping by a file with capabilities, those who have them without.
        for role in [&[][..], &["--root"]] {
            Process::run(stage.shell(&[&OPTIONS, role].concat(), &script), SOON).success();
        }
    }
}

fn services_of_the_host(stage: &Stage) {
    stage
        .world
        .serve_echo_on_host(SocketAddr::new(IpAddr::V4(HOST), 8888));
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    stage
        .world
        .serve_echo_on_host(SocketAddr::new(loopback, 8889));
}

fn outcome(stage: &Stage, options: &[&str], address: &str) -> String {
    let options = [&OPTIONS, options].concat();
    let command = stage.client(&options, &format!("outcome {address} 10"));
    let said = Process::run(command, SOON).success();
    said.split_whitespace().next().expect("a word").to_owned()
}

#[test]
fn the_gateway_reaches_services_on_the_hosts_outside_address_only() {
    let Some(stage) = stage(&[]) else { return };
    services_of_the_host(&stage);
    assert_eq!(outcome(&stage, &[], "198.51.100.2:8888"), "connected");
    assert_eq!(outcome(&stage, &[], "10.77.5.1:8888"), "connected");
    assert_ne!(outcome(&stage, &[], "10.77.5.1:8889"), "connected");
}

#[test]
fn host_loopback_opens_the_services_on_loopback() {
    let Some(stage) = stage(&[]) else { return };
    services_of_the_host(&stage);
    assert_eq!(
        outcome(&stage, &["--host-loopback"], "10.77.5.1:8889"),
        "connected"
    );
}

#[test]
fn a_host_without_ipv6_has_its_services_at_the_gateways_ipv6_address_all_the_same() {
    let Some(stage) = stage(&[]) else { return };
    services_of_the_host(&stage);
    stage.world.switch_ipv6_off();
    let options = ["--host-loopback", "--ipv6-prefix", "fd12:3456:789a:1::/64"];
    // The loopback has no IPv6; the outside address has the service.
    let said = outcome(&stage, &options, "[fd12:3456:789a:1::1]:8888");
    assert_eq!(said, "connected");
}

#[test]
fn two_networks_of_the_same_subnet_do_not_meet() {
    let Some(stage) = stage(&[]) else { return };
    let words = format!("get 198.51.100.1:{HTTP_PORT} 30000000");
    let both = [0, 1].map(|_| Process::spawn(stage.client(&OPTIONS, &words)));
    for mut one in both {
        one.wait(SOON).success();
    }
}

#[test]
fn a_subnet_that_the_host_uses_is_refused() {
    let Some(stage) = stage(&[]) else { return };
    let finished = Process::run(stage.shell(&["--subnet", "198.51.100.0/24"], "true"), SOON);
    assert!(!finished.status.success());
    assert!(
        finished.stderr.contains("198.51.100"),
        "{}",
        finished.stderr
    );
}
