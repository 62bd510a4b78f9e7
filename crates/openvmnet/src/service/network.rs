//! Networks.

use super::Scope;
use super::bridgeable::BridgeMethod;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use zlink::introspect::CustomType;

/// Where a network leads (vmnet: `operating_modes_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
#[zlink(rename_all = "lowercase")]
pub enum Mode {
    /// To the host, to other guests, and nowhere else.
    Host,
    /// Also to the outside, through NAT.
    Shared,
    /// To the LAN of an interface of the host, as stations of it; takes the machine's service.
    Bridged,
}

/// Who carries a network's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
#[zlink(rename_all = "lowercase")]
pub enum Datapath {
    /// The service's own thread: no interface of the host, no rules, no privileges.
    User,
    /// The kernel: a bridge with addresses of the host, and rules. Of the machine's service alone.
    Kernel,
}

/// What a network is to be. What is not given has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfiguration {
    /// Where it leads.
    pub mode: Mode,
    /// A name of at most 32 letters, digits, dots, hyphens and underscores, with a letter or digit first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its UUID; without one, one that is made of the name, or a random one where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// `ADDRESS/LENGTH`: the gateway's address, or the subnet's, and a length of 16 to 30. Without one, the first /24 of the
    /// mode's range that the host does not use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// The first address that DHCP gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_first: Option<String>,
    /// The last address that DHCP gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp_last: Option<String>,
    /// The largest packet, 576 to 65,520 bytes; 1500 without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Give addresses; yes without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<bool>,
    /// Answer DNS questions; yes without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns_proxy: Option<bool>,
    /// Translate IPv4 to the outside; in shared mode yes without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat44: Option<bool>,
    /// Know IPv6; yes without, but for a private switch, which does only if `ipv6_prefix` gives a prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<bool>,
    /// The IPv6 prefix, `ADDRESS/64` or `ADDRESS`, inside `fd00::/8`; bits behind the first 64 do not matter. Without one, a
    /// random one that stays with the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_prefix: Option<String>,
    /// Translate IPv6 to the outside; in shared mode yes without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat66: Option<bool>,
    /// Tell guests the IPv6 prefix, the way out and the resolver; yes without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_advertisement: Option<bool>,
    /// Answer guests that ask by DHCPv6; yes without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp6: Option<bool>,
    /// The host's interface by which guests reach the outside; without, the one that its routes choose. In mode bridged
    /// the one whose LAN they are on (vmnet: `shared_interface_name`), which must be given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_interface: Option<String>,
    /// In mode bridged, how guests get onto the LAN; without, the best way that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge_method: Option<BridgeMethod>,
    /// The domain of guests' names; `vmnet.internal` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Resolvers as `ADDRESS` or `ADDRESS:PORT`; without, the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolvers: Option<Vec<String>>,
    /// How long a lease lasts; a day without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u32>,
    /// Guests reach the gateway and the outside, but not each other; no without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<bool>,
    /// The gateway's address reaches services on the host's loopback too; no without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_loopback: Option<bool>,
    /// Who carries its frames; without, the kernel where the service may have it do so, unless `host_loopback` is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datapath: Option<Datapath>,
    /// Only a switch, without DHCP and DNS (vmnet: `network_identifier`); in host mode. The host has an address there if
    /// `subnet` gives one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private: Option<bool>,
}

impl NetworkConfiguration {
    /// A network of this mode, with defaults for everything else.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            name: None,
            uuid: None,
            subnet: None,
            dhcp_first: None,
            dhcp_last: None,
            mtu: None,
            dhcp: None,
            dns_proxy: None,
            nat44: None,
            ipv6: None,
            ipv6_prefix: None,
            nat66: None,
            router_advertisement: None,
            dhcp6: None,
            external_interface: None,
            bridge_method: None,
            domain: None,
            resolvers: None,
            lease_seconds: None,
            isolation: None,
            host_loopback: None,
            datapath: None,
            private: None,
        }
    }
}

