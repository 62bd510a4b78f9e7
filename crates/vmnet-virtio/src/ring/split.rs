//! The split ring, the device's side (virtio 1.2 §2.7).

use std::sync::atomic::{AtomicU16, Ordering};

use super::chain::{Buffer, CHAIN_MAX, Chain, Walk};
use super::layout::{INDIRECT, Index, NEXT, RawDescriptor, SplitAreas, UNWANTED, split_meta};
use super::{OneByOne, RingConfig, RingError, StartError, event_idx};
use crate::memory::{MemoryMap, Slices};

/// A split ring.
///
/// Indices count chains, wrap at 65,536 and are taken modulo the ring's size: given ≤ taken ≤ seen.
#[derive(Debug)]
pub struct SplitRing {
    areas: SplitAreas,
    size: u16,
    indirect: bool,
    /// The heads of the chains that are taken, by index modulo size. The driver's ring is not asked twice.
    heads: Box<[u16]>,
    /// The available index as it was seen last.
    seen: Index,
    /// The next chain to take.
    take: Index,
    /// The next chain to give.
    give: Index,
    /// Behind the last available chain, if those before it are known and too few.
    short: Option<Index>,
    /// The used index as the driver knows it.
    published: Index,
    /// The used index when the driver was last asked if it wants a call.
    asked: Option<Index>,
}

impl SplitRing {
    pub(super) fn start(memory: &MemoryMap, config: &RingConfig) -> Result<Self, StartError> {
        let areas = SplitAreas::find(memory, config)?;
        let base = Index::new(areas.used.index.load(Ordering::Acquire));
        Ok(Self {
            areas,
            size: config.size,
            indirect: config.indirect,
            heads: vec![0; usize::from(config.size)].into_boxed_slice(),
            seen: base,
            take: base,
            give: base,
            short: None,
            published: base,
            asked: None,
        })
    }

    pub(super) fn remap(
        &mut self,
        memory: &MemoryMap,
        config: &RingConfig,
    ) -> Result<(), StartError> {
        self.areas = SplitAreas::find(memory, config)?;
        Ok(())
    }

    /// An index as a place in the rings. The size is a power of two.
    #[inline]
    fn slot(&self, index: Index) -> usize {
        usize::from(index.get() & self.size.wrapping_sub(1))
    }

    /// Takes the next chain if there is one and it has only one buffer.
    #[inline(always)]
    pub(super) fn take_one(&mut self) -> Option<Buffer> {
        let mut taken = None;
        self.take_each(|buffer| taken.is_none().then(|| taken = Some(buffer)));
        taken
    }

    pub(super) fn take(&mut self, slices: &mut Slices) -> Result<Option<Chain>, RingError> {
        if self.take == self.seen && !self.look()? {
            return Ok(None);
        }
        let slot = self.slot(self.take);
        let (Some(entry), Some(head)) = (self.areas.avail_ring.get(slot), self.heads.get_mut(slot))
        else {
            return Ok(None);
        };
        *head = entry.load(Ordering::Relaxed);
        let head = *head;
        let chain = self.walk(head, slices)?;
        self.take = self.take.after(1);
        self.short = None;
        Ok(Some(chain))
    }

    /// There are chains to take. What is wrong with the ring is for [`Self::take`] to say.
    #[inline]
    fn has_some(&mut self) -> bool {
        self.take != self.seen || self.look().unwrap_or(false)
    }

    /// Has the driver made more available?
    #[inline]
    fn look(&mut self) -> Result<bool, RingError> {
        let seen = Index::new(self.areas.avail.index.load(Ordering::Acquire));
        let ahead = seen.since(self.give);
        // Also behind what was taken: then the difference to `give` is small, and to `take` it is not.
        if ahead > self.size || seen.since(self.take) > self.size {
            let size = self.size;
            return Err(RingError::Jumped { ahead, size });
        }
        self.seen = seen;
        Ok(seen != self.take)
    }

    fn walk(&self, head: u16, slices: &mut Slices) -> Result<Chain, RingError> {
        let mut walk = Walk::new(slices);
        let mut index = head;
        let most = self.size.min(CHAIN_MAX);
        for _ in 0..most {
            let Some([addr, meta]) = self.areas.descriptors.get(usize::from(index)) else {
                let size = self.size;
                return Err(RingError::Descriptor { index, size });
            };
            let addr = addr.load(Ordering::Relaxed);
            let (len, flags, next) = split_meta(meta.load(Ordering::Relaxed));
            if flags & INDIRECT != 0 {
                if !self.indirect {
                    return Err(RingError::Indirect);
                }
                walk.split_table(addr, len, flags);
                return Ok(walk.end());
            }
            walk.buffer(addr, len, flags);
            if flags & NEXT == 0 {
                return Ok(walk.end());
            }
            index = next;
        }
        Err(RingError::Endless(most))
    }

    pub(super) fn taken(&self) -> u16 {
        self.take.since(self.give)
    }

    /// See [`super::Ring::give_unwritten`].
    #[inline]
    pub(super) fn give_unwritten(&mut self, count: u16) {
        let count = count.min(self.taken());
        let Self { areas, heads, .. } = &*self;
        let (used_ring, heads) = (&*areas.used_ring, &**heads);
        for behind in 0..count {
            let slot = self.slot(self.give.after(behind));
            if let (Some([id, len]), Some(head)) = (used_ring.get(slot), heads.get(slot)) {
                id.store(u32::from(*head), Ordering::Relaxed);
                len.store(0, Ordering::Relaxed);
            }
        }
        self.give = self.give.after(count);
    }

