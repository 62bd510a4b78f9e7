//! Where actions of the core become system calls: the one place.

use std::io;

use vmnet_core::outbox::{Action, Bytes, HOLDS};
use vmnet_core::{Drop, Event, Frame, PortId, SocketId, Span, Target};
use vmnet_wire::offload::Offload;

use crate::lane::datapath::Lane;
use crate::lane::following::Following;
use crate::poller::{EDGES, READ, Token};
use crate::port::body::Body;
use crate::port::vhost_user::Refused;
use crate::port::{Outgoing, Port};
use crate::slots::Slot;
use crate::socket::datagrams::Datagrams;
use crate::socket::stream::Stream;
use crate::socket::{HostSocket, error_towards, host_error};

/// What spans name: the frame or payload that the core was given last.
#[derive(Clone, Copy)]
pub(super) struct Hand<'a> {
    /// The first bytes: a copy that nobody changes.
    pub(super) head: &'a [u8],
    /// Those behind, in the memory of the guest that sent them.
    pub(super) rest: Body<'a>,
    pub(super) offload: Offload,
    pub(super) place: Place,
    /// Frames that go on where it ends.
    pub(super) following: Following<'a>,
}

/// Where the hand is, as far as that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In our memory, to be filled anew.
    Ours,
    /// In a ring, where a frame may wait.
    Ring,
    /// So many bytes are in buffers of this port's guest, which wait for their headers.
    Landed(PortId, usize),
}

impl<'a> Hand<'a> {
    pub(super) const EMPTY: Hand<'static> = Hand {
        head: &[],
        rest: Body::EMPTY,
        offload: Offload::NONE,
        place: Place::Ours,
        following: Following::NONE,
    };

    pub(super) fn payload(bytes: &'a [u8]) -> Self {
        Self {
            head: bytes,
            ..Self::EMPTY
        }
    }

    fn frame(&self) -> Outgoing<'a> {
        Outgoing {
            head: self.head,
            body: self.rest,
            offload: self.offload,
        }
    }

    fn span(&self, span: Span) -> Body<'a> {
        self.rest.behind(self.head).span(span.start, span.len)
    }

    /// The same, and what the span names of the payload of frames that follow.
    pub(super) fn bodies(&self, span: Span) -> impl Iterator<Item = Body<'a>> + Clone + use<'a> {
        let own = self.rest.behind(self.head);
        let Span {
            start: mut skip,
            len: mut left,
        } = span;
        let all = std::iter::once(own).chain(self.following.bodies());
        all.map_while(move |body| {
            if left == 0 {
                return None;
            }
            let start = skip.min(body.len());
            let len = left.min(body.len() - start);
            (skip, left) = (skip - start, left - len);
            Some(body.span(start, len))
        })
    }
}

impl Lane {
    /// Does everything that the core wants done; `hand` is what it was given last.
    pub(super) fn carry_out(&mut self, hand: Hand<'_>) {
        // Before the host hears of a guest, and answers it at once.
        self.tell_packet_sockets();
        let mut first = true;
        while let Some(action) = self.out.take() {
            self.alone = first && self.out.is_empty();
            first = false;
            self.execute(action, hand);
        }
        // Fragments that are complete now make a frame of their own.
        if let Some((port, frame)) = self.reassembled.take() {
            let whole = Frame::reassembled(&frame);
            self.network.receive(self.now, port, &whole, &mut self.out);
            self.carry_out(Hand {
                head: &frame,
                ..Hand::EMPTY
            });
        }
    }

