//! Virtqueues, the device's side (virtio 1.2 §2.7, §2.8).
//!
//! | file | what |
//! | --- | --- |
//! | [`split`], [`packed`] | the two layouts, with the same verbs |
//! | `event_idx` | who is to be woken, and the fences that make it safe not to |
//! | `layout` | where things lie in memory, for both sides |
//! | [`chain`] | descriptors become slices; what is wrong with them |
//!
//! **The verbs**: [`Ring::take`] the next chain that the driver made available, [`Ring::give`] the oldest
//! taken one back, [`Ring::publish`] all that were given at once, then [`Ring::wants_call`] tells if the
//! driver wants to be called. [`Ring::rewind`] puts the youngest taken ones back as if they had never
//! been taken. Before waiting: [`Ring::enable_kicks`], and look once more if it says so.
//!
//! **Chains are given back in the order in which they were taken**; there is no other way to say it. So
//! `VIRTIO_F_IN_ORDER` may be offered, and the used index is an exact place to resume at, whatever
//! happened to the process that served the ring before.
//!
//! **A driver's mistakes**: what makes the ring itself unreadable ([`RingError`]) ends it: every later call
//! says the same. What is wrong with one chain ([`chain::Fault`]) is a property of that chain, which is
//! given back like any other.

pub mod chain;
pub(crate) mod event_idx;
pub(crate) mod layout;
pub mod packed;
pub mod split;

pub(crate) use chain::Buffer;
pub use chain::{Chain, Fault};
pub use packed::PackedRing;
pub use split::SplitRing;

use crate::memory::{MemoryMap, Outside, Slices};

/// The largest ring (virtio 1.2 §2.7).
pub const SIZE_MAX: u16 = 32_768;

/// Where a ring is, and how it was negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RingConfig {
    /// Descriptors.
    pub size: u16,
    /// The VMM's address of the descriptor table.
    pub descriptors: u64,
    /// The VMM's address of what the driver writes: the available ring, or its event suppression.
    pub driver: u64,
    /// The VMM's address of what the device writes: the used ring, or its event suppression.
    pub device: u64,
    /// `VIRTIO_F_RING_PACKED`.
    pub packed: bool,
    /// `VIRTIO_F_EVENT_IDX`.
    pub event_idx: bool,
    /// `VIRTIO_F_INDIRECT_DESC`.
    pub indirect: bool,
    /// Where to begin in a packed ring: the index, and the wrap counter in bit 15, as `SET_VRING_BASE` has
    /// it. A split ring begins at its used index, which is in memory and right even if the VMM
    /// did not hear how far we came.
    pub base: u16,
}

/// A ring cannot begin, or not go on in other memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// Not a size that a ring can have.
    #[error(
        "the VMM set up a ring of {0} descriptors; a split ring has a power of two, and none more than {SIZE_MAX}"
    )]
    Size(u16),
    /// The first descriptor to look at is none.
    #[error("the VMM let a ring of {size} descriptors begin at {base:#x}")]
    Base {
        /// Descriptors of the ring.
        size: u16,
        /// As told.
        base: u16,
    },
    /// A part of it is in no region, or not aligned.
    #[error("the VMM set up a ring outside of its memory, or not aligned: {0}")]
    Outside(#[from] Outside),
}

