//! Bytes of guest memory, and copies from and to them.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

/// Bytes that are fetched ahead at most: some such places are to fit into a processor's nearest cache.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const FETCHED: usize = 2048;

/// Bytes of guest memory, one after the other in our address space.
///
/// The guest may change them at any time, so there is no reference to them: they are copied, and what
/// matters is copied once and looked at then. `'m` is the map that keeps them mapped.
#[derive(Clone, Copy, Debug)]
pub struct GuestSlice<'m> {
    start: NonNull<u8>,
    len: usize,
    map: PhantomData<&'m ()>,
}

// SAFETY: the bytes belong to no thread: all accesses are raw copies, which other threads and
// processes may disturb in content only.
unsafe impl Send for GuestSlice<'_> {}
// SAFETY: as above.
unsafe impl Sync for GuestSlice<'_> {}

impl<'m> GuestSlice<'m> {
    /// `len` bytes from `start` on.
    ///
    /// # Safety
    /// They are mapped, readable and writable, for all of `'m`, and no reference to them exists.
    pub(super) const unsafe fn new(start: NonNull<u8>, len: usize) -> Self {
        Self {
            start,
            len,
            map: PhantomData,
        }
    }

    /// The same bytes without a map that keeps them.
    ///
    /// # Safety
    /// The result is used only while they are mapped.
    pub(super) const unsafe fn forget_map(self) -> GuestSlice<'static> {
        GuestSlice {
            start: self.start,
            len: self.len,
            map: PhantomData,
        }
    }

    /// Bytes.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first byte's address, for a system call that reads or writes there, or to prefetch. It is not to
    /// be made a reference of.
    #[must_use]
    #[inline]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// What `sendmsg`, `recvmsg`, `readv` and `writev` take. Valid for `'m`.
    #[must_use]
    pub const fn as_iovec(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.start.as_ptr().cast(),
            iov_len: self.len,
        }
    }

    /// Lets the processor fetch the first bytes, to be read soon: the line of the cache in which they begin, where often only
    /// a header is, and the next.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        // SAFETY: a hint, which does not access memory as far as the program can tell.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let start = self.start.as_ptr().cast::<i8>();
            _mm_prefetch::<_MM_HINT_T0>(start);
            _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64));
        }
    }

    /// Lets the processor fetch all lines, but no more than 2 KiB of them, to be written to soon: others have them.
    #[inline]
    pub fn prefetch_to_write(&self) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        for at in (0..self.len.min(FETCHED)).step_by(64) {
            // SAFETY: a hint, which does not access memory as far as the program can tell. Processors that do not know it do
            // nothing.
            unsafe {
                std::arch::asm!(
                    "prefetchw [{line}]",
                    line = in(reg) self.start.as_ptr().wrapping_add(at),
                    options(nostack, preserves_flags, readonly)
                );
            }
        }
    }

    /// The bytes before `at`, and those from there on; `at` beyond the end is the end.
    #[must_use]
    #[inline]
    pub fn split_at(self, at: usize) -> (Self, Self) {
        let at = at.min(self.len);
        let behind = self.len.saturating_sub(at);
        // SAFETY: `at` is not beyond the end, so both are parts of what `self` has.
        unsafe {
            (
                Self::new(self.start, at),
                Self::new(self.start.add(at), behind),
            )
        }
    }

    /// Copies the first bytes to `to`: as many as both have. Says how many.
    #[inline]
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let len = self.len.min(to.len());
        // SAFETY: both have `len` bytes; `to` is ours alone, so they do not overlap: no reference
        // into guest memory exists.
        unsafe { copy(self.start.as_ptr(), to.as_mut_ptr(), len) };
        len
    }

    /// Copies `from` to the first bytes: as many as both have. Says how many.
    #[inline]
    pub fn copy_from(&self, from: &[u8]) -> usize {
        let len = self.len.min(from.len());
        // SAFETY: both have `len` bytes; `from` is no guest memory, to which no reference exists.
        unsafe { copy(from.as_ptr(), self.start.as_ptr(), len) };
        len
    }

    /// Writes all of `bytes` to the first bytes, and gives those behind them. None: there are not as many, and nothing was written.
    #[inline(always)]
    pub(crate) fn put<const N: usize>(self, bytes: &[u8; N]) -> Option<Self> {
        let behind = self.len.checked_sub(N)?;
        // SAFETY: there are `N` bytes; `bytes` is no guest memory, to which no reference exists.
        let start = unsafe {
            self.start.cast::<[u8; N]>().write_unaligned(*bytes);
            self.start.add(N)
        };
        // SAFETY: it is the end of what `self` has.
        Some(unsafe { Self::new(start, behind) })
    }

    /// Copies from other guest memory, which may be the same: as many bytes as both have. Says how many.
    #[inline]
    pub fn copy_from_guest(&self, from: GuestSlice<'_>) -> usize {
        let len = self.len.min(from.len);
        // SAFETY: both have `len` bytes mapped, and `copy` may be given what overlaps.
        unsafe { ptr::copy(from.start.as_ptr(), self.start.as_ptr(), len) };
        len
    }

    /// Sets all bytes to zero.
    pub fn zero(&self) {
        // SAFETY: all `len` bytes are mapped and writable.
        unsafe { ptr::write_bytes(self.start.as_ptr(), 0, self.len) };
    }
}

