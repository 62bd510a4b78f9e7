//! Options of neighbour discovery (RFC 4861 §4.6, RFC 8106 §5).

use core::net::Ipv6Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ethernet::Mac;

const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const PREFIX_INFORMATION: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;
/// Lengths of options are counted in so many bytes.
const UNIT: usize = 8;

/// Options of a message, all of them within it.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a>(&'a [u8]);

/// One option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NdOption<'a> {
    /// The sender's MAC.
    Source(Mac),
    /// The target's MAC.
    Target(Mac),
    /// A prefix of the link.
    Prefix(&'a PrefixInformation),
    /// The link's MTU.
    Mtu(u32),
    /// Resolvers: how long to use them, in seconds, and their addresses.
    Rdnss(u32, &'a [[u8; 16]]),
    /// Search domains: how long to use them, in seconds, and their names in the form of DNS.
    Dnssl(u32, &'a [u8]),
    /// Another, or one of the above with a length that it cannot have.
    Other(u8),
}

impl<'a> Options<'a> {
    /// Options that fill `bytes`; `None` if one has no length or reaches beyond them (RFC 4861 §4.6).
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        while let [_, len, ..] = rest {
            if *len == 0 {
                return None;
            }
            rest = rest.get(usize::from(*len) * UNIT..)?;
        }
        rest.is_empty().then_some(Self(bytes))
    }

    /// The MAC of who sent the message.
    #[must_use]
    pub fn source(self) -> Option<Mac> {
        self.into_iter().find_map(|option| match option {
            NdOption::Source(mac) => Some(mac),
            _ => None,
        })
    }

    /// The MAC of who has the target.
    #[must_use]
    pub fn target(self) -> Option<Mac> {
        self.into_iter().find_map(|option| match option {
            NdOption::Target(mac) => Some(mac),
            _ => None,
        })
    }
}

impl<'a> IntoIterator for Options<'a> {
    type Item = NdOption<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        Iter(self.0)
    }
}

/// One option after the other.
#[derive(Clone, Debug)]
pub struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = NdOption<'a>;

    fn next(&mut self) -> Option<NdOption<'a>> {
        let [kind, len, ..] = self.0 else {
            return None;
        };
        let (option, rest) = self.0.split_at_checked(usize::from(*len) * UNIT)?;
        self.0 = rest;
        Some(read(*kind, option).unwrap_or(NdOption::Other(*kind)))
    }
}

fn read(kind: u8, option: &[u8]) -> Option<NdOption<'_>> {
    let word = |at: usize| {
        let bytes = option.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*bytes))
    };
    let mac = |option| Some(LinkLayer::ref_from_bytes(option).ok()?.mac);
    Some(match kind {
        SOURCE_LINK_LAYER => NdOption::Source(mac(option)?),
        TARGET_LINK_LAYER => NdOption::Target(mac(option)?),
        PREFIX_INFORMATION => NdOption::Prefix(PrefixInformation::ref_from_bytes(option).ok()?),
        MTU => NdOption::Mtu(word(4)?),
        RDNSS => {
            let (addresses, rest) = option.get(8..)?.as_chunks::<16>();
            if !rest.is_empty() || addresses.is_empty() {
                return None;
            }
            NdOption::Rdnss(word(4)?, addresses)
        }
        DNSSL => NdOption::Dnssl(word(4)?, option.get(8..)?),
        _ => return None,
    })
}

/// A MAC address (RFC 4861 §4.6.1).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct LinkLayer {
    kind: u8,
    len: u8,
    mac: Mac,
}

impl LinkLayer {
    /// That of who sends the message.
    #[must_use]
    pub fn source(mac: Mac) -> Self {
        Self {
            kind: SOURCE_LINK_LAYER,
            len: 1,
            mac,
        }
    }

    /// That of who has the target.
    #[must_use]
    pub fn target(mac: Mac) -> Self {
        Self {
            kind: TARGET_LINK_LAYER,
            len: 1,
            mac,
        }
    }
}

/// A prefix of the link (RFC 4861 §4.6.2).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct PrefixInformation {
    kind: u8,
    len: u8,
    prefix_len: u8,
    flags: u8,
    valid: U32,
    preferred: U32,
    reserved: U32,
    prefix: [u8; 16],
}

impl PrefixInformation {
    const ON_LINK: u8 = 0x80;
    const AUTONOMOUS: u8 = 0x40;

    /// A prefix that is on the link, and of which guests may make addresses. Lifetimes in seconds.
    #[must_use]
    pub fn new(prefix: Ipv6Addr, prefix_len: u8, valid: u32, preferred: u32) -> Self {
        Self {
            kind: PREFIX_INFORMATION,
            len: 4,
            prefix_len,
            flags: Self::ON_LINK | Self::AUTONOMOUS,
            valid: U32::new(valid),
            preferred: U32::new(preferred),
            reserved: U32::ZERO,
            prefix: prefix.octets(),
        }
    }

    /// The prefix.
    #[must_use]
    pub fn prefix(&self) -> Ipv6Addr {
        self.prefix.into()
    }

    /// Its bits.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// How long addresses of it are valid, in seconds.
    #[must_use]
    pub fn valid(&self) -> u32 {
        self.valid.get()
    }

    /// How long they are preferred to others, in seconds.
    #[must_use]
    pub fn preferred(&self) -> u32 {
        self.preferred.get()
    }

    /// All its addresses are on the link.
    #[must_use]
    pub fn is_on_link(&self) -> bool {
        self.flags & Self::ON_LINK != 0
    }

    /// Guests may make addresses of it.
    #[must_use]
    pub fn is_autonomous(&self) -> bool {
        self.flags & Self::AUTONOMOUS != 0
    }
}

/// The link's MTU (RFC 4861 §4.6.4).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Mtu {
    kind: u8,
    len: u8,
    reserved: U16,
    mtu: U32,
}

impl Mtu {
    /// An option that says so.
    #[must_use]
    pub fn new(mtu: u16) -> Self {
        Self {
            kind: MTU,
            len: 1,
            reserved: U16::ZERO,
            mtu: U32::new(u32::from(mtu)),
        }
    }
}

/// One resolver (RFC 8106 §5.1).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Rdnss {
    kind: u8,
    len: u8,
    reserved: U16,
    lifetime: U32,
    address: [u8; 16],
}

impl Rdnss {
    /// A resolver that may be used for so many seconds.
    #[must_use]
    pub fn new(lifetime: u32, address: Ipv6Addr) -> Self {
        Self {
            kind: RDNSS,
            len: 3,
            reserved: U16::ZERO,
            lifetime: U32::new(lifetime),
            address: address.octets(),
        }
    }
}

/// What stands before the names of a list of search domains (RFC 8106 §5.2).
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Dnssl {
    kind: u8,
    len: u8,
    reserved: U16,
    lifetime: U32,
}

impl Dnssl {
    /// A list that may be used for so many seconds, with `names_len` bytes of names: a multiple of 8.
    /// `None` if an option cannot be so long.
    #[must_use]
    pub fn new(lifetime: u32, names_len: usize) -> Option<Self> {
        let len = u8::try_from(names_len.div_ceil(UNIT) + 1).ok()?;
        Some(Self {
            kind: DNSSL,
            len,
            reserved: U16::ZERO,
            lifetime: U32::new(lifetime),
        })
    }
}
