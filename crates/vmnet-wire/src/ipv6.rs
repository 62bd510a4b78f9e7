//! IPv6 headers (RFC 8200): the fixed header. Extension headers are not walked here.

use core::net::Ipv6Addr;
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ip::Protocol;

/// The 40 bytes of the fixed header.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    version_class_label: U32,
    payload_len: U16,
    next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

impl Header {
    /// Bytes of the header.
    pub const LEN: usize = 40;

    /// A header from its fields. `payload_len` is cut at what 16 bits hold.
    #[must_use]
    pub fn new(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        next_header: Protocol,
        hop_limit: u8,
        payload_len: usize,
    ) -> Self {
        Self {
            version_class_label: U32::new(6 << 28),
            payload_len: U16::new(u16::try_from(payload_len).unwrap_or(u16::MAX)),
            next_header: next_header.0,
            hop_limit,
            source: source.octets(),
            destination: destination.octets(),
        }
    }

    /// The header of a packet; `None` if it is short or of another version.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<&Self> {
        let (header, _) = Self::ref_from_prefix(packet).ok()?;
        (header.version_class_label.get() >> 28 == 6).then_some(header)
    }

    /// Who sent it.
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        self.source.into()
    }

    /// Who should get it.
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        self.destination.into()
    }

    /// What follows: a protocol or an extension header.
    #[must_use]
    pub fn next_header(&self) -> Protocol {
        Protocol(self.next_header)
    }

    /// Bytes after this header.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        usize::from(self.payload_len.get())
    }

    /// Another payload length, cut at what 16 bits hold.
    pub fn set_payload_len(&mut self, len: usize) {
        self.payload_len.set(u16::try_from(len).unwrap_or(u16::MAX));
    }
}