/// Copies `len` bytes. What is as long as heads of frames are is copied without a call: as two blocks, which overlap where it is
/// not as long as both.
///
/// # Safety
/// As of [`ptr::copy_nonoverlapping`].
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    const BLOCK: usize = 64;
    type Block = [u8; BLOCK];
    match len.checked_sub(BLOCK) {
        Some(last @ 0..=BLOCK) => {
            // SAFETY: `last` and a block are `len`, and bytes have no alignment.
            unsafe {
                ptr::copy_nonoverlapping(from.cast::<Block>(), to.cast(), 1);
                ptr::copy_nonoverlapping(from.add(last).cast::<Block>(), to.add(last).cast(), 1);
            }
        }
        // SAFETY: the caller's word.
        _ => unsafe { ptr::copy_nonoverlapping(from, to, len) },
    }
}

/// Writes one thing after the other into a list of slices.
#[derive(Clone, Debug)]
pub struct GuestWriter<'a> {
    /// Free bytes of the slice in hand.
    now: GuestSlice<'a>,
    next: std::slice::Iter<'a, GuestSlice<'a>>,
}

impl<'a> GuestWriter<'a> {
    /// Begins at the first byte of `slices`.
    #[must_use]
    #[inline]
    pub fn new(slices: &'a [GuestSlice<'a>]) -> Self {
        let mut next = slices.iter();
        // SAFETY: no byte of it is ever accessed.
        let nothing = || unsafe { GuestSlice::new(NonNull::dangling(), 0) };
        Self {
            now: next.next().copied().unwrap_or_else(nothing),
            next,
        }
    }

    /// The next slice to write to that has room, if there is one.
    #[inline]
    fn room(&mut self) -> Option<GuestSlice<'a>> {
        while self.now.is_empty() {
            self.now = *self.next.next()?;
        }
        Some(self.now)
    }

    /// Writes `bytes`. Says how many found room.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        if bytes.len() <= self.now.len() {
            let len = self.now.copy_from(bytes);
            (_, self.now) = self.now.split_at(len);
            return len;
        }
        // By value, so that a writer stays in registers.
        let (written, then) = self.clone().write_on(bytes);
        *self = then;
        written
    }

    /// The same in more than one slice.
    #[cold]
    fn write_on(mut self, mut bytes: &[u8]) -> (usize, Self) {
        let mut written: usize = 0;
        while !bytes.is_empty()
            && let Some(room) = self.room()
        {
            let len = room.copy_from(bytes);
            (_, self.now) = room.split_at(len);
            bytes = bytes.get(len..).unwrap_or_default();
            written = written.saturating_add(len);
        }
        (written, self)
    }

    /// Writes bytes of guest memory. Says how many found room.
    #[inline]
    pub fn write_guest(&mut self, bytes: GuestSlice<'_>) -> usize {
        if bytes.len() <= self.now.len() {
            let len = self.now.copy_from_guest(bytes);
            (_, self.now) = self.now.split_at(len);
            return len;
        }
        let (written, then) = self.clone().write_guest_on(bytes);
        *self = then;
        written
    }

    /// The same in more than one slice.
    fn write_guest_on(mut self, mut bytes: GuestSlice<'_>) -> (usize, Self) {
        let mut written: usize = 0;
        while !bytes.is_empty()
            && let Some(room) = self.room()
        {
            let len = room.copy_from_guest(bytes);
            (_, self.now) = room.split_at(len);
            (_, bytes) = bytes.split_at(len);
            written = written.saturating_add(len);
        }
        (written, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryMap;

    fn memory(len: usize) -> MemoryMap {
        MemoryMap::of_heap(&[(0x1000, len)])
    }

    fn read(slice: GuestSlice<'_>) -> Vec<u8> {
        let mut bytes = vec![0; slice.len()];
        assert_eq!(slice.copy_to(&mut bytes), slice.len());
        bytes
    }

    #[test]
    fn copies_as_many_as_both_have() {
        let memory = memory(4096);
        let slice = memory.guest(0x1000, 4).unwrap();
        assert_eq!(slice.copy_from(b"abcdef"), 4);
        assert_eq!(slice.copy_from(b"xy"), 2);
        assert_eq!(read(slice), b"xycd");
        let mut long = [9; 6];
        assert_eq!(slice.copy_to(&mut long), 4);
        assert_eq!(&long, b"xycd\x09\x09");
        slice.zero();
        assert_eq!(read(slice), [0; 4]);
    }

    #[test]
    fn splits_anywhere() {
        let memory = memory(4096);
        let slice = memory.guest(0x1000, 4).unwrap();
        slice.copy_from(b"abcd");
        for (at, first, second) in [
            (0, &b""[..], &b"abcd"[..]),
            (3, b"abc", b"d"),
            (9, b"abcd", b""),
        ] {
            let (before, behind) = slice.split_at(at);
            assert_eq!((read(before), read(behind)), (first.into(), second.into()));
        }
    }

    #[test]
    fn a_slice_copied_onto_itself_keeps_its_order() {
        let memory = memory(4096);
        memory.guest(0x1000, 6).unwrap().copy_from(b"abcdef");
        let to = memory.guest(0x1002, 4).unwrap();
        assert_eq!(to.copy_from_guest(memory.guest(0x1000, 4).unwrap()), 4);
        assert_eq!(read(memory.guest(0x1000, 6).unwrap()), b"ababcd");
    }

    #[test]
    fn a_writer_walks_through_empty_slices_and_ends_at_the_last() {
        let memory = memory(4096);
        let slices = [(0x1000, 2), (0x1100, 0), (0x1200, 3)]
            .map(|(addr, len)| memory.guest(addr, len).unwrap());
        let mut writer = GuestWriter::new(&slices);
        assert_eq!(writer.write(b"a"), 1);
        let source = memory.guest(0x1800, 2).unwrap();
        source.copy_from(b"bc");
        assert_eq!(writer.write_guest(source), 2);
        assert_eq!(writer.write(b"defg"), 2);
        assert_eq!(writer.write_guest(source), 0);
        assert_eq!(slices.map(read), [b"ab".to_vec(), vec![], b"cde".to_vec()]);
    }

    #[test]
    fn an_iovec_names_the_same_bytes() {
        let memory = memory(4096);
        let slice = memory.guest(0x1010, 7).unwrap();
        let iovec = slice.as_iovec();
        assert_eq!(iovec.iov_base.cast(), slice.as_ptr());
        assert_eq!(iovec.iov_len, 7);
    }
}
