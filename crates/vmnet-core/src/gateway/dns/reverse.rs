//! Names of reverse lookups (RFC 1035 §3.5, RFC 3596 §2.5): which address, or which part of the address space, they mean.
//!
//! Delegations inside an octet (RFC 2317) are ordinary names below it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A name under `in-addr.arpa` or `ip6.arpa`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arpa {
    /// The address, with zeros where the name says nothing.
    pub(super) network: IpAddr,
    /// How many bits of it the name gives.
    pub(super) prefix: u8,
    /// Whether there are labels below that are not part of an address.
    pub(super) below: bool,
}

impl Arpa {
    /// Reads the labels of a name, lower-case, the host first.
    pub(super) fn read(labels: &[Vec<u8>]) -> Option<Self> {
        let (arpa, rest) = labels.split_last()?;
        let (family, rest) = rest.split_last()?;
        if arpa != b"arpa" {
            return None;
        }
        match family.as_slice() {
            b"in-addr" => {
                let (bits, prefix, below) = digits(rest, 8, 32, octet);
                let network = u32::try_from(bits).ok().map(Ipv4Addr::from_bits)?;
                Some(Self {
                    network: network.into(),
                    prefix,
                    below,
                })
            }
            b"ip6" => {
                let (bits, prefix, below) = digits(rest, 4, 128, nibble);
                Some(Self {
                    network: Ipv6Addr::from_bits(bits).into(),
                    prefix,
                    below,
                })
            }
            _ => None,
        }
    }

    /// Whether everything this name means lies within a network.
    pub(super) fn is_inside(&self, network: IpAddr, prefix: u8) -> bool {
        self.prefix >= prefix && contains(network, prefix, self.network)
    }

    /// Whether this is the name of one whole address.
    pub(super) fn is_address(&self) -> bool {
        !self.below && self.prefix == width(self.network)
    }

    /// How many labels, from the right, the name of the smallest zone has that holds a network of this prefix.
    pub(super) fn zone_labels(&self, prefix: u8) -> usize {
        let step = if self.network.is_ipv4() { 8 } else { 4 };
        usize::from(prefix / step).saturating_add(2)
    }
}

/// Whether an address lies within a network.
pub(super) fn contains(network: IpAddr, prefix: u8, address: IpAddr) -> bool {
    if network.is_ipv4() != address.is_ipv4() {
        return false;
    }
    let Some(host_bits) = width(network).checked_sub(prefix) else {
        return false;
    };
    (bits(network) ^ bits(address))
        .checked_shr(u32::from(host_bits))
        .unwrap_or(0)
        == 0
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Collects digits of `step` bits from the right until the address is full or a label is none.
fn digits(
    labels: &[Vec<u8>],
    step: u8,
    width: u8,
    digit: fn(&[u8]) -> Option<u8>,
) -> (u128, u8, bool) {
    let mut bits = 0;
    let mut prefix = 0;
    for label in labels.iter().rev() {
        let value = if prefix < width { digit(label) } else { None };
        let Some(value) = value else {
            return (bits, prefix, true);
        };
        prefix = prefix.saturating_add(step);
        bits |= u128::from(value) << width.saturating_sub(prefix);
    }
    (bits, prefix, false)
}

/// A decimal number below 256 in its only spelling.
fn octet(label: &[u8]) -> Option<u8> {
    let text = str::from_utf8(label).ok()?;
    let value: u8 = text.parse().ok()?;
    (value.to_string() == text).then_some(value)
}

fn nibble(label: &[u8]) -> Option<u8> {
    let [digit] = label else { return None };
    char::from(*digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> Option<Arpa> {
        let labels: Vec<Vec<u8>> = name
            .split('.')
            .map(|label| label.as_bytes().to_vec())
            .collect();
        Arpa::read(&labels)
    }

    #[test]
    fn reads_both_families() {
        let table = [
            ("5.64.168.192.in-addr.arpa", "192.168.64.5", 32, false),
            ("64.168.192.in-addr.arpa", "192.168.64.0", 24, false),
            ("in-addr.arpa", "0.0.0.0", 0, false),
            ("x.5.64.168.192.in-addr.arpa", "192.168.64.5", 32, true),
            ("9.5.64.168.192.in-addr.arpa", "192.168.64.5", 32, true),
            ("_udp.64.168.192.in-addr.arpa", "192.168.64.0", 24, true),
            ("05.64.168.192.in-addr.arpa", "192.168.64.0", 24, true),
            ("+5.64.168.192.in-addr.arpa", "192.168.64.0", 24, true),
            ("256.64.168.192.in-addr.arpa", "192.168.64.0", 24, true),
            ("8.b.d.0.1.0.0.2.ip6.arpa", "2001:db8::", 32, false),
            ("g.8.b.d.0.1.0.0.2.ip6.arpa", "2001:db8::", 32, true),
            (
                "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
                "2001:db8::1",
                128,
                false,
            ),
        ];
        for (name, network, prefix, below) in table {
            let network = network.parse().unwrap();
            assert_eq!(
                read(name),
                Some(Arpa {
                    network,
                    prefix,
                    below
                }),
                "{name}"
            );
        }
        for name in ["arpa", "com", "5.64.168.192.in-addr.com", "1.2.e164.arpa"] {
            assert_eq!(read(name), None, "{name}");
        }
    }

    #[test]
    fn networks_contain_what_shares_their_prefix() {
        let table = [
            ("192.168.64.0", 24, "192.168.64.255", true),
            ("192.168.64.0", 24, "192.168.65.0", false),
            ("192.168.64.64", 26, "192.168.64.63", false),
            ("192.168.64.5", 32, "192.168.64.5", true),
            ("0.0.0.0", 0, "255.255.255.255", true),
            ("0.0.0.0", 33, "0.0.0.0", false),
            ("::", 0, "ffff::", true),
            ("::", 0, "1.2.3.4", false),
            ("fd00::", 64, "fd00::1:0:0:1", true),
            ("fd00::", 64, "fd00:0:0:1::", false),
        ];
        for (network, prefix, address, inside) in table {
            assert_eq!(
                contains(network.parse().unwrap(), prefix, address.parse().unwrap()),
                inside,
                "{address} in {network}/{prefix}"
            );
        }
    }
}
