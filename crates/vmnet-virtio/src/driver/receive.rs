//! Frames from a device.

use super::{Buffers, Collected, DeviceError, DriverRing, MakeError, Part, Shape};
use crate::memory::{GuestSlice, OwnMemory, Slices};
use crate::net::{HEADER_MAX, Header};
use crate::ring::RingConfig;
use std::sync::atomic::{AtomicU64, Ordering};

/// The ring by which frames come from a device, and buffers for them: one for each descriptor.
///
/// The header has 12 bytes: `VIRTIO_F_VERSION_1` or `VIRTIO_NET_F_MRG_RXBUF` is taken for granted.
#[derive(Debug)]
pub struct Receive {
    ring: DriverRing,
    buffers: Buffers,
    /// What the caller looks at: buffers of the frame that came last, and their bytes.
    held: Vec<u16>,
    slices: Slices,
    /// So far has [`waiting`](Self::waiting) counted: frames, and their buffers in the low half. Who counts at the same time
    /// may leave less, which is right as well.
    counted: AtomicU64,
}

/// A frame in the buffers of the ring.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedFrame<'r> {
    /// What its sender left to others.
    pub header: Header,
    /// Its bytes, without the header.
    pub parts: &'r [GuestSlice<'r>],
    /// How many there are.
    pub len: usize,
}

impl Receive {
    /// A ring with buffers of `buffer` bytes, all of which are offered but not published: flush it.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn new(memory: &mut OwnMemory, shape: Shape, buffer: u32) -> Result<Self, MakeError> {
        let mut made = Self {
            ring: DriverRing::new(memory, shape)?,
            buffers: Buffers::new(memory, shape.size, buffer)?,
            held: Vec::with_capacity(usize::from(shape.size)),
            slices: Slices::new(std::sync::Arc::clone(memory.map())),
            counted: AtomicU64::new(0),
        };
        for which in 0..shape.size {
            made.offer(which);
        }
        Ok(made)
    }

    /// What the device has to know.
    #[must_use]
    pub fn config(&self) -> RingConfig {
        self.ring.config()
    }

    /// Where the next device has to begin: [`DriverRing::device_base`].
    #[must_use]
    pub fn device_base(&self) -> u16 {
        self.ring.device_base()
    }

    #[inline]
    fn offer(&mut self, which: u16) {
        let part = Part {
            addr: self.buffers.addr(which),
            len: self.buffers.len,
            write: true,
        };
        let offered = self.ring.offer(&[part], which);
        debug_assert!(offered, "there is a descriptor for each buffer");
    }

    /// The next frame. The buffers of the one before it are offered again.
    ///
    /// # Errors
    /// The device has broken the ring.
    #[inline]
    pub fn receive(&mut self) -> Result<Option<ReceivedFrame<'_>>, DeviceError> {
        while let Some(which) = self.held.pop() {
            self.offer(which);
        }
        self.slices.clear();
        let Some(first) = self.ring.collect()? else {
            return Ok(None);
        };
        let mut bytes = [0; HEADER_MAX];
        let mut len = self.hold(first)?;
        if let [slice, ..] = self.slices.all() {
            slice.copy_to(&mut bytes);
        }
        let header = Header(bytes);
        self.uncount(header.buffers().max(1));
        for _ in 1..header.buffers() {
            // The device publishes all buffers of a frame at once.
            let Some(more) = self.ring.collect()? else {
                return Err(DeviceError::NotOffered { id: u32::MAX });
            };
            len = len.saturating_add(self.hold(more)?);
        }
        self.slices.skip(HEADER_MAX);
        Ok(Some(ReceivedFrame {
            header,
            parts: self.slices.all(),
            len: len.saturating_sub(HEADER_MAX),
        }))
    }

    /// How many frames have come and were not received yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let counted = self.counted.load(Ordering::Relaxed);
        let (mut frames, mut ahead) = (
            usize::try_from(counted >> 32).unwrap_or(0),
            u16::try_from(counted & 0xffff_ffff).unwrap_or(0),
        );
        while let Some(which) = self.ring.peek(ahead) {
            let mut bytes = [0; HEADER_MAX];
            if let Ok(buffer) = self.buffers.get(which) {
                buffer.copy_to(&mut bytes);
            }
            ahead = ahead.saturating_add(Header(bytes).buffers().max(1));
            frames = frames.saturating_add(1);
        }
        let counted = (frames as u64) << 32 | u64::from(ahead);
        self.counted.store(counted, Ordering::Relaxed);
        frames
    }

    /// The first frame, of so many buffers, waits no more.
    #[inline]
    fn uncount(&mut self, buffers: u16) {
        let counted = self.counted.get_mut();
        let (frames, ahead) = (*counted >> 32, *counted & 0xffff_ffff);
        *counted = match (frames.checked_sub(1), ahead.checked_sub(buffers.into())) {
            (Some(frames), Some(ahead)) => frames << 32 | ahead,
            _ => 0,
        };
    }

    /// Whether a frame has come that was not received yet.
    #[inline]
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.ring.peek(0).is_some()
    }

    /// Keeps a buffer, and the slice of it that was written to.
    #[inline]
    fn hold(&mut self, collected: Collected) -> Result<usize, DeviceError> {
        let Collected { token, written } = collected;
        let room = self.buffers.len;
        self.held.push(token);
        if written > room {
            return Err(DeviceError::Length { written, room });
        }
        let pushed = self
            .slices
            .push(self.buffers.addr(token), u64::from(written));
        debug_assert!(pushed.is_ok(), "our own memory");
        Ok(usize::try_from(written).unwrap_or(0))
    }

    /// Lets the device see the buffers that were offered again. Says if it wants to be kicked.
    #[must_use]
    pub fn flush(&mut self) -> bool {
        self.ring.publish();
        self.ring.wants_kick()
    }

    /// Asks to be called when a frame comes. True if one has already.
    #[must_use]
    pub fn enable_calls(&mut self) -> bool {
        self.ring.enable_calls()
    }

    /// Calls are not needed.
    pub fn disable_calls(&mut self) {
        self.ring.disable_calls();
    }
}
