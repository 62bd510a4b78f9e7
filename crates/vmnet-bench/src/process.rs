//! Children that do not outlive the bench, and what `/proc` says of time and memory.

use crate::sys;
use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

/// A child that is asked, then forced, to end when this is dropped.
#[derive(Debug)]
pub(crate) struct Guarded(pub(crate) Child);

impl Guarded {
    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        self.0
            .try_wait()
            .ok()
            .flatten()
            .map(|status| status.to_string())
    }

    fn ends_within(&mut self, time: Duration) -> bool {
        let limit = Instant::now() + time;
        while Instant::now() < limit {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // Its load generator has lost its control socket by now, so most end by themselves.
        if self.ends_within(Duration::from_millis(700)) {
            return;
        }
        sys::signal(self.pid(), libc::SIGTERM);
        if !self.ends_within(Duration::from_secs(2)) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Processor time so far, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Busy {
    /// User and system of the whole machine (interrupts included; idle, waiting and stolen time not).
    pub(crate) machine: f64,
    /// User and system of all threads of the network process.
    pub(crate) network: Option<f64>,
}

impl Busy {
    /// Reads both clocks. `None` for a process that is gone.
    pub(crate) fn now(network: Option<u32>) -> Self {
        Self {
            machine: machine().unwrap_or_default(),
            network: network.and_then(of_process),
        }
    }
}

fn ticks(count: u64) -> f64 {
    count as f64 / rustix::param::clock_ticks_per_second() as f64
}

fn machine() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    parse_machine(stat.lines().next()?).map(ticks)
}

fn parse_machine(line: &str) -> Option<u64> {
    let fields: Vec<u64> = line
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    // user nice system (idle iowait) irq softirq
    match fields.as_slice() {
        [user, nice, system, _, _, irq, softirq, ..] => Some(user + nice + system + irq + softirq),
        _ => None,
    }
}

fn of_process(pid: u32) -> Option<f64> {
    parse_process(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(ticks)
}

fn parse_process(stat: &str) -> Option<u64> {
    // The name in brackets may hold anything; fields 14 and 15 (utime, stime) are the 12th and 13th behind it.
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Resident memory of a process in bytes.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    parse_resident(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_time_leaves_out_idle_iowait_and_steal() {
        assert_eq!(
            parse_machine("cpu  1 2 4 1000 2000 8 16 4000 0 0"),
            Some(31)
        );
        assert_eq!(parse_machine("cpu0 1 2 4 1000 2000 8 16 4000 0 0"), None);
    }

    #[test]
    fn process_time_survives_a_nasty_name() {
        let stat = "7 (a) b) R 1 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 1 0 5 0 0";
        assert_eq!(parse_process(stat), Some(42));
    }

    #[test]
    fn resident_memory_is_in_bytes() {
        assert_eq!(
            parse_resident("Name:\tx\nVmRSS:\t    1234 kB\n"),
            Some(1234 * 1024)
        );
        assert!(resident(std::process::id()).unwrap() > 100_000);
    }
}
