//! What only networks of the user's own have: they are several with one subnet, their gateway stands for the host, its loopback
//! too, and they leave by the interface that they are told whatever the host's routes say. The kernel leads nobody to or from
//! the loopback of IPv6.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use vmnet_lab::client;
use vmnet_lab::namespace::Namespace;
use vmnet_lab::process::Process;
use vmnet_lab::stage::Stage;
use vmnet_lab::world::{HOST, HOST6, HTTP_PORT};

use super::ipv6::{at, listening, said_behind};
use super::{SOON, stage};

const OPTIONS: [&str; 2] = ["--subnet", "10.77.5.0/24"];

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
fn one_address_is_one_family() {
    let Some(stage) = stage(&[]) else { return };
    let _inside = listening(&stage, &["-p", "[::1]:8080:80"], "listen-tcp 80");
    stage.world.host().enter(|| {
        let local = "[::1]:8080".parse().unwrap();
        client::connect::at_once(local, 5).expect("the host reaches it");
        let by_v4 = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(client::connect::outcome(by_v4, SOON).0, "refused");
    });
    stage.world.outside().enter(|| {
        assert_eq!(client::connect::outcome(at(HOST6, 8080), SOON).0, "refused");
    });
}

#[test]
fn what_leaves_leaves_by_the_external_interface() {
    let Some(stage) = stage(&["ping"]) else {
        return;
    };
    // The host's routes prefer another way, which leads nowhere.
    let nowhere = Namespace::new();
    let host = stage.world.host();
    host.connect("other", &nowhere, "wire");
    host.ip(&[
        "address",
        "add",
        "2001:db8:77::2/64",
        "dev",
        "other",
        "nodad",
    ]);
    nowhere.ip(&[
        "address",
        "add",
        "2001:db8:77::1/64",
        "dev",
        "wire",
        "nodad",
    ]);
    let by_other = ["via", "2001:db8:77::1", "dev", "other", "metric", "1"];
    host.ip(&[&["-6", "route", "add", "default"][..], &by_other].concat());
    let words = "outcome [2001:db8:9::9]:7 2";
    let said = stage.must(words, SOON);
    assert!(!said.starts_with("connected"), "{said}");
    let make = ["network", "create", "lab", "--external-interface", "uplink"];
    Process::run(stage.vmnet(&make), SOON).success();
    let options = ["--network", "lab"];
    let script = format!(
        "{client} {words} && {client} udp-echo [2001:db8:9::9]:7 100 1000 && ping -6 -c 1 -W 5 2001:db8:9::9",
        client = stage.client_path()
    );
    let said = Process::run(stage.shell(&options, &script), SOON).success();
    assert!(said.starts_with("connected"), "{said}");
    // The gateway is the host at that interface.
    stage.world.serve_echo_on_host(at(HOST6, 8888));
    let shown = Process::run(stage.vmnet(&["network", "show", "lab"]), SOON).success();
    let gateway = said_behind(&shown, "ipv6 gateway")[0].to_owned();
    let words = format!("outcome [{gateway}]:8888 5");
    let said = Process::run(stage.client(&options, &words), SOON).success();
    assert!(said.starts_with("connected"), "{said}");
}
