//! TCP through sockets of the host.
//!
//! We end the guest's connection and hold one of the host's for it, and no byte of either in between:
//!
//! - What the guest sends is written to the host's socket at once; what the socket took is
//!   acknowledged. The window never promises more than the socket has room for, and never
//!   more than the port's queue holds.
//! - What the host's peer sends stays in the socket's receive queue until the guest has acknowledged it: we
//!   only peek. That queue is our retransmission queue.
//! - A guest's SYN is answered when the host's connection stands, or has failed.
//!
//! | file | what |
//! | --- | --- |
//! | `open` | the handshake with the guest, from either side |
//! | `data` | bytes and acknowledgements, both ways; retransmission |
//! | `window` | how much the guest may send |
//! | `close` | half-close, reset, idle and dead flows |
//!
//! Not done: SACK, timestamps, a queue of out-of-order segments. The way to a guest is short and keeps the order.

mod close;
mod data;
mod open;
mod window;

use core::net::SocketAddr;
use core::ops::ControlFlow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use vmnet_wire::checksum::Sum;
use vmnet_wire::ethernet::Mac;
use vmnet_wire::ip::{self, Protocol};
use vmnet_wire::tcp::{Fields, Flags, Header, Segment, Seq};
use zerocopy::IntoBytes;

use crate::deadline::Deadlines;
use crate::drop::Drop;
use crate::frame::Span;
use crate::link::{Link, Route};
use crate::outbox::SocketId;

pub(crate) use close::refuse;
pub(crate) use data::Peek;
pub(crate) use open::{Ends, Failure, Goal};
pub(crate) use window::Window;

/// The shift of the windows that we show: up to 16 MiB in steps of 256 bytes.
const SCALE: u8 = 8;
/// The first wait for an acknowledgement of a guest (RFC 6298 allows no less than what is
/// plausible; a guest is near); doubled each time.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// How long the acknowledgement of a small segment may wait for an answer to go with (RFC 1122 §4.2.3.2 allows 500 ms;
/// a guest that sends nothing more until it comes must not notice).
const ACK_DELAY: Duration = Duration::from_millis(2);
/// A guest that does not answer so many retransmissions is gone: about three minutes.
const RETRIES_MAX: u8 = 10;
/// A guest that does not answer so many SYNs: about 25 seconds.
const SYN_RETRIES_MAX: u8 = 7;
/// An idle connection ends (RFC 5382 §5, REQ-5: 2 hours 4 minutes).
const IDLE: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
/// So does one that is opening or closing (RFC 5382 §5, REQ-5: 4 minutes).
const TRANSITORY: Duration = Duration::from_secs(240);
/// And one whose guest has lost its port.
pub(crate) const ORPHANED: Duration = Duration::from_secs(30);

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// The guest's SYN waits for the host's connection. Entered by the guest's SYN.
    Opening,
    /// SYN and ACK were sent to the guest. Entered when the host's connection stands.
    Answering,
    /// A SYN was sent to the guest. Entered when the host accepted a connection.
    Calling,
    /// Both sides stand. Entered by the guest's ACK, from the two above.
    Established,
}

/// What a flow wants looked at later.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    /// Flows that owe the guest an acknowledgement when the burst ends.
    pub(crate) acks: Vec<SocketId>,
    /// Flows that want to read, in turn.
    pub(crate) reads: VecDeque<SocketId>,
    pub(crate) deadlines: Deadlines<SocketId>,
}

/// Whether a flow lives on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Fate {
    Lives,
    /// Its socket was closed, or was never there.
    Ended,
}

/// A guest's segment, its payload in the hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival<'a> {
    /// Who sent it.
    pub(crate) mac: Mac,
    pub(crate) segment: Segment<'a>,
    /// With the payload of segments that follow it.
    pub(crate) body: Span,
    /// There are such.
    pub(crate) several: bool,
}

