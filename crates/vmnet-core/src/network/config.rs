//! What a network is to be, and what of it cannot be.
//!
//! Modes are combinations of these settings. A *shared* network has all of them. A *host* network has no `nat44` and
//! answers DNS by [`Dns::Local`]. A *private* one has no `ipv4`, or nothing but it.

use core::net::Ipv4Addr;
use std::time::Duration;

use vmnet_wire::ethernet::Mac;

use crate::gateway::{dhcp, dhcp6, dns, ra};
use crate::link::Gateway;
use crate::prefix::Prefix;
use crate::subnet::Ipv4;

/// The smallest MTU that IPv4 lets a link have and DHCP option 26 may name (RFC 2132 §5.1 says 68; a host
/// must take 576).
pub const MTU_MIN: u16 = 576;
/// The smallest MTU that IPv6 lets a link have (RFC 8200 §5).
pub const MTU_MIN_IPV6: u16 = 1280;
/// The largest MTU: what fits an IPv4 packet, less what our buffers add.
pub const MTU_MAX: u16 = 65_520;

/// What a network is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The subnet and the gateway's address. `None`: a switch, on which guests are among themselves.
    pub ipv4: Option<Ipv4>,
    /// The gateway's MAC address. Nobody else may have it, unless there is no gateway.
    pub gateway_mac: Mac,
    /// The host itself has the gateway's addresses, at this MAC address behind the port that is the
    /// [trunk](crate::Role::Trunk): it answers for them, translates and filters. What is here are the switch and the
    /// gateway's services alone (DHCP, DNS, advertisements in the host's name), whose own MAC address is `gateway_mac`.
    pub host: Option<Mac>,
    /// The largest IP packet on the network, [`MTU_MIN`] to [`MTU_MAX`]; with `ipv6` at least [`MTU_MIN_IPV6`].
    pub mtu: u16,
    /// Guests get their addresses from the gateway. Needs `ipv4`.
    pub dhcp: Option<Dhcp>,
    /// What the gateway knows of names. Needs `ipv4` or `ipv6`.
    pub dns: Dns,
    /// What DHCP names as resolvers while [`Dns::Off`]; otherwise it names the gateway.
    pub resolvers_offered: Vec<Ipv4Addr>,
    /// Guests reach the outside by the host's addresses. If not, whatever is for neither a guest nor the gateway is
    /// refused at once, DHCP names no router, and clients of forwarded ports come from the gateway's address, since
    /// guests know no other way back. Needs `ipv4`.
    pub nat44: bool,
    /// The IPv6 prefix. The gateway has [`Prefix::gateway`] of it and a link-local address made of its MAC. `None`: the
    /// gateway knows no IPv6, and guests are among themselves with theirs; if they have IPv4 from the gateway, none of
    /// them may be a router or a DHCPv6 server.
    pub ipv6: Option<Prefix>,
    /// Guests reach the outside by the host's IPv6 addresses. What [`Config::nat44`] says holds here too. Needs `ipv6`.
    pub nat66: bool,
    /// Guests are told the prefix, the way out and the resolver by router advertisements. Needs `ipv6`.
    pub router_advertisement: bool,
    /// Guests that ask by DHCPv6 are answered. Needs `ipv6`.
    pub dhcp6: Option<Dhcp6>,
    /// Ports exchange frames with the gateway alone, as if each was
    /// [`isolated`](crate::Port::isolated).
    pub isolation: bool,
    /// The domain of guests' names.
    pub domain: String,
    /// Leases are stored before they are acknowledged: [`Action::StoreLeases`](crate::Action::StoreLeases)
    /// comes out and is answered.
    pub store_leases: bool,
    /// The gateway's address reaches services on the host's loopback too.
    pub host_loopback: bool,
    /// Flows of the NAT that may exist at once.
    pub flows_max: usize,
    /// Random bits, fresh for each network: they make DNS ids unpredictable.
    pub seed: [u8; 16],
}

