//! Whether we are a copy of a process, which shares memory with the original and must not touch it.
//!
//! A child that was forked has all of its parent's memory, and rings in it that the parent goes on to use: two drivers of one
//! ring would destroy it. To ask the kernel at every call who we are costs more than the call. So a page is marked that the
//! kernel wipes in children (`MADV_WIPEONFORK`, since Linux 4.14).

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// Bytes of the mapping; the kernel rounds up.
const LEN: usize = 4096;
const ORIGINAL: u64 = 0x6f72_6967_696e_616c;

/// A mark that children do not have.
#[derive(Debug)]
pub struct ForkMark {
    page: NonNull<AtomicU64>,
}

// SAFETY: the page is a mapping of its own, and only read after it was made, atomically.
unsafe impl Send for ForkMark {}
// SAFETY: as above.
unsafe impl Sync for ForkMark {}

impl ForkMark {
    /// Marks this process.
    ///
    /// # Errors
    /// There is no memory, or the kernel is older than 4.14.
    pub fn new() -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, of nothing that exists.
        let page = unsafe { mmap_anonymous(ptr::null_mut(), LEN, protection, MapFlags::PRIVATE) }?;
        let made = NonNull::new(page.cast()).map(|page| Self { page });
        let made = made.ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the mapping is ours, and nothing in it is read before it is marked below.
        unsafe { madvise(page, LEN, Advice::LinuxWipeOnFork) }?;
        made.word().store(ORIGINAL, Ordering::Relaxed);
        Ok(made)
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: the mapping lives as long as `self`, begins on a page, is zero or marked, and accessed by atomics alone.
        unsafe { self.page.as_ref() }
    }

    /// This is the process that was marked, and no child of it.
    #[inline]
    #[must_use]
    pub fn is_original(&self) -> bool {
        self.word().load(Ordering::Relaxed) == ORIGINAL
    }
}

impl Drop for ForkMark {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody has a reference into it any more.
        let unmapped = unsafe { munmap(self.page.as_ptr().cast(), LEN) };
        debug_assert!(unmapped.is_ok(), "our own mapping");
    }
}

// The kernel's: not for Miri, nor for loom.
#[cfg(all(test, not(miri), not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_not_the_original() {
        let mark = ForkMark::new().unwrap();
        assert!(mark.is_original());
        // SAFETY: the child does nothing but look and end.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let code = i32::from(mark.is_original());
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) };
        }
        let mut status = -1;
        // SAFETY: waits for our own child.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0, "the child took itself for its parent");
        assert!(mark.is_original());
    }
}
