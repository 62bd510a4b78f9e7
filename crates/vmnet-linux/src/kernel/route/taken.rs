//! What of the host uses which addresses: its own, and its routes.

use super::{RouteError, Routes};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use vmnet_core::Prefix;

/// Something of the host that uses addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// First address.
    pub network: IpAddr,
    /// Length of the prefix.
    pub prefix_len: u8,
    /// The interface it belongs to, if any.
    pub interface: Option<String>,
    /// Whether it is an address of the host; otherwise a route.
    pub is_address: bool,
}

impl Taken {
    /// Whether some of the prefix is in use by it.
    #[must_use]
    pub fn meets(&self, prefix: Prefix) -> bool {
        let IpAddr::V6(network) = self.network else {
            return false;
        };
        let beyond = 128_u32.saturating_sub(self.prefix_len.min(Prefix::LEN).into());
        let different = network.to_bits() ^ prefix.network().to_bits();
        different.checked_shr(beyond).unwrap_or(0) == 0
    }
}

impl Routes {
    /// Every address and route of the host, those of IPv4 first, in the order the kernel tells them.
    ///
    /// Routes shorter than 8 bits, 16 of IPv6, are defaults in disguise (`0.0.0.0/1`, as VPNs set it) and left out, like
    /// multicast and link-local addresses of IPv6.
    ///
    /// # Errors
    ///
    /// See [`RouteError`].
    pub fn taken(&mut self) -> Result<Vec<Taken>, RouteError> {
        let names = self.link_names()?;
        let mut taken = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = AddressMessage::default();
            request.header.family = family;
            self.dump(
                RouteNetlinkMessage::GetAddress(request),
                "list the addresses",
                |message| {
                    if let RouteNetlinkMessage::NewAddress(address) = message {
                        taken.extend(taken_by_address(&address, &names));
                    }
                },
            )?;
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            self.dump(
                RouteNetlinkMessage::GetRoute(request),
                "list the routes",
                |message| {
                    if let RouteNetlinkMessage::NewRoute(route) = message {
                        taken.extend(taken_by_route(&route, &names));
                    }
                },
            )?;
        }
        Ok(taken)
    }
}

fn taken_by_address(message: &AddressMessage, names: &BTreeMap<u32, String>) -> Option<Taken> {
    let network = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
        .filter(|address| !is_link_local(*address))?;
    Some(Taken {
        network,
        prefix_len: message.header.prefix_len,
        interface: names.get(&message.header.index).cloned(),
        is_address: true,
    })
}

fn taken_by_route(message: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<Taken> {
    let least = match message.header.address_family {
        AddressFamily::Inet6 => 16,
        _ => 8,
    };
    if message.header.destination_prefix_length < least
        || message.header.kind == RouteType::Multicast
    {
        return None;
    }
    let mut network = None;
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                network = Some(IpAddr::V4(*address));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                network = Some(IpAddr::V6(*address));
            }
            RouteAttribute::Oif(index) => interface = names.get(index).cloned(),
            _ => {}
        }
    }
    Some(Taken {
        network: network.filter(|network| !is_link_local(*network))?,
        prefix_len: message.header.destination_prefix_length,
        interface,
        is_address: false,
    })
}

/// Of IPv6, where each link has its own.
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if Ipv6Addr::is_unicast_link_local(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_meets_what_holds_it_and_what_it_holds() {
        let taken = |network: &str, prefix_len| Taken {
            network: network.parse().unwrap(),
            prefix_len,
            interface: None,
            is_address: false,
        };
        let prefix: Prefix = "fd12:3456:789a:1::/64".parse().unwrap();
        for (network, len, meets) in [
            ("fd12:3456:789a:1::", 64, true),
            ("fd12:3456:789a:1::99", 128, true),
            ("fd12:3456:789a:1::", 80, true),
            ("fd12:3456:789a::", 48, true),
            ("fd12:3456::", 32, true),
            ("fd00::", 8, true),
            ("::", 0, true),
            ("fd12:3456:789a:2::", 64, false),
            ("fd12:3456:789a:2::1", 128, false),
            ("fd12:3456:789b::", 48, false),
            ("192.168.0.0", 16, false),
            ("0.0.0.0", 0, false),
        ] {
            assert_eq!(taken(network, len).meets(prefix), meets, "{network}/{len}");
        }
    }
}
