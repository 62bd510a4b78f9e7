//! The handshake with the guest (RFC 9293 §3.5), begun by the guest or by a client of a forwarded port.

use core::net::SocketAddr;
use std::time::Duration;

use vmnet_wire::ethernet::Mac;
use vmnet_wire::tcp::{Fields, Flags, Header, Segment, Seq, SynOptions};
use zerocopy::IntoBytes;

use crate::event::HostError;
use crate::gateway::icmp::Cause;
use crate::link::Link;
use crate::nat::tcp::{
    Agenda, Arrival, Fate, IDLE, RETRANSMIT, SCALE, SYN_RETRIES_MAX, State, TRANSITORY, Tcp,
    Window, refuse, send,
};
use crate::outbox::{Action, SocketId, Target};

/// The smallest segment that every host takes (RFC 9293 §3.7.1).
const MSS_DEFAULT: u16 = 536;
/// No guest makes us send smaller segments than this: each costs as much as a large one.
const MSS_MIN: u16 = 64;

/// The first wait for the answer of a guest that was asked where it is.
const RESOLVE: Duration = Duration::from_millis(10);

/// Who a connection is between.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) guest: SocketAddr,
    /// As the guest knows it.
    pub(crate) peer: SocketAddr,
    pub(crate) mac: Mac,
}

/// What a guest's connection leads to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) target: Target,
    /// To be tried when nobody listens there, or the host has no way there.
    pub(crate) otherwise: Option<SocketAddr>,
}

/// What came of a failed connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// Another address is being tried.
    Retried,
    /// The guest was sent a reset.
    Reset,
    /// The guest is to be told this by ICMP.
    Unreachable(Cause),
}

impl Tcp {
    /// A guest's SYN wants a connection to `goal`.
    pub(crate) fn open(
        link: &mut Link<'_>,
        agenda: &mut Agenda,
        id: SocketId,
        ends: Ends,
        syn: &Segment<'_>,
        (goal, isn): (Goal, Seq),
    ) -> Self {
        let mut flow = Self::new(link, id, ends, isn, State::Opening);
        flow.learn_options(link, syn);
        flow.window.start(
            syn.fields.sequence.advance(1),
            flow.mss,
            flow.guest_scale.is_some(),
        );
        flow.otherwise = goal.otherwise;
        link.out.push(Action::Open {
            socket: id,
            target: goal.target,
        });
        flow.schedule(agenda);
        flow
    }

    /// The host accepted a connection that leads to a guest, and has `room` in its send queue.
    pub(crate) fn call(
        link: &mut Link<'_>,
        agenda: &mut Agenda,
        id: SocketId,
        ends: Ends,
        room: usize,
        isn: Seq,
    ) -> Self {
        let mut flow = Self::new(link, id, ends, isn, State::Calling);
        flow.window.set_room(room);
        flow.send_syn(link);
        flow.schedule(agenda);
        flow
    }

    fn new(link: &Link<'_>, id: SocketId, ends: Ends, isn: Seq, state: State) -> Self {
        let port = link.port_of(ends.mac).map(|(_, port)| port);
        Self {
            id,
            guest: ends.guest,
            peer: ends.peer,
            mac: ends.mac,
            state,
            otherwise: None,
            unacknowledged: isn,
            next: isn,
            furthest: isn,
            guest_window: 0,
            guest_scale: None,
            mss: MSS_DEFAULT,
            duplicates: 0,
            window: Window::new(Seq(0), port, MSS_DEFAULT, true),
            in_hand: None,
            starved: false,
            writable_wanted: false,
            readable: true,
            ended: false,
            fin_sent: false,
            guest_closed: false,
            ack_due: false,
            ack_due_since: link.now,
            ack_queued: false,
            ack_at: None,
            interactive: true,
            received_at: link.now,
            read_queued: false,
            retries: 0,
            retransmit_at: None,
            reminder: None,
            seen: link.now,
            idle: TRANSITORY,
        }
    }

    fn learn_options(&mut self, link: &Link<'_>, syn: &Segment<'_>) {
        let options = syn.syn_options();
        let largest = largest_segment(link, self.guest);
        self.mss = options.mss.unwrap_or(MSS_DEFAULT).clamp(MSS_MIN, largest);
        self.guest_scale = options.window_scale;
        self.guest_window = u32::from(syn.fields.window);
    }

    pub(super) fn receive_while_opening(&mut self, link: &mut Link<'_>, fields: &Fields) -> Fate {
        // A repeated SYN needs no answer yet; a new one means that the guest forgot the first. A reset has the number behind it.
        let (reset, syn) = (fields.flags.has(Flags::RST), fields.flags.has(Flags::SYN));
        let next = self.window.next();
        if reset && fields.sequence == next || !reset && syn && fields.sequence.advance(1) != next {
            link.out.push(Action::Reset { socket: self.id });
            return Fate::Ended;
        }
        Fate::Lives
    }

    /// The host's connection stands: the guest may know.
    pub(crate) fn connected(&mut self, link: &mut Link<'_>, agenda: &mut Agenda, room: usize) {
        if self.state == State::Opening {
            self.state = State::Answering;
            self.window.set_room(room);
            self.send_syn(link);
            self.schedule(agenda);
        }
    }

