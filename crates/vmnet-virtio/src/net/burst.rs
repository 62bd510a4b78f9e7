//! Frames as they come from a guest: the head copied, the rest where it is.

use std::ops::Range;
use std::sync::Arc;

use super::{FRAME_MAX, HEADER_MAX, Header};
use crate::memory::{GuestSlice, MemoryMap, Slices, slices};
use crate::ring::{Buffer, Chain, Fault};

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
    /// A place of [`Self::place`] bytes for each frame: its virtio header, and its head right behind.
    heads: Box<[u8]>,
    place: usize,
    /// Bytes of the virtio header.
    header_len: usize,
    entries: Vec<Entry>,
    bytes: usize,
    slices: Slices,
    /// No memory: what [`Self::slices`] has between bursts.
    nowhere: Arc<MemoryMap>,
}

#[derive(Debug)]
struct Entry {
    /// Bytes of the head.
    head: usize,
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
        // Whole lines of the cache, so that no two frames share one.
        let place = limits.head.saturating_add(HEADER_MAX);
        let place = place.checked_next_multiple_of(64).unwrap_or(place).max(1);
        Self {
            limits,
            heads: vec![0; limits.frames.saturating_mul(place)].into_boxed_slice(),
            place,
            header_len: HEADER_MAX,
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
        self.from(index).next()
    }

    /// All frames, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = Result<Frame<'_>, FrameFault>> {
        self.from(0)
    }

    /// The frames from number `index` on.
    #[inline(always)]
    pub fn from(&self, index: usize) -> impl Iterator<Item = Result<Frame<'_>, FrameFault>> {
        let entries = self.entries.get(index..).unwrap_or_default();
        let start = index.saturating_mul(self.place);
        let places = self.heads.get(start..).unwrap_or_default();
        let places = places.chunks_exact(self.place);
        entries
            .iter()
            .zip(places)
            .map(|(entry, place)| self.frame(entry, place))
    }

    #[inline(always)]
    fn frame<'b>(&'b self, entry: &Entry, place: &'b [u8]) -> Result<Frame<'b>, FrameFault> {
        if let Some(fault) = entry.fault {
            return Err(fault);
        }
        let (header, behind) = match place.split_first_chunk() {
            Some((header, behind)) if self.header_len == HEADER_MAX => (Header(*header), behind),
            Some((header, _)) => {
                let behind = place.get(self.header_len..).unwrap_or_default();
                (Header(*header).with_buffers(0), behind)
            }
            None => (Header::default(), place),
        };
        Ok(Frame {
            header,
            head: behind.get(..entry.head).unwrap_or_default(),
            rest: self.slices.get(entry.rest.clone()),
            len: entry.len,
        })
    }

    /// Forgets all frames; the next ones are in `memory`, behind headers of `header_len` bytes.
    #[inline]
    pub(super) fn restart(&mut self, memory: &Arc<MemoryMap>, header_len: usize) {
        self.entries.clear();
        self.bytes = 0;
        self.header_len = header_len.min(HEADER_MAX);
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

    /// For frames that are in one buffer each. None: nothing is known of the memory yet.
    #[inline(always)]
    pub(super) fn filling(&mut self) -> Option<Filling<'_>> {
        let Self {
            limits,
            header_len,
            entries,
            bytes,
            slices,
            ..
        } = self;
        Some(Filling {
            limits: *limits,
            header_len: *header_len,
            entries,
            bytes,
            slices: slices.filling()?,
        })
    }

    /// The frame in `chain`, which was taken into [`Self::slices`]. Its bytes are on their way to this processor until
    /// [`Self::copy_heads`].
    #[inline(always)]
    pub(super) fn push(&mut self, chain: &Chain) {
        let len = usize::try_from(chain.readable).unwrap_or(usize::MAX);
        let len = len.saturating_sub(self.header_len);
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
            head: len.min(self.limits.head),
            rest,
            len,
            fault,
        });
    }

    /// Copies the headers and heads of all frames that were pushed.
    #[inline]
    pub(super) fn copy_heads(&mut self) {
        let places = self.heads.chunks_exact_mut(self.place);
        for (entry, place) in self.entries.iter_mut().zip(places) {
            if entry.fault.is_none() {
                let both = place.get_mut(..self.header_len.saturating_add(entry.head));
                self.slices.read(&mut entry.rest, both.unwrap_or_default());
            }
        }
    }
}

/// A burst that gets frames which are in one buffer each.
pub(super) struct Filling<'b> {
    limits: BurstLimits,
    header_len: usize,
    entries: &'b mut Vec<Entry>,
    bytes: &'b mut usize,
    slices: slices::Filling<'b>,
}

impl Filling<'_> {
    /// The frame in this buffer, if that is one piece of memory, there is nothing wrong with it, and there is room. None: nothing
    /// has happened. Its bytes are on their way as those of [`Burst::push`].
    #[inline(always)]
    pub(super) fn push(&mut self, buffer: Buffer) -> Option<()> {
        let whole = usize::try_from(buffer.len).ok()?;
        let len = whole.checked_sub(self.header_len)?;
        let has_room = self.entries.len() < self.limits.frames && *self.bytes < self.limits.bytes;
        if buffer.write || len == 0 || len > FRAME_MAX || !has_room {
            return None;
        }
        let (slice, at) = self.slices.push(buffer.addr, buffer.len)?;
        slice.prefetch();
        *self.bytes = self.bytes.saturating_add(len);
        self.entries.push(Entry {
            head: len.min(self.limits.head),
            rest: at..at.saturating_add(1),
            len,
            fault: None,
        });
        Some(())
    }
}
