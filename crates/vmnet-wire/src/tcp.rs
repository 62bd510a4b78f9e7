//! TCP headers (RFC 9293 §3.1) and the options that a NAT needs (RFC 7323 window scale, MSS).

use core::fmt;
use core::ops::{BitOr, Sub};
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A sequence number: it wraps, and is compared by distance (RFC 9293 §3.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seq(pub u32);

impl Seq {
    /// The number `count` bytes further on.
    #[must_use]
    pub const fn advance(self, count: u32) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// `self` comes before `other`.
    #[must_use]
    pub const fn before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) > u32::MAX / 2
    }

    /// `self` comes before `other`, or is the same.
    #[must_use]
    pub const fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }
}

impl Sub for Seq {
    type Output = u32;
    /// The distance from `earlier` to `self`.
    fn sub(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The control bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN echo.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced.
    pub const CWR: Self = Self(0x80);

    /// All of `other` are set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The same without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in ["F", "S", "R", "P", ".", "U", "E", "W"].iter().enumerate() {
            if self.0 & (1 << bit) != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// The 20 bytes that every TCP header has.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    source_port: U16,
    destination_port: U16,
    sequence: U32,
    acknowledgement: U32,
    data_offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

/// What a sender says in a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fields {
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// Of the first payload byte.
    pub sequence: Seq,
    /// Of the next byte that is expected.
    pub acknowledgement: Seq,
    /// The control bits.
    pub flags: Flags,
    /// Not yet scaled.
    pub window: u16,
}

/// A segment: its header, options, and as much of the payload as was given.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The fields.
    pub fields: Fields,
    /// Bytes of header and options, 20 to 60.
    pub header_len: usize,
    /// The bytes of the options.
    pub options: &'a [u8],
}

impl Header {
    /// Bytes of a header without options.
    pub const LEN: usize = 20;
    /// Where the checksum stands in the header.
    pub const CHECKSUM_OFFSET: u16 = 16;

    /// A header followed by `options_len` bytes of options: a multiple of 4, at most 40.
    #[must_use]
    pub fn new(fields: &Fields, options_len: usize, checksum: u16) -> Self {
        let words = u8::try_from((Self::LEN + options_len) / 4)
            .unwrap_or(15)
            .min(15);
        Self {
            source_port: U16::new(fields.source_port),
            destination_port: U16::new(fields.destination_port),
            sequence: U32::new(fields.sequence.0),
            acknowledgement: U32::new(fields.acknowledgement.0),
            data_offset: words << 4,
            flags: fields.flags.0,
            window: U16::new(fields.window),
            checksum: U16::new(checksum),
            urgent: U16::ZERO,
        }
    }

    /// Of the first payload byte.
    #[must_use]
    pub fn sequence(&self) -> Seq {
        Seq(self.sequence.get())
    }

    /// The control bits.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags(self.flags)
    }

    /// Bytes of header and options as the header claims.
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// Another sequence number, other flags and another checksum.
    pub fn set(&mut self, sequence: Seq, flags: Flags, checksum: u16) {
        self.sequence.set(sequence.0);
        self.flags = flags.0;
        self.checksum.set(checksum);
    }
}

impl<'a> Segment<'a> {
    /// The segment at the start of a packet's payload; `None` if its header is cut or impossible.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, _) = Header::ref_from_prefix(bytes).ok()?;
        let header_len = header.header_len();
        let options = bytes.get(Header::LEN..header_len)?;
        Some(Self {
            fields: Fields {
                source_port: header.source_port.get(),
                destination_port: header.destination_port.get(),
                sequence: header.sequence(),
                acknowledgement: Seq(header.acknowledgement.get()),
                flags: header.flags(),
                window: header.window.get(),
            },
            header_len,
            options,
        })
    }

    /// The options of a SYN.
    #[must_use]
    pub fn syn_options(&self) -> SynOptions {
        SynOptions::read(self.options)
    }
}

/// The options of a SYN that we understand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SynOptions {
    /// The largest payload that the sender takes (RFC 9293 §3.7.1).
    pub mss: Option<u16>,
    /// The shift of the sender's window, at most 14 (RFC 7323 §2).
    pub window_scale: Option<u8>,
}

impl SynOptions {
    fn read(mut options: &[u8]) -> Self {
        let mut found = Self::default();
        loop {
            options = match options {
                [] | [0, ..] => return found,
                [1, rest @ ..] => rest,
                [2, 4, high, low, rest @ ..] => {
                    found.mss = Some(u16::from_be_bytes([*high, *low]));
                    rest
                }
                [3, 3, shift, rest @ ..] => {
                    found.window_scale = Some((*shift).min(14));
                    rest
                }
                [_, len, ..] if *len >= 2 => match options.get(usize::from(*len)..) {
                    Some(rest) => rest,
                    None => return found,
                },
                _ => return found,
            };
        }
    }

    /// The options as eight bytes: MSS, a NOP, window scale; or four when there is no scale.
    #[must_use]
    pub fn write(self) -> ([u8; 8], usize) {
        let [high, low] = self.mss.unwrap_or(536).to_be_bytes();
        match self.window_scale {
            Some(shift) => ([2, 4, high, low, 1, 3, 3, shift], 8),
            None => ([2, 4, high, low, 0, 0, 0, 0], 4),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sequence_numbers_wrap() {
        let near_end = Seq(u32::MAX - 1);
        assert!(near_end.before(near_end.advance(5)));
        assert_eq!(near_end.advance(5) - near_end, 5);
        assert!(!near_end.before(near_end) && near_end.at_or_before(near_end));
    }

    #[test]
    fn options_in_any_company() {
        let with_timestamp = [
            2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
        ];
        let found = SynOptions::read(&with_timestamp);
        assert_eq!(
            found,
            SynOptions {
                mss: Some(1460),
                window_scale: Some(7)
            }
        );
        assert_eq!(
            SynOptions::read(&[8, 0, 2, 4, 5, 180]),
            SynOptions::default()
        );
        assert_eq!(SynOptions::read(&[8, 200]), SynOptions::default());
        assert_eq!(SynOptions::read(&[3, 3, 77]).window_scale, Some(14));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(segment) = Segment::read(&bytes) {
                let _ = segment.syn_options();
            }
        }

        #[test]
        fn options_round_trip(mss: u16, scale in proptest::option::of(0u8..15)) {
            let options = SynOptions { mss: Some(mss), window_scale: scale };
            let (bytes, len) = options.write();
            prop_assert_eq!(SynOptions::read(&bytes[..len]), options);
        }
    }
}
