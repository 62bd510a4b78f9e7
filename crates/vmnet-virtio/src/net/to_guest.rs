//! The ring by which a guest receives.

use std::sync::Arc;

use super::{Burst, FRAME_MAX, Features, Frame, FrameFault, HEADER_MAX, Header};
use crate::memory::map::Vicinity;
use crate::memory::{GuestSlice, GuestWriter, MemoryMap, Slices};
use crate::ring::{Buffer, Chain, Fault, Kind, OneByOne, Ring, RingConfig, RingError, StartError};

/// A frame in more buffers than this is not delivered. The smallest that Linux makes take 43 for 64 KiB.
const MERGED_MAX: usize = 256;

/// So many buffers behind the one that is written to, the next is fetched.
const AHEAD: u16 = 4;
/// As many bytes of it are fetched at least: a header, and the line behind it.
const FETCHED_LEAST: u32 = 128;

/// What became of a frame for a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Delivery {
    /// It is in the guest's buffers, or there is room for it.
    Done,
    /// The guest has not made enough buffers available. Ask for a kick, or drop.
    NoBuffers,
    /// It is longer than the guest's buffers will ever be, or than a frame may be.
    TooLong,
}

/// Frames that were delivered one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// How many.
    pub frames: usize,
    /// Bytes of all, without headers.
    pub bytes: usize,
}

/// A receive queue of a guest.
#[derive(Debug)]
pub struct ToGuest {
    ring: Ring,
    memory: Arc<MemoryMap>,
    header_len: usize,
    /// `VIRTIO_NET_F_MRG_RXBUF`.
    mergeable: bool,
    /// Buffers for one frame, all of them to write to.
    reserved: Vec<Chain>,
    /// The memory was there when the first frame was written that is not published yet.
    is_looked_at: bool,
    /// Descriptors of the ring.
    size: usize,
    /// Buffers that were reserved and given, and are not published. Those of frames that were delivered at once are few.
    unseen: usize,
    slices: Slices,
}

impl ToGuest {
    /// A queue in `memory`, with what was negotiated.
    ///
    /// # Errors
    /// The ring is not all in `memory`, or of an impossible size.
    pub fn start(
        memory: Arc<MemoryMap>,
        config: RingConfig,
        features: Features,
    ) -> Result<Self, StartError> {
        Ok(Self {
            ring: Ring::start(&memory, config)?,
            slices: Slices::new(Arc::clone(&memory)),
            memory,
            header_len: features.header_len(),
            mergeable: features.contains(Features::MRG_RXBUF),
            reserved: Vec::with_capacity(MERGED_MAX),
            is_looked_at: false,
            size: usize::from(config.size),
            unseen: 0,
        })
    }

    /// Goes on in other memory. What was reserved is so no more.
    ///
    /// # Errors
    /// The ring is not all in it; nothing but that has changed.
    pub fn remap(&mut self, memory: Arc<MemoryMap>) -> Result<(), StartError> {
        self.cancel();
        self.ring.remap(&memory)?;
        self.slices.restart(&memory);
        self.memory = memory;
        self.is_looked_at = false;
        Ok(())
    }

