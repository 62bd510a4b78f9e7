//! What a command must not see of the service.
//!
//! A command of `vmnet run` has the caller's files, so it could ask the service for anything. An empty folder covers the one
//! of the service's socket in its mount namespace: `openvmnet::place::runtime_folder`, and the folder of `$VMNET_SOCKET` if
//! that is closed to others (mode 0700) and holds nothing else. Another folder is left alone: choose one for the socket. The
//! folder is covered, not the socket: a service that starts again makes a new one there.
//!
//! The folder of the machine's socket is covered too, if it holds nothing else.
//!
//! The cover is read-only, and lies over the folder of what the service keeps as well: the command must not start a service
//! of its own that would write there in the place of the user's. Whoever has `--root` can take covers off.

use openvmnet::place::{self, Scope};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Folders to cover. The runtime folder is made if it is not there: a service may start later.
pub(crate) fn folders() -> Vec<PathBuf> {
    let runtime = place::runtime_folder();
    let socket = place::socket(Scope::User);
    let mut found = Vec::new();
    match place::ensure_private(&runtime) {
        Ok(()) => found.push(runtime.clone()),
        Err(error) => tracing::debug!(%error, "no folder of the service is there to be covered"),
    }
    let folder = socket.parent().filter(|folder| *folder != runtime);
    if let Some(folder) = folder.filter(|folder| folder.is_dir()) {
        if is_closed(folder) && holds_only(folder, socket.file_name().unwrap_or_default()) {
            found.push(folder.to_owned());
        } else {
            tracing::info!(
                "{} has more in it than the service's socket: the command can reach it",
                folder.display()
            );
        }
    }
    // Who is in the machine's group has a say there too. The service tells guests by their network namespace as well.
    let machines = place::socket(Scope::System);
    let folder = machines.parent().filter(|folder| folder.is_dir());
    found.extend(
        folder
            .filter(|folder| holds_only(folder, machines.file_name().unwrap_or_default()))
            .map(Path::to_owned),
    );
    found.extend(place::state(Scope::User).filter(|folder| folder.is_dir()));
    found
}

/// Whether a folder is this user's alone.
fn is_closed(folder: &Path) -> bool {
    let uid = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(folder)
        .is_ok_and(|about| about.is_dir() && about.uid() == uid && about.mode() & 0o077 == 0)
}

/// Whether a folder holds nothing but this socket and what belongs to it.
fn holds_only(folder: &Path, socket: &OsStr) -> bool {
    let mut lock = socket.to_owned();
    lock.push(".lock");
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.all(|entry| {
            entry.is_ok_and(|entry| entry.file_name() == socket || entry.file_name() == lock)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_a_folder_of_the_socket_alone_is_covered() {
        let folder = tempfile::tempdir().unwrap();
        let only = || holds_only(folder.path(), OsStr::new("s"));
        assert!(only());
        fs::write(folder.path().join("s"), "").unwrap();
        fs::write(folder.path().join("s.lock"), "").unwrap();
        assert!(only());
        fs::write(folder.path().join("notes"), "").unwrap();
        assert!(!only());
        assert!(!holds_only(Path::new("/no/such/folder"), OsStr::new("s")));
        let mode = |mode| fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode));
        mode(0o700).unwrap();
        assert!(is_closed(folder.path()));
        mode(0o755).unwrap();
        assert!(!is_closed(folder.path()));
    }
}
