//! From `kill -9` of the daemon to the first connection that a guest of `vmnet run` makes to the outside.
//!
//! The guest is this program again (`vmnet-bench reach`): told to, it tries until a connection has asked and was answered
//! whole, and says when that was.

use super::daemon::{Daemon, EndsRunning, end_running};
use super::{Failure, folders, named, percentile};
use crate::load::short;
use crate::measure::Values;
use crate::sys;
use rustix::process::Signal;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What one try may take. Short, so that a try that was lost with the daemon does not count as its recovery.
const TRY: Duration = Duration::from_millis(50);
/// Tries before it is given up: ten seconds.
const TRIES: usize = 200;

/// Kills the daemon again and again under one guest.
pub(super) fn measure(server: SocketAddr, runs: usize) -> Result<Values, Failure> {
    // Declared first, so dropped last: the guest has left by then.
    let _ends = EndsRunning;
    let mut first = Daemon::start()?;
    let mut guest = Guest::start(server)?;
    guest.reach()?;
    let mut times = Vec::new();
    for run in 0..runs {
        let killed = monotonic();
        if run == 0 {
            first.kill()?;
        } else {
            end_running(Signal::KILL)?;
        }
        let reached = guest.reach()?;
        times.push(reached.saturating_sub(killed) as f64 / 1e6);
    }
    drop(guest);
    // One that was started again must end when it is told to, like any other.
    end_running(Signal::TERM)?;
    Ok(named(&[
        ("service_recovery_p50", percentile(&times, 50)?),
        ("service_recovery_max", percentile(&times, 100)?),
    ]))
}

struct Guest {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Guest {
    fn start(server: SocketAddr) -> Result<Self, Failure> {
        let mut command = Command::new(folders::vmnet()?);
        command
            .args(["run", "--network", "dev", "--"])
            .arg(std::env::current_exe()?)
            .args(["reach", &server.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        sys::die_with_parent(&mut command);
        let mut process = command.spawn()?;
        let said = process.stdout.take().ok_or("no standard output")?;
        Ok(Self {
            process,
            said: BufReader::new(said),
        })
    }

    /// When a connection was answered, by the machine's monotonic clock.
    fn reach(&mut self) -> Result<u64, Failure> {
        let input = self.process.stdin.as_mut().ok_or("no standard input")?;
        input.write_all(b"go\n")?;
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        let line = line.trim_end();
        line.parse()
            .map_err(|_| format!("the guest said {line:?}").into())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // The guest ends with its input, vmnet with the guest.
        drop(self.process.stdin.take());
        if self.process.wait().is_err() {
            let _ = self.process.kill();
        }
    }
}

/// The guest's side: for each line, connects until it is answered and says when that was.
pub(crate) fn serve(server: SocketAddr) -> io::Result<()> {
    let mut output = io::stdout().lock();
    for line in io::stdin().lock().lines() {
        line?;
        let mut last = None;
        let answered = (0..TRIES).any(|_| match short::exchange(server, TRY) {
            Ok(_) => true,
            Err(error) => {
                // A refusal at once must not become a loop without a pause.
                std::thread::sleep(Duration::from_millis(1));
                last = Some(error);
                false
            }
        });
        if answered {
            writeln!(output, "{}", monotonic())?;
        } else {
            writeln!(
                output,
                "no connection: {}",
                last.map(|e| e.to_string()).unwrap_or_default()
            )?;
        }
        output.flush()?;
    }
    Ok(())
}

/// Nanoseconds of the machine's monotonic clock.
pub(crate) fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
