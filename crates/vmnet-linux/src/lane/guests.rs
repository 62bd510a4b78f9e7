//! Guests that come and go, and the frames they send.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::event::epoll::EventFlags;
use rustix::net::SocketAddrUnix;
use vmnet_core::gateway::dhcp::{Lease, State};
use vmnet_core::{Frame, PortId};
use vmnet_wire::ethernet::Mac;
use vmnet_wire::offload::Offload;

use crate::lane::datapath::Lane;
use crate::lane::execute::Hand;
use crate::lane::forwarding::Listener;
use crate::lane::vmm;
use crate::lane::{
    AttachError, Attachment, GuestSocket, ListenerId, PortKind, PortOffload, PortOptions, PortRow,
};
use crate::poller::{READ, READ_WRITE, Token};
use crate::port::arriving::{self, Here};
use crate::port::dgram::{self, Dgram};
use crate::port::packet::Packet;
use crate::port::stream::Stream;
use crate::port::tap::{self, Tap};
use crate::port::{FRAME_MAX, Flushed, INPUT_MAX, Port};
use crate::slots::Slot;
use crate::sys::{lan_socket, sockopt};

/// Frames of one port in its turn.
const BURST: usize = 64;
/// Bytes of one port in its turn.
const BURST_BYTES: usize = 1 << 20;
/// Frames that a socket holds on the way to us, as the core has to know it: its VMM waits when it is full.
const SOCKET_QUEUE: usize = 512;
/// The same of rings, which are mostly of this size. A guest waits when one is full.
const RING_QUEUE: usize = 256;
/// Bytes that we wish sockets for guests to hold; the host may allow fewer.
const SOCKET_BYTES: i32 = 4 << 20;
/// The same where frames are large: 8 MiB fill in about 2 ms.
const SOCKET_BYTES_LARGE: i32 = 8 << 20;
/// Guests on one datagram socket.
const PATHS_MAX: usize = 256;

impl Lane {
    pub(super) fn attach(
        &mut self,
        attachment: Attachment,
        options: PortOptions,
    ) -> Result<PortId, AttachError> {
        match attachment {
            Attachment::Tap(fd) => {
                set_nonblocking(&fd)?;
                Ok(self.add_port(Port::Tap(Tap::new(fd)), options)?)
            }
            Attachment::Packet { socket, mac, hears } => {
                let packet = Packet::new(socket, mac, hears);
                packet.listen_for(&self.guest_macs());
                Ok(self.add_port(Port::Packet(packet), options)?)
            }
            Attachment::Stream(fd) => Ok(self.add_stream(fd, options)?),
            Attachment::Dgram(fd) => {
                set_nonblocking(&fd)?;
                widen(&fd, options.offload);
                let port = Port::Dgram(Dgram::connected(fd), options.offload);
                Ok(self.add_port(port, options)?)
            }
            Attachment::VhostUser(socket) => {
                let id = self.add_port(vmm::port(&socket), options)?;
                if let Err(error) = self.attach_vhost_user(id, socket) {
                    self.detach(id);
                    return Err(error.into());
                }
                Ok(id)
            }
        }
    }

    pub(super) fn listen(
        &mut self,
        socket: GuestSocket,
        options: PortOptions,
    ) -> Result<ListenerId, AttachError> {
        let listener = match socket {
            GuestSocket::Stream(listener) => {
                listener.set_nonblocking(true)?;
                Listener::Streams(listener, options)
            }
            GuestSocket::Dgram(socket) => {
                socket.set_nonblocking(true)?;
                let socket = OwnedFd::from(socket);
                widen(&socket, options.offload);
                Listener::Datagrams(Rc::new(socket), options)
            }
        };
        Ok(ListenerId(self.add_listener(listener)?))
    }

    pub(super) fn end_listener(&mut self, id: ListenerId) {
        if let Some(listener) = self.listeners.remove(&id.0) {
            // Others may hold the descriptor too, so that closing it does not end its events.
            self.poller.remove(listener.fd());
        }
        let guests: Vec<PortId> = self
            .came_by
            .iter()
            .filter(|(_, by)| **by == id)
            .map(|(port, _)| *port)
            .collect();
        for port in guests {
            self.detach(port);
        }
    }

    /// A guest came by a listener.
    pub(super) fn welcome(
        &mut self,
        guest: OwnedFd,
        options: PortOptions,
        by: ListenerId,
    ) -> io::Result<()> {
        let id = self.add_stream(guest, options)?;
        self.came_by.insert(id, by);
        Ok(())
    }

    fn add_stream(&mut self, fd: OwnedFd, options: PortOptions) -> io::Result<PortId> {
        set_nonblocking(&fd)?;
        widen(&fd, options.offload);
        self.add_port(Port::Stream(Stream::new(fd), options.offload), options)
    }

