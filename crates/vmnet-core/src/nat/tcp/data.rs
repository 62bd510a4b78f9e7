//! Bytes of an established connection, both ways (RFC 9293 §3.10.7.4, RFC 5681 §3.2, RFC 6298).

use core::ops::ControlFlow;

use vmnet_wire::ip;
use vmnet_wire::offload::{Kind, Offload, Segmentation};
use vmnet_wire::tcp::{Flags, Header, Seq};
use vmnet_wire::{ethernet, ipv4, ipv6};
use zerocopy::IntoBytes;

use crate::drop::Drop;
use crate::event::{Read, ReadTo};
use crate::frame::Span;
use crate::link::Link;
use crate::nat::tcp::{
    ACK_DELAY, Agenda, Arrival, Fate, InHand, RETRANSMIT, RETRIES_MAX, State, Tcp, refuse,
};
use crate::outbox::Action;

/// The largest payload that one large frame carries: what is left of IPv4's 65,535 bytes.
const PAYLOAD_MAX: u32 = 65_535 - 60 - 60;
/// So many acknowledgements of the same byte mean that the next was lost.
const DUPLICATES: u8 = 3;
/// After so many doublings, the wait between two probes of a closed window grows no more: half a minute.
const PROBES_MAX: u8 = 7;

/// What a peek into a stream found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peek {
    /// Bytes in the hand.
    pub(crate) len: usize,
    /// Behind them is the end of the stream.
    pub(crate) ended: bool,
    /// There may be more.
    pub(crate) more: bool,
}

impl Tcp {
    /// Whether a segment can be of this connection by its number (RFC 9293 §3.10.7.4, first step): something of it lies in
    /// the window, or just behind one that is full.
    pub(super) fn is_in_window(&self, arrival: &Arrival<'_>) -> bool {
        let fields = &arrival.segment.fields;
        let len = u32::try_from(arrival.body.len).unwrap_or(u32::MAX);
        let end = fields
            .sequence
            .advance(len.saturating_add(u32::from(fields.flags.has(Flags::FIN))));
        self.window.next().at_or_before(end) && fields.sequence.at_or_before(self.window.edge())
    }

    /// The guest acknowledges, and says what it takes. What acknowledges a byte that was never sent, or one of long ago, is
    /// no part of the connection: nothing else of it counts (RFC 9293 §3.10.7.4, fifth step; RFC 5961 §5.2).
    pub(super) fn receive_acknowledgement(
        &mut self,
        link: &mut Link<'_>,
        agenda: &mut Agenda,
        arrival: &Arrival<'_>,
    ) -> ControlFlow<Fate> {
        let fields = &arrival.segment.fields;
        let number = fields.acknowledgement;
        let newer = self.unacknowledged.before(number);
        if self.state == State::Answering {
            if !newer || self.furthest.before(number) {
                link.drop(Drop::OutOfWindow);
                refuse(link, self.guest, self.peer, arrival);
                return ControlFlow::Break(Fate::Lives);
            }
            self.established(number);
        }
        // Nothing older can be on its way: the guest never took so much at once.
        let most = u32::from(u16::MAX) << self.guest_scale.unwrap_or(0);
        if self.furthest.before(number) || (!newer && self.unacknowledged - number > most) {
            link.drop(Drop::OutOfWindow);
            self.acknowledge(link);
            return ControlFlow::Break(Fate::Lives);
        }
        if number.before(self.unacknowledged) {
            return ControlFlow::Continue(());
        }
        let window = u32::from(fields.window) << self.guest_scale.unwrap_or(0);
        let newly = number - self.unacknowledged;
        if newly > 0 {
            self.advance(link, number, newly);
        } else if arrival.body.len == 0
            && window == self.guest_window
            && self.unacknowledged != self.furthest
            && !fields.flags.has(Flags::FIN)
        {
            self.duplicates = self.duplicates.saturating_add(1);
            if self.duplicates == DUPLICATES {
                self.rewind();
            }
        }
        if self.is_probing() {
            // It answers: it is alive, however long its window stays closed (RFC 9293 §3.8.6.1).
            self.retries = self.retries.min(PROBES_MAX);
            if window > 0 {
                (self.retries, self.retransmit_at) = (0, None);
            }
        }
        self.guest_window = window;
        if self.is_done() {
            link.out.push(Action::Close { socket: self.id });
            return ControlFlow::Break(Fate::Ended);
        }
        self.want_read(agenda);
        ControlFlow::Continue(())
    }

