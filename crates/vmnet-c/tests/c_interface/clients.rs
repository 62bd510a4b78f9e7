//! Programs in the manner of each known client of vmnet: its order of calls, its batches, its habits. They exchange
//! frames with the gateway and with a peer, which is another process, through a service of their own.

use crate::compiler::{Build, Compiler, Library};
use crate::programs::{checked, valgrind};
use crate::service::{self, EndOfService};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use vmnet_lab::prerequisite::{Prerequisite, all_present};

const BLOCKS: &[Compiler] = &[Compiler::ClangWithBlocks, Compiler::ClangWithSanitizer];
const ALL: &[Compiler] = &[
    Compiler::ClangWithBlocks,
    Compiler::ClangWithSanitizer,
    Compiler::Gcc,
];
const LIBRARIES: &[Library] = &[
    Library::Vmnet,
    Library::Dispatch,
    Library::System("uuid"),
    Library::System("pthread"),
];

pub(crate) fn prerequisites() -> bool {
    all_present(&["clang", "gcc", "valgrind"].map(Prerequisite::Program)) && service::is_built()
}

/// Another process, until this is dropped.
pub(crate) struct Beside(Child);

impl Beside {
    /// Starts it, and waits until it says that it is ready.
    pub(crate) fn start(program: &Path, arguments: &[&str], folder: &Path) -> Self {
        let mut command = Command::new(program);
        service::environment(&mut command, folder);
        Self::spawn(command.args(arguments))
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("its output"))
            .read_line(&mut line)
            .expect("text");
        assert_eq!(line, "ready\n", "{command:?}");
        Self(child)
    }

    /// Says something on its input.
    fn say(&mut self, line: &str) {
        let input = self.0.stdin.as_mut().expect("its input");
        // One that has failed does not listen.
        let _failed = input.write_all(line.as_bytes());
    }

    /// Ends its input, and waits for its own end, which is a success.
    pub(crate) fn end(mut self) {
        drop(self.0.stdin.take());
        let how = self.0.wait().expect("it ends");
        assert!(how.success(), "{how}");
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It has ended already, or the test has failed.
        let _ended = self.0.kill();
        let _ended = self.0.wait();
    }
}

pub(crate) fn linked(build: &Build, name: &str) -> PathBuf {
    build.link(&format!("clients/{name}"), LIBRARIES)
}

/// Builds a client in each way, and lets it speak to the gateway and a peer of this mode.
fn converses(name: &str, compilers: &[Compiler], peer: &[&str]) {
    if !prerequisites() {
        return;
    }
    for compiler in compilers {
        let build = Build::new(*compiler);
        let _end = EndOfService(build.folder());
        let peer_program = Build::new(Compiler::Gcc);
        let peer_program = (linked(&peer_program, "peer"), peer_program);
        let client = linked(&build, name);
        let peer = (!peer.is_empty()).then(|| Beside::start(&peer_program.0, peer, build.folder()));
        valgrind(&client, &build, &[]);
        if let Some(peer) = peer {
            peer.end();
        }
    }
}

#[test]
fn like_qemu_a_bottom_half_that_reads_200_packets() {
    converses("bottom_half", ALL, &["shared"]);
}

#[test]
fn like_socket_vmnet_readers_of_exactly_the_estimate() {
    converses("estimate", BLOCKS, &["shared"]);
}

#[test]
fn like_vmnet_helper_a_callback_that_drains() {
    converses("drain", BLOCKS, &["shared"]);
}

#[test]
fn like_simple_one_packet_for_each_event() {
    let range = ["192.168.150.1", "192.168.150.1", "255.255.255.0"];
    converses("one_by_one", ALL, &["host", range[0], range[1], range[2]]);
}

#[test]
fn like_qemu_vmnet_a_poller_without_callback() {
    converses("poller", ALL, &["shared"]);
}

#[test]
fn like_xhyve_scattered_buffers_and_no_stop() {
    converses("scatter", ALL, &["shared"]);
}

#[test]
fn like_softnet_callbacks_that_block() {
    converses("back_pressure", BLOCKS, &["shared"]);
}

#[test]
fn like_vz_interfaces_on_a_network() {
    converses("on_network", BLOCKS, &[]);
}

#[test]
fn like_ocaml_vmnet_rules_of_both_generations() {
    converses("rules", ALL, &[]);
}

#[test]
fn every_key_does_what_it_says() {
    converses("keys", ALL, &[]);
}

