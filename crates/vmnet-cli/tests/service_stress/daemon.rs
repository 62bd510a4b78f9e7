//! What the service's process uses; chance with a seed; times in order.

use std::env;
use std::fs;
use std::process;
use std::time::{Duration, Instant, SystemTime};

use openvmnet::client::Client;

/// What a process uses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Open files.
    pub(crate) files: usize,
    /// Memory of its own that is resident, in KiB.
    pub(crate) memory: i64,
}

/// What the service uses that answers on the socket of this story.
pub(crate) fn usage(client: &mut Client) -> Usage {
    of_process(client.status().unwrap().pid)
}

/// What a process uses.
pub(crate) fn of_process(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| -> i64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.trim().parse().unwrap()
    };
    Usage {
        files: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        memory: field("VmRSS:"),
    }
}

/// Waits until the service has no more open files than this.
#[track_caller]
pub(crate) fn files_come_back(client: &mut Client, most: usize) -> Usage {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let used = usage(client);
        if used.files <= most {
            return used;
        }
        assert!(
            Instant::now() < deadline,
            "{} open files are left, {most} were there before",
            used.files
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Chance that can be had again (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// The seed of `VMNET_STRESS_SEED`, or a new one; it is printed.
    pub(crate) fn seeded() -> Self {
        let asked = env::var("VMNET_STRESS_SEED").ok();
        let seed = asked.map_or_else(fresh, |asked| asked.parse().unwrap());
        println!("VMNET_STRESS_SEED={seed}");
        Self(seed)
    }

    /// Another, which goes its own way.
    pub(crate) fn branch(&mut self, number: u64) -> Self {
        Self(self.next() ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(crate) fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs() << 16 ^ u64::from(process::id())
}

/// The value below which so many of a hundred are.
pub(crate) fn percentile<T: Ord + Copy>(values: &mut [T], percent: usize) -> T {
    values.sort_unstable();
    values[(values.len() - 1) * percent / 100]
}
