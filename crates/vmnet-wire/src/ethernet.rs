//! Ethernet II frames (IEEE 802.3 §3).

use core::fmt;
use core::str::FromStr;
use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A 48-bit Ethernet address, in the order of the wire.
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Default,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`, every station of the network.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zero: no address.
    pub const ZERO: Self = Self([0; 6]);

    /// The group bit: multicast or broadcast.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// One station: neither a group address nor all zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not six pairs of hexadecimal digits with colons between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MAC address is six pairs of hexadecimal digits, like 52:54:00:12:34:56")
    }
}

impl core::error::Error for ParseMacError {}

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().ok_or(ParseMacError)?;
            if part.is_empty() || part.len() > 2 || part.starts_with('+') {
                return Err(ParseMacError);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| ParseMacError)?;
        }
        if parts.next().is_some() {
            return Err(ParseMacError);
        }
        Ok(Self(bytes))
    }
}

/// The type of what a frame carries (IEEE 802 EtherType).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct EtherType(pub u16);

impl EtherType {
    /// IPv4, RFC 894.
    pub const IPV4: Self = Self(0x0800);
    /// ARP, RFC 826.
    pub const ARP: Self = Self(0x0806);
    /// IPv6, RFC 2464.
    pub const IPV6: Self = Self(0x86dd);
    /// 802.1Q tag.
    pub const VLAN: Self = Self(0x8100);
    /// 802.1ad service tag.
    pub const SERVICE_VLAN: Self = Self(0x88a8);
}

/// VLAN tags of one frame that are looked behind.
const TAGS_MAX: usize = 4;

/// What a frame carries behind its VLAN tags, and where that begins: at [`Header::LEN`] if it has none. A frame of more than four
/// tags carries one. `None`: it ends before that.
#[must_use]
#[inline]
pub fn behind_tags(frame: &[u8]) -> Option<(EtherType, usize)> {
    let (header, _) = Header::read(frame)?;
    match header.ether_type() {
        tag @ (EtherType::VLAN | EtherType::SERVICE_VLAN) => skip_tags(frame, tag),
        ether_type => Some((ether_type, Header::LEN)),
    }
}

fn skip_tags(frame: &[u8], first: EtherType) -> Option<(EtherType, usize)> {
    let (mut ether_type, mut at) = (first, Header::LEN);
    for _ in 0..TAGS_MAX {
        if ether_type != EtherType::VLAN && ether_type != EtherType::SERVICE_VLAN {
            break;
        }
        let [_, _, high, low, ..] = frame.get(at..)? else {
            return None;
        };
        ether_type = EtherType(u16::from_be_bytes([*high, *low]));
        at += 4;
    }
    Some((ether_type, at))
}

/// The 14 bytes before every packet.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Header {
    /// Who should take the frame.
    pub destination: Mac,
    /// Who sent it.
    pub source: Mac,
    /// EtherType, big-endian on the wire.
    pub ether_type: U16,
}

impl Header {
    /// Bytes of the header.
    pub const LEN: usize = 14;

    /// A header from its fields.
    #[must_use]
    pub fn new(destination: Mac, source: Mac, ether_type: EtherType) -> Self {
        Self {
            destination,
            source,
            ether_type: U16::new(ether_type.0),
        }
    }

    /// The header at the start of `frame`, and what follows it; `None` if the frame is shorter.
    #[must_use]
    pub fn read(frame: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(frame).ok()
    }

    /// What the frame carries.
    #[must_use]
    pub fn ether_type(&self) -> EtherType {
        EtherType(self.ether_type.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_text_round_trip() {
        let mac: Mac = "52:54:00:12:34:56".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:12:34:56");
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "5g:54:00:12:34:56",
            "+5:54:00:12:34:56",
            "525:4:00:12:34:56",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(ParseMacError), "{bad}");
        }
    }

    #[test]
    fn short_frames_have_no_header() {
        assert!(Header::read(&[0; 13]).is_none());
        assert!(Header::read(&[0; 14]).is_some());
    }
}
