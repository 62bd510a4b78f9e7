//! What an inherited descriptor is.

use openvmnet::service::Kind;
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::net::sockopt;
use std::error::Error;
use std::os::fd::OwnedFd;
use vmnet_linux::kernel::tap;

/// Finds out what an inherited descriptor is.
pub(super) fn kind(number: i32, descriptor: &OwnedFd) -> Result<Kind, Box<dyn Error>> {
    let about = rustix::fs::fstat(descriptor)?;
    match FileType::from_raw_mode(about.st_mode) {
        FileType::CharacterDevice => {
            // What knows no such request is no tap.
            let refused = |error: std::io::Error| match error.raw_os_error() {
                Some(code) if code == Errno::NOTTY.raw_os_error() => {
                    format!("descriptor {number} is neither a socket nor a tap")
                }
                _ => format!("descriptor {number}: {error}"),
            };
            tap::prepare(descriptor).map_err(refused)?;
            Ok(Kind::Tap)
        }
        FileType::Socket => {
            let kind = sockopt::socket_type(descriptor)?;
            if kind == SocketType::STREAM {
                return Ok(if sockopt::socket_acceptconn(descriptor)? {
                    Kind::StreamListener
                } else {
                    Kind::Stream
                });
            }
            if kind == SocketType::SEQPACKET {
                return Ok(Kind::Dgram);
            }
            if kind == SocketType::DGRAM {
                let connected = rustix::net::getpeername(descriptor).is_ok();
                return Ok(if connected {
                    Kind::Dgram
                } else {
                    Kind::DgramListener
                });
            }
            Err(format!("descriptor {number} is a socket, but neither stream, datagram nor sequenced packets").into())
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
        assert_eq!(kind(stream.into()), Some(Kind::Stream));
        let listener = UnixListener::bind(folder.path().join("l")).unwrap();
        assert_eq!(kind(listener.into()), Some(Kind::StreamListener));
        let (dgram, _other) = UnixDatagram::pair().unwrap();
        assert_eq!(kind(dgram.into()), Some(Kind::Dgram));
        let (packets, _other) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        assert_eq!(kind(packets), Some(Kind::Dgram));
        let bound = UnixDatagram::bind(folder.path().join("d")).unwrap();
        assert_eq!(kind(bound.into()), Some(Kind::DgramListener));
        let null = std::fs::File::open("/dev/null").unwrap().into();
        let refused = super::kind(9, &null).unwrap_err().to_string();
        assert_eq!(refused, "descriptor 9 is neither a socket nor a tap");
        assert_eq!(
            kind(std::fs::File::open("/etc/passwd").unwrap().into()),
            None
        );
    }
}
