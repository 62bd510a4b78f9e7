//! Entering a network namespace that somebody else made (setns(2), `ioctl_ns(2)`).
//!
//! A network namespace belongs to a user namespace. Whoever made that one has every capability in it, so an ordinary user
//! enters what his own programs made: first the user namespace, then the network. Nothing here makes a namespace.

use crate::sys::ioctl;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fmt;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;

/// A network namespace: of a process, or by its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netns {
    /// The one a process is in.
    Process(i32),
    /// `/proc/PID/ns/net`, or what is mounted elsewhere (`ip netns`: `/run/netns/NAME`).
    File(PathBuf),
}

/// A namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// There is none.
    #[error("{0}: there is no such network namespace: {1}")]
    Open(Netns, #[source] io::Error),
    /// It belongs to somebody else.
    #[error(
        "{0}: the network namespace belongs to another user, or to the system: enter one that a program of yours made, or run as root"
    )]
    NotOwner(Netns),
    /// Something else.
    #[error("{0}: entering the network namespace: {1}")]
    Enter(Netns, #[source] io::Error),
}

impl FromStr for Netns {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.parse() {
            Ok(pid) if pid > 0 => Self::Process(pid),
            _ => Self::File(text.into()),
        })
    }
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Netns {
    /// Moves this process into it, with every capability over it. This process must have one thread; it cannot come back.
    ///
    /// # Errors
    /// See [`EnterError`].
    pub fn enter(&self) -> Result<(), EnterError> {
        let path = match self {
            Self::Process(pid) => PathBuf::from(format!("/proc/{pid}/ns/net")),
            Self::File(path) => path.clone(),
        };
        let open = |path: &PathBuf| {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        };
        let network = open(&path).map_err(|error| match error {
            Errno::ACCESS | Errno::PERM => EnterError::NotOwner(self.clone()),
            other => EnterError::Open(self.clone(), other.into()),
        })?;
        let failed = |error: io::Error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::PERM) => EnterError::NotOwner(self.clone()),
            Some(Errno::NOTTY) => EnterError::Open(
                self.clone(),
                io::Error::new(io::ErrorKind::InvalidInput, "the file is no namespace"),
            ),
            _ => EnterError::Enter(self.clone(), error),
        };
        let owner = ioctl::owning_user_namespace(&network).map_err(failed)?;
        if !is_ours(&owner).map_err(failed)? {
            let kind = LinkNameSpaceType::User;
            move_into_link_name_space(owner.as_fd(), Some(kind))
                .map_err(|error| failed(error.into()))?;
        }
        let kind = LinkNameSpaceType::Network;
        move_into_link_name_space(network.as_fd(), Some(kind)).map_err(|error| failed(error.into()))
    }
}

/// Whether it is the user namespace that this process is in: the kernel refuses to enter that again.
fn is_ours(namespace: &OwnedFd) -> io::Result<bool> {
    let ours = rustix::fs::stat("/proc/self/ns/user")?;
    let it = rustix::fs::fstat(namespace)?;
    Ok((ours.st_dev, ours.st_ino) == (it.st_dev, it.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_process_and_the_rest_a_file() {
        for (text, expected) in [
            ("4711", Netns::Process(4711)),
            ("/proc/1/ns/net", Netns::File("/proc/1/ns/net".into())),
            ("0", Netns::File("0".into())),
            ("-1", Netns::File("-1".into())),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_namespace_is_named() {
        let missing = Netns::File("/no/such/file".into()).enter().unwrap_err();
        assert!(matches!(missing, EnterError::Open(..)), "{missing}");
        let plain = Netns::File("/etc/passwd".into()).enter().unwrap_err();
        assert!(plain.to_string().contains("no namespace"), "{plain}");
    }
}
