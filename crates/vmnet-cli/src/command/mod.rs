//! A command's life.
//!
//! | file | what |
//! | --- | --- |
//! | [`channel`] | what a process inside a namespace and its parent tell each other |
//! | [`foreground`] | signals, stopping and the terminal, for whoever waits for a command |
//! | [`inside`] | process 1 of a namespace: makes its interface, starts the command, keeps the lease |
//! | [`interface`] | an interface inside: its tap, and what a lease makes of it |
//! | [`leased`] | an interface that follows its lease |

pub(crate) mod channel;
pub(crate) mod foreground;
pub(crate) mod inside;
pub(crate) mod interface;
pub(crate) mod leased;

use crate::logging::say;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use vmnet_linux::sys::process;
use vmnet_linux::sys::signal::Mask;

/// How a command ended, and so how `vmnet` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Ending {
    /// It returned this status.
    Status(u8),
    /// This signal ended it.
    Signal(i32),
}

impl Ending {
    /// All went well.
    pub(crate) const SUCCESS: Self = Self::Status(0);
}

/// The command could not be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct NotExecuted {
    errno: i32,
}

impl NotExecuted {
    fn by(error: &std::io::Error) -> Self {
        let unknown = rustix::io::Errno::IO.raw_os_error();
        Self {
            errno: error.raw_os_error().unwrap_or(unknown),
        }
    }

    /// Says so, and gives the status shells give.
    pub(crate) fn report(self, command: &OsStr) -> Ending {
        let missing = self.errno == rustix::io::Errno::NOENT.raw_os_error();
        let why = std::io::Error::from_raw_os_error(self.errno);
        if missing {
            say(format_args!("{}: command not found", command.display()));
        } else {
            say(format_args!(
                "{}: cannot be executed: {why}",
                command.display()
            ));
        }
        Ending::Status(if missing { 127 } else { 126 })
    }
}

/// A command line as exec wants it.
pub(crate) struct Program {
    arguments: Vec<CString>,
}

/// A word of a command line holds a zero byte.
#[derive(Debug, thiserror::Error)]
#[error("`{}` holds a zero byte, which no command line can carry", .0.display())]
pub(crate) struct ZeroByte(OsString);

impl Program {
    /// The words, the first of which names the program.
    pub(crate) fn new(words: &[OsString]) -> Result<Self, ZeroByte> {
        let arguments = words
            .iter()
            .map(|word| CString::new(word.as_bytes()).map_err(|_| ZeroByte(word.clone())))
            .collect::<Result<_, _>>()?;
        Ok(Self { arguments })
    }

    /// Replaces this process; returns only if that failed.
    pub(crate) fn execute(&self, mask: &Mask) -> NotExecuted {
        let errno = match self.arguments.first() {
            Some(program) => process::execute(program, &self.arguments, mask).raw_os_error(),
            None => None,
        };
        let missing = rustix::io::Errno::NOENT.raw_os_error();
        match errno {
            // exec says so too when it may not look into a folder of PATH.
            Some(errno) if errno == rustix::io::Errno::ACCESS.raw_os_error() && !self.exists() => {
                NotExecuted { errno: missing }
            }
            errno => NotExecuted {
                errno: errno.unwrap_or(missing),
            },
        }
    }

    /// Whether there is a file of the program's name, where exec looks for it.
    fn exists(&self) -> bool {
        let name = self.arguments.first();
        name.is_some_and(|word| is_there(OsStr::from_bytes(word.as_bytes())))
    }

    /// Forks a child that becomes the program, if `prepare` went well there.
    pub(crate) fn start(
        &self,
        mask: &Mask,
        prepare: impl FnOnce() -> std::io::Result<()>,
    ) -> std::io::Result<Started> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        match process::fork(0)? {
            process::Side::Parent(pid) => Ok(Started { pid, failure: read }),
            process::Side::Child => {
                let failure = match prepare() {
                    Ok(()) => self.execute(mask),
                    Err(error) => NotExecuted::by(&error),
                };
                let _ = rustix::io::write(&write, &failure.errno.to_ne_bytes());
                process::exit_now(127)
            }
        }
    }
}

/// Whether there is a file of this name, where exec looks for it.
fn is_there(name: &OsStr) -> bool {
    if name.as_bytes().contains(&b'/') {
        // One that cannot be looked at may be there.
        return !matches!(Path::new(name).try_exists(), Ok(false));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// How `vmnet` ends without the program, if that is known before anything is begun.
pub(crate) fn missing(words: &[OsString]) -> Option<Ending> {
    let name = words.first().filter(|name| !is_there(name))?;
    let errno = rustix::io::Errno::NOENT.raw_os_error();
    Some(NotExecuted { errno }.report(name))
}

/// A child that is about to become a program.
pub(crate) struct Started {
    pid: i32,
    /// Closed by the exec, or told why there was none.
    failure: OwnedFd,
}

impl Started {
    /// Waits until the program executes; answers its process id, or why it does not.
    pub(crate) fn wait(self) -> std::io::Result<Result<i32, NotExecuted>> {
        let mut errno = [0; 4];
        let length = rustix::io::retry_on_intr(|| rustix::io::read(&self.failure, &mut errno))?;
        if length == 0 {
            return Ok(Ok(self.pid));
        }
        process::wait(self.pid);
        Ok(Err(NotExecuted {
            errno: i32::from_ne_bytes(errno),
        }))
    }
}
