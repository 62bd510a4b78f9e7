//! The machine's service beside a user's.

use crate::machine::{GROUP, Machine, Running, Who};
use std::io::Read as _;
use std::process::Stdio;

/// A user's service and the machine's, each with a network of its own and one of the same name.
fn both(machine: &Machine) -> Running {
    let service = machine.service(&["--group", &GROUP.to_string()]);
    for words in [
        &["network", "create", "own", "--subnet", "10.211.1.0/24"][..],
        &["network", "create", "same", "--subnet", "10.211.2.0/24"],
        &[
            "--system",
            "network",
            "create",
            "common",
            "--subnet",
            "10.211.3.0/24",
        ],
        &[
            "--system",
            "network",
            "create",
            "same",
            "--subnet",
            "10.211.4.0/24",
        ],
    ] {
        let said = machine.says(Who::Member, words);
        assert_eq!(said.status, Some(0), "{words:?}: {}", said.stderr);
    }
    service
}

fn subnet(machine: &Machine, words: &[&str]) -> String {
    let said = machine.says(
        Who::Member,
        &[&["network", "show", "--json"], words].concat(),
    );
    let shown: serde_json::Value = serde_json::from_str(&said.stdout).expect(&said.stderr);
    format!(
        "{} {}",
        shown["scope"].as_str().unwrap(),
        shown["subnet"].as_str().unwrap()
    )
}

#[test]
fn the_one_that_has_the_network_is_asked() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let _service = both(&machine);
    assert_eq!(subnet(&machine, &["own"]), "user 10.211.1.0/24");
    assert_eq!(subnet(&machine, &["common"]), "system 10.211.3.0/24");
    assert_eq!(subnet(&machine, &["same"]), "user 10.211.2.0/24");
    assert_eq!(
        subnet(&machine, &["same", "--system"]),
        "system 10.211.4.0/24"
    );
    let list = machine.says(Who::Member, &["network", "list"]).stdout;
    let rows: Vec<Vec<&str>> = list
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().take(2).collect())
        .collect();
    let expected = [
        ["own", "user"],
        ["same", "user"],
        ["common", "system"],
        ["same", "system"],
    ];
    assert_eq!(rows, expected, "{list}");
    // A new one of a name that the machine has is wanted by nobody who does not say so.
    let create = ["network", "create", "common"];
    let said = machine.says(Who::Member, &create);
    assert_eq!(said.status, Some(1), "{}", said.stdout);
    assert!(said.stderr.contains("VMNET_SCOPE=user"), "{}", said.stderr);
    let mut forced = machine.vmnet(Who::Member, &create);
    let forced = forced.env("VMNET_SCOPE", "user").output().unwrap();
    assert!(forced.status.success(), "{forced:?}");
    let delete = ["network", "delete", "common"];
    assert_eq!(machine.says(Who::Member, &delete).status, Some(0));
    // Who is not let in sees their own alone, and is not bothered.
    let said = machine.says(Who::Stranger, &["network", "list"]);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert!(!said.stdout.contains("common"), "{}", said.stdout);
}

#[test]
fn lists_without_a_network_show_both_services() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let _service = both(&machine);
    for (network, address, port) in [
        ("own", "10.211.1.9", "18081"),
        ("common", "10.211.3.9", "18083"),
    ] {
        let spec = format!("127.0.0.1:{port}:{address}:80");
        for words in [
            &["forward", "add", network, &spec][..],
            &["lease", "reserve", network, address, "--name", "web"],
        ] {
            let said = machine.says(Who::Member, words);
            assert_eq!(said.status, Some(0), "{words:?}: {}", said.stderr);
        }
    }
    let mut guests = ["own", "common"].map(|network| {
        let words = [
            "run",
            "--network",
            network,
            "--",
            "sh",
            "-c",
            "echo up; cat",
        ];
        let mut command = machine.vmnet(Who::Member, &words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut guest = command.spawn().unwrap();
        guest
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut [0; 3])
            .unwrap();
        guest
    });
    for (noun, rows) in [
        ("interface", "interfaces"),
        ("forward", "forwards"),
        ("lease", "reservations"),
        ("lease", "leases"),
    ] {
        let said = machine.says(Who::Member, &[noun, "list", "--json"]);
        let list: serde_json::Value = serde_json::from_str(&said.stdout).expect(&said.stderr);
        let of = |row: &serde_json::Value| {
            let text = |field: &str| row[field].as_str().unwrap().to_owned();
            (text("network_name"), text("scope"))
        };
        let found: Vec<_> = list[rows].as_array().unwrap().iter().map(of).collect();
        let expected = [("own", "user"), ("common", "system")];
        let expected = expected.map(|(name, scope)| (name.to_owned(), scope.to_owned()));
        assert_eq!(found, expected, "{rows}");
        let table = machine.says(Who::Member, &[noun, "list"]).stdout;
        assert!(table.lines().next().unwrap().contains("SCOPE"), "{table}");
        assert!(table.contains("own") && table.contains("common"), "{table}");
        // One that is chosen is shown alone, as is one network's.
        for words in [&["--system"][..], &["common"]] {
            let all = [&[noun, "list"], words].concat();
            let table = machine.says(Who::Member, &all).stdout;
            assert!(
                table.contains("common") && !table.contains("own"),
                "{table}"
            );
        }
    }
    for guest in &mut guests {
        drop(guest.stdin.take());
        guest.wait().unwrap();
    }
}

