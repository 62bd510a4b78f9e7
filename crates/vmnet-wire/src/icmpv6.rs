//! ICMP for IPv6 (RFC 4443). Neighbour discovery, which it carries, is in [`crate::ndp`].

use core::net::{IpAddr, Ipv6Addr};

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ip::{self, Protocol};

/// Destination unreachable; the codes are in [`mod@unreachable`].
pub const UNREACHABLE: u8 = 1;
/// The packet is too large for the next hop: the MTU is in the header.
pub const PACKET_TOO_BIG: u8 = 2;
/// Time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// A field is not understood: its place is in the header.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Router solicitation (RFC 4861 §4.1).
pub const ROUTER_SOLICITATION: u8 = 133;
/// Router advertisement (RFC 4861 §4.2).
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Neighbour solicitation (RFC 4861 §4.3).
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// Neighbour advertisement (RFC 4861 §4.4).
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Redirect (RFC 4861 §4.5).
pub const REDIRECT: u8 = 137;

/// Codes of "destination unreachable" (RFC 4443 §3.1).
pub mod unreachable {
    /// No route to it.
    pub const NO_ROUTE: u8 = 0;
    /// Forbidden by whoever runs the network.
    pub const PROHIBITED: u8 = 1;
    /// The source is a link-local address, and the destination is not on the link.
    pub const BEYOND_SCOPE: u8 = 2;
    /// Nobody answers at that address.
    pub const ADDRESS: u8 = 3;
    /// Nobody listens at that port.
    pub const PORT: u8 = 4;
}

/// The eight bytes that every message has, or at least every one that is understood here.
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
    /// What the kind of message says it is: identifier and sequence of an echo, an MTU, a place, flags.
    pub word: U32,
}

impl Header {
    /// Bytes of the header.
    pub const LEN: usize = 8;
    /// Where the checksum stands in the header.
    pub const CHECKSUM_OFFSET: u16 = 2;

    /// A header whose checksum is still zero.
    #[must_use]
    pub fn new(kind: u8, code: u8, word: u32) -> Self {
        Self {
            kind,
            code,
            checksum: U16::ZERO,
            word: U32::new(word),
        }
    }

    /// The header of an echo request or reply, whose checksum is still zero.
    #[must_use]
    pub fn echo(kind: u8, id: u16, sequence: u16) -> Self {
        Self::new(kind, 0, u32::from(id) << 16 | u32::from(sequence))
    }

    /// The header at the start of a message; `None` if it is shorter.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<&Self> {
        Some(Self::ref_from_prefix(message).ok()?.0)
    }

    /// The identifier of an echo.
    #[must_use]
    pub fn id(&self) -> u16 {
        let [high, low, _, _] = self.word.get().to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// The sequence number of an echo.
    #[must_use]
    pub fn sequence(&self) -> u16 {
        let [_, _, high, low] = self.word.get().to_be_bytes();
        u16::from_be_bytes([high, low])
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

/// An error: a message about another packet, by the range of its type (RFC 4443 §2.1).
#[must_use]
pub fn is_error(kind: u8) -> bool {
    kind < 128
}

/// The checksum of a message whose checksum field is zero (RFC 4443 §2.3); zero for a message whose checksum is right.
#[must_use]
pub fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let (source, destination) = (IpAddr::V6(source), IpAddr::V6(destination));
    ip::pseudo_header(source, destination, Protocol::ICMPV6, message.len())
        .with(message)
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_its_checksum_sums_to_zero() {
        // A solicitation for the duplicate address detection of fe80::2.
        let (source, destination) = (
            Ipv6Addr::UNSPECIFIED,
            "ff02::1:ff00:2".parse::<Ipv6Addr>().unwrap(),
        );
        let mut message = [0; 24];
        message[0] = NEIGHBOUR_SOLICITATION;
        message[8..].copy_from_slice(&"fe80::2".parse::<Ipv6Addr>().unwrap().octets());
        let sum = checksum(source, destination, &message);
        let header = Header::read(&message).unwrap().with_checksum(sum);
        message[..8].copy_from_slice(header.as_bytes());
        assert_eq!(checksum(source, destination, &message), 0);
        message[20] ^= 1;
        assert_ne!(checksum(source, destination, &message), 0);
    }

    #[test]
    fn echo_fields() {
        let header = Header::echo(ECHO_REQUEST, 0x1234, 0x5678);
        assert_eq!((header.id(), header.sequence()), (0x1234, 0x5678));
        assert!(!is_error(header.kind) && is_error(PACKET_TOO_BIG));
    }
}
