//! Where the service's socket comes from: from systemd, from the client that starts the service, or from the service itself.

use openvmnet::account::Group;
use openvmnet::client::{StartLock, remove_stale};
use openvmnet::place::{self, FolderError};
use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use vmnet_linux::sys::privilege::Identity;
use vmnet_linux::sys::process;

/// The socket could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The socket.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// Another service has it.
    #[error("a service listens on {0} already: `vmnet status` shows it")]
    Running(PathBuf),
    /// What was passed is no such socket.
    #[error("the socket that was passed cannot be used: {0}")]
    Passed(#[source] io::Error),
}

/// Who made the socket, and so who removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// systemd: it listens on when we are gone, and starts us again.
    Manager,
    /// The client that started us; ours now.
    Client,
    /// Ourselves.
    Own,
}

/// The socket.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) listener: UnixListener,
    pub(crate) path: PathBuf,
    pub(crate) origin: Origin,
    /// Which file the socket is, lest we remove another's.
    file: Option<(u64, u64)>,
    /// Held from the removal to the end.
    ending: RefCell<Option<StartLock>>,
}

impl Listening {
    /// What a client passed as the standard input.
    pub(crate) fn passed_by_client(path: &Path) -> Result<Self, ListenError> {
        let input = process::inherited(0).map_err(ListenError::Passed)?;
        Self::passed(input, path, Origin::Client)
    }

    /// What systemd passed, if it did (sd_listen_fds(3)).
    pub(crate) fn passed_by_manager(path: &Path) -> Result<Option<Self>, ListenError> {
        let mut passed = sd_notify::listen_fds().map_err(ListenError::Passed)?;
        let Some(descriptor) = passed.next() else {
            return Ok(None);
        };
        let descriptor = process::inherited(descriptor).map_err(ListenError::Passed)?;
        Self::passed(descriptor, path, Origin::Manager).map(Some)
    }

    fn passed(descriptor: OwnedFd, path: &Path, origin: Origin) -> Result<Self, ListenError> {
        let listens = rustix::net::sockopt::socket_acceptconn(&descriptor)
            .map_err(|error| ListenError::Passed(error.into()))?;
        if !listens {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it does not listen");
            return Err(ListenError::Passed(error));
        }
        let listener = UnixListener::from(descriptor);
        let path = listener
            .local_addr()
            .ok()
            .and_then(|address| address.as_pathname().map(Path::to_owned))
            .unwrap_or_else(|| path.to_owned());
        let file = file_of(&path);
        Ok(Self {
            listener,
            path,
            origin,
            file,
            ending: RefCell::default(),
        })
    }

    /// Our own, in a folder that is ours alone. A stale one is replaced.
    pub(crate) fn own(path: &Path) -> Result<Self, ListenError> {
        let at = |source| ListenError::Io(path.to_owned(), source);
        place::ensure_socket_folder(path)?;
        let _lock = StartLock::take(path).map_err(at)?;
        if UnixStream::connect(path).is_ok() {
            return Err(ListenError::Running(path.to_owned()));
        }
        remove_stale(path).map_err(at)?;
        let listener = UnixListener::bind(path).map_err(at)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(at)?;
        Ok(Self::made(listener, path))
    }

    /// The machine's own: members of the group may connect, and the folder becomes that of whom the service will be, so that
    /// it can remove the socket then. A folder that was there and was chosen is left alone.
    pub(crate) fn for_machine(
        path: &Path,
        identity: Option<&Identity>,
        group: Option<&Group>,
    ) -> Result<Self, ListenError> {
        let at = |source| ListenError::Io(path.to_owned(), source);
        let folder = place::ensure_machine_folder(path)?;
        let lock = StartLock::take(path).map_err(at)?;
        if UnixStream::connect(path).is_ok() {
            return Err(ListenError::Running(path.to_owned()));
        }
        remove_stale(path).map_err(at)?;
        let listener = UnixListener::bind(path).map_err(at)?;
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        let (uid, gid) = (identity.map(|it| it.uid), group.map(|it| it.gid));
        chown(path, uid, gid).map_err(at)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(at)?;
        if let Some(folder) = folder {
            lock.give(uid).map_err(at)?;
            chown(folder, uid, None).map_err(at)?;
        }
        Ok(Self::made(listener, path))
    }

    fn made(listener: UnixListener, path: &Path) -> Self {
        Self {
            listener,
            path: path.to_owned(),
            origin: Origin::Own,
            file: file_of(path),
            ending: RefCell::default(),
        }
    }

    /// Removes the socket unless somebody waits at it, so that the next client starts another service. `false`: a client
    /// has come or is about to.
    pub(crate) fn remove_unless(&self, waiting: impl Fn() -> bool) -> bool {
        if self.origin == Origin::Manager {
            return !waiting();
        }
        let lock = match StartLock::try_take(&self.path) {
            Ok(lock) => Some(lock),
            // The folder is gone: nobody can come this way any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // Of another user, as a folder that was chosen for the machine's service: no client starts that one.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(_) => return false,
        };
        // Out of the way first: whoever comes now does not find it, and waits for the lock. Then it is known who came before.
        let mut aside = self.path.as_os_str().to_owned();
        aside.push(".ending");
        let moved = self.is_there() && fs::rename(&self.path, &aside).is_ok();
        if waiting() {
            if moved && let Err(error) = fs::rename(&aside, &self.path) {
                tracing::error!(%error, "the socket is lost: the service ends with its clients");
            }
            return false;
        }
        if moved {
            let _gone = fs::remove_file(&aside);
        }
        // The next service needs the store, which is ours until this process has ended: whoever is to start it waits so long.
        self.ending.replace(lock);
        true
    }

    /// Removes the socket, whoever waits, if it is ours to remove.
    pub(crate) fn remove(&self) {
        if self.origin != Origin::Manager && self.is_there() {
            // Not waited for: a client may have it that waits for us.
            self.ending.replace(StartLock::try_take(&self.path).ok());
            let _gone = fs::remove_file(&self.path);
        }
    }

    /// What is at our path is our socket, and not that of another service that came after somebody removed ours.
    fn is_there(&self) -> bool {
        self.file.is_some() && file_of(&self.path) == self.file
    }
}

/// Which file a path names.
fn file_of(path: &Path) -> Option<(u64, u64)> {
    let about = fs::symlink_metadata(path).ok()?;
    Some((about.dev(), about.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_may_go_unless_a_client_is_about_to_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmnet.sock");
        let listening = Listening::own(&path).unwrap();
        let lock = StartLock::take(&path).unwrap();
        assert!(
            !listening.remove_unless(|| false),
            "a client starts a service"
        );
        drop(lock);
        assert!(!listening.remove_unless(|| true), "a client waits");
        assert!(listening.remove_unless(|| false));
        assert!(!path.exists());
    }

    #[test]
    fn a_service_whose_folder_is_gone_may_go() {
        let folder = tempfile::tempdir().unwrap();
        let listening = Listening::own(&folder.path().join("vmnet.sock")).unwrap();
        folder.close().unwrap();
        assert!(!listening.remove_unless(|| true), "a client waits");
        assert!(listening.remove_unless(|| false));
    }
}