/// The driver has made its ring unreadable. There is no going on with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RingError {
    /// The available index is further ahead than the ring is long.
    #[error("the driver made {ahead} chains available in a ring of {size}")]
    Jumped {
        /// So far ahead of what was given back.
        ahead: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// There is no such descriptor.
    #[error("the driver named descriptor {index} in a ring of {size}")]
    Descriptor {
        /// The one it named.
        index: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// A loop, or more descriptors than anybody needs.
    #[error("the driver made a chain that does not end within {0} descriptors")]
    Endless(u16),
    /// A buffer to write to cannot be used. There is no leaving it out, as it would be a part of a frame.
    #[error("the driver offered a buffer to write to that cannot be used: {0}")]
    Buffer(Fault),
    /// The ring's memory, or that of its buffers, has vanished.
    #[error("the VMM has shrunk or lost the guest's memory")]
    MemoryLost,
    /// `VIRTIO_F_INDIRECT_DESC` was not negotiated.
    #[error("the driver used an indirect descriptor, which was not negotiated")]
    Indirect,
}

/// A virtqueue, as its device sees it.
#[derive(Debug)]
pub struct Ring {
    kind: Kind,
    config: RingConfig,
    /// What ended it.
    broken: Option<RingError>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Split(SplitRing),
    Packed(PackedRing),
}

/// Loops over chains of one buffer, as nearly all are.
pub(crate) trait OneByOne {
    /// Takes chains of one buffer for as long as that is `wanted`. Nothing is said of what there is then: that is for
    /// [`Ring::take`].
    fn take_each(&mut self, wanted: impl FnMut(Buffer) -> Option<()>);

    /// Takes chains of one buffer and gives each back at once, for as long as `used` says how many bytes it has written to the
    /// buffer; and if nothing is taken before. `used` is told too where a buffer is that comes `ahead` chains later, as far as
    /// that can be foreseen: for a hint.
    fn use_each(&mut self, ahead: u16, used: impl FnMut(Buffer, Option<u64>) -> Option<u32>);
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

impl Ring {
    /// A ring that begins where it was left, or at its beginning.
    ///
    /// # Errors
    /// It is not all in `memory`, or of an impossible size.
    pub fn start(memory: &MemoryMap, config: RingConfig) -> Result<Self, StartError> {
        let kind = if config.packed {
            Kind::Packed(PackedRing::start(memory, &config)?)
        } else {
            Kind::Split(SplitRing::start(memory, &config)?)
        };
        Ok(Self {
            kind,
            config,
            broken: None,
        })
    }

    /// Goes on in other memory, at the same addresses. On an error the ring is as it was.
    ///
    /// # Errors
    /// It is not all in `memory`.
    pub fn remap(&mut self, memory: &MemoryMap) -> Result<(), StartError> {
        either!(&mut self.kind, ring => ring.remap(memory, &self.config))
    }

    /// Takes the next chain and adds its slices to `slices`, in whose memory they are looked up.
    ///
    /// # Errors
    /// The driver has broken the ring, now or before.
    #[inline(always)]
    pub fn take(&mut self, slices: &mut Slices) -> Result<Option<Chain>, RingError> {
        if self.broken.is_none()
            && let Some(buffer) = either!(&mut self.kind, ring => ring.take_one())
        {
            return Ok(Some(Chain::of_one(slices, buffer)));
        }
        self.take_any(slices)
    }

    /// The ring by its kind, for the loops of [`OneByOne`], each of which is compiled for one kind alone. None: it is broken.
    #[inline(always)]
    pub(crate) fn kind(&mut self) -> Option<&mut Kind> {
        self.broken.is_none().then_some(&mut self.kind)
    }

    /// The same of any chain, or none.
    fn take_any(&mut self, slices: &mut Slices) -> Result<Option<Chain>, RingError> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let taken = either!(&mut self.kind, ring => ring.take(slices));
        if let Err(error) = taken {
            self.broken = Some(error);
        }
        taken
    }

    /// How many chains are taken and not given back.
    #[must_use]
    pub fn taken(&self) -> u16 {
        either!(&self.kind, ring => ring.taken())
    }

    /// Gives the oldest taken chain back, with so many bytes written to it. The driver sees it when it is
    /// [`Self::publish`]ed. Without a taken chain nothing happens.
    #[inline]
    pub fn give(&mut self, written: u32) {
        either!(&mut self.kind, ring => ring.give(written));
    }

    /// Gives the `count` oldest taken chains back, or all if there are fewer, with nothing written to them.
    #[inline]
    pub fn give_unwritten(&mut self, count: u16) {
        match &mut self.kind {
            Kind::Split(ring) => ring.give_unwritten(count),
            Kind::Packed(ring) => {
                for _ in 0..count.min(ring.taken()) {
                    ring.give(0);
                }
            }
        }
    }

    /// Puts the `count` youngest taken chains back, to be taken again.
    pub fn rewind(&mut self, count: u16) {
        either!(&mut self.kind, ring => ring.rewind(count, false));
    }

    /// The same because there are too few: [`Self::enable_kicks`] then asks for a kick for the first chain behind
    /// the last that was seen, and says if that one is there.
    pub fn rewind_for_more(&mut self, count: u16) {
        either!(&mut self.kind, ring => ring.rewind(count, true));
    }

    /// Lets the driver see all that was given back, at once.
    #[inline]
    pub fn publish(&mut self) {
        either!(&mut self.kind, ring => ring.publish());
    }

    /// Does the driver want to be called for what was published since the last time this was asked?
    #[must_use]
    #[inline]
    pub fn wants_call(&mut self) -> bool {
        either!(&mut self.kind, ring => ring.wants_call())
    }

    /// Asks the driver to kick when it makes the next chain available. If this says true, there is
    /// one already: no kick may come for it.
    #[must_use]
    pub fn enable_kicks(&mut self) -> bool {
        either!(&mut self.kind, ring => ring.enable_kicks())
    }

    /// Tells the driver that kicks are not needed. It may kick all the same.
    pub fn disable_kicks(&mut self) {
        either!(&mut self.kind, ring => ring.disable_kicks());
    }

    /// Where another device would have to begin, as `GET_VRING_BASE` has it: what was taken and not
    /// given is to be taken again. What was given is published first, as a packed ring keeps it where the
    /// driver's descriptors were.
    #[must_use]
    pub fn base(&mut self) -> u32 {
        self.publish();
        either!(&self.kind, ring => ring.base())
    }

    /// Ends the ring, for a reason that was found in what it carries.
    pub(crate) fn end(&mut self, error: RingError) -> RingError {
        *self.broken.get_or_insert(error)
    }

    /// What ended the ring.
    #[must_use]
    pub fn broken(&self) -> Option<RingError> {
        self.broken
    }

    /// How the ring was set up.
    #[must_use]
    pub fn config(&self) -> &RingConfig {
        &self.config
    }
}

#[cfg(test)]
mod tests;
