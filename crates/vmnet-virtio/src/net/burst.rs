//! Frames as they come from a guest: the head copied, the rest where it is.

use std::ops::Range;
use std::sync::Arc;

use super::{FRAME_MAX, Header};
use crate::memory::{GuestSlice, MemoryMap, Slices};
use crate::ring::{Chain, Fault};

/// How much is taken at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BurstLimits {
    /// Frames.
    pub frames: usize,
    /// Bytes of them; the frame that passes this limit is the last.
    pub bytes: usize,
    /// Bytes of a frame that are copied, if it has as many.
    pub head: usize,
}

/// Frames that a guest sent. One burst serves any number of rings, one after the other, without allocating.
#[derive(Debug)]
pub struct Burst {
    limits: BurstLimits,
    /// A place of `limits.head` bytes for each frame.
    heads: Box<[u8]>,
    entries: Vec<Entry>,
    bytes: usize,
    slices: Slices,
}

#[derive(Debug)]
struct Entry {
    header: Header,
    head: Range<usize>,
    rest: Range<usize>,
    len: usize,
    fault: Option<FrameFault>,
}

/// What is wrong with a frame, which is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, thiserror::Error)]
pub enum FrameFault {
    /// With its chain of buffers.
    #[error(transparent)]
    Chain(#[from] Fault),
    /// There is no place for a header, or nothing behind it.
    #[error("there is no frame behind the header")]
    Short,
    /// Longer than [`FRAME_MAX`].
    #[error("the frame is longer than {FRAME_MAX} bytes")]
    Long,
}

/// A frame that a guest sent.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'b> {
    /// What the guest left to others.
    pub header: Header,
    /// Its first bytes, a copy. The guest cannot change what was judged: so these, and not what
    /// is in its memory by now, are what is sent on.
    pub head: &'b [u8],
    /// The bytes behind the head, in guest memory.
    pub rest: &'b [GuestSlice<'b>],
    /// Bytes of the whole frame, without the header.
    pub len: usize,
}

impl Burst {
    /// An empty burst.
    #[must_use]
    pub fn new(limits: BurstLimits) -> Self {
        Self {
            limits,
            heads: vec![0; limits.frames.saturating_mul(limits.head)].into_boxed_slice(),
            entries: Vec::with_capacity(limits.frames),
            bytes: 0,
            slices: Slices::new(Arc::default()),
        }
    }

    /// How many frames there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Frame number `index`, or what is wrong with it; `None` behind the last.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<Result<Frame<'_>, FrameFault>> {
        let entry = self.entries.get(index)?;
        if let Some(fault) = entry.fault {
            return Some(Err(fault));
        }
        Some(Ok(Frame {
            header: entry.header,
            head: self.heads.get(entry.head.clone()).unwrap_or_default(),
            rest: self.slices.get(entry.rest.clone()),
            len: entry.len,
        }))
    }

    /// All frames, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = Result<Frame<'_>, FrameFault>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Forgets all frames; the next ones are in `memory`.
    #[inline]
    pub(super) fn restart(&mut self, memory: &Arc<MemoryMap>) {
        self.entries.clear();
        self.bytes = 0;
        self.slices.restart(memory);
    }

    /// There may be more.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < self.limits.frames && self.bytes < self.limits.bytes
    }

    pub(super) fn slices(&mut self) -> &mut Slices {
        &mut self.slices
    }

    /// The frame in `chain`, which was taken into [`Self::slices`], behind a header of `header_len` bytes.
    #[inline]
    pub(super) fn push(&mut self, chain: &Chain, header_len: usize) {
        let start = self.entries.len().saturating_mul(self.limits.head);
        let mut entry = Entry {
            header: Header::default(),
            head: start..start,
            rest: chain.to_read(),
            len: 0,
            fault: chain.fault.map(FrameFault::Chain),
        };
        if entry.fault.is_none() {
            entry.fault = self.fill(&mut entry, chain, header_len).err();
        }
        self.bytes = self.bytes.saturating_add(entry.len);
        self.entries.push(entry);
    }

    #[inline]
    fn fill(
        &mut self,
        entry: &mut Entry,
        chain: &Chain,
        header_len: usize,
    ) -> Result<(), FrameFault> {
        if chain.writable > 0 {
            return Err(FrameFault::Chain(Fault::Direction));
        }
        let len = usize::try_from(chain.readable).map_err(|_| FrameFault::Long)?;
        let len = len.saturating_sub(header_len);
        if len == 0 {
            return Err(FrameFault::Short);
        }
        if len > FRAME_MAX {
            return Err(FrameFault::Long);
        }
        let header = entry.header.0.get_mut(..header_len).unwrap_or_default();
        self.slices.read(&mut entry.rest, header);
        entry.head.end = entry.head.start.saturating_add(len.min(self.limits.head));
        let head = self.heads.get_mut(entry.head.clone()).unwrap_or_default();
        self.slices.read(&mut entry.rest, head);
        entry.len = len;
        Ok(())
    }
}
