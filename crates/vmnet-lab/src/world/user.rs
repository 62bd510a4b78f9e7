//! A user that nobody else on the machine has, so that his processes can be told from all others.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Gid, Pid, Signal, Uid, kill_process};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Where made-up ids begin: far above those that systems give out.
const FIRST: u32 = 1_500_000_000;
/// The first one where a container maps only 65,536 ids.
const FIRST_MAPPED: u32 = 40_000;

/// The worlds this process has made.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A user id and group id without a name, without rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    id: u32,
}

impl User {
    /// A new one, made of the id of this process and a counter.
    #[must_use]
    pub(super) fn new() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let id = if may_be(FIRST) {
            FIRST + (pid & 0x3f_ffff) * 64 + count % 64
        } else {
            FIRST_MAPPED + (pid.wrapping_mul(16) + count) % 20_000
        };
        Self { id }
    }

    /// The number, for user and group.
    #[must_use]
    pub fn id(self) -> u32 {
        self.id
    }

    /// Makes the calling thread this user, for good. Fit for `pre_exec`.
    pub(super) fn become_him(self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.id), Gid::from_raw(self.id));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        Ok(set_thread_res_uid(uid, uid, uid)?)
    }

    /// His processes: id and command line. Zombies are not counted.
    #[must_use]
    pub fn processes(self) -> Vec<(i32, String)> {
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                (entry.metadata().ok()?.uid() == self.id || self.is_real_user_of(pid))
                    .then_some(pid)
            })
            .filter_map(|pid| {
                let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
                // A process that has ended, and one that ends, has no command line.
                (!line.is_empty()).then(|| (pid, line.replace('\0', " ")))
            })
            .collect()
    }

    /// The folder in `/proc` belongs to root if the process may not be dumped; its status still names the user.
    fn is_real_user_of(self, pid: i32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("Uid:"));
        line.and_then(|line| line.split_whitespace().nth(1))
            .is_some_and(|id| id == self.id.to_string())
    }

    /// Ends his processes, each by its id, until there are none (a process may start another meanwhile).
    pub(super) fn end_processes(self) {
        for _ in 0..20 {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            for pid in processes.iter().filter_map(|it| Pid::from_raw(it.0)) {
                // It may have ended by itself.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Whether this user namespace knows the id.
fn may_be(id: u32) -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().any(|line| {
        let mut numbers = line
            .split_whitespace()
            .filter_map(|it| it.parse::<u64>().ok());
        let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        (first..first + count).contains(&(u64::from(id) + 0x1000_0000))
    })
}
