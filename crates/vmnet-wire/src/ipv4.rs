//! IPv4 headers (RFC 791).

use core::net::Ipv4Addr;
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::Sum;
use crate::ip::Protocol;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Whether all of a subnet, of which this is an address, is for private use (RFC 1918 §3).
#[must_use]
pub fn is_private(address: Ipv4Addr, prefix_len: u32) -> bool {
    let block = match address.octets() {
        [10, ..] => 8,
        [172, 16..=31, ..] => 12,
        [192, 168, ..] => 16,
        _ => return false,
    };
    prefix_len >= block
}

/// The 20 bytes that every IPv4 header has.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    version_len: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    total_len: U16,
    id: U16,
    flags_offset: U16,
    /// Hops left.
    pub ttl: u8,
    protocol: u8,
    checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

/// Why bytes are no IPv4 packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Shorter than its header, or than the length that it claims.
    Short,
    /// Not version 4, or a header length below 20.
    Version,
    /// The header's checksum is wrong.
    Checksum,
}

/// What a sender chooses about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fields {
    /// Who sends it.
    pub source: Ipv4Addr,
    /// Who should get it.
    pub destination: Ipv4Addr,
    /// What it carries.
    pub protocol: Protocol,
    /// Hops it may take.
    pub ttl: u8,
    /// Names the packet among its fragments.
    pub id: u16,
    /// Routers must not cut it.
    pub dont_fragment: bool,
}

/// A packet: its header, and as much of its payload as was given.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The fixed part of the header.
    pub header: &'a Header,
    /// Bytes of header and options, 20 to 60.
    pub header_len: usize,
    /// Bytes after the header that belong to the packet; link padding is cut off.
    pub payload: &'a [u8],
    /// Length of the payload by the header; `payload` may be shorter if only a head was given.
    pub payload_len: usize,
}

impl Header {
    /// Bytes of a header without options.
    pub const LEN: usize = 20;

    /// A header without options, checksum included. `payload_len` is cut at what 16 bits hold.
    #[must_use]
    pub fn new(fields: &Fields, payload_len: usize) -> Self {
        let total = u16::try_from(payload_len.saturating_add(Self::LEN)).unwrap_or(u16::MAX);
        let flags = if fields.dont_fragment {
            DONT_FRAGMENT
        } else {
            0
        };
        let mut header = Self {
            version_len: 0x45,
            traffic_class: 0,
            total_len: U16::new(total),
            id: U16::new(fields.id),
            flags_offset: U16::new(flags),
            ttl: fields.ttl,
            protocol: fields.protocol.0,
            checksum: U16::ZERO,
            source: fields.source.octets(),
            destination: fields.destination.octets(),
        };
        header
            .checksum
            .set(Sum::new().with(header.as_bytes()).finish());
        header
    }

    /// Who sent it.
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        self.source.into()
    }

    /// Who should get it.
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        self.destination.into()
    }

    /// What it carries.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        Protocol(self.protocol)
    }

    /// Names the packet among its fragments.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.id.get()
    }

    /// Bytes of header, options and payload.
    #[must_use]
    pub fn total_len(&self) -> u16 {
        self.total_len.get()
    }

    /// Routers must not cut it.
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.flags_offset.get() & DONT_FRAGMENT != 0
    }

    /// Other fragments follow.
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.flags_offset.get() & MORE_FRAGMENTS != 0
    }

    /// Where this fragment's payload stands in the whole, in bytes.
    #[must_use]
    pub fn fragment_offset(&self) -> usize {
        usize::from(self.flags_offset.get() & OFFSET_MASK) * 8
    }

    /// One piece of a larger packet.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.flags_offset.get() & (MORE_FRAGMENTS | OFFSET_MASK) != 0
    }
}

impl<'a> Packet<'a> {
    /// Reads the head of a packet of which `len` bytes exist in all.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub fn read(head: &'a [u8], len: usize) -> Result<Self, Malformed> {
        let (header, _) = Header::ref_from_prefix(head).map_err(|_| Malformed::Short)?;
        let header_len = usize::from(header.version_len & 0x0f) * 4;
        if header.version_len >> 4 != 4 || header_len < Header::LEN {
            return Err(Malformed::Version);
        }
        let total = usize::from(header.total_len.get());
        let whole = head.get(..header_len).ok_or(Malformed::Short)?;
        if total < header_len || total > len {
            return Err(Malformed::Short);
        }
        if Sum::new().with(whole).finish() != 0 {
            return Err(Malformed::Checksum);
        }
        let payload = head.get(header_len..total.min(head.len())).unwrap_or(&[]);
        Ok(Self {
            header,
            header_len,
            payload,
            payload_len: total - header_len,
        })
    }
}

