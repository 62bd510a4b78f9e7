//! The split ring, the driver's side (virtio 1.2 §2.7).

use std::sync::atomic::Ordering;

use super::{Collected, DeviceError, Part};
use crate::memory::MemoryMap;
use crate::ring::layout::{INDIRECT, NEXT, SplitAreas, UNWANTED, WRITE, meta};
use crate::ring::{RingConfig, StartError, event_idx};

/// What we know of a descriptor without asking memory that the device may write to.
#[derive(Clone, Copy, Debug)]
struct Own {
    /// The next one of its chain, or of the free ones.
    next: u16,
    /// Of the chain that begins here; none: no chain does.
    chain: Option<(u16, u16)>,
}

/// A split ring, from the side that offers buffers.
#[derive(Debug)]
pub struct SplitDriver {
    areas: SplitAreas,
    size: u16,
    own: Box<[Own]>,
    /// The first free descriptor, and how many there are.
    free: (u16, u16),
    /// The next chain to offer.
    offer: u16,
    /// The available index as the device knows it.
    published: u16,
    /// The available index when the device was last asked if it wants a kick.
    asked: Option<u16>,
    /// The next chain to collect.
    collect: u16,
}

impl SplitDriver {
    pub(super) fn new(memory: &MemoryMap, config: &RingConfig) -> Result<Self, StartError> {
        let own = (1..=config.size).map(|next| Own { next, chain: None });
        Ok(Self {
            areas: SplitAreas::find(memory, config)?,
            size: config.size,
            own: own.collect(),
            free: (0, config.size),
            offer: 0,
            published: 0,
            asked: None,
            collect: 0,
        })
    }

    #[inline]
    fn slot(&self, index: u16) -> usize {
        usize::from(index & self.size.wrapping_sub(1))
    }

    /// The descriptor that the next chain begins with.
    pub(super) fn free_id(&self) -> Option<u16> {
        let (first, count) = self.free;
        (count > 0).then_some(first)
    }

    #[inline]
    pub(super) fn offer(&mut self, parts: &[Part], token: u16, indirect: bool) -> bool {
        let Ok(count @ 1..) = u16::try_from(parts.len()) else {
            return false;
        };
        let (head, free) = self.free;
        if count > free {
            return false;
        }
        let mut index = head;
        for (number, part) in (1..).zip(parts) {
            let at = usize::from(index);
            let (Some([addr, word]), Some(own)) =
                (self.areas.descriptors.get(at), self.own.get(at))
            else {
                return false;
            };
            let mut flags = if part.write { WRITE } else { 0 };
            if number < count {
                flags |= NEXT;
            }
            if indirect {
                flags |= INDIRECT;
            }
            addr.store(part.addr, Ordering::Relaxed);
            word.store(meta(part.len, flags, own.next), Ordering::Relaxed);
            index = own.next;
        }
        if let Some(own) = self.own.get_mut(usize::from(head)) {
            own.chain = Some((count, token));
        }
        self.free = (index, free.saturating_sub(count));
        if let Some(entry) = self.areas.avail_ring.get(self.slot(self.offer)) {
            entry.store(head, Ordering::Relaxed);
        }
        self.offer = self.offer.wrapping_add(1);
        true
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        if self.published != self.offer {
            self.published = self.offer;
            self.areas.avail.index.store(self.offer, Ordering::Release);
        }
    }

    #[inline]
    pub(super) fn wants_kick(&mut self) -> bool {
        let new = self.published;
        let old = self.asked.replace(new).unwrap_or(0);
        if old == new {
            return false;
        }
        if let Some(avail_event) = &self.areas.avail_event {
            let event = event_idx::after_publishing(|| avail_event.load(Ordering::Relaxed));
            event_idx::passed(event, new, old)
        } else {
            let flags =
                event_idx::after_publishing(|| self.areas.used.flags.load(Ordering::Relaxed));
            flags & UNWANTED == 0
        }
    }

    #[inline]
    pub(super) fn collect(&mut self) -> Result<Option<Collected>, DeviceError> {
        let used = self.areas.used.index.load(Ordering::Acquire);
        let ahead = used.wrapping_sub(self.collect);
        if ahead == 0 {
            return Ok(None);
        }
        let size = self.size;
        if ahead > size {
            return Err(DeviceError::Jumped { ahead, size });
        }
        let Some([id, written]) = self.areas.used_ring.get(self.slot(self.collect)) else {
            return Ok(None);
        };
        let (id, written) = (id.load(Ordering::Relaxed), written.load(Ordering::Relaxed));
        let token = self.release(id)?;
        self.collect = self.collect.wrapping_add(1);
        Ok(Some(Collected { token, written }))
    }

    /// The token of the chain that is `ahead` places behind the next to be collected, if the device has given it back.
    pub(super) fn peek(&self, ahead: u16) -> Option<u16> {
        let used = self.areas.used.index.load(Ordering::Acquire);
        let given = used.wrapping_sub(self.collect);
        if ahead >= given || given > self.size {
            return None;
        }
        let slot = self.slot(self.collect.wrapping_add(ahead));
        let [id, _] = self.areas.used_ring.get(slot)?;
        let head = usize::try_from(id.load(Ordering::Relaxed)).ok()?;
        let (_, token) = self.own.get(head)?.chain?;
        Some(token)
    }

    /// Frees the descriptors of the chain that begins with `id`.
    #[inline]
    fn release(&mut self, id: u32) -> Result<u16, DeviceError> {
        let missing = DeviceError::NotOffered { id };
        let head = u16::try_from(id).map_err(|_| missing)?;
        let own = self.own.get_mut(usize::from(head)).ok_or(missing)?;
        let (count, token) = own.chain.take().ok_or(missing)?;
        let mut last = head;
        for _ in 1..count {
            last = self.own.get(usize::from(last)).ok_or(missing)?.next;
        }
        let (first, free) = self.free;
        self.own.get_mut(usize::from(last)).ok_or(missing)?.next = first;
        self.free = (head, free.saturating_add(count));
        Ok(token)
    }

    pub(super) fn device_base(&self) -> u16 {
        self.areas.used.index.load(Ordering::Acquire)
    }

    pub(super) fn enable_calls(&mut self, ahead: u16) -> bool {
        let Self { areas, collect, .. } = self;
        let last = collect.wrapping_add(ahead);
        event_idx::before_sleeping(
            || match &areas.used_event {
                Some(used_event) => used_event.store(last, Ordering::Relaxed),
                None => areas.avail.flags.store(0, Ordering::Relaxed),
            },
            || {
                areas
                    .used
                    .index
                    .load(Ordering::Acquire)
                    .wrapping_sub(*collect)
                    > ahead
            },
        )
    }

    pub(super) fn disable_calls(&mut self) {
        // With `EVENT_IDX` the index that was asked for stays behind, and nobody passes it again.
        if self.areas.used_event.is_none() {
            self.areas.avail.flags.store(UNWANTED, Ordering::Relaxed);
        }
    }
}
