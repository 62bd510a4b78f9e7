//! The states of a DHCP client (RFC 2131 §4.4, figure 5), without I/O.
//!
//! Retransmission doubles from half a second (the RFC's four seconds are for a shared ten-megabit cable) to sixteen, with a
//! quarter of jitter either way.

use super::message::{self, Answer, Ask};
use super::{Identity, Lease, News};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(16);
/// Requests for one offer before another is looked for.
const REQUESTS: u32 = 4;
/// RFC 2131 §4.4.5: not more often than once a minute while renewing; for short leases a share of them.
const LEAST_EXTEND_WAIT: Duration = Duration::from_secs(60);

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// To everybody on the link, without an address of ours.
    Shout(Vec<u8>),
    /// To everybody on the link, from our address.
    Broadcast(Vec<u8>),
    /// To this server, from our address.
    Unicast(Ipv4Addr, Vec<u8>),
}

/// How answers come now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hearing {
    /// As packets for an address the interface does not have.
    Packets,
    /// To our address.
    Datagrams,
    /// None are expected.
    Nothing,
}

#[derive(Debug)]
enum State {
    Selecting,
    Requesting {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    Bound {
        lease: Lease,
        since: Instant,
    },
    /// Renewing before T2, rebinding after it.
    Extending {
        lease: Lease,
        since: Instant,
    },
    Ended,
}

/// The client.
#[derive(Debug)]
pub(super) struct Machine {
    identity: Identity,
    state: State,
    xid: u32,
    /// When this exchange began; its age goes into the messages.
    began: Instant,
    attempt: u32,
    next: Instant,
    random: u64,
}

impl Machine {
    /// A client that is due at once.
    pub(super) fn new(identity: Identity, seed: u64, now: Instant) -> Self {
        let mut machine = Self {
            identity,
            state: State::Selecting,
            xid: 0,
            began: now,
            attempt: 0,
            next: now,
            random: seed | 1,
        };
        machine.exchange(now);
        machine
    }

    /// When [`Machine::timeout`] is due.
    pub(super) fn deadline(&self) -> Instant {
        self.next
    }

    /// How answers come.
    pub(super) fn hearing(&self) -> Hearing {
        match self.state {
            State::Selecting | State::Requesting { .. } => Hearing::Packets,
            State::Extending { .. } => Hearing::Datagrams,
            State::Bound { .. } | State::Ended => Hearing::Nothing,
        }
    }

    /// Time has passed.
    pub(super) fn timeout(&mut self, now: Instant, out: &mut Vec<Output>) -> Option<News> {
        match &self.state {
            State::Selecting => {
                self.say(Ask::Discover, now, out);
                self.back_off(now);
                None
            }
            State::Requesting { .. } if self.attempt >= REQUESTS => {
                self.begin(now);
                self.timeout(now, out)
            }
            &State::Requesting { address, server } => {
                self.say(Ask::Request { address, server }, now, out);
                self.back_off(now);
                None
            }
            State::Bound { lease, since } => {
                self.state = State::Extending {
                    lease: lease.clone(),
                    since: *since,
                };
                self.exchange(now);
                self.timeout(now, out)
            }
            State::Extending { lease, since } => {
                let (lease, since) = (lease.clone(), *since);
                self.extend(&lease, since, now, out)
            }
            State::Ended => {
                self.next = now + Duration::from_secs(3600);
                None
            }
        }
    }

    /// A message came.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        bytes: &[u8],
        out: &mut Vec<Output>,
    ) -> Option<News> {
        let answer = message::read(bytes, &self.identity, self.xid)?;
        match (&self.state, answer) {
            (State::Selecting, Answer::Offer { address, server }) => {
                // The same exchange: RFC 2131 §4.4.1 keeps the xid and the seconds.
                self.state = State::Requesting { address, server };
                self.attempt = 0;
                self.timeout(now, out)
            }
            (State::Requesting { address, .. }, Answer::Ack(lease))
                if lease.address == *address =>
            {
                self.bind(lease, now)
            }
            (State::Extending { lease: old, .. }, Answer::Ack(lease))
                if lease.address == old.address =>
            {
                self.bind(lease, now)
            }
            (State::Requesting { .. }, Answer::Nak) => {
                self.begin(now);
                // A server that offers what it refuses must not be asked in a loop.
                self.next = now + self.jittered(FIRST_WAIT);
                None
            }
            (State::Extending { .. }, Answer::Nak) => {
                self.begin(now);
                Some(News::Lost)
            }
            _ => None,
        }
    }

