//! Which subnet a private network gets.
//!
//! The one asked for, or the first /24 of a range that nothing else of the host uses.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use vmnet_linux::kernel::route::Taken;
use vmnet_linux::lane::Ipv4Net;

/// An IPv4 subnet with room for a gateway and guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    address: Ipv4Addr,
    prefix_len: u8,
}

/// A text is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseSubnetError {
    #[error("say ADDRESS/LENGTH, like 192.168.64.0/24")]
    Form,
    #[error("the length is 8 to 29: shorter is no subnet, longer has no room for guests")]
    Length,
    #[error("{0} is no network address for that length: say {1}")]
    HostBits(Ipv4Addr, Subnet),
    #[error(
        "{0} cannot be given to guests: loopback, multicast and reserved addresses are no subnet"
    )]
    Reserved(Ipv4Addr),
}

impl Subnet {
    fn mask(prefix_len: u8) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(prefix_len))
            .unwrap_or(0)
    }

    fn overlaps(self, taken: &Taken) -> bool {
        let mask = Self::mask(self.prefix_len.min(taken.prefix_len));
        u32::from(self.address) & mask == u32::from(taken.network) & mask
    }
}

impl From<Subnet> for Ipv4Net {
    fn from(subnet: Subnet) -> Self {
        Self {
            address: subnet.address,
            prefix_len: subnet.prefix_len,
        }
    }
}

impl FromStr for Subnet {
    type Err = ParseSubnetError;

    fn from_str(text: &str) -> Result<Self, ParseSubnetError> {
        let (address, length) = text.split_once('/').ok_or(ParseSubnetError::Form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| ParseSubnetError::Form)?;
        let prefix_len: u8 = length.parse().map_err(|_| ParseSubnetError::Form)?;
        if !(8..=29).contains(&prefix_len) {
            return Err(ParseSubnetError::Length);
        }
        let network = Ipv4Addr::from(u32::from(address) & Self::mask(prefix_len));
        let [first, ..] = network.octets();
        if first == 0 || first == 127 || first >= 224 {
            return Err(ParseSubnetError::Reserved(address));
        }
        let subnet = Self {
            address: network,
            prefix_len,
        };
        if network != address {
            return Err(ParseSubnetError::HostBits(address, subnet));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// There is no subnet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChooseError {
    #[error(
        "the subnet {subnet} is taken by the host: {user} uses {network}/{prefix_len}; choose another with --subnet"
    )]
    Taken {
        subnet: Subnet,
        user: String,
        network: Ipv4Addr,
        prefix_len: u8,
    },
    #[error(
        "the host uses addresses in every /24 of 192.168.64.0 to 192.168.127.0 ({user} uses {network}/{prefix_len}): choose a subnet with --subnet, like 10.77.0.0/24"
    )]
    NoneFree {
        user: String,
        network: Ipv4Addr,
        prefix_len: u8,
    },
}

/// The subnet asked for, or the first free one of the default range; none that the host uses.
pub(super) fn choose(asked: Option<Subnet>, taken: &[Taken]) -> Result<Subnet, ChooseError> {
    let user_of = |subnet: Subnet| taken.iter().find(|taken| subnet.overlaps(taken));
    if let Some(subnet) = asked {
        return match user_of(subnet) {
            None => Ok(subnet),
            Some(taken) => Err(ChooseError::Taken {
                subnet,
                user: describe(taken),
                network: taken.network,
                prefix_len: taken.prefix_len,
            }),
        };
    }
    let mut last = None;
    for third in 64..=127 {
        let subnet = Subnet {
            address: Ipv4Addr::new(192, 168, third, 0),
            prefix_len: 24,
        };
        match user_of(subnet) {
            None => return Ok(subnet),
            Some(taken) => last = Some(taken),
        }
    }
    let (user, network, prefix_len) = last.map_or_else(
        || ("the host".to_owned(), Ipv4Addr::UNSPECIFIED, 0),
        |taken| (describe(taken), taken.network, taken.prefix_len),
    );
    Err(ChooseError::NoneFree {
        user,
        network,
        prefix_len,
    })
}

fn describe(taken: &Taken) -> String {
    let kind = if taken.is_address {
        "an address"
    } else {
        "a route"
    };
    match &taken.interface {
        Some(interface) => format!("{kind} of interface {interface}"),
        None => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests;
