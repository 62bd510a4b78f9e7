//! What takes privileges, asked of a user's service: each request is refused with the remedy, and nothing is half made.

use crate::machine::{Machine, Who};
use vmnet_lab::namespace::Namespace;

/// Links, addresses, routes and rules of the host, and the networks of the service.
fn all(machine: &Machine) -> [String; 5] {
    let mut nft = machine.host.command("nft");
    let rules = nft.args(["list", "ruleset"]).output().unwrap();
    let networks = machine.says(Who::Member, &["network", "list", "--json"]);
    assert_eq!(networks.status, Some(0), "{}", networks.stderr);
    [
        machine.ip("-o link"),
        machine.ip("-4 -o address"),
        machine.ip("-4 route show table all"),
        String::from_utf8_lossy(&rules.stdout).into_owned(),
        networks.stdout,
    ]
}

#[test]
fn each_request_is_refused_with_the_remedy() {
    let Some(machine) = Machine::new() else {
        return;
    };
    // A host that has all that could be asked for.
    let lan = Namespace::new();
    machine.host.connect("eth0", &lan, "port0");
    machine.host.connect("eth1", &lan, "port1");
    machine.host.ip(&["link", "add", "br0", "type", "bridge"]);
    machine.host.ip(&["link", "set", "eth1", "master", "br0"]);
    machine.host.ip(&["link", "set", "br0", "up"]);
    // A bridge has its carrier a little later.
    crate::machine::eventually("all is up", || {
        !machine.ip("-o link").contains("NO-CARRIER")
    });
    let before = all(&machine);
    let bridged = ["--mode", "bridged", "--interface"];
    for how in [
        &[&bridged[..], &["eth0"]].concat()[..],
        &[&bridged[..], &["eth1", "--method", "bridge"]].concat(),
        &[&bridged[..], &["br0", "--method", "bridge"]].concat(),
        &[&bridged[..], &["eth0", "--method", "packet"]].concat(),
        &[&bridged[..], &["eth0", "--method", "macvtap"]].concat(),
        &["--datapath", "kernel"],
        &["--mode", "host", "--datapath", "kernel"],
        &["--private", "--datapath", "kernel"],
        &[
            "--private",
            "--subnet",
            "10.77.3.7/24",
            "--datapath",
            "kernel",
        ],
        &["--external-interface", "eth0", "--datapath", "kernel"],
    ] {
        let words = [&["network", "create", "lab"], how].concat();
        let said = machine.says(Who::Member, &words);
        assert_eq!(said.status, Some(1), "{how:?}: {}", said.stdout);
        assert!(
            said.stderr.contains("takes privileges")
                && said.stderr.contains("vmnet daemon --system"),
            "{how:?}: {}",
            said.stderr
        );
        assert_eq!(all(&machine), before, "{how:?}");
    }
    // A tap for a VMM.
    let words = ["qemu", "--network", "lab", "--nic", "tap", "--", "true"];
    let said = machine.says(Who::Member, &words);
    assert_eq!(said.status, Some(125), "{}", said.stdout);
    assert!(
        said.stderr.contains("vmnet daemon --system"),
        "{}",
        said.stderr
    );
    // Its network was only held, and has gone with it.
    crate::machine::eventually("nothing is left", || all(&machine) == before);
}

#[test]
fn a_machines_service_without_rights_says_what_it_needs() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let said = machine.says(
        Who::Stranger,
        &["daemon", "--system", "--state", "/nonexistent"],
    );
    assert_eq!(said.status, Some(1), "{}", said.stdout);
    assert!(said.stderr.contains("root"), "{}", said.stderr);
    assert!(!machine.socket().exists());
}
