//! Memory of our own that we share with a device: the driver's side.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::map::{MapError, MemoryMap, RegionSource};

/// Where memory of our own begins, for the device: not at zero, so that a missing address is noticed.
const FIRST: u64 = 0x1_0000_0000;

/// A sealed memfd, mapped, of which pieces are given away in order and not taken back.
#[derive(Debug)]
pub struct OwnMemory {
    map: Arc<MemoryMap>,
    file: OwnedFd,
    size: u64,
    /// Bytes given away.
    taken: u64,
}

impl OwnMemory {
    /// `size` bytes, all zero.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn new(size: u64) -> Result<Self, MapError> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let made = memfd_create("vmnet-rings", flags).and_then(|file| {
            ftruncate(&file, size)?;
            fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
            Ok(file)
        });
        let file = made.map_err(|error| MapError::Map(error.into()))?;
        let source = source(&file, size).map_err(MapError::Map)?;
        Ok(Self {
            map: Arc::new(MemoryMap::new([source])?),
            file,
            size,
            taken: 0,
        })
    }

    /// A file that may shrink: what a careless VMM has.
    #[cfg(all(test, not(miri), not(loom)))]
    pub(crate) fn of_file(file: OwnedFd, size: u64) -> Result<Self, MapError> {
        let source = source(&file, size).map_err(MapError::Map)?;
        let unsealed = super::Unsealed::Guard;
        Ok(Self {
            map: Arc::new(MemoryMap::with_unsealed([source], unsealed)?),
            file,
            size,
            taken: 0,
        })
    }

    /// The same without a file, for Miri.
    #[cfg(test)]
    pub(crate) fn of_heap(size: u64) -> Self {
        Self {
            map: Arc::new(MemoryMap::of_heap(&[(
                FIRST,
                usize::try_from(size).expect("a size"),
            )])),
            file: std::fs::File::open("/dev/null").expect("a file").into(),
            size,
            taken: 0,
        }
    }

    /// The same memory, of which the rest is given away.
    #[cfg(test)]
    pub(crate) fn of_map(other: &Self) -> Self {
        Self {
            map: Arc::clone(&other.map),
            file: other.file.try_clone().expect("a descriptor"),
            ..*other
        }
    }

    /// Takes all back that was given away behind the first `taken` bytes.
    #[cfg(test)]
    pub(crate) fn rewind_to(&mut self, taken: u64) {
        self.taken = taken;
    }

    /// What a device maps: the one region of this memory, by a descriptor of its own.
    ///
    /// # Errors
    /// There are too many open files.
    pub fn region(&self) -> io::Result<RegionSource> {
        source(&self.file, self.size)
    }

    /// Our own view of it.
    #[must_use]
    pub fn map(&self) -> &Arc<MemoryMap> {
        &self.map
    }

    /// Takes `len` bytes at a multiple of `align` and says their address, which is the guest's and
    /// the user's at once; `None` if there are not as many left.
    pub fn take(&mut self, len: u64, align: u64) -> Option<u64> {
        let start = self.taken.checked_next_multiple_of(align)?;
        let end = start.checked_add(len)?;
        if end > self.size {
            return None;
        }
        self.taken = end;
        FIRST.checked_add(start)
    }
}

fn source(file: &OwnedFd, size: u64) -> io::Result<RegionSource> {
    Ok(RegionSource {
        guest_addr: FIRST,
        user_addr: FIRST,
        size,
        offset: 0,
        file: file.try_clone()?,
    })
}
