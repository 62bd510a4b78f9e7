//! What a client and the service say to each other: the varlink interface `org.openvmnet.Service`.
//!
//! | file | what |
//! | --- | --- |
//! | `network` | networks, and what they are made of |
//! | `interface` | places on a network |
//! | `bridgeable` | interfaces of the host whose LAN guests can be on |
//! | `forward` | ports of the host that lead to guests |
//! | `lease` | addresses: leases, reservations, identities |
//! | `error` | why a call was refused |
//! | `proxy` | the calls |
//!
//! Addresses, MACs and UUIDs are text, times are seconds since 1970, sizes are bytes. A connection holds what it opened and
//! started; when it ends, so does that.

mod bridgeable;
mod error;
mod forward;
mod interface;
mod lease;
mod network;
mod proxy;

pub use crate::place::Scope;
pub use bridgeable::{BridgeMethod, MethodState, SharedInterface, SharedInterfaces, SharedKind};
pub use error::ServiceError;
pub use forward::{Forward, ForwardRule, Forwards, Guest, Protocol};
pub use interface::{Interface, InterfaceOptions, Interfaces, Kind, Started, Tap};
pub use lease::{
    Identities, Identity, Lease, LeaseState, Leases, Reservation, Reservations, Reserved,
};
pub use network::{
    Counters, Datapath, Lifetime, Mode, Network, NetworkConfiguration, Networks, Status,
};
pub use proxy::Calls;

/// The name of the varlink interface.
pub const INTERFACE: &str = "org.openvmnet.Service";
