//! What happened to a socket of the host.

use core::net::{IpAddr, SocketAddr};

use crate::gateway::dns::QueryId;
use crate::outbox::{PortId, SocketId};

/// Why the host could not do what a flow asked of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostError {
    /// `ECONNREFUSED`: somebody said no.
    Refused,
    /// `ENETUNREACH`: no route.
    NetworkUnreachable,
    /// `EHOSTUNREACH`: nobody there.
    HostUnreachable,
    /// `ETIMEDOUT`: no answer.
    TimedOut,
    /// `EACCES`, `EPERM`: the host forbids it (a firewall, or ping sockets closed to this user).
    Forbidden,
    /// `EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`, `EADDRNOTAVAIL`: the host has no more of something.
    Exhausted,
    /// `ECONNRESET`, `EPIPE`: the peer is gone.
    Reset,
    /// Any other.
    Other,
}

/// An error that a router or the peer reported about a datagram (`IP_RECVERR`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpError {
    /// To whom the datagram was sent.
    pub to: SocketAddr,
    /// Who reports.
    pub from: IpAddr,
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// The next hop's MTU, for "fragmentation needed"; else zero.
    pub mtu: u32,
}

/// Something happened to a socket of the host.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The connection of [`Target::Tcp`](crate::Target::Tcp) or `DnsStream` stands.
    Connected {
        /// Whose.
        socket: SocketId,
        /// How much the send queue takes, in bytes.
        room: usize,
    },
    /// The socket could not be made, or its connection failed or broke.
    Failed {
        /// Whose.
        socket: SocketId,
        /// Why.
        error: HostError,
    },
    /// [`Action::Send`](crate::Action::Send) was carried out.
    Sent {
        /// Whose.
        socket: SocketId,
        /// Bytes that the send queue took: all, some or none.
        taken: usize,
        /// How much more it takes now, in bytes.
        room: usize,
    },
    /// The send queue takes more again.
    Writable {
        /// Whose.
        socket: SocketId,
        /// How much, in bytes.
        room: usize,
    },
    /// There may be something to read: data, or the end.
    Readable {
        /// Whose.
        socket: SocketId,
        /// The peer has closed its side: the end comes behind what is still queued.
        ended: bool,
    },
    /// A [`Read`] was carried out: the hand holds `len` bytes.
    Peeked {
        /// Whose.
        socket: SocketId,
        /// Bytes.
        len: usize,
        /// Behind them is the end of the stream.
        ended: bool,
        /// There may be more: if not, [`Event::Readable`] will tell when there is.
        more: bool,
    },
    /// A datagram came; the hand holds its payload.
    Datagram {
        /// By which socket.
        socket: SocketId,
        /// From whom.
        from: SocketAddr,
        /// The first bytes of the payload (all of an ICMP header).
        head: &'a [u8],
        /// Bytes of the payload.
        len: usize,
        /// The payload is several datagrams of this size (UDP GRO).
        segment: Option<u16>,
        /// Hops that it had left; 64 if unknown.
        ttl: u8,
    },
    /// A router or the peer reported an error about a datagram of ours.
    Error {
        /// By which socket.
        socket: SocketId,
        /// What.
        error: IcmpError,
        /// The first bytes of the datagram's payload, as far as they were reported.
        original: &'a [u8],
    },
    /// The host would not send a datagram that must not be cut: it is larger than the path's MTU.
    TooLarge {
        /// By which socket.
        socket: SocketId,
        /// To whom.
        to: SocketAddr,
        /// The path's MTU, IP header included.
        mtu: u32,
    },
    /// A resolver answered.
    Answer {
        /// Which query.
        query: QueryId,
        /// The DNS message.
        message: &'a [u8],
    },
    /// A resolver cannot be asked.
    QueryFailed {
        /// Which query.
        query: QueryId,
    },
    /// A question came by a [`Target::DnsStream`](crate::Target::DnsStream).
    StreamQuery {
        /// The stream.
        socket: SocketId,
        /// The DNS message, without its length.
        message: &'a [u8],
    },
}

/// A wish to read from a stream: at most `max` bytes, `offset` bytes behind the front of its receive queue,
/// without removing them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    /// Of which socket.
    pub socket: SocketId,
    /// Bytes to skip: the guest was sent them and has not acknowledged them.
    pub offset: usize,
    /// Bytes wanted.
    pub max: usize,
    /// Where they will be delivered, unless the guest has moved by then: they may be received there at once. Unknown: the
    /// guest has to be asked for first.
    pub to: Option<ReadTo>,
}

/// Where bytes of a stream will be delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadTo {
    /// By which port.
    pub port: PortId,
    /// Behind so many bytes of headers.
    pub headers: usize,
    /// Between whom: the guest, and its peer as the guest sees it.
    pub flow: [SocketAddr; 2],
}
