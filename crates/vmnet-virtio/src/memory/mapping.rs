//! One file of guest memory, mapped: sealed against shrinking, and long enough.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use rustix::fs::{SealFlags, fcntl_add_seals, fcntl_get_seals, fstat};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::guard::Guard;
use super::map::{MapError, Unsealed};

/// Bytes of a file in our address space, from `base` on.
///
/// They stay mapped, readable and writable until this is dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    backing: Backing,
}

#[derive(Debug)]
enum Backing {
    /// Mapped by the kernel.
    File {
        /// The pages begin so far before `base`.
        lead: usize,
        /// Watches over memory that may vanish.
        guard: Option<Guard>,
    },
    /// Allocated: for tests, also under Miri.
    #[cfg(test)]
    Heap(std::alloc::Layout),
}

// SAFETY: the bytes belong to no thread; all accesses are raw copies or atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing of `Mapping` itself changes.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `file` from `offset` on, shared with whoever else has it.
    pub(super) fn of(
        file: &File,
        offset: u64,
        len: usize,
        unsealed: Unsealed,
    ) -> Result<Self, MapError> {
        match seal(file.as_fd()) {
            // What has no seals at all is on a disk, on FUSE or over a network: a look at it could take for ever.
            Err(MapError::NotSealed) if unsealed == Unsealed::Guard => {}
            sealed => sealed?,
        }
        let stat = fstat(file).map_err(|error| MapError::Map(error.into()))?;
        let have = u64::try_from(stat.st_size).unwrap_or(0);
        let end = u64::try_from(len)
            .ok()
            .and_then(|len| offset.checked_add(len))
            .ok_or(MapError::Overflow)?;
        if have < end {
            return Err(MapError::Short { have, need: end });
        }
        // A file of huge pages is mapped in whole ones. All others have smaller blocks than that.
        let page = u64::try_from(stat.st_blksize).unwrap_or(0).max(4096);
        let lead = offset.checked_rem(page).unwrap_or(0);
        let lead_len = usize::try_from(lead).map_err(|_| MapError::Overflow)?;
        let whole = len.checked_add(lead_len).ok_or(MapError::Overflow)?;
        let page = usize::try_from(page).map_err(|_| MapError::Overflow)?;
        let whole = whole
            .checked_next_multiple_of(page)
            .ok_or(MapError::Overflow)?;
        // SAFETY: a new mapping at an address that the kernel chooses disturbs nothing.
        let pages = unsafe {
            mmap(
                std::ptr::null_mut(),
                whole,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                offset.saturating_sub(lead),
            )
        }
        .map_err(|error| MapError::Map(error.into()))?;
        // A child process of ours has no business in a guest's memory, nor has a core dump.
        for advice in [Advice::LinuxDontFork, Advice::LinuxDontDump] {
            // SAFETY: these are the pages that were just mapped.
            let _ = unsafe { madvise(pages, whole, advice) };
        }
        // SAFETY: `lead_len` is less than `whole`, the length of the mapping.
        let base = unsafe { pages.cast::<u8>().add(lead_len) };
        let base = NonNull::new(base).ok_or(MapError::Overflow)?;
        Self {
            base,
            len: whole.saturating_sub(lead_len),
            backing: Backing::File {
                lead: lead_len,
                guard: None,
            },
        }
        .guarded(unsealed)
    }

    /// With a guard, if it is to have one. Also for what is sealed: pages of a pool may run out.
    fn guarded(mut self, unsealed: Unsealed) -> Result<Self, MapError> {
        if let Backing::File { lead, guard } = &mut self.backing
            && unsealed == Unsealed::Guard
        {
            // SAFETY: the pages begin `lead` bytes before `base`.
            let pages = unsafe { self.base.as_ptr().sub(*lead) };
            let made = Guard::new(pages.cast(), self.len.saturating_add(*lead));
            *guard = Some(made.map_err(MapError::Map)?);
        }
        Ok(self)
    }

    /// The memory has vanished.
    pub(super) fn lost(&self) -> bool {
        match &self.backing {
            Backing::File { guard, .. } => guard.as_ref().is_some_and(Guard::lost),
            #[cfg(test)]
            Backing::Heap(_) => false,
        }
    }

    /// Zeroed memory that is no file.
    #[cfg(test)]
    pub(super) fn of_heap(len: usize) -> Self {
        let layout = std::alloc::Layout::from_size_align(len, 4096).expect("a layout");
        assert!(len > 0, "an allocation has a length");
        // SAFETY: the layout's size is not zero.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        Self {
            base: NonNull::new(base).expect("memory"),
            len,
            backing: Backing::Heap(layout),
        }
    }

    /// The first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        match &mut self.backing {
            Backing::File { lead, guard } => {
                *guard = None;
                let lead = *lead;
                // SAFETY: the mapping began `lead` bytes before `base` and is `lead + len` long; whoever
                // has a pointer into it holds this value too, so nobody has one any more.
                let unmapped = unsafe {
                    let pages = self.base.as_ptr().sub(lead);
                    munmap(pages.cast(), self.len.saturating_add(lead))
                };
                debug_assert!(unmapped.is_ok(), "{unmapped:?}");
            }
            #[cfg(test)]
            // SAFETY: allocated with this layout in `of_heap`.
            Backing::Heap(layout) => unsafe { std::alloc::dealloc(self.base.as_ptr(), *layout) },
        }
    }
}

/// Makes sure that `file` cannot shrink. A VMM that allows seals but did not set this one gets it from us.
fn seal(file: BorrowedFd<'_>) -> Result<(), MapError> {
    let seals = match fcntl_get_seals(file) {
        Ok(seals) => seals,
        Err(Errno::INVAL) => return Err(MapError::NotSealable),
        Err(error) => return Err(MapError::Map(error.into())),
    };
    if seals.contains(SealFlags::SHRINK) {
        return Ok(());
    }
    fcntl_add_seals(file, SealFlags::SHRINK).map_err(|_| MapError::NotSealed)
}
