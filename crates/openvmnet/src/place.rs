//! Where the service listens and keeps its state.
//!
//! | what | where, the first that applies |
//! | --- | --- |
//! | socket | `$VMNET_SOCKET`, `$XDG_RUNTIME_DIR/vmnet/vmnet.sock`, `/run/user/UID/vmnet/vmnet.sock`, `/tmp/vmnet-UID/vmnet.sock` |
//! | state | `$XDG_STATE_HOME/vmnet`, `~/.local/state/vmnet` |
//! | configuration | `$VMNET_CONFIG`, `$XDG_CONFIG_HOME/vmnet/vmnet.toml`, `~/.config/vmnet/vmnet.toml` |
//!
//! The system's service has `$VMNET_SYSTEM_SOCKET`, else `/run/vmnet/vmnet.sock`; `/var/lib/vmnet`; `$VMNET_CONFIG`, else
//! `/etc/vmnet/vmnet.toml`.

use rustix::fs::StatVfsMountFlags;
use serde::{Deserialize, Serialize};
use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use zlink::introspect::CustomType;

/// The name of the socket in its folder.
const SOCKET: &str = "vmnet.sock";
/// The name of the configuration file in its folder.
const CONFIGURATION: &str = "vmnet.toml";

/// What statfs(2) says of a tmpfs.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// A folder could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could reach what is in it.
    #[error(
        "{0} belongs to another user or is open to others: let VMNET_SOCKET name a socket in a folder of yours, or XDG_RUNTIME_DIR be your own"
    )]
    Foreign(PathBuf),
    /// The socket's path depends on the working folder, which the service does not share with its clients.
    #[error("{1} is {0}, which is no absolute path: let it begin with /")]
    Relative(PathBuf, &'static str),
    /// The kernel takes no such path for a socket.
    #[error(
        "{0} is too long for a socket, which takes {SOCKET_MOST} bytes: let {1} name a shorter one, or XDG_RUNTIME_DIR a folder higher up"
    )]
    Long(PathBuf, &'static str),
    /// `vmnet run` has covered it.
    #[error("{0} is covered: this is inside `vmnet run`, and guests have no say over networks")]
    Covered(PathBuf),
}

/// The longest path of a socket: `sun_path` less the byte that ends it (unix(7)).
const SOCKET_MOST: usize = 107;

/// Whose service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
#[zlink(rename_all = "lowercase")]
pub enum Scope {
    /// This user's.
    User,
    /// The machine's.
    System,
}

impl Scope {
    /// The environment variable that names its socket.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::User => "VMNET_SOCKET",
            Self::System => "VMNET_SYSTEM_SOCKET",
        }
    }
}

/// What the places depend on.
struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    uid: u32,
    is_folder: &'a dyn Fn(&Path) -> bool,
}

impl Surroundings<'_> {
    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.variable)(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }

    fn runtime_folder(&self) -> PathBuf {
        if let Some(path) = self
            .path("XDG_RUNTIME_DIR")
            .filter(|path| path.is_absolute())
        {
            return path.join("vmnet");
        }
        let runtime = PathBuf::from(format!("/run/user/{}", self.uid));
        if (self.is_folder)(&runtime) {
            return runtime.join("vmnet");
        }
        PathBuf::from(format!("/tmp/vmnet-{}", self.uid))
    }

    fn socket(&self, scope: Scope) -> PathBuf {
        self.path(scope.variable()).unwrap_or_else(|| match scope {
            Scope::User => self.runtime_folder().join(SOCKET),
            Scope::System => PathBuf::from("/run/vmnet").join(SOCKET),
        })
    }

    fn home(&self, variable: &str, below: &str) -> Option<PathBuf> {
        self.path(variable)
            .or_else(|| Some(self.path("HOME")?.join(below)))
            .filter(|path| path.is_absolute())
            .map(|path| path.join("vmnet"))
    }

    fn state(&self, scope: Scope) -> Option<PathBuf> {
        match scope {
            Scope::User => self.home("XDG_STATE_HOME", ".local/state"),
            Scope::System => Some(PathBuf::from("/var/lib/vmnet")),
        }
    }

    fn configuration(&self, scope: Scope) -> Option<PathBuf> {
        if let Some(path) = self.path("VMNET_CONFIG") {
            return Some(path);
        }
        match scope {
            Scope::User => self.home("XDG_CONFIG_HOME", ".config"),
            Scope::System => Some(PathBuf::from("/etc/vmnet")),
        }
        .map(|folder| folder.join(CONFIGURATION))
    }
}

