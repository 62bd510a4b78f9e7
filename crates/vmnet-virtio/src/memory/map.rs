//! Which address of the guest is where: the memory table of vhost-user, mapped.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use super::mapping::Mapping;
use super::slice::GuestSlice;
use super::words::{Word, Words};

/// Most regions of one guest. QEMU's limit is 509 slots, of which few are memory.
pub const REGIONS_MAX: usize = 512;

/// A region of guest memory, as a vhost-user memory table tells it.
#[derive(Debug)]
pub struct RegionSource {
    /// Where the guest sees it.
    pub guest_addr: u64,
    /// Where the VMM has it in its own address space. Rings are told by such addresses.
    pub user_addr: u64,
    /// Bytes.
    pub size: u64,
    /// Where it begins in `file`.
    pub offset: u64,
    /// The memory: a memfd with `F_SEAL_SHRINK`, or one to which we may add it.
    pub file: OwnedFd,
}

/// What to do with files that cannot be sealed against shrinking.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unsealed {
    /// They are refused.
    #[default]
    Refuse,
    /// They are taken. A handler of `SIGBUS` for the whole process turns memory that vanishes into
    /// [`MemoryMap::lost`] memory; see the documentation of `memory/guard.rs`.
    Guard,
}

/// Guest memory could not be taken into use. The reason is the VMM's, but for [`MapError::Map`].
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The file has no seals at all.
    #[error(
        "the VMM's memory is a file on a disk, on FUSE or over a network, where a look at it may take for ever; use a \
         memfd, or a file in /dev/shm or on hugetlbfs. QEMU: -object memory-backend-memfd,id=mem,size=...,share=on -machine memory-backend=mem"
    )]
    NotSealable,
    /// It has seals, not this one, and takes no more.
    #[error(
        "the VMM's memory is a memfd without F_SEAL_SHRINK, and its seals are closed; let the VMM set it. \
         QEMU: memory-backend-memfd with seal=on, which is the default"
    )]
    NotSealed,
    /// The file ends before the region does.
    #[error("the VMM's memory file has {have} bytes, and a region of it ends at {need}")]
    Short {
        /// Bytes of the file.
        have: u64,
        /// Where the region would end.
        need: u64,
    },
    /// A region without bytes.
    #[error("the VMM sent a memory region without bytes, at guest address {guest_addr:#x}")]
    Empty {
        /// Where.
        guest_addr: u64,
    },
    /// Beyond 64 bits.
    #[error("the VMM sent a memory region that ends beyond the last address")]
    Overflow,
    /// Two regions claim the same addresses.
    #[error("the VMM sent memory regions that overlap, at address {addr:#x}")]
    Overlap {
        /// The first address that is in both.
        addr: u64,
    },
    /// More than [`REGIONS_MAX`].
    #[error("the VMM sent more than {REGIONS_MAX} memory regions")]
    TooMany,
    /// To be removed, but not there.
    #[error("the VMM removed a memory region that is not there, at guest address {guest_addr:#x}")]
    Unknown {
        /// Where.
        guest_addr: u64,
    },
    /// The kernel refused.
    #[error("the VMM's memory could not be mapped")]
    Map(#[source] io::Error),
}

/// An address, or some byte behind it, is in no region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{len} bytes at {addr:#x} are not all in the guest's memory")]
pub struct Outside {
    /// The address.
    pub addr: u64,
    /// Bytes that were asked for.
    pub len: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Region {
    guest: u64,
    user: u64,
    size: u64,
    /// Where its first byte is here: `size` bytes from there are in `mapping`.
    host: NonNull<u8>,
    mapping: Arc<Mapping>,
}

// SAFETY: `host` points into `mapping`, which may be sent and shared.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// Where a region is, by value: whoever looks up many addresses keeps it in registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vicinity<'m> {
    guest: u64,
    size: u64,
    host: NonNull<u8>,
    region: PhantomData<&'m Region>,
}

/// Guest memory: where each of its addresses is in ours.
///
/// It never changes: another memory table is another map ([`Self::with`], [`Self::without`]), which shares the
/// mappings that stay. Share it by [`Arc`].
#[derive(Debug, Default)]
pub struct MemoryMap {
    /// By guest address.
    regions: Box<[Region]>,
    unsealed: Unsealed,
}

impl MemoryMap {
    /// Maps all of `sources`, in any order.
    ///
    /// # Errors
    /// One of them cannot be used; nothing stays mapped.
    pub fn new(sources: impl IntoIterator<Item = RegionSource>) -> Result<Self, MapError> {
        Self::with_unsealed(sources, Unsealed::Refuse)
    }

    /// The same, with this rule for files that cannot be sealed, also for those that come later ([`Self::with`]).
    ///
    /// # Errors
    /// One of them cannot be used; nothing stays mapped.
    pub fn with_unsealed(
        sources: impl IntoIterator<Item = RegionSource>,
        unsealed: Unsealed,
    ) -> Result<Self, MapError> {
        let mut regions = Vec::new();
        for source in sources {
            if regions.len() >= REGIONS_MAX {
                return Err(MapError::TooMany);
            }
            regions.push(Region::of(source, unsealed)?);
        }
        Self::of(regions, unsealed)
    }

