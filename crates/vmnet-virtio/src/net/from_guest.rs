//! The ring by which a guest sends.

use std::sync::Arc;

use super::{Burst, Features};
use crate::memory::MemoryMap;
use crate::ring::{Kind, OneByOne, Ring, RingConfig, RingError, StartError};

/// A transmit queue of a guest.
#[derive(Debug)]
pub struct FromGuest {
    ring: Ring,
    memory: Arc<MemoryMap>,
    header_len: usize,
}

impl FromGuest {
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
            memory,
            header_len: features.header_len(),
        })
    }

    /// Goes on in other memory. Bursts that were received keep the old one.
    ///
    /// # Errors
    /// The ring is not all in it; nothing has changed.
    pub fn remap(&mut self, memory: Arc<MemoryMap>) -> Result<(), StartError> {
        self.ring.remap(&memory)?;
        self.memory = memory;
        Ok(())
    }

    /// Fills `burst` with the next frames; how many. Each one, faulty or not, is to be
    /// [`Self::complete`]d when it has been dealt with.
    ///
    /// # Errors
    /// The driver has broken the ring, and no more frames come. Those in `burst` came before that.
    pub fn receive(&mut self, burst: &mut Burst) -> Result<usize, RingError> {
        burst.restart(&self.memory, self.header_len);
        if self.memory.lost() {
            return Err(self.ring.end(RingError::MemoryLost));
        }
        loop {
            // As most are.
            match self.ring.kind() {
                Some(Kind::Split(ring)) => take_ones(ring, burst),
                Some(Kind::Packed(ring)) => take_ones(ring, burst),
                None => {}
            }
            if !burst.has_room() {
                break;
            }
            match self.ring.take(burst.slices()) {
                Ok(Some(chain)) => burst.push(&chain),
                Ok(None) => break,
                Err(error) if burst.is_empty() => return Err(error),
                // The next call says it again.
                Err(_) => break,
            }
        }
        burst.copy_heads();
        Ok(burst.len())
    }

    /// The `count` oldest frames are done with: the guest gets their buffers back when this is published.
    #[inline]
    pub fn complete(&mut self, count: usize) {
        self.ring
            .give_unwritten(u16::try_from(count).unwrap_or(u16::MAX));
    }

    /// The `count` youngest frames are to be received again.
    pub fn rewind(&mut self, count: usize) {
        let count = count.min(usize::from(self.ring.taken()));
        self.ring.rewind(u16::try_from(count).unwrap_or(u16::MAX));
    }

    /// How many frames are received and not completed.
    #[must_use]
    pub fn pending(&self) -> usize {
        usize::from(self.ring.taken())
    }

    /// Lets the guest see what was completed. Says if it wants to be called.
    #[must_use]
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.ring.publish();
        self.ring.wants_call()
    }

    /// Asks to be kicked for the next frame. True if there is one already.
    #[must_use]
    pub fn enable_kicks(&mut self) -> bool {
        self.ring.enable_kicks()
    }

    /// Kicks are not needed.
    pub fn disable_kicks(&mut self) {
        self.ring.disable_kicks();
    }

    /// Where another device would begin: [`Ring::base`]. Frames that are received and not completed are to be
    /// received again.
    #[must_use]
    pub fn base(&mut self) -> u32 {
        self.ring.base()
    }

    /// The ring itself.
    #[must_use]
    pub fn ring(&self) -> &Ring {
        &self.ring
    }
}

/// Takes frames that are in one buffer each, until there is another, or no room. One loop for each kind of ring, by itself.
#[inline(never)]
fn take_ones(ring: &mut impl OneByOne, burst: &mut Burst) {
    if let Some(mut filling) = burst.filling() {
        ring.take_each(|buffer| filling.push(buffer));
    }
}