    fn add_port(&mut self, port: Port, options: PortOptions) -> io::Result<PortId> {
        let queue = match &port {
            Port::Tap(_) | Port::Packet(_) => tap::QUEUE,
            Port::Stream(..) | Port::Dgram(..) => SOCKET_QUEUE,
            Port::VhostUser(_) => RING_QUEUE,
        };
        let mut place = vmnet_core::Port::new(queue);
        (place.name, place.mac) = (options.name, options.mac);
        (place.isolated, place.role) = (options.isolated, options.role);
        place.large_segments = match &port {
            Port::Tap(_) | Port::Packet(_) | Port::VhostUser(_) => true,
            Port::Stream(_, takes) | Port::Dgram(_, takes) => takes.tso,
        };
        let id = self.network.add_port(place);
        let watched = match port_fd(&port) {
            Some(fd) => self.poller.add(fd, Self::slot_token(id), READ),
            None => Ok(()),
        };
        if let Err(error) = watched {
            self.network.remove_port(self.now, id);
            return Err(error);
        }
        self.ports.insert(id, port);
        tracing::debug!(?id, "a port was attached");
        Ok(id)
    }

    pub(super) fn detach(&mut self, id: PortId) {
        if let Some(port) = self.ports.remove(id) {
            // Others may hold the descriptor too, so that closing it does not end its events.
            if let Some(fd) = port_fd(&port) {
                self.poller.remove(fd);
            }
            if let Port::VhostUser(mut port) = port {
                self.forget_vmm(id, &mut port);
            }
            self.network.remove_port(self.now, id);
            self.full.retain(|(other, _)| *other != id);
            self.came_by.remove(&id);
            tracing::debug!(?id, "a port is gone");
        }
    }