    /// This map and one region more (`ADD_MEM_REG`). One at the same addresses takes the place of the one that was there.
    ///
    /// # Errors
    /// The region cannot be used, or overlaps another.
    pub fn with(&self, source: RegionSource) -> Result<Self, MapError> {
        let is_it = |region: &Region| {
            region.guest == source.guest_addr
                && region.user == source.user_addr
                && region.size == source.size
        };
        let others = self.regions.iter().filter(|region| !is_it(region));
        let mut regions: Vec<Region> = others.cloned().collect();
        if regions.len() >= REGIONS_MAX {
            return Err(MapError::TooMany);
        }
        regions.push(Region::of(source, self.unsealed)?);
        Self::of(regions, self.unsealed)
    }

    /// This map without one region (`REM_MEM_REG`), named by all three of its numbers.
    ///
    /// # Errors
    /// There is no such region.
    pub fn without(&self, guest_addr: u64, user_addr: u64, size: u64) -> Result<Self, MapError> {
        let is_it = |region: &&Region| {
            region.guest == guest_addr && region.user == user_addr && region.size == size
        };
        if !self.regions.iter().any(|region| is_it(&region)) {
            return Err(MapError::Unknown { guest_addr });
        }
        let others = self.regions.iter().filter(|region| !is_it(region));
        Ok(Self {
            regions: others.cloned().collect(),
            unsealed: self.unsealed,
        })
    }

    pub(super) fn of(mut regions: Vec<Region>, unsealed: Unsealed) -> Result<Self, MapError> {
        let mut by_user: Vec<Range<u64>> = regions.iter().map(Region::user_range).collect();
        by_user.sort_unstable_by_key(|range| range.start);
        regions.sort_unstable_by_key(|region| region.guest);
        let by_guest: Vec<Range<u64>> = regions.iter().map(Region::guest_range).collect();
        for ranges in [by_guest, by_user] {
            for pair in ranges.windows(2) {
                if let [first, second] = pair
                    && second.start < first.end
                {
                    return Err(MapError::Overlap { addr: second.start });
                }
            }
        }
        Ok(Self {
            regions: regions.into_boxed_slice(),
            unsealed,
        })
    }

    /// Memory of the test's own, at the same guest and user addresses.
    #[cfg(test)]
    pub(crate) fn of_heap(regions: &[(u64, usize)]) -> Self {
        let regions = regions
            .iter()
            .map(|&(addr, len)| Region::of_heap(addr, len));
        Self::of(regions.collect(), Unsealed::Refuse).expect("regions")
    }

    /// Some of it has vanished, and was touched since. What is read there is zeros, and what is written
    /// there reaches nobody. Rings in it end.
    #[must_use]
    #[inline]
    pub fn lost(&self) -> bool {
        self.unsealed == Unsealed::Guard && self.regions.iter().any(|region| region.mapping.lost())
    }

