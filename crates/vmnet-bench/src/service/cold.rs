//! From nothing to a command that has a network, and to its end.
//!
//! `vmnet run` starts its command when the lease is there, `pasta` when it has configured the namespace; for slirp4netns
//! the command waits for slirp4netns to say that it is ready. That the network is there then is proved by a first run,
//! which is not counted: its command looks for a default route.

use super::daemon::{Daemon, EndsRunning, end_running};
use super::{Failure, Peer, folders, millis, named, percentile};
use crate::measure::Values;
use crate::sys;
use rustix::process::Signal;
use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A command that succeeds if there is a default route.
const PROOF: [&str; 3] = [
    "sh",
    "-c",
    "while read -r _ to _; do [ \"$to\" = 00000000 ] && exit 0; done < /proc/net/route; exit 9",
];
/// The command of the measurement.
const NOTHING: [&str; 1] = ["true"];

/// A command on a network of its own.
pub(super) fn private(peer: Peer, runs: usize) -> Result<Values, Failure> {
    let once = |command: &[&str]| match peer {
        Peer::Vmnet => vmnet(&[], command),
        Peer::Pasta => pasta(command),
        Peer::Slirp4netns => slirp4netns(command),
    };
    once(&PROOF)?;
    let times = (0..runs)
        .map(|_| once(&NOTHING))
        .collect::<Result<Vec<_>, _>>()?;
    summary("service_cold_private", &times)
}

/// A command on a network of the service, which is started for it.
pub(super) fn starting(runs: usize) -> Result<Values, Failure> {
    let _ends = EndsRunning;
    let once = |command: &[&str]| -> Result<f64, Failure> {
        let time = vmnet(&["--network", "dev"], command)?;
        end_running(Signal::TERM)?;
        Ok(time)
    };
    once(&PROOF)?;
    let times = (0..runs)
        .map(|_| once(&NOTHING))
        .collect::<Result<Vec<_>, _>>()?;
    summary("service_cold_starting", &times)
}

/// A command on a network of a service that runs.
pub(super) fn running(runs: usize) -> Result<Values, Failure> {
    let _daemon = Daemon::start()?;
    let once = |command: &[&str]| vmnet(&["--network", "dev"], command);
    once(&PROOF)?;
    let times = (0..runs)
        .map(|_| once(&NOTHING))
        .collect::<Result<Vec<_>, _>>()?;
    summary("service_cold_running", &times)
}

fn summary(row: &str, times: &[f64]) -> Result<Values, Failure> {
    Ok(named(&[
        (row, percentile(times, 50)?),
        (&format!("{row}_max"), percentile(times, 100)?),
    ]))
}

fn vmnet(options: &[&str], inner: &[&str]) -> Result<f64, Failure> {
    let mut command = Command::new(folders::vmnet()?);
    command.arg("run").args(options).arg("--").args(inner);
    timed(command)
}

fn pasta(inner: &[&str]) -> Result<f64, Failure> {
    let mut command = Command::new("pasta");
    command.args(["--ipv4-only", "--config-net", "--quiet"]);
    command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--"]);
    command.args(inner);
    timed(command)
}

/// From the start of the process to its end.
fn timed(mut command: Command) -> Result<f64, Failure> {
    command.stdin(Stdio::null());
    sys::die_with_parent(&mut command);
    let began = Instant::now();
    let mut child = command.spawn()?;
    let status = child.wait()?;
    let time = began.elapsed();
    if status.success() {
        return Ok(millis(time));
    }
    let program = command.get_program().display();
    Err(format!("{program} ended with {status}").into())
}

/// A namespace of `unshare`, whose command waits until slirp4netns is ready. The end of slirp4netns is not counted.
fn slirp4netns(inner: &[&str]) -> Result<f64, Failure> {
    let mut holder = Command::new("unshare");
    holder
        .args(["--user", "--map-root-user", "--net", "--"])
        .args(["sh", "-c", "read -r _; exec \"$@\"", "sh"])
        .args(inner)
        .stdin(Stdio::piped());
    sys::die_with_parent(&mut holder);
    let began = Instant::now();
    let mut holder = Ended(holder.spawn()?);
    let pid = holder.0.id();
    // The name changes when unshare is done and becomes the shell.
    await_name(pid, "sh")?;
    let (ready, tell) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let mut slirp = Command::new("slirp4netns");
    slirp
        .args(["--configure", "--ready-fd=0", &pid.to_string(), "tap0"])
        .stdin(Stdio::from(tell))
        .stdout(Stdio::null());
    sys::die_with_parent(&mut slirp);
    let _slirp = Ended(slirp.spawn()?);
    // Its own end must be the only one, so that this does not wait for one that failed.
    drop(slirp);
    let mut said = [0];
    if rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut said))? == 0 {
        return Err("slirp4netns ended and was not ready".into());
    }
    let mut go = holder.0.stdin.take().ok_or("no standard input")?;
    go.write_all(b"go\n")?;
    let status = holder.0.wait()?;
    let time = began.elapsed();
    if !status.success() {
        return Err(format!("the command behind slirp4netns ended with {status}").into());
    }
    Ok(millis(time))
}

fn await_name(pid: u32, wanted: &str) -> Result<(), Failure> {
    let limit = Instant::now() + Duration::from_secs(5);
    while fs::read_to_string(format!("/proc/{pid}/comm"))?.trim_end() != wanted {
        if Instant::now() > limit {
            return Err(format!("process {pid} did not become {wanted}").into());
        }
        sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// A child that is ended when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
