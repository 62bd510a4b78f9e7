//! Waiting for many descriptors: epoll, and what each of its events is about.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};

use crate::slots::Slot;

/// What an event is about. It fits the 64 bits that epoll keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Token {
    /// A guest's port.
    Port(Slot),
    /// A guest has kicked a ring, by its number.
    Kick(Slot, u8),
    /// A socket by which the VMM of a port comes.
    Vmm(Slot),
    /// A socket of a flow.
    Socket(Slot),
    /// Our own end of a stream to the DNS proxy.
    DnsStream(Slot),
    /// A query to a resolver, by its number.
    Query(u64),
    /// A socket that guests come by, by its number.
    Listener(u64),
    /// A forwarded port.
    Forward(Slot),
    /// Commands from other threads.
    Command,
    /// The host's resolvers may have changed.
    Resolvers,
    /// The host's addresses may have changed.
    Uplink,
}

const KIND_SHIFT: u32 = 56;
/// Ports are few: the upper bits of a slot's index have room for the number of a ring.
const RING_SHIFT: u32 = 24;
/// Bits of a slot map's key that are kept: all of the index, most of the version.
const KEY_MASK: u64 = (1 << KIND_SHIFT) - 1;

impl Token {
    fn pack(self) -> u64 {
        let (kind, value) = match self {
            Self::Port(slot) => (0, slot.to_bits()),
            Self::Socket(slot) => (1, slot.to_bits()),
            Self::DnsStream(slot) => (2, slot.to_bits()),
            Self::Query(number) => (3, number),
            Self::Listener(number) => (4, number),
            Self::Command => (5, 0),
            Self::Resolvers => (6, 0),
            Self::Uplink => (7, 0),
            Self::Forward(slot) => (8, slot.to_bits()),
            Self::Kick(slot, ring) => (9, slot.to_bits() | u64::from(ring) << RING_SHIFT),
            Self::Vmm(slot) => (10, slot.to_bits()),
        };
        kind << KIND_SHIFT | value & KEY_MASK
    }

    fn unpack(bits: u64) -> Self {
        let value = bits & KEY_MASK;
        let ring = (bits >> RING_SHIFT & 0xff) as u8;
        let without_ring = Slot::from_bits(value & !(0xff << RING_SHIFT));
        let slot = Slot::from_bits(value);
        match bits >> KIND_SHIFT {
            0 => Self::Port(slot),
            1 => Self::Socket(slot),
            2 => Self::DnsStream(slot),
            3 => Self::Query(value),
            4 => Self::Listener(value),
            5 => Self::Command,
            6 => Self::Resolvers,
            7 => Self::Uplink,
            9 => Self::Kick(without_ring, ring),
            10 => Self::Vmm(slot),
            _ => Self::Forward(slot),
        }
    }
}

/// Readable; told again and again while it is so.
pub(crate) const READ: EventFlags = EventFlags::IN;
/// Readable or writable; told again and again.
pub(crate) const READ_WRITE: EventFlags = EventFlags::IN.union(EventFlags::OUT);
/// Made readable anew; told once each time, and not to be read.
pub(crate) const KICKS: EventFlags = EventFlags::IN.union(EventFlags::ET);
/// Everything about a stream, told once when it changes.
pub(crate) const EDGES: EventFlags = EventFlags::IN
    .union(EventFlags::OUT)
    .union(EventFlags::RDHUP)
    .union(EventFlags::PRI)
    .union(EventFlags::ET);

/// An epoll instance.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            events: Vec::with_capacity(256),
        })
    }

    pub(crate) fn add(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(
            &self.epoll,
            fd,
            EventData::new_u64(token.pack()),
            flags,
        )?)
    }

    pub(crate) fn change(&self, fd: impl AsFd, token: Token, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(
            &self.epoll,
            fd,
            EventData::new_u64(token.pack()),
            flags,
        )?)
    }

    /// A descriptor that others hold too must be taken out before it is closed here.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _gone = epoll::delete(&self.epoll, fd);
    }

    /// Waits for events, at most for `timeout`, and replaces those in `into`.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        into: &mut Vec<(Token, EventFlags)>,
    ) -> io::Result<()> {
        into.clear();
        self.events.clear();
        let timeout = timeout.map(|timeout| rustix::event::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        into.extend(
            self.events
                .iter()
                .map(|event| (Token::unpack(event.data.u64()), event.flags)),
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_kernel() {
        let slot = Slot::from_bits(0x00ab_cdef_0000_0005);
        for token in [
            Token::Port(slot),
            Token::Kick(slot, 31),
            Token::Kick(slot, 255),
            Token::Vmm(slot),
            Token::Socket(slot),
            Token::DnsStream(slot),
            Token::Query(1 << 40),
            Token::Listener(7),
            Token::Command,
            Token::Resolvers,
            Token::Uplink,
            Token::Forward(slot),
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }
}
