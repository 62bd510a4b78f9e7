//! A network namespace that nothing can leave behind.
//!
//! It has no name in the file system: it lives as long as a descriptor or a process of this test holds it, so the
//! kernel removes it, with its interfaces, also after a panic or `kill -9` of the test.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A network namespace, held by a descriptor. Clones are the same namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<File>,
}

impl Namespace {
    /// A new namespace: loopback is up, TCP uses cubic, or Reno (a default of bbr distorts every transfer).
    ///
    /// # Panics
    /// If the rights are lacking; see [`crate::prerequisite::Prerequisite::Root`].
    #[must_use]
    pub fn new() -> Self {
        let file = thread::spawn(|| {
            // SAFETY: the thread was made for this and shares nothing that depends on its network namespace.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("make a network namespace");
            File::open("/proc/thread-self/ns/net").expect("open the new namespace")
        })
        .join()
        .expect("the thread that makes a namespace");
        let this = Self {
            file: Arc::new(file),
        };
        this.ip(&["link", "set", "lo", "up"]);
        this.use_cubic();
        this
    }

    /// The kernel lets a new namespace choose only what the first one allows; Reno is always allowed.
    fn use_cubic(&self) {
        let set = |name: &str| std::fs::write("/proc/sys/net/ipv4/tcp_congestion_control", name);
        self.enter(|| set("cubic").or_else(|_| set("reno")))
            .expect("choose a congestion control");
    }

    /// Runs `work` on a thread inside the namespace. Sockets made there stay in it wherever they are used later.
    ///
    /// # Panics
    /// If `work` does.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.move_in().expect("enter the namespace");
                work()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Moves the calling thread into the namespace. Also fit for `pre_exec`: one system call.
    ///
    /// # Errors
    /// Those of `setns`.
    pub fn move_in(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(
            self.file.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?)
    }

    /// A command that will run inside, with the rights of the test.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let this = self.clone();
        // SAFETY: between fork and exec only `setns` is called.
        unsafe { command.pre_exec(move || this.move_in()) };
        command
    }

    /// Runs `ip` inside.
    ///
    /// # Panics
    /// If it fails, with what it said.
    pub fn ip(&self, arguments: &[&str]) {
        let output = self
            .command("ip")
            .args(arguments)
            .output()
            .expect("start ip (iproute2)");
        assert!(
            output.status.success(),
            "ip {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Sets a sysctl of the network inside, by its dotted name.
    ///
    /// # Panics
    /// If the kernel refuses it.
    pub fn sysctl(&self, name: &str, value: &str) {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.enter(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("sysctl {name}={value}: {error}"));
    }

    /// Joins this namespace (interface `mine`) and `other` (interface `theirs`) by a veth pair, both ends up.
    pub fn connect(&self, mine: &str, other: &Self, theirs: &str) {
        let place = format!("/proc/{}/fd/{}", std::process::id(), other.file.as_raw_fd());
        self.ip(&[
            "link", "add", mine, "type", "veth", "peer", "name", theirs, "netns", &place,
        ]);
        self.ip(&["link", "set", mine, "up"]);
        other.ip(&["link", "set", theirs, "up"]);
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}