    /// Copies a frame into the guest's buffers: `head`, and `rest` behind it. The guest sees it when the ring is
    /// [`Self::publish`]ed.
    ///
    /// # Errors
    /// The driver has broken the ring.
    #[inline]
    pub fn deliver(
        &mut self,
        header: Header,
        head: &[u8],
        rest: &[GuestSlice<'_>],
    ) -> Result<Delivery, RingError> {
        let rest_len = rest
            .iter()
            .fold(0_usize, |sum, slice| sum.saturating_add(slice.len()));
        let len = head.len().saturating_add(rest_len);
        self.deliver_by(header, len, |writer| {
            writer.write(head);
            for slice in rest {
                writer.write_guest(*slice);
            }
        })
    }

    /// The same of a frame of `len` bytes that `write` writes.
    ///
    /// # Errors
    /// The driver has broken the ring.
    #[inline]
    pub fn deliver_by(
        &mut self,
        header: Header,
        len: usize,
        write: impl FnOnce(&mut GuestWriter<'_>),
    ) -> Result<Delivery, RingError> {
        let Some(write) = self.deliver_at_once(header, len, write) else {
            return Ok(Delivery::Done);
        };
        match self.reserve(len)? {
            Delivery::Done => {}
            other => return Ok(other),
        }
        let header = self.header_for(header, self.reserved.len());
        let mut writer = GuestWriter::new(self.slices.all());
        writer.write(header.first(self.header_len));
        write(&mut writer);
        self.give(len);
        Ok(Delivery::Done)
    }

    /// The same if the frame fits into the next buffer and that is one piece of memory. Gives `write` back if not.
    #[inline(always)]
    fn deliver_at_once<W: FnOnce(&mut GuestWriter<'_>)>(
        &mut self,
        header: Header,
        len: usize,
        write: W,
    ) -> Option<W> {
        let all = u32::try_from(len.saturating_add(self.header_len)).ok();
        let Some(all) = all.filter(|_| len <= FRAME_MAX && self.is_there()) else {
            return Some(write);
        };
        let (header, header_len) = (header.with_buffers(1), self.header_len);
        let put = |place: GuestSlice<'_>, write: W| {
            let place = [place];
            let mut writer = GuestWriter::new(&place);
            writer.write(header.first(header_len));
            write(&mut writer);
        };
        let slices = &self.slices;
        match self.ring.kind() {
            Some(Kind::Split(ring)) => use_one(ring, slices, all, write, put),
            Some(Kind::Packed(ring)) => use_one(ring, slices, all, write, put),
            None => Some(write),
        }
    }

    /// Delivers `count` frames of `burst` from number `from` on, all with this header, for as long as each fits into the next buffer
    /// and that is one piece of memory, as nearly all are. Says how many were, and how long they are together. The first of the
    /// others is for [`Self::deliver`].
    #[inline]
    pub fn deliver_run(&mut self, header: Header, burst: &Burst, from: usize, count: usize) -> Run {
        if !self.is_there() {
            return Run::default();
        }
        let (slices, header) = (&self.slices, header.with_buffers(1));
        let frames = burst.from(from).take(count);
        let len = self.header_len;
        match self.ring.kind() {
            Some(Kind::Split(ring)) => use_run(ring, slices, header, len, frames),
            Some(Kind::Packed(ring)) => use_run(ring, slices, header, len, frames),
            None => Run::default(),
        }
    }

    /// The memory has not vanished. Looked up once until the ring is published.
    #[inline]
    fn is_there(&mut self) -> bool {
        self.is_looked_at = self.is_looked_at || !self.memory.lost();
        self.is_looked_at
    }

    /// Takes buffers for a frame of `len` bytes, which stay reserved until [`Self::commit`],
    /// [`Self::cancel`] or the next frame.
    ///
    /// # Errors
    /// The driver has broken the ring.
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Result<Delivery, RingError> {
        self.cancel();
        if len > FRAME_MAX {
            return Ok(Delivery::TooLong);
        }
        self.slices.restart(&self.memory);
        if !self.is_there() {
            return Err(self.ring.end(RingError::MemoryLost));
        }
        let len = len.saturating_add(self.header_len);
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        let mut room: u64 = 0;
        loop {
            let Some(chain) = self.ring.take(&mut self.slices)? else {
                let count = u16::try_from(self.reserved.len()).unwrap_or(u16::MAX);
                self.ring.rewind_for_more(count);
                self.reserved.clear();
                return Ok(Delivery::NoBuffers);
            };
            self.reserved.push(chain);
            if let Some(fault) = unusable(&chain) {
                self.cancel();
                return Err(self.ring.end(RingError::Buffer(fault)));
            }
            room = room.saturating_add(chain.writable);
            if room >= len {
                return Ok(Delivery::Done);
            }
            if !self.mergeable || self.reserved.len() >= MERGED_MAX {
                self.cancel();
                return Ok(Delivery::TooLong);
            }
        }
    }

    /// The reserved buffers from byte `skip` of the frame on: to receive into.
    pub fn space(&self, skip: usize) -> impl Iterator<Item = GuestSlice<'_>> {
        let mut skip = skip.saturating_add(self.header_len);
        let reserved = match self.reserved.len() {
            0 => &[],
            _ => self.slices.all(),
        };
        reserved.iter().filter_map(move |slice| {
            let (skipped, space) = slice.split_at(skip);
            skip = skip.saturating_sub(skipped.len());
            (!space.is_empty()).then_some(space)
        })
    }

    /// The reserved buffers have got a frame of `len` bytes, of which `head` is still to be written. What they
    /// have room for beyond that is offered to the next frame, if it is whole buffers. The guest sees the
    /// frame when the ring is [`Self::publish`]ed. Without reserved buffers nothing happens.
    pub fn commit(&mut self, header: Header, head: &[u8], len: usize) {
        if self.reserved.is_empty() {
            return;
        }
        let mut room: u64 = 0;
        let all = u64::try_from(len.saturating_add(self.header_len)).unwrap_or(u64::MAX);
        let needed = self.reserved.iter().position(|chain| {
            room = room.saturating_add(chain.writable);
            room >= all
        });
        let needed = needed.map_or(self.reserved.len(), |last| last.saturating_add(1));
        let header = self.header_for(header, needed);
        let mut writer = GuestWriter::new(self.slices.all());
        writer.write(header.first(self.header_len));
        writer.write(head);
        let spare = self.reserved.len().saturating_sub(needed);
        self.ring.rewind(u16::try_from(spare).unwrap_or(0));
        self.reserved.truncate(needed);
        self.give(len);
    }

    /// Half of the buffers that the ring can have were reserved and given, as by [`Self::commit`], since it was published: a driver
    /// that is called now has made new ones available by the time the others are used up.
    #[must_use]
    pub fn has_given_half(&self) -> bool {
        self.unseen >= self.size.div_ceil(2)
    }

