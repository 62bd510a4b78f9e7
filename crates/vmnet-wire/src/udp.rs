//! UDP headers (RFC 768).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The eight bytes before a datagram.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    source_port: U16,
    destination_port: U16,
    len: U16,
    checksum: U16,
}

impl Header {
    /// Bytes of the header.
    pub const LEN: usize = 8;
    /// Where the checksum stands in the header.
    pub const CHECKSUM_OFFSET: u16 = 6;

    /// A header for `payload_len` bytes. The length is cut at what 16 bits hold.
    #[must_use]
    pub fn new(source_port: u16, destination_port: u16, payload_len: usize, checksum: u16) -> Self {
        let len = u16::try_from(payload_len.saturating_add(Self::LEN)).unwrap_or(u16::MAX);
        Self {
            source_port: U16::new(source_port),
            destination_port: U16::new(destination_port),
            len: U16::new(len),
            checksum: U16::new(checksum),
        }
    }

    /// The header at the start of a packet's payload; `None` if it is shorter.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(bytes).ok()
    }

    /// The sender's port.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        self.source_port.get()
    }

    /// The receiver's port.
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        self.destination_port.get()
    }

    /// Bytes of header and payload.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len.get())
    }

    /// The length claims less than a header.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() <= Self::LEN
    }

    /// The checksum; zero means that there is none.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// Another payload length and checksum.
    pub fn set(&mut self, payload_len: usize, checksum: u16) {
        *self = Self::new(
            self.source_port(),
            self.destination_port(),
            payload_len,
            checksum,
        );
    }
}