    /// How many regions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    /// There is no memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// `len` bytes at the guest's address `addr`, if they are all in the region that `hint` names.
    #[inline(always)]
    pub(super) fn near(&self, addr: u64, len: u64, hint: usize) -> Option<GuestSlice<'_>> {
        self.vicinity(hint)?.get(addr, len)
    }

    /// The region that `hint` names, for many look-ups. None: there is no such region.
    #[inline(always)]
    pub(super) fn vicinity(&self, hint: usize) -> Option<Vicinity<'_>> {
        Some(self.regions.get(hint)?.vicinity())
    }

    /// Gives `each` the pieces of `len` bytes at the guest's address `addr`, in order: one for
    /// each region that they are in. `hint` is any number, and becomes one that makes the next look-up of a
    /// near address fast.
    ///
    /// # Errors
    /// Some byte is in no region. `each` may have got pieces before that.
    #[inline]
    pub fn each_piece<'m>(
        &'m self,
        addr: u64,
        len: u64,
        hint: &mut usize,
        mut each: impl FnMut(GuestSlice<'m>),
    ) -> Result<(), Outside> {
        if let Some(region) = self.regions.get(*hint)
            && let Some(at) = addr.checked_sub(region.guest)
            && let Some(piece) = region.piece(at, len)
        {
            if len > 0 {
                each(piece);
            }
            return Ok(());
        }
        self.each_piece_searched(addr, len, hint, &mut each)
    }

    /// The same without knowing where to look.
    fn each_piece_searched<'m>(
        &'m self,
        addr: u64,
        len: u64,
        hint: &mut usize,
        each: &mut dyn FnMut(GuestSlice<'m>),
    ) -> Result<(), Outside> {
        let outside = Outside { addr, len };
        addr.checked_add(len).ok_or(outside)?;
        let (mut addr, mut left) = (addr, len);
        let mut index = self
            .regions
            .partition_point(|region| region.guest <= addr)
            .checked_sub(1)
            .ok_or(outside)?;
        loop {
            let region = self.regions.get(index).ok_or(outside)?;
            let at = addr.checked_sub(region.guest).ok_or(outside)?;
            let room = region.size.checked_sub(at).ok_or(outside)?;
            if room == 0 && left > 0 {
                return Err(outside);
            }
            let now = left.min(room);
            let piece = region.piece(at, now).ok_or(outside)?;
            if now > 0 {
                each(piece);
            }
            *hint = index;
            left = left.saturating_sub(now);
            if left == 0 {
                return Ok(());
            }
            addr = addr.saturating_add(now);
            index = index.saturating_add(1);
        }
    }

    /// `len` bytes at the guest's address `addr`, all in one region.
    ///
    /// # Errors
    /// They are not.
    pub fn guest(&self, addr: u64, len: u64) -> Result<GuestSlice<'_>, Outside> {
        let mut pieces = self.regions.iter().filter_map(|region| {
            let at = addr.checked_sub(region.guest)?;
            region.piece(at, len)
        });
        pieces.next().ok_or(Outside { addr, len })
    }

    /// `count` structures at the VMM's address `addr`, all in one region, kept mapped for as long as the
    /// result lives. For rings.
    ///
    /// # Errors
    /// They are not all in one region, or `addr` is not aligned for them.
    pub fn user_words<T: Word>(&self, addr: u64, count: usize) -> Result<Words<[T]>, Outside> {
        let len = count
            .checked_mul(size_of::<T>())
            .and_then(|len| u64::try_from(len).ok());
        let outside = Outside {
            addr,
            len: len.unwrap_or(u64::MAX),
        };
        let len = len.ok_or(outside)?;
        for region in &self.regions {
            if let Some(at) = addr.checked_sub(region.user)
                && let Some(piece) = region.piece(at, len)
            {
                return Words::new(&region.mapping, piece, count).ok_or(outside);
            }
        }
        Err(outside)
    }

    /// One structure at the VMM's address `addr`, likewise.
    ///
    /// # Errors
    /// It is not all in one region, or `addr` is not aligned for it.
    pub fn user_word<T: Word>(&self, addr: u64) -> Result<Words<T>, Outside> {
        let one = self.user_words(addr, 1)?;
        one.first_only().ok_or(Outside { addr, len: 0 })
    }
}

impl Region {
    fn of(source: RegionSource, unsealed: Unsealed) -> Result<Self, MapError> {
        if source.size == 0 {
            return Err(MapError::Empty {
                guest_addr: source.guest_addr,
            });
        }
        let len = usize::try_from(source.size).map_err(|_| MapError::Overflow)?;
        let mapping = Mapping::of(&File::from(source.file), source.offset, len, unsealed)?;
        Self::at(source.guest_addr, source.user_addr, source.size, mapping)
    }

    /// The first `size` bytes of `mapping`, which has as many.
    fn at(guest: u64, user: u64, size: u64, mapping: Mapping) -> Result<Self, MapError> {
        guest.checked_add(size).ok_or(MapError::Overflow)?;
        user.checked_add(size).ok_or(MapError::Overflow)?;
        Ok(Self {
            guest,
            user,
            size,
            host: mapping.base(),
            mapping: Arc::new(mapping),
        })
    }

    /// Memory of the test's own, at the same guest and user address.
    #[cfg(test)]
    fn of_heap(addr: u64, len: usize) -> Self {
        Self::at(addr, addr, len as u64, Mapping::of_heap(len)).expect("an address")
    }

    fn guest_range(&self) -> Range<u64> {
        self.guest..self.guest.saturating_add(self.size)
    }

    fn user_range(&self) -> Range<u64> {
        self.user..self.user.saturating_add(self.size)
    }

    /// `len` bytes from the region's byte `at` on, if they are all in it.
    #[inline(always)]
    fn piece(&self, at: u64, len: u64) -> Option<GuestSlice<'_>> {
        self.vicinity().piece(at, len)
    }

    #[inline(always)]
    fn vicinity(&self) -> Vicinity<'_> {
        Vicinity {
            guest: self.guest,
            size: self.size,
            host: self.host,
            region: PhantomData,
        }
    }
}

impl<'m> Vicinity<'m> {
    /// `len` bytes at the guest's address `addr`, if they are all in this region.
    #[inline(always)]
    pub(crate) fn get(self, addr: u64, len: u64) -> Option<GuestSlice<'m>> {
        self.piece(addr.checked_sub(self.guest)?, len)
    }

    /// `len` bytes from the region's byte `at` on, if they are all in it.
    #[inline(always)]
    fn piece(self, at: u64, len: u64) -> Option<GuestSlice<'m>> {
        if len > self.size.checked_sub(at)? {
            return None;
        }
        let (at, len) = (usize::try_from(at).ok()?, usize::try_from(len).ok()?);
        // SAFETY: the region is `size` mapped bytes from `host` on, and `at + len` is not more. They stay
        // mapped for as long as the mapping, which the region holds for all of `'m`.
        Some(unsafe { GuestSlice::new(self.host.add(at), len) })
    }
}

#[cfg(test)]
mod tests;
