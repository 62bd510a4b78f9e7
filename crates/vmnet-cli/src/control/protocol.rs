//! One JSON text a line, descriptors beside it. A request is answered before the next one is sent, so descriptors cannot
//! land on another's message.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use vmnet_linux::lane::{Attachment, GuestSocket, PortKind, Protocol};
use vmnet_linux::sys::fd_passing;

/// The longest line that is read: a list of all leases of a large network fits.
const MAX_LINE: usize = 1 << 20;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Attach the descriptor beside this as a port.
    Attach {
        kind: AttachKind,
        name: Option<String>,
        mac: Option<String>,
    },
    /// Forward a host port for as long as this connection is open.
    Forward {
        udp: bool,
        listen: SocketAddr,
        target: ForwardTarget,
        guest_port: u16,
    },
    /// List the leases.
    Leases,
    /// Tell everything else.
    Status,
}

/// What the holder answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub(crate) enum Reply {
    Attached(Attached),
    Forwarded,
    Leases { leases: Vec<Lease> },
    Status(Status),
    Failed { reason: String },
}

/// What kind of descriptor a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AttachKind {
    Tap,
    Stream,
    StreamListener,
    Dgram,
    DgramListener,
}

/// Where a forward leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ForwardTarget {
    /// This address.
    Address(Ipv4Addr),
    /// A port that this connection attached.
    Port(u64),
}

/// A port was attached, or a socket for guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attached {
    /// `None` for a socket: its guests have a port each.
    pub(crate) port: Option<u64>,
    pub(crate) mtu: u16,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: String,
    pub(crate) name: Option<String>,
    pub(crate) expires_in_seconds: u64,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) subnet: String,
    pub(crate) mtu: u16,
    /// The guests, by whichever way they came.
    pub(crate) ports: Vec<Port>,
    /// The sockets that guests may come by.
    pub(crate) listeners: Vec<Listener>,
    pub(crate) counters: Vec<(String, u64)>,
}

/// A port and the guest behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) port: u64,
    /// Never one of a listener.
    pub(crate) kind: AttachKind,
    /// The listener it came by.
    pub(crate) listener: Option<u64>,
    pub(crate) name: Option<String>,
    /// As fixed by its owner, or as seen.
    pub(crate) mac: Option<String>,
    /// What it has leased.
    pub(crate) address: Option<Ipv4Addr>,
    /// Who attached it, or the listener it came by.
    pub(crate) pid: i32,
}

/// A socket that guests may come by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listener {
    pub(crate) listener: u64,
    pub(crate) kind: AttachKind,
    /// Who attached it.
    pub(crate) pid: i32,
}

/// What a descriptor becomes.
#[derive(Debug)]
pub(crate) enum Way {
    /// A guest's port.
    Port(Attachment),
    /// A socket for guests.
    Listener(GuestSocket),
}

impl AttachKind {
    /// The kind and the descriptor of a guest's port.
    pub(crate) fn split(attachment: Attachment) -> (Self, OwnedFd) {
        match attachment {
            Attachment::Tap(fd) => (Self::Tap, fd),
            Attachment::Stream(fd) => (Self::Stream, fd),
            Attachment::Dgram(fd) => (Self::Dgram, fd),
        }
    }

    /// What a descriptor of this kind becomes.
    pub(crate) fn join(self, descriptor: OwnedFd) -> Way {
        match self {
            Self::Tap => Way::Port(Attachment::Tap(descriptor)),
            Self::Stream => Way::Port(Attachment::Stream(descriptor)),
            Self::Dgram => Way::Port(Attachment::Dgram(descriptor)),
            Self::StreamListener => Way::Listener(GuestSocket::Stream(descriptor.into())),
            Self::DgramListener => Way::Listener(GuestSocket::Dgram(descriptor.into())),
        }
    }
}

impl From<PortKind> for AttachKind {
    fn from(kind: PortKind) -> Self {
        match kind {
            PortKind::Tap => Self::Tap,
            PortKind::Stream => Self::Stream,
            PortKind::Dgram => Self::Dgram,
        }
    }
}

/// As in JSON.
impl fmt::Display for AttachKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tap => "tap",
            Self::Stream => "stream",
            Self::StreamListener => "stream-listener",
            Self::Dgram => "dgram",
            Self::DgramListener => "dgram-listener",
        })
    }
}

/// The protocol as it is sent.
pub(crate) fn is_udp(protocol: Protocol) -> bool {
    protocol == Protocol::Udp
}

/// A connection, on either side.
pub(crate) struct Connection {
    stream: UnixStream,
    unread: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends one line; the descriptors go with its first byte.
    pub(crate) fn send(
        &mut self,
        message: &impl Serialize,
        beside: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let sent = fd_passing::send(self.stream.as_fd(), &line, beside)?;
        io::Write::write_all(&mut self.stream, line.get(sent..).unwrap_or_default())
    }

    /// Waits for one line; `None` at the end.
    pub(crate) fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut beside = Vec::new();
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Ok(Some((serde_json::from_slice(&line)?, beside)));
            }
            if self.unread.len() > MAX_LINE || beside.len() > fd_passing::MAX_DESCRIPTORS {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the message is too long",
                ));
            }
            let mut buffer = [0; 4096];
            let length = fd_passing::receive(self.stream.as_fd(), &mut buffer, &mut beside)?;
            if length == 0 {
                return Ok(None);
            }
            self.unread
                .extend_from_slice(buffer.get(..length).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn messages_cross_with_their_descriptors() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Connection::new(one), Connection::new(other));
        let request = Request::Attach {
            kind: AttachKind::Stream,
            name: Some("web".into()),
            mac: None,
        };
        let file = std::fs::File::open("/dev/null").unwrap();
        one.send(&request, &[file.as_fd()]).unwrap();
        one.send(&Request::Leases, &[]).unwrap();
        let (got, beside) = other.receive::<Request>().unwrap().unwrap();
        assert_eq!((got, beside.len()), (request, 1));
        let (got, beside) = other.receive::<Request>().unwrap().unwrap();
        assert_eq!((got, beside.len()), (Request::Leases, 0));
        drop(one);
        assert!(other.receive::<Request>().unwrap().is_none());
    }

    #[test]
    fn endless_lines_and_rubbish_are_refused() {
        let (mut one, other) = UnixStream::pair().unwrap();
        let mut other = Connection::new(other);
        one.write_all(b"{\"method\":\"explode\"}\n").unwrap();
        assert!(other.receive::<Request>().is_err());
        let writer = std::thread::spawn(move || {
            let block = [b'x'; 4096];
            while one.write_all(&block).is_ok() {}
        });
        assert!(other.receive::<Request>().is_err());
        drop(other);
        writer.join().unwrap();
    }
}
