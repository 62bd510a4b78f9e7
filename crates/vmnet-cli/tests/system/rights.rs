//! What the service and its helper may do, and who may speak to the service.

use crate::machine::{GROUP, Machine, USER, Who, eventually, status};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use vmnet_lab::prerequisite::{Prerequisite, all_present};

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

#[test]
fn three_capabilities_are_enough() {
    let Some(machine) = Machine::new() else {
        return;
    };
    // As systemd starts it: an ordinary user from the beginning, in folders that were made for it.
    for folder in ["run", "run/vmnet", "state"] {
        let folder = machine.path().join(folder);
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(USER), Some(USER)).unwrap();
    }
    let setpriv = [
        "setpriv",
        "--reuid=64321",
        "--regid=64123",
        "--clear-groups",
        "--inh-caps=+net_admin,+net_raw,+net_bind_service",
        "--ambient-caps=+net_admin,+net_raw,+net_bind_service",
    ];
    let service = machine.service_by(&setpriv, &["--group", &GROUP.to_string()]);
    let (daemon, helper) = (service.pid(), service.helper());
    for (pid, own) in [(daemon, BIND), (helper, NET)] {
        assert_eq!(capabilities(pid, "CapEff"), own);
        assert_eq!(capabilities(pid, "CapPrm"), own);
        assert_eq!(ids(pid, "Uid"), ["64321"; 4]);
    }
    // It can do its work.
    let said = machine.says(Who::Member, &["--system", "network", "create", "lab"]);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn without_capabilities_it_says_what_to_do() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let said = machine.says(Who::Member, &["daemon", "--system", "--no-state"]);
    assert_eq!(said.status, Some(1));
    for word in [
        "CAP_NET_ADMIN",
        "sudo vmnet daemon --system",
        "contrib/systemd",
    ] {
        assert!(said.stderr.contains(word), "{}", said.stderr);
    }
    for (option, word) in [("--group", "no-such-group"), ("--user", "no-such-user")] {
        let said = machine.says(
            Who::Root,
            &["daemon", "--system", "--no-state", option, word],
        );
        assert_eq!(said.status, Some(1));
        assert!(said.stderr.contains(word), "{}", said.stderr);
        assert!(!machine.socket().exists());
    }
}

#[test]
fn the_service_itself_looks_at_groups_too() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let service = machine.service(&["--group", &GROUP.to_string()]);
    // As if somebody had opened the socket to all.
    let open = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(machine.socket(), open).unwrap();
    let said = machine.says(Who::Stranger, &["--system", "status"]);
    assert_eq!(said.status, Some(1));
    let expected = format!("join the group {GROUP}");
    assert!(said.stderr.contains(&expected), "{}", said.stderr);
    let said = machine.says(Who::Member, &["--system", "status"]);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn without_a_group_it_is_roots_alone() {
    let Some(machine) = Machine::new() else {
        return;
    };
    if openvmnet::account::group("vmnet").is_some() {
        eprintln!("skipped: this machine has a group vmnet");
        return;
    }
    let _service = machine.service(&[]);
    let said = machine.says(Who::Root, &["--system", "status"]);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    assert!(said.stdout.contains("system"), "{}", said.stdout);
    let said = machine.says(Who::Member, &["--system", "status"]);
    assert_eq!(said.status, Some(1));
    assert!(said.stderr.contains("--group"), "{}", said.stderr);
    let open = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(machine.socket(), open).unwrap();
    let said = machine.says(Who::Member, &["--system", "status"]);
    assert!(
        said.stderr.contains("only the superuser may"),
        "{}",
        said.stderr
    );
}

