//! What both families of IP share.

use core::net::IpAddr;

use crate::checksum::Sum;

/// The number of the protocol that a packet carries (IANA).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4, RFC 792.
    pub const ICMPV4: Self = Self(1);
    /// IGMP.
    pub const IGMP: Self = Self(2);
    /// TCP, RFC 9293.
    pub const TCP: Self = Self(6);
    /// UDP, RFC 768.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6, RFC 4443.
    pub const ICMPV6: Self = Self(58);

    /// Hop-by-hop options, an extension header of IPv6 (RFC 8200 §4.3).
    pub const HOP_BY_HOP: Self = Self(0);
    /// A routing header (RFC 8200 §4.4).
    pub const ROUTING: Self = Self(43);
    /// A fragment header (RFC 8200 §4.5).
    pub const FRAGMENT: Self = Self(44);
    /// An authentication header (RFC 4302).
    pub const AUTHENTICATION: Self = Self(51);
    /// Destination options (RFC 8200 §4.6).
    pub const DESTINATION_OPTIONS: Self = Self(60);
    /// A mobility header (RFC 6275).
    pub const MOBILITY: Self = Self(135);
    /// The host identity protocol (RFC 7401).
    pub const HIP: Self = Self(139);
    /// Shim6 (RFC 5533).
    pub const SHIM6: Self = Self(140);
}

/// The part of the transport checksum that does not depend on the payload
/// (RFC 9293 §3.1, RFC 768, RFC 8200 §8.1). `len` is that of transport header and payload.
#[must_use]
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: Protocol, len: usize) -> Sum {
    let sum = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Sum::new()
            .with(&source.octets())
            .with(&destination.octets()),
        (source, destination) => Sum::new()
            .with(&ipv6(source).octets())
            .with(&ipv6(destination).octets()),
    };
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    sum.with(&len.to_be_bytes()).with_u16(u16::from(protocol.0))
}

fn ipv6(address: IpAddr) -> core::net::Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
