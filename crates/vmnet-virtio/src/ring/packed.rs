//! The packed ring, the device's side (virtio 1.2 §2.8).

use std::sync::atomic::Ordering;

use super::chain::{Buffer, CHAIN_MAX, Chain, Walk};
use super::layout::{
    AVAIL, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, INDIRECT, NEXT, PackedAreas, Place, USED,
    WRITE, event, event_wants, meta, packed_meta,
};
use super::{OneByOne, RingConfig, RingError, StartError, event_idx};
use crate::memory::{MemoryMap, Slices};

/// A chain that is taken: its id and how many descriptors of the ring it has.
#[derive(Clone, Copy, Default, Debug)]
struct Taken {
    id: u16,
    count: u16,
}

/// A packed ring.
#[derive(Debug)]
pub struct PackedRing {
    areas: PackedAreas,
    size: u16,
    indirect: bool,
    event_idx: bool,
    /// The next chain to take.
    take: Place,
    /// Where the next chain is given back.
    give: Place,
    /// Behind the last available chain, and how many descriptors are before it from the oldest taken one on,
    /// if those are known and too few.
    short: Option<(Place, u16)>,
    /// Taken chains, a ring of its own: a chain has a descriptor at least, so it cannot be too short.
    chains: Box<[Taken]>,
    /// The oldest of them.
    oldest: usize,
    /// How many there are.
    taken: u16,
    /// How many descriptors they have.
    descriptors: u16,
    /// The first chain that was given and not published: its place and what is to be written there.
    held: Option<(u16, u64)>,
    /// Where the next chain to be published is.
    published: Place,
    /// How many descriptors were published since the driver was asked if it wants a call; none: never asked.
    unasked: Option<u32>,
}

impl PackedRing {
    pub(super) fn start(memory: &MemoryMap, config: &RingConfig) -> Result<Self, StartError> {
        let areas = PackedAreas::find(memory, config)?;
        let (size, base) = (config.size, config.base);
        let place = Place::from_bits(base);
        if place.index() >= size {
            return Err(StartError::Base { size, base });
        }
        Ok(Self {
            areas,
            size,
            indirect: config.indirect,
            event_idx: config.event_idx,
            take: place,
            give: place,
            short: None,
            chains: vec![Taken::default(); usize::from(size)].into_boxed_slice(),
            oldest: 0,
            taken: 0,
            descriptors: 0,
            held: None,
            published: place,
            unasked: None,
        })
    }

    pub(super) fn remap(
        &mut self,
        memory: &MemoryMap,
        config: &RingConfig,
    ) -> Result<(), StartError> {
        self.areas = PackedAreas::find(memory, config)?;
        Ok(())
    }

    /// Is the descriptor at `place` available? What the driver wrote before it said so is seen after this.
    #[inline]
    fn available(areas: &PackedAreas, place: Place) -> bool {
        let Some([_, meta]) = areas.descriptors.get(usize::from(place.index())) else {
            return false;
        };
        let (_, _, flags) = packed_meta(meta.load(Ordering::Acquire));
        Self::says_available(flags, place)
    }

    #[inline(always)]
    fn says_available(flags: u16, place: Place) -> bool {
        (flags & AVAIL != 0) == place.wrap() && (flags & USED != 0) != place.wrap()
    }

    /// Takes the next chain if there is one and it has only one buffer.
    #[inline(always)]
    pub(super) fn take_one(&mut self) -> Option<Buffer> {
        self.take_wanted(Some)
    }

    /// The same if it is `wanted`.
    #[inline(always)]
    fn take_wanted<T>(&mut self, wanted: impl FnOnce(Buffer) -> Option<T>) -> Option<T> {
        if self.descriptors >= self.size {
            return None;
        }
        let [addr, meta] = self.areas.descriptors.get(usize::from(self.take.index()))?;
        let (len, id, flags) = packed_meta(meta.load(Ordering::Acquire));
        if !Self::says_available(flags, self.take) {
            return None;
        }
        let buffer = Buffer::alone(addr.load(Ordering::Relaxed), len, flags)?;
        let wanted = wanted(buffer)?;
        self.note(Taken { id, count: 1 });
        Some(wanted)
    }

    pub(super) fn take(&mut self, slices: &mut Slices) -> Result<Option<Chain>, RingError> {
        let free = self.size.saturating_sub(self.descriptors);
        if free == 0 || !Self::available(&self.areas, self.take) {
            return Ok(None);
        }
        let (chain, taken) = self.walk(free.min(CHAIN_MAX), slices)?;
        self.note(taken);
        Ok(Some(chain))
    }

    /// This chain is taken.
    #[inline(always)]
    fn note(&mut self, taken: Taken) {
        let at = self.youngest_after(usize::from(self.taken));
        if let Some(slot) = self.chains.get_mut(at) {
            *slot = taken;
        }
        self.taken = self.taken.saturating_add(1);
        self.descriptors = self.descriptors.saturating_add(taken.count);
        self.take = self.take.after(taken.count, self.size);
        self.short = None;
    }

