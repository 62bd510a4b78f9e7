//! Interfaces of the host whose LAN guests can be on (vmnet: `vmnet_copy_shared_interface_list`).

use serde::{Deserialize, Serialize};
use zlink::introspect::CustomType;

/// How guests get onto the LAN of an interface of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
#[zlink(rename_all = "lowercase")]
pub enum BridgeMethod {
    /// A tap joins the bridge that the interface is, or is a member of.
    Bridge,
    /// Each guest has a macvtap on the interface.
    Macvtap,
    /// Frames are read and written at the interface by a packet socket.
    Packet,
}

/// What an interface of the host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
#[zlink(rename_all = "lowercase")]
pub enum SharedKind {
    /// A card, or what stands for one in a container.
    Ethernet,
    /// A VLAN on another interface.
    Vlan,
    /// Several cards as one.
    Bond,
    /// A bridge of the kernel.
    Bridge,
    /// A wireless card. Its access point takes frames from its own MAC alone, so guests cannot be on its LAN.
    Wifi,
}

/// Whether guests can get onto the LAN by a method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct MethodState {
    /// Which one.
    pub method: BridgeMethod,
    /// They can, as far as the interface goes; it takes the system's service in any case.
    pub usable: bool,
    /// Why not, for people.
    pub reason: Option<String>,
}

/// An interface of the host whose LAN guests can be on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct SharedInterface {
    /// Its name, which a network in mode bridged is made with.
    pub name: String,
    /// What it is.
    pub kind: SharedKind,
    /// Its own MAC.
    pub mac: String,
    /// Its largest packet, which is that of guests too.
    pub mtu: u32,
    /// It is switched on, and its carrier is there.
    pub up: bool,
    /// The bridge that it is a member of.
    pub bridge: Option<String>,
    /// The method that is chosen where none is asked for; none if none is usable.
    pub method: Option<BridgeMethod>,
    /// Each method, the best first.
    pub methods: Vec<MethodState>,
}

/// All such interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct SharedInterfaces {
    /// By name.
    pub interfaces: Vec<SharedInterface>,
}
