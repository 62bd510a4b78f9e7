//! `[ADDR:]HOSTPORT[-END]:GUESTPORT[-END][/tcp|/udp]`, as podman and docker spell it.
//!
//! Without an address all addresses of the host are listened on, those of IPv4 and IPv6, as podman and docker do: `[::]`.
//! IPv6 addresses stand in brackets. Ranges have equal lengths on both sides.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use vmnet_linux::lane::Protocol;

/// What `-p` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortSpec {
    /// Where the host listens.
    pub(crate) address: IpAddr,
    /// The host's ports.
    pub(crate) host: RangeInclusive<u16>,
    /// The guest's port that the first of them leads to; the others follow in order.
    pub(crate) guest: u16,
    /// TCP or UDP.
    pub(crate) protocol: Protocol,
}

impl PortSpec {
    /// Each host address with its guest port.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (SocketAddr, u16)> + '_ {
        self.host
            .clone()
            .zip(self.guest..=u16::MAX)
            .map(|(host, guest)| (SocketAddr::new(self.address, host), guest))
    }

    /// Whether both need the same port of the host.
    pub(crate) fn clashes(&self, other: &Self) -> bool {
        let meets = |one: IpAddr, other: IpAddr| {
            // `[::]` is for IPv4 too.
            one == other || one.is_unspecified() && (one.is_ipv6() || other.is_ipv4())
        };
        self.protocol == other.protocol
            && self.host.start() <= other.host.end()
            && other.host.start() <= self.host.end()
            && (meets(self.address, other.address) || meets(other.address, self.address))
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (*self.host.start(), *self.host.end());
        write!(f, "{}", SocketAddr::new(self.address, first))?;
        if first != last {
            write!(f, "-{last}")?;
        }
        write!(f, ":{}", self.guest)?;
        if first != last {
            write!(f, "-{}", self.guest + (last - first))?;
        }
        f.write_str(match self.protocol {
            Protocol::Tcp => "/tcp",
            Protocol::Udp => "/udp",
        })
    }
}

/// What is wrong with a port specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParsePortError {
    #[error("there is no guest port: say HOSTPORT:GUESTPORT, like 8080:80")]
    NoGuestPort,
    #[error("`{0}` is no address: say an IPv4 address, or an IPv6 address in brackets")]
    Address(String),
    #[error("`{0}` is no port: ports are 1 to 65535")]
    Port(String),
    #[error("the range `{0}` ends before it begins")]
    Backwards(String),
    #[error("the ranges `{0}` and `{1}` have different lengths")]
    Lengths(String, String),
    #[error("`{0}` is no protocol: say tcp or udp")]
    Protocol(String),
}

impl FromStr for PortSpec {
    type Err = ParsePortError;

    fn from_str(text: &str) -> Result<Self, ParsePortError> {
        let (text, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some((_, other)) => return Err(ParsePortError::Protocol(other.to_owned())),
        };
        let (rest, guest) = text.rsplit_once(':').ok_or(ParsePortError::NoGuestPort)?;
        let (address, host) = split_address(rest)?;
        let host_range = range(host)?;
        let guest_range = range(guest)?;
        let length = |range: &RangeInclusive<u16>| range.end() - range.start();
        if length(&host_range) != length(&guest_range) {
            return Err(ParsePortError::Lengths(host.to_owned(), guest.to_owned()));
        }
        Ok(Self {
            address,
            host: host_range,
            guest: *guest_range.start(),
            protocol,
        })
    }
}

/// The address before the last colon, if there is one, and the ports after it.
pub(crate) fn split_address(text: &str) -> Result<(IpAddr, &str), ParsePortError> {
    if let Some(rest) = text.strip_prefix('[') {
        let bad = || ParsePortError::Address(text.to_owned());
        let (address, ports) = rest.split_once("]:").ok_or_else(bad)?;
        let address = address.parse().map(IpAddr::V6).map_err(|_| bad())?;
        return Ok((address, ports));
    }
    match text.rsplit_once(':') {
        None if text.contains('.') => Err(ParsePortError::NoGuestPort),
        None => Ok((Ipv6Addr::UNSPECIFIED.into(), text)),
        Some((address, ports)) => {
            let parsed: Ipv4Addr = address
                .parse()
                .map_err(|_| ParsePortError::Address(address.to_owned()))?;
            Ok((parsed.into(), ports))
        }
    }
}

/// `PORT` or `FIRST-LAST`.
pub(crate) fn range(text: &str) -> Result<RangeInclusive<u16>, ParsePortError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(ParsePortError::Backwards(text.to_owned()));
    }
    Ok(first..=last)
}

fn port(text: &str) -> Result<u16, ParsePortError> {
    let bad = || ParsePortError::Port(text.to_owned());
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    text.parse().ok().filter(|&port| port != 0).ok_or_else(bad)
}

#[cfg(test)]
mod tests;