    fn execute(&mut self, action: Action, hand: Hand<'_>) {
        match action {
            Action::Forward { port } => {
                let may_wait = hand.place == Place::Ring && self.alone;
                self.give(port, &hand.frame(), may_wait);
            }
            Action::Reply { port, frame } => {
                self.compose(port, &frame, Body::EMPTY, Offload::VALID);
            }
            Action::Deliver {
                port,
                headers,
                body,
                offload,
            } => match hand.place {
                Place::Landed(at, len) if body == Span::first(len) => {
                    self.land(port, at, &headers, len, &offload);
                }
                _ => self.compose(port, &headers, hand.span(body), offload),
            },
            Action::Open { socket, target } => self.open(socket, target),
            Action::Send { socket, span } => self.send(socket, &hand, span),
            Action::SendTo { socket, span, how } => self.send_to(socket, hand.span(span), how),
            Action::Discard { socket, len } => self.discard(socket, len),
            Action::ShutWrite { socket } => self.shut_write(socket),
            Action::NotifyWritable { socket } => self.notify_writable(socket),
            Action::Close { socket } => self.close(socket),
            Action::Reset { socket } => self.reset(socket),
            Action::Ask {
                query,
                resolver,
                transport,
                message,
            } => {
                let out = std::mem::take(&mut self.out);
                let asked = self.ask(query, resolver, transport, out.bytes(&message));
                self.out = out;
                if let Err(error) = asked {
                    tracing::debug!(%resolver, %error, "a resolver cannot be asked");
                    let event = Event::QueryFailed { query };
                    self.network.event(self.now, &event, &mut self.out);
                }
            }
            Action::Forget { query } => self.forget(query),
            Action::StreamAnswer { socket, message } => {
                let out = std::mem::take(&mut self.out);
                self.stream_answer(socket, out.bytes(&message));
                self.out = out;
            }
            Action::StoreLeases { ticket, writes } => self.store_leases(ticket, writes),
            Action::Hold { buffer, at, span } => self.hold(buffer, at, hand.span(span)),
            Action::Reassemble {
                port,
                headers,
                buffer,
                len,
            } => self.reassemble(port, &headers, buffer, len),
        }
    }

    /// Gives a port a frame whose first bytes the core made.
    fn compose(&mut self, port: PortId, headers: &Bytes, body: Body<'_>, offload: Offload) {
        // The bytes stay where they are; the lane is used meanwhile.
        let out = std::mem::take(&mut self.out);
        let head = out.bytes(headers);
        self.give(
            port,
            &Outgoing {
                head,
                body,
                offload,
            },
            false,
        );
        self.out = out;
    }

    /// Gives a port the headers of what was received into its guest's buffers.
    fn land(&mut self, port: PortId, at: PortId, headers: &Bytes, len: usize, offload: &Offload) {
        match self.ports.get_mut(port) {
            Some(Port::VhostUser(place)) if port == at => {
                place.commit(self.out.bytes(headers), len, offload);
                self.touch(port);
            }
            // The guest has moved meanwhile. It will be sent again.
            _ => self.network.count_drop(Drop::NoNeighbour),
        }
    }

    fn reassemble(&mut self, port: PortId, headers: &Bytes, buffer: usize, len: usize) {
        let held = self.holds.get(buffer).and_then(|held| held.get(..len));
        let frame = [self.out.bytes(headers), held.unwrap_or(&[])].concat();
        self.reassembled = Some((port, frame));
    }

    /// Gives a frame to a port; ports are flushed when the turn ends.
    pub(super) fn give(&mut self, port: PortId, frame: &Outgoing<'_>, may_wait: bool) {
        let mtu = usize::from(self.network.mtu());
        let Some(place) = self.ports.get_mut(port) else {
            return self.network.count_drop(Drop::NoPort);
        };
        let may_wait = may_wait && !self.leaving;
        match place.send(frame, mtu, &mut self.scratch, may_wait) {
            Ok(()) => {}
            Err(Refused::Dropped(cause)) => self.network.count_drop(cause),
            Err(Refused::NoRoom) => self.stuck = Some(port),
        }
        self.touch(port);
    }

    /// The port is to be flushed when the turn ends.
    pub(super) fn touch(&mut self, port: PortId) {
        if !self.touched.contains(&port) {
            self.touched.push(port);
        }
    }

    fn open(&mut self, socket: SocketId, target: Target) {
        let opened = match target {
            Target::Tcp(to) => {
                let by = self.uplink.way_to(to.ip());
                Stream::connect(to, by.as_deref()).map(HostSocket::Stream)
            }
            Target::DnsStream => self.open_dns_stream(socket).map(HostSocket::Stream),
            Target::Udp { v6 } => {
                Datagrams::udp(v6, self.uplink.interface()).map(HostSocket::Datagrams)
            }
            Target::Echo { v6 } => {
                Datagrams::echo(v6, self.uplink.interface()).map(HostSocket::Datagrams)
            }
        };
        match opened.and_then(|opened| self.register(socket, opened)) {
            Ok(true) => {}
            Ok(false) => self.connected(socket),
            Err(error) => self.cannot_open(socket, target, &error),
        }
    }

