//! What a network says about itself to guests that ask by DHCPv6.

use std::net::Ipv6Addr;
use std::time::Duration;

use vmnet_wire::ethernet::Mac;

use crate::gateway::register::{MAX_POOL, Range};
use crate::prefix::Prefix;

/// Shortest lease: its parts stay distinct, and a guest is not busy with renewing.
const MIN_LEASE: Duration = Duration::from_secs(60);
/// Resolvers that fit beside everything else into one packet of the smallest MTU.
const MAX_RESOLVERS: usize = 16;
/// Where in the prefix the addresses for whoever comes begin: `PREFIX:0:0:d:0`. None that a guest makes of its MAC
/// lies there (RFC 4291, appendix A), and hardly one of its random bits.
const FIRST: u64 = 0x000d_0000;

/// Settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The prefix guests' addresses are of.
    pub prefix: Prefix,
    /// The gateway's MAC: the server is known by it.
    pub mac: Mac,
    /// How long a lease is, at least a minute.
    pub lease_time: Duration,
    /// Under which guests have names, and search names; empty for none.
    pub domain: String,
    /// Option 23, normally the gateway.
    pub resolvers: Vec<Ipv6Addr>,
}

/// Why a server cannot be made from a [`Config`]; the caller's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The lease time is too short, or as good as none.
    #[error("a lease lasts from 60 seconds to 68 years, not {0:?}")]
    LeaseTime(Duration),
    /// A domain is not a DNS name.
    #[error(
        "{0:?} is not a domain name: labels of 1 to 63 letters, digits and hyphens, with dots between them"
    )]
    Domain(String),
    /// Too many resolvers for one message.
    #[error("{0} resolvers do not fit into a DHCPv6 message; give at most {MAX_RESOLVERS}")]
    TooManyResolvers(usize),
}

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let seconds = self.lease_time.as_secs();
        if self.lease_time < MIN_LEASE || seconds > i32::MAX.unsigned_abs().into() {
            return Err(ConfigError::LeaseTime(self.lease_time));
        }
        if !self.domain.is_empty() && !is_domain(&self.domain) {
            return Err(ConfigError::Domain(self.domain.clone()));
        }
        if self.resolvers.len() > MAX_RESOLVERS {
            return Err(ConfigError::TooManyResolvers(self.resolvers.len()));
        }
        Ok(())
    }

    /// Which addresses are given. As many as the largest pool has; reservations may be anywhere in the prefix.
    pub(super) fn range(&self) -> Range<Ipv6Addr> {
        let last = FIRST + u64::from(MAX_POOL) - 1;
        Range {
            network: (self.prefix.network(), self.prefix.host(u64::MAX)),
            first: self.prefix.host(FIRST),
            last: self.prefix.host(last),
            closed: vec![self.prefix.network(), self.prefix.gateway()],
        }
    }

    /// How long a lease is, for the wire.
    pub(super) fn seconds(&self) -> u32 {
        u32::try_from(self.lease_time.as_secs()).unwrap_or(u32::MAX)
    }

    /// The server's DUID: made of its MAC (DUID-LL, RFC 8415 §11.4), so it is the same after a restart.
    pub(super) fn duid(&self) -> Vec<u8> {
        [&[0, 3, 0, 1][..], &self.mac.0].concat()
    }
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    text.len() <= 180 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::super::guest::config;
    use super::*;

    #[test]
    fn what_cannot_be() {
        let of = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            config.check()
        };
        assert_eq!(of(|_| ()), Ok(()));
        assert_eq!(of(|config| config.domain.clear()), Ok(()));
        let short = Duration::from_secs(59);
        assert_eq!(
            of(|config| config.lease_time = Duration::from_secs(59)),
            Err(ConfigError::LeaseTime(short))
        );
        assert!(of(|config| config.lease_time = Duration::from_secs(1 << 31)).is_err());
        for bad in [".", "a..b", "a b", "\u{e4}.org"] {
            let config = Config {
                domain: bad.to_owned(),
                ..config()
            };
            assert_eq!(config.check(), Err(ConfigError::Domain(bad.to_owned())));
        }
        let many = of(|config| config.resolvers = vec![config.prefix.gateway(); 17]);
        assert_eq!(many, Err(ConfigError::TooManyResolvers(17)));
    }

    #[test]
    fn the_pool_is_inside_the_prefix_and_away_from_the_gateway() {
        let config = config();
        let range = config.range();
        assert!(config.prefix.contains(range.first) && config.prefix.contains(range.last));
        assert!(range.first > config.prefix.gateway());
        let size = range.last.to_bits() - range.first.to_bits() + 1;
        assert_eq!(size, MAX_POOL.into());
    }
}
