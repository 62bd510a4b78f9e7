//! Asks the service of a world by the program's own verbs: it hears nobody who is in another network namespace, as tests are.
#![allow(dead_code, reason = "no test file uses all of it")]

use openvmnet::service::{Forward, Forwards, Interface, Interfaces, Lease, Leases};
use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};
use vmnet_lab::process::Process;
use vmnet_lab::stage::Stage;

const SOON: Duration = Duration::from_secs(20);

/// The service of a stage, which may not run.
#[derive(Clone, Copy)]
pub(crate) struct Service<'a>(pub(crate) &'a Stage);

impl Service<'_> {
    /// What a verb prints as JSON; `None` if it fails.
    fn ask<T: serde::de::DeserializeOwned>(self, words: &[&str]) -> Option<T> {
        let words = [words, &["--json"]].concat();
        let finished = Process::run(self.0.vmnet(&words), SOON);
        if !finished.status.success() {
            return None;
        }
        Some(serde_json::from_str(&finished.stdout).expect("JSON"))
    }

    /// Its process, if it runs.
    pub(crate) fn pid(self) -> Option<i32> {
        let status: serde_json::Value = self.ask(&["status"])?;
        i32::try_from(status["service"]["pid"].as_i64()?).ok()
    }

    /// The interfaces on a network; none if it is not there.
    pub(crate) fn interfaces(self, network: &str) -> Vec<Interface> {
        let found = self.ask::<Interfaces>(&["interface", "list", network]);
        found.map_or_else(Vec::new, |found| found.interfaces)
    }

    /// The leases on a network; none if it is not there.
    pub(crate) fn leases(self, network: &str) -> Vec<Lease> {
        let found = self.ask::<Leases>(&["lease", "list", network]);
        found.map_or_else(Vec::new, |found| found.leases)
    }

    /// The ports that lead to guests of a network.
    pub(crate) fn forwards(self, network: &str) -> Vec<Forward> {
        let found = self.ask::<Forwards>(&["forward", "list", network]);
        found.map_or_else(Vec::new, |found| found.forwards)
    }

    /// Kills it as nothing else does; answers its process.
    #[track_caller]
    pub(crate) fn kill(self) -> i32 {
        let pid = self.pid().expect("the service runs");
        signal(pid, Signal::KILL);
        pid
    }

    /// Asks it to end, as a service manager does; answers its process.
    #[track_caller]
    pub(crate) fn terminate(self) -> i32 {
        let pid = self.pid().expect("the service runs");
        signal(pid, Signal::TERM);
        pid
    }

    /// Ends it, if it runs, and waits until it is gone.
    pub(crate) fn end(self) {
        let Some(pid) = self.pid() else { return };
        signal(pid, Signal::KILL);
        let deadline = Instant::now() + SOON;
        while std::path::Path::new(&format!("/proc/{pid}")).exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself.
        let _ = kill_process(pid, signal);
    }
}