/// Bytes of a guest on their way to the host's socket.
#[derive(Clone, Copy, Debug)]
struct InHand {
    len: u32,
    /// A FIN is behind them.
    fin: bool,
    /// Of several segments.
    several: bool,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub(crate) id: SocketId,
    pub(crate) guest: SocketAddr,
    /// The guest's peer, as the guest knows it.
    pub(crate) peer: SocketAddr,
    pub(crate) mac: Mac,
    pub(crate) state: State,
    /// Another address to try when nobody listens at the first.
    otherwise: Option<SocketAddr>,

    /// Towards the guest: the first byte that is not acknowledged, the next to send, and the furthest sent.
    unacknowledged: Seq,
    next: Seq,
    furthest: Seq,
    /// What the guest takes behind `unacknowledged`, in bytes.
    guest_window: u32,
    guest_scale: Option<u8>,
    mss: u16,
    duplicates: u8,

    /// From the guest.
    window: Window,
    /// What was handed to the socket and is not answered yet.
    in_hand: Option<InHand>,
    /// Bytes in our window were lost, because the socket took less than it had room for.
    starved: bool,
    writable_wanted: bool,

    /// The host's socket may have something to read; its peer has closed.
    readable: bool,
    ended: bool,
    /// A FIN was sent to the guest; it is the last number before `furthest`.
    fin_sent: bool,
    guest_closed: bool,

    ack_due: bool,
    /// Since when, in the burst that is over or in one before.
    ack_due_since: Instant,
    /// It stands in the list of those that are looked at when a burst ends.
    ack_queued: bool,
    /// An acknowledgement waits until then for bytes to go with.
    ack_at: Option<Instant>,
    /// The last bytes were answered by bytes before an acknowledgement was due: it may wait for them.
    interactive: bool,
    received_at: Instant,
    read_queued: bool,
    retries: u8,
    retransmit_at: Option<Instant>,
    reminder: Option<Instant>,
    seen: Instant,
    idle: Duration,
}

impl Tcp {
    /// When a segment of the guest last came, or bytes of its peer.
    pub(crate) fn seen(&self) -> Instant {
        self.seen
    }

    /// A segment came from the guest.
    pub(crate) fn receive(
        &mut self,
        link: &mut Link<'_>,
        agenda: &mut Agenda,
        arrival: &Arrival<'_>,
    ) -> Fate {
        self.seen = link.now;
        let fields = &arrival.segment.fields;
        match self.state {
            State::Opening => self.receive_while_opening(link, fields),
            State::Calling => self.receive_answer(link, agenda, arrival),
            State::Answering | State::Established => {
                self.idle = IDLE;
                self.receive_synchronised(link, agenda, arrival)
            }
        }
    }

    /// RFC 9293 §3.10.7.4: reset, SYN, number, acknowledgement, bytes, FIN.
    fn receive_synchronised(
        &mut self,
        link: &mut Link<'_>,
        agenda: &mut Agenda,
        arrival: &Arrival<'_>,
    ) -> Fate {
        let fields = &arrival.segment.fields;
        if fields.flags.has(Flags::RST) {
            return self.receive_reset(link, fields.sequence);
        }
        if fields.flags.has(Flags::SYN) {
            self.receive_repeated_syn(link);
            return Fate::Lives;
        }
        if !fields.flags.has(Flags::ACK) {
            link.drop(Drop::OutOfWindow);
            return Fate::Lives;
        }
        if !self.is_in_window(arrival) {
            // A keep-alive or a probe asks whether we are there (RFC 9293 §3.8.4); all others are none of ours.
            if arrival.body.len > 0 || self.window.edge().before(fields.sequence) {
                link.drop(Drop::OutOfWindow);
            }
            self.acknowledge(link);
            return Fate::Lives;
        }
        // Only who knows the numbers says where the guest is now.
        self.mac = arrival.mac;
        if let ControlFlow::Break(fate) = self.receive_acknowledgement(link, agenda, arrival) {
            return fate;
        }
        self.receive_bytes(link, agenda, arrival);
        self.schedule(agenda);
        Fate::Lives
    }

