//! `vmnet attach`: joins a port to a network that `vmnet up` holds.

use crate::args::Attach;
use crate::control::client::Client;
use crate::control::folder::{self, SocketFile};
use crate::control::protocol::AttachKind;
use crate::up::ENDING_SIGNALS;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use rustix::net::SocketType;
use rustix::net::sockopt;
use std::error::Error;
use std::os::fd::{AsFd as _, OwnedFd};
use vmnet_linux::kernel::tap;
use vmnet_linux::sys::process;
use vmnet_linux::sys::signal::Signals;

/// Attaches, and stays until a signal comes or the network ends.
pub(crate) fn run(attach: Attach) -> Result<(), Box<dyn Error>> {
    let (signals, _) = Signals::open(&ENDING_SIGNALS)?;
    let mut client = Client::connect(&attach.network)?;
    let (kind, descriptor, _socket) = attachment(&attach)?;
    let name = attach.name.as_ref().map(ToString::to_string);
    let attached = client.attach(kind, descriptor.as_fd(), name, attach.mac)?;
    // The holder has its copy; ours would keep a peer from seeing that the holder closed it.
    drop(descriptor);
    client.publish(&attach.publish, attached)?;
    tracing::info!(port = ?attached.port, attached.mtu, "attached");
    loop {
        let mut waits = [
            PollFd::new(&signals, PollFlags::IN),
            PollFd::new(&client, PollFlags::IN),
        ];
        match poll(&mut waits, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [signalled, left] = waits.map(|wait| !wait.revents().is_empty());
        if signalled && signals.next().is_some() {
            return Ok(());
        }
        if left {
            return Err(format!("the network {} has ended", attach.network).into());
        }
    }
}

/// What is to be attached, and the file that goes with us.
fn attachment(
    attach: &Attach,
) -> Result<(AttachKind, OwnedFd, Option<SocketFile>), Box<dyn Error>> {
    if let Some(path) = &attach.stream {
        let (listener, file) = folder::listen_stream(path)?;
        return Ok((AttachKind::StreamListener, listener.into(), Some(file)));
    }
    if let Some(path) = &attach.dgram {
        let (socket, file) = folder::bind_dgram(path)?;
        return Ok((AttachKind::DgramListener, socket.into(), Some(file)));
    }
    if let Some(name) = &attach.tap {
        return Ok((AttachKind::Tap, tap::open(name)?, None));
    }
    let number = attach.fd.ok_or("nothing to attach")?;
    let descriptor = process::inherited(number)
        .map_err(|error| format!("descriptor {number} is not open here: {error}"))?;
    Ok((kind(number, &descriptor)?, descriptor, None))
}

/// Finds out what an inherited descriptor is.
fn kind(number: i32, descriptor: &OwnedFd) -> Result<AttachKind, Box<dyn Error>> {
    let about = rustix::fs::fstat(descriptor)?;
    match FileType::from_raw_mode(about.st_mode) {
        FileType::CharacterDevice => {
            tap::prepare(descriptor).map_err(|error| format!("descriptor {number}: {error}"))?;
            Ok(AttachKind::Tap)
        }
        FileType::Socket => {
            let kind = sockopt::socket_type(descriptor)?;
            if kind == SocketType::STREAM {
                return Ok(if sockopt::socket_acceptconn(descriptor)? {
                    AttachKind::StreamListener
                } else {
                    AttachKind::Stream
                });
            }
            if kind == SocketType::DGRAM {
                let connected = rustix::net::getpeername(descriptor).is_ok();
                return Ok(if connected {
                    AttachKind::Dgram
                } else {
                    AttachKind::DgramListener
                });
            }
            Err(format!("descriptor {number} is a socket, but neither stream nor datagram").into())
        }
        _ => Err(format!("descriptor {number} is neither a socket nor a tap").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    #[test]
    fn descriptors_are_known_by_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |descriptor: OwnedFd| kind(9, &descriptor).ok();
        let (stream, _other) = UnixStream::pair().unwrap();
        assert_eq!(kind(stream.into()), Some(AttachKind::Stream));
        let listener = UnixListener::bind(folder.path().join("l")).unwrap();
        assert_eq!(kind(listener.into()), Some(AttachKind::StreamListener));
        let (dgram, _other) = UnixDatagram::pair().unwrap();
        assert_eq!(kind(dgram.into()), Some(AttachKind::Dgram));
        let bound = UnixDatagram::bind(folder.path().join("d")).unwrap();
        assert_eq!(kind(bound.into()), Some(AttachKind::DgramListener));
        assert_eq!(kind(std::fs::File::open("/dev/null").unwrap().into()), None);
        assert_eq!(
            kind(std::fs::File::open("/etc/passwd").unwrap().into()),
            None
        );
    }
}