    /// The guest has everything before `number`.
    fn advance(&mut self, link: &mut Link<'_>, number: Seq, newly: u32) {
        self.unacknowledged = number;
        if self.next.before(number) {
            self.next = number;
        }
        (self.duplicates, self.retries) = (0, 0);
        let outstanding = self.unacknowledged != self.furthest;
        self.retransmit_at = outstanding.then(|| link.now + RETRANSMIT);
        let fin = u32::from(self.fin_sent && number == self.furthest);
        let bytes = newly - fin;
        if bytes > 0 {
            link.out.push(Action::Discard {
                socket: self.id,
                len: bytes as usize,
            });
        }
    }

    /// The segment with this number is larger than the way behind the guest takes: what is on its way is sent again in
    /// smaller ones (RFC 8201 §5.4, RFC 5927 §7).
    pub(crate) fn narrow(
        &mut self,
        link: &mut Link<'_>,
        agenda: &mut Agenda,
        sequence: Seq,
        mtu: u32,
    ) {
        // No link takes less than this (RFC 8200 §5; of IPv4's we believe what hosts have to take, RFC 1122 §3.3.2).
        let (least, headers) = if self.guest.is_ipv4() {
            (576, 40)
        } else {
            (1280, 60)
        };
        let mss = u16::try_from(mtu.max(least) - headers).unwrap_or(u16::MAX);
        let on_its_way =
            self.unacknowledged.at_or_before(sequence) && sequence.before(self.furthest);
        if self.state != State::Established || !on_its_way || mss >= self.mss {
            return link.drop(Drop::OutOfWindow);
        }
        self.mss = mss;
        self.rewind();
        self.want_read(agenda);
    }

    /// A closed window is being asked about: nothing is on its way that could be lost.
    fn is_probing(&self) -> bool {
        self.guest_window == 0 && self.next == self.unacknowledged && self.retransmit_at.is_some()
    }

    /// Everything that was not acknowledged is to be sent again.
    fn rewind(&mut self) {
        self.next = self.unacknowledged;
        self.readable = true;
    }

    /// Bytes of the guest: hands those that are due to the host's socket.
    pub(super) fn receive_bytes(
        &mut self,
        link: &mut Link<'_>,
        agenda: &mut Agenda,
        arrival: &Arrival<'_>,
    ) {
        let fields = &arrival.segment.fields;
        let fin = fields.flags.has(Flags::FIN);
        let len = u32::try_from(arrival.body.len).unwrap_or(u32::MAX);
        let next = self.window.next();
        if len == 0 && !fin {
            return;
        }
        if next.before(fields.sequence) {
            link.drop(Drop::OutOfWindow);
            return self.acknowledge(link);
        }
        let known = next - fields.sequence;
        if known > len || (known == len && !fin) || self.guest_closed {
            link.drop(Drop::OutOfWindow);
            return self.acknowledge(link);
        }
        if known == len {
            return self.receive_fin(link, agenda);
        }
        let fresh = len - known;
        // What lies behind the window was never allowed, and may find no room.
        let allowed = fresh.min(self.window.edge() - next);
        if allowed == 0 {
            link.drop(Drop::OutOfWindow);
            return self.acknowledge(link);
        }
        self.in_hand = Some(InHand {
            len: allowed,
            fin: fin && allowed == fresh,
            several: arrival.several,
        });
        let span = Span {
            start: arrival.body.start + known as usize,
            len: allowed as usize,
        };
        link.out.push(Action::Send {
            socket: self.id,
            span,
        });
    }

