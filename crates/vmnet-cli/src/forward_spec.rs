//! What `vmnet forward` reads: `[ADDR:]PORT[-END]:GUEST:PORT[-END][/tcp|/udp]`, and the same without a guest.
//!
//! The guest is an address, a MAC or a name. IPv6 addresses stand in brackets; a MAC may stand in them and needs none.

use crate::identity::GuestName;
use crate::port_spec::{self, ParsePortError};
use openvmnet::service::{Forward, ForwardRule, Guest, Protocol};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use vmnet_wire::ethernet::Mac;

/// The length of a MAC as text.
const MAC_LENGTH: usize = 17;

/// Ports of the host, and where they lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForwardSpec {
    address: IpAddr,
    host: RangeInclusive<u16>,
    guest: Guest,
    guest_port: u16,
    protocol: Protocol,
}

/// Ports of the host, by which a rule is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPorts {
    address: Option<IpAddr>,
    ports: RangeInclusive<u16>,
    protocol: Protocol,
}

/// `PORT` or `FIRST-LAST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortRange(pub(crate) RangeInclusive<u16>);

/// A text is no forward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseForwardError {
    #[error("say [ADDR:]PORT:GUEST:PORT, like 8080:web:80 or 127.0.0.1:2222:192.168.64.10:22/tcp")]
    Form,
    #[error(
        "`{0}` is no guest: say its IPv4 address, its IPv6 address in brackets, its MAC, or its name, which is letters, digits and hyphens without a domain"
    )]
    Guest(String),
    #[error(transparent)]
    Port(#[from] ParsePortError),
}

/// A rule that leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing is left of {0} without the ports of --except")]
pub(crate) struct NothingLeft(String);

impl ForwardSpec {
    /// The rule, without these ports of the host.
    pub(crate) fn rule(&self, except: &[PortRange]) -> Result<ForwardRule, NothingLeft> {
        let is_left_out = |port: &u16| except.iter().any(|range| range.0.contains(port));
        let left_out: Vec<u16> = self.host.clone().filter(is_left_out).collect();
        if left_out.len() == self.host.len() {
            return Err(NothingLeft(ports(&self.host)));
        }
        Ok(ForwardRule {
            protocol: self.protocol,
            address: self.address.to_string(),
            first: *self.host.start(),
            last: *self.host.end(),
            except: left_out,
            guest: self.guest.clone(),
            guest_port: self.guest_port,
        })
    }

    /// Whether any of these ports is one of the rule's.
    pub(crate) fn meets(&self, range: &PortRange) -> bool {
        self.host.start() <= range.0.end() && range.0.start() <= self.host.end()
    }
}

impl FromStr for ForwardSpec {
    type Err = ParseForwardError;

    fn from_str(text: &str) -> Result<Self, ParseForwardError> {
        let (text, protocol) = split_protocol(text)?;
        let (rest, guest_ports) = text.rsplit_once(':').ok_or(ParseForwardError::Form)?;
        let (listen, guest) = split_guest(rest)?;
        let (address, host) = port_spec::split_address(listen)?;
        let host_range = port_spec::range(host)?;
        let guest_range = port_spec::range(guest_ports)?;
        if host_range.len() != guest_range.len() {
            let (host, guest) = (host.to_owned(), guest_ports.to_owned());
            return Err(ParsePortError::Lengths(host, guest).into());
        }
        Ok(Self {
            address,
            host: host_range,
            guest: self::guest(guest)?,
            guest_port: *guest_range.start(),
            protocol,
        })
    }
}

impl FromStr for HostPorts {
    type Err = ParsePortError;

    fn from_str(text: &str) -> Result<Self, ParsePortError> {
        let (text, protocol) = split_protocol(text)?;
        if !text.contains([':', '.']) {
            return Ok(Self {
                address: None,
                ports: port_spec::range(text)?,
                protocol,
            });
        }
        let (address, ports) = port_spec::split_address(text)?;
        Ok(Self {
            address: Some(address),
            ports: port_spec::range(ports)?,
            protocol,
        })
    }
}

impl HostPorts {
    /// Whether a rule is for exactly these.
    pub(crate) fn is(&self, rule: &ForwardRule) -> bool {
        (rule.first, rule.last) == (*self.ports.start(), *self.ports.end()) && self.concerns(rule)
    }

    /// Whether a rule has any of these.
    pub(crate) fn meets(&self, rule: &ForwardRule) -> bool {
        rule.first <= *self.ports.end() && *self.ports.start() <= rule.last && self.concerns(rule)
    }

    fn concerns(&self, rule: &ForwardRule) -> bool {
        let same_address = |address: IpAddr| rule.address.parse() == Ok(address);
        rule.protocol == self.protocol && self.address.is_none_or(same_address)
    }
}

impl FromStr for PortRange {
    type Err = ParsePortError;

