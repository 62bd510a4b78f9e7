//! `vmnet doctor` on hosts with rules of others.

use crate::machine::{GROUP, Machine, Who};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;
use vmnet_lab::prerequisite::{Prerequisite, all_present};

/// State of each thing by its name.
fn states(machine: &Machine, who: Who) -> BTreeMap<String, String> {
    let said = machine.says(who, &["doctor", "--json"]);
    let diagnosis: serde_json::Value = serde_json::from_str(&said.stdout).expect(&said.stderr);
    let findings = diagnosis["findings"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    findings
        .iter()
        .map(|one| (text(&one["name"]), text(&one["state"])))
        .collect()
}

fn rules(machine: &Machine) -> String {
    let mut nft = machine.host.command("nft");
    let output = nft.args(["-a", "list", "ruleset"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn load(machine: &Machine, script: &str) {
    let mut nft = machine.host.command("nft");
    let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(nft.wait().unwrap().success());
}

#[test]
fn who_blocks_is_said_and_nothing_is_changed() {
    let Some(machine) = Machine::new() else {
        return;
    };
    if !all_present(&[Prerequisite::Program("nft")]) {
        return;
    }
    let before = states(&machine, Who::Root);
    assert_eq!(before["firewall"], "ok");
    assert_eq!(before["system-service"], "limited");
    assert!(!before.contains_key("docker"));
    load(
        &machine,
        "table ip filter {
            chain DOCKER-USER {
                return
            }
            chain FORWARD {
                type filter hook forward priority filter; policy drop;
                jump DOCKER-USER
            }
        }
        table inet firewalld {
            chain filter_FORWARD {
                type filter hook forward priority filter + 10; policy accept;
                reject with icmpx admin-prohibited
            }
        }
        ",
    );
    let ruleset = rules(&machine);
    let after = states(&machine, Who::Root);
    assert_eq!(after["docker"], "limited");
    assert_eq!(after["firewalld"], "limited");
    assert_eq!(rules(&machine), ruleset);
    // Without rights that is not known, and said.
    assert_eq!(states(&machine, Who::Stranger)["firewall"], "unknown");
}

#[test]
fn the_machines_service_and_its_group_are_looked_for() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let _service = machine.service(&["--group", &GROUP.to_string()]);
    assert_eq!(states(&machine, Who::Root)["system-service"], "ok");
    assert_eq!(states(&machine, Who::Member)["system-service"], "ok");
    assert_eq!(states(&machine, Who::Stranger)["system-service"], "limited");
    let said = machine.says(Who::Stranger, &["doctor"]);
    assert!(said.stdout.contains("join the group"), "{}", said.stdout);
}

#[test]
fn what_blocks_makes_the_status_one() {
    let Some(machine) = Machine::new() else {
        return;
    };
    // A host that allows no network namespaces, as far as this user goes.
    let mut unshare = machine.host.command("unshare");
    let script = "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$@\"";
    unshare.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]);
    unshare
        .arg(machine.program())
        .arg("doctor")
        .env("HOME", "/nonexistent");
    let output = unshare
        .env("VMNET_SOCKET", machine.path().join("none/s"))
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stdout.contains("BLOCKED  user-namespaces"), "{stdout}");
    let said = machine.says(Who::Root, &["doctor"]);
    assert_eq!(said.status, Some(0), "{}", said.stdout);
}

/// What one finding says: its state, what was found, and the remedy.
fn finding(machine: &Machine, name: &str) -> (String, String, String) {
    let said = machine.says(Who::Root, &["doctor", "--json"]);
    let diagnosis: serde_json::Value = serde_json::from_str(&said.stdout).expect(&said.stderr);
    let findings = diagnosis["findings"].as_array().unwrap();
    let found = findings.iter().find(|one| one["name"] == name).unwrap();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("state"), text("found"), text("remedy"))
}

/// Each thing blocks, is named, and is no more when its remedy was carried out.
#[test]
fn what_blocks_networks_of_the_kernel_is_named_with_what_helps() {
    let Some(machine) = Machine::new() else {
        return;
    };
    if !all_present(&["nft", "sysctl"].map(Prerequisite::Program)) {
        return;
    }
    let other = vmnet_lab::namespace::Namespace::new();
    machine.host.connect("eth7", &other, "eth0");
    machine.host.sysctl("net.ipv4.conf.all.rp_filter", "0");
    machine.host.sysctl("net.ipv4.conf.eth7.rp_filter", "0");
    for name in [
        "reverse-path",
        "forwarding",
        "bridge-rules",
        "kernel-modules",
    ] {
        let (state, found, _) = finding(&machine, name);
        assert_eq!(state, "ok", "{name}: {found}");
    }
    machine.host.sysctl("net.ipv4.conf.eth7.rp_filter", "1");
    // What the machine's service has written down, and an administrator's `sysctl -w net.ipv4.ip_forward=0`.
    load(
        &machine,
        "table inet vmnet-forwarding {
            set v4 {
                type ifname
                elements = { \"eth7\" }
            }
        }
        table bridge filter {
            chain FORWARD {
                type filter hook forward priority -200; policy drop;
            }
        }",
    );
    machine.host.sysctl("net.ipv4.ip_forward", "0");
    for (name, word) in [("reverse-path", "eth7"), ("forwarding", "eth7")] {
        let (state, found, remedy) = finding(&machine, name);
        assert_eq!(state, "limited", "{name}: {found}");
        assert!(found.contains(word), "{name}: {found}");
        let (command, _) = remedy.split_once(" (as root)").unwrap();
        let mut shell = machine.host.command("sh");
        assert!(
            shell.args(["-c", command]).status().unwrap().success(),
            "{command}"
        );
        let (state, found, _) = finding(&machine, name);
        assert_eq!(state, "ok", "{name}: {found}");
    }
    let (state, found, remedy) = finding(&machine, "bridge-rules");
    assert_eq!(state, "limited", "{found}");
    assert!(found.contains("bridge filter FORWARD"), "{found}");
    let (command, _) = remedy.split_once(" (as root)").unwrap();
    let mut shell = machine.host.command("sh");
    assert!(
        shell
            .args(["-e", "-c", command])
            .status()
            .unwrap()
            .success(),
        "{command}"
    );
    assert!(
        rules(&machine).contains("iifname \"vmnet*\" accept"),
        "{}",
        rules(&machine)
    );
}
