//! IPv6 headers (RFC 8200): the fixed header, and the chain of extension headers behind it.
//!
//! The chain is walked as far as the bytes at hand reach, and no further than [`CHAIN_MAX`] headers. Options are looked at
//! only as far as RFC 8200 §4.2 asks of a node that knows none but padding and the router alert (RFC 2711).

use core::net::Ipv6Addr;
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ip::Protocol;

mod chain;
pub use chain::{Fragment, FragmentHeader, Problem, Told};

/// Extension headers of one packet that are walked. RFC 8200 §4.1 names seven places for one.
pub const CHAIN_MAX: usize = 8;

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

    /// Something else follows.
    pub fn set_next_header(&mut self, next_header: Protocol) {
        self.next_header = next_header.0;
    }
}

/// Why bytes are no IPv6 packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Shorter than its header, or than the length that it claims.
    Short,
    /// Not version 6.
    Version,
    /// The chain of extension headers has no end in the bytes at hand, is longer than [`CHAIN_MAX`], or cuts a fragment
    /// anew.
    Chain,
}

/// A packet: its headers, and as much of what follows them as was given.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The fixed header.
    pub header: &'a Header,
    /// What follows all headers. In a fragment that is not the first, what its fragment header says.
    pub protocol: Protocol,
    /// Bytes of the fixed header and of all extension headers; in a fragment that is not the first, to the end of its
    /// fragment header.
    pub header_len: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
    /// What a receiver must not pass over.
    pub problem: Option<Problem>,
    /// Bytes after the headers that belong to the packet; link padding is cut off.
    pub payload: &'a [u8],
    /// Length of the payload by the header; `payload` may be shorter if only a head was given.
    pub payload_len: usize,
}

impl<'a> Packet<'a> {
    /// Reads the head of a packet of which `len` bytes exist in all.
    ///
    /// # Errors
    /// What is wrong with the headers.
    pub fn read(head: &'a [u8], len: usize) -> Result<Self, Malformed> {
        let (header, _) = Header::ref_from_prefix(head).map_err(|_| Malformed::Short)?;
        if header.version_class_label.get() >> 28 != 6 {
            return Err(Malformed::Version);
        }
        let end = Header::LEN + header.payload_len();
        if end > len {
            return Err(Malformed::Short);
        }
        let bytes = head.get(..end).unwrap_or(head);
        let chain = chain::walk(bytes, header.next_header())?;
        Ok(Self {
            header,
            protocol: chain.protocol,
            header_len: chain.end,
            fragment: chain.fragment,
            problem: chain.problem,
            payload: bytes.get(chain.end..).unwrap_or(&[]),
            payload_len: end.checked_sub(chain.end).ok_or(Malformed::Chain)?,
        })
    }

    /// One piece of a larger packet. A fragment header that says that it is all there is makes none (RFC 6946).
    #[must_use]
    pub fn piece(&self) -> Option<Fragment> {
        self.fragment
            .filter(|fragment| fragment.offset > 0 || fragment.more)
    }
}

#[cfg(test)]
mod tests;