fn here<T>(ask: impl FnOnce(&Surroundings<'_>) -> T) -> T {
    ask(&Surroundings {
        variable: &|name| env::var_os(name),
        uid: rustix::process::geteuid().as_raw(),
        is_folder: &Path::is_dir,
    })
}

/// Whether the user's service and the machine's are one, as where `VMNET_SOCKET` names the machine's.
#[must_use]
pub fn is_one_service() -> bool {
    socket(Scope::User) == socket(Scope::System)
}

/// The socket of the service.
#[must_use]
pub fn socket(scope: Scope) -> PathBuf {
    here(|surroundings| surroundings.socket(scope))
}

/// The folder in which this user's sockets are, if nothing else is said.
#[must_use]
pub fn runtime_folder() -> PathBuf {
    here(|surroundings| surroundings.runtime_folder())
}

/// The folder of what must stay; `None` for a user without a home.
#[must_use]
pub fn state(scope: Scope) -> Option<PathBuf> {
    here(|surroundings| surroundings.state(scope))
}

/// Whether there is a store or a configuration file of this user, so that there may be networks without a service.
#[must_use]
pub fn is_something_kept() -> bool {
    if configuration(Scope::User).is_some_and(|file| file.exists()) {
        return true;
    }
    let Some(folder) = state(Scope::User) else {
        return false;
    };
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("store"))
        }),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// The configuration file; `None` for a user without a home. It need not be there.
#[must_use]
pub fn configuration(scope: Scope) -> Option<PathBuf> {
    here(|surroundings| surroundings.configuration(scope))
}

/// Whether somebody has named the configuration file, which has to be there then.
#[must_use]
pub fn is_configuration_named() -> bool {
    here(|surroundings| surroundings.path("VMNET_CONFIG").is_some())
}

fn at(path: &Path) -> impl Fn(io::Error) -> FolderError {
    move |source| FolderError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Makes a folder that is ours alone (mode 0700), with those above it.
///
/// # Errors
/// It cannot be made, belongs to somebody else, or others may write to it.
pub fn ensure_private(path: &Path) -> Result<(), FolderError> {
    if let Some(above) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(above)
            .map_err(at(path))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at(path)(error)),
    }
    check_private(path)
}

/// Refuses a folder that is not ours alone.
fn check_private(path: &Path) -> Result<(), FolderError> {
    // Not followed: somebody else's link in /tmp must not lead us anywhere.
    let about = fs::symlink_metadata(path).map_err(at(path))?;
    let uid = rustix::process::geteuid().as_raw();
    if !about.is_dir() || about.uid() != uid || about.mode() & 0o022 != 0 {
        return Err(FolderError::Foreign(path.to_owned()));
    }
    Ok(())
}

/// Makes the folder of a socket, and refuses one where another user could have put the socket. A folder that is there
/// and was chosen with `$VMNET_SOCKET` is the chooser's concern.
///
/// # Errors
/// See [`ensure_private`]; and a relative path is refused, and a folder that `vmnet run` has covered.
pub fn ensure_socket_folder(socket: &Path) -> Result<(), FolderError> {
    match folder_of(socket, Scope::User)? {
        Some(folder) => ensure_private(folder),
        None => Ok(()),
    }
}

/// Makes the folder of the machine's socket, open to all for looking. Answers it if it is the service's own: one that is
/// there and was chosen with `$VMNET_SYSTEM_SOCKET` is the chooser's concern.
///
/// # Errors
/// It cannot be made, others than its owner may write to it, or the path is relative.
pub fn ensure_machine_folder(socket: &Path) -> Result<Option<&Path>, FolderError> {
    let Some(folder) = folder_of(socket, Scope::System)? else {
        return Ok(None);
    };
    let mut builder = DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o755)
        .create(folder)
        .map_err(at(folder))?;
    let about = fs::symlink_metadata(folder).map_err(at(folder))?;
    if !about.is_dir() || about.mode() & 0o022 != 0 {
        return Err(FolderError::Foreign(folder.to_owned()));
    }
    Ok(Some(folder))
}

