//! A child that is read in the background and never outlives its test.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// How often a waiter looks at what wakes nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A running child with its standard streams. Dropping it kills it with SIGKILL; dropped by a panic, it prints what
/// the child said.
#[derive(Debug)]
pub struct Process {
    label: String,
    child: Child,
    stdin: Option<ChildStdin>,
    output: Arc<Transcript>,
    errors: Arc<Transcript>,
}

/// What a child wrote to one stream.
#[derive(Debug, Default)]
struct Transcript {
    text: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

impl Transcript {
    fn lock(&self) -> MutexGuard<'_, (Vec<u8>, bool)> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(self: &Arc<Self>, mut from: impl Read + Send + 'static) {
        let this = Arc::clone(self);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let count = from.read(&mut buffer).unwrap_or(0);
                let mut text = this.lock();
                text.0.extend_from_slice(&buffer[..count]);
                text.1 |= count == 0;
                drop(text);
                this.changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
    }

    fn wait_until<T>(
        &self,
        timeout: Duration,
        mut found: impl FnMut(&[u8]) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut text = self.lock();
        loop {
            if let Some(value) = found(&text.0) {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || text.1 {
                return None;
            }
            text = match self.changed.wait_timeout(text, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn wait_for_end(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while !self.lock().1 && Instant::now() < deadline {
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().0).into_owned()
    }
}

/// How a child ended and what it said.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// The standard output, without white space around it.
    ///
    /// # Panics
    /// If the child failed; with everything it said.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(
            self.status.success(),
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout.trim().to_owned()
    }
}

impl Process {
    /// Starts `command` with all three streams piped. The kernel kills the child if this thread dies.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn spawn(mut command: Command) -> Self {
        let label = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: between fork and exec only `prctl` is called. Closures run in the order they were added, so it
        // comes after a change of user, which would clear the setting.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {label}: {error}"));
        let (output, errors) = (Arc::<Transcript>::default(), Arc::<Transcript>::default());
        output.follow(child.stdout.take().expect("stdout is piped"));
        errors.follow(child.stderr.take().expect("stderr is piped"));
        Self {
            label,
            stdin: child.stdin.take(),
            child,
            output,
            errors,
        }
    }

    /// Starts `command` and waits for its end.
    ///
    /// # Panics
    /// If it cannot be started or has not ended after `timeout`.
    #[must_use]
    #[track_caller]
    pub fn run(command: Command, timeout: Duration) -> Finished {
        let mut this = Self::spawn(command);
        this.close_stdin();
        this.wait(timeout)
    }

    /// Waits for the end of the child, and then, for a moment, for the end of its output.
    ///
    /// # Panics
    /// If it has not ended after `timeout`.
    #[track_caller]
    pub fn wait(&mut self, timeout: Duration) -> Finished {
        let deadline = Instant::now() + timeout;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait for a child") {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "{} still runs after {timeout:?}",
                self.label
            );
            thread::sleep(LOOK_AGAIN);
        };
        // A grandchild may hold the pipes open: what is there after a second is taken.
        self.output.wait_for_end(Duration::from_secs(1));
        self.errors.wait_for_end(Duration::from_secs(1));
        Finished {
            status,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }

    /// True while the child has not ended.
    ///
    /// # Panics
    /// If the kernel cannot say.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait for a child").is_none()
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, unless it was already reaped.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
            kill_process(pid.expect("a pid is positive"), signal).expect("send a signal");
        }
    }

    /// Writes a line to its standard input.
    ///
    /// # Panics
    /// If the input was closed.
    #[track_caller]
    pub fn write_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| stdin.flush())
            .unwrap_or_else(|error| panic!("write to {}: {error}", self.label));
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// What it wrote to standard output until now.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.output.text()
    }

    /// What it wrote to standard error until now.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.errors.text()
    }

    /// Waits until `found` finds what it wants in the standard output.
    ///
    /// # Panics
    /// After `timeout`, or when the output ends without it.
    #[track_caller]
    pub fn wait_for_output<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut found: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let look = |bytes: &[u8]| found(&String::from_utf8_lossy(bytes));
        self.output.wait_until(timeout, look).unwrap_or_else(|| {
            panic!(
                "{} did not say {what} within {timeout:?} (or ended)",
                self.label
            )
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let status = match self.child.try_wait() {
            Ok(Some(status)) => status,
            _ => {
                let _ = self.child.kill();
                self.child
                    .wait()
                    .unwrap_or_else(|_| ExitStatus::from_raw(0))
            }
        };
        if thread::panicking() {
            eprintln!(
                "=== {} ({status})\n--- stdout\n{}\n--- stderr\n{}",
                self.label,
                self.stdout(),
                self.stderr()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn status_and_streams_come_back() {
        let finished = Process::run(shell("echo out; echo err >&2; exit 3"), SOON);
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(
            (finished.stdout.as_str(), finished.stderr.as_str()),
            ("out\n", "err\n")
        );
    }

    #[test]
    fn output_is_seen_while_the_child_runs_and_drop_kills_it() {
        let mut process = Process::spawn(shell("read line; echo got $line; exec sleep 1000"));
        process.write_line("this");
        process.wait_for_output("got", SOON, |text| text.contains("got this").then_some(()));
        let path = format!("/proc/{}", process.pid());
        drop(process);
        assert!(!std::path::Path::new(&path).exists());
    }

    #[test]
    #[should_panic(expected = "still runs")]
    fn a_child_that_does_not_end_is_a_failure() {
        drop(Process::run(
            shell("exec sleep 1000"),
            Duration::from_millis(50),
        ));
    }
}
