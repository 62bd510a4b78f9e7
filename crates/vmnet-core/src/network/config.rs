//! What a network is to be.

use std::time::Duration;

use vmnet_wire::ethernet::Mac;

use crate::gateway::{dhcp, dns};
use crate::subnet::Subnet;

/// The smallest MTU that IPv4 lets a link have and DHCP option 26 may name (RFC 2132 §5.1 says 68; a host
/// must take 576).
pub const MTU_MIN: u16 = 576;
/// The largest MTU: what fits an IPv4 packet, less what our buffers add.
pub const MTU_MAX: u16 = 65_520;

/// What a network is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where guests' addresses come from.
    pub subnet: Subnet,
    /// The gateway's MAC address.
    pub gateway_mac: Mac,
    /// The largest IP packet on the network, [`MTU_MIN`] to [`MTU_MAX`].
    pub mtu: u16,
    /// The domain of guests' names.
    pub domain: String,
    /// How long a guest may keep an address without asking again.
    pub lease_time: Duration,
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

/// Why a network cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// See [`MTU_MIN`] and [`MTU_MAX`].
    #[error("the MTU is {0}; it must be {MTU_MIN} to {MTU_MAX}")]
    Mtu(u16),
    /// The DHCP server cannot work with it.
    #[error(transparent)]
    Dhcp(#[from] dhcp::ConfigError),
    /// The DNS proxy cannot work with it.
    #[error(transparent)]
    Dns(#[from] dns::ConfigError),
}
