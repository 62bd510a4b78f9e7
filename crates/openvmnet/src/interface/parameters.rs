//! What an interface turned out to be (`interface_param`).

use std::net::{Ipv4Addr, Ipv6Addr};

use uuid::Uuid;
use vmnet_wire::ethernet::Mac;

/// Bytes of an Ethernet header.
pub(super) const ETHERNET: u32 = 14;
/// The largest frame with TCP segmentation offload: 64 KiB and an Ethernet header.
pub(super) const LARGE_FRAME: u32 = 65_536 + ETHERNET;
/// Packets that one call reads or writes at most.
pub const MAX_PACKETS: usize = 256;

/// What an interface turned out to be (`interface_param`). What a mode does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceParameters {
    /// The identity that belongs to the MAC (`vmnet_interface_id_key`); none if no MAC was given.
    pub interface_id: Option<Uuid>,
    /// The MAC that the guest should have (`vmnet_mac_address_key`).
    pub mac_address: Option<Mac>,
    /// The largest packet, in bytes (`vmnet_mtu_key`).
    pub mtu: u32,
    /// The largest frame, in bytes, without a virtio header (`vmnet_max_packet_size_key`).
    pub max_packet_size: u32,
    /// How many packets one call reads at most (`vmnet_read_max_packets_key`).
    pub read_max_packets: u32,
    /// How many packets one call writes at most (`vmnet_write_max_packets_key`).
    pub write_max_packets: u32,
    /// The host's address, and the first of the range (`vmnet_start_address_key`); of shared and host interfaces.
    pub start_address: Option<Ipv4Addr>,
    /// The last address that DHCP gives (`vmnet_end_address_key`); as above.
    pub end_address: Option<Ipv4Addr>,
    /// The subnet's mask (`vmnet_subnet_mask_key`); as above.
    pub subnet_mask: Option<Ipv4Addr>,
    /// The IPv6 prefix (`vmnet_nat66_prefix_key`); of shared interfaces.
    pub nat66_prefix: Option<Ipv6Addr>,
}
