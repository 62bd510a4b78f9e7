//! A service of its own for each test, in folders that are gone with it. The test runs again in a process whose environment
//! says where they are.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use openvmnet::client::Client;
use openvmnet::{Interface, ReadPacket};

/// What a test waits for comes within this.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Set in the process that has a world.
const INSIDE: &str = "OPENVMNET_TEST_INSIDE";
/// What a further process of a test is to do.
const ROLE: &str = "OPENVMNET_TEST_ROLE";

/// The executable that is the service.
fn executable() -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    let beside = own.parent()?.parent()?.join("vmnet");
    beside.is_file().then_some(beside)
}

/// Runs `body` in a process with a service of its own; `name` is the test's.
pub(crate) fn inside(name: &str, body: impl FnOnce()) {
    inside_with(name, &[], body);
}

/// The same with further variables.
pub(crate) fn inside_with(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    if env::var_os(INSIDE).is_some() {
        let _end = EndOfService;
        return body();
    }
    let Some(executable) = executable() else {
        let reason = "there is no executable `vmnet` beside the tests: `cargo build -p vmnet-cli`";
        assert!(env::var_os("CI").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let status = again(name, folder.path(), &executable)
        .env(INSIDE, "1")
        .envs(variables.iter().copied())
        .status()
        .unwrap();
    if !status.success() {
        let log = folder.path().join("state/vmnet/daemon.log");
        eprintln!("{}", std::fs::read_to_string(log).unwrap_or_default());
    }
    assert!(status.success(), "{status}");
}

fn again(name: &str, folder: &Path, executable: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("VMNET_SOCKET", folder.join("s"))
        .env("XDG_STATE_HOME", folder.join("state"))
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("VMNET_EXECUTABLE", executable)
        .stdin(Stdio::null());
    command
}

/// Ends the service with the test.
struct EndOfService;

impl Drop for EndOfService {
    fn drop(&mut self) {
        if let Some(pid) = service() {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The process that is the service, if it runs.
pub(crate) fn service() -> Option<rustix::process::Pid> {
    let status = Client::connect_running().ok()?.status().ok()?;
    rustix::process::Pid::from_raw(status.pid.cast_signed())
}

/// Kills the service, and waits until it is gone.
pub(crate) fn kill_service() {
    let pid = service().expect("it runs");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("the service is gone", || {
        rustix::process::test_kill_process(pid).is_err()
    });
}

/// What this process is to do, if it is a further one.
pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok()
}

/// A further process of the same test, in the same world, with pipes.
pub(crate) fn process(name: &str, role: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "not in time: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// An Ethernet frame to everybody, of an experimental type.
pub(crate) fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x02, 0, 0, 0, 0, 0x77, 0x88, 0xb5]);
    frame.extend(number.to_be_bytes());
    frame.resize(len.max(18), number.to_le_bytes()[0]);
    frame.truncate(len);
    frame
}

/// The number of a frame of ours.
pub(crate) fn number_of(frame: &[u8]) -> Option<u32> {
    let is_ours = frame.get(12..14) == Some(&[0x88, 0xb5]);
    let number = frame.get(14..18).filter(|_| is_ours)?;
    Some(u32::from_be_bytes(number.try_into().ok()?))
}

/// Reads up to `most` packets at once.
pub(crate) fn read_batch(interface: &Interface, most: usize, room: usize) -> Vec<Vec<u8>> {
    let mut memory = vec![0; most * room];
    let mut buffers: Vec<_> = memory
        .chunks_mut(room)
        .map(|chunk| [std::io::IoSliceMut::new(chunk)])
        .collect();
    let mut packets: Vec<_> = buffers.iter_mut().map(|it| ReadPacket::new(it)).collect();
    let count = interface.read(packets.as_mut_slice()).unwrap();
    let packets: Vec<Vec<u8>> = packets
        .iter()
        .take(count)
        .map(|packet| packet.buffers[0][..packet.size].to_vec())
        .collect();
    packets
}

/// Reads frames of ours until there are so many.
#[track_caller]
pub(crate) fn read_numbers(interface: &Interface, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    let until = Instant::now() + SOON;
    while numbers.len() < count {
        assert!(Instant::now() < until, "{} of {count} came", numbers.len());
        interface.wait(Some(Duration::from_millis(100))).unwrap();
        let batch = read_batch(interface, 256, 2048);
        numbers.extend(batch.iter().filter_map(|frame| number_of(frame)));
    }
    numbers
}
