//! A daemon of the bench's own.

use super::{Failure, folders};
use crate::sys;
use openvmnet::client::{Client, ConnectError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long it may take to start or to end.
const PATIENCE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// A daemon in the foreground. Dropping it ends it.
pub(crate) struct Daemon(Child);

impl Daemon {
    /// Starts it and waits until it answers.
    pub(crate) fn start() -> Result<Self, Failure> {
        let mut command = Command::new(folders::vmnet()?);
        command
            .args(["daemon", "--idle-timeout", "never"])
            .stdin(Stdio::null());
        sys::die_with_parent(&mut command);
        let mut daemon = Self(command.spawn()?);
        let limit = Instant::now() + Duration::from_secs(10);
        loop {
            match Client::connect_running() {
                Ok(mut client) => {
                    if client.status()?.pid == daemon.pid() {
                        return Ok(daemon);
                    }
                    return Err("another daemon answers".into());
                }
                Err(ConnectError::NotRunning(_)) if Instant::now() < limit => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = daemon.0.try_wait()? {
                return Err(format!("the daemon ended at once ({status})").into());
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Kills it, as a crash would, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The number of one that was waited for may be another's by now.
        if !matches!(self.0.try_wait(), Ok(None)) {
            return;
        }
        sys::signal(self.pid(), libc::SIGTERM);
        let limit = Instant::now() + Duration::from_secs(5);
        while matches!(self.0.try_wait(), Ok(None)) {
            if Instant::now() > limit {
                let _ = self.0.kill();
                let _ = self.0.wait();
                return;
            }
            sleep(Duration::from_millis(2));
        }
    }
}

/// Ends the daemon that a command started on demand: with SIGTERM, or as a crash would.
pub(crate) fn end_running(signal: Signal) -> Result<(), Failure> {
    let mut client = match Client::connect_running() {
        Ok(client) => client,
        Err(ConnectError::NotRunning(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let number = client.status()?.pid;
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    // Opened while it holds our connection: the number is its own.
    let process = pidfd_open(pid.ok_or("no process number")?, PidfdFlags::empty())?;
    drop(client);
    pidfd_send_signal(&process, signal)?;
    let mut waits = [PollFd::new(&process, PollFlags::IN)];
    if poll(&mut waits, Some(&PATIENCE))? == 0 {
        return Err(format!("the daemon {number} does not end").into());
    }
    Ok(())
}

/// Ends what was started on demand when this is dropped, also after a failure.
pub(crate) struct EndsRunning;

impl Drop for EndsRunning {
    fn drop(&mut self) {
        if let Err(error) = end_running(Signal::TERM) {
            eprintln!("a daemon may be left until it has been idle for long enough: {error}");
        }
    }
}
