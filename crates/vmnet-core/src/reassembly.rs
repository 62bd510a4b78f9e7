//! Datagrams of guests that come in fragments (RFC 791 §3.2, RFC 8200 §4.5, RFC 5722's refusal of overlaps).
//!
//! The core keeps which bytes are there; the bytes themselves lie in buffers of the caller. There are
//! few buffers and they are held briefly: fragments are rare, and a guest that starves the table of
//! them starves only itself and others' fragments for a moment.

use core::net::IpAddr;
use core::ops::Range;
use std::time::{Duration, Instant};

use vmnet_wire::ethernet::Mac;
use vmnet_wire::ip::Protocol;

use crate::drop::Drop;
use crate::outbox::{HOLDS, PortId};

/// How long fragments wait for the others (RFC 1122 §3.3.2 says 60 to 120 s; a guest is near).
const PATIENCE: Duration = Duration::from_secs(30);
/// Buffers that one sender may hold: it takes those of its own oldest datagrams beyond that.
const SHARE: usize = HOLDS / 4;
/// Pieces of one datagram: 64 KiB over an MTU of 576, and some.
const PIECES_MAX: usize = 128;
/// Bytes of the largest payload.
const PAYLOAD_MAX: usize = 65_535 - 20;

/// What the fragments of one datagram have in common (RFC 791 §2.3; with IPv6 the protocol is that of the
/// fragment header, which all have in common too).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    /// The port it came by; behind one that leads to many guests, the MAC too.
    pub(crate) sender: (PortId, Option<Mac>),
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) id: u32,
}

#[derive(Debug)]
struct Partial {
    key: Key,
    since: Instant,
    pieces: Vec<Range<usize>>,
    end: Option<usize>,
}

impl Partial {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) > PATIENCE
    }
}

/// What came of a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    /// Which buffer takes it.
    pub(crate) buffer: usize,
    /// All are there: bytes of the whole payload.
    pub(crate) complete: Option<usize>,
    /// Bytes of the largest piece so far.
    pub(crate) largest: usize,
}

/// The datagrams of which some fragments are there.
#[derive(Debug)]
pub(crate) struct Reassembly {
    slots: [Option<Partial>; HOLDS],
}

impl Default for Reassembly {
    fn default() -> Self {
        Self {
            slots: [const { None }; HOLDS],
        }
    }
}

