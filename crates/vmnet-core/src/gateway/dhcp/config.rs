//! What a network says about itself to its guests.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::gateway::register::{self, MAX_POOL, size};

/// Resolvers that fit beside everything else into the smallest message a client must take.
const MAX_RESOLVERS: usize = 16;
/// Shortest lease: T1 and T2 stay distinct, and a guest is not busy with renewing.
pub(super) const MIN_LEASE: Duration = Duration::from_secs(60);
/// The smallest MTU option 26 can say (RFC 2132 §5.1).
const MIN_MTU: u16 = 68;

/// Settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Our address: server identifier.
    pub gateway: Ipv4Addr,
    /// Length of the subnet's prefix, 8 to 30.
    pub prefix_len: u8,
    /// First address given to guests.
    pub first: Ipv4Addr,
    /// Last address given to guests, included. The one before `first`: none is given but to those for whom one is
    /// reserved.
    pub last: Ipv4Addr,
    /// How long a lease is, at least a minute.
    pub lease_time: Duration,
    /// Option 26.
    pub mtu: u16,
    /// Option 15; empty for none.
    pub domain: String,
    /// Option 119; empty for none.
    pub search: Vec<String>,
    /// Option 6, normally the gateway.
    pub resolvers: Vec<Ipv4Addr>,
    /// Options 3 and 121: the way out, if there is one.
    pub router: Option<Ipv4Addr>,
    /// More routes for option 121: network, prefix length, router.
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
}

/// Why a server cannot be made from a [`Config`]; the caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The subnet is too large or too small.
    #[error("a subnet has a prefix of 8 to 30 bits, not {0}")]
    PrefixLength(u8),
    /// The gateway is not a host of its subnet.
    #[error("{0} cannot be the gateway: it is the network's or the broadcast address")]
    Gateway(Ipv4Addr),
    /// The pool is not a range inside the subnet.
    #[error(
        "the pool {first} to {last} is not inside the subnet {gateway}/{prefix_len}; choose both ends in it, the lower first, or the one before the first for an empty pool"
    )]
    Pool {
        /// First of the pool.
        first: Ipv4Addr,
        /// Last of the pool.
        last: Ipv4Addr,
        /// An address of the subnet.
        gateway: Ipv4Addr,
        /// Its prefix length.
        prefix_len: u8,
    },
    /// The table of leases would be too big.
    #[error("the pool has {0} addresses; at most {MAX_POOL} are possible")]
    PoolTooLarge(u32),
    /// The lease time is too short, or does not fit option 51.
    #[error("a lease lasts from 60 seconds to 68 years, not {} seconds", .0.as_secs())]
    LeaseTime(Duration),
    /// The MTU is below what the option can say.
    #[error("an MTU is at least {MIN_MTU}, not {0}")]
    Mtu(u16),
    /// A domain is not a DNS name.
    #[error(
        "{0:?} is not a domain name: labels of 1 to 63 letters, digits and hyphens, with dots between them"
    )]
    Domain(String),
    /// Too many resolvers for one message.
    #[error("{0} resolvers do not fit into a DHCP message; give at most {MAX_RESOLVERS}")]
    TooManyResolvers(usize),
    /// A route's prefix is longer than an address.
    #[error("the route to {0}/{1} has a prefix of more than 32 bits")]
    Route(Ipv4Addr, u8),
}

impl Config {
    /// All that [`Server::new`](super::Server::new) wants to be true.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(8..=30).contains(&self.prefix_len) {
            return Err(ConfigError::PrefixLength(self.prefix_len));
        }
        if self.gateway == self.network() || self.gateway == self.broadcast() {
            return Err(ConfigError::Gateway(self.gateway));
        }
        self.check_pool()?;
        if self.lease_time < MIN_LEASE || self.lease_time.as_secs() > i32::MAX.unsigned_abs().into()
        {
            return Err(ConfigError::LeaseTime(self.lease_time));
        }
        if self.mtu < MIN_MTU {
            return Err(ConfigError::Mtu(self.mtu));
        }
        let mut domains = self
            .search
            .iter()
            .chain(Some(&self.domain).filter(|d| !d.is_empty()));
        if let Some(bad) = domains.find(|domain| !is_domain(domain)) {
            return Err(ConfigError::Domain(bad.clone()));
        }
        if self.resolvers.len() > MAX_RESOLVERS {
            return Err(ConfigError::TooManyResolvers(self.resolvers.len()));
        }
        match self
            .routes
            .iter()
            .find(|(_, prefix_len, _)| *prefix_len > 32)
        {
            Some((network, prefix_len, _)) => Err(ConfigError::Route(*network, *prefix_len)),
            None => Ok(()),
        }
    }

    fn check_pool(&self) -> Result<(), ConfigError> {
        let (first, last) = (self.first, self.last);
        if size(first, last).is_none() || !self.in_subnet(first) || !self.in_subnet(last) {
            let (gateway, prefix_len) = (self.gateway, self.prefix_len);
            return Err(ConfigError::Pool {
                first,
                last,
                gateway,
                prefix_len,
            });
        }
        match size(first, last) {
            Some(size) if size > MAX_POOL => Err(ConfigError::PoolTooLarge(size)),
            _ => Ok(()),
        }
    }

    /// The subnet's mask.
    pub(super) fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from(
            u32::MAX
                .checked_shl(32 - u32::from(self.prefix_len.min(32)))
                .unwrap_or(0),
        )
    }

    /// The subnet's own address.
    pub(super) fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.gateway) & u32::from(self.mask()))
    }

    /// The address of all of the subnet.
    pub(super) fn broadcast(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.gateway) | !u32::from(self.mask()))
    }

    /// Whether an address is of the subnet.
    pub(super) fn in_subnet(&self, address: Ipv4Addr) -> bool {
        (self.network()..=self.broadcast()).contains(&address)
    }

    /// Which addresses are given.
    pub(super) fn range(&self) -> register::Range<Ipv4Addr> {
        register::Range {
            network: (self.network(), self.broadcast()),
            first: self.first,
            last: self.last,
            closed: vec![self.network(), self.gateway, self.broadcast()],
        }
    }
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests;