    /// The reserved buffers are not needed.
    #[inline]
    pub fn cancel(&mut self) {
        if !self.reserved.is_empty() {
            let count = u16::try_from(self.reserved.len()).unwrap_or(u16::MAX);
            self.ring.rewind(count);
            self.reserved.clear();
        }
    }

    /// The header of a frame in `buffers` buffers.
    fn header_for(&self, header: Header, buffers: usize) -> Header {
        header.with_buffers(u16::try_from(buffers).unwrap_or(u16::MAX))
    }

    /// Gives the reserved buffers to the guest, with a frame of `len` bytes in them.
    #[inline]
    fn give(&mut self, len: usize) {
        let mut left = u64::try_from(len.saturating_add(self.header_len)).unwrap_or(u64::MAX);
        self.unseen = self.unseen.saturating_add(self.reserved.len());
        for chain in self.reserved.drain(..) {
            let written = left.min(chain.writable);
            left = left.saturating_sub(written);
            self.ring.give(u32::try_from(written).unwrap_or(u32::MAX));
        }
    }

    /// Lets the guest see what was delivered. Says if it wants to be called.
    #[must_use]
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.is_looked_at = false;
        self.unseen = 0;
        self.ring.publish();
        self.ring.wants_call()
    }

    /// Asks to be kicked when there are more buffers; after [`Delivery::NoBuffers`], more than were too few
    /// then. True if there are already.
    #[must_use]
    pub fn enable_kicks(&mut self) -> bool {
        self.ring.enable_kicks()
    }

    /// Kicks are not needed.
    pub fn disable_kicks(&mut self) {
        self.ring.disable_kicks();
    }

    /// Where another device would begin: [`Ring::base`]. What was reserved is so no more.
    #[must_use]
    pub fn base(&mut self) -> u32 {
        self.cancel();
        self.ring.base()
    }

    /// The ring itself.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }
}

/// Puts something of `all` bytes into the next buffer, if it fits and that is one piece of memory. Gives `write` back if not.
#[inline(always)]
fn use_one<W>(
    ring: &mut impl OneByOne,
    slices: &Slices,
    all: u32,
    write: W,
    put: impl FnOnce(GuestSlice<'_>, W),
) -> Option<W> {
    let Some(vicinity) = slices.vicinity() else {
        return Some(write);
    };
    let mut both = Some((write, put));
    ring.use_each(AHEAD, |buffer, comes| {
        both.as_ref()?;
        let place = place(vicinity, buffer, comes, all)?;
        let (write, put) = both.take()?;
        put(place, write);
        Some(all)
    });
    both.map(|(write, _)| write)
}

/// The loop of [`ToGuest::deliver_run`], one for each kind of ring, by itself.
#[inline(never)]
fn use_run<'f>(
    ring: &mut impl OneByOne,
    slices: &Slices,
    header: Header,
    header_len: usize,
    mut frames: impl Iterator<Item = Result<Frame<'f>, FrameFault>>,
) -> Run {
    let mut run = Run::default();
    let Some(vicinity) = slices.vicinity() else {
        return run;
    };
    ring.use_each(AHEAD, |buffer, comes| {
        let frame = frames.next()?.ok()?;
        let all = u32::try_from(frame.len.checked_add(header_len)?).ok()?;
        if frame.len > FRAME_MAX {
            return None;
        }
        // No writer, which would be written to memory and read again.
        let place = place(vicinity, buffer, comes, all)?;
        let mut place = match header_len {
            // Known when this is compiled, it is two moves.
            HEADER_MAX => place.put(&header.0)?,
            len => {
                let written = place.copy_from(header.first(len));
                place.split_at(written).1
            }
        };
        let written = place.copy_from(frame.head);
        (_, place) = place.split_at(written);
        for slice in frame.rest {
            let written = place.copy_from_guest(*slice);
            (_, place) = place.split_at(written);
        }
        run.frames = run.frames.saturating_add(1);
        run.bytes = run.bytes.saturating_add(frame.len);
        Some(all)
    });
    run
}

/// A buffer with room for `all` bytes, if it is one piece of memory. Fetches one that comes soon: others have its lines now, and
/// to get them takes as long as some frames. That goes for all lines: whoever had the buffer may have looked at its beginning
/// alone, and its processor has fetched on.
#[inline(always)]
fn place<'m>(
    vicinity: Vicinity<'m>,
    buffer: Buffer,
    comes: Option<u64>,
    all: u32,
) -> Option<GuestSlice<'m>> {
    if !buffer.write || buffer.len < all {
        return None;
    }
    let place = vicinity.get(buffer.addr, u64::from(buffer.len))?;
    // The frame that comes there is likely to be as long as this one. A place that is not as long is not fetched.
    let fetched = u64::from(all.max(FETCHED_LEAST));
    if let Some(comes) = comes.and_then(|addr| vicinity.get(addr, fetched)) {
        comes.prefetch_to_write();
    }
    Some(place)
}

/// Why a buffer to receive into is none.
#[inline]
fn unusable(chain: &Chain) -> Option<Fault> {
    if chain.fault.is_some() {
        return chain.fault;
    }
    (chain.readable > 0 || chain.writable == 0).then_some(Fault::Direction)
}
