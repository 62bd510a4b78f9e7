//! Places on a network.

use super::network::Network;
use serde::{Deserialize, Serialize};
use zlink::introspect::CustomType;

/// How frames travel. The descriptor goes beside the call that starts the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum Kind {
    /// A tap with a virtio-net header of 12 bytes.
    Tap,
    /// A connected stream socket; each frame behind its length in 4 bytes, big-endian (QEMU's `-netdev stream`).
    Stream,
    /// A listening stream socket: each client is a guest.
    StreamListener,
    /// A connected datagram or sequenced-packet socket; a frame is a datagram.
    Dgram,
    /// A bound datagram socket: each path that sends to it is a guest.
    DgramListener,
    /// A listening stream socket by which the VMM of one guest comes, and may come again: vhost-user. The guest's memory
    /// is shared.
    VhostUser,
    /// The same the other way round: the descriptor is a directory, in which the VMM listens on a socket of the name
    /// `socket`, now or later.
    VhostUserClient,
    /// A tap of the network's own bridge, which `OpenTap` gave: frames go between its holder and the kernel, and never
    /// through the service. The interface ends with the tap.
    BridgeTap,
    /// A connected stream socket to the VMM of one guest: vhost-user. The interface ends with it.
    VhostUserConnected,
}

/// What an interface is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(deny_unknown_fields)]
pub struct InterfaceOptions {
    /// How frames travel.
    pub kind: Kind,
    /// The identity (vmnet: `interface_id`): the same one gets the same MAC. Without one, a fresh identity with a fresh
    /// MAC, unless `allocate_mac` says no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Give the interface a MAC; yes without. Listeners get none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocate_mac: Option<bool>,
    /// The MAC that the guest has already; then none is given. An id, if there is one too, must be new or have this MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Drop frames from other MACs; no without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_mac: Option<bool>,
    /// The guest's name in DNS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The guest reaches the gateway and the outside, but no other guest; no without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated: Option<bool>,
    /// Every frame has a virtio-net header of 12 bytes in front; no without. Taps have one always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtio_header: Option<bool>,
    /// TCP frames of up to 64 KiB pass in one; no without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tso: Option<bool>,
    /// Checksums are made where they are missing; not together with `virtio_header`; no without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum_offload: Option<bool>,
    /// Hang up on the connection when another client ends the interface or its network; no without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hang_up: Option<bool>,
    /// The name of the VMM's socket in the directory; of `vhost_user_client` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
}

impl InterfaceOptions {
    /// An interface of this kind, with defaults for everything else.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            id: None,
            allocate_mac: None,
            mac: None,
            only_mac: None,
            name: None,
            isolated: None,
            virtio_header: None,
            tso: None,
            checksum_offload: None,
            hang_up: None,
            socket: None,
        }
    }
}

/// An interface that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Interface {
    /// What it is known by, as long as the service runs.
    pub interface: u64,
    /// The UUID of its network.
    pub network: String,
    /// The name of its network.
    pub network_name: Option<String>,
    /// How frames travel.
    pub kind: Kind,
    /// The listener that the guest came by.
    pub listener: Option<u64>,
    /// Its identity.
    pub id: Option<String>,
    /// The guest's MAC: the one given, or the one seen.
    pub mac: Option<String>,
    /// The guest's name.
    pub name: Option<String>,
    /// The address that the guest has leased.
    pub address: Option<String>,
    /// The largest packet.
    pub mtu: u16,
    /// The largest frame, with a virtio-net header if it has one in front.
    pub max_packet_size: u32,
    /// The guest reaches no other guest.
    pub isolated: bool,
    /// A virtio-net header is in front of frames.
    pub virtio_header: bool,
    /// Large TCP frames pass.
    pub tso: bool,
    /// Checksums are made where they are missing.
    pub checksum_offload: bool,
    /// The process that started it.
    pub pid: i32,
}

/// An interface was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Started {
    /// The interface.
    pub interface: Interface,
    /// Its network.
    pub network: Network,
}

/// A tap that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Tap {
    /// Its name on the host.
    pub name: String,
}

/// All interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Interfaces {
    /// By number.
    pub interfaces: Vec<Interface>,
}
