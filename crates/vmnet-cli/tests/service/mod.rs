//! Asks the service of a test, as the user whose it is.
#![allow(dead_code, reason = "no test file uses all of it")]

use openvmnet::client::Client;
use openvmnet::service::{Interface, Lease};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// A service that may run, and its user.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) socket: PathBuf,
    /// Another user than the test, if the test can be him.
    pub(crate) user: Option<u32>,
}

impl Service {
    pub(crate) fn new(socket: &Path, user: Option<u32>) -> Self {
        Self {
            socket: socket.to_owned(),
            user,
        }
    }

    /// Asks something; `None` if no service runs. On a thread of its own, which becomes the user.
    pub(crate) fn try_ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Client) -> T + Send + 'static,
    ) -> Option<T> {
        let this = self.clone();
        let thread = std::thread::spawn(move || {
            if let Some(id) = this.user {
                let (uid, gid) = (
                    rustix::process::Uid::from_raw(id),
                    rustix::process::Gid::from_raw(id),
                );
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            let stream = UnixStream::connect(&this.socket).ok()?;
            Some(question(&mut Client::over(stream).unwrap()))
        });
        match thread.join() {
            Ok(answer) => answer,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Asks something of a service that runs.
    #[track_caller]
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Client) -> T + Send + 'static,
    ) -> T {
        self.try_ask(question).expect("the service runs")
    }

    /// Its process, if it runs.
    pub(crate) fn pid(&self) -> Option<i32> {
        let status = self.try_ask(|client| client.status().ok())??;
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
