//! Addresses: leases, reservations, identities.

use serde::{Deserialize, Serialize};
use zlink::introspect::CustomType;

/// Where a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, CustomType)]
#[serde(rename_all = "lowercase")]
#[zlink(rename_all = "lowercase")]
pub enum LeaseState {
    /// A guest has it.
    Bound,
    /// Not renewed in time; remembered for its guest until another needs it.
    Expired,
    /// Given back; remembered for its guest until another needs it.
    Released,
}

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Lease {
    /// The UUID of its network.
    pub network: String,
    /// The name of its network.
    pub network_name: Option<String>,
    /// The address, IPv4 or IPv6.
    pub address: String,
    /// Whose it is.
    pub mac: String,
    /// DHCP option 61 in hexadecimal, as the guest sent it; its DUID if the address is IPv6.
    pub client_id: Option<String>,
    /// The guest's name.
    pub name: Option<String>,
    /// Where it stands.
    pub state: LeaseState,
    /// When it ends or ended, in seconds since 1970.
    pub expires: u64,
    /// The address is reserved for this guest.
    pub reserved: bool,
}

/// All leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Leases {
    /// By network and address.
    pub leases: Vec<Lease>,
}

/// An address kept for a guest, which is known by exactly one of the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
#[serde(deny_unknown_fields)]
pub struct Reservation {
    /// The address, IPv4 or IPv6. A guest may have one of each.
    pub address: String,
    /// The guest with this MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The guest with this client id (DHCP option 61; its DUID if the address is IPv6), in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The guest that calls itself so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A reservation on its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Reserved {
    /// The UUID of its network.
    pub network: String,
    /// The name of its network.
    pub network_name: Option<String>,
    /// What is kept, for whom.
    pub reservation: Reservation,
}

/// All reservations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Reservations {
    /// By network and address.
    pub reservations: Vec<Reserved>,
}

/// An interface id and the MAC that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Identity {
    /// The id.
    pub id: String,
    /// The MAC.
    pub mac: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When an interface last started with it, in seconds since 1970.
    pub last_used: u64,
    /// The interface that has it now.
    pub interface: Option<u64>,
}

/// All identities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomType)]
pub struct Identities {
    /// By id.
    pub identities: Vec<Identity>,
}
