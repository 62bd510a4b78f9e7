//! Apple's `vmnet` for Linux: networks for virtual machines, in the words of its API.
//!
//! | file | what |
//! | --- | --- |
//! | [`NetworkConfiguration`] | what a network is to be |
//! | [`Network`] | a network that this process holds |
//! | [`Interface`], [`InterfaceConfiguration`] | a place on a network: packets, events, forwarded ports |
//! | [`shared_interfaces`] | interfaces of the host that can be bridged to |
//! | [`Status`], [`Error`] | the API's numbers, and the reasons behind them |
//! | [`OperatingMode`], [`NetworkMode`] | where interfaces and networks lead |
//! | [`service`] | the varlink interface of the service: its types, calls and errors |
//! | [`client`] | a connection to the service |
//! | [`choice`] | which service is asked: this user's or the machine's |
//! | [`account`] | users and groups of this machine |
//! | [`place`] | where the service listens and keeps its state |
//! | `membership` | a connection that holds a network |
//! | `keeper` | the thread that sees when the service goes, and has everything come back |
//! | `seen` | which networks the machine's service had when it was last asked |
//! | `start` | starting a service that does not run |
//! | `blocking` | varlink without a runtime |

pub mod account;
mod blocking;
pub mod choice;
pub mod client;
mod configuration;
pub mod interface;
mod keeper;
mod membership;
mod mode;
mod network;
pub mod place;
mod seen;
pub mod service;
mod start;
mod status;

pub use configuration::NetworkConfiguration;
pub use interface::{
    Event, Interface, InterfaceConfiguration, InterfaceKeys, InterfaceParameters, MAX_PACKETS,
    PacketBuffers, PortForwardingRule, ReadPacket, WritePacket, shared_interfaces,
};
pub use mode::{NetworkMode, OperatingMode};
pub use network::{Network, NetworkSerialization};
pub use service::Protocol;
pub use status::{Error, Status};
pub use vmnet_wire::ethernet::Mac;
