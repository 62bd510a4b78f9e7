//! Facts without which a figure means nothing: the machine, its kernel, the versions of the peers, the date.

use crate::options::Options;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The facts of a run, read before it begins.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    pub(crate) date: String,
    pub(crate) cores: usize,
    pub(crate) cpu: String,
    pub(crate) kernel: String,
    pub(crate) system: String,
    pub(crate) memory_mib: u64,
    /// What else kept the machine busy just before, over one minute.
    pub(crate) load_before: String,
    /// The limit of UDP socket buffers, at both ends.
    pub(crate) rmem_max: String,
    pub(crate) versions: BTreeMap<&'static str, String>,
}

impl Facts {
    /// Reads them.
    pub(crate) fn read(options: &Options) -> Self {
        let vmnet = crate::path::our_program(options)
            .and_then(|program| first_line(&program.to_string_lossy(), &["--version"]));
        let versions = [
            ("vmnet", vmnet),
            ("pasta", package("passt")),
            ("slirp4netns", package("slirp4netns")),
            ("nft", package("nftables")),
        ];
        Self {
            date: date(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |time| time.as_secs()),
            ),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: field("/proc/cpuinfo", "model name", ':'),
            kernel: word("/proc/sys/kernel/osrelease"),
            system: field("/etc/os-release", "PRETTY_NAME", '=')
                .trim_matches('"')
                .to_owned(),
            memory_mib: field("/proc/meminfo", "MemTotal", ':')
                .trim_end_matches(" kB")
                .parse()
                .unwrap_or(0)
                / 1024,
            load_before: word("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            rmem_max: word("/proc/sys/net/core/rmem_max"),
            versions: versions
                .into_iter()
                .map(|(name, version)| (name, version.unwrap_or_else(|| "not found".to_owned())))
                .collect(),
        }
    }
}

fn word(file: &str) -> String {
    fs::read_to_string(file)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn field(file: &str, name: &str, separator: char) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let found = text
        .lines()
        .filter_map(|line| line.split_once(separator))
        .find(|(key, _)| key.trim() == name);
    found
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

/// The version of a Debian package.
fn package(name: &str) -> Option<String> {
    first_line(
        "dpkg-query",
        &["--show", "--showformat", "${Version}", name],
    )
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .next()
        .map(str::to_owned)
        .filter(|line| !line.is_empty())
}

/// Seconds since 1970 as `2026-11-22T16:00:00Z`, by the usual count of days from the first of March.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day + 2) / 153;
    let (month, year) = if shifted < 10 {
        (shifted + 3, year)
    } else {
        (shifted - 9, year + 1)
    };
    let day = day - (153 * shifted + 2) / 5 + 1;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z",
        year + era * 400
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        assert_eq!(super::date(0), "1970-01-01T00:00:00Z");
        assert_eq!(super::date(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(super::date(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(super::date(1_795_363_200), "2026-11-22T16:00:00Z");
    }
}