    /// The host's socket took some of the bytes that were handed to it, and has room for more.
    pub(crate) fn sent(
        &mut self,
        link: &mut Link<'_>,
        agenda: &mut Agenda,
        taken: usize,
        room: usize,
    ) {
        let Some(handed) = self.in_hand.take() else {
            return;
        };
        let taken = u32::try_from(taken).unwrap_or(u32::MAX).min(handed.len);
        self.window.take(taken);
        self.window.set_room(room);
        if taken < handed.len {
            link.drop(Drop::HostFull);
            self.starved = true;
            self.acknowledge(link);
        } else if handed.fin {
            self.receive_fin(link, agenda);
        } else {
            self.acknowledge_later(link, agenda, &handed);
        }
    }

    /// While little room is left, we want to hear when there is more: the guest may be waiting.
    pub(super) fn want_writable_if_tight(&mut self, link: &mut Link<'_>) {
        let wanted = self.starved || self.window.is_tight();
        if wanted && !self.writable_wanted && !self.guest_closed {
            self.writable_wanted = true;
            link.out.push(Action::NotifyWritable { socket: self.id });
        }
    }

    /// The host's socket has room again.
    pub(crate) fn writable(&mut self, link: &mut Link<'_>, room: usize) {
        self.writable_wanted = false;
        self.window.set_room(room);
        if self.state != State::Established || self.guest_closed {
            return;
        }
        let (open, would) = (self.window.open(), self.window.would_open());
        let starved = core::mem::take(&mut self.starved);
        if would > open || starved {
            self.segment(link, Flags::ACK, self.next, &[]);
        }
        if starved {
            // The guest believes the lost bytes under way: three duplicates tell it otherwise.
            for _ in 0..DUPLICATES {
                self.segment(link, Flags::ACK, self.next, &[]);
            }
        }
    }

    /// The host's socket may have something to read.
    pub(crate) fn readable(&mut self, agenda: &mut Agenda, ended: bool) {
        self.readable = true;
        self.ended |= ended;
        self.want_read(agenda);
    }

    /// Puts the flow in line for reading, if there is something to read and the guest takes it.
    pub(super) fn want_read(&mut self, agenda: &mut Agenda) {
        if self.readable && !self.read_queued && self.state == State::Established {
            self.read_queued = true;
            agenda.reads.push_back(self.id);
        }
    }

    /// It is the flow's turn: what it wants to read.
    pub(crate) fn next_read(&mut self, link: &mut Link<'_>, agenda: &mut Agenda) -> Option<Read> {
        self.read_queued = false;
        if !self.readable || self.state != State::Established || self.all_sent() {
            return None;
        }
        let outstanding = self.next - self.unacknowledged;
        let space = self.guest_window.saturating_sub(outstanding);
        let mss = u32::from(self.mss);
        // The end of the stream needs no window.
        let least = if self.ended { 0 } else { 1 };
        if space
            < least.max(if outstanding > 0 {
                mss.min(self.guest_window / 2)
            } else {
                0
            })
        {
            if outstanding == 0 {
                self.await_acknowledgement(link, agenda);
            }
            return None;
        }
        let max = space.min(PAYLOAD_MAX);
        let max = if max > mss { max - max % mss } else { max };
        let ip_len = if self.guest.is_ipv4() {
            ipv4::Header::LEN
        } else {
            ipv6::Header::LEN
        };
        let headers = ethernet::Header::LEN + ip_len + Header::LEN;
        Some(Read {
            socket: self.id,
            offset: outstanding as usize,
            max: max as usize,
            to: link.port_of(self.mac).map(|(port, _)| ReadTo {
                port,
                headers,
                flow: [self.guest, self.peer],
            }),
        })
    }

    /// Its turn comes again.
    pub(crate) fn put_back(&mut self, agenda: &mut Agenda) {
        if !self.read_queued {
            self.read_queued = true;
            agenda.reads.push_front(self.id);
        }
    }

    fn all_sent(&self) -> bool {
        self.fin_sent && self.next == self.furthest
    }