impl NetworkConfiguration {
    /// What of it takes privileges, so that only the machine's service can do it; in words for people.
    #[must_use]
    pub fn takes_privileges(&self) -> Option<&'static str> {
        if self.datapath == Some(Datapath::Kernel) {
            return Some("the kernel datapath");
        }
        match self.mode {
            Mode::Bridged => Some("a bridged network"),
            Mode::Host | Mode::Shared => None,
        }
    }
}

/// What keeps a network alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
#[zlink(rename_all = "lowercase")]
pub enum Lifetime {
    /// Made by `CreateNetwork`, until `DeleteNetwork`, across restarts.
    Kept,
    /// In the configuration file.
    Configured,
    /// Connections that opened it and interfaces on it.
    Held,
}

/// A network that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Network {
    /// What it is known by.
    pub uuid: String,
    /// What it is called.
    pub name: Option<String>,
    /// Where it leads.
    pub mode: Mode,
    /// What keeps it.
    pub lifetime: Lifetime,
    /// Whose service has it.
    pub scope: Scope,
    /// `ADDRESS/LENGTH` of the subnet; none for a private switch without the host.
    pub subnet: Option<String>,
    /// The host's address on it.
    pub gateway: Option<String>,
    /// The first address that DHCP gives.
    pub dhcp_first: Option<String>,
    /// The last address that DHCP gives.
    pub dhcp_last: Option<String>,
    /// The largest packet.
    pub mtu: u16,
    /// It gives addresses.
    pub dhcp: bool,
    /// It answers DNS questions.
    pub dns_proxy: bool,
    /// It translates IPv4 to the outside.
    pub nat44: bool,
    /// `ADDRESS/64`, the IPv6 prefix; none where IPv6 is off.
    pub ipv6_prefix: Option<String>,
    /// The host's IPv6 address on it.
    pub ipv6_gateway: Option<String>,
    /// It translates IPv6 to the outside.
    pub nat66: bool,
    /// It tells guests the IPv6 prefix, the way out and the resolver.
    pub router_advertisement: bool,
    /// It answers guests that ask by DHCPv6.
    pub dhcp6: bool,
    /// By which interface of the host; in mode bridged, that whose LAN guests are on.
    pub external_interface: Option<String>,
    /// In mode bridged, how guests get onto the LAN.
    pub bridge_method: Option<BridgeMethod>,
    /// The domain of guests' names.
    pub domain: String,
    /// How long a lease lasts.
    pub lease_seconds: u32,
    /// Guests do not reach each other.
    pub isolation: bool,
    /// The gateway's address reaches the host's loopback.
    pub host_loopback: bool,
    /// Who carries its frames.
    pub datapath: Datapath,
    /// The host's interface on it, if the kernel carries its frames.
    pub host_interface: Option<String>,
    /// Only a switch.
    pub private: bool,
    /// Connections that have it open.
    pub holders: u32,
    /// Interfaces on it.
    pub interfaces: u32,
    /// What it was asked to be; gives the same network again.
    pub configuration: NetworkConfiguration,
}

impl Network {
    /// What to ask for to get it again where it is gone: as it was asked to be, with what the service chose for it.
    #[must_use]
    pub fn pinned(&self) -> NetworkConfiguration {
        let mut configuration = self.configuration.clone();
        configuration.uuid = Some(self.uuid.clone());
        if configuration.subnet.is_none() {
            configuration.subnet.clone_from(&self.subnet);
        }
        configuration
    }
}

/// All networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Networks {
    /// By name, then UUID.
    pub networks: Vec<Network>,
}

/// What a network counted since it began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Counters {
    /// Value by name; `drop-...` are frames that were dropped, by cause.
    pub counters: BTreeMap<String, u64>,
}

/// The service itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Status {
    /// Of the executable.
    pub version: String,
    /// Of the process.
    pub pid: u32,
    /// Whose service it is.
    pub scope: Scope,
    /// How long it runs.
    pub uptime_seconds: u64,
    /// Where it listens.
    pub socket: String,
    /// Where it keeps what must stay; none if it keeps nothing.
    pub store: Option<String>,
    /// Its configuration file, if there is one.
    pub configuration: Option<String>,
    /// Networks.
    pub networks: u32,
    /// Interfaces.
    pub interfaces: u32,
    /// Connections of clients, this one included.
    pub connections: u32,
}
