//! What a frame costs in instructions, which no other load on the machine changes: callgrind counts those of the network's
//! thread while frames go from one port to another. Two runs of different length are compared, so that starting counts for
//! nothing. The driver takes turns with the network, as both are one thread for callgrind.

use super::{Failure, NAME};
use crate::measure::Values;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The two lengths.
const FRAMES: [u64; 2] = [20_000, 60_000];

pub(super) fn measure(len: usize, scratch: &Path) -> Result<Values, Failure> {
    let [few, many] = FRAMES;
    let more = count(len, many, scratch)?.saturating_sub(count(len, few, scratch)?);
    let each = more as f64 / (many - few) as f64;
    Ok(vec![(format!("instructions_{len}"), each)])
}

/// Instructions of the network's thread while so many frames are moved.
fn count(len: usize, frames: u64, scratch: &Path) -> Result<u64, Failure> {
    let folder = tempfile::tempdir_in(scratch)?;
    let file = folder.path().join("counts");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--separate-threads=yes", "--quiet"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .args(["forward", &len.to_string(), &frames.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    crate::sys::die_with_parent(&mut command);
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("valgrind: {}", said.trim()).into());
    }
    let mut most = 0;
    for entry in fs::read_dir(folder.path())? {
        let text = fs::read_to_string(entry?.path())?;
        // The network's thread is the one that was in its loop.
        if text.contains("vmnet_linux::lane::datapath")
            && !text.contains("vmnet_bench::ports::rings::forward")
        {
            most = most.max(total(&text).unwrap_or(0));
        }
    }
    if most == 0 {
        return Err(format!("callgrind saw no thread of the network {NAME}").into());
    }
    Ok(most)
}

/// The sum of a file of callgrind.
fn total(text: &str) -> Option<u64> {
    let line = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    };
    line("totals:").or_else(|| line("summary:"))
}
