//! Ports of the host that lead to guests.

use serde::{Deserialize, Serialize};
use zlink::introspect::CustomType;

/// TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
#[zlink(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A guest, by one of its properties.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Whoever has this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whoever has this MAC, at the address it has leased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Whoever has this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whoever is behind this interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<u64>,
}

/// A rule: ports of the host, and where they lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(deny_unknown_fields)]
pub struct ForwardRule {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The address that the host listens on: `0.0.0.0` for all of IPv4, `::` for all.
    pub address: String,
    /// The first port of the host.
    pub first: u16,
    /// The last port of the host.
    pub last: u16,
    /// Ports between them that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<u16>,
    /// To whom.
    pub guest: Guest,
    /// The guest's port that `first` leads to; the others follow in order.
    pub guest_port: u16,
}

/// A rule that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Forward {
    /// What it is known by, as long as the service runs.
    pub forward: u64,
    /// The UUID of its network.
    pub network: String,
    /// The name of its network.
    pub network_name: Option<String>,
    /// The interface that it ends with; without one, it ends with its network.
    pub interface: Option<u64>,
    /// What it says.
    pub rule: ForwardRule,
}

/// All rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Forwards {
    /// By number.
    pub forwards: Vec<Forward>,
}
