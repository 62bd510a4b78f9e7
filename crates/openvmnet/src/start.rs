//! Reaching the service, and starting it when it does not run.
//!
//! The first client takes a lock, makes the socket, and starts the service with it: whoever comes meanwhile waits for
//! the lock, finds the socket, and is answered when the service is ready. The service takes the same lock before it
//! goes, so a client is never left with a socket that nobody reads.

use crate::client::ConnectError;
use crate::place::{self, Scope};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a log may have grown to before a new service begins it anew, in bytes.
const LOG_MAX: u64 = 1 << 20;

/// The lock that decides who starts and who ends the service of a socket. It ends with this value, or with the process.
#[derive(Debug)]
pub struct StartLock {
    file: File,
}

impl StartLock {
    /// Waits for the lock of a socket.
    ///
    /// # Errors
    /// The lock file beside the socket cannot be made.
    pub fn take(socket: &Path) -> io::Result<Self> {
        Self::open(socket, FlockOperation::LockExclusive)
    }

    /// Takes the lock unless somebody else has it ([`io::ErrorKind::WouldBlock`]).
    ///
    /// # Errors
    /// Somebody else has it, or the lock file beside the socket cannot be made.
    pub fn try_take(socket: &Path) -> io::Result<Self> {
        Self::open(socket, FlockOperation::NonBlockingLockExclusive)
    }

    fn open(socket: &Path, operation: FlockOperation) -> io::Result<Self> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        // The file stays: a lock on a removed one would exclude nobody.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, operation))?;
        Ok(Self {
            file: File::from(file),
        })
    }

    /// Makes the lock's file another user's, who is to take it later.
    ///
    /// # Errors
    /// What fchown(2) says.
    pub fn give(&self, uid: Option<u32>) -> io::Result<()> {
        std::os::unix::fs::fchown(&self.file, uid, None)
    }
}

/// Connects to the service of this user, which is started if it does not run.
pub(crate) fn connect_or_start() -> Result<UnixStream, ConnectError> {
    let socket = place::socket(Scope::User);
    place::ensure_socket_folder(&socket)?;
    if let Some(stream) = connect(&socket)? {
        return Ok(stream);
    }
    let at = |source| ConnectError::Io(socket.clone(), source);
    let _lock = StartLock::take(&socket).map_err(at)?;
    // Another may have been faster.
    if let Some(stream) = connect(&socket)? {
        return Ok(stream);
    }
    remove_stale(&socket).map_err(at)?;
    let listener = UnixListener::bind(&socket).map_err(at)?;
    let closed = fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).map_err(at);
    if let Err(error) = closed.and_then(|()| start(listener)) {
        let _gone = fs::remove_file(&socket);
        return Err(error);
    }
    connect(&socket)?.ok_or_else(ended)
}

/// It started and ended: with its last words, where the log has them.
pub(crate) fn ended() -> ConnectError {
    let path = log_file().map_or_else(|| PathBuf::from("its log"), |(path, _)| path);
    let words = fs::read_to_string(&path).unwrap_or_default();
    let last = words.lines().rfind(|line| line.starts_with("vmnet: "));
    let why = last.map(|line| format!(": {}", line.trim_start_matches("vmnet: ")));
    ConnectError::Ended(path, why.unwrap_or_default())
}

/// `None`: nobody listens there.
pub(crate) fn connect(socket: &Path) -> Result<Option<UnixStream>, ConnectError> {
    match UnixStream::connect(socket) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(ConnectError::Io(socket.to_owned(), error)),
        },
    }
}

/// Removes a socket that nobody listens on.
///
/// # Errors
/// What is there is no socket, or cannot be removed.
pub fn remove_stale(socket: &Path) -> io::Result<()> {
    match fs::symlink_metadata(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(about) if !about.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "is there and is no socket: remove it, or choose another with VMNET_SOCKET",
        )),
        Ok(_) => fs::remove_file(socket),
    }
}

/// Starts the service with the socket as its standard input. It puts itself into the background and its first process
/// ends, so that no zombie is left with our caller. A caller that waits for all its children, or for none, may have been
/// told before us how that ended: whether the service runs is then found out by connecting.
fn start(listener: UnixListener) -> Result<(), ConnectError> {
    let executable = place::executable().ok_or(ConnectError::NoExecutable)?;
    let at = |source| ConnectError::Start(executable.clone(), source);
    let mut first = Command::new(&executable)
        .args(["daemon", "--activated"])
        .stdin(OwnedFd::from(listener))
        .stdout(Stdio::null())
        .stderr(log())
        .current_dir("/")
        .spawn()
        .map_err(at)?;
    match first.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(at(io::Error::other(format!("it ended at once, {status}")))),
        Err(error) if error.raw_os_error() == Some(Errno::CHILD.raw_os_error()) => Ok(()),
        Err(error) => Err(at(error)),
    }
}

/// Where a service that was started on demand writes what it has to say.
#[must_use]
pub fn log_path() -> Option<PathBuf> {
    place::state(Scope::User).map(|folder| folder.join("daemon.log"))
}

/// The log, open: beside the socket if the state's folder cannot be written to, so that what is wrong there can be said.
fn log_file() -> Option<(PathBuf, File)> {
    let beside = || {
        let mut path = place::socket(Scope::User).into_os_string();
        path.push(".log");
        PathBuf::from(path)
    };
    let usual = log_path().filter(|path| {
        let folder = path.parent();
        folder.is_some_and(|folder| place::ensure_private(folder).is_ok())
    });
    let places = usual.into_iter().chain([beside()]);
    places.into_iter().find_map(|path| {
        let mut options = File::options();
        options.create(true).append(true).mode(0o600);
        let file = options.open(&path).ok()?;
        Some((path, file))
    })
}

fn log() -> Stdio {
    let open = || {
        let (path, file) = log_file()?;
        if fs::metadata(&path).is_ok_and(|about| about.len() > LOG_MAX) {
            file.set_len(0).ok()?;
        }
        Some(Stdio::from(file))
    };
    open().unwrap_or_else(Stdio::null)
}
