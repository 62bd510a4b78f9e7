//! A real DHCP server leases to `vmnet run`: two commands on one network of the service that has no DHCP of its own.

mod stage;

use openvmnet::service::{Mode, NetworkConfiguration};
use rustix::process::Signal;
use stage::{Playing, Stage, eventually, skip};
use std::process::Command;

/// Makes the network `lan`, on which nobody leases.
fn without_dhcp(stage: &Stage) {
    // The first who joins anything starts the service.
    let status = stage
        .run(["--network", "host", "--no-dhcp"], ["true"])
        .status();
    assert!(status.unwrap().success());
    let made = stage.service().ask(|client| {
        let mut configuration = NetworkConfiguration::new(Mode::Shared);
        configuration.name = Some("lan".to_owned());
        configuration.subnet = Some("10.77.0.1/24".to_owned());
        configuration.dhcp = Some(false);
        client.create_network(configuration)
    });
    made.unwrap();
}

/// dnsmasq in a command of its own on the network.
fn serve(stage: &Stage, options: &str) -> Option<Playing> {
    if Command::new("dnsmasq").arg("--version").output().is_err() {
        skip("there is no dnsmasq");
        return None;
    }
    let script = format!(
        "ip addr add 10.77.0.2/24 dev eth0; echo ready; exec dnsmasq -d -C /dev/null -u root -g root -i eth0 --bind-interfaces \
         -p 0 --dhcp-authoritative --dhcp-leasefile={}/leases --log-dhcp {options} 2>&1",
        stage.path().join("server").display()
    );
    std::fs::create_dir(stage.path().join("server")).unwrap();
    std::fs::set_permissions(
        stage.path().join("server"),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let words = ["sh", "-c", script.as_str()];
    let mut server =
        Playing::start(&mut stage.run(["--network", "lan", "--no-dhcp", "--root"], words));
    assert_eq!(server.line(), "ready");
    loop {
        let line = server.line();
        assert!(!line.is_empty(), "dnsmasq ended");
        if line.contains("sockets bound") {
            return Some(server);
        }
    }
}

fn until(server: &mut Playing, word: &str) -> String {
    loop {
        let line = server.line();
        assert!(!line.is_empty(), "dnsmasq ended before it said {word}");
        if line.contains(word) {
            return line;
        }
    }
}

#[test]
fn a_lease_configures_everything_and_is_given_back() {
    let Some(stage) = Stage::new() else { return };
    without_dhcp(&stage);
    let options = "--dhcp-range=10.77.0.20,10.77.0.29,1h --dhcp-option=6,10.77.0.1 --dhcp-option=26,1400 \
                   --dhcp-option=15,lan.example --dhcp-option=119,a.example,b.example \
                   --dhcp-option=121,0.0.0.0/0,10.77.0.1,10.99.0.0/16,10.77.0.1";
    let Some(mut server) = serve(&stage, options) else {
        return;
    };
    let script = "ip -o -4 addr show eth0; ip -4 route; ip -o link show eth0; cat /etc/resolv.conf";
    let mut guest = stage.run(["--network", "lan", "--name", "web"], ["sh", "-c", script]);
    let (code, text, error) = stage::output(&mut guest);
    assert_eq!(code, Some(0), "{error}");
    let address = text
        .split("inet ")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    assert!(address.starts_with("10.77.0.2"), "{text}");
    for part in [
        "/24 brd 10.77.0.255 scope global dynamic eth0",
        "valid_lft 3",
        "default via 10.77.0.1 dev eth0 proto dhcp",
        "10.99.0.0/16 via 10.77.0.1",
        "mtu 1400",
        "nameserver 10.77.0.1\nsearch a.example b.example\n",
    ] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let discover = until(&mut server, "DHCPDISCOVER");
    assert!(discover.contains("DHCPDISCOVER(eth0)"), "{discover}");
    until(&mut server, "client provides name: web");
    until(&mut server, "DHCPREQUEST(eth0)");
    until(&mut server, "DHCPACK(eth0)");
    let release = until(&mut server, "DHCPRELEASE");
    assert!(release.contains(address), "{release}");
}

#[test]
fn a_lease_is_renewed_while_the_command_runs() {
    let Some(stage) = Stage::new() else { return };
    without_dhcp(&stage);
    // Two minutes are the least dnsmasq leases; T1 comes after three seconds (fewer it ignores).
    let options = "--dhcp-range=10.77.0.20,10.77.0.29,2m --dhcp-option=58,3";
    let Some(mut server) = serve(&stage, options) else {
        return;
    };
    let words = ["sh", "-c", "exec sleep 1000"];
    let guest = Playing::start(&mut stage.run(["--network", "lan"], words));
    for _ in 0..3 {
        until(&mut server, "DHCPREQUEST(eth0)");
        until(&mut server, "DHCPACK(eth0)");
    }
    guest.kill(Signal::TERM);
    until(&mut server, "DHCPRELEASE");
}

#[test]
fn without_a_server_the_command_does_not_start() {
    let Some(stage) = Stage::new() else { return };
    without_dhcp(&stage);
    let (code, text, error) =
        stage::output(&mut stage.run(["--network", "lan"], ["echo", "started"]));
    assert_eq!((code, text.as_str()), (Some(125), ""), "{error}");
    let why = "the network lan gives no addresses";
    assert!(error.contains(why), "{error}");
}

#[test]
fn whoever_waits_for_a_lease_can_be_interrupted() {
    let Some(stage) = Stage::new() else { return };
    without_dhcp(&stage);
    let mut guest = Playing::start(&mut stage.run(["--network", "lan"], ["echo", "started"]));
    eventually("the interface is there", || {
        !stage.service().interfaces("lan").is_empty()
    });
    guest.kill(Signal::INT);
    let ended = guest.0.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended),
        Some(Signal::INT.as_raw())
    );
    assert_eq!(guest.line(), "");
}

#[test]
fn who_gets_no_lease_is_told_why() {
    let Some(stage) = Stage::new() else { return };
    without_dhcp(&stage);
    let made = stage.service().ask(|client| {
        let mut configuration = NetworkConfiguration::new(Mode::Shared);
        configuration.name = Some("tiny".to_owned());
        configuration.subnet = Some("10.78.0.0/30".to_owned());
        client.create_network(configuration)
    });
    made.unwrap();
    let mut first = Playing::start(&mut stage.run(
        ["--network", "tiny", "--name", "first"],
        ["sh", "-c", "echo ready; exec sleep 60"],
    ));
    assert_eq!(first.line(), "ready");
    let second = ["--network", "tiny", "--name", "second"];
    let (code, _, error) = stage::output(&mut stage.run(second, ["true"]));
    assert_eq!(code, Some(125));
    let why = "the only address of the network tiny, 10.78.0.2, is taken";
    assert!(error.contains(why), "{error}");
    assert!(error.contains("vmnet lease release tiny"), "{error}");
}
