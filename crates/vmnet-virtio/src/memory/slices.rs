//! A list of slices of guest memory that keeps it mapped.

use std::ops::Range;
use std::sync::Arc;

use super::map::{MemoryMap, Outside, Vicinity};
use super::slice::GuestSlice;

/// Slices of one guest's memory, and that memory.
///
/// The list is filled from a ring and reused: it allocates only until it has been as long as it gets.
#[derive(Debug)]
pub struct Slices {
    /// Each points into `memory`. They are handed out only with a lifetime that borrows `self`.
    list: Vec<GuestSlice<'static>>,
    memory: Arc<MemoryMap>,
    /// Where an address was found last.
    hint: usize,
}

/// A list that is being filled with what is in one region.
#[derive(Debug)]
pub(crate) struct Filling<'s> {
    list: &'s mut Vec<GuestSlice<'static>>,
    vicinity: Vicinity<'s>,
}

impl Filling<'_> {
    /// Adds `len` bytes at the guest's address `addr` if they are all there, and gives them and their number in the list.
    #[inline(always)]
    pub(crate) fn push(&mut self, addr: u64, len: u32) -> Option<(GuestSlice<'_>, usize)> {
        let piece = self.vicinity.get(addr, u64::from(len))?;
        let at = self.list.len();
        // SAFETY: the memory of the list, in which it is, keeps it mapped, and is dropped or exchanged only when the list is empty.
        self.list.push(unsafe { piece.forget_map() });
        Some((piece, at))
    }
}

impl Slices {
    /// An empty list.
    #[must_use]
    pub fn new(memory: Arc<MemoryMap>) -> Self {
        Self {
            list: Vec::new(),
            memory,
            hint: 0,
        }
    }

    /// Empties the list, and goes on with `memory`.
    #[inline]
    pub fn restart(&mut self, memory: &Arc<MemoryMap>) {
        self.list.clear();
        if !Arc::ptr_eq(&self.memory, memory) {
            self.memory = Arc::clone(memory);
        }
    }

    /// Empties the list.
    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Forgets all slices but the first `len`.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.list.truncate(len);
    }

    /// Copies bytes of the slices in `range` to `to`, and takes them off the range. Says how many.
    #[inline]
    pub(crate) fn read(&mut self, range: &mut Range<usize>, to: &mut [u8]) -> usize {
        if let Some(slice) = self.list.get_mut(range.start)
            && range.start < range.end
            && slice.len() >= to.len()
        {
            slice.copy_to(to);
            (_, *slice) = slice.split_at(to.len());
            range.start = range.start.saturating_add(usize::from(slice.is_empty()));
            return to.len();
        }
        self.read_on(range, to)
    }

    /// The same of more than one slice.
    fn read_on(&mut self, range: &mut Range<usize>, to: &mut [u8]) -> usize {
        let mut done: usize = 0;
        while let Some(room) = to.get_mut(done..)
            && !room.is_empty()
            && range.start < range.end
            && let Some(slice) = self.list.get_mut(range.start)
        {
            let copied = slice.copy_to(room);
            done = done.saturating_add(copied);
            if copied == slice.len() {
                range.start = range.start.saturating_add(1);
            } else {
                (_, *slice) = slice.split_at(copied);
            }
        }
        done
    }

    /// Cuts the first `bytes` bytes off.
    #[inline]
    pub(crate) fn skip(&mut self, mut bytes: usize) {
        let mut whole: usize = 0;
        for slice in &mut self.list {
            if bytes < slice.len() {
                (_, *slice) = slice.split_at(bytes);
                break;
            }
            bytes = bytes.saturating_sub(slice.len());
            whole = whole.saturating_add(1);
        }
        if whole > 0 {
            self.list.drain(..whole.min(self.list.len()));
        }
    }

    /// How many slices there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The memory that they are in.
    #[must_use]
    pub fn memory(&self) -> &Arc<MemoryMap> {
        &self.memory
    }

    /// Where an address was found last, and a list to add what is there. None: nothing was found yet.
    #[inline(always)]
    pub(crate) fn filling(&mut self) -> Option<Filling<'_>> {
        let Self { list, memory, hint } = self;
        let vicinity = memory.vicinity(*hint)?;
        Some(Filling { list, vicinity })
    }

    /// Where an address was found last.
    #[inline(always)]
    pub(crate) fn vicinity(&self) -> Option<Vicinity<'_>> {
        self.memory.vicinity(self.hint)
    }

    /// Adds `len` bytes at the guest's address `addr`, if they are all where an address was found last, and gives them.
    #[inline(always)]
    pub(crate) fn push_near(&mut self, addr: u64, len: u32) -> Option<GuestSlice<'_>> {
        let piece = self.memory.near(addr, u64::from(len), self.hint)?;
        // SAFETY: `memory` keeps it mapped, and is dropped or exchanged only when the list is empty.
        self.list.push(unsafe { piece.forget_map() });
        Some(piece)
    }

    /// Adds the pieces of `len` bytes at the guest's address `addr`. An empty one adds nothing.
    ///
    /// # Errors
    /// Some byte is in no region; nothing was added.
    #[inline]
    pub fn push(&mut self, addr: u64, len: u64) -> Result<(), Outside> {
        if len == 0 {
            return Ok(());
        }
        let Self { list, memory, hint } = self;
        let before = list.len();
        let pushed = memory.each_piece(addr, len, hint, |piece| {
            // SAFETY: `memory` keeps it mapped, and is dropped or exchanged only when the list is empty.
            list.push(unsafe { piece.forget_map() });
        });
        if pushed.is_err() {
            list.truncate(before);
        }
        pushed
    }

    /// Copies what is at the guest's address `addr` now. The list stays as it is.
    ///
    /// # Errors
    /// Some byte is in no region.
    #[inline]
    pub(crate) fn read_at(&mut self, addr: u64, to: &mut [u8]) -> Result<(), Outside> {
        let mut done: usize = 0;
        let len = u64::try_from(to.len()).unwrap_or(u64::MAX);
        self.memory.each_piece(addr, len, &mut self.hint, |piece| {
            let copied = piece.copy_to(to.get_mut(done..).unwrap_or_default());
            done = done.saturating_add(copied);
        })
    }

    /// All slices.
    #[must_use]
    #[inline]
    pub fn all(&self) -> &[GuestSlice<'_>] {
        &self.list
    }

    /// Those of `range`; none if it reaches beyond the end.
    #[must_use]
    #[inline]
    pub fn get(&self, range: Range<usize>) -> &[GuestSlice<'_>] {
        self.list.get(range).unwrap_or_default()
    }
}
