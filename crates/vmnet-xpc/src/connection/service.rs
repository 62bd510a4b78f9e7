//! Named services: sockets in the runtime folder, where launchd has names.
//!
//! The service NAME is the socket `$XDG_RUNTIME_DIR/vmnet/xpc/NAME` (see [`openvmnet::place`]), in a folder that is its
//! user's alone. Beside it stands `NAME.lock`, locked as long as the service listens: a socket whose file is not
//! locked is left over, and is replaced.

use openvmnet::place;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, UCred, sockopt};
use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

/// How many clients can wait to be accepted.
const BACKLOG: i32 = 128;
/// How long a client waits for a service whose line of clients is full.
const PATIENCE: Duration = Duration::from_secs(2);

/// A service's name as a file's, if it can be one.
fn file_name(name: &CStr) -> io::Result<&OsStr> {
    let name = name.to_bytes();
    let is_name = !name.is_empty() && !name.starts_with(b".") && !name.contains(&b'/');
    if !is_name || name.ends_with(b".lock") || name.len() > 200 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no name of a service",
        ));
    }
    Ok(OsStr::from_bytes(name))
}

fn path(name: &CStr) -> io::Result<PathBuf> {
    Ok(place::runtime_folder().join("xpc").join(file_name(name)?))
}

fn stream() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

/// A socket that listens, and the lock that says so.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) socket: OwnedFd,
    pub(super) lock: OwnedFd,
}

/// Listens as a service. Fails if another does.
pub(super) fn listen(name: &CStr) -> io::Result<Listening> {
    let path = path(name)?;
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    place::ensure_private(&place::runtime_folder()).map_err(io::Error::other)?;
    place::ensure_private(folder).map_err(io::Error::other)?;
    let mut lock_path = path.clone().into_os_string();
    lock_path.push(".lock");
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = rustix::fs::open(&lock_path, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = stream()?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(Listening { socket, lock })
}

/// Connects to a service of this user, or of root.
pub(super) fn connect(name: &CStr) -> io::Result<OwnedFd> {
    let socket = stream()?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
    let address = SocketAddrUnix::new(&path(name)?)?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&socket, &address))?;
    let peer = credentials(&socket)?;
    if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(socket)
}

/// Who is at the other end.
pub(super) fn credentials(socket: &OwnedFd) -> io::Result<UCred> {
    Ok(sockopt::socket_peercred(socket)?)
}