    #[inline]
    pub(super) fn give(&mut self, written: u32) {
        if self.give == self.take {
            debug_assert!(false, "nothing is taken");
            return;
        }
        let slot = self.slot(self.give);
        if let (Some([id, len]), Some(head)) =
            (self.areas.used_ring.get(slot), self.heads.get(slot))
        {
            id.store(u32::from(*head), Ordering::Relaxed);
            len.store(written, Ordering::Relaxed);
        }
        self.give = self.give.after(1);
    }

    pub(super) fn rewind(&mut self, count: u16, short: bool) {
        debug_assert!(count <= self.taken(), "{count} of {}", self.taken());
        self.short = short.then_some(self.take);
        let count = count.min(self.taken());
        self.take = Index::new(self.take.get().wrapping_sub(count));
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        if self.published != self.give {
            self.published = self.give;
            let used = &self.areas.used.index;
            used.store(self.give.get(), Ordering::Release);
        }
    }

    #[inline]
    pub(super) fn wants_call(&mut self) -> bool {
        let new = self.published;
        let Some(old) = self.asked.replace(new) else {
            // Whoever served the ring before may have published and not called.
            return true;
        };
        if old == new {
            return false;
        }
        if let Some(used_event) = &self.areas.used_event {
            let event = event_idx::after_publishing(|| used_event.load(Ordering::Relaxed));
            event_idx::passed(event, new.get(), old.get())
        } else {
            let flags =
                event_idx::after_publishing(|| self.areas.avail.flags.load(Ordering::Relaxed));
            flags & UNWANTED == 0
        }
    }

    pub(super) fn enable_kicks(&mut self) -> bool {
        let Self { areas, take, .. } = self;
        let take = &self.short.unwrap_or(*take).get();
        event_idx::before_sleeping(
            || match &areas.avail_event {
                Some(avail_event) => avail_event.store(*take, Ordering::Relaxed),
                None => areas.used.flags.store(0, Ordering::Relaxed),
            },
            || areas.avail.index.load(Ordering::Acquire) != *take,
        )
    }

    pub(super) fn disable_kicks(&mut self) {
        // With `EVENT_IDX` the index that was asked for stays behind, and nobody passes it again.
        if self.areas.avail_event.is_none() {
            self.areas.used.flags.store(UNWANTED, Ordering::Relaxed);
        }
    }

    pub(super) fn base(&self) -> u32 {
        u32::from(self.published.get())
    }
}

impl OneByOne for SplitRing {
    #[inline(always)]
    fn take_each(&mut self, mut wanted: impl FnMut(Buffer) -> Option<()>) {
        if !self.has_some() {
            return;
        }
        let Self {
            areas, heads, size, ..
        } = self;
        let (slots, heads) = (Slots::of(areas, *size), &mut **heads);
        let (mut at, seen) = (self.take, self.seen);
        while at != seen {
            let Some((head, buffer)) = slots.one(at) else {
                break;
            };
            let Some(place) = heads.get_mut(slots.slot(at)) else {
                break;
            };
            if wanted(buffer).is_none() {
                break;
            }
            *place = head;
            at = at.after(1);
        }
        if at != self.take {
            (self.take, self.short) = (at, None);
        }
    }

    #[inline(always)]
    fn use_each(&mut self, ahead: u16, mut used: impl FnMut(Buffer, Option<u64>) -> Option<u32>) {
        if self.give != self.take || !self.has_some() {
            return;
        }
        let slots = Slots::of(&self.areas, self.size);
        let used_ring = &*self.areas.used_ring;
        let (mut at, seen) = (self.take, self.seen);
        while at != seen {
            let Some((head, buffer)) = slots.one(at) else {
                break;
            };
            let is_seen = seen.since(at) > ahead;
            let comes = if is_seen {
                slots.addr(at.after(ahead))
            } else {
                None
            };
            let Some(written) = used(buffer, comes) else {
                break;
            };
            if let Some([id, len]) = used_ring.get(slots.slot(at)) {
                id.store(u32::from(head), Ordering::Relaxed);
                len.store(written, Ordering::Relaxed);
            }
            at = at.after(1);
        }
        if at != self.take {
            (self.take, self.give, self.short) = (at, at, None);
        }
    }
}

/// What the driver makes available, by values that stay in registers.
#[derive(Clone, Copy)]
struct Slots<'r> {
    avail_ring: &'r [AtomicU16],
    descriptors: &'r [RawDescriptor],
    mask: u16,
}

impl<'r> Slots<'r> {
    #[inline(always)]
    fn of(areas: &'r SplitAreas, size: u16) -> Self {
        Self {
            avail_ring: &areas.avail_ring,
            descriptors: &areas.descriptors,
            mask: size.wrapping_sub(1),
        }
    }

    #[inline(always)]
    fn slot(&self, index: Index) -> usize {
        usize::from(index.get() & self.mask)
    }

    /// The head of the chain at `index`, and its descriptor.
    #[inline(always)]
    fn head(&self, index: Index) -> Option<(u16, &'r RawDescriptor)> {
        let head = self.avail_ring.get(self.slot(index))?;
        let head = head.load(Ordering::Relaxed);
        Some((head, self.descriptors.get(usize::from(head))?))
    }

    /// The chain at `index` if it has only one buffer.
    #[inline(always)]
    fn one(&self, index: Index) -> Option<(u16, Buffer)> {
        let (head, [addr, meta]) = self.head(index)?;
        let (len, flags, _) = split_meta(meta.load(Ordering::Relaxed));
        let buffer = Buffer::alone(addr.load(Ordering::Relaxed), len, flags)?;
        Some((head, buffer))
    }

    #[inline(always)]
    fn addr(&self, index: Index) -> Option<u64> {
        let (_, [addr, _]) = self.head(index)?;
        Some(addr.load(Ordering::Relaxed))
    }
}
