//! The units of `contrib/systemd`: systemd understands them, and a service that is started by its socket does its work.

mod stage;

use rustix::process::Signal;
use stage::{Playing, Stage, eventually, output, skip};
use std::fs;
use std::path::Path;
use std::process::Command;

const UNITS: [(&str, [&str; 2]); 2] = [
    ("user", ["vmnet.service", "vmnet.socket"]),
    ("system", ["vmnet-system.service", "vmnet-system.socket"]),
];

fn units() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../contrib/systemd")
}

/// Whether a program of systemd is there; it need not be the machine's first process.
fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        skip(&format!("no {program}: apt install systemd"));
    }
    there
}

/// What `systemd-analyze verify` says of units in this folder.
fn verify(folder: &Path, scope: &str, names: &[&str]) -> String {
    let mut command = Command::new("systemd-analyze");
    command
        .args(["verify", "--man=no", &format!("--{scope}")])
        .args(names.iter().map(|name| folder.join(name)))
        .env("XDG_RUNTIME_DIR", folder)
        .current_dir(folder);
    let (status, stdout, stderr) = output(&mut command);
    format!(
        "{stdout}{stderr}{}",
        match status {
            Some(0) => "",
            _ => "failed",
        }
    )
}

#[test]
fn systemd_understands_the_units() {
    if !has("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (scope, names) in UNITS {
        for name in names {
            let unit = fs::read_to_string(units().join(scope).join(name)).unwrap();
            let here = format!("\nExecStart={} ", env!("CARGO_BIN_EXE_vmnet"));
            let unit = unit.replace("\nExecStart=vmnet ", &here);
            fs::write(folder.path().join(name), unit).unwrap();
        }
        // It also complains of units of the machine, which are not ours.
        let said = verify(folder.path(), scope, &names);
        assert!(
            !said.contains("vmnet") && !said.contains("failed"),
            "{said}"
        );
    }
    // It would have been noticed.
    let unit = folder.path().join("vmnet.service");
    let wrong = fs::read_to_string(&unit).unwrap() + "LimitNOFILES=3\n";
    fs::write(&unit, wrong).unwrap();
    let said = verify(folder.path(), "user", &["vmnet.service"]);
    assert!(said.contains("LimitNOFILES"), "{said}");
}

#[test]
fn a_socket_of_systemd_starts_the_service_and_stays() {
    let Some(stage) = Stage::new() else { return };
    if !has("systemd-socket-activate") {
        return;
    }
    let socket = stage.service().socket;
    let mut command = Command::new("systemd-socket-activate");
    stage.as_nobody(&mut command);
    for variable in ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"] {
        command.arg(format!("--setenv={variable}"));
    }
    command.arg("--listen").arg(&socket).arg(stage.program());
    command.arg("daemon");
    let mut manager = Playing::start(&mut command);
    eventually("the socket is there", || socket.exists());
    let (status, stdout, stderr) = output(stage.vmnet().args(["network", "create", "lab"]));
    assert_eq!(status, Some(0), "{stdout}{stderr}");
    // The manager became the service.
    assert_eq!(stage.service().pid(), Some(manager.pid()));
    let guest = stage.run(["--network", "lab"], ["true"]).output().unwrap();
    assert!(guest.status.success(), "{guest:?}");
    manager.kill(Signal::TERM);
    assert!(manager.0.wait().unwrap().success());
    assert!(socket.exists(), "systemd listens on when the service ends");
}