#[test]
fn the_variable_chooses_as_the_flag_does() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let _service = both(&machine);
    let shown = |scope: &str| {
        let mut command = machine.vmnet(Who::Member, &["network", "show", "same"]);
        let output = command.env("VMNET_SCOPE", scope).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    assert!(shown("system").0.contains("10.211.4.0/24"));
    assert!(shown("user").0.contains("10.211.2.0/24"));
    let (_, stderr) = shown("machine");
    assert!(stderr.contains("VMNET_SCOPE is machine"), "{stderr}");
}

#[test]
fn a_command_of_a_member_joins_a_network_of_the_machine() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let service = both(&machine);
    let words = [
        "run",
        "--network",
        "common",
        "--",
        "ip",
        "-br",
        "address",
        "show",
        "eth0",
    ];
    let said = machine.says(Who::Member, &words);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains("10.211.3."), "{}", said.stdout);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn a_network_of_the_machine_is_not_made_anew_while_its_service_is_down() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let service = both(&machine);
    let cage = ["--system", "network", "create", "cage", "--mode", "host"];
    assert_eq!(machine.says(Who::Member, &cage).status, Some(0));
    let run = |network| machine.says(Who::Member, &["run", "--network", network, "--", "true"]);
    let said = run("cage");
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert_eq!(service.terminate(), Some(0));
    let refused = [
        run("cage"),
        machine.says(Who::Member, &["network", "show", "cage"]),
        machine.says(Who::Member, &["network", "create", "cage"]),
    ];
    for (said, status) in refused.into_iter().zip([125, 1, 1]) {
        assert_eq!(said.status, Some(status), "{}", said.stdout);
        for word in ["cage is the machine's", "does not run", "VMNET_SCOPE=user"] {
            assert!(said.stderr.contains(word), "{}", said.stderr);
        }
    }
    // What is the user's as well, or nobody's, is no concern of the machine's.
    for network in ["same", "own", "new"] {
        let said = run(network);
        assert_eq!(said.status, Some(0), "{network}: {}", said.stderr);
    }
    // What the service has no more when it is back, it has no more.
    let service = machine.service(&["--group", &GROUP.to_string()]);
    assert_eq!(run("cage").status, Some(0));
    let delete = ["network", "delete", "cage"];
    assert_eq!(machine.says(Who::Member, &delete).status, Some(0));
    assert_eq!(run("cage").status, Some(0));
    assert_eq!(service.terminate(), Some(0));
    assert_eq!(run("cage").status, Some(0));
}

#[test]
fn a_command_sees_neither_service() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let _service = both(&machine);
    let program = machine.program().display().to_string();
    for scope in ["--system", "--verbose"] {
        let words = [
            "run",
            "--network",
            "common",
            "--",
            &program,
            scope,
            "network",
            "create",
            "more",
        ];
        let said = machine.says(Who::Member, &words);
        assert_eq!(said.status, Some(1), "{scope}: {}", said.stdout);
        assert!(
            said.stderr.contains("inside `vmnet run`"),
            "{}",
            said.stderr
        );
    }
}

#[test]
fn without_the_machines_service_its_name_is_said_with_the_remedy() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let said = machine.says(Who::Member, &["--system", "network", "list"]);
    assert_eq!(said.status, Some(1));
    for word in [
        "does not run",
        "vmnet-system.socket",
        "vmnet daemon --system",
    ] {
        assert!(said.stderr.contains(word), "{}", said.stderr);
    }
}