    fn from_str(text: &str) -> Result<Self, ParsePortError> {
        port_spec::range(text).map(Self)
    }
}

fn split_protocol(text: &str) -> Result<(&str, Protocol), ParsePortError> {
    match text.rsplit_once('/') {
        None => Ok((text, Protocol::Tcp)),
        Some((rest, "tcp")) => Ok((rest, Protocol::Tcp)),
        Some((rest, "udp")) => Ok((rest, Protocol::Udp)),
        Some((_, other)) => Err(ParsePortError::Protocol(other.to_owned())),
    }
}

/// Where the host listens, and the guest behind it.
fn split_guest(text: &str) -> Result<(&str, &str), ParseForwardError> {
    if text.ends_with(']') {
        // The brackets stay: they tell an IPv6 address from all else.
        let at = text.rfind(":[").ok_or(ParseForwardError::Form)?;
        let (listen, guest) = text.split_at(at);
        return Ok((listen, guest.strip_prefix(':').unwrap_or(guest)));
    }
    if let Some(at) = text.len().checked_sub(MAC_LENGTH)
        && let Some((before, mac)) = text.split_at_checked(at)
        && mac.contains(':')
        && mac.parse::<Mac>().is_ok()
    {
        let listen = before.strip_suffix(':').ok_or(ParseForwardError::Form)?;
        return Ok((listen, mac));
    }
    text.rsplit_once(':').ok_or(ParseForwardError::Form)
}

fn guest(text: &str) -> Result<Guest, ParseForwardError> {
    let mut guest = Guest {
        address: None,
        mac: None,
        name: None,
        interface: None,
    };
    let inside = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        guest.address = Some(address.to_string());
    } else if let Some(address) = inside.and_then(|text| text.parse::<Ipv6Addr>().ok()) {
        guest.address = Some(address.to_string());
    } else if text.contains(':')
        && let Ok(mac) = inside.unwrap_or(text).parse::<Mac>()
    {
        guest.mac = Some(mac.to_string());
    } else if let Ok(name) = text.parse::<GuestName>()
        && !text.bytes().all(|byte| byte.is_ascii_digit())
    {
        // A number would be a port in the wrong place.
        guest.name = Some(name.to_string());
    } else {
        return Err(ParseForwardError::Guest(text.to_owned()));
    }
    Ok(guest)
}

/// `PORT` or `FIRST-LAST`.
fn ports(range: &RangeInclusive<u16>) -> String {
    let (first, last) = (range.start(), range.end());
    if first == last {
        return first.to_string();
    }
    format!("{first}-{last}")
}

/// Where the host listens, as [`HostPorts`] reads it but for the protocol.
pub(crate) fn listen(rule: &ForwardRule) -> String {
    let ports = ports(&(rule.first..=rule.last));
    if rule.address.contains(':') {
        return format!("[{}]:{ports}", rule.address);
    }
    format!("{}:{ports}", rule.address)
}

/// The guest and its ports.
pub(crate) fn target(rule: &ForwardRule) -> String {
    let last = rule
        .guest_port
        .saturating_add(rule.last.saturating_sub(rule.first));
    let ports = ports(&(rule.guest_port..=last));
    let guest = &rule.guest;
    if let Some(address) = guest.address.as_ref().filter(|one| one.contains(':')) {
        return format!("[{address}]:{ports}");
    }
    if let Some(known) = guest.address.as_ref().or(guest.name.as_ref()) {
        return format!("{known}:{ports}");
    }
    if let Some(mac) = &guest.mac {
        return format!("[{mac}]:{ports}");
    }
    match guest.interface {
        Some(interface) => format!("interface {interface}:{ports}"),
        None => format!("-:{ports}"),
    }
}

/// The ports that are left out, as `--except` reads them.
pub(crate) fn exceptions(rule: &ForwardRule) -> String {
    let mut left_out = rule.except.clone();
    left_out.sort_unstable();
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for port in left_out {
        match ranges.last_mut() {
            Some(range) if port - range.end() <= 1 => *range = *range.start()..=port,
            _ => ranges.push(port..=port),
        }
    }
    ranges.iter().map(ports).collect::<Vec<_>>().join(",")
}

/// The protocol's name.
pub(crate) fn protocol(rule: &ForwardRule) -> &'static str {
    match rule.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

impl fmt::Display for HostPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            Some(address) => write!(f, "{address}:")?,
            None => {}
        }
        f.write_str(&ports(&self.ports))?;
        f.write_str(match self.protocol {
            Protocol::Tcp => "/tcp",
            Protocol::Udp => "/udp",
        })
    }
}

/// A rule in one line, with its number.
pub(crate) fn describe(forward: &Forward) -> String {
    let rule = &forward.rule;
    format!(
        "{} ({}/{} to {})",
        forward.forward,
        listen(rule),
        protocol(rule),
        target(rule)
    )
}

#[cfg(test)]
mod tests;
