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
    /// No memory: what [`Self::slices`] has between bursts.
    nowhere: Arc<MemoryMap>,
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
        let nowhere = Arc::default();
        Self {
            limits,
            heads: vec![0; limits.frames.saturating_mul(limits.head)].into_boxed_slice(),
            entries: Vec::with_capacity(limits.frames),
            bytes: 0,
            slices: Slices::new(Arc::clone(&nowhere)),
            nowhere,
        }
    }

    /// Forgets all frames, and lets go of the memory in which they are: until then it stays mapped.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
        self.slices.restart(&self.nowhere);
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

    /// The frame in `chain`, which was taken into [`Self::slices`], behind a header of `header_len` bytes. Its
    /// bytes are on their way to this processor until [`Self::copy_heads`].
    #[inline]
    pub(super) fn push(&mut self, chain: &Chain, header_len: usize) {
        let start = self.entries.len().saturating_mul(self.limits.head);
        let len = usize::try_from(chain.readable).unwrap_or(usize::MAX);
        let len = len.saturating_sub(header_len);
        let fault = if chain.fault.is_some() {
            chain.fault.map(FrameFault::Chain)
        } else if chain.writable > 0 {
            Some(FrameFault::Chain(Fault::Direction))
        } else if len == 0 {
            Some(FrameFault::Short)
        } else if len > FRAME_MAX {
            Some(FrameFault::Long)
        } else {
            None
        };
        let rest = chain.to_read();
        if let Some(first) = self.slices.get(rest.clone()).first() {
            first.prefetch();
        }
        let len = if fault.is_some() { 0 } else { len };
        self.bytes = self.bytes.saturating_add(len);
        self.entries.push(Entry {
            header: Header::default(),
            head: start..start.saturating_add(len.min(self.limits.head)),
            rest,
            len,
            fault,
        });
    }

    /// Copies the headers and heads of all frames that were pushed.
    #[inline]
    pub(super) fn copy_heads(&mut self, header_len: usize) {
        for entry in &mut self.entries {
            if entry.fault.is_none() {
                let header = entry.header.0.get_mut(..header_len).unwrap_or_default();
                self.slices.read(&mut entry.rest, header);
                let head = self.heads.get_mut(entry.head.clone()).unwrap_or_default();
                self.slices.read(&mut entry.rest, head);
            }
        }
    }
}
