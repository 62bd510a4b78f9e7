//! Where these tests play: a copy of `vmnet` that an ordinary user may execute, folders of its own for sockets and for what
//! the service keeps. The service ends with the stage.
#![allow(dead_code, reason = "no test file uses all of it")]

#[path = "../service/mod.rs"]
pub(crate) mod service;

use service::Service;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// `nobody`: who the tests are when they could be the superuser.
pub(crate) const NOBODY: u32 = 65534;

pub(crate) struct Stage {
    folder: TempDir,
}

impl Stage {
    /// `None`, with a word on stderr, where namespaces cannot be made. With `CI=true` that is a failure.
    pub(crate) fn new() -> Option<Self> {
        let folder = tempfile::Builder::new()
            .prefix("vmnet-test-")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let stage = Self { folder };
        fs::copy(env!("CARGO_BIN_EXE_vmnet"), stage.program()).unwrap();
        fs::set_permissions(stage.program(), Permissions::from_mode(0o755)).unwrap();
        for folder in ["sockets", "service", "state", "config", "run"] {
            let folder = stage.path().join(folder);
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
            if is_superuser() {
                chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        // A process that another test started meanwhile has the copy open for writing, until it executes its own program.
        let mut trial = stage.run(["--no-dhcp"], ["true"]).output();
        for _ in 0..500 {
            if !matches!(&trial, Err(error) if error.kind() == ErrorKind::ExecutableFileBusy) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
            trial = stage.run(["--no-dhcp"], ["true"]).output();
        }
        let trial = trial.unwrap();
        if trial.status.success() {
            return Some(stage);
        }
        skip(&format!("no namespaces here: {}", text(&trial.stderr)));
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.path().join("vmnet")
    }

    /// A folder of the user.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.path().join("sockets")
    }

    /// The service of this stage, which may not run.
    pub(crate) fn service(&self) -> Service {
        Service::new(&self.path().join("service/vmnet.sock"))
    }

    /// `vmnet` as an ordinary user.
    pub(crate) fn vmnet(&self) -> Command {
        let mut command = Command::new(self.program());
        self.as_nobody(&mut command);
        command
    }

    /// Makes a command an ordinary user's.
    pub(crate) fn as_nobody(&self, command: &mut Command) {
        command
            .env("VMNET_SOCKET", self.service().socket)
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env("XDG_CONFIG_HOME", self.path().join("config"))
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .env_remove("VMNET_LOG")
            .env_remove("VMNET_CONFIG")
            .env_remove("VMNET_EXECUTABLE")
            .stdin(Stdio::null())
            .current_dir("/");
        if is_superuser() {
            command.uid(NOBODY).gid(NOBODY);
        }
    }

    /// `vmnet run OPTIONS -- COMMAND`.
    pub(crate) fn run<A: AsRef<OsStr>, B: AsRef<OsStr>>(
        &self,
        options: impl IntoIterator<Item = A>,
        words: impl IntoIterator<Item = B>,
    ) -> Command {
        let mut command = self.vmnet();
        command.arg("run").args(options).arg("--").args(words);
        command
    }

    /// `vmnet run --no-dhcp -- sh -c SCRIPT`.
    pub(crate) fn script(&self, script: &str) -> Command {
        self.run(["--no-dhcp"], ["sh", "-c", script])
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.service().end();
    }
}

/// A child that is killed at the end of the test, if it still is there.
pub(crate) struct Playing(pub(crate) Child);

impl Playing {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    pub(crate) fn kill(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Reads one line of its output.
    pub(crate) fn line(&mut self) -> String {
        let output = self.0.stdout.as_mut().unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while std::io::Read::read(output, &mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        text(&line)
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn is_superuser() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says why a test does nothing; a failure in CI.
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "skipped: {reason}"
    );
    eprintln!("skipped: {reason}");
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    (status.code(), text(&stdout), text(&stderr))
}

/// Waits until something is so, ten seconds at most.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not within ten seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The processes whose command lines hold this word.
pub(crate) fn processes_with(word: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if text(&line).contains(word) {
            found.push(pid);
        }
    }
    found
}