/// How guests get addresses. Those of the gateway, the network and all are never given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dhcp {
    /// The first address that is given.
    pub first: Ipv4Addr,
    /// The last one. If it is the one before `first`, none is given but to those for whom one is reserved.
    pub last: Ipv4Addr,
    /// How long a guest may keep an address without asking again, at least a minute.
    pub lease_time: Duration,
}

/// How guests that ask by DHCPv6 get addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dhcp6 {
    /// How long a guest may keep an address without asking again, at least a minute.
    pub lease_time: Duration,
}

/// What the gateway knows of names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Dns {
    /// Nothing: it is no resolver, and its port 53 is closed.
    Off,
    /// Names of guests. Questions about others are refused at once, so that a guest asks another resolver, if it has
    /// one.
    Local,
    /// Names of guests, and others by the host's resolvers.
    #[default]
    Proxy,
}

/// Why a network cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// See [`MTU_MIN`] and [`MTU_MAX`].
    #[error("the MTU is {0}; it must be {MTU_MIN} to {MTU_MAX}")]
    Mtu(u16),
    /// See [`MTU_MIN_IPV6`].
    #[error("the MTU is {0}; IPv6 needs {MTU_MIN_IPV6} at least: take that, or no IPv6 prefix")]
    MtuOfIpv6(u16),
    /// A service needs an address.
    #[error(
        "a network whose gateway has no address cannot have {0}: give it a subnet, or switch that off"
    )]
    NoAddress(&'static str),
    /// A service needs an IPv6 prefix.
    #[error(
        "a network without an IPv6 prefix cannot have {0}: give it a prefix, or switch that off"
    )]
    NoPrefix(&'static str),
    /// The DHCP server cannot work with it.
    #[error(transparent)]
    Dhcp(#[from] dhcp::ConfigError),
    /// The DHCPv6 server cannot work with it.
    #[error(transparent)]
    Dhcp6(#[from] dhcp6::ConfigError),
    /// The DNS proxy cannot work with it.
    #[error(transparent)]
    Dns(#[from] dns::ConfigError),
}

impl Dhcp {
    /// All addresses of a network that guests can have, but those that stand before or behind all others with the gateway.
    #[must_use]
    pub fn whole(ipv4: &Ipv4, lease_time: Duration) -> Self {
        let (subnet, gateway) = (ipv4.subnet(), ipv4.gateway());
        let (mut first, mut last) = (subnet.first_host(), subnet.last_host());
        if first == gateway {
            first = neighbour(gateway, 1);
        } else if last == gateway {
            last = neighbour(gateway, -1);
        }
        Self {
            first,
            last,
            lease_time,
        }
    }

    /// No addresses but those that are reserved.
    #[must_use]
    pub fn reserved_only(ipv4: &Ipv4, lease_time: Duration) -> Self {
        Self {
            first: neighbour(ipv4.gateway(), 1),
            last: ipv4.gateway(),
            lease_time,
        }
    }
}

/// The address so far from another.
fn neighbour(address: Ipv4Addr, distance: i32) -> Ipv4Addr {
    Ipv4Addr::from_bits(address.to_bits().wrapping_add_signed(distance))
}

impl Config {
    /// The gateway, if it has an address.
    pub(super) fn gateway(&self) -> Option<Gateway> {
        (self.ipv4.is_some() || self.ipv6.is_some()).then_some(Gateway {
            mac: self.gateway_mac,
            host: self.host,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            mtu: self.mtu,
            nat44: self.nat44,
            nat66: self.nat66,
            dhcp: self.dhcp.is_some(),
            dns: self.dns != Dns::Off,
        })
    }

    /// What needs an address has one.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(MTU_MIN..=MTU_MAX).contains(&self.mtu) {
            return Err(ConfigError::Mtu(self.mtu));
        }
        if self.ipv6.is_some() && self.mtu < MTU_MIN_IPV6 {
            return Err(ConfigError::MtuOfIpv6(self.mtu));
        }
        if self.dns != Dns::Off && self.ipv4.is_none() && self.ipv6.is_none() {
            return Err(ConfigError::NoAddress("DNS"));
        }
        let without = |on: bool, what| match self.ipv4 {
            None if on => Err(ConfigError::NoAddress(what)),
            _ => Ok(()),
        };
        without(self.dhcp.is_some(), "DHCP")?;
        without(self.nat44, "NAT")?;
        let without = |on: bool, what| match self.ipv6 {
            None if on => Err(ConfigError::NoPrefix(what)),
            _ => Ok(()),
        };
        without(self.nat66, "NAT66")?;
        without(self.router_advertisement, "router advertisements")?;
        without(self.dhcp6.is_some(), "DHCPv6")
    }

    /// Settings of the DHCP server, if there is one.
    pub(super) fn dhcp(&self) -> Option<dhcp::Config> {
        let (ipv4, dhcp) = (self.ipv4?, self.dhcp?);
        Some(dhcp::Config {
            gateway: ipv4.gateway(),
            prefix_len: ipv4.subnet().prefix_len(),
            first: dhcp.first,
            last: dhcp.last,
            lease_time: dhcp.lease_time,
            mtu: self.mtu,
            domain: self.domain.clone(),
            search: vec![self.domain.clone()],
            resolvers: match self.dns {
                Dns::Off => self.resolvers_offered.clone(),
                Dns::Local | Dns::Proxy => vec![ipv4.gateway()],
            },
            // A second card of the guest may know a way out; ours would be in its way.
            router: self.nat44.then(|| ipv4.gateway()),
            routes: Vec::new(),
        })
    }

    /// Settings of the DHCPv6 server, if there is one.
    pub(super) fn dhcp6(&self) -> Option<dhcp6::Config> {
        let (prefix, dhcp6) = (self.ipv6?, self.dhcp6?);
        Some(dhcp6::Config {
            prefix,
            mac: self.gateway_mac,
            lease_time: dhcp6.lease_time,
            domain: self.domain.clone(),
            resolvers: match self.dns {
                Dns::Off => Vec::new(),
                Dns::Local | Dns::Proxy => vec![prefix.gateway()],
            },
        })
    }

    /// What the gateway tells guests as a router, if it does.
    pub(super) fn advertisement(&self) -> Option<ra::Contents> {
        let prefix = self.ipv6.filter(|_| self.router_advertisement)?;
        Some(ra::Contents {
            prefix,
            mtu: self.mtu,
            mac: self.host.unwrap_or(self.gateway_mac),
            router: self.nat66,
            quiet: !self.nat44 && !self.nat66,
            dhcp6: self.dhcp6.is_some(),
            domain: (self.dns != Dns::Off).then(|| self.domain.clone()),
        })
    }

    /// Settings of the DNS proxy, which keeps names even if it answers nobody: forwarded ports lead to names.
    pub(super) fn dns(&self) -> dns::Config {
        let (ipv4, ipv6) = (self.ipv4, self.ipv6);
        let subnet = ipv4.map(|ipv4| ipv4.subnet());
        let subnet = subnet.map(|subnet| (subnet.network().into(), subnet.prefix_len()));
        let prefix = ipv6.map(|prefix| (prefix.network().into(), Prefix::LEN));
        let own4 = ipv4.map(|ipv4| ipv4.gateway().into());
        let own6 = ipv6.map(|prefix| prefix.gateway().into());
        dns::Config {
            domain: self.domain.clone(),
            gateway: own4.into_iter().chain(own6).collect(),
            subnets: subnet.into_iter().chain(prefix).collect(),
            asks_outside: self.dns == Dns::Proxy,
            seed: self.seed,
        }
    }
}

#[cfg(test)]
mod tests;