    /// Whose lease it has.
    pub(super) fn server(&self) -> Option<Ipv4Addr> {
        match &self.state {
            State::Bound { lease, .. } | State::Extending { lease, .. } => Some(lease.server),
            State::Selecting | State::Requesting { .. } | State::Ended => None,
        }
    }

    /// Gives the lease back.
    pub(super) fn release(&mut self, now: Instant, out: &mut Vec<Output>) {
        if let State::Bound { lease, .. } | State::Extending { lease, .. } = &self.state {
            let (address, server) = (lease.address, lease.server);
            self.exchange(now);
            self.say(Ask::Release { address, server }, now, out);
        }
        self.state = State::Ended;
    }

    /// Asks for more time, or finds that it is over.
    fn extend(
        &mut self,
        lease: &Lease,
        since: Instant,
        now: Instant,
        out: &mut Vec<Output>,
    ) -> Option<News> {
        let ends = since + lease.duration;
        if now >= ends {
            self.begin(now);
            self.timeout(now, out);
            return Some(News::Lost);
        }
        self.say(
            Ask::Extend {
                address: lease.address,
            },
            now,
            out,
        );
        let rebinds = since + lease.rebind_after;
        let phase_ends = if now < rebinds { rebinds } else { ends };
        let least = (lease.duration / 32).clamp(Duration::from_secs(1), LEAST_EXTEND_WAIT);
        let half = phase_ends.saturating_duration_since(now) / 2;
        self.next = (now + half.max(least)).min(phase_ends);
        None
    }

    fn bind(&mut self, lease: Lease, now: Instant) -> Option<News> {
        // RFC 2131 §4.4.1: the time counts from the request, not from the answer.
        let since = self.began.min(now);
        self.next = since + lease.renew_after;
        self.state = State::Bound {
            lease: lease.clone(),
            since,
        };
        Some(News::Leased(lease))
    }

    /// Starts from nothing.
    fn begin(&mut self, now: Instant) {
        self.state = State::Selecting;
        self.exchange(now);
        self.next = now;
    }

    /// A new exchange, with an xid nobody else guesses.
    fn exchange(&mut self, now: Instant) {
        let [a, b, c, d, ..] = self.draw().to_be_bytes();
        self.xid = u32::from_be_bytes([a, b, c, d]);
        self.began = now;
        self.attempt = 0;
    }

    fn say(&mut self, ask: Ask, now: Instant, out: &mut Vec<Output>) {
        let age = now.saturating_duration_since(self.began).as_secs();
        let seconds = u16::try_from(age).unwrap_or(u16::MAX);
        let Some(bytes) = message::write(ask, &self.identity, self.xid, seconds) else {
            return;
        };
        out.push(match (ask, &self.state) {
            (Ask::Discover | Ask::Request { .. }, _) => Output::Shout(bytes),
            (Ask::Extend { .. }, State::Extending { lease, since })
                if now < *since + lease.rebind_after =>
            {
                Output::Unicast(lease.server, bytes)
            }
            (Ask::Extend { .. }, _) => Output::Broadcast(bytes),
            (Ask::Release { server, .. }, _) => Output::Unicast(server, bytes),
        });
    }

    fn back_off(&mut self, now: Instant) {
        let wait = FIRST_WAIT * 2u32.saturating_pow(self.attempt.min(10));
        self.attempt = self.attempt.saturating_add(1);
        self.next = now + self.jittered(wait.min(LONGEST_WAIT));
    }

    /// Three to five quarters of it.
    fn jittered(&mut self, wait: Duration) -> Duration {
        let share = u32::try_from(self.draw() >> 54).unwrap_or(0);
        wait * 3 / 4 + wait * share / 2048
    }

    /// xorshift64*: the seed is the kernel's.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests;