    /// The hand holds what of the stream [`Self::next_read`] wanted.
    pub(crate) fn peeked(&mut self, link: &mut Link<'_>, agenda: &mut Agenda, peek: Peek) {
        let Peek { len, ended, more } = peek;
        if self.state != State::Established || self.all_sent() {
            return; // Nobody asked.
        }
        self.readable = more;
        self.ended |= ended;
        let count = u32::try_from(len).unwrap_or(PAYLOAD_MAX);
        if count == 0 && !ended {
            if more {
                // The end is not next, and the window is closed.
                self.await_acknowledgement(link, agenda);
            }
            return;
        }
        let mut flags = Flags::ACK | Flags::PSH;
        if ended {
            flags = flags | Flags::FIN;
            (self.fin_sent, self.readable) = (true, false);
        }
        if count == 0 {
            self.segment(link, flags.without(Flags::PSH), self.next, &[]);
        } else {
            self.deliver(link, flags, len);
        }
        self.next = self.next.advance(count + u32::from(ended));
        if self.furthest.before(self.next) {
            self.furthest = self.next;
            self.seen = link.now;
        }
        self.await_acknowledgement(link, agenda);
        self.want_read(agenda);
    }

    /// Something is to be sent again, or asked again, if nothing is heard of the guest.
    fn await_acknowledgement(&mut self, link: &Link<'_>, agenda: &mut Agenda) {
        if self.retransmit_at.is_none() {
            self.retransmit_at = Some(link.now + RETRANSMIT);
            self.schedule(agenda);
        }
    }

    /// Sends the guest the bytes in the hand.
    fn deliver(&mut self, link: &mut Link<'_>, flags: Flags, len: usize) {
        let Some(mac) = link.reach(self.mac, self.guest.ip()) else {
            return; // It will be sent again.
        };
        self.mac = mac;
        let transport_len = Header::LEN + len;
        let headers = link.headers(self.mac, self.route(), transport_len);
        let route = self.route();
        let pseudo = ip::pseudo_header(
            route.source,
            route.destination,
            route.protocol,
            transport_len,
        );
        let fields = self.fields(flags, self.next);
        let header = Header::new(&fields, 0, pseudo.folded());
        let kind = if self.guest.is_ipv4() {
            Kind::Tcp4
        } else {
            Kind::Tcp6
        };
        let offload = Offload {
            checksum: Offload::partial(headers.len(), Header::CHECKSUM_OFFSET),
            segmentation: (len > usize::from(self.mss)).then_some(Segmentation {
                kind,
                size: self.mss,
                ecn: false,
            }),
        };
        (self.ack_due, self.ack_at) = (false, None);
        self.interactive = link.now.saturating_duration_since(self.received_at) < ACK_DELAY;
        link.deliver(
            self.mac,
            &[headers.bytes(), header.as_bytes()],
            Span::first(len),
            offload,
        );
    }

    /// Nothing was acknowledged for too long: sends everything again, or asks a closed window.
    pub(super) fn retransmit(&mut self, link: &mut Link<'_>, agenda: &mut Agenda) -> Fate {
        // Of a guest whose port is full it is not known whether it is gone.
        self.retries = if link.is_ready(self.mac) {
            self.retries + 1
        } else {
            (self.retries + 1).min(PROBES_MAX)
        };
        if self.retries > RETRIES_MAX {
            self.send_reset(link);
            link.out.push(Action::Reset { socket: self.id });
            return Fate::Ended;
        }
        self.retransmit_at = Some(link.now + RETRANSMIT * (1 << self.retries.min(9)));
        let all_known = self.unacknowledged == self.furthest;
        if all_known && (!self.readable || self.guest_window > 0) {
            self.retransmit_at = None;
        }
        if !all_known {
            self.rewind();
        }
        if self.guest_window == 0 && self.retransmit_at.is_some() {
            // The guest's window is closed: an old byte makes it say whether that is still so.
            self.segment(link, Flags::ACK, Seq(self.next.0.wrapping_sub(1)), &[]);
        }
        self.want_read(agenda);
        Fate::Lives
    }
}
