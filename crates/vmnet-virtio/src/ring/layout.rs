//! Where the parts of a ring lie in memory (virtio 1.2 §2.7.5-§2.7.8, §2.8.13-§2.8.14), for either side.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use virtio_bindings::bindings::virtio_ring::{
    VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
};

use super::{RingConfig, SIZE_MAX, StartError, event_idx};
use crate::memory::{MemoryMap, Word, Words};

/// The chain goes on.
pub(crate) const NEXT: u16 = flag(VRING_DESC_F_NEXT);
/// The device writes here.
pub(crate) const WRITE: u16 = flag(VRING_DESC_F_WRITE);
/// The buffer is a table of descriptors.
pub(crate) const INDIRECT: u16 = flag(VRING_DESC_F_INDIRECT);
/// The other side needs no notification (`VRING_AVAIL_F_NO_INTERRUPT`, `VRING_USED_F_NO_NOTIFY`).
pub(crate) const UNWANTED: u16 = 1;
/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR: usize = 16;

/// The bindings have flags of 16 bits in 32.
#[expect(
    clippy::cast_possible_truncation,
    reason = "evaluated at compile time, and asserted"
)]
const fn flag(value: u32) -> u16 {
    assert!(value <= u16::MAX as u32);
    value as u16
}

/// A descriptor: the buffer's address, and 8 bytes whose meaning depends on the kind of ring.
pub(crate) type RawDescriptor = [AtomicU64; 2];

/// Flags and index, at the beginning of an available or used ring.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) flags: AtomicU16,
    pub(crate) index: AtomicU16,
}

// SAFETY: two atomics of 2 bytes, without padding.
unsafe impl Word for Head {}

/// The parts of a split ring.
#[derive(Debug)]
pub(crate) struct SplitAreas {
    pub(crate) descriptors: Words<[RawDescriptor]>,
    pub(crate) avail: Words<Head>,
    pub(crate) avail_ring: Words<[AtomicU16]>,
    /// Behind the available ring; with `EVENT_IDX`.
    pub(crate) used_event: Option<Words<AtomicU16>>,
    pub(crate) used: Words<Head>,
    /// Id and length.
    pub(crate) used_ring: Words<[[AtomicU32; 2]]>,
    /// Behind the used ring; with `EVENT_IDX`.
    pub(crate) avail_event: Option<Words<AtomicU16>>,
}

/// The parts of a packed ring.
#[derive(Debug)]
pub(crate) struct PackedAreas {
    pub(crate) descriptors: Words<[RawDescriptor]>,
    /// When the driver wants to be called: place in the low half, flags in the high one.
    pub(crate) driver_event: Words<AtomicU32>,
    /// When the device wants to be kicked.
    pub(crate) device_event: Words<AtomicU32>,
}

impl SplitAreas {
    /// Bytes of the available ring.
    pub(crate) fn avail_len(size: u16) -> u64 {
        u64::from(size).saturating_mul(2).saturating_add(6)
    }

    /// Bytes of the used ring.
    pub(crate) fn used_len(size: u16) -> u64 {
        u64::from(size).saturating_mul(8).saturating_add(6)
    }

    pub(crate) fn find(memory: &MemoryMap, config: &RingConfig) -> Result<Self, StartError> {
        let size = config.size;
        if !size.is_power_of_two() || size > SIZE_MAX {
            return Err(StartError::Size(size));
        }
        let count = usize::from(size);
        let behind = |start: u64, len: u64| {
            let outside = crate::memory::Outside { addr: start, len };
            start.checked_add(len).ok_or(outside)
        };
        let (mut used_event, mut avail_event) = (None, None);
        if config.event_idx {
            let at = behind(config.driver, Self::avail_len(size).saturating_sub(2))?;
            used_event = Some(memory.user_word(at)?);
            let at = behind(config.device, Self::used_len(size).saturating_sub(2))?;
            avail_event = Some(memory.user_word(at)?);
        }
        Ok(Self {
            descriptors: memory.user_words(config.descriptors, count)?,
            avail: memory.user_word(config.driver)?,
            avail_ring: memory.user_words(behind(config.driver, 4)?, count)?,
            used_event,
            used: memory.user_word(config.device)?,
            used_ring: memory.user_words(behind(config.device, 4)?, count)?,
            avail_event,
        })
    }
}

impl PackedAreas {
    pub(crate) fn find(memory: &MemoryMap, config: &RingConfig) -> Result<Self, StartError> {
        let size = config.size;
        if size == 0 || size > SIZE_MAX {
            return Err(StartError::Size(size));
        }
        Ok(Self {
            descriptors: memory.user_words(config.descriptors, usize::from(size))?,
            driver_event: memory.user_word(config.driver)?,
            device_event: memory.user_word(config.device)?,
        })
    }
}

/// The second half of a split ring's descriptor: length, flags, and which one is next.
#[inline]
pub(crate) const fn split_meta(meta: u64) -> (u32, u16, u16) {
    let [l0, l1, l2, l3, f0, f1, n0, n1] = meta.to_le_bytes();
    (
        u32::from_le_bytes([l0, l1, l2, l3]),
        u16::from_le_bytes([f0, f1]),
        u16::from_le_bytes([n0, n1]),
    )
}