    /// The host's connection could not be made.
    pub(crate) fn failed(&mut self, link: &mut Link<'_>, error: HostError) -> Failure {
        if self.state != State::Opening {
            self.send_reset(link);
            return Failure::Reset;
        }
        // A host that has switched IPv6 off has no way to its own loopback.
        if matches!(error, HostError::Refused | HostError::NetworkUnreachable)
            && let Some(address) = self.otherwise.take()
        {
            link.out.push(Action::Open {
                socket: self.id,
                target: Target::Tcp(address),
            });
            return Failure::Retried;
        }
        match error {
            HostError::NetworkUnreachable => Failure::Unreachable(Cause::NoRoute),
            HostError::HostUnreachable | HostError::TimedOut => Failure::Unreachable(Cause::Host),
            HostError::Forbidden => Failure::Unreachable(Cause::Prohibited),
            HostError::Refused | HostError::Exhausted | HostError::Reset | HostError::Other => {
                self.send_reset(link);
                Failure::Reset
            }
        }
    }

    /// The guest's SYN as far as an ICMP error quotes it: IP header and eight bytes.
    pub(crate) fn quoted_syn(&self) -> [u8; 8] {
        let fields = Fields {
            source_port: self.guest.port(),
            destination_port: self.peer.port(),
            sequence: Seq(self.window.next().0.wrapping_sub(1)),
            ..Fields::default()
        };
        let mut quoted = [0; 8];
        for (to, from) in quoted.iter_mut().zip(Header::new(&fields, 0, 0).as_bytes()) {
            *to = *from;
        }
        quoted
    }

    /// Sends SYN, or SYN and ACK, for the first time or again.
    pub(super) fn send_syn(&mut self, link: &mut Link<'_>) {
        let flags = match self.state {
            State::Calling => Flags::SYN,
            _ => Flags::SYN | Flags::ACK,
        };
        let scale = (self.state == State::Calling || self.guest_scale.is_some()).then_some(SCALE);
        let options = SynOptions {
            mss: Some(largest_segment(link, self.guest)),
            window_scale: scale,
        };
        let (bytes, len) = options.write();
        let isn = self.unacknowledged;
        self.next = isn.advance(1);
        self.furthest = self.next;
        let wait = if let Some(mac) = link.reach(self.mac, self.guest.ip()) {
            self.mac = mac;
            self.segment(link, flags, isn, bytes.get(..len).unwrap_or(&[]));
            RETRANSMIT
        } else {
            RESOLVE
        };
        self.retransmit_at = Some(link.now + wait * (1 << self.retries.min(6)));
    }

    /// The SYN was not answered in time.
    pub(super) fn repeat_syn(&mut self, link: &mut Link<'_>) -> Fate {
        self.retries += 1;
        if self.retries > SYN_RETRIES_MAX {
            link.out.push(Action::Reset { socket: self.id });
            return Fate::Ended;
        }
        self.send_syn(link);
        Fate::Lives
    }

    /// The guest answered our SYN.
    pub(super) fn receive_answer(
        &mut self,
        link: &mut Link<'_>,
        agenda: &mut Agenda,
        arrival: &Arrival<'_>,
    ) -> Fate {
        let fields = &arrival.segment.fields;
        if !fields.flags.has(Flags::ACK) {
            return Fate::Lives; // Also a simultaneous open, which a NAT need not support.
        }
        if fields.acknowledgement != self.next {
            // The guest still has an old connection between these ends: told that it is none, it
            // forgets it, and will answer our next SYN (RFC 9293 §3.10.7.3).
            refuse(link, self.guest, self.peer, arrival);
            return Fate::Lives;
        }
        if fields.flags.has(Flags::RST) {
            link.out.push(Action::Reset { socket: self.id });
            return Fate::Ended;
        }
        if !fields.flags.has(Flags::SYN) {
            return Fate::Lives;
        }
        self.mac = arrival.mac;
        self.learn_options(link, &arrival.segment);
        self.window.start(
            fields.sequence.advance(1),
            self.mss,
            self.guest_scale.is_some(),
        );
        self.established(fields.acknowledgement);
        self.acknowledge(link);
        self.want_read(agenda);
        self.schedule(agenda);
        Fate::Lives
    }

    /// Our SYN was acknowledged.
    pub(super) fn established(&mut self, acknowledgement: Seq) {
        self.unacknowledged = acknowledgement;
        self.state = State::Established;
        self.retransmit_at = None;
        self.retries = 0;
        self.idle = IDLE;
    }

    /// A SYN in the midst of a connection: our answer was lost, or the guest has forgotten the
    /// connection, which the acknowledgement will show it (RFC 5961 §4).
    pub(super) fn receive_repeated_syn(&mut self, link: &mut Link<'_>) {
        if self.state == State::Answering {
            self.send_syn(link);
        } else {
            self.acknowledge(link);
        }
    }
}

/// The largest segment that fits the network's MTU.
pub(super) fn largest_segment(link: &Link<'_>, guest: SocketAddr) -> u16 {
    let headers = if guest.is_ipv4() { 40 } else { 60 };
    link.gateway.mtu.saturating_sub(headers)
}

/// Sends a segment without payload, for those who have no flow.
pub(super) fn send_alone(
    link: &mut Link<'_>,
    mac: Mac,
    ends: (SocketAddr, SocketAddr),
    fields: &Fields,
) {
    send(link, mac, ends, fields, &[]);
}