impl Reassembly {
    /// Takes a fragment that stands at `place` of its payload; `more` others follow.
    ///
    /// # Errors
    /// Why it was dropped; if it overlaps another, all of them are.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        key: Key,
        place: Range<usize>,
        more: bool,
    ) -> Result<Kept, Drop> {
        // All but the last are multiples of eight bytes.
        if place.is_empty() || place.end > PAYLOAD_MAX || (more && !place.len().is_multiple_of(8)) {
            return Err(Drop::Fragment);
        }
        let buffer = self.slot_of(now, key).ok_or(Drop::Fragment)?;
        let slot = self.slots.get_mut(buffer).ok_or(Drop::Fragment)?;
        if slot
            .as_ref()
            .is_some_and(|partial| partial.key != key || partial.is_old(now))
        {
            *slot = None;
        }
        let partial = slot.get_or_insert_with(|| Partial {
            key,
            since: now,
            pieces: Vec::new(),
            end: None,
        });
        let contradicts = partial
            .pieces
            .iter()
            .any(|p| p.start < place.end && place.start < p.end)
            || partial.end.is_some_and(|end| place.end > end || !more)
            || (!more && partial.pieces.iter().any(|p| p.end > place.end))
            || partial.pieces.len() >= PIECES_MAX;
        if contradicts {
            *slot = None;
            return Err(Drop::Fragment);
        }
        if !more {
            partial.end = Some(place.end);
        }
        partial.pieces.push(place);
        let there: usize = partial.pieces.iter().map(Range::len).sum();
        let largest = partial.pieces.iter().map(Range::len).max().unwrap_or(0);
        let complete = partial.end.filter(|end| *end == there);
        if complete.is_some() {
            *slot = None;
        }
        Ok(Kept {
            buffer,
            complete,
            largest,
        })
    }

    /// The slot of a datagram; or a free one, or one whose patience has run out, while its port has less than its share;
    /// or else the oldest of the same port: a guest that sends too many fragments loses its own.
    fn slot_of(&self, now: Instant, key: Key) -> Option<usize> {
        let find = |wanted: &dyn Fn(&Option<Partial>) -> bool| self.slots.iter().position(wanted);
        let own = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let partial = slot.as_ref().filter(|p| p.key.sender == key.sender)?;
            Some((partial.since, index))
        });
        let has_its_share = own.clone().count() >= SHARE;
        let oldest = || own.min().map(|(_, index)| index);
        let fresh = || {
            find(&Option::is_none)
                .or_else(|| find(&|slot| slot.as_ref().is_some_and(|p| p.is_old(now))))
        };
        find(&|slot| slot.as_ref().is_some_and(|p| p.key == key)).or_else(|| {
            if has_its_share {
                oldest()
            } else {
                fresh().or_else(oldest)
            }
        })
    }

    /// A port is gone, and what came from it.
    pub(crate) fn forget_port(&mut self, port: PortId) {
        for slot in &mut self.slots {
            if slot
                .as_ref()
                .is_some_and(|partial| partial.key.sender.0 == port)
            {
                *slot = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use slotmap::SlotMap;

    fn key(id: u32) -> Key {
        Key {
            sender: (SlotMap::with_key().insert(()), None),
            source: [192, 168, 64, 2].into(),
            destination: [10, 0, 0, 1].into(),
            protocol: Protocol::UDP,
            id,
        }
    }

    #[test]
    fn overlaps_lose_everything() {
        let now = Instant::now();
        let mut reassembly = Reassembly::default();
        reassembly.receive(now, key(1), 0..16, true).unwrap();
        assert_eq!(
            reassembly.receive(now, key(1), 8..24, true),
            Err(Drop::Fragment)
        );
        // The datagram is forgotten: what would have completed it does not.
        let kept = reassembly.receive(now, key(1), 16..20, false).unwrap();
        assert_eq!(kept.complete, None);
    }

    #[test]
    fn impossible_fragments() {
        let now = Instant::now();
        for (place, more) in [(0..0, true), (0..7, true), (65_528..65_540, false)] {
            let mut reassembly = Reassembly::default();
            assert_eq!(
                reassembly.receive(now, key(1), place, more),
                Err(Drop::Fragment)
            );
        }
    }

    #[test]
    fn a_flood_of_one_port_leaves_room_for_others() {
        let now = Instant::now();
        let mut ports = SlotMap::with_key();
        let (flooder, other) = (ports.insert(()), ports.insert(()));
        let mut reassembly = Reassembly::default();
        for id in 0..100 {
            let of_flood = Key {
                sender: (flooder, None),
                ..key(id)
            };
            reassembly.receive(now, of_flood, 0..8, true).unwrap();
        }
        let of_other = Key {
            sender: (other, None),
            ..key(1)
        };
        reassembly.receive(now, of_other, 0..8, true).unwrap();
        let kept = reassembly.receive(now, of_other, 8..9, false).unwrap();
        assert_eq!(kept.complete, Some(9));
    }

    #[test]
    fn a_flood_keeps_the_latest() {
        let now = Instant::now();
        let mut reassembly = Reassembly::default();
        for id in 0..1000 {
            let at = now + Duration::from_micros(u64::from(id));
            reassembly.receive(at, key(id), 0..8, true).unwrap();
        }
        let kept = reassembly.receive(now, key(999), 8..9, false).unwrap();
        assert_eq!(kept.complete, Some(9));
    }

    proptest! {
        #[test]
        fn any_order_completes_once(len in 1usize..20_000, step in 1usize..200, seed: u64) {
            let step = step * 8;
            let mut places: Vec<_> =
                (0..len).step_by(step).map(|at| (at..(at + step).min(len), at + step < len)).collect();
            prop_assume!(places.len() <= PIECES_MAX);
            let count = places.len();
            for index in 0..count {
                places.swap(index, (seed as usize).wrapping_mul(index + 7) % count);
            }
            let now = Instant::now();
            let mut reassembly = Reassembly::default();
            for (index, (place, more)) in places.into_iter().enumerate() {
                let kept = reassembly.receive(now, key(5), place, more).unwrap();
                prop_assert_eq!(kept.complete, (index + 1 == count).then_some(len));
            }
        }
    }
}
