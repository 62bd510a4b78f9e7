//! Carries out the core's actions, as its caller in a host would.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use vmnet_core::outbox::{Datagram, HOLDS};
use vmnet_core::{
    Action, Drop, Event, ForwardProtocol, HostError, IcmpError, PortId, Read, SocketId, Span,
    Target,
};
use vmnet_wire::offload::{Checksum, Offload};
use vmnet_wire::segment::{Cut, Fragments, complete, verify};

use crate::sim::clock::Later;
use crate::sim::internet::{Bare, Internet, Sent, UdpHost};
use crate::sim::lan::Lan;
use crate::sim::stream::{Server, Stream};

impl Lan {
    /// Carries out everything that the core wants: actions, then reads in turn, then a flush.
    pub(super) fn drain(&mut self) -> bool {
        let mut worked = false;
        loop {
            let mut more = self.carry_out_all();
            while let Some(read) = self.network.next_read(self.now, &mut self.out) {
                more = true;
                self.carry_out_all();
                self.read(read);
                self.carry_out_all();
            }
            self.network
                .flush(self.now, self.another_follows, &mut self.out);
            more |= self.carry_out_all();
            if let Some((port, frame)) = self.whole.pop_front() {
                more = true;
                self.receive_whole(port, frame);
            }
            if !more {
                return worked;
            }
            worked = true;
        }
    }

    fn receive_whole(&mut self, port: PortId, frame: Vec<u8>) {
        self.take(port, frame, Offload::NONE, true);
    }

    fn carry_out_all(&mut self) -> bool {
        let mut worked = false;
        while let Some(action) = self.out.take() {
            worked = true;
            self.carry_out(action);
        }
        worked
    }

