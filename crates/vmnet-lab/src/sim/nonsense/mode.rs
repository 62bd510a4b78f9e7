//! What the network is configured to be: the first bytes decide.

use std::time::Duration;

use vmnet_core::{Config, Dhcp, Dns, Ipv4, MTU_MIN_IPV6};
use vmnet_wire::ethernet::Mac;

use crate::sim::nonsense::bytes::Bytes;

/// Settings of a network, its ports and its rules.
pub(super) struct Mode {
    gateway: u8,
    dhcp: usize,
    dns: Dns,
    nat44: bool,
    isolation: bool,
    private: bool,
    /// The gateway knows IPv6, and guests speak it.
    pub(super) v6: bool,
    /// Ports are isolated.
    pub(super) isolated: bool,
    /// Ports have names.
    pub(super) named: bool,
    /// Rules lead to MACs and names instead of addresses and ports.
    pub(super) roaming: bool,
}

impl Mode {
    pub(super) fn read(bytes: &mut Bytes<'_>) -> Self {
        Self {
            gateway: [1, 1, 7, 14][bytes.below(4)],
            dhcp: bytes.below(4),
            dns: [Dns::Proxy, Dns::Proxy, Dns::Local, Dns::Off][bytes.below(4)],
            nat44: !bytes.chance(4),
            isolation: bytes.chance(8),
            private: bytes.chance(16),
            // Decided without taking a byte: what is in the corpus keeps its meaning.
            v6: bytes.0.len() / 4 % 2 == 1,
            isolated: bytes.chance(8),
            named: bytes.chance(2),
            roaming: bytes.below(2) == 1,
        }
    }

    pub(super) fn config(&self, bytes: &mut Bytes<'_>, flows_max: usize) -> Config {
        let subnet = "192.168.64.0/28".parse().expect("a subnet");
        let gateway = [192, 168, 64, self.gateway].into();
        let ipv4 = Ipv4::with_gateway(subnet, gateway).expect("a host's address");
        let lease_time = Duration::from_secs(600);
        let dhcp = match self.dhcp {
            0 => None,
            1 => Some(Dhcp::reserved_only(&ipv4, lease_time)),
            _ => Some(Dhcp::whole(&ipv4, lease_time)),
        };
        let mtu = [1500, 576, 65_520][bytes.below(3)];
        let prefix = "fd00:0:0:64::/64".parse().expect("a prefix");
        Config {
            ipv4: (!self.private).then_some(ipv4),
            gateway_mac: Mac([0x52, 0x55, 0, 0, 0, 1]),
            mtu: if self.v6 { mtu.max(MTU_MIN_IPV6) } else { mtu },
            dhcp: dhcp.filter(|_| !self.private),
            dns: if self.private { Dns::Off } else { self.dns },
            resolvers_offered: Vec::new(),
            nat44: self.nat44 && !self.private,
            ipv6: self.v6.then_some(prefix),
            nat66: self.v6 && self.nat44,
            router_advertisement: self.v6 && self.dhcp != 0,
            dhcp6: None,
            isolation: self.isolation,
            domain: "vmnet.internal".to_owned(),
            host: None,
            host_loopback: bytes.chance(2),
            // Decided without taking a byte: what is in the corpus keeps its meaning.
            store_leases: bytes.0.len() % 4 == 3,
            flows_max,
            seed: [1; 16],
        }
    }
}
