//! The service, its helper or both are killed.

use crate::machine::{Machine, Who, signal};
use rustix::process::Signal;

const NETWORK: &str = "1f0e2d3c-4b5a-4697-8877-665544332211";

#[test]
fn what_an_earlier_service_left_is_removed_and_nothing_else() {
    let Some(machine) = Machine::new() else {
        return;
    };
    for (name, alias) in [
        ("vmnet9", format!("openvmnet {NETWORK} bridge")),
        ("vmnet8", "VMware NAT".to_owned()),
        ("dummy7", format!("openvmnet {NETWORK} bridge")),
        ("vmnet~0000abcd", String::new()),
    ] {
        machine.host.ip(&["link", "add", name, "type", "bridge"]);
        if !alias.is_empty() {
            machine.host.ip(&["link", "set", name, "alias", &alias]);
        }
    }
    let service = machine.service(&[]);
    let links = machine.ip("-br link");
    assert!(!links.contains("vmnet9"), "{links}");
    assert!(!links.contains("vmnet~"), "{links}");
    assert!(
        links.contains("vmnet8") && links.contains("dummy7"),
        "{links}"
    );
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn the_service_ends_with_its_helper() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let service = machine.service(&[]);
    signal(service.helper(), Signal::KILL);
    assert_eq!(service.ends(), Some(1));
    let log = std::fs::read_to_string(machine.path().join("service.log")).unwrap();
    assert!(log.contains("the privileged helper has ended"), "{log}");
    assert!(!machine.socket().exists());
}

#[test]
fn both_are_killed_and_the_next_one_goes_on() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let service = machine.service(&[]);
    let create = [
        "--system",
        "network",
        "create",
        "lab",
        "--subnet",
        "10.212.1.0/24",
    ];
    let said = machine.says(Who::Root, &create);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    // A link of a network that is kept, beside its bridge, and one of a network that is not.
    let kept = machine.says(Who::Root, &["--system", "network", "show", "lab", "--json"]);
    let kept: serde_json::Value = serde_json::from_str(&kept.stdout).unwrap();
    let kept = kept["uuid"].as_str().unwrap();
    for (name, network) in [("vmnet77", kept), ("vmnet78", NETWORK)] {
        let alias = format!("openvmnet {network} bridge");
        machine.host.ip(&["link", "add", name, "type", "bridge"]);
        machine.host.ip(&["link", "set", name, "alias", &alias]);
    }
    let helper = service.helper();
    signal(service.pid(), Signal::STOP);
    signal(helper, Signal::KILL);
    service.kill();
    let service = machine.service(&[]);
    let links = machine.ip("-br link");
    assert!(
        links.contains("vmnet77"),
        "it is its network's to take over: {links}"
    );
    assert!(!links.contains("vmnet78"), "{links}");
    let said = machine.says(Who::Root, &["--system", "network", "list"]);
    assert!(said.stdout.contains("10.212.1.0/24"), "{}", said.stdout);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn the_helper_ends_with_its_service() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let service = machine.service(&[]);
    let helper = service.helper();
    service.kill();
    crate::machine::eventually("the helper is gone", || {
        !std::path::Path::new(&format!("/proc/{helper}/fd/0")).exists()
    });
    // And the next one starts in its place.
    let service = machine.service(&[]);
    assert_eq!(service.terminate(), Some(0));
}
