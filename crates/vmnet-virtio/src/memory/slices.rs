//! A list of slices of guest memory that keeps it mapped.

use std::ops::Range;
use std::sync::Arc;

use super::map::{MemoryMap, Outside};
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
    pub fn restart(&mut self, memory: &Arc<MemoryMap>) {
        self.list.clear();
        if !Arc::ptr_eq(&self.memory, memory) {
            self.memory = Arc::clone(memory);
        }
    }

    /// Empties the list.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Forgets all slices but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.list.truncate(len);
    }

    /// How many slices there are.
    #[must_use]
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

    /// Adds the pieces of `len` bytes at the guest's address `addr`. An empty one adds nothing.
    ///
    /// # Errors
    /// Some byte is in no region; nothing was added.
    #[inline]
    pub fn push(&mut self, addr: u64, len: u64) -> Result<(), Outside> {
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

    /// All slices.
    #[must_use]
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