    /// The place of the chain that was taken `behind` others which are still there.
    #[inline]
    fn youngest_after(&self, behind: usize) -> usize {
        let at = self.oldest.saturating_add(behind);
        at.checked_sub(usize::from(self.size)).unwrap_or(at)
    }

    fn walk(&self, most: u16, slices: &mut Slices) -> Result<(Chain, Taken), RingError> {
        let mut walk = Walk::new(slices);
        let mut place = self.take;
        for count in 1..=most {
            let Some([addr, meta]) = self.areas.descriptors.get(usize::from(place.index())) else {
                let (index, size) = (place.index(), self.size);
                return Err(RingError::Descriptor { index, size });
            };
            let addr = addr.load(Ordering::Relaxed);
            let (len, id, flags) = packed_meta(meta.load(Ordering::Relaxed));
            let taken = Taken { id, count };
            if flags & INDIRECT != 0 {
                if !self.indirect {
                    return Err(RingError::Indirect);
                }
                walk.packed_table(addr, len, flags);
            } else {
                walk.buffer(addr, len, flags);
            }
            if flags & NEXT == 0 {
                return Ok((walk.end(), taken));
            }
            place = place.after(1, self.size);
        }
        Err(RingError::Endless(most))
    }

    pub(super) fn taken(&self) -> u16 {
        self.taken
    }

    #[inline]
    pub(super) fn give(&mut self, written: u32) {
        let Some(&Taken { id, count }) = self.chains.get(self.oldest).filter(|_| self.taken > 0)
        else {
            debug_assert!(false, "nothing is taken");
            return;
        };
        self.oldest = self.youngest_after(1);
        self.taken = self.taken.saturating_sub(1);
        self.descriptors = self.descriptors.saturating_sub(count);
        let mut flags = if self.give.wrap() { AVAIL | USED } else { 0 };
        if written > 0 {
            flags |= WRITE;
        }
        let used = meta(written, id, flags);
        if self.held.is_none() {
            // The driver looks at this one first, so none is seen before it is written.
            self.held = Some((self.give.index(), used));
        } else if let Some([_, meta]) = self.areas.descriptors.get(usize::from(self.give.index())) {
            meta.store(used, Ordering::Relaxed);
        }
        self.give = self.give.after(count, self.size);
        self.unasked = self
            .unasked
            .map(|unasked| unasked.saturating_add(u32::from(count)));
    }

    pub(super) fn rewind(&mut self, count: u16, short: bool) {
        debug_assert!(count <= self.taken, "{count} of {}", self.taken);
        self.short = short.then_some((self.take, self.descriptors));
        for _ in 0..count.min(self.taken) {
            self.taken = self.taken.saturating_sub(1);
            let at = self.youngest_after(usize::from(self.taken));
            let Some(taken) = self.chains.get(at) else {
                return;
            };
            self.descriptors = self.descriptors.saturating_sub(taken.count);
            self.take = self.take.before(taken.count, self.size);
        }
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        if let Some((index, used)) = self.held.take() {
            if let Some([_, meta]) = self.areas.descriptors.get(usize::from(index)) {
                meta.store(used, Ordering::Release);
            }
            self.published = self.give;
        }
    }

    #[inline]
    pub(super) fn wants_call(&mut self) -> bool {
        debug_assert!(self.held.is_none(), "given and not published");
        let Some(count) = self.unasked.replace(0) else {
            return true;
        };
        if count == 0 {
            return false;
        }
        let event = event_idx::after_publishing(|| self.areas.driver_event.load(Ordering::Relaxed));
        event_wants(event, self.published, count, self.size)
    }

    pub(super) fn enable_kicks(&mut self) -> bool {
        let (place, before) = self.short.unwrap_or((self.take, self.descriptors));
        let wish = if self.event_idx {
            event(place.bits(), EVENT_DESCRIPTOR)
        } else {
            event(0, EVENT_ENABLE)
        };
        event_idx::before_sleeping(
            || self.areas.device_event.store(wish, Ordering::Relaxed),
            || before < self.size && Self::available(&self.areas, place),
        )
    }

    pub(super) fn disable_kicks(&mut self) {
        let wish = event(0, EVENT_DISABLE);
        self.areas.device_event.store(wish, Ordering::Relaxed);
    }

    pub(super) fn base(&self) -> u32 {
        let place = u32::from(self.published.bits());
        place | place << 16
    }
}

impl OneByOne for PackedRing {
    #[inline(always)]
    fn take_each(&mut self, mut wanted: impl FnMut(Buffer) -> Option<()>) {
        while self.take_wanted(&mut wanted).is_some() {}
    }

    #[inline(always)]
    fn use_each(&mut self, ahead: u16, mut used: impl FnMut(Buffer, Option<u64>) -> Option<u32>) {
        if self.taken > 0 {
            return;
        }
        loop {
            let place = self.take.after(ahead.min(self.size), self.size);
            let comes = self.areas.descriptors.get(usize::from(place.index()));
            let comes = comes.map(|[addr, _]| addr.load(Ordering::Relaxed));
            let Some(written) = self.take_wanted(|buffer| used(buffer, comes)) else {
                return;
            };
            self.give(written);
        }
    }
}
