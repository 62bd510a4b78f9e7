//! An IPv6 prefix for guests: unique local addresses (RFC 4193), always 64 bits, as SLAAC wants them
//! (RFC 4862 §5.5.3).

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

/// A network's IPv6 prefix: 64 bits inside `fd00::/8`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Prefix(Ipv6Addr);

/// Why a prefix cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrefixError {
    /// Not `ADDRESS/64`.
    #[error("an IPv6 prefix is written ADDRESS/64, like fd12:3456:789a:1::/64")]
    Syntax,
    /// Other than 64.
    #[error("the prefix length is {0}; guests make addresses of their own in 64 bits only")]
    Len(u8),
    /// Bits behind the prefix are set.
    #[error("{0}/64 has host bits set; the prefix is {1}/64")]
    HostBits(Ipv6Addr, Ipv6Addr),
    /// Not a unique local address that somebody may choose (RFC 4193 §3.1).
    #[error("{0} is not inside fd00::/8; take a unique local prefix, like fd12:3456:789a:1::/64")]
    NotLocal(Ipv6Addr),
}

impl Prefix {
    /// Bits of every prefix.
    pub const LEN: u8 = 64;

    /// A prefix from its first address and its length.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub fn new(network: Ipv6Addr, len: u8) -> Result<Self, PrefixError> {
        if len != Self::LEN {
            return Err(PrefixError::Len(len));
        }
        if network.octets().first() != Some(&0xfd) {
            return Err(PrefixError::NotLocal(network));
        }
        let masked = masked(network);
        if masked != network {
            return Err(PrefixError::HostBits(network, masked));
        }
        Ok(Self(network))
    }

    /// The prefix that holds an address, if it is a unique local one: what is behind its 64 bits does not matter.
    ///
    /// # Errors
    /// It is not inside `fd00::/8`.
    pub fn of(address: Ipv6Addr) -> Result<Self, PrefixError> {
        Self::new(masked(address), Self::LEN)
    }

    /// A prefix of random bits: 40 for the global id and 16 for the subnet (RFC 4193 §3.1).
    #[must_use]
    pub fn random(bits: [u8; 7]) -> Self {
        let [a, b, c, d, e, f, g] = bits;
        let octets = [0xfd, a, b, c, d, e, f, g, 0, 0, 0, 0, 0, 0, 0, 0];
        Self(Ipv6Addr::from_octets(octets))
    }

    /// The first address, which names the prefix and is the routers' anycast address (RFC 4291 §2.6.1).
    #[must_use]
    pub fn network(&self) -> Ipv6Addr {
        self.0
    }

    /// The gateway's address in it: the one that ends in 1.
    #[must_use]
    pub fn gateway(&self) -> Ipv6Addr {
        self.host(1)
    }

    /// The address with this interface identifier.
    #[must_use]
    pub fn host(&self, identifier: u64) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.0.to_bits() | u128::from(identifier))
    }

    /// The address lies in it.
    #[must_use]
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        masked(address) == self.0
    }
}

fn masked(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.0, Self::LEN)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, len) = text.split_once('/').ok_or(PrefixError::Syntax)?;
        let address = address.parse().map_err(|_| PrefixError::Syntax)?;
        let len = len.parse().map_err(|_| PrefixError::Syntax)?;
        Self::new(address, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_local_prefixes_of_64_bits() {
        let of = |text: &str| text.parse::<Prefix>();
        assert_eq!(
            of("fd12:3456:789a:1::/64").unwrap().to_string(),
            "fd12:3456:789a:1::/64"
        );
        assert_eq!(of("fd12::"), Err(PrefixError::Syntax));
        assert_eq!(of("fd12::/x"), Err(PrefixError::Syntax));
        assert_eq!(of("fd12::/48"), Err(PrefixError::Len(48)));
        assert_eq!(of("fd12::/65"), Err(PrefixError::Len(65)));
        let outside = "fc00::".parse().unwrap();
        assert_eq!(of("fc00::/64"), Err(PrefixError::NotLocal(outside)));
        assert!(matches!(of("2001:db8::/64"), Err(PrefixError::NotLocal(_))));
        let (host, network) = ("fd00::1".parse().unwrap(), "fd00::".parse().unwrap());
        assert_eq!(of("fd00::1/64"), Err(PrefixError::HostBits(host, network)));
        assert_eq!(Prefix::of(host).unwrap().network(), network);
    }

    proptest! {
        #[test]
        fn random_ones_are_prefixes(bits: [u8; 7], identifier: u64) {
            let prefix = Prefix::random(bits);
            prop_assert_eq!(Prefix::new(prefix.network(), 64), Ok(prefix));
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            prop_assert!(prefix.contains(prefix.host(identifier)));
            prop_assert_eq!(Prefix::of(prefix.host(identifier)), Ok(prefix));
        }
    }
}
