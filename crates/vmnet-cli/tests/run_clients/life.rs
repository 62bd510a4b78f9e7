//! Exit status, signals, and that nothing is left.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vmnet_lab::process::Process;
use vmnet_lab::stage::Stage;

use super::{SOON, service_of, stage};

#[test]
fn the_status_of_the_command_passes_through() {
    let Some(stage) = stage(&[]) else { return };
    for status in [0, 1, 37, 255] {
        let finished = Process::run(stage.shell(&[], &format!("exit {status}")), SOON);
        assert_eq!(finished.status.code(), Some(status), "{}", finished.stderr);
    }
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let Some(stage) = stage(&[]) else { return };
    let finished = Process::run(stage.run(&[], &["no-such-program-here"]), SOON);
    assert_eq!(finished.status.code(), Some(127));
    assert!(
        finished.stderr.contains("no-such-program-here"),
        "{}",
        finished.stderr
    );
}

#[test]
fn a_command_killed_by_a_signal_looks_so() {
    let Some(stage) = stage(&[]) else { return };
    let status = Process::run(stage.shell(&[], "kill -TERM $$"), SOON).status;
    // As the kernel says it, or as a shell does.
    assert!(
        status.signal() == Some(15) || status.code() == Some(143),
        "{status}"
    );
}

#[test]
fn input_and_output_pass_through() {
    let Some(stage) = stage(&[]) else { return };
    let mut process = Process::spawn(stage.shell(&[], "read line; echo out $line; echo err >&2"));
    process.write_line("in");
    let finished = process.wait(SOON);
    assert_eq!(
        (finished.stdout.as_str(), finished.stderr.as_str()),
        ("out in\n", "err\n")
    );
}

#[test]
fn signals_reach_the_command() {
    let Some(stage) = stage(&[]) else { return };
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::INT, "INT"),
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
    ] {
        let script = format!("trap 'exit 42' {name}; echo ready; while :; do sleep 0.05; done");
        let mut process = Process::spawn(stage.shell(&[], &script));
        process.wait_for_output("ready", SOON, |text| text.contains("ready").then_some(()));
        process.signal(signal);
        assert_eq!(process.wait(SOON).status.code(), Some(42), "{name}");
    }
    stage.wait_until_nothing_runs(SOON);
}

/// A command that leaves a child of its own behind, in another session, and names its namespace.
fn with_a_runaway(stage: &Stage, then: &str) -> (Process, String) {
    let script = format!(
        "setsid sleep 1000 </dev/null >/dev/null 2>&1 &
         readlink /proc/self/ns/net; {then}"
    );
    let process = Process::spawn(stage.shell(&["-p", "8080:80"], &script));
    let namespace = process.wait_for_output("its namespace", SOON, |text| {
        text.split_once('\n').map(|(line, _)| line.to_owned())
    });
    assert!(namespace.starts_with("net:["), "{namespace}");
    (process, namespace)
}

/// No process has it as its namespace, and nothing keeps it mounted.
fn is_gone(namespace: &str) {
    let held: Vec<_> = std::fs::read_dir("/proc")
        .expect("list processes")
        .flatten()
        .filter(|entry| {
            std::fs::read_link(entry.path().join("ns/net"))
                .is_ok_and(|link| link == Path::new(namespace))
        })
        .collect();
    assert!(held.is_empty(), "{namespace} is held by {held:?}");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("list mounts");
    assert!(!mounts.contains(namespace), "{namespace} is mounted");
}

#[test]
fn nothing_is_left_when_the_command_ends() {
    let Some(stage) = stage(&[]) else { return };
    let (mut process, namespace) = with_a_runaway(&stage, "exit 5");
    assert_eq!(process.wait(SOON).status.code(), Some(5));
    stage.wait_until_nothing_runs(SOON);
    is_gone(&namespace);
}

#[test]
fn nothing_is_left_after_kill_9() {
    let Some(stage) = stage(&[]) else { return };
    let (mut process, namespace) = with_a_runaway(&stage, "sleep 1000");
    process.signal(Signal::KILL);
    assert_eq!(process.wait(SOON).status.signal(), Some(9));
    stage.wait_until_nothing_runs(SOON);
    is_gone(&namespace);
    // The forwarded port is free again too.
    let finished = Process::run(stage.shell(&["-p", "8080:80"], "true"), SOON);
    finished.success();
}

#[test]
fn a_socket_for_guests_leaves_nothing_after_kill_9() {
    let Some(stage) = stage(&[]) else { return };
    let service = service_of(&stage);
    let path = stage.world.home().join("lab.stream");
    let options = ["--stream", path.to_str().expect("a path of ASCII")];
    let mut attached = stage.attach("lab", &options);
    assert_eq!(service.interfaces("lab").len(), 1);
    attached.signal(Signal::KILL);
    attached.wait(SOON);
    let deadline = Instant::now() + SOON;
    while !service.interfaces("lab").is_empty() {
        assert!(Instant::now() < deadline, "its interface is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
    // What it left in the file system does not hinder the next one.
    let mut attached = stage.attach("lab", &options);
    attached.signal(Signal::INT);
    attached.wait(SOON);
    assert!(!path.exists(), "Ctrl-C removes the socket");
    service.end();
    stage.wait_until_nothing_runs(SOON);
}
