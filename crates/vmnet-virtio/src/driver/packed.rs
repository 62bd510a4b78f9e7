//! The packed ring, the driver's side (virtio 1.2 §2.8).

use std::sync::atomic::Ordering;

use super::{Collected, DeviceError, Part};
use crate::memory::MemoryMap;
use crate::ring::layout::{
    AVAIL, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, INDIRECT, NEXT, PackedAreas, Place, USED,
    WRITE, event, event_wants, meta, packed_meta,
};
use crate::ring::{RingConfig, StartError, event_idx};

/// What we know of a buffer id.
#[derive(Clone, Copy, Debug)]
struct Own {
    /// The next free id.
    next: u16,
    /// Of the chain that has this id: how many descriptors, and its token; none: it is free.
    chain: Option<(u16, u16)>,
}

/// A packed ring, from the side that offers buffers.
#[derive(Debug)]
pub struct PackedDriver {
    areas: PackedAreas,
    size: u16,
    event_idx: bool,
    own: Box<[Own]>,
    /// The first free id.
    free_id: u16,
    /// How many descriptors are free. There are as many ids as descriptors, and a chain takes one of those.
    free: u16,
    /// Where the next chain is offered.
    offer: Place,
    /// Where the next chain is collected.
    collect: Place,
    /// The first chain that was offered and not published: its place and what is to be written there.
    held: Option<(u16, u64)>,
    /// Where the next chain to be published is.
    published: Place,
    /// How many descriptors were published since the device was asked if it wants a kick.
    unasked: u32,
}

impl PackedDriver {
    pub(super) fn new(memory: &MemoryMap, config: &RingConfig) -> Result<Self, StartError> {
        let own = (1..=config.size).map(|next| Own { next, chain: None });
        Ok(Self {
            areas: PackedAreas::find(memory, config)?,
            size: config.size,
            event_idx: config.event_idx,
            own: own.collect(),
            free_id: 0,
            free: config.size,
            offer: Place::FIRST,
            collect: Place::FIRST,
            held: None,
            published: Place::FIRST,
            unasked: 0,
        })
    }

    /// The id that the next chain gets.
    pub(super) fn free_id(&self) -> Option<u16> {
        (self.free > 0).then_some(self.free_id)
    }

    #[inline]
    pub(super) fn offer(&mut self, parts: &[Part], token: u16, indirect: bool) -> bool {
        let Ok(count @ 1..) = u16::try_from(parts.len()) else {
            return false;
        };
        let id = self.free_id;
        let Some(own) = self.own.get_mut(usize::from(id)) else {
            return false;
        };
        if count > self.free {
            return false;
        }
        own.chain = Some((count, token));
        self.free_id = own.next;
        self.free = self.free.saturating_sub(count);
        let mut first = None;
        for (number, part) in (1..).zip(parts) {
            let mut flags = if self.offer.wrap() { AVAIL } else { USED };
            if part.write {
                flags |= WRITE;
            }
            if number < count {
                flags |= NEXT;
            }
            if indirect {
                flags |= INDIRECT;
            }
            let index = self.offer.index();
            let word = meta(part.len, id, flags);
            if let Some([addr, slot]) = self.areas.descriptors.get(usize::from(index)) {
                addr.store(part.addr, Ordering::Relaxed);
                if number == 1 {
                    first = Some((index, word));
                } else {
                    slot.store(word, Ordering::Relaxed);
                }
            }
            self.offer = self.offer.after(1, self.size);
        }
        self.unasked = self.unasked.saturating_add(u32::from(count));
        if self.held.is_none() {
            // The device looks at this one first, so none is seen before it is written.
            self.held = first;
        } else {
            self.write(first, Ordering::Relaxed);
        }
        true
    }

    #[inline]
    fn write(&self, what: Option<(u16, u64)>, order: Ordering) {
        if let Some((index, word)) = what
            && let Some([_, slot]) = self.areas.descriptors.get(usize::from(index))
        {
            slot.store(word, order);
        }
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        let held = self.held.take();
        self.write(held, Ordering::Release);
        self.published = self.offer;
    }

    #[inline]
    pub(super) fn wants_kick(&mut self) -> bool {
        debug_assert!(self.held.is_none(), "offered and not published");
        let count = std::mem::take(&mut self.unasked);
        if count == 0 {
            return false;
        }
        let event = event_idx::after_publishing(|| self.areas.device_event.load(Ordering::Relaxed));
        event_wants(event, self.published, count, self.size)
    }

    /// Length and id of the chain at the next place, if the device has given it back.
    #[inline]
    fn given(&self) -> Option<(u32, u16)> {
        // All free: what is there is old.
        if self.free == self.size {
            return None;
        }
        self.given_at(self.collect)
    }

    #[inline]
    fn given_at(&self, place: Place) -> Option<(u32, u16)> {
        let [_, word] = self.areas.descriptors.get(usize::from(place.index()))?;
        let (len, id, flags) = packed_meta(word.load(Ordering::Acquire));
        let wrap = place.wrap();
        ((flags & AVAIL != 0) == wrap && (flags & USED != 0) == wrap).then_some((len, id))
    }

    pub(super) fn device_base(&self) -> u16 {
        let mut place = self.collect;
        // As many as are on their way: beyond them, what is there is old.
        let mut left = self.size.saturating_sub(self.free);
        while left > 0
            && let Some((_, id)) = self.given_at(place)
            && let Some(Own { chain, .. }) = self.own.get(usize::from(id))
            && let Some((count, _)) = chain
        {
            place = place.after(*count, self.size);
            left = left.saturating_sub(*count);
        }
        place.bits()
    }

    #[inline]
    pub(super) fn collect(&mut self) -> Result<Option<Collected>, DeviceError> {
        let Some((written, id)) = self.given() else {
            return Ok(None);
        };
        let missing = DeviceError::NotOffered { id: id.into() };
        let own = self.own.get_mut(usize::from(id)).ok_or(missing)?;
        let (count, token) = own.chain.take().ok_or(missing)?;
        own.next = self.free_id;
        self.free_id = id;
        self.free = self.free.saturating_add(count);
        self.collect = self.collect.after(count, self.size);
        Ok(Some(Collected { token, written }))
    }

    /// The token of the chain that is `ahead` descriptors behind the next to be collected, if the device has given it back
    /// and every chain has one descriptor.
    pub(super) fn peek(&self, ahead: u16) -> Option<u16> {
        let (_, id) = self.peek_at(ahead)?;
        let (_, token) = self.own.get(usize::from(id))?.chain?;
        Some(token)
    }

    /// The same, of a chain whose id may be none.
    fn peek_at(&self, ahead: u16) -> Option<(u32, u16)> {
        // Beyond as many as are on their way, what is there is old.
        if ahead >= self.size.saturating_sub(self.free) {
            return None;
        }
        self.given_at(self.collect.after(ahead, self.size))
    }

    /// Every chain has one descriptor, or `ahead` is 0.
    pub(super) fn enable_calls(&mut self, ahead: u16) -> bool {
        let last = self.collect.after(ahead, self.size);
        let wish = if self.event_idx {
            event(last.bits(), EVENT_DESCRIPTOR)
        } else {
            event(0, EVENT_ENABLE)
        };
        event_idx::before_sleeping(
            || self.areas.driver_event.store(wish, Ordering::Relaxed),
            || self.peek_at(ahead).is_some(),
        )
    }

    pub(super) fn disable_calls(&mut self) {
        let wish = event(0, EVENT_DISABLE);
        self.areas.driver_event.store(wish, Ordering::Relaxed);
    }
}
