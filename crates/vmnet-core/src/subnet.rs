//! An IPv4 subnet, and the address that the gateway takes of it.

use core::fmt;
use core::net::Ipv4Addr;
use core::str::FromStr;
use vmnet_wire::ipv4;

/// An IPv4 subnet of 4 to 65,536 addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Subnet {
    network: Ipv4Addr,
    prefix_len: u8,
}

/// Why a subnet cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubnetError {
    /// Not `ADDRESS/LENGTH`.
    #[error("a subnet is written ADDRESS/LENGTH, like 192.168.64.0/24")]
    Syntax,
    /// Outside 16 to 30.
    #[error("the prefix length is {0}; a network needs one of 16 to 30")]
    PrefixLen(u8),
    /// Bits behind the prefix are set.
    #[error("{0}/{1} has host bits set; the subnet is {2}/{1}")]
    HostBits(Ipv4Addr, u8, Ipv4Addr),
    /// Loopback, multicast, broadcast or zero.
    #[error("{0} is no address for guests; take a private range, like 192.168.64.0/24")]
    Unusable(Ipv4Addr),
}

impl Subnet {
    /// A subnet from its network address and prefix length.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub fn new(network: Ipv4Addr, prefix_len: u8) -> Result<Self, SubnetError> {
        if !(16..=30).contains(&prefix_len) {
            return Err(SubnetError::PrefixLen(prefix_len));
        }
        let masked = Ipv4Addr::from_bits(network.to_bits() & mask(prefix_len));
        if masked != network {
            return Err(SubnetError::HostBits(network, prefix_len, masked));
        }
        if network.is_loopback() || network.octets()[0] == 0 || network.octets()[0] >= 224 {
            return Err(SubnetError::Unusable(network));
        }
        Ok(Self {
            network,
            prefix_len,
        })
    }

    /// Whether all of a subnet, of which this is an address, is set aside for networks like ours (RFC 1918, RFC 6598): nobody of
    /// the outside is at any of it.
    #[must_use]
    pub fn is_private(address: Ipv4Addr, prefix_len: u8) -> bool {
        let is_shared = matches!(address.octets(), [100, 64..=127, ..]) && prefix_len >= 10;
        ipv4::is_private(address, prefix_len.into()) || is_shared
    }

    /// The address that names the subnet.
    #[must_use]
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// Bits of the prefix.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.prefix_len
    }

    /// The netmask.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix_len))
    }

    /// The first address that a host can have.
    #[must_use]
    pub fn first_host(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// The last address that a host can have.
    #[must_use]
    pub fn last_host(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.broadcast().to_bits() - 1)
    }

    /// The address that means all of them.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !mask(self.prefix_len))
    }

    /// The address lies in the subnet.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix_len) == self.network.to_bits()
    }

    /// The address is one host's: in the subnet, and neither its own nor the one that means all.
    #[must_use]
    pub fn is_host(&self, address: Ipv4Addr) -> bool {
        (self.first_host()..=self.last_host()).contains(&address)
    }

    /// Shares addresses with another.
    #[must_use]
    pub fn overlaps(&self, other: Ipv4Addr, prefix_len: u8) -> bool {
        let common = mask(self.prefix_len.min(prefix_len));
        self.network.to_bits() & common == other.to_bits() & common
    }
}

/// A network's IPv4 addresses: the subnet, and the one of its hosts' addresses that is the gateway's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Ipv4 {
    subnet: Subnet,
    gateway: Ipv4Addr,
}

/// An address cannot be the gateway's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{gateway} cannot be the gateway's address in {subnet}: take one from {} to {}", subnet.first_host(), subnet.last_host())]
pub struct GatewayError {
    /// The address.
    pub gateway: Ipv4Addr,
    /// The subnet.
    pub subnet: Subnet,
}

impl Ipv4 {
    /// The gateway has the first host's address.
    #[must_use]
    pub fn new(subnet: Subnet) -> Self {
        Self {
            subnet,
            gateway: subnet.first_host(),
        }
    }