    /// While bursts follow each other without a pause, an acknowledgement may wait for bytes of the next: for a moment, if bytes of
    /// this flow came in this one, more may come, and the guest may send as many again. Each one wakes the guest, which costs
    /// more than to move what it is about.
    pub(crate) fn may_wait(&self, now: Instant) -> bool {
        self.ack_due
            && self.received_at == now
            && now.saturating_duration_since(self.ack_due_since) < ACK_DELAY
            && !self.guest_closed
            && !self.window.is_tight()
    }

    /// The burst is over: sends the acknowledgement that is due.
    pub(crate) fn flush(&mut self, link: &mut Link<'_>) {
        self.ack_queued = false;
        if self.ack_due {
            self.acknowledge(link);
        }
    }

    /// Acknowledges a small segment together with its answer, if one is to be expected soon; every second one is
    /// acknowledged at once (RFC 1122 §4.2.3.2).
    fn acknowledge_later(&mut self, link: &Link<'_>, agenda: &mut Agenda, taken: &InHand) {
        self.received_at = link.now;
        let small = taken.len < u32::from(self.mss) && !self.window.is_tight();
        if !small || taken.several || !self.interactive || self.ack_at.is_some() {
            return self.owe_acknowledgement(link, agenda);
        }
        self.ack_at = Some(link.now + ACK_DELAY);
        self.schedule(agenda);
    }

    fn owe_acknowledgement(&mut self, link: &Link<'_>, agenda: &mut Agenda) {
        if !self.ack_due {
            (self.ack_due, self.ack_due_since) = (true, link.now);
        }
        if !self.ack_queued {
            self.ack_queued = true;
            agenda.acks.push(self.id);
        }
    }

    /// Sends an acknowledgement with the current window, now.
    fn acknowledge(&mut self, link: &mut Link<'_>) {
        self.segment(link, Flags::ACK, self.next, &[]);
        self.want_writable_if_tight(link);
    }

    /// Sends a segment without payload.
    fn segment(&mut self, link: &mut Link<'_>, flags: Flags, sequence: Seq, options: &[u8]) {
        (self.ack_due, self.ack_at) = (false, None);
        let fields = self.fields(flags, sequence);
        send(link, self.mac, (self.peer, self.guest), &fields, options);
    }

    fn fields(&mut self, flags: Flags, sequence: Seq) -> Fields {
        let window = self.window.advertise(flags.has(Flags::SYN));
        Fields {
            source_port: self.peer.port(),
            destination_port: self.guest.port(),
            sequence,
            acknowledgement: if flags.has(Flags::ACK) {
                self.window.next()
            } else {
                Seq(0)
            },
            flags,
            window,
        }
    }

    fn route(&self) -> Route {
        Route::new(self.peer.ip(), self.guest.ip(), Protocol::TCP)
    }

    /// The reminder of this time is the flow's own, and not one of those that it has replaced.
    pub(crate) fn is_reminded_at(&self, at: Instant) -> bool {
        self.reminder == Some(at)
    }

    /// Sees to it that the flow is looked at when something of it is due.
    fn schedule(&mut self, agenda: &mut Agenda) {
        let idle = self.seen + self.idle;
        let at = self
            .retransmit_at
            .into_iter()
            .chain(self.ack_at)
            .fold(idle, Instant::min);
        if self.reminder.is_none_or(|reminder| at < reminder) {
            self.reminder = Some(at);
            agenda.deadlines.set(at, self.id);
        }
    }
}

/// Sends a TCP segment without payload from `ends.0` to the guest `ends.1`.
fn send(
    link: &mut Link<'_>,
    mac: Mac,
    ends: (SocketAddr, SocketAddr),
    fields: &Fields,
    options: &[u8],
) {
    let len = Header::LEN + options.len();
    let route = Route::new(ends.0.ip(), ends.1.ip(), Protocol::TCP);
    let headers = link.headers(mac, route, len);
    let sum = ip::pseudo_header(route.source, route.destination, Protocol::TCP, len)
        .with(Header::new(fields, options.len(), 0).as_bytes())
        .with(options);
    let header = Header::new(fields, options.len(), Sum::finish(sum));
    link.send(mac, &[headers.bytes(), header.as_bytes(), options]);
}
