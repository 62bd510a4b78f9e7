//! Packets and the buffers that they are in (`struct vmpktdesc`).

use std::io::{IoSlice, IoSliceMut};

/// Room for a packet to be read. [`IoSliceMut`] has the layout of `struct iovec`.
#[derive(Debug)]
pub struct ReadPacket<'a, 'b> {
    /// Before a read, the room in bytes; after it, the length of the packet.
    pub size: usize,
    /// Where it is put, one behind the other. If they are smaller than `size`, they are the room.
    pub buffers: &'a mut [IoSliceMut<'b>],
}

impl<'a, 'b> ReadPacket<'a, 'b> {
    /// All of `buffers`.
    #[must_use]
    pub fn new(buffers: &'a mut [IoSliceMut<'b>]) -> Self {
        let size = buffers.iter().map(|buffer| buffer.len()).sum();
        Self { size, buffers }
    }
}

/// Buffers for packets to be read, whatever they look like: a slice of [`ReadPacket`], or descriptors of another language.
pub trait PacketBuffers {
    /// For how many packets there is room.
    fn count(&self) -> usize;

    /// Gives `put` the room for packet number `index` and its buffers. It answers how many bytes it has put there, or that
    /// it has put none after all, and nothing is to be noted. Answers whether there is a packet now.
    fn fill(
        &mut self,
        index: usize,
        put: impl FnOnce(usize, &mut [IoSliceMut<'_>]) -> Option<usize>,
    ) -> bool;
}

impl PacketBuffers for [ReadPacket<'_, '_>] {
    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn fill(
        &mut self,
        index: usize,
        put: impl FnOnce(usize, &mut [IoSliceMut<'_>]) -> Option<usize>,
    ) -> bool {
        let Some(packet) = self.get_mut(index) else {
            return false;
        };
        let Some(len) = put(packet.size, packet.buffers) else {
            return false;
        };
        packet.size = len;
        true
    }
}

/// A packet to be written. [`IoSlice`] has the layout of `struct iovec`.
#[derive(Debug, Clone, Copy)]
pub struct WritePacket<'a> {
    /// Its length.
    pub size: usize,
    /// Where it is; what is behind `size` bytes is left out.
    pub buffers: &'a [IoSlice<'a>],
}

impl<'a> WritePacket<'a> {
    /// All of `buffers`.
    #[must_use]
    pub fn new(buffers: &'a [IoSlice<'a>]) -> Self {
        let size = buffers.iter().map(|buffer| buffer.len()).sum();
        Self { size, buffers }
    }
}
