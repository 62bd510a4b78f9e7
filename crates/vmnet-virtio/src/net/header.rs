//! The header in front of each frame (virtio 1.2 §5.1.6). What it means is told by
//! [`vmnet_wire::offload::Offload`].

/// Bytes of the header with its count of buffers.
pub const HEADER_MAX: usize = 12;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;

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
    #[inline]
    pub const fn with_buffers(self, count: u16) -> Self {
        // Whole words: a header that is put together byte by byte is read again only after all writes before it.
        let [a, b, c, d, e, f, g, h, i, j, _, _] = self.0;
        let [low, high] = count.to_le_bytes();
        Self([a, b, c, d, e, f, g, h, i, j, low, high])
    }

    /// The first `len` bytes: as many as were negotiated.
    #[must_use]
    #[inline]
    pub(super) fn first(&self, len: usize) -> &[u8] {
        self.0.get(..len).unwrap_or_default()
    }

    /// Its sender leaves neither a checksum nor segmentation to others.
    #[must_use]
    #[inline]
    pub const fn leaves_nothing(&self) -> bool {
        let [flags, segmentation, ..] = self.0;
        flags & NEEDS_CSUM == 0 && segmentation == 0
    }
}