/// From whom a packet that begins so says to be, if it is IPv4 at all; nothing else of it is looked at.
#[must_use]
#[inline]
pub fn source_of(packet: &[u8]) -> Option<Ipv4Addr> {
    let (header, _) = Header::ref_from_prefix(packet).ok()?;
    Some(header.source())
}

/// Makes the header at the start of `packet` that of another length, id and place among
/// fragments, and its checksum right. Nothing happens if no header is there.
pub fn rewrite(packet: &mut [u8], total_len: usize, id: u16, fragment: Fragment) {
    let Ok((header, _)) = Header::mut_from_prefix(packet) else {
        return;
    };
    header
        .total_len
        .set(u16::try_from(total_len).unwrap_or(u16::MAX));
    header.id.set(id);
    let offset = u16::try_from(fragment.offset / 8).unwrap_or(OFFSET_MASK) & OFFSET_MASK;
    let kept = header.flags_offset.get() & DONT_FRAGMENT;
    let more = if fragment.more { MORE_FRAGMENTS } else { 0 };
    header.flags_offset.set(kept | more | offset);
    header.checksum.set(0);
    let header_len = usize::from(header.version_len & 0x0f) * 4;
    let Some(whole) = packet.get(..header_len) else {
        return;
    };
    let sum = Sum::new().with(whole).finish();
    if let Ok((header, _)) = Header::mut_from_prefix(packet) {
        header.checksum.set(sum);
    }
}

/// A place among the fragments of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fragment {
    /// Where the payload stands in the whole, in bytes: a multiple of 8.
    pub offset: usize,
    /// Others follow.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields() -> Fields {
        Fields {
            source: [192, 168, 64, 2].into(),
            destination: [10, 0, 0, 1].into(),
            protocol: Protocol::UDP,
            ttl: 64,
            id: 7,
            dont_fragment: true,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Header::new(&fields(), 4).as_bytes().to_vec();
        bytes.extend([1, 2, 3, 4, 0, 0]); // two bytes of link padding
        let packet = Packet::read(&bytes, bytes.len()).unwrap();
        assert_eq!(packet.payload, [1, 2, 3, 4]);
        assert_eq!(packet.header.source(), fields().source);
        assert!(packet.header.dont_fragment() && !packet.header.is_fragment());
        rewrite(
            &mut bytes,
            24,
            9,
            Fragment {
                offset: 16,
                more: true,
            },
        );
        let packet = Packet::read(&bytes, bytes.len()).unwrap();
        assert_eq!(
            (packet.header.id(), packet.header.fragment_offset()),
            (9, 16)
        );
        assert!(packet.header.more_fragments());
    }

    #[test]
    fn what_is_for_private_use() {
        for (octets, prefix_len, is) in [
            ([10, 0, 0, 0], 8, true),
            ([10, 255, 255, 0], 24, true),
            ([10, 0, 0, 0], 7, false),
            ([11, 0, 0, 0], 8, false),
            ([172, 15, 0, 0], 16, false),
            ([172, 16, 0, 0], 12, true),
            ([172, 31, 255, 0], 24, true),
            ([172, 32, 0, 0], 16, false),
            ([172, 16, 0, 0], 11, false),
            ([192, 168, 255, 255], 30, true),
            ([192, 168, 0, 0], 15, false),
            ([192, 169, 0, 0], 16, false),
            ([100, 64, 0, 0], 16, false),
            ([8, 8, 8, 0], 24, false),
        ] {
            assert_eq!(
                is_private(octets.into(), prefix_len),
                is,
                "{octets:?}/{prefix_len}"
            );
        }
    }

    #[test]
    fn each_fault_has_its_name() {
        let good = Header::new(&fields(), 0).as_bytes().to_vec();
        let faults: [(usize, u8, Malformed); 4] = [
            (0, 0x65, Malformed::Version),
            (0, 0x44, Malformed::Version),
            (3, 21, Malformed::Short),
            (10, 0xff, Malformed::Checksum),
        ];
        for (at, value, fault) in faults {
            let mut bytes = good.clone();
            bytes[at] = value;
            assert_eq!(Packet::read(&bytes, 20).unwrap_err(), fault, "byte {at}");
        }
        assert_eq!(Packet::read(&good[..19], 19).unwrap_err(), Malformed::Short);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80), len in 0usize..200) {
            let _ = Packet::read(&bytes, len);
            let mut bytes = bytes;
            rewrite(&mut bytes, len, 1, Fragment { offset: len, more: true });
        }
    }
}
