//! What a client's descriptor must be, whatever the client says it is.

use openvmnet::service::{Kind, ServiceError};
use rustix::fs::{FileType, fstat};
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::os::fd::OwnedFd;
use vmnet_linux::kernel::tap;

/// Refuses a descriptor that is not of its kind.
pub(crate) fn check(descriptor: &OwnedFd, kind: Kind) -> Result<(), ServiceError> {
    let wrong = |what: &str| ServiceError::InvalidArgument {
        reason: format!("the descriptor is not {what}"),
    };
    let file = fstat(descriptor).map_err(|error| ServiceError::Failed {
        reason: error.to_string(),
    })?;
    let file = FileType::from_raw_mode(file.st_mode);
    if matches!(kind, Kind::Tap | Kind::BridgeTap) {
        if file != FileType::CharacterDevice {
            return Err(wrong("a tap"));
        }
        if kind == Kind::BridgeTap {
            // Its holder has said how it is to be, and may be using it.
            return tap::name_of(descriptor)
                .map(drop)
                .map_err(|error| wrong(&format!("a tap: {error}")));
        }
        return tap::prepare(descriptor).map_err(|error| wrong(&format!("a tap for us: {error}")));
    }
    if kind == Kind::VhostUserClient {
        return match file {
            FileType::Directory => Ok(()),
            _ => Err(wrong("a directory")),
        };
    }
    if file != FileType::Socket
        || sockopt::socket_domain(descriptor).ok() != Some(AddressFamily::UNIX)
    {
        return Err(wrong("a unix socket"));
    }
    let listens = sockopt::socket_acceptconn(descriptor).unwrap_or(false);
    let connected = rustix::net::getpeername(descriptor).is_ok();
    let socket = sockopt::socket_type(descriptor).ok();
    let stream = socket == Some(SocketType::STREAM);
    let frames = matches!(socket, Some(SocketType::DGRAM | SocketType::SEQPACKET));
    let (fits, what) = match kind {
        Kind::Stream | Kind::VhostUserConnected => {
            (stream && connected, "a connected stream socket")
        }
        Kind::StreamListener | Kind::VhostUser => (stream && listens, "a listening stream socket"),
        Kind::Dgram => (frames && connected, "a connected datagram socket"),
        Kind::DgramListener => (
            socket == Some(SocketType::DGRAM) && !connected,
            "a bound datagram socket",
        ),
        Kind::Tap | Kind::BridgeTap | Kind::VhostUserClient => (true, ""),
    };
    if fits { Ok(()) } else { Err(wrong(what)) }
}
