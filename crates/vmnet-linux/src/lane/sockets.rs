//! The flows' sockets: what is sent by them, and what happens to them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::epoll::EventFlags;
use vmnet_core::{Datagram, Drop, Event, HostError, IcmpError, PortId, Read, SocketId, Span};

use crate::lane::datapath::Lane;
use crate::lane::execute::{Hand, Place};
use crate::poller::{EDGES, READ, Token};
use crate::port::body::Body;
use crate::port::vhost_user::Landing;
use crate::port::{FRAME_MAX, Port};
use crate::slots::Slot;
use crate::socket::datagrams::Datagrams;
use crate::socket::stream::Peeked;
use crate::socket::{HostSocket, host_error};
use crate::sys::datagram::Batch;

/// Datagrams that are received at once.
const BATCH: usize = 16;
/// Batches that one socket may have in its turn.
const BATCHES: usize = 4;
/// Datagrams that one buffer of several may hold (Linux: `UDP_MAX_SEGMENTS`).
const SEGMENTS_MAX: usize = 64;
/// A window for fewer bytes than these is not read into directly.
const BULK_LEAST: usize = 4096;
/// Bytes that it may hold.
const SEGMENTS_BYTES: usize = 65_000;

/// Datagrams of one flow, all of one size but the last, that leave by one call.
#[derive(Debug, Default)]
pub(super) struct Pending {
    socket: Option<(SocketId, Datagram)>,
    size: usize,
    bytes: Vec<u8>,
    /// A shorter one has come: it is the last.
    closed: bool,
}

impl Pending {
    fn takes(&self, socket: SocketId, how: &Datagram, len: usize) -> bool {
        self.socket == Some((socket, *how))
            && !self.closed
            && len <= self.size
            && len > 0
            && self.bytes.len() + len <= SEGMENTS_BYTES
            && self.bytes.len() < self.size * SEGMENTS_MAX
    }
}

/// What came of the wish to read straight into a guest's buffers.
enum Direct {
    Done,
    /// When this port has room.
    NoRoom(PortId),
    /// It has to be done by way of ours.
    Unfit,
}

impl Lane {
    // ---- streams ---------------------------------------------------------------------------

    pub(super) fn send(&mut self, socket: SocketId, hand: &Hand<'_>, span: Span) {
        let Some(HostSocket::Stream(stream)) = self.sockets.get_mut(socket) else {
            return;
        };
        let event = match stream.send(hand.bodies(span), &mut self.scratch) {
            Ok(taken) => Event::Sent {
                socket,
                taken,
                room: stream.room(),
            },
            Err(error) => Event::Failed {
                socket,
                error: host_error(&error),
            },
        };
        self.network.event(self.now, &event, &mut self.out);
    }

    pub(super) fn discard(&mut self, socket: SocketId, len: usize) {
        let Some(HostSocket::Stream(stream)) = self.sockets.get_mut(socket) else {
            return;
        };
        if let Err(error) = stream.discard(len) {
            tracing::debug!(%error, "acknowledged bytes cannot be removed");
        }
    }

    pub(super) fn shut_write(&mut self, socket: SocketId) {
        if let Some(HostSocket::Stream(stream)) = self.sockets.get_mut(socket) {
            stream.shut_write();
        }
    }

    pub(super) fn notify_writable(&mut self, socket: SocketId) {
        let Some(HostSocket::Stream(stream)) = self.sockets.get_mut(socket) else {
            return;
        };
        stream.write_wanted = true;
        // Looking at a full socket makes it tell when it is no longer full.
        let _watched = self
            .poller
            .change(stream.fd(), Token::Socket(Slot::of(socket)), EDGES);
    }

    /// A connection stands.
    pub(super) fn connected(&mut self, socket: SocketId) {
        let Some(HostSocket::Stream(stream)) = self.sockets.get_mut(socket) else {
            return;
        };
        stream.connecting = false;
        let event = Event::Connected {
            socket,
            room: stream.room(),
        };
        self.network.event(self.now, &event, &mut self.out);
    }