    /// Watches a socket. Answers whether its connection is still to be made.
    pub(super) fn register(&mut self, socket: SocketId, opened: HostSocket) -> io::Result<bool> {
        let token = Token::Socket(Slot::of(socket));
        let waits = match &opened {
            HostSocket::Stream(stream) => {
                self.poller.add(stream.fd(), token, EDGES)?;
                stream.connecting
            }
            HostSocket::Datagrams(datagrams) => {
                self.poller.add(datagrams.fd(), token, READ)?;
                true
            }
        };
        self.sockets.insert(socket, opened);
        Ok(waits)
    }

    /// The interface that sockets leave by is another one than before: flows of datagrams go on by it, connections that
    /// left by the one before are broken.
    pub(super) fn rebind_sockets(&mut self) {
        let ids: Vec<SocketId> = self.sockets.iter_mut().map(|(id, _)| id).collect();
        for socket in ids {
            match self.sockets.get_mut(socket) {
                Some(HostSocket::Datagrams(datagrams)) => {
                    if let Some(fd) = datagrams.rebind() {
                        let token = Token::Socket(Slot::of(socket));
                        let _unheard = self.poller.add(fd, token, READ);
                    }
                }
                Some(HostSocket::Stream(stream)) if stream.bound => {
                    let error = vmnet_core::HostError::Reset;
                    let event = Event::Failed { socket, error };
                    self.network.event(self.now, &event, &mut self.out);
                }
                Some(HostSocket::Stream(_)) | None => {}
            }
        }
        self.carry_out(Hand::EMPTY);
    }

    fn cannot_open(&mut self, socket: SocketId, target: Target, error: &io::Error) {
        let reason = match target {
            Target::Tcp(to) => error_towards(error, to),
            _ => host_error(error),
        };
        match (target, reason) {
            (Target::Echo { .. }, vmnet_core::HostError::Forbidden) if !self.warned.ping => {
                self.warned.ping = true;
                tracing::warn!(
                    "guests cannot ping the outside: the host's net.ipv4.ping_group_range has no group of this \
                     user; open it with `sysctl -w net.ipv4.ping_group_range='0 2147483647'` (as root)"
                );
            }
            (_, vmnet_core::HostError::Exhausted) if !self.warned.descriptors => {
                self.warned.descriptors = true;
                tracing::warn!(%error, "the host has no more sockets or ports: raise the limit with `ulimit -n`");
            }
            _ => tracing::debug!(?target, %error, "a socket cannot be opened"),
        }
        let event = Event::Failed {
            socket,
            error: reason,
        };
        self.network.event(self.now, &event, &mut self.out);
    }

    fn close(&mut self, socket: SocketId) {
        if let Some(HostSocket::Stream(stream)) = self.sockets.get_mut(socket) {
            // What cannot be removed any more belongs to a connection that is broken anyway.
            let _broken = stream.discard_now();
        }
        self.remove_socket(socket);
    }

    fn reset(&mut self, socket: SocketId) {
        if let Some(HostSocket::Stream(stream)) = self.sockets.get_mut(socket) {
            stream.reset_on_close();
        }
        self.remove_socket(socket);
    }

    fn remove_socket(&mut self, socket: SocketId) {
        self.forget_pending(socket);
        self.dns_sessions.remove(socket);
        // Closing takes the descriptor out of the poller too.
        self.sockets.remove(socket);
    }

    fn hold(&mut self, buffer: usize, at: usize, piece: Body<'_>) {
        if self.holds.is_empty() {
            self.holds.resize_with(HOLDS, Vec::new);
        }
        let Some(held) = self.holds.get_mut(buffer) else {
            return;
        };
        if held.len() < at + piece.len() {
            held.resize(at + piece.len(), 0);
        }
        let piece = piece.gathered(&mut self.scratch);
        held[at..at + piece.len()].copy_from_slice(piece);
    }
}