/// The second half of a packed ring's descriptor: length, id and flags.
#[inline]
pub(crate) const fn packed_meta(meta: u64) -> (u32, u16, u16) {
    split_meta(meta)
}

/// The reverse of [`split_meta`] and [`packed_meta`].
#[inline]
pub(crate) const fn meta(len: u32, second: u16, third: u16) -> u64 {
    let [l0, l1, l2, l3] = len.to_le_bytes();
    let [s0, s1] = second.to_le_bytes();
    let [t0, t1] = third.to_le_bytes();
    u64::from_le_bytes([l0, l1, l2, l3, s0, s1, t0, t1])
}

/// The driver's mark of a descriptor's flags.
pub(crate) const AVAIL: u16 = 1 << 7;
/// The device's.
pub(crate) const USED: u16 = 1 << 15;
/// Event suppression: the other side is to be woken (virtio 1.2 §2.8.10).
pub(crate) const EVENT_ENABLE: u16 = 0;
/// It is not.
pub(crate) const EVENT_DISABLE: u16 = 1;
/// It is when a certain descriptor is passed.
pub(crate) const EVENT_DESCRIPTOR: u16 = 2;
/// The wrap counter beside an index of 15 bits.
pub(crate) const WRAP: u16 = 1 << 15;

/// A number of 16 bits that wraps, alone in a word of its own: processors forward what was just written to reads of the same
/// bytes only, and compilers read small neighbours together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Index(u32);

impl Index {
    #[inline(always)]
    pub(crate) const fn new(index: u16) -> Self {
        Self(index as u32)
    }

    #[inline(always)]
    pub(crate) const fn get(self) -> u16 {
        let [low, high, ..] = self.0.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// The index that comes so many behind.
    #[inline(always)]
    pub(crate) const fn after(self, count: u16) -> Self {
        Self::new(self.get().wrapping_add(count))
    }

    /// How far this is behind another.
    #[inline(always)]
    pub(crate) const fn since(self, other: Self) -> u16 {
        self.get().wrapping_sub(other.get())
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.get())
    }
}

/// A place in a packed ring: which descriptor, in which round. One word, like [`Index`]: the descriptor, and
/// the wrap counter above.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u32);

impl Place {
    /// Where a ring begins.
    pub(crate) const FIRST: Self = Self::new(0, true);

    #[inline(always)]
    const fn new(index: u16, wrap: bool) -> Self {
        Self(index as u32 | if wrap { 1 << 16 } else { 0 })
    }

    /// Which descriptor.
    #[inline(always)]
    pub(crate) const fn index(self) -> u16 {
        Index(self.0).get()
    }

    /// The wrap counter.
    #[inline(always)]
    pub(crate) const fn wrap(self) -> bool {
        self.0 >> 16 != 0
    }

    /// `count` descriptors further in a ring of `size`; `count` is at most `size`.
    #[inline]
    pub(crate) const fn after(self, count: u16, size: u16) -> Self {
        let index = self.index().saturating_add(count);
        match index.checked_sub(size) {
            Some(index) => Self::new(index, !self.wrap()),
            None => Self::new(index, self.wrap()),
        }
    }

    /// `count` descriptors back, likewise.
    pub(crate) const fn before(self, count: u16, size: u16) -> Self {
        match self.index().checked_sub(count) {
            Some(index) => Self::new(index, self.wrap()),
            None => {
                let index = self.index().saturating_add(size).saturating_sub(count);
                Self::new(index, !self.wrap())
            }
        }
    }

    /// Index and wrap counter in 16 bits.
    pub(crate) const fn bits(self) -> u16 {
        self.index() | if self.wrap() { WRAP } else { 0 }
    }

    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self::new(bits & !WRAP, bits & WRAP != 0)
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of round {}", self.index(), u8::from(self.wrap()))
    }
}

/// Place and flags, as an event suppression structure has them.
pub(crate) const fn event(place: u16, flags: u16) -> u32 {
    let [p0, p1] = place.to_le_bytes();
    let [f0, f1] = flags.to_le_bytes();
    u32::from_le_bytes([p0, p1, f0, f1])
}

/// Does whoever wrote `event` want to be woken, when `count` descriptors up to before `place` were published?
pub(crate) fn event_wants(event: u32, place: Place, count: u32, size: u16) -> bool {
    let [p0, p1, f0, f1] = event.to_le_bytes();
    match u16::from_le_bytes([f0, f1]) & 3 {
        EVENT_DISABLE => false,
        EVENT_DESCRIPTOR => {
            let Ok(count) = u16::try_from(count) else {
                return true;
            };
            if count >= size {
                return true;
            }
            let asked = Place::from_bits(u16::from_le_bytes([p0, p1]));
            let index = if asked.wrap() == place.wrap() {
                asked.index()
            } else {
                asked.index().wrapping_sub(size)
            };
            event_idx::passed(index, place.index(), place.index().wrapping_sub(count))
        }
        _ => true,
    }
}
