//! Frames to a device.

use super::{Buffers, DeviceError, DriverRing, MakeError, Part, Shape};
use crate::memory::{GuestSlice, GuestWriter, OwnMemory};
use crate::ring::RingConfig;

/// A frame was not sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// The device has all buffers. [`Transmit::reclaim`] may change that.
    #[error("the device has all buffers")]
    Full,
    /// Longer than a buffer.
    #[error("a frame of {len} bytes with its header is longer than a buffer of {room}")]
    TooLong {
        /// Bytes with the header.
        len: usize,
        /// Bytes of a buffer.
        room: u32,
    },
}

/// The ring by which frames go to a device, and buffers for them: one for each descriptor.
#[derive(Debug)]
pub struct Transmit {
    ring: DriverRing,
    buffers: Buffers,
    /// Buffers that the device does not have. Those that came back last are the next: they are in the cache.
    free: Vec<u16>,
    /// Bytes in each buffer that the device has, and in all of them.
    lengths: Box<[u32]>,
    pending_bytes: usize,
}

impl Transmit {
    /// An empty ring with buffers of `buffer` bytes.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn new(memory: &mut OwnMemory, shape: Shape, buffer: u32) -> Result<Self, MakeError> {
        Ok(Self {
            ring: DriverRing::new(memory, shape)?,
            buffers: Buffers::new(memory, shape.size, buffer)?,
            free: (0..shape.size).rev().collect(),
            lengths: vec![0; usize::from(shape.size)].into_boxed_slice(),
            pending_bytes: 0,
        })
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

    /// Sends a header and a frame in pieces. The device sees it when the ring is [`Self::flush`]ed.
    ///
    /// # Errors
    /// There is no room, now or ever.
    pub fn send(&mut self, header: &[u8], frame: &[&[u8]]) -> Result<(), SendError> {
        let len = frame.iter().map(|piece| piece.len()).sum::<usize>();
        self.send_with(len.saturating_add(header.len()), |buffer| {
            let slices = [buffer];
            let mut writer = GuestWriter::new(&slices);
            writer.write(header);
            for piece in frame {
                writer.write(piece);
            }
        })
    }

    /// Sends `len` bytes, header included, which `fill` writes into the buffer given to it.
    ///
    /// # Errors
    /// There is no room, now or ever.
    #[inline]
    pub fn send_with(
        &mut self,
        len: usize,
        fill: impl FnOnce(GuestSlice<'_>),
    ) -> Result<(), SendError> {
        let room = self.buffers.len;
        let too_long = SendError::TooLong { len, room };
        let bytes = u32::try_from(len).map_err(|_| too_long)?;
        if bytes > room {
            return Err(too_long);
        }
        let which = *self.free.last().ok_or(SendError::Full)?;
        let buffer = self.buffers.get(which).map_err(|_| SendError::Full)?;
        fill(buffer.split_at(len).0);
        let part = Part {
            addr: self.buffers.addr(which),
            len: bytes,
            write: false,
        };
        if !self.ring.offer(&[part], which) {
            return Err(SendError::Full);
        }
        self.free.pop();
        if let Some(length) = self.lengths.get_mut(usize::from(which)) {
            *length = bytes;
            self.pending_bytes = self.pending_bytes.saturating_add(len);
        }
        Ok(())
    }

    /// Lets the device see what was sent. Says if it wants to be kicked.
    #[must_use]
    pub fn flush(&mut self) -> bool {
        self.ring.publish();
        self.ring.wants_kick()
    }

    /// Takes buffers back that the device is done with: how many.
    ///
    /// # Errors
    /// The device has broken the ring.
    pub fn reclaim(&mut self) -> Result<usize, DeviceError> {
        let mut count: usize = 0;
        while let Some(collected) = self.ring.collect()? {
            self.free.push(collected.token);
            let length = self.lengths.get(usize::from(collected.token)).copied();
            let bytes = usize::try_from(length.unwrap_or(0)).unwrap_or(0);
            self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
            count = count.saturating_add(1);
        }
        Ok(count)
    }

    /// How many frames could be sent now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.free.len()
    }

    /// How many frames the device has, and has not given back.
    #[must_use]
    pub fn pending(&self) -> usize {
        usize::from(self.ring.config().size).saturating_sub(self.free.len())
    }

    /// How many bytes they have, headers included.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Asks to be called when half of the buffers that the device has have come back. True if they have already, or if it has
    /// none. Who waits for room is woken less often so, and finds more.
    #[must_use]
    pub fn enable_calls_at_half(&mut self) -> bool {
        let pending = u16::try_from(self.pending()).unwrap_or(u16::MAX);
        match pending {
            0 => true,
            _ => self.ring.enable_calls_behind(pending.saturating_sub(1) / 2),
        }
    }

    /// Asks to be called when a buffer comes back. True if one has already.
    #[must_use]
    pub fn enable_calls(&mut self) -> bool {
        self.ring.enable_calls()
    }

    /// Calls are not needed.
    pub fn disable_calls(&mut self) {
        self.ring.disable_calls();
    }
}
