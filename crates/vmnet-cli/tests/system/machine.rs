//! A machine for one test: a network namespace, folders, users and groups by number, and a service.

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vmnet_lab::namespace::Namespace;
use vmnet_lab::prerequisite::{Prerequisite, all_present};

/// A group that clients may be in; it need not have a name.
pub(crate) const GROUP: u32 = 64_123;
/// A user that is not in it by itself.
pub(crate) const USER: u32 = 64_321;
/// How long anything may take.
const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Machine {
    folder: TempDir,
    pub(crate) host: Namespace,
}

/// Who runs a command.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Who {
    Root,
    /// A user who is in the group.
    Member,
    /// A user who is in no group.
    Stranger,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Machine {
    /// `None`, with a word on standard error, without root. With `CI=true` that is a failure.
    pub(crate) fn new() -> Option<Self> {
        if !all_present(&[Prerequisite::Root, Prerequisite::Tun]) {
            return None;
        }
        let folder = tempfile::Builder::new()
            .prefix("vmnet-machine-")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let host = Namespace::new();
        let machine = Self { folder, host };
        for folder in ["user", "home"] {
            let folder = machine.path().join(folder);
            fs::create_dir(&folder).unwrap();
            chown(&folder, Some(USER), Some(USER)).unwrap();
            fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        }
        // Who names a configuration file means one that is there.
        fs::write(machine.path().join("vmnet.toml"), "").unwrap();
        // The folder that cargo builds in may be closed to other users.
        fs::copy(env!("CARGO_BIN_EXE_vmnet"), machine.program()).unwrap();
        fs::set_permissions(machine.program(), Permissions::from_mode(0o755)).unwrap();
        Some(machine)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.path().join("vmnet")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("run/vmnet/vmnet.sock")
    }

    /// `vmnet` on this machine, by somebody.
    pub(crate) fn vmnet<S: AsRef<OsStr>>(&self, who: Who, words: &[S]) -> Command {
        self.program_of(&self.program().display().to_string(), who, words)
    }

    fn program_of<S: AsRef<OsStr>>(&self, program: &str, who: Who, words: &[S]) -> Command {
        let mut command = self.host.command(program);
        command
            .args(words)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path().join("home"))
            .env("VMNET_SYSTEM_SOCKET", self.socket())
            .env("VMNET_SOCKET", self.path().join("user/vmnet.sock"))
            .env("VMNET_CONFIG", self.path().join("vmnet.toml"))
            .stdin(Stdio::null())
            .current_dir("/");
        let groups: &'static [u32] = match who {
            Who::Root => return command,
            Who::Member => &[GROUP],
            Who::Stranger => &[],
        };
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(move || {
                let groups: [rustix::process::Gid; 1] = [rustix::process::Gid::from_raw(
                    groups.first().copied().unwrap_or(USER),
                )];
                rustix::thread::set_thread_groups(&groups)?;
                let gid = rustix::process::Gid::from_raw(USER);
                rustix::thread::set_thread_res_gid(gid, gid, gid)?;
                let uid = rustix::process::Uid::from_raw(USER);
                Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
            });
        }
        command
    }

    /// Runs `vmnet`, to its end.
    pub(crate) fn says(&self, who: Who, words: &[&str]) -> Said {
        let output = self.vmnet(who, words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said {
            status: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Starts the service, and waits until it serves.
    pub(crate) fn service(&self, options: &[&str]) -> Running {
        self.service_by(&[], options)
    }

    /// The same by way of another program, which becomes the service.
    pub(crate) fn service_by(&self, by: &[&str], options: &[&str]) -> Running {
        let mut running = self.spawn(by, options);
        let deadline = Instant::now() + SOON;
        while !running.log().contains("the service is ready") {
            assert!(running.is_there(), "it ended: {}", running.log());
            assert!(Instant::now() < deadline, "not ready: {}", running.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        running
    }

    fn log_path(&self) -> PathBuf {
        self.path().join("service.log")
    }

    /// Starts the service, or what is to become it.
    pub(crate) fn spawn(&self, by: &[&str], options: &[&str]) -> Running {
        let child = self.starting(by, options).spawn().unwrap();
        Running {
            child: Some(child),
            log: self.log_path(),
        }
    }

    /// The service, not started yet; by way of another program, if one is named.
    fn starting(&self, by: &[&str], options: &[&str]) -> Command {
        let state = self.path().join("state").display().to_string();
        let program = self.program().display().to_string();
        let words = [program.as_str(), "daemon", "--system", "--state", &state];
        let words = [by, &words, options].concat();
        let (first, rest) = words.split_first().unwrap();
        let mut command = self.program_of(first, Who::Root, rest);
        let log = fs::File::create(self.log_path()).unwrap();
        command
            .env("VMNET_LOG", "info")
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    /// What `ip` says.
    pub(crate) fn ip(&self, words: &str) -> String {
        let words: Vec<&str> = words.split_whitespace().collect();
        let output = self.host.command("ip").args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Ends the user's service, if a client started one.
impl Drop for Machine {
    fn drop(&mut self) {
        if !self.path().join("user/vmnet.sock").exists() {
            return;
        }
        let said = self.says(Who::Member, &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        let pid = status["service"]["pid"].as_i64();
        if let Some(pid) = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// A service of this machine. It is killed with its helper when this is dropped.
pub(crate) struct Running {
    child: Option<Child>,
    log: PathBuf,
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().unwrap().id()).unwrap()
    }

    /// Its helper.
    pub(crate) fn helper(&self) -> i32 {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.trim().parse().expect("one child")
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn is_there(&mut self) -> bool {
        let child = self.child.as_mut().unwrap();
        child.try_wait().unwrap().is_none()
    }

    /// Waits for its end: its status, none if a signal ended it.
    pub(crate) fn ends(mut self) -> Option<i32> {
        let deadline = Instant::now() + SOON;
        while self.is_there() {
            assert!(Instant::now() < deadline, "it goes on: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = self.child.take().unwrap().wait().unwrap();
        status.code()
    }

    pub(crate) fn terminate(self) -> Option<i32> {
        signal(self.pid(), Signal::TERM);
        self.ends()
    }

    pub(crate) fn kill(self) {
        signal(self.pid(), Signal::KILL);
        self.ends();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let _ = child.kill();
        let _ = child.wait();
    }
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// A line of `/proc/PID/status`.
pub(crate) fn status(pid: i32, line: &str) -> String {
    let mut text = String::new();
    let mut file = fs::File::open(format!("/proc/{pid}/status")).unwrap();
    file.read_to_string(&mut text).unwrap();
    let found = text.lines().find_map(|it| it.strip_prefix(line));
    found
        .and_then(|rest| rest.strip_prefix(':'))
        .expect("the line")
        .trim()
        .to_owned()
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}
