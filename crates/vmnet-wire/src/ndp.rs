//! Neighbour discovery: solicitations and advertisements of neighbours and routers (RFC 4861 §4), with the options for
//! resolvers and search domains (RFC 8106 §5).
//!
//! The checks that need the IPv6 header (hop limit 255, the source) are the receiver's. Redirects are not read.

use core::net::Ipv6Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ethernet::Mac;
use crate::icmpv6::{self, Header};

mod option;
pub use option::{Dnssl, LinkLayer, Mtu, NdOption, Options, PrefixInformation, Rdnss};

/// The hop limit of every message: nobody off the link can have sent it (RFC 4861 §3.1).
pub const HOP_LIMIT: u8 = 255;

/// Flags of a neighbour advertisement: its sender is a router.
pub const ROUTER: u32 = 1 << 31;
/// It answers a solicitation.
pub const SOLICITED: u32 = 1 << 30;
/// It is to replace what is known.
pub const OVERRIDE: u32 = 1 << 29;

/// A message of neighbour discovery.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// Who are the routers?
    RouterSolicitation {
        /// May name the sender's MAC.
        options: Options<'a>,
    },
    /// I am a router.
    RouterAdvertisement {
        /// Flags and lifetimes.
        head: RouterHead,
        /// Prefixes, resolvers and the like.
        options: Options<'a>,
    },
    /// Who has the target? Without a source: does anybody (RFC 4862 §5.4)?
    NeighbourSolicitation {
        /// The address in question.
        target: Ipv6Addr,
        /// May name the sender's MAC.
        options: Options<'a>,
    },
    /// I have the target.
    NeighbourAdvertisement {
        /// [`ROUTER`], [`SOLICITED`], [`OVERRIDE`].
        flags: u32,
        /// The address in question.
        target: Ipv6Addr,
        /// May name its MAC.
        options: Options<'a>,
    },
}

impl<'a> Message<'a> {
    /// Reads an ICMPv6 message; `None` if it is none of neighbour discovery, or malformed (RFC 4861 §6.1, §7.1).
    #[must_use]
    pub fn read(message: &'a [u8]) -> Option<Self> {
        let (header, rest) = Header::ref_from_prefix(message).ok()?;
        if header.code != 0 {
            return None;
        }
        match header.kind {
            icmpv6::ROUTER_SOLICITATION => Some(Self::RouterSolicitation {
                options: Options::read(rest)?,
            }),
            icmpv6::ROUTER_ADVERTISEMENT => {
                let (head, options) = RouterHead::read_from_prefix(message).ok()?;
                let options = Options::read(options)?;
                Some(Self::RouterAdvertisement { head, options })
            }
            icmpv6::NEIGHBOUR_SOLICITATION | icmpv6::NEIGHBOUR_ADVERTISEMENT => {
                let (target, rest) = rest.split_first_chunk::<16>()?;
                let target = Ipv6Addr::from(*target);
                if target.is_multicast() {
                    return None;
                }
                let options = Options::read(rest)?;
                Some(if header.kind == icmpv6::NEIGHBOUR_SOLICITATION {
                    Self::NeighbourSolicitation { target, options }
                } else {
                    let flags = header.word.get();
                    Self::NeighbourAdvertisement {
                        flags,
                        target,
                        options,
                    }
                })
            }
            _ => None,
        }
    }

    /// The options.
    #[must_use]
    pub fn options(&self) -> Options<'a> {
        match self {
            Self::RouterSolicitation { options }
            | Self::RouterAdvertisement { options, .. }
            | Self::NeighbourSolicitation { options, .. }
            | Self::NeighbourAdvertisement { options, .. } => *options,
        }
    }
}

/// A kind of ICMPv6 message that is one of neighbour discovery, redirects among them.
#[must_use]
pub fn is_ndp(kind: u8) -> bool {
    (icmpv6::ROUTER_SOLICITATION..=icmpv6::REDIRECT).contains(&kind)
}

/// The 16 bytes before the options of a router advertisement.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RouterHead {
    kind: u8,
    code: u8,
    checksum: U16,
    hop_limit: u8,
    flags: u8,
    lifetime: U16,
    reachable: U32,
    retransmit: U32,
}

impl RouterHead {
    const MANAGED: u8 = 0x80;
    const OTHER: u8 = 0x40;

    /// A head whose checksum is still zero. `lifetime` is that of the router, in seconds; zero: it is no way out.
    /// `managed`: addresses, `other`: other things are given by DHCPv6.
    #[must_use]
    pub fn new(hop_limit: u8, lifetime: u16, managed: bool, other: bool) -> Self {
        let managed = if managed { Self::MANAGED } else { 0 };
        let other = if other { Self::OTHER } else { 0 };
        Self {
            kind: icmpv6::ROUTER_ADVERTISEMENT,
            code: 0,
            checksum: U16::ZERO,
            hop_limit,
            flags: managed | other,
            lifetime: U16::new(lifetime),
            reachable: U32::ZERO,
            retransmit: U32::ZERO,
        }
    }

    /// How long the router is a way out, in seconds.
    #[must_use]
    pub fn lifetime(&self) -> u16 {
        self.lifetime.get()
    }

    /// The hop limit that guests are to use; zero: nothing is said.
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// Addresses are given by DHCPv6.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.flags & Self::MANAGED != 0
    }

    /// Other things are given by DHCPv6.
    #[must_use]
    pub fn has_other(&self) -> bool {
        self.flags & Self::OTHER != 0
    }
}

/// A neighbour solicitation or advertisement with one option, the sender's own MAC: 32 bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Neighbour {
    header: Header,
    target: [u8; 16],
    option: LinkLayer,
}

impl Neighbour {
    /// Asks who has `target`, on behalf of who is at `mac`. The checksum is still zero.
    #[must_use]
    pub fn solicitation(target: Ipv6Addr, mac: Mac) -> Self {
        Self {
            header: Header::new(icmpv6::NEIGHBOUR_SOLICITATION, 0, 0),
            target: target.octets(),
            option: LinkLayer::source(mac),
        }
    }

    /// Tells that `target` is at `mac`. The checksum is still zero.
    #[must_use]
    pub fn advertisement(flags: u32, target: Ipv6Addr, mac: Mac) -> Self {
        Self {
            header: Header::new(icmpv6::NEIGHBOUR_ADVERTISEMENT, 0, flags),
            target: target.octets(),
            option: LinkLayer::target(mac),
        }
    }

    /// The same with the checksum of a message between these two.
    #[must_use]
    pub fn between(mut self, source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        let sum = icmpv6::checksum(source, destination, self.as_bytes());
        self.header = self.header.with_checksum(sum);
        self
    }
}

/// The group that who has `address` listens to (RFC 4291 §2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The MAC address of a group (RFC 2464 §7).
#[must_use]
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// The link-local address that a station makes of its MAC (RFC 4291 appendix A, RFC 2464 §5).
#[must_use]
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ])
}

#[cfg(test)]
mod tests;
