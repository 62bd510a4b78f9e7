//! The library: frames from one process to another by `openvmnet`, beside a pair of sockets and two taps on a bridge; and how
//! soon a program hears of a frame.
//!
//! | file | what it measures |
//! | --- | --- |
//! | `ours.rs` | interfaces on a network of the service |
//! | `sockets.rs` | the same frames by `sendmmsg` and `recvmmsg` |
//! | `taps.rs` | the same frames through the kernel, by `write` and `read` |
//! | `hop.rs` | how long it takes to wake a thread |
//! | `copy.rs` | how fast this machine copies |
//!
//! What receives is a process of its own, this program once more. A batch is what one call reads and writes.

mod copy;
mod hop;
mod ours;
mod sockets;
mod taps;

use crate::measure::Values;
use crate::service::Failure;
use clap::ValueEnum;
use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Frames that one call reads or writes.
const BATCHES: [usize; 3] = [1, 32, 256];
/// Load before it is counted.
const LEAD_IN: Duration = Duration::from_millis(200);

/// Which process this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Reads an interface.
    Read,
    /// Reads a socket, its standard input.
    Receive,
    /// Reads a tap.
    Tap,
    /// Answers how long ago what it is told of was sent.
    Hear,
}

/// What the receiving process is to do.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Receiver {
    /// Which one.
    #[arg(value_enum)]
    role: Role,
    /// Bytes of a frame.
    len: usize,
    /// Frames of a call.
    batch: usize,
    /// For how long to count.
    millis: u64,
}

/// Frames of one size, in all batches.
pub(crate) fn frames(len: usize, millis: u64) -> Result<Values, Failure> {
    let mut values = Values::new();
    let mut add = |row: String, value: f64| values.push((row, value));
    for batch in BATCHES {
        let of = Receiver {
            role: Role::Read,
            len,
            batch,
            millis,
        };
        let ours = ours::measure(of)?;
        let sockets = sockets::measure(Receiver {
            role: Role::Receive,
            ..of
        })?;
        let taps = taps::measure(Receiver {
            role: Role::Tap,
            ..of
        })?;
        let shown = if len < 10_000 {
            1e-6
        } else {
            len as f64 * 8e-9
        };
        add(format!("library_{len}_{batch}"), ours * shown);
        add(format!("library_{len}_{batch}_sockets"), sockets * shown);
        add(format!("library_{len}_{batch}_taps"), taps * shown);
        if len == crate::ports::LARGE {
            let of_copy = ours * copy::seconds(len, Duration::from_millis(millis / 4));
            add(format!("library_{len}_{batch}_of_copy"), of_copy);
        }
    }
    if len == crate::ports::LARGE {
        let bound = copy::three_times(len, Duration::from_millis(millis / 4))?;
        values.push((format!("library_{len}_copies"), bound));
    }
    Ok(values)
}

/// How soon a program hears of a frame.
pub(crate) fn events(millis: u64) -> Result<Values, Failure> {
    let mut values = ours::events(Receiver {
        role: Role::Hear,
        len: 64,
        batch: 1,
        millis,
    })?;
    for (row, hops) in [("library_event_wake", 1), ("library_event_wakes", 2)] {
        let time = Duration::from_millis(millis);
        values.push((row.to_owned(), hop::measure(hops, time)?));
    }
    Ok(values)
}

/// The other process.
pub(crate) fn receive(of: Receiver) -> Result<(), Failure> {
    match of.role {
        Role::Read => ours::read(of),
        Role::Receive => sockets::receive(of),
        Role::Tap => taps::receive(of),
        Role::Hear => ours::hear(of),
    }
}

/// A receiving process that is ready.
struct Process {
    child: Child,
    said: BufReader<ChildStdout>,
    /// What it said then.
    ready: String,
}

impl Process {
    fn start(of: Receiver, stdin: Stdio) -> Result<Self, Failure> {
        Self::start_by(&[], of, stdin)
    }

    /// The same by a program that starts others.
    fn start_by(by: &[&str], of: Receiver, stdin: Stdio) -> Result<Self, Failure> {
        let role = of.role.to_possible_value();
        let role = role.ok_or("a role without a name")?;
        let numbers = [of.len as u64, of.batch as u64, of.millis];
        let own = std::env::current_exe()?;
        let mut words = by.iter().map(OsStr::new).chain([own.as_os_str()]);
        let mut command = Command::new(words.next().ok_or("no program")?);
        command
            .args(words)
            .args(["receive", role.get_name()])
            .args(numbers.map(|number| number.to_string()))
            .stdin(stdin)
            .stdout(Stdio::piped());
        crate::sys::die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let said = child.stdout.take().ok_or("no pipe")?;
        let mut said = BufReader::new(said);
        let mut ready = String::new();
        said.read_line(&mut ready)?;
        let ready = ready.trim().to_owned();
        Ok(Self { child, said, ready })
    }

    /// It has counted enough, or failed.
    fn is_done(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// What it counted, with nothing but its output left to be read.
    fn result(mut self) -> Result<String, Failure> {
        let mut result = String::new();
        self.said.read_to_string(&mut result)?;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("the receiving process ended with {status}").into());
        }
        Ok(result.trim().to_owned())
    }

    fn rate(self) -> Result<f64, Failure> {
        Ok(self.result()?.parse()?)
    }
}

/// Counts frames: from some time after the first one, for that long. Answers frames a second when it is over.
struct Tally {
    first: Option<Instant>,
    begun: Option<Instant>,
    frames: u64,
    time: Duration,
}

impl Tally {
    fn new(of: Receiver) -> Self {
        Self {
            first: None,
            begun: None,
            frames: 0,
            time: Duration::from_millis(of.millis),
        }
    }

    fn count(&mut self, frames: usize) -> Option<f64> {
        let now = Instant::now();
        let first = *self.first.get_or_insert(now);
        let Some(begun) = self.begun else {
            if now.duration_since(first) >= LEAD_IN {
                self.begun = Some(now);
            }
            return None;
        };
        self.frames += frames as u64;
        let elapsed = now.duration_since(begun);
        (elapsed >= self.time).then(|| self.frames as f64 / elapsed.as_secs_f64())
    }
}
