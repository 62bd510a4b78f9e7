//! What the service and its helper may do, and who may speak to the service.

use crate::machine::{GROUP, Machine, Who, status};

/// `CAP_NET_BIND_SERVICE`; `CAP_NET_ADMIN` and `CAP_NET_RAW` (linux/capability.h).
const BIND: u64 = 1 << 10;
const NET: u64 = 1 << 12 | 1 << 13;

fn capabilities(pid: i32, set: &str) -> u64 {
    u64::from_str_radix(&status(pid, set), 16).unwrap()
}

fn ids(pid: i32, line: &str) -> Vec<String> {
    let line = status(pid, line);
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn both_processes_have_only_what_they_need() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let service = machine.service(&["--user", "nobody"]);
    let (daemon, helper) = (service.pid(), service.helper());
    for (pid, own, programs) in [(daemon, BIND, 0), (helper, NET, NET)] {
        for set in ["CapPrm", "CapEff"] {
            assert_eq!(capabilities(pid, set), own, "{pid} {set}");
        }
        for set in ["CapInh", "CapBnd", "CapAmb"] {
            assert_eq!(capabilities(pid, set), programs, "{pid} {set}");
        }
        assert_eq!(ids(pid, "Uid"), ["65534"; 4]);
        assert_eq!(ids(pid, "Gid"), ["65534"; 4]);
        assert!(ids(pid, "Groups").is_empty());
        assert_eq!(status(pid, "NoNewPrivs"), "1");
    }
    assert_eq!(status(helper, "Name"), "vmnet-helper");
    assert_eq!(status(helper, "Threads"), "1");
    // The helper has its socket, what it says on, and nothing else of anybody.
    let mut descriptors: Vec<String> = std::fs::read_dir(format!("/proc/{helper}/fd"))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap())
        .map(|path| path.display().to_string())
        .collect();
    descriptors.sort();
    descriptors.retain(|path| !path.ends_with("service.log"));
    let sockets = |path: &String| path.starts_with("socket:");
    assert_eq!(
        descriptors.iter().filter(|path| sockets(path)).count(),
        1,
        "{descriptors:?}"
    );
    descriptors.retain(|path| !sockets(path));
    assert_eq!(descriptors, ["/dev/null", "/dev/null"]);
    assert_eq!(service.terminate(), Some(0));
    assert!(!std::path::Path::new(&format!("/proc/{helper}")).exists());
    assert!(!machine.socket().exists());
}

#[test]
fn members_of_the_group_are_let_in() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let _service = machine.service(&["--group", &GROUP.to_string()]);
    let ask = |who| machine.says(who, &["--system", "network", "create", "lab"]);
    let said = ask(Who::Stranger);
    assert_eq!(said.status, Some(1));
    assert!(said.stderr.contains("join the group"), "{}", said.stderr);
    let said = ask(Who::Member);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let said = machine.says(Who::Root, &["--system", "network", "list"]);
    assert!(said.stdout.contains("lab"), "{}", said.stdout);
}