    /// The gateway has this address.
    ///
    /// # Errors
    /// No host of the subnet can have it.
    pub fn with_gateway(subnet: Subnet, gateway: Ipv4Addr) -> Result<Self, GatewayError> {
        if !subnet.is_host(gateway) {
            return Err(GatewayError { gateway, subnet });
        }
        Ok(Self { subnet, gateway })
    }

    /// All addresses of the network.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// The gateway's own.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// The address may be a guest's: a host's, and not the gateway's.
    #[must_use]
    pub fn is_guest(&self, address: Ipv4Addr) -> bool {
        self.subnet.is_host(address) && address != self.gateway
    }
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(prefix_len.min(32)))
        .unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let (address, prefix_len) = text.split_once('/').ok_or(SubnetError::Syntax)?;
        let address = address.parse().map_err(|_| SubnetError::Syntax)?;
        let prefix_len = prefix_len.parse().map_err(|_| SubnetError::Syntax)?;
        Self::new(address, prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_subnet() {
        let subnet: Subnet = "192.168.64.0/24".parse().unwrap();
        assert_eq!(subnet.first_host(), Ipv4Addr::new(192, 168, 64, 1));
        assert_eq!(subnet.last_host(), Ipv4Addr::new(192, 168, 64, 254));
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(192, 168, 64, 255));
        assert!(subnet.overlaps(Ipv4Addr::new(192, 168, 0, 0), 16));
        assert!(subnet.overlaps(Ipv4Addr::UNSPECIFIED, 0));
        assert!(!subnet.overlaps(Ipv4Addr::new(192, 168, 65, 0), 24));
    }

    #[test]
    fn the_gateway_is_any_host() {
        let subnet: Subnet = "192.168.64.0/28".parse().unwrap();
        let at = |last| Ipv4Addr::new(192, 168, 64, last);
        assert_eq!(Ipv4::new(subnet).gateway(), at(1));
        for (gateway, good) in [
            (at(0), false),
            (at(1), true),
            (at(7), true),
            (at(14), true),
            (at(15), false),
            (at(16), false),
        ] {
            let ipv4 = Ipv4::with_gateway(subnet, gateway);
            assert_eq!(ipv4.is_ok(), good, "{gateway}");
            for last in 0..=16 {
                let is_guest = (1..=14).contains(&last) && at(last) != gateway;
                assert!(ipv4.is_err() || ipv4.unwrap().is_guest(at(last)) == is_guest);
            }
        }
        let error = Ipv4::with_gateway(subnet, at(15)).unwrap_err().to_string();
        assert!(error.contains("192.168.64.1 to 192.168.64.14"), "{error}");
    }

    #[test]
    fn what_cannot_be_a_subnet() {
        for (text, error) in [
            ("192.168.64.0", SubnetError::Syntax),
            ("192.168.64.0/31", SubnetError::PrefixLen(31)),
            ("10.0.0.0/8", SubnetError::PrefixLen(8)),
            ("10.0.0.0/15", SubnetError::PrefixLen(15)),
            ("10.0.0.0/x", SubnetError::Syntax),
            (
                "192.168.64.1/24",
                SubnetError::HostBits(
                    Ipv4Addr::new(192, 168, 64, 1),
                    24,
                    Ipv4Addr::new(192, 168, 64, 0),
                ),
            ),
            (
                "127.1.0.0/24",
                SubnetError::Unusable(Ipv4Addr::new(127, 1, 0, 0)),
            ),
            (
                "224.0.0.0/16",
                SubnetError::Unusable(Ipv4Addr::new(224, 0, 0, 0)),
            ),
            ("0.0.0.0/16", SubnetError::Unusable(Ipv4Addr::UNSPECIFIED)),
        ] {
            assert_eq!(text.parse::<Subnet>(), Err(error), "{text}");
        }
    }
}
