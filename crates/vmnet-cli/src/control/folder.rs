//! Where the sockets of named networks are, and the lock that says who holds a name.
//!
//! `$VMNET_SOCKET`, else `$XDG_RUNTIME_DIR/vmnet`, else `/run/user/UID/vmnet`, else `/tmp/vmnet-UID`. The folder is ours
//! alone (mode 0700); one that belongs to somebody else is refused. A lock (flock) goes with its process, also when that
//! was killed: what a killed one left behind is replaced.

use crate::identity::NetworkName;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A folder, lock or socket could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{0} belongs to another user or is open to others: remove it, or set VMNET_SOCKET to a folder of yours"
    )]
    Foreign(PathBuf),
    #[error("the network {name} is already up, held by process {pid}")]
    Held { name: NetworkName, pid: String },
    #[error("{0} is in use by another program")]
    SocketInUse(PathBuf),
    #[error("{0} is there and is no socket: remove it or choose another path")]
    NoSocket(PathBuf),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { path, source }
}

/// The folder of sockets, made if it is not there.
pub(crate) fn folder() -> Result<PathBuf, FolderError> {
    let uid = rustix::process::getuid().as_raw();
    let path = place(
        |name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        },
        uid,
    );
    ensure_private(&path, uid)?;
    Ok(path)
}

fn place(variable: impl Fn(&str) -> Option<PathBuf>, uid: u32) -> PathBuf {
    if let Some(path) = variable("VMNET_SOCKET") {
        return path;
    }
    if let Some(path) = variable("XDG_RUNTIME_DIR") {
        return path.join("vmnet");
    }
    let runtime = PathBuf::from(format!("/run/user/{uid}"));
    if runtime.is_dir() {
        return runtime.join("vmnet");
    }
    PathBuf::from(format!("/tmp/vmnet-{uid}"))
}

fn ensure_private(path: &Path, uid: u32) -> Result<(), FolderError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(at(path)(error)),
    }
    // Not followed: somebody else's link in /tmp must not lead us anywhere.
    let about = fs::symlink_metadata(path).map_err(at(path))?;
    if !about.is_dir() || about.uid() != uid || about.mode() & 0o022 != 0 {
        return Err(FolderError::Foreign(path.to_owned()));
    }
    Ok(())
}

/// The socket of a network.
pub(crate) fn socket_path(folder: &Path, name: &NetworkName) -> PathBuf {
    folder.join(format!("{name}.sock"))
}

/// The names of the networks that have a socket, up or not.
pub(crate) fn names(folder: &Path) -> Result<Vec<NetworkName>, FolderError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let entry = entry.map_err(at(folder))?;
        if let Some(name) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_suffix(".sock"))
        {
            names.extend(name.parse::<NetworkName>());
        }
    }
    names.sort();
    Ok(names)
}

/// The right to hold a network's name; gone when dropped, or when the process is.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock of a name.
    pub(crate) fn take(folder: &Path, name: &NetworkName) -> Result<Self, FolderError> {
        let path = folder.join(format!("{name}.lock"));
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mut file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
                .map(File::from)
                .map_err(|error| at(&path)(error.into()))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let mut pid = String::new();
                    let _ = file.read_to_string(&mut pid);
                    return Err(FolderError::Held {
                        name: name.clone(),
                        pid: pid.trim().to_owned(),
                    });
                }
                Err(error) => return Err(at(&path)(error.into())),
            }
            // The last holder may have removed the file between our open and our lock.
            let there = fs::metadata(&path).map(|about| about.ino()).ok();
            if there != file.metadata().ok().map(|about| about.ino()) {
                continue;
            }
            file.set_len(0).map_err(at(&path))?;
            file.rewind().map_err(at(&path))?;
            writeln!(file, "{}", std::process::id()).map_err(at(&path))?;
            return Ok(Self { _file: file, path });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// A socket in the file system that goes when dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens on a stream socket; a stale one is replaced.
pub(crate) fn listen_stream(path: &Path) -> Result<(UnixListener, SocketFile), FolderError> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(at(path))?;
    Ok((listener, SocketFile(path.to_owned())))
}

/// Binds a datagram socket; a stale one is replaced.
pub(crate) fn bind_dgram(path: &Path) -> Result<(UnixDatagram, SocketFile), FolderError> {
    remove_stale(path)?;
    let socket = UnixDatagram::bind(path).map_err(at(path))?;
    Ok((socket, SocketFile(path.to_owned())))
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), FolderError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(path)(error)),
        Ok(about) if !about.file_type().is_socket() => {
            return Err(FolderError::NoSocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    let refused = |result: io::Result<()>| {
        result.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    let as_stream = refused(UnixStream::connect(path).map(drop));
    let as_dgram = refused(UnixDatagram::unbound().and_then(|socket| socket.connect(path)));
    // A living socket accepts one of the two, or refuses the other kind as the wrong type.
    if !(as_stream && as_dgram) {
        return Err(FolderError::SocketInUse(path.to_owned()));
    }
    fs::remove_file(path).map_err(at(path))
}

#[cfg(test)]
mod tests;
