//! `examples/c`, built by both compilers, and used as their first lines say.

use crate::clients::Beside;
use crate::compiler::{Build, Compiler, Library};
use crate::programs::checked;
use crate::service::{self, EndOfService};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use vmnet_lab::prerequisite::{Prerequisite, all_present};

fn prerequisites() -> bool {
    all_present(&["clang", "gcc"].map(Prerequisite::Program)) && service::is_built()
}

fn linked(build: &Build, name: &str) -> PathBuf {
    let libraries = [
        Library::Vmnet,
        Library::Dispatch,
        Library::System("pthread"),
    ];
    build.link_example(name, &libraries)
}

fn command(program: &Path, arguments: &[&str], build: &Build) -> Command {
    let mut command = Command::new("timeout");
    command.arg("100").arg(program).args(arguments);
    service::environment(&mut command, build.folder());
    command.stdin(Stdio::null());
    command
}

fn succeeded(program: &Path, arguments: &[&str], build: &Build) -> Output {
    let output = command(program, arguments, build)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    checked(program, output.status, &said);
    output
}

/// The gateway of the shared network, as the packet dump tells it.
fn gateway(build: &Build) -> [u8; 4] {
    let output = succeeded(&linked(build, "packet_dump"), &["shared", "1"], build);
    // A router is advertised to whoever comes.
    let dumped = String::from_utf8(output.stdout).expect("text");
    assert!(dumped.contains(" type 86dd, "), "{dumped}");
    let said = String::from_utf8(output.stderr).expect("text");
    let (_, gateway) = said.trim().rsplit_once(' ').expect("an address");
    let gateway: std::net::Ipv4Addr = gateway.parse().expect("an address");
    gateway.octets()
}

#[test]
fn the_packet_dump_and_the_echo_guest() {
    if !prerequisites() || !all_present(&[Prerequisite::Tun, Prerequisite::UserNamespaces]) {
        return;
    }
    let clang = Build::new(Compiler::ClangWithBlocks);
    let [a, b, c, _] = gateway(&clang);
    drop(EndOfService(clang.folder()));
    for compiler in [Compiler::Gcc, Compiler::ClangWithBlocks] {
        let build = Build::new(compiler);
        let _end = EndOfService(build.folder());
        let elsewhere = command(&linked(&build, "echo_guest"), &["10.1.2.3"], &build).output();
        let elsewhere = elsewhere.expect("it runs");
        assert_eq!(elsewhere.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("nobody would reach"));
        let address = format!("{a}.{b}.{c}.77");
        let _guest = Beside::start(&linked(&build, "echo_guest"), &[&address], build.folder());
        let ping = [
            "run",
            "--network",
            "shared",
            "--",
            "ping",
            "-c",
            "2",
            "-W",
            "9",
        ];
        let ping: Vec<&str> = ping.into_iter().chain([address.as_str()]).collect();
        succeeded(&service::executable(), &ping, &build);
    }
}

#[test]
fn the_socket_for_qemu() {
    if !prerequisites() {
        return;
    }
    let clang = Build::new(Compiler::ClangWithBlocks);
    let gateway = gateway(&clang);
    drop(EndOfService(clang.folder()));
    for compiler in [Compiler::Gcc, Compiler::ClangWithBlocks] {
        let build = Build::new(compiler);
        let _end = EndOfService(build.folder());
        let socket = build.folder().join("qemu.sock");
        let path = socket.to_str().expect("text");
        let bridge = Beside::start(&linked(&build, "qemu_bridge"), &[path], build.folder());
        let mut guest = UnixStream::connect(&socket).expect("it listens");
        guest
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a timeout");
        // Who has the gateway's address?
        let mac = [2, 0, 0, 0, 0, 7];
        let ours = [gateway[0], gateway[1], gateway[2], 9];
        let mut request = vec![0, 0, 0, 42];
        request.extend([0xff; 6].into_iter().chain(mac).chain([8, 6]));
        request.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        request.extend(mac.into_iter().chain(ours).chain([0; 6]).chain(gateway));
        guest.write_all(&request).expect("it reads");
        loop {
            let mut length = [0; 4];
            guest.read_exact(&mut length).expect("it writes");
            let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("small")];
            guest.read_exact(&mut frame).expect("it writes");
            if frame[12..14] == [8, 6] && frame[20..22] == [0, 2] {
                assert_eq!(frame[28..32], gateway);
                assert_eq!(frame[..6], mac);
                break;
            }
        }
        drop(guest);
        // With its guest it ends.
        bridge.end();
    }
}

#[test]
fn the_broker_and_two_programs() {
    if !prerequisites() {
        return;
    }
    for compiler in [Compiler::Gcc, Compiler::ClangWithBlocks] {
        let build = Build::new(compiler);
        let _end = EndOfService(build.folder());
        let program = linked(&build, "broker");
        let name = "org.example.network";
        let broker = Beside::start(&program, &["serve", name], build.folder());
        let join = || {
            let mut command = command(&program, &["join", name], &build);
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().expect("it starts")
        };
        for other in [join(), join()] {
            let output = other.wait_with_output().expect("it ends");
            let said = String::from_utf8_lossy(&output.stderr);
            checked(&program, output.status, &said);
            assert_eq!(output.stdout, b"somebody else is here\n");
        }
        broker.end();
    }
}
