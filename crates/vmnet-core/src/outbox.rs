//! What the core wants done: a list of [`Action`]s that the caller empties after every call.
//!
//! Actions are carried out in order, before the hand is filled again: a [`Span`] names bytes of the
//! frame or payload that was given in the very call that made the action.

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;

use slotmap::new_key_type;
use vmnet_wire::offload::Offload;

use crate::frame::Span;
use crate::gateway::dns::{QueryId, Transport};
use crate::gateway::register::{LeaseWrite, StoreTicket};

new_key_type! {
    /// A guest's place on the switch.
    pub struct PortId;
    /// A socket of the host that belongs to one flow of the NAT. Never means another socket later.
    pub struct SocketId;
    /// A rule that forwards a port of the host to a guest.
    pub struct ForwardId;
}

impl PortId {
    /// A number for people and other processes.
    #[must_use]
    pub fn number(self) -> u64 {
        slotmap::Key::data(&self).as_ffi()
    }
}

/// A piece of [`Outbox`] that holds bytes made by the core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bytes(Range<usize>);

/// What a flow's socket is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// A TCP connection to this address. Answered by [`Connected`](crate::Event::Connected) or
    /// [`Failed`](crate::Event::Failed).
    Tcp(SocketAddr),
    /// A stream to the DNS proxy itself, whose questions come as
    /// [`StreamQuery`](crate::Event::StreamQuery). Answered like [`Target::Tcp`].
    DnsStream,
    /// A UDP socket of this family (`true`: IPv6), bound to a port of the kernel's choice. Ready at once.
    Udp {
        /// IPv6 instead of IPv4.
        v6: bool,
    },
    /// An ICMP echo ("ping") socket. Ready at once.
    Echo {
        /// ICMPv6 instead of ICMPv4.
        v6: bool,
    },
}

/// How a datagram is to leave the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// To whom.
    pub to: SocketAddr,
    /// Hops it may take.
    pub ttl: u8,
    /// The guest forbids to cut it (IPv4 DF).
    pub dont_fragment: bool,
    /// The span holds several datagrams of this size (UDP segmentation).
    pub segment: Option<u16>,
}

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Give the frame in hand to a port.
    Forward {
        /// To whom.
        port: PortId,
    },
    /// Give a frame that the core made to a port.
    Reply {
        /// To whom.
        port: PortId,
        /// The whole frame, checksums right.
        frame: Bytes,
    },
    /// Give a frame to a port whose headers the core made and whose payload is in the hand.
    Deliver {
        /// To whom.
        port: PortId,
        /// All headers, from Ethernet on.
        headers: Bytes,
        /// The payload.
        body: Span,
        /// What is left to the port or the guest.
        offload: Offload,
    },
    /// Make a socket.
    Open {
        /// Its name from now on.
        socket: SocketId,
        /// What it is to be.
        target: Target,
    },
    /// Write to a stream what the hand holds. Answered by [`Sent`](crate::Event::Sent).
    Send {
        /// Where to.
        socket: SocketId,
        /// What.
        span: Span,
    },
    /// Send what the hand holds as datagrams.
    SendTo {
        /// By which socket.
        socket: SocketId,
        /// What.
        span: Span,
        /// To whom, and how.
        how: Datagram,
    },
    /// Remove bytes from the front of a stream's receive queue: the guest has them.
    Discard {
        /// Of which socket.
        socket: SocketId,
        /// How many.
        len: usize,
    },
    /// Nothing more will be written.
    ShutWrite {
        /// To which socket.
        socket: SocketId,
    },
    /// Tell when the send queue takes more: [`Writable`](crate::Event::Writable), once.
    NotifyWritable {
        /// Of which socket.
        socket: SocketId,
    },
    /// The socket is done with, what was written still goes out.
    Close {
        /// Which.
        socket: SocketId,
    },
    /// The socket is done with, its peer is told by a reset.
    Reset {
        /// Which.
        socket: SocketId,
    },
    /// Ask a resolver. Answered by [`Answer`](crate::Event::Answer) or
    /// [`QueryFailed`](crate::Event::QueryFailed).
    Ask {
        /// Its name.
        query: QueryId,
        /// Whom.
        resolver: SocketAddr,
        /// By what.
        transport: Transport,
        /// The DNS message.
        message: Bytes,
    },
    /// A query's answer is no longer wanted: close its socket.
    Forget {
        /// Which.
        query: QueryId,
    },
    /// Answer a question that came by a [`Target::DnsStream`].
    StreamAnswer {
        /// The stream.
        socket: SocketId,
        /// The DNS message, without its length.
        message: Bytes,
    },
    /// Keep a piece of a datagram that came in fragments.
    Hold {
        /// In which of [`HOLDS`] buffers.
        buffer: usize,
        /// Where it stands in the whole payload.
        at: usize,
        /// The piece, in the hand.
        span: Span,
    },
    /// A datagram's fragments are complete: give the frame made of these headers and the first
    /// bytes of a buffer to [`Network::receive`](crate::Network::receive) as if `port` had sent it whole.
    Reassemble {
        /// Who sent it.
        port: PortId,
        /// Ethernet and IP headers.
        headers: Bytes,
        /// Which of [`HOLDS`] buffers.
        buffer: usize,
        /// Bytes of the payload.
        len: usize,
    },
    /// Store leases, all of these or none. To be answered by
    /// [`Network::leases_stored`](crate::Network::leases_stored) when they are stored for good or could not be; no other
    /// batch comes before that.
    StoreLeases {
        /// Its name.
        ticket: StoreTicket,
        /// One for each address.
        writes: Vec<LeaseWrite<IpAddr>>,
    },
}

/// Buffers for datagrams in fragments: each of 64 KiB.
pub const HOLDS: usize = 64;

/// The list that every call fills.
#[derive(Debug, Default)]
pub struct Outbox {
    actions: Vec<Action>,
    next: usize,
    bytes: Vec<u8>,
}

impl Outbox {
    /// An empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next action to carry out, in the order in which they were made.
    ///
    /// Bytes stay valid until the list has run dry and `take` has answered `None`.
    pub fn take(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.get(self.next) {
            self.next += 1;
            Some(action.clone())
        } else {
            self.actions.clear();
            self.bytes.clear();
            self.next = 0;
            None
        }
    }

    /// Bytes that the core made.
    #[must_use]
    pub fn bytes(&self, bytes: &Bytes) -> &[u8] {
        self.bytes.get(bytes.0.clone()).unwrap_or(&[])
    }

    /// The same, to be completed in place.
    pub fn bytes_mut(&mut self, bytes: &Bytes) -> &mut [u8] {
        self.bytes.get_mut(bytes.0.clone()).unwrap_or(&mut [])
    }

    /// Nothing is left to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.next >= self.actions.len()
    }

    pub(crate) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Keeps bytes made of these pieces.
    pub(crate) fn write(&mut self, pieces: &[&[u8]]) -> Bytes {
        let start = self.bytes.len();
        for piece in pieces {
            self.bytes.extend_from_slice(piece);
        }
        Bytes(start..self.bytes.len())
    }
}
