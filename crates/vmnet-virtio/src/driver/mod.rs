//! The driver's side of virtqueues, in memory of our own: what a guest's kernel does.
//!
//! | file | what |
//! | --- | --- |
//! | [`split`], [`packed`] | the two layouts, with the same verbs |
//! | [`transmit`] | frames to a device |
//! | [`receive`] | frames from a device |
//!
//! **The verbs**: [`DriverRing::offer`] buffers to the device, [`DriverRing::publish`] all that were offered
//! at once, then [`DriverRing::wants_kick`] tells if the device wants to be kicked. [`DriverRing::collect`]
//! what the device has given back. Before waiting: [`DriverRing::enable_calls`], and look once more if it
//! says so.
//!
//! A device may give buffers back in any order. One that was promised `VIRTIO_F_IN_ORDER` may leave out used
//! entries; that is not understood here, so negotiate it only with a device that writes all of them, as ours does.

pub mod packed;
pub mod receive;
pub mod split;
pub mod transmit;

pub use packed::PackedDriver;
pub use receive::{Receive, ReceivedFrame};
pub use split::SplitDriver;
pub use transmit::{SendError, Transmit};

use std::sync::Arc;

use crate::memory::{GuestSlice, MemoryMap, Outside, OwnMemory};
use crate::ring::layout::{NEXT, SplitAreas, WRITE, meta};
use crate::ring::{RingConfig, StartError};

/// A buffer, or a part of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Its address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// The device writes to it. Such parts come behind those that it reads.
    pub write: bool,
}

/// A buffer that the device has given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Collected {
    /// As it was offered.
    pub token: u16,
    /// Bytes that the device says it has written.
    pub written: u32,
}

/// What kind of ring to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Descriptors.
    pub size: u16,
    /// `VIRTIO_F_RING_PACKED`.
    pub packed: bool,
    /// `VIRTIO_F_EVENT_IDX`.
    pub event_idx: bool,
    /// `VIRTIO_F_INDIRECT_DESC`, with tables of so many descriptors; none: without.
    pub indirect: u16,
}

/// A ring could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MakeError {
    /// It does not fit.
    #[error("the memory is too small for the rings and their buffers; make more")]
    NoRoom,
    /// Its size is impossible.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// The device has broken the ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeviceError {
    /// It gave back what it did not have.
    #[error("the device gave back buffer {id}, which it does not have")]
    NotOffered {
        /// As it said.
        id: u32,
    },
    /// It gave back more than the ring has.
    #[error("the device gave {ahead} buffers back in a ring of {size}")]
    Jumped {
        /// So many.
        ahead: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// It says that it wrote more than there is room.
    #[error("the device says it wrote {written} bytes, where there is room for {room}")]
    Length {
        /// As it said.
        written: u32,
        /// Bytes of the buffer.
        room: u32,
    },
}

/// A virtqueue, as its driver sees it.
#[derive(Debug)]
pub struct DriverRing {
    kind: Kind,
    config: RingConfig,
    tables: Tables,
}

#[derive(Debug)]
enum Kind {
    Split(SplitDriver),
    Packed(PackedDriver),
}

/// Does the same with a ring of either kind.
macro_rules! either {
    ($ring:expr, $bound:ident => $done:expr) => {
        match $ring {
            Kind::Split($bound) => $done,
            Kind::Packed($bound) => $done,
        }
    };
}

/// Indirect tables, one for each buffer that can be on its way.
#[derive(Debug)]
struct Tables {
    memory: Arc<MemoryMap>,
    addr: u64,
    /// Descriptors of each; none: there are no tables.
    entries: u16,
}

impl Tables {
    /// Bytes of a table.
    fn stride(entries: u16) -> u64 {
        u64::from(entries).saturating_mul(16)
    }

    /// Writes `parts` as table number `which`: the part of the ring that refers to it.
    fn write(&self, which: u16, parts: &[Part], packed: bool) -> Option<Part> {
        let offset = Self::stride(self.entries).checked_mul(u64::from(which))?;
        let addr = self.addr.checked_add(offset)?;
        let len = Self::stride(u16::try_from(parts.len()).ok()?);
        let mut rest = self.memory.guest(addr, len).ok()?;
        let count = u16::try_from(parts.len()).ok()?;
        for (number, part) in (1..).zip(parts) {
            let write = if part.write { WRITE } else { 0 };
            let meta = if packed {
                meta(part.len, 0, write)
            } else if number < count {
                meta(part.len, write | NEXT, number)
            } else {
                meta(part.len, write, 0)
            };
            let (entry, behind) = rest.split_at(16);
            rest = behind;
            let (addr, rest_of_entry) = entry.split_at(8);
            addr.copy_from(&part.addr.to_le_bytes());
            rest_of_entry.copy_from(&meta.to_le_bytes());
        }
        Some(Part {
            addr,
            len: u32::try_from(len).ok()?,
            write: false,
        })
    }
}