    /// Carries out a wish to read.
    pub(super) fn read_stream(&mut self, read: Read) {
        let socket = read.socket;
        match self.read_into_guest(&read) {
            Direct::Done => return,
            Direct::NoRoom(port) => {
                self.set_full(port, false);
                self.network.put_back(&read);
                return self.touch(port);
            }
            Direct::Unfit => {}
        }
        let Some(HostSocket::Stream(stream)) = self.sockets.get_mut(socket) else {
            return;
        };
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(FRAME_MAX, 0);
        let max = read.max.min(frame.len());
        // A window of zero still lets the end be seen.
        let peeked = stream.peek(read.offset, &mut frame[..max.max(1)]);
        let len = self.peeked(socket, peeked, max);
        self.carry_out(Hand::payload(&frame[..len]));
        self.frame = frame;
    }

    /// The same straight into buffers of the guest, if it shares its memory and takes large frames.
    fn read_into_guest(&mut self, read: &Read) -> Direct {
        let (Some(to), Some(HostSocket::Stream(stream))) =
            (&read.to, self.sockets.get_mut(read.socket))
        else {
            return Direct::Unfit;
        };
        let Some(Port::VhostUser(port)) = self.ports.get_mut(to.port) else {
            return Direct::Unfit;
        };
        // For a small answer it is not worth to take buffers for a large one.
        if !stream.is_bulk() || read.max < BULK_LEAST {
            return Direct::Unfit;
        }
        let max = match port.make_room(to, read.max) {
            Landing::Ready(max) => max,
            Landing::NoRoom => return Direct::NoRoom(to.port),
            Landing::Unfit => return Direct::Unfit,
        };
        let peeked = port
            .room(max)
            .map(|mut room| stream.peek_into_guest(read.offset, &mut room, max));
        let peeked = match peeked {
            Some(Ok(Some(peeked))) => Ok(peeked),
            Some(Err(error)) => Err(error),
            None | Some(Ok(None)) => {
                port.give_up_room();
                return Direct::Unfit;
            }
        };
        let len = self.peeked(read.socket, peeked, max);
        self.carry_out(Hand {
            place: Place::Landed(to.port, len),
            ..Hand::EMPTY
        });
        if let Some(Port::VhostUser(port)) = self.ports.get_mut(to.port) {
            port.give_up_room();
        }
        Direct::Done
    }

    /// Tells the core what a peek found; how many bytes of it are meant.
    fn peeked(&mut self, socket: SocketId, peeked: io::Result<Peeked>, max: usize) -> usize {
        let event = match peeked {
            Ok(peeked) if peeked.len <= max => Event::Peeked {
                socket,
                len: peeked.len,
                ended: peeked.ended,
                more: peeked.more,
            },
            Ok(_) => Event::Peeked {
                socket,
                len: 0,
                ended: false,
                more: true,
            },
            Err(error) => Event::Failed {
                socket,
                error: host_error(&error),
            },
        };
        let len = if let Event::Peeked { len, .. } = event {
            len
        } else {
            0
        };
        self.moved += len;
        self.network.event(self.now, &event, &mut self.out);
        len
    }

    // ---- events ----------------------------------------------------------------------------

    pub(super) fn socket_event(&mut self, slot: Slot, flags: EventFlags) {
        let Some(socket) = self.sockets.find(slot) else {
            return;
        };
        match self.sockets.get_mut(socket) {
            Some(HostSocket::Stream(_)) => self.stream_event(socket, flags),
            Some(HostSocket::Datagrams(_)) => self.datagrams_event(socket, flags),
            None => {}
        }
        self.carry_out(Hand::EMPTY);
    }