#[test]
fn networks_are_what_was_configured() {
    converses("configured", ALL, &[]);
}

#[test]
fn no_rights_are_needed() {
    const NOBODY: u32 = 65534;
    let wanted = [Prerequisite::Program("gcc"), Prerequisite::Root];
    if !service::is_built() || !all_present(&wanted) {
        return;
    }
    let build = Build::new(Compiler::Gcc);
    let _end = EndOfService(build.folder());
    let program = linked(&build, "poller");
    let peer = linked(&build, "peer");
    // Where he may read; what cargo has built may be closed to him.
    build.copy_libraries();
    let executable = service::copied_to(build.folder());
    for path in [build.folder(), &program, &peer, &executable] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("root");
    }
    let as_nobody = |program: &Path| {
        let mut command = Command::new("setpriv");
        service::environment(&mut command, build.folder());
        command
            .env("VMNET_EXECUTABLE", &executable)
            .current_dir("/");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .args(["--bounding-set=-all", "--no-new-privs"])
            .arg(program);
        command
    };
    let mut peer = as_nobody(&peer);
    let peer = Beside::spawn(peer.arg("shared"));
    let output = as_nobody(&program).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    checked(&program, output.status, &said);
    peer.end();
}

#[test]
fn frames_of_programs_that_exit_without_a_stop_go_out() {
    const ROUNDS: usize = 20;
    if !prerequisites() {
        return;
    }
    let build = Build::new(Compiler::Gcc);
    let _end = EndOfService(build.folder());
    let program = linked(&build, "leaving");
    let mut reader = Beside::start(&program, &["read", &ROUNDS.to_string()], build.folder());
    for round in 0..ROUNDS {
        let mut writer = Command::new(&program);
        service::environment(&mut writer, build.folder());
        let output = writer.args(["write", &round.to_string()]).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        checked(&program, output.status, &said);
        reader.say("over\n");
    }
    reader.end();
}

#[test]
fn hostile_programs() {
    converses("hostile", BLOCKS, &["shared"]);
}

#[test]
fn like_vmnet_helper_an_exit_inside_the_handler() {
    if !prerequisites() {
        return;
    }
    let build = Build::new(Compiler::ClangWithBlocks);
    let _end = EndOfService(build.folder());
    let mut command = Command::new(linked(&build, "drain"));
    service::environment(&mut command, build.folder());
    // Not private, so it fails.
    let output = command.arg("8.8.8.1").output().expect("it runs");
    assert_eq!(output.status.code(), Some(42), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "status 1001\n");
}

#[test]
fn like_vmnet_broker_a_network_for_others() {
    if !prerequisites() {
        return;
    }
    for compiler in BLOCKS {
        let build = Build::new(*compiler);
        let _end = EndOfService(build.folder());
        let program = linked(&build, "broker");
        let broker = Beside::start(&program, &["org.example.broker"], build.folder());
        // The first keeps the broker's network while the second comes and goes.
        let mut first = Command::new(&program);
        service::environment(&mut first, build.folder());
        let first = first.args(["org.example.broker", "client"]).output();
        let first = first.expect("it runs");
        assert!(
            first.status.success(),
            "{}",
            String::from_utf8_lossy(&first.stderr)
        );
        // The broker ends with its last user.
        broker.end();
        let broker = Beside::start(&program, &["org.example.broker"], build.folder());
        valgrind(&program, &build, &["org.example.broker", "client"]);
        broker.end();
    }
}

#[test]
fn a_service_that_dies_under_a_running_interface() {
    if !prerequisites() {
        return;
    }
    for compiler in BLOCKS {
        let build = Build::new(*compiler);
        let _end = EndOfService(build.folder());
        let program = linked(&build, "lost");
        let mut command = Command::new("timeout");
        command.arg("100").arg(&program);
        service::environment(&mut command, build.folder());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut input = child.stdin.take().expect("its input");
        let mut line = String::new();
        for _ in 0..2 {
            line.clear();
            output.read_line(&mut line).expect("text");
            if line == "ready\n" {
                assert_eq!(service::signal(build.folder(), libc::SIGKILL), 1);
            }
            // A program that has failed does not listen.
            let _failed = input.write_all(b"\n");
        }
        drop(input);
        let mut said = String::new();
        let errors = child.stderr.as_mut().expect("its errors");
        errors.read_to_string(&mut said).expect("text");
        checked(&program, child.wait().expect("it ends"), &said);
    }
}