impl DriverRing {
    /// An empty ring in `memory`.
    ///
    /// # Errors
    /// There is no room for it, or its size is impossible.
    pub fn new(memory: &mut OwnMemory, shape: Shape) -> Result<Self, MakeError> {
        let size = u64::from(shape.size);
        let (driver_len, device_len) = if shape.packed {
            (4, 4)
        } else {
            (
                SplitAreas::avail_len(shape.size),
                SplitAreas::used_len(shape.size),
            )
        };
        let tables_len = Tables::stride(shape.indirect).saturating_mul(size);
        // Each in cache lines of its own: two sides write them.
        let mut take = |len| memory.take(len, 128).ok_or(MakeError::NoRoom);
        let config = RingConfig {
            size: shape.size,
            descriptors: take(size.saturating_mul(16))?,
            driver: take(driver_len)?,
            device: take(device_len)?,
            packed: shape.packed,
            event_idx: shape.event_idx,
            indirect: shape.indirect > 0,
            base: if shape.packed { 1 << 15 } else { 0 },
        };
        let tables = Tables {
            addr: take(tables_len)?,
            memory: Arc::clone(memory.map()),
            entries: shape.indirect,
        };
        let kind = if shape.packed {
            Kind::Packed(PackedDriver::new(memory.map(), &config)?)
        } else {
            Kind::Split(SplitDriver::new(memory.map(), &config)?)
        };
        Ok(Self {
            kind,
            config,
            tables,
        })
    }

    /// What the device has to know.
    #[must_use]
    pub fn config(&self) -> RingConfig {
        self.config
    }

    /// Offers a chain of buffers to the device, which sees it when it is [`Self::publish`]ed. False if
    /// the ring is full, or `parts` is empty or more than the ring can have at all.
    #[inline]
    #[must_use]
    pub fn offer(&mut self, parts: &[Part], token: u16) -> bool {
        either!(&mut self.kind, ring => ring.offer(parts, token, false))
    }

    /// The same by an indirect table: one descriptor of the ring for all parts.
    #[must_use]
    pub fn offer_indirect(&mut self, parts: &[Part], token: u16) -> bool {
        if parts.is_empty() || parts.len() > usize::from(self.tables.entries) {
            return false;
        }
        let Some(which) = either!(&self.kind, ring => ring.free_id()) else {
            return false;
        };
        let Some(table) = self.tables.write(which, parts, self.config.packed) else {
            return false;
        };
        either!(&mut self.kind, ring => ring.offer(&[table], token, true))
    }

    /// Lets the device see all that was offered, at once.
    #[inline]
    pub fn publish(&mut self) {
        either!(&mut self.kind, ring => ring.publish());
    }

    /// Does the device want to be kicked for what was published since the last time this was asked?
    #[inline]
    #[must_use]
    pub fn wants_kick(&mut self) -> bool {
        either!(&mut self.kind, ring => ring.wants_kick())
    }

    /// The next chain that the device has given back.
    ///
    /// # Errors
    /// The device has broken the ring.
    #[inline]
    pub fn collect(&mut self) -> Result<Option<Collected>, DeviceError> {
        either!(&mut self.kind, ring => ring.collect())
    }

    /// The token of a chain that the device has given back and that is not collected yet: of the one that is `ahead`
    /// places behind the next. Where chains have several descriptors, and the ring is packed, it cannot be told.
    #[inline]
    #[must_use]
    pub fn peek(&self, ahead: u16) -> Option<u16> {
        either!(&self.kind, ring => ring.peek(ahead))
    }

    /// Where the device stands, in the 16 bits that [`RingConfig::base`] has: behind the last chain that it gave back,
    /// collected or not. For the next device, when there is none any more.
    #[must_use]
    pub fn device_base(&self) -> u16 {
        either!(&self.kind, ring => ring.device_base())
    }

    /// Asks the device to call when it gives the next chain back. If this says true, there is one already: no
    /// call may come for it.
    #[must_use]
    pub fn enable_calls(&mut self) -> bool {
        either!(&mut self.kind, ring => ring.enable_calls(0))
    }

    /// Asks the device to call when it gives one more chain back than `ahead`, all of one descriptor. If this says true, there
    /// are as many already. A ring without `VIRTIO_F_EVENT_IDX` knows no numbers: it is called for the next one.
    #[must_use]
    pub fn enable_calls_behind(&mut self, ahead: u16) -> bool {
        either!(&mut self.kind, ring => ring.enable_calls(ahead))
    }

    /// Tells the device that calls are not needed. It may call all the same.
    pub fn disable_calls(&mut self) {
        either!(&mut self.kind, ring => ring.disable_calls());
    }
}

/// Buffers of one size, one behind the other in memory of our own.
#[derive(Debug)]
struct Buffers {
    memory: Arc<MemoryMap>,
    addr: u64,
    len: u32,
}

impl Buffers {
    fn new(memory: &mut OwnMemory, count: u16, len: u32) -> Result<Self, MakeError> {
        let all = u64::from(len).saturating_mul(u64::from(count));
        // By pages, as a kernel does.
        let addr = memory.take(all, 4096).ok_or(MakeError::NoRoom)?;
        Ok(Self {
            addr,
            len,
            memory: Arc::clone(memory.map()),
        })
    }

    fn addr(&self, which: u16) -> u64 {
        let offset = u64::from(self.len).saturating_mul(u64::from(which));
        self.addr.saturating_add(offset)
    }

    #[inline]
    fn get(&self, which: u16) -> Result<GuestSlice<'_>, Outside> {
        self.memory.guest(self.addr(which), u64::from(self.len))
    }
}

#[cfg(test)]
mod tests;
