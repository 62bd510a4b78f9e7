//! Half-close, reset, and flows that idle or whose guest is dead (RFC 9293 §3.6, §3.10.7; RFC 5961 §3).

use core::net::SocketAddr;
use std::time::Instant;

use vmnet_wire::tcp::{Fields, Flags, Seq};

use crate::drop::Drop;
use crate::link::Link;
use crate::nat::tcp::open::send_alone;
use crate::nat::tcp::{Agenda, Arrival, Fate, ORPHANED, State, TRANSITORY, Tcp};
use crate::outbox::Action;

impl Tcp {
    /// The guest will send no more: neither will the host's socket.
    pub(super) fn receive_fin(&mut self, link: &mut Link<'_>, agenda: &mut Agenda) {
        self.window.take(1);
        self.guest_closed = true;
        // If the other side has closed as well, closing the socket says it all.
        if !self.is_done() {
            link.out.push(Action::ShutWrite { socket: self.id });
        }
        if self.fin_sent {
            self.idle = TRANSITORY;
        }
        self.owe_acknowledgement(link, agenda);
    }

    /// Both sides have closed, and the guest knows it.
    pub(super) fn is_done(&self) -> bool {
        self.guest_closed && self.fin_sent && self.unacknowledged == self.furthest
    }

    /// Ends a flow of which both sides have closed, once the last acknowledgement is out.
    pub(crate) fn end_if_done(&mut self, link: &mut Link<'_>) -> Fate {
        if self.state == State::Established && self.is_done() {
            link.out.push(Action::Close { socket: self.id });
            return Fate::Ended;
        }
        Fate::Lives
    }

    /// A reset of the guest. Only the very next number is believed at once; another in the window is
    /// questioned, so that a stranger cannot guess one (RFC 5961 §3.2).
    pub(super) fn receive_reset(&mut self, link: &mut Link<'_>, sequence: Seq) -> Fate {
        if sequence == self.window.next() {
            link.out.push(Action::Reset { socket: self.id });
            return Fate::Ended;
        }
        if self.window.next().before(sequence) && sequence.before(self.window.edge()) {
            self.acknowledge(link);
        } else {
            link.drop(Drop::OutOfWindow);
        }
        Fate::Lives
    }

    /// The guest answers our SYN, if that is the one with this number, by an ICMP error: nobody will answer it otherwise.
    /// A connection that stands is not given up for that (RFC 5927 §5.2).
    pub(crate) fn refused(&mut self, link: &mut Link<'_>, sequence: Seq) -> Fate {
        if self.state == State::Calling && sequence == self.unacknowledged {
            link.out.push(Action::Reset { socket: self.id });
            return Fate::Ended;
        }
        link.drop(Drop::OutOfWindow);
        Fate::Lives
    }

    /// Tells the guest that the connection is gone.
    pub(crate) fn send_reset(&mut self, link: &mut Link<'_>) {
        let sequence = if self.state == State::Opening {
            Seq(0)
        } else {
            self.next
        };
        let flags = if self.state == State::Calling {
            Flags::RST
        } else {
            Flags::RST | Flags::ACK
        };
        self.segment(link, flags, sequence, &[]);
    }

    /// The guest's port is gone: the flow waits a little for it to come back.
    pub(crate) fn orphan(&mut self, now: Instant, agenda: &mut Agenda) {
        (self.seen, self.idle) = (now, ORPHANED);
        self.schedule(agenda);
    }

    /// The flow has to make room for another, or has idled too long.
    pub(crate) fn evict(&mut self, link: &mut Link<'_>) {
        self.send_reset(link);
        link.out.push(Action::Reset { socket: self.id });
    }

    /// Something of the flow may be due.
    pub(crate) fn timeout(&mut self, link: &mut Link<'_>, agenda: &mut Agenda) -> Fate {
        // An old reminder: a later one stands.
        if self.reminder.is_some_and(|at| at > link.now) {
            return Fate::Lives;
        }
        self.reminder = None;
        if link.now >= self.seen + self.idle {
            self.evict(link);
            return Fate::Ended;
        }
        if self.ack_at.is_some_and(|at| at <= link.now) {
            // Nothing came to go with it: the next one will not wait.
            self.interactive = false;
            self.acknowledge(link);
        }
        if self.retransmit_at.is_some_and(|at| at <= link.now) {
            let fate = match self.state {
                State::Opening => {
                    self.retransmit_at = None;
                    Fate::Lives
                }
                State::Answering | State::Calling => self.repeat_syn(link),
                State::Established => self.retransmit(link, agenda),
            };
            if fate == Fate::Ended {
                return fate;
            }
        }
        self.schedule(agenda);
        Fate::Lives
    }
}

/// Answers a segment that belongs to no connection, or to none that it could belong to (RFC 9293 §3.10.7.1).
pub(crate) fn refuse(
    link: &mut Link<'_>,
    guest: SocketAddr,
    peer: SocketAddr,
    arrival: &Arrival<'_>,
) {
    let fields = &arrival.segment.fields;
    if fields.flags.has(Flags::RST) {
        return link.drop(Drop::NoConnection);
    }
    let syn_fin = u32::from(fields.flags.has(Flags::SYN)) + u32::from(fields.flags.has(Flags::FIN));
    let len = u32::try_from(arrival.body.len).unwrap_or(0) + syn_fin;
    let (flags, sequence, acknowledgement) = if fields.flags.has(Flags::ACK) {
        (Flags::RST, fields.acknowledgement, Seq(0))
    } else {
        (
            Flags::RST | Flags::ACK,
            Seq(0),
            fields.sequence.advance(len),
        )
    };
    let reset = Fields {
        source_port: peer.port(),
        destination_port: guest.port(),
        sequence,
        acknowledgement,
        flags,
        window: 0,
    };
    send_alone(link, arrival.mac, (peer, guest), &reset);
}