    fn stream_event(&mut self, socket: SocketId, flags: EventFlags) {
        let Some(HostSocket::Stream(stream)) = self.sockets.get_mut(socket) else {
            return;
        };
        if flags.contains(EventFlags::ERR) || (stream.connecting && flags.contains(EventFlags::HUP))
        {
            let error = stream
                .take_error()
                .map_or(HostError::Reset, |error| host_error(&error));
            return self
                .network
                .event(self.now, &Event::Failed { socket, error }, &mut self.out);
        }
        if stream.connecting {
            if !flags.contains(EventFlags::OUT) {
                return;
            }
            self.connected(socket);
        }
        let Some(HostSocket::Stream(stream)) = self.sockets.get_mut(socket) else {
            return;
        };
        if flags.contains(EventFlags::PRI) {
            stream.meet_urgent();
        }
        if stream.write_wanted && flags.contains(EventFlags::OUT) {
            stream.write_wanted = false;
            let event = Event::Writable {
                socket,
                room: stream.room(),
            };
            self.network.event(self.now, &event, &mut self.out);
        }
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP);
        if ended || flags.contains(EventFlags::IN) {
            if let Some(HostSocket::Stream(stream)) = self.sockets.get_mut(socket) {
                stream.ended |= ended;
            }
            self.network
                .event(self.now, &Event::Readable { socket, ended }, &mut self.out);
        }
    }

    fn datagrams_event(&mut self, socket: SocketId, flags: EventFlags) {
        if flags.contains(EventFlags::ERR) {
            self.report_errors(socket);
        }
        if flags.contains(EventFlags::IN) {
            let mut batch = self
                .batch
                .take()
                .unwrap_or_else(|| Batch::new(BATCH, FRAME_MAX));
            for _ in 0..BATCHES {
                if !self.receive_datagrams(socket, &mut batch) {
                    break;
                }
            }
            self.batch = Some(batch);
        }
    }

    /// Receives a batch from each of a flow's sockets. Answers whether there may be more.
    fn receive_datagrams(&mut self, socket: SocketId, batch: &mut Batch) -> bool {
        let open = self.receive_batch(socket, batch, |datagrams| Some(datagrams.fd()));
        let direct = self.receive_batch(socket, batch, Datagrams::direct);
        let home = self.receive_batch(socket, batch, Datagrams::home_fd);
        open || direct || home
    }

    fn receive_batch(
        &mut self,
        socket: SocketId,
        batch: &mut Batch,
        by: impl FnOnce(&Datagrams) -> Option<BorrowedFd<'_>>,
    ) -> bool {
        let Some(HostSocket::Datagrams(datagrams)) = self.sockets.get_mut(socket) else {
            return false;
        };
        let Some(fd) = by(datagrams) else {
            return false;
        };
        let is_home = datagrams
            .home_fd()
            .is_some_and(|home| home.as_raw_fd() == fd.as_raw_fd());
        // Nothing there, or the error of an earlier datagram, which its queue tells.
        if batch.receive(fd).is_err() {
            return false;
        }
        for received in batch.received() {
            // The outside has to come by the interface that was chosen.
            if is_home && !self.uplink.is_home(received.from.ip()) {
                self.network.count_drop(Drop::Filtered);
                continue;
            }
            let payload = batch.payload(received);
            let event = Event::Datagram {
                socket,
                from: received.from,
                head: payload,
                len: payload.len(),
                segment: received.segment,
                ttl: received.ttl.unwrap_or(64),
            };
            self.network.event(self.now, &event, &mut self.out);
            self.carry_out(Hand::payload(payload));
        }
        batch.received().len() == BATCH
    }

    /// Tells the core what routers and peers reported.
    pub(super) fn report_errors(&mut self, socket: SocketId) {
        let mut original = [0; 64];
        for _ in 0..BATCH {
            let Some(HostSocket::Datagrams(datagrams)) = self.sockets.get_mut(socket) else {
                return;
            };
            let Some(queued) = datagrams.take_queued_error(&mut original) else {
                return;
            };
            let gateway = self.gateway(queued.to);
            let error = IcmpError {
                to: queued.to,
                from: queued.from.unwrap_or(gateway),
                kind: queued.kind,
                code: queued.code,
                mtu: queued.mtu,
            };
            let original = &original[..queued.len.min(original.len())];
            let event = Event::Error {
                socket,
                error,
                original,
            };
            self.network.event(self.now, &event, &mut self.out);
            self.carry_out(Hand::EMPTY);
        }
    }

    // ---- datagrams -------------------------------------------------------------------------

    /// Sends a datagram, together with others of its flow if more of one size come in this turn.
    pub(super) fn send_to(&mut self, socket: SocketId, payload: Body<'_>, how: Datagram) {
        if self.pending.takes(socket, &how, payload.len()) {
            self.pending.closed = payload.len() < self.pending.size;
            payload.append_to(&mut self.pending.bytes);
            return;
        }
        self.send_pending();
        if how.segment.is_some() || payload.is_empty() || payload.len() > SEGMENTS_BYTES / 2 {
            return self.send_now(socket, payload, &how);
        }
        self.pending.socket = Some((socket, how));
        self.pending.size = payload.len();
        self.pending.closed = false;
        self.pending.bytes.clear();
        payload.append_to(&mut self.pending.bytes);
    }

    /// Sends what waited for more of its kind.
    pub(super) fn send_pending(&mut self) {
        let Some((socket, mut how)) = self.pending.socket.take() else {
            return;
        };
        let bytes = std::mem::take(&mut self.pending.bytes);
        how.segment = u16::try_from(self.pending.size)
            .ok()
            .filter(|size| usize::from(*size) < bytes.len());
        self.send_now(socket, Body::plain(&bytes), &how);
        self.pending.bytes = bytes;
    }

    /// A flow ends: what it sent before goes out before.
    pub(super) fn forget_pending(&mut self, socket: SocketId) {
        if self
            .pending
            .socket
            .is_some_and(|(other, _)| other == socket)
        {
            self.send_pending();
        }
    }

    fn send_now(&mut self, socket: SocketId, payload: Body<'_>, how: &Datagram) {
        let Some(HostSocket::Datagrams(datagrams)) = self.sockets.get_mut(socket) else {
            return self.network.count_drop(Drop::HostRefused);
        };
        let token = Token::Socket(Slot::of(socket));
        let sent = if datagrams.leaves_by_interface() && self.uplink.is_home(how.to.ip()) {
            let payload = payload.gathered(&mut self.scratch);
            datagrams.send_home(payload, how).map(|is_new| {
                if let Some(home) = datagrams.home_fd().filter(|_| is_new) {
                    let _unheard = self.poller.add(home, token, READ);
                }
            })
        } else {
            datagrams.send(payload, how, &mut self.scratch).map(|()| {
                if datagrams.follow(how.to)
                    && let Some(direct) = datagrams.direct()
                {
                    let _unheard = self.poller.add(direct, token, READ);
                }
            })
        };
        let Err(error) = sent else { return };
        self.network.count_drop(cause(&error));
        if error.raw_os_error() == Some(libc::EMSGSIZE) {
            self.report_errors(socket);
        } else if let Some((kind, code)) = unreachable(&error, how.to) {
            let from = self.gateway(how.to);
            let error = IcmpError {
                to: how.to,
                from,
                kind,
                code,
                mtu: 0,
            };
            let event = Event::Error {
                socket,
                error,
                original: payload.gathered(&mut self.scratch),
            };
            self.network.event(self.now, &event, &mut self.out);
        }
    }
}

fn cause(error: &io::Error) -> Drop {
    match host_error(error) {
        HostError::Forbidden => Drop::Forbidden,
        HostError::Exhausted => Drop::HostFull,
        _ => Drop::HostRefused,
    }
}

/// The type and code by which a guest hears that the host itself knows no way (RFC 792, RFC 4443 §3.1).
fn unreachable(error: &io::Error, to: SocketAddr) -> Option<(u8, u8)> {
    if to.is_ipv6() {
        // The host has an IPv6 stack, and no address that could speak to anybody out there.
        let no_source = error.raw_os_error() == Some(libc::EADDRNOTAVAIL);
        return match host_error(error) {
            HostError::NetworkUnreachable => Some((1, 0)),
            HostError::HostUnreachable => Some((1, 3)),
            HostError::Forbidden => Some((1, 1)),
            _ if no_source => Some((1, 0)),
            _ => None,
        };
    }
    match host_error(error) {
        HostError::NetworkUnreachable => Some((3, 0)),
        HostError::HostUnreachable => Some((3, 1)),
        HostError::Forbidden => Some((3, 13)),
        _ => None,
    }
}