#[test]
fn what_roots_service_had_kept_is_kept() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let keep = |options: &[&str], name: &str| {
        let service = machine.service(options);
        let said = machine.says(Who::Root, &["--system", "network", "create", name]);
        assert_eq!(said.status, Some(0), "{}", said.stderr);
        let said = machine.says(Who::Root, &["--system", "network", "list"]);
        assert_eq!(service.terminate(), Some(0));
        said.stdout
    };
    keep(&["--user", "root"], "first");
    let state = machine.path().join("state");
    assert_eq!(std::fs::metadata(&state).unwrap().uid(), 0);
    let list = keep(&["--user", "nobody"], "second");
    assert!(list.contains("first"), "{list}");
    assert_eq!(std::fs::metadata(&state).unwrap().uid(), 65534);
    let owners = || {
        let entries = std::fs::read_dir(&state).unwrap();
        let entries = entries.map(|entry| entry.unwrap());
        let mut all: Vec<_> = entries
            .map(|entry| (entry.file_name(), entry.metadata().unwrap().uid()))
            .collect();
        all.sort();
        all
    };
    assert!(owners().iter().all(|(_, owner)| *owner == 65534));
    // A third user takes over from the second, except what is neither's.
    std::fs::write(state.join("somebodys"), "").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", state.join("link")).unwrap();
    let list = keep(&["--user", "daemon"], "third");
    assert!(list.contains("first") && list.contains("second"), "{list}");
    let daemon = std::fs::metadata(&state).unwrap().uid();
    assert_ne!(daemon, 65534);
    for (file, owner) in owners() {
        let is_ours = file != "somebodys" && file != "link";
        assert_eq!(owner, if is_ours { daemon } else { 0 }, "{file:?}");
    }
    assert_eq!(std::fs::metadata("/etc/passwd").unwrap().uid(), 0);
}

#[test]
fn where_nobody_can_become_its_user_it_says_what_to_do() {
    let Some(machine) = Machine::new() else {
        return;
    };
    if !all_present(&[Prerequisite::UserNamespaces]) {
        return;
    }
    // Root of a user namespace that has no other user.
    let by = ["unshare", "--user", "--map-root-user"];
    let service = machine.spawn(&by, &[]);
    let log = machine.path().join("service.log");
    assert_eq!(service.ends(), Some(1));
    let said = std::fs::read_to_string(log).unwrap();
    assert!(said.contains("nobody can become the user"), "{said}");
    assert!(said.contains("--map-auto"), "{said}");
}

#[test]
fn a_state_folder_in_a_users_own_place_is_left_to_that_user() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let home = machine.path().join("home");
    let state = home.join("state");
    std::fs::create_dir_all(&state).unwrap();
    for folder in [&home, &state] {
        std::os::unix::fs::chown(folder, Some(USER), Some(USER)).unwrap();
    }
    let words = ["daemon", "--system", "--user", "nobody", "--state"];
    // Also the home itself, which root has put there.
    for folder in [&state, &home] {
        let words = [&words[..], &[folder.to_str().unwrap()]].concat();
        let said = machine.says(Who::Root, &words);
        assert_eq!(said.status, Some(1));
        assert!(said.stderr.contains("chown -R 65534"), "{}", said.stderr);
        assert_eq!(std::fs::metadata(folder).unwrap().uid(), USER);
    }
    // No dead socket stays behind.
    assert!(!machine.path().join("run/vmnet/vmnet.sock").exists());
}

#[test]
fn low_ports_are_forwarded() {
    let Some(machine) = Machine::new() else {
        return;
    };
    let _service = machine.service(&["--group", &GROUP.to_string()]);
    let create = machine.says(Who::Member, &["--system", "network", "create", "lab"]);
    assert_eq!(create.status, Some(0), "{}", create.stderr);
    let words = ["--system", "forward", "add", "lab", "127.0.0.1:81:web:80"];
    let said = machine.says(Who::Member, &words);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
}

#[test]
fn a_socket_of_systemd_starts_it_and_stays() {
    let Some(machine) = Machine::new() else {
        return;
    };
    if !all_present(&[Prerequisite::Program("systemd-socket-activate")]) {
        return;
    }
    let folder = machine.path().join("run/vmnet");
    std::fs::create_dir_all(&folder).unwrap();
    let socket = machine.socket().display().to_string();
    let listen = format!("--listen={socket}");
    let by = [
        "systemd-socket-activate",
        "--setenv=VMNET_SYSTEM_SOCKET",
        "--setenv=VMNET_CONFIG",
        "--setenv=VMNET_LOG",
        &listen,
    ];
    let service = machine.spawn(&by, &["--group", &GROUP.to_string()]);
    eventually("the socket is there", || machine.socket().exists());
    // As the unit says.
    std::os::unix::fs::chown(&socket, None, Some(GROUP)).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660)).unwrap();
    let said = machine.says(Who::Member, &["--system", "network", "create", "lab"]);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    // The manager became the service, and nothing of what it passed is the helper's.
    assert_eq!(capabilities(service.pid(), "CapEff"), BIND);
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", service.helper()))
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .filter(|path| path.display().to_string().starts_with("socket:"));
    assert_eq!(sockets.count(), 1);
    assert_eq!(service.terminate(), Some(0));
    assert!(machine.socket().exists(), "systemd listens on");
}
