//! ICMP for IPv4 (RFC 792, RFC 1191).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Destination unreachable; the codes are in [`mod@unreachable`].
pub const UNREACHABLE: u8 = 3;
/// Echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Time exceeded.
pub const TIME_EXCEEDED: u8 = 11;

/// Codes of "destination unreachable".
pub mod unreachable {
    /// No route to the network.
    pub const NETWORK: u8 = 0;
    /// Nobody answers at that address.
    pub const HOST: u8 = 1;
    /// Nobody listens at that port.
    pub const PORT: u8 = 3;
    /// The packet is too large and must not be cut (RFC 1191): the MTU is in the header.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Forbidden by whoever runs the network (RFC 1812 §5.2.7.1).
    pub const PROHIBITED: u8 = 13;
}

/// The eight bytes that every message has.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// The kind of message.
    pub kind: u8,
    /// The kind within the kind.
    pub code: u8,
    checksum: U16,
    /// Identifier of an echo; unused in errors.
    pub id: U16,
    /// Sequence number of an echo; the next hop's MTU in "fragmentation needed".
    pub sequence: U16,
}

impl Header {
    /// Bytes of the header.
    pub const LEN: usize = 8;

    /// A header whose checksum is still zero.
    #[must_use]
    pub fn new(kind: u8, code: u8, id: u16, sequence: u16) -> Self {
        Self {
            kind,
            code,
            checksum: U16::ZERO,
            id: U16::new(id),
            sequence: U16::new(sequence),
        }
    }

    /// The header at the start of a message; `None` if it is shorter.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<&Self> {
        Some(Self::ref_from_prefix(message).ok()?.0)
    }

    /// The message's checksum.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// The same with another checksum.
    #[must_use]
    pub fn with_checksum(mut self, checksum: u16) -> Self {
        self.checksum.set(checksum);
        self
    }
}
