//! The header in front of each frame (virtio 1.2 §5.1.6). What it means is told by
//! [`vmnet_wire::offload::Offload`].

/// Bytes of the header with its count of buffers.
pub const HEADER_MAX: usize = 12;

/// The header, as it is in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header(pub [u8; HEADER_MAX]);

impl Header {
    /// How many buffers the frame is in; what it means to a driver that did not negotiate
    /// `VIRTIO_NET_F_MRG_RXBUF` is 1.
    #[must_use]
    pub const fn buffers(&self) -> u16 {
        let [.., low, high] = self.0;
        u16::from_le_bytes([low, high])
    }

    /// The same header with this number of buffers.
    #[must_use]
    pub const fn with_buffers(mut self, count: u16) -> Self {
        let [.., low, high] = &mut self.0;
        [*low, *high] = count.to_le_bytes();
        self
    }
}
