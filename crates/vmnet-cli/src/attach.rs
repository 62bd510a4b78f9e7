//! `vmnet attach`: joins a port to a network that `vmnet up` holds.

use crate::args::Attach;
use crate::control::client::Client;
use crate::control::folder::{self, SocketFile};
use crate::control::protocol::{AttachKind, ForwardTarget};
use crate::up::ENDING_SIGNALS;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use rustix::net::SocketType;
use rustix::net::sockopt;
use std::error::Error;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use vmnet_linux::kernel::tap;
use vmnet_linux::lane::Attachment;
use vmnet_linux::sys::process;
use vmnet_linux::sys::signal::Signals;

/// Attaches, and stays until a signal comes or the network ends.
pub(crate) fn run(attach: Attach) -> Result<(), Box<dyn Error>> {
    let (signals, _) = Signals::open(&ENDING_SIGNALS)?;
    let mut client = Client::connect(&attach.network)?;
    let (attachment, _socket) = attachment(&attach)?;
    let (kind, descriptor) = AttachKind::split(attachment);
    let name = attach.name.as_ref().map(ToString::to_string);
    let attached = client.attach(kind, descriptor.as_fd(), name, attach.mac)?;
    // The holder has its copy; ours would keep a peer from seeing that the holder closed it.
    drop(descriptor);
    for spec in &attach.publish {
        for (listen, guest_port) in spec.pairs() {
            client.forward(
                spec.protocol,
                listen,
                ForwardTarget::Port(attached.port),
                guest_port,
            )?;
        }
    }
    tracing::info!(attached.port, attached.mtu, "attached");
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
fn attachment(attach: &Attach) -> Result<(Attachment, Option<SocketFile>), Box<dyn Error>> {
    if let Some(path) = &attach.stream {
        let (listener, file) = folder::listen_stream(path)?;
        return Ok((Attachment::StreamListener(listener), Some(file)));
    }
    if let Some(path) = &attach.dgram {
        let (socket, file) = folder::bind_dgram(path)?;
        return Ok((Attachment::DgramListener(socket), Some(file)));
    }
    if let Some(name) = &attach.tap {
        return Ok((Attachment::Tap(tap::open(name)?), None));
    }
    let number = attach.fd.ok_or("nothing to attach")?;
    let descriptor = process::inherited(number)
        .map_err(|error| format!("descriptor {number} is not open here: {error}"))?;
    Ok((inherited(number, descriptor)?, None))
}

/// Finds out what an inherited descriptor is.
fn inherited(number: i32, descriptor: OwnedFd) -> Result<Attachment, Box<dyn Error>> {
    let about = rustix::fs::fstat(&descriptor)?;
    match FileType::from_raw_mode(about.st_mode) {
        FileType::CharacterDevice => {
            tap::prepare(&descriptor).map_err(|error| format!("descriptor {number}: {error}"))?;
            Ok(Attachment::Tap(descriptor))
        }
        FileType::Socket => {
            let kind = sockopt::socket_type(&descriptor)?;
            if kind == SocketType::STREAM {
                return Ok(if sockopt::socket_acceptconn(&descriptor)? {
                    Attachment::StreamListener(UnixListener::from(descriptor))
                } else {
                    Attachment::Stream(descriptor)
                });
            }
            if kind == SocketType::DGRAM {
                let connected = rustix::net::getpeername(&descriptor).is_ok();
                return Ok(if connected {
                    Attachment::Dgram(descriptor)
                } else {
                    Attachment::DgramListener(UnixDatagram::from(descriptor))
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
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_are_known_by_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |descriptor: OwnedFd| {
            inherited(9, descriptor)
                .map(|it| AttachKind::split(it).0)
                .ok()
        };
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
