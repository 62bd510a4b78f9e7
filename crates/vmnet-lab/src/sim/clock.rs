//! The clock, which jumps to whatever happens next, and what happens then.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vmnet_core::{Event, Frame, HostError, IcmpError, PortId, SocketId};
use vmnet_wire::offload::{Checksum, Offload};

use crate::sim::lan::Lan;
use crate::sim::stream::Stream;

/// So much work at one instant is no work but a loop.
const BUSY: usize = 200_000;

/// Something that will happen.
pub(super) enum Later {
    FromGuest(PortId, Vec<u8>),
    ToGuest(PortId, Vec<u8>),
    Connected(SocketId),
    Failed(SocketId, HostError),
    Datagram(SocketId, SocketAddr, Vec<u8>),
    Error(SocketId, IcmpError, Vec<u8>),
    TooLarge(SocketId, SocketAddr, u32),
    Answer(vmnet_core::gateway::dns::QueryId, Vec<u8>),
}

impl Lan {
    pub(super) fn after(&mut self, delay: Duration, what: Later) {
        self.count += 1;
        self.later.insert((self.now + delay, self.count), what);
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run(end, |_| false);
        self.now = end;
        self.settle();
    }

    /// Lets time pass until `done`, at most `limit`. Whether it was done.
    pub fn run_until(&mut self, limit: Duration, done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        self.run(end, done)
    }

    fn run(&mut self, end: Instant, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let mut still = 0;
        loop {
            self.settle();
            if done(self) {
                self.settle();
                return true;
            }
            self.settle();
            let Some(next) = self.next_deadline() else {
                return false;
            };
            if next > end {
                return false;
            }
            still = if next > self.now { 0 } else { still + 1 };
            assert!(still < 1000, "somebody wants to work at once, forever");
            self.now = self.now.max(next);
        }
    }

    /// When something happens next.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        let now = self.now;
        let guests = self.ports.values_mut().filter_map(|wire| {
            let flush = if wire.stuck { None } else { wire.flush_at };
            wire.guest.next_deadline(now).into_iter().chain(flush).min()
        });
        let guests = guests.min();
        let streams = self
            .internet
            .streams
            .values()
            .filter_map(Stream::next_deadline)
            .min();
        [
            guests,
            streams,
            self.later.keys().next().map(|(at, _)| *at),
            self.network.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does everything that is to be done at this instant.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < BUSY, "work without end at one instant");
            let mut worked = self.drain();
            worked |= self.happen();
            worked |= self.guests_work();
            worked |= self.internet_works();
            if self
                .network
                .next_deadline()
                .is_some_and(|at| at <= self.now)
            {
                worked = true;
                self.timeouts += 1;
                self.network.timeout(self.now, &mut self.out);
                self.drain();
                let next = self.network.next_deadline();
                assert!(
                    next.is_none_or(|at| at > self.now),
                    "a timeout left its deadline behind"
                );
            }
            worked |= self.wires_flush();
            if !worked {
                return;
            }
        }
    }

    /// What was to happen by now.
    fn happen(&mut self) -> bool {
        let mut worked = false;
        while let Some(entry) = self.later.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            worked = true;
            match entry.remove() {
                Later::FromGuest(port, frame) => self.receive(port, frame, Offload::NONE),
                Later::ToGuest(port, frame) => {
                    if let Some(wire) = self.ports.get_mut(&port) {
                        wire.arrive(frame);
                    }
                }
                Later::Connected(socket) => self.connected(socket),
                Later::Failed(socket, error) => self.fail(socket, error),
                Later::Datagram(socket, from, bytes) => self.datagram_came(socket, from, bytes),
                Later::Error(socket, error, original) => {
                    if self.internet.bare.contains_key(&socket) {
                        self.event(&Event::Error {
                            socket,
                            error,
                            original: &original,
                        });
                    }
                }
                Later::TooLarge(socket, to, mtu) => {
                    if self.internet.bare.contains_key(&socket) {
                        self.event(&Event::TooLarge { socket, to, mtu });
                    }
                }
                Later::Answer(query, message) => {
                    self.event(&Event::Answer {
                        query,
                        message: &message,
                    });
                }
            }
        }
        worked
    }

    fn datagram_came(&mut self, socket: SocketId, from: SocketAddr, bytes: Vec<u8>) {
        if !self.internet.bare.contains_key(&socket) {
            return;
        }
        self.hand = bytes;
        self.hand_offload = Offload::VALID;
        let head = self.hand.get(..64).unwrap_or(&self.hand).to_vec();
        let len = self.hand.len();
        self.event(&Event::Datagram {
            socket,
            from,
            head: &head,
            len,
            segment: None,
            ttl: 55,
        });
    }

    fn guests_work(&mut self) -> bool {
        let mut worked = false;
        let ports: Vec<PortId> = self.ports.keys().copied().collect();
        for port in ports {
            let Some(wire) = self.ports.get_mut(&port) else {
                continue;
            };
            let (frames, trouble) = (wire.guest.work(self.now), wire.from_guest);
            for frame in frames {
                worked = true;
                if let Some(trace) = &mut self.wire(port).trace {
                    trace.note(true, &frame);
                }
                for (late, frame) in trouble.suffer(&mut self.dice, frame) {
                    if late.is_zero() {
                        self.receive(port, frame, Offload::NONE);
                    } else {
                        self.after(late, Later::FromGuest(port, frame));
                    }
                }
            }
        }
        worked
    }

    /// A frame reaches the port: it checks sums, as the card of a host does.
    pub fn receive(&mut self, port: PortId, frame: Vec<u8>, offload: Offload) {
        self.take(port, frame, offload, false);
    }

    /// The same; `in_pieces`: it was put together from pieces.
    pub(super) fn take(
        &mut self,
        port: PortId,
        frame: Vec<u8>,
        mut offload: Offload,
        in_pieces: bool,
    ) {
        if offload.checksum == Checksum::Unverified {
            let right = vmnet_wire::segment::verify(&frame);
            offload.checksum = if right {
                Checksum::Valid
            } else {
                Checksum::Wrong
            };
        }
        self.hand = frame;
        self.hand_offload = offload;
        // The core sees a head; bodies stay here. What was put together is all there.
        let seen = match in_pieces {
            true => self.hand.len(),
            false => vmnet_core::frame::HEAD_MAX,
        };
        let head = self.hand.get(..seen).unwrap_or(&self.hand).to_vec();
        let frame = Frame {
            head: &head,
            len: self.hand.len(),
            offload,
            in_pieces,
            following: 0,
        };
        self.network.receive(self.now, port, &frame, &mut self.out);
        self.drain();
    }

    fn wires_flush(&mut self) -> bool {
        let mut worked = false;
        let ports: Vec<PortId> = self.ports.keys().copied().collect();
        for port in ports {
            let now = self.now;
            let wire = self.ports.get_mut(&port).expect("listed");
            if wire.stuck || wire.flush_at.is_none_or(|at| at > now) {
                continue;
            }
            worked = true;
            wire.flush_at = None;
            let trouble = wire.to_guest;
            let frames: Vec<_> = wire.queue.drain(..).collect();
            let unready = !std::mem::replace(&mut wire.ready, true);
            for frame in frames {
                for (late, frame) in trouble.suffer(&mut self.dice, frame) {
                    if late.is_zero() {
                        self.ports.get_mut(&port).expect("listed").arrive(frame);
                    } else {
                        self.after(late, Later::ToGuest(port, frame));
                    }
                }
            }
            if unready {
                self.network.set_port_ready(port, true);
            }
        }
        worked
    }
}