/// As [`ensure_socket_folder`], and makes nothing: in a folder that is not there is no socket either.
///
/// # Errors
/// As there.
pub fn check_socket_folder(socket: &Path, scope: Scope) -> Result<(), FolderError> {
    let folder = folder_of(socket, scope)?;
    if scope == Scope::System {
        // Only the superuser makes folders there.
        return Ok(());
    }
    match folder.map_or(Ok(()), check_private) {
        Err(FolderError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        checked => checked,
    }
}

/// Whether this is the cover that `vmnet run` puts over a folder: of memory, read-only, and closed to writers by its mode.
fn is_covered(folder: &Path) -> bool {
    let of_memory = rustix::fs::statfs(folder).is_ok_and(|about| about.f_type == TMPFS);
    let read_only = rustix::fs::statvfs(folder)
        .is_ok_and(|about| about.f_flag.contains(StatVfsMountFlags::RDONLY));
    let closed = || fs::symlink_metadata(folder).is_ok_and(|about| about.mode() & 0o777 == 0o555);
    of_memory && read_only && closed()
}

/// The folder of a socket, unless that is the chooser's concern.
fn folder_of(socket: &Path, scope: Scope) -> Result<Option<&Path>, FolderError> {
    let variable = scope.variable();
    if !socket.is_absolute() {
        return Err(FolderError::Relative(socket.to_owned(), variable));
    }
    if socket.as_os_str().len() > SOCKET_MOST {
        return Err(FolderError::Long(socket.to_owned(), variable));
    }
    if let Some(folder) = socket.parent().filter(|folder| is_covered(folder)) {
        return Err(FolderError::Covered(folder.to_owned()));
    }
    let chosen = env::var_os(variable).is_some_and(|value| !value.is_empty());
    Ok(socket
        .parent()
        .filter(|folder| !(chosen && folder.exists())))
}

/// The executable that is the service: `$VMNET_EXECUTABLE`, this program if it is `vmnet`, one beside this program, or the
/// first of `$PATH`.
pub(crate) fn executable() -> Option<PathBuf> {
    if let Some(path) = env::var_os("VMNET_EXECUTABLE").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let own = env::current_exe().ok();
    if own
        .as_ref()
        .is_some_and(|own| own.file_name() == Some("vmnet".as_ref()))
    {
        return own;
    }
    let beside = own.and_then(|own| Some(own.parent()?.to_owned()));
    let folders = env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(env::split_paths(&folders))
        .map(|folder| folder.join("vmnet"))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_first_place_that_applies() {
        type Variables = &'static [(&'static str, &'static str)];
        let cases: [(Variables, bool, &str, Option<&str>); 5] = [
            (&[], false, "/tmp/vmnet-7/vmnet.sock", None),
            (
                &[("HOME", "/h")],
                true,
                "/run/user/7/vmnet/vmnet.sock",
                Some("/h/.local/state/vmnet"),
            ),
            (
                &[("XDG_RUNTIME_DIR", "/r"), ("XDG_STATE_HOME", "/s")],
                true,
                "/r/vmnet/vmnet.sock",
                Some("/s/vmnet"),
            ),
            (
                &[("VMNET_SOCKET", "/x/y"), ("XDG_RUNTIME_DIR", "/r")],
                true,
                "/x/y",
                None,
            ),
            (
                &[("VMNET_SOCKET", ""), ("XDG_STATE_HOME", "relative")],
                false,
                "/tmp/vmnet-7/vmnet.sock",
                None,
            ),
        ];
        for (variables, run, socket, state) in cases {
            let surroundings = Surroundings {
                variable: &|name| {
                    let found = variables.iter().find(|(other, _)| *other == name);
                    found.map(|(_, value)| OsString::from(value))
                },
                uid: 7,
                is_folder: &|_| run,
            };
            assert_eq!(
                surroundings.socket(Scope::User),
                Path::new(socket),
                "{variables:?}"
            );
            assert_eq!(
                surroundings.state(Scope::User),
                state.map(PathBuf::from),
                "{variables:?}"
            );
        }
    }

    #[test]
    fn a_relative_socket_is_refused_by_its_name() {
        let look = |socket: &Path| check_socket_folder(socket, Scope::User);
        for check in [ensure_socket_folder, look] {
            let refused = check(Path::new("q2.sock")).unwrap_err().to_string();
            assert!(refused.contains("VMNET_SOCKET is q2.sock"), "{refused}");
        }
    }

    #[test]
    fn a_look_at_a_folder_makes_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/vmnet");
        check_socket_folder(&path.join("vmnet.sock"), Scope::User).unwrap();
        assert!(!folder.path().join("a").exists());
        ensure_private(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            check_socket_folder(&path.join("vmnet.sock"), Scope::User),
            Err(FolderError::Foreign(_))
        ));
    }

    #[test]
    fn a_private_folder_is_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/vmnet");
        ensure_private(&path).unwrap();
        ensure_private(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(
            ensure_private(&path),
            Err(FolderError::Foreign(_))
        ));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path().join("a"), &link).unwrap();
        assert!(matches!(
            ensure_private(&link),
            Err(FolderError::Foreign(_))
        ));
    }
}