    fn in_hand(&self, span: Span) -> &[u8] {
        let len = self.hand.len();
        span.of(&self.hand)
            .unwrap_or_else(|| panic!("{span:?} outside the hand of {len} bytes"))
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each action")]
    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Forward { port } => {
                let (frame, offload) = (self.hand.clone(), self.hand_offload);
                self.give(port, frame, offload);
            }
            Action::Reply { port, frame } => {
                let frame = self.out.bytes(&frame).to_vec();
                assert!(frame.len() >= 14, "a whole frame");
                assert!(verify(&frame), "checksums of what the core made");
                self.give(port, frame, Offload::VALID);
            }
            Action::Deliver {
                port,
                headers,
                body,
                offload,
            } => {
                let mut frame = self.out.bytes(&headers).to_vec();
                frame.extend_from_slice(self.in_hand(body));
                self.give(port, frame, offload);
            }
            Action::Open { socket, target } => self.open(socket, target),
            Action::Send { socket, span } => self.send(socket, span),
            Action::SendTo { socket, span, how } => self.send_to(socket, span, how),
            Action::Discard { socket, len } => {
                self.contract.name(socket);
                if let Some(stream) = self.internet.streams.get_mut(&socket) {
                    assert!(
                        len <= stream.receive.len(),
                        "discards {len} of {}",
                        stream.receive.len()
                    );
                    stream.receive.drain(..len);
                }
            }
            Action::ShutWrite { socket } => {
                self.contract.shut(socket);
                if let Some(stream) = self.internet.streams.get_mut(&socket) {
                    stream.shut = true;
                }
            }
            Action::NotifyWritable { socket } => {
                self.contract.name(socket);
                if let Some(stream) = self.internet.streams.get_mut(&socket) {
                    stream.writable_wanted = true;
                }
            }
            Action::Close { socket } => self.end(socket, false),
            Action::Reset { socket } => self.end(socket, true),
            Action::Ask {
                query,
                resolver,
                message,
                ..
            } => {
                let message = self.out.bytes(&message).to_vec();
                self.internet.asked.push((resolver, message.clone()));
                if let Some(Some(delay)) = self.internet.resolvers.get(&resolver).copied() {
                    let answer = self.internet.resolve(&message);
                    self.after(delay, Later::Answer(query, answer));
                }
            }
            Action::Forget { .. } => {}
            Action::StoreLeases { ticket, writes } => {
                assert!(!writes.is_empty(), "nothing to store");
                self.network
                    .leases_stored(self.now, ticket, true, &mut self.out);
            }
            Action::StreamAnswer { socket, message } => {
                self.contract.name(socket);
                let message = self.out.bytes(&message).to_vec();
                if let Some(stream) = self.internet.streams.get_mut(&socket) {
                    let len = u16::try_from(message.len()).expect("a DNS message");
                    stream.say(&len.to_be_bytes());
                    stream.say(&message);
                    stream.questions -= 1;
                    if stream.shut && stream.questions == 0 {
                        stream.finish();
                    }
                }
            }
            Action::Hold { buffer, at, span } => {
                assert!(buffer < HOLDS, "a buffer");
                let bytes = self.in_hand(span).to_vec();
                self.holds.resize_with(HOLDS, || vec![0; 65_536]);
                self.holds[buffer][at..at + bytes.len()].copy_from_slice(&bytes);
            }
            Action::Reassemble {
                port,
                headers,
                buffer,
                len,
            } => {
                let mut frame = self.out.bytes(&headers).to_vec();
                frame.extend_from_slice(&self.holds[buffer][..len]);
                self.whole.push_back((port, frame));
            }
        }
    }

    // ---- frames ----------------------------------------------------------------------------

    /// Gives a frame to a port, in pieces that it takes.
    fn give(&mut self, port: PortId, mut frame: Vec<u8>, offload: Offload) {
        if !self.ports.contains_key(&port) {
            return self.network.count_drop(Drop::NoPort);
        }
        let mut pieces = Vec::new();
        if let Some(segmentation) = offload.segmentation {
            // A guest that takes large segments cuts them itself, so the pieces are the same for all.
            let mut cut = Cut::new(&frame, frame.len(), segmentation).expect("headers that say so");
            let payload = frame[cut.headers()..].to_vec();
            while let Some((head, range)) = cut.next(&payload) {
                pieces.push([head.bytes(), &payload[range]].concat());
            }
        } else {
            complete(&mut frame, &[], offload.checksum);
            let most = usize::from(self.mtu) + 14;
            if frame.len() > most {
                match Fragments::new(&frame, usize::from(self.mtu)) {
                    Some(fragments) => {
                        for (head, range) in fragments {
                            pieces.push([head.bytes(), &frame[range]].concat());
                        }
                    }
                    None => self.network.count_drop(Drop::TooLong),
                }
            } else {
                pieces.push(frame);
            }
        }
        let now = self.now;
        for piece in pieces {
            let wire = self.ports.get_mut(&port).expect("looked at above");
            if offload.checksum != Checksum::Unverified && offload.checksum != Checksum::Wrong {
                assert!(verify(&piece), "checksums of a piece");
            }
            if wire.queue.len() >= wire.limit + 64 {
                self.network.count_drop(Drop::PortFull);
                continue;
            }
            wire.queue.push_back(piece);
            wire.wakes(now);
            if wire.ready && wire.queue.len() >= wire.limit {
                wire.ready = false;
                self.network.set_port_ready(port, false);
            }
        }
    }

    // ---- streams ---------------------------------------------------------------------------

    fn open(&mut self, socket: SocketId, target: Target) {
        self.contract.open(socket);
        self.internet.targets.push((socket, target));
        let latency = self.internet.latency;
        match target {
            Target::Tcp(to) => {
                if let Some(rule) = self.listener(to) {
                    return self.join(socket, to, rule);
                }
                let server = self.internet.server_at(to);
                self.internet
                    .streams
                    .insert(socket, Stream::new(to, server));
                match server {
                    Server::BlackHole => {}
                    Server::Refuse => {
                        self.after(latency, Later::Failed(socket, HostError::Refused))
                    }
                    Server::Error(error) => self.after(latency, Later::Failed(socket, error)),
                    _ => self.after(latency, Later::Connected(socket)),
                }
            }
            Target::DnsStream => {
                let nobody = SocketAddr::new(IpAddr::V4(self.gateway()), 53);
                self.internet
                    .streams
                    .insert(socket, Stream::new(nobody, Server::Dns));
                self.after(Duration::ZERO, Later::Connected(socket));
            }
            Target::Udp { .. } => {
                self.internet.next_port += 1;
                let port = self.internet.next_port;
                self.internet.bare.insert(socket, Bare::Udp(port));
            }
            Target::Echo { .. } => {
                self.internet.bare.insert(socket, Bare::Echo);
            }
        }
    }

    /// The rule that listens at an address of this host.
    fn listener(&self, to: SocketAddr) -> Option<vmnet_core::ForwardId> {
        let own = to.ip().is_loopback();
        self.rules
            .iter()
            .find(|(_, rule)| {
                rule.protocol == ForwardProtocol::Tcp
                    && rule.listen.port() == to.port()
                    && (rule.listen.ip() == to.ip() || own && rule.listen.ip().is_unspecified())
            })
            .map(|(id, _)| *id)
    }

    /// A connection of this host to itself.
    fn join(&mut self, socket: SocketId, to: SocketAddr, rule: vmnet_core::ForwardId) {
        self.internet.next_port += 1;
        let loopback = match to.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let client = SocketAddr::new(loopback, self.internet.next_port);
        self.internet
            .streams
            .insert(socket, Stream::new(to, Server::Joined(None)));
        let Some(other) = self.dial(rule, client, Server::Joined(Some(socket))) else {
            return self.after(Duration::ZERO, Later::Failed(socket, HostError::Reset));
        };
        if let Some(stream) = self.internet.streams.get_mut(&socket) {
            stream.server = Server::Joined(Some(other));
        }
        self.after(Duration::ZERO, Later::Connected(socket));
    }

    pub(super) fn connected(&mut self, socket: SocketId) {
        let Some(stream) = self.internet.streams.get_mut(&socket) else {
            return;
        };
        stream.connected = true;
        let room = stream.room();
        self.event(&Event::Connected { socket, room });
    }

    /// A connection failed, or broke.
    pub fn fail(&mut self, socket: SocketId, error: HostError) {
        let Some(stream) = self.internet.streams.get_mut(&socket) else {
            return;
        };
        stream.broken = true;
        self.contract.failed(socket);
        self.event(&Event::Failed { socket, error });
    }

    fn send(&mut self, socket: SocketId, span: Span) {
        self.contract.write(socket);
        let bytes = self.in_hand(span).to_vec();
        let Some(stream) = self.internet.streams.get_mut(&socket) else {
            return;
        };
        let taken = bytes.len().min(stream.room());
        stream.send.extend(&bytes[..taken]);
        let room = stream.room();
        // Answered at once, while the hand holds what it held.
        self.network.event(
            self.now,
            &Event::Sent {
                socket,
                taken,
                room,
            },
            &mut self.out,
        );
    }

    fn read(&mut self, read: Read) {
        let Read {
            socket,
            offset,
            max,
            to: _,
        } = read;
        self.contract.name(socket);
        let Some(stream) = self.internet.streams.get_mut(&socket) else {
            return;
        };
        let there = stream.receive.len();
        assert!(offset <= there, "peeks at {offset} of {there}");
        let len = max.min(there - offset);
        self.hand = stream
            .receive
            .iter()
            .skip(offset)
            .take(len)
            .copied()
            .collect();
        self.hand_offload = Offload::VALID;
        let behind = offset + len == there;
        let ended = stream.ended && behind;
        let event = Event::Peeked {
            socket,
            len,
            ended,
            more: !behind,
        };
        self.network.event(self.now, &event, &mut self.out);
    }

    fn end(&mut self, socket: SocketId, by_reset: bool) {
        self.contract.end(socket);
        self.internet.bare.remove(&socket);
        let Some(mut stream) = self.internet.streams.remove(&socket) else {
            return;
        };
        if let Server::Joined(Some(other)) = stream.server
            && let Some(other) = self.internet.streams.get_mut(&other)
        {
            other.say(&stream.send.drain(..).collect::<Vec<u8>>());
            if by_reset {
                other.break_with = Some(HostError::Reset);
            } else {
                other.finish();
            }
        }
        stream.shut |= !by_reset;
        // What was written still reaches the server.
        if !by_reset {
            stream.consume(usize::MAX);
        }
        self.internet.past.push((stream, by_reset));
    }

    /// Servers work, and what they did is told.
    pub(super) fn internet_works(&mut self) -> bool {
        let mut worked = false;
        let sockets: Vec<SocketId> = self.internet.streams.keys().copied().collect();
        for socket in sockets {
            let now = self.now;
            self.ask_dns(socket);
            self.pipe(socket);
            let Some(stream) = self.internet.streams.get_mut(&socket) else {
                continue;
            };
            if !stream.connected || stream.broken {
                continue;
            }
            stream.work(now);
            if let Some(error) = stream.break_with.take() {
                worked = true;
                self.fail(socket, error);
                continue;
            }
            if std::mem::take(&mut stream.news) {
                worked = true;
                let ended = stream.ended;
                self.event(&Event::Readable { socket, ended });
            }
            let Some(stream) = self.internet.streams.get_mut(&socket) else {
                continue;
            };
            // Like Linux, which tells when a third of the queue is free.
            if stream.writable_wanted && stream.room() * 3 >= stream.send_max {
                stream.writable_wanted = false;
                let room = stream.room();
                worked = true;
                self.event(&Event::Writable { socket, room });
            }
        }
        worked
    }

    /// Takes whole questions from a stream to the DNS proxy.
    fn ask_dns(&mut self, socket: SocketId) {
        while let Some(stream) = self.internet.streams.get_mut(&socket)
            && stream.server == Server::Dns
        {
            let [high, low] = [0, 1].map(|at| stream.send.get(at).copied());
            let (Some(high), Some(low)) = (high, low) else {
                if stream.shut && stream.questions == 0 {
                    stream.finish();
                }
                return;
            };
            let len = usize::from(u16::from_be_bytes([high, low]));
            if stream.send.len() < 2 + len {
                if stream.shut && stream.questions == 0 {
                    stream.finish();
                }
                return;
            }
            let message: Vec<u8> = stream.send.drain(..2 + len).skip(2).collect();
            stream.questions += 1;
            self.event(&Event::StreamQuery {
                socket,
                message: &message,
            });
        }
    }

    fn pipe(&mut self, socket: SocketId) {
        let Some(stream) = self.internet.streams.get_mut(&socket) else {
            return;
        };
        let Server::Joined(Some(other)) = stream.server else {
            return;
        };
        let (bytes, ended) = (std::mem::take(&mut stream.send), stream.shut);
        let Some(other) = self.internet.streams.get_mut(&other) else {
            return;
        };
        if !bytes.is_empty() {
            other.say(&bytes.into_iter().collect::<Vec<u8>>());
        }
        if ended {
            other.finish();
        }
    }

    // ---- datagrams -------------------------------------------------------------------------

    fn send_to(&mut self, socket: SocketId, span: Span, how: Datagram) {
        self.contract.write(socket);
        let payload = self.in_hand(span).to_vec();
        self.internet.sent.push(Sent {
            socket,
            how,
            payload: payload.clone(),
        });
        let latency = self.internet.latency;
        match self.internet.bare.get(&socket) {
            Some(Bare::Echo) => {
                let v6 = how.to.is_ipv6();
                if self.internet.pingable.contains(&how.to.ip()) {
                    let mut reply = payload;
                    // A ping socket answers with an identifier of its own.
                    let kind = if v6 { 129 } else { 0 };
                    (reply[0], reply[4], reply[5]) = (kind, 0xab, 0xcd);
                    (reply[2], reply[3]) = (0, 0);
                    // That of ICMPv6 is over addresses that the guest does not know.
                    let sum = vmnet_wire::checksum::Sum::new().with(&reply).finish();
                    reply[2..4].copy_from_slice(&sum.to_be_bytes());
                    self.after(latency, Later::Datagram(socket, how.to, reply));
                } else {
                    let (kind, code) = if v6 { (1, 3) } else { (3, 1) };
                    let error = Internet::error(how.to, how.to.ip(), kind, code);
                    let head = payload.get(..8).unwrap_or(&payload).to_vec();
                    self.after(latency, Later::Error(socket, error, head));
                }
            }
            Some(Bare::Udp(_)) => self.udp_leaves(socket, payload, how, latency),
            None => panic!("a datagram by {socket:?}, which is none"),
        }
    }

    /// The UDP socket of this host at one of its own addresses.
    fn udp_socket_at(&self, to: SocketAddr) -> Option<SocketId> {
        let bare = self.internet.bare.iter();
        bare.filter(|_| to.ip().is_loopback())
            .find(|(_, bare)| **bare == Bare::Udp(to.port()))
            .map(|(socket, _)| *socket)
    }

    fn udp_leaves(&mut self, socket: SocketId, payload: Vec<u8>, how: Datagram, latency: Duration) {
        if let Some(other) = self.udp_socket_at(how.to)
            && let Some(Bare::Udp(port)) = self.internet.bare.get(&socket)
        {
            let from = SocketAddr::new(how.to.ip(), *port);
            return self.after(Duration::ZERO, Later::Datagram(other, from, payload));
        }
        match self.internet.udp.get(&how.to).copied() {
            Some(UdpHost::Echo) => self.after(latency, Later::Datagram(socket, how.to, payload)),
            Some(UdpHost::EchoFrom(port)) => {
                let from = SocketAddr::new(how.to.ip(), port);
                self.after(latency, Later::Datagram(socket, from, payload));
            }
            Some(UdpHost::Error(kind, code)) => {
                let error: IcmpError = Internet::error(how.to, how.to.ip(), kind, code);
                self.after(latency, Later::Error(socket, error, payload));
            }
            Some(UdpHost::Narrow(mtu))
                if how.dont_fragment && payload.len() + 28 > mtu as usize =>
            {
                self.after(Duration::ZERO, Later::TooLarge(socket, how.to, mtu));
            }
            Some(UdpHost::Narrow(_)) => {
                self.after(latency, Later::Datagram(socket, how.to, payload));
            }
            Some(UdpHost::Silent) | None => {}
        }
    }
}