    pub(super) fn port_event(&mut self, slot: Slot, flags: EventFlags) {
        let Some(id) = self.ports.find(slot) else {
            return;
        };
        if flags.contains(EventFlags::OUT) {
            self.flush_port(id);
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        let received = match self.ports.get_mut(id) {
            Some(Port::Tap(_) | Port::Packet(_)) => self.receive_from_tap(id),
            Some(Port::Stream(..)) => self.receive_from_stream(id),
            Some(Port::Dgram(..)) => self.receive_from_dgram(id),
            Some(Port::VhostUser(_)) | None => Ok(()),
        };
        self.receive_joined();
        if let Err(error) = received {
            if error.kind() != io::ErrorKind::UnexpectedEof {
                tracing::info!(%error, "a guest's port broke and was removed");
            }
            self.detach(id);
        }
    }

    /// Sockets that hear what the host sends are told which guests it is for.
    pub(super) fn tell_packet_sockets(&mut self) {
        if !self.network.take_changed_macs() {
            return;
        }
        let guests = self.guest_macs();
        for (_, port) in self.ports.iter_mut() {
            if let Port::Packet(packet) = port {
                packet.listen_for(&guests);
            }
        }
    }

    fn guest_macs(&self) -> Vec<[u8; 6]> {
        self.network.macs().map(|(Mac(mac), _)| mac).collect()
    }

    fn receive_from_tap(&mut self, id: PortId) -> io::Result<()> {
        let mut frame = std::mem::take(&mut self.frame);
        // A packet socket's frames may begin behind a place for a tag.
        frame.resize(FRAME_MAX + lan_socket::TAG, 0);
        let mut bytes = 0;
        let mut result = Ok(());
        for _ in 0..BURST {
            let received = match self.ports.get_mut(id) {
                Some(Port::Tap(tap)) => tap
                    .receive(&mut frame)
                    .map(|came| came.map(|(len, offload)| (0..len, offload))),
                Some(Port::Packet(packet)) => packet.receive(&mut frame),
                _ => break,
            };
            match received {
                Ok(Some((place, offload))) => {
                    bytes += place.len();
                    self.receive(id, &frame[place], offload);
                }
                Ok(None) => break,
                // A frame of a kind that was not agreed on is the kernel's mistake, not the tap's end.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.network.count_drop(vmnet_core::Drop::Malformed);
                }
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            if bytes > BURST_BYTES {
                break;
            }
        }
        self.frame = frame;
        result
    }

    fn receive_from_stream(&mut self, id: PortId) -> io::Result<()> {
        let Some(Port::Stream(stream, agreed)) = self.ports.get_mut(id) else {
            return Ok(());
        };
        if !stream.receive()? {
            return Ok(());
        }
        let (mut input, agreed) = (stream.take_input(), *agreed);
        let result = loop {
            match input.next() {
                Ok(Some(came)) => self.receive_from_socket(id, came, agreed),
                Ok(None) => break Ok(()),
                Err(error) => break Err(io::Error::other(error)),
            }
        };
        if let Some(Port::Stream(stream, _)) = self.ports.get_mut(id) {
            stream.give_back(input);
        }
        result
    }

    fn receive_from_dgram(&mut self, id: PortId) -> io::Result<()> {
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(INPUT_MAX, 0);
        let mut bytes = 0;
        let mut result = Ok(());
        for _ in 0..BURST {
            let Some(Port::Dgram(port, agreed)) = self.ports.get_mut(id) else {
                break;
            };
            let agreed = *agreed;
            let Some(fd) = port.fd() else { break };
            match dgram::receive(fd, &mut frame) {
                Ok(Some((len, _))) => {
                    self.receive_from_socket(id, &mut frame[..len], agreed);
                    bytes += len;
                }
                Ok(None) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            if bytes > BURST_BYTES {
                break;
            }
        }
        self.frame = frame;
        result
    }

    fn receive_from_socket(&mut self, id: PortId, came: &mut [u8], agreed: PortOffload) {
        let here = Here {
            mtu: usize::from(self.network.mtu()),
            gateways: self.network.gateway_macs(),
        };
        match arriving::read(came, agreed, here) {
            Ok((frame, offload)) => self.receive_small(id, frame, offload),
            Err(cause) => self.network.count_drop(cause),
        }
    }

    /// A shared datagram socket: frames of several guests.
    pub(super) fn receive_from_paths(
        &mut self,
        socket: &Rc<OwnedFd>,
        options: &PortOptions,
        by: ListenerId,
    ) {
        use std::os::fd::AsFd;
        let mut frame = std::mem::take(&mut self.frame);
        frame.resize(INPUT_MAX, 0);
        for _ in 0..BURST {
            // An error here is that of an earlier answer to a guest that is gone.
            let Ok(Some((len, from))) = dgram::receive(socket.as_fd(), &mut frame) else {
                break;
            };
            let Some(id) = from.and_then(|path| self.port_at(socket, path, options, by)) else {
                tracing::debug!(
                    "a frame came from a socket without a path, which cannot be answered"
                );
                continue;
            };
            self.receive_from_socket(id, &mut frame[..len], options.offload);
        }
        self.receive_joined();
        self.frame = frame;
    }

    /// The port of the guest at `path`; a new one if it is new.
    fn port_at(
        &mut self,
        socket: &Rc<OwnedFd>,
        path: SocketAddrUnix,
        options: &PortOptions,
        by: ListenerId,
    ) -> Option<PortId> {
        // The same path may send to two sockets: it is a guest of each.
        let came_by = &self.came_by;
        let is_it = |id: PortId, port: &Port| {
            matches!(port, Port::Dgram(dgram, _) if dgram.path() == Some(&path))
                && came_by.get(&id) == Some(&by)
        };
        if let Some((id, _)) = self.ports.iter_mut().find(|(id, port)| is_it(*id, port)) {
            return Some(id);
        }
        if self.came_by.values().filter(|other| **other == by).count() >= PATHS_MAX {
            return None;
        }
        let port = Port::Dgram(Dgram::at(Rc::clone(socket), path), options.offload);
        let id = self.add_port(port, options.clone()).ok()?;
        self.came_by.insert(id, by);
        Some(id)
    }

    /// Every port and who is behind it, for people. Frames wait meanwhile: each MAC and each lease is looked at once.
    pub(super) fn port_rows(&mut self) -> Vec<PortRow> {
        let mut kinds: Vec<(PortId, PortKind)> = self
            .ports
            .iter_mut()
            .map(|(id, port)| (id, kind(port)))
            .collect();
        kinds.sort_by_key(|(id, _)| *id);
        let mut seen: HashMap<PortId, Vec<Mac>> = HashMap::new();
        for (mac, port) in self.network.macs() {
            seen.entry(port).or_default().push(mac);
        }
        // The first of each MAC.
        let mut leases: HashMap<Mac, (usize, &Lease)> = HashMap::new();
        let bound = |lease: &&Lease| lease.state == State::Bound;
        for (place, lease) in self.network.leases().filter(bound).enumerate() {
            leases.entry(lease.mac).or_insert((place, lease));
        }
        kinds
            .into_iter()
            .map(|(id, kind)| {
                let seen = seen.get(&id).map_or(&[][..], Vec::as_slice);
                let its = seen.iter().filter_map(|mac| leases.get(mac));
                let lease = its.min_by_key(|(place, _)| *place).map(|(_, lease)| *lease);
                self.port_row(id, kind, seen, lease)
            })
            .collect()
    }

    fn port_row(&self, id: PortId, kind: PortKind, seen: &[Mac], lease: Option<&Lease>) -> PortRow {
        let place = self.network.port(id);
        let fixed = place.and_then(|place| place.mac);
        let own_name = || lease.and_then(|lease| lease.name.clone());
        // It has no lease: what it speaks from.
        let spoken = || {
            let last = |mac: &&Mac| self.network.seen_behind(id, **mac);
            self.network
                .spoken_from(self.now, *seen.iter().max_by_key(last)?)
        };
        PortRow {
            id,
            kind,
            listener: self.came_by.get(&id).copied(),
            name: place.and_then(|place| place.name.clone()).or_else(own_name),
            mac: lease
                .map(|lease| lease.mac)
                .or(fixed)
                .or_else(|| seen.iter().min().copied()),
            address: lease.map(|lease| lease.address).or_else(spoken),
            isolated: self.network.is_isolated(id),
        }
    }

    pub(super) fn receive(&mut self, id: PortId, frame: &[u8], offload: Offload) {
        self.moved += frame.len();
        let seen = Frame {
            head: frame,
            len: frame.len(),
            offload,
            in_pieces: false,
            following: 0,
        };
        self.network.receive(self.now, id, &seen, &mut self.out);
        self.carry_out(Hand {
            head: frame,
            offload,
            ..Hand::EMPTY
        });
    }

    // ---- towards guests --------------------------------------------------------------------

    /// Sends what ports have queued in this turn.
    pub(super) fn flush_ports(&mut self) {
        for index in 0..self.full.len() {
            if let Some((id, true)) = self.full.get(index).copied() {
                self.touched.push(id);
            }
        }
        let mut touched = std::mem::take(&mut self.touched);
        while !touched.is_empty() {
            for id in touched.drain(..) {
                self.flush_port(id);
            }
            // A port whose rings have just ended has room again: each is so at most once.
            std::mem::swap(&mut touched, &mut self.touched);
        }
    }

    fn flush_port(&mut self, id: PortId) {
        let Some(port) = self.ports.get_mut(id) else {
            return;
        };
        let flushed = port.flush();
        if let Port::VhostUser(port) = port {
            for (cause, count) in port.take_lost() {
                (0..count).for_each(|_| self.network.count_drop(cause));
            }
        }
        let was = self.full.iter().position(|(other, _)| *other == id);
        match flushed {
            Ok(Flushed::Empty) => {
                if let Some(index) = was {
                    self.full.swap_remove(index);
                    self.watch(id, READ);
                    self.network.set_port_ready(id, true);
                }
            }
            Ok(full) => {
                let retry = full == Flushed::Retry;
                match was.and_then(|index| self.full.get_mut(index)) {
                    // Whether it can tell changes, and is not known before the first flush.
                    Some(known) => known.1 = retry,
                    None => {
                        self.set_full(id, retry);
                        self.watch(id, READ_WRITE);
                    }
                }
            }
            Err(error) if matches!(port, Port::VhostUser(_)) => self.break_off(id, &error),
            Err(error) => {
                tracing::debug!(%error, "a guest is gone");
                self.detach(id);
            }
        }
    }

    /// Streams wait for a port, until a flush finds it empty.
    pub(super) fn set_full(&mut self, id: PortId, retry: bool) {
        if !self.full.iter().any(|(other, _)| *other == id) {
            self.full.push((id, retry));
            self.network.set_port_ready(id, false);
        }
    }

    fn watch(&mut self, id: PortId, flags: EventFlags) {
        if let Some(fd) = self.ports.get_mut(id).and_then(|port| port_fd(port)) {
            let _gone = self.poller.change(fd, Token::Port(Slot::of(id)), flags);
        }
    }
}

fn kind(port: &Port) -> PortKind {
    match port {
        Port::Tap(_) => PortKind::Tap,
        Port::Packet(_) => PortKind::Packet,
        Port::Stream(..) => PortKind::Stream,
        Port::Dgram(..) => PortKind::Dgram,
        Port::VhostUser(_) => PortKind::VhostUser,
    }
}

fn port_fd(port: &Port) -> Option<std::os::fd::BorrowedFd<'_>> {
    match port {
        Port::Tap(tap) => Some(tap.fd()),
        Port::Packet(packet) => Some(packet.tap.fd()),
        Port::Stream(stream, _) => Some(stream.fd()),
        Port::Dgram(dgram, _) => dgram.fd(),
        Port::VhostUser(_) => None,
    }
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(
        fd,
        flags | rustix::fs::OFlags::NONBLOCK,
    )?)
}

fn widen(fd: &OwnedFd, offload: PortOffload) {
    let bytes = if offload.tso {
        SOCKET_BYTES_LARGE
    } else {
        SOCKET_BYTES
    };
    // The host may allow less, and says so by cutting; that is no error.
    let _less = sockopt::set_queues(fd, bytes);
}
