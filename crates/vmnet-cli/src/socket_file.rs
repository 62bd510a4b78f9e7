//! Sockets in the file system that guests come by.
//!
//! A file goes with the process that made it. What a killed one left is replaced; a socket that somebody listens on is not.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketFileError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is too long for a socket, which takes 107 bytes: choose a shorter path")]
    Long(PathBuf),
    #[error("{0} is in use by another program")]
    InUse(PathBuf),
    #[error("{0} is no path of a socket")]
    NoName(PathBuf),
    #[error("{0} is there and is no socket: remove it or choose another path")]
    NoSocket(PathBuf),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> SocketFileError {
    let path = path.to_owned();
    move |source| SocketFileError::Io { path, source }
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
pub(crate) fn listen_stream(path: &Path) -> Result<(UnixListener, SocketFile), SocketFileError> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(at(path))?;
    Ok((listener, SocketFile(path.to_owned())))
}

/// The directory of somebody else's socket, which need not be there yet, and its name in it.
pub(crate) fn place_of(path: &Path) -> Result<(OwnedFd, String), SocketFileError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| SocketFileError::NoName(path.to_owned()))?;
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(SocketFileError::NoName(path.to_owned())),
    };
    let opened = fs::File::open(directory).map_err(at(directory))?;
    Ok((opened.into(), name.to_owned()))
}

/// Binds a datagram socket; a stale one is replaced.
pub(crate) fn bind_dgram(path: &Path) -> Result<(UnixDatagram, SocketFile), SocketFileError> {
    remove_stale(path)?;
    let socket = UnixDatagram::bind(path).map_err(at(path))?;
    Ok((socket, SocketFile(path.to_owned())))
}

/// Removes a socket that nobody listens on. Fails where none can be.
pub(crate) fn remove_stale(path: &Path) -> Result<(), SocketFileError> {
    // `sun_path` less the byte that ends it (unix(7)).
    if path.as_os_str().len() > 107 {
        return Err(SocketFileError::Long(path.to_owned()));
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(path)(error)),
        Ok(about) if !about.file_type().is_socket() => {
            return Err(SocketFileError::NoSocket(path.to_owned()));
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
        return Err(SocketFileError::InUse(path.to_owned()));
    }
    fs::remove_file(path).map_err(at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_sockets_are_replaced_and_living_ones_are_not() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let (listener, file) = listen_stream(&path).unwrap();
        assert!(matches!(
            listen_stream(&path),
            Err(SocketFileError::InUse(_))
        ));
        assert!(matches!(bind_dgram(&path), Err(SocketFileError::InUse(_))));
        drop((listener, file));
        assert!(!path.exists());

        drop(UnixDatagram::bind(&path).unwrap());
        let (_socket, _file) = bind_dgram(&path).unwrap();
        assert!(matches!(bind_dgram(&path), Err(SocketFileError::InUse(_))));

        let plain = base.path().join("plain");
        fs::write(&plain, "x").unwrap();
        assert!(matches!(
            listen_stream(&plain),
            Err(SocketFileError::NoSocket(_))
        ));
        assert!(plain.exists());

        let long = base.path().join("s".repeat(108));
        let refused = listen_stream(&long).unwrap_err().to_string();
        assert!(refused.contains("too long for a socket"), "{refused}");
    }
}
