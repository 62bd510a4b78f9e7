//! Asks the service of a test. It hears its user, and the superuser.
#![allow(dead_code, reason = "no test file uses all of it")]

use openvmnet::client::Client;
use openvmnet::service::{Interface, Lease};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A service that may run.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) socket: PathBuf,
}

impl Service {
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks something; `None` if no service runs.
    pub(crate) fn try_ask<T>(&self, question: impl FnOnce(&mut Client) -> T) -> Option<T> {
        let stream = UnixStream::connect(&self.socket).ok()?;
        Some(question(&mut Client::over(stream).unwrap()))
    }

    /// Asks something of a service that runs.
    #[track_caller]
    pub(crate) fn ask<T>(&self, question: impl FnOnce(&mut Client) -> T) -> T {
        self.try_ask(question).expect("the service runs")
    }

    /// Its process, if it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        let status = self.try_ask(|client| client.status())?;
        let status = status
            .inspect_err(|error| eprintln!("status: {error}"))
            .ok()?;
        i32::try_from(status.pid).ok()
    }

    /// The interfaces on a network; none if it is not there.
    pub(crate) fn interfaces(&self, network: &str) -> Vec<Interface> {
        let network = network.to_owned();
        self.try_ask(move |client| client.list_interfaces(Some(&network)).ok())
            .flatten()
            .map_or_else(Vec::new, |found| found.interfaces)
    }

    /// The leases on a network; none if it is not there.
    pub(crate) fn leases(&self, network: &str) -> Vec<Lease> {
        let network = network.to_owned();
        self.try_ask(move |client| client.list_leases(Some(&network)).ok())
            .flatten()
            .map_or_else(Vec::new, |found| found.leases)
    }

    /// Kills it as nothing else does.
    #[track_caller]
    pub(crate) fn kill(&self) -> i32 {
        let pid = self.pid().expect("the service runs");
        signal(pid, rustix::process::Signal::KILL);
        pid
    }

    /// Asks it to end, as a service manager does; answers its process.
    #[track_caller]
    pub(crate) fn terminate(&self) -> i32 {
        let pid = self.pid().expect("the service runs");
        signal(pid, rustix::process::Signal::TERM);
        pid
    }

    /// Ends it, if it runs, and waits until it is gone.
    pub(crate) fn end(&self) {
        let Some(pid) = self.pid() else { return };
        signal(pid, rustix::process::Signal::KILL);
        let process = format!("/proc/{pid}");
        for _ in 0..500 {
            if !Path::new(&process).exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, signal);
    }
}
