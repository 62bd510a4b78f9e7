//! The behaviour of one virtual network, without I/O: switch, gateway, NAT.
//!
//! [`Network`] takes frames of guests ([`Network::receive`]), what happened to the host's sockets
//! ([`Network::event`]) and the time, and fills an [`Outbox`] with [`Action`]s that the caller
//! carries out. It sees the heads of frames, never their bodies.
//!
//! | file | what |
//! | --- | --- |
//! | [`network`] | the whole: what a call leads to |
//! | [`frame`], [`outbox`], [`event`] | what goes in and out |
//! | [`switch`] | which port does a frame go to |
//! | [`gateway`] | ARP, neighbour discovery, router advertisements, ICMP, DHCP, DNS |
//! | [`nat`] | TCP, UDP and echo through the host's sockets; forwarded ports |
//! | `reassembly` | datagrams that come in fragments |
//! | `link` | where frames towards guests are made |
//! | `neighbours` | which guest's address belongs to which MAC |
//! | [`mod@drop`] | why was this frame dropped |
//! | [`deadline`] | what is due next |
//! | [`subnet`], [`prefix`] | addresses of a network |
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]

pub mod deadline;
pub mod drop;
pub mod event;
pub mod frame;
pub mod gateway;
mod link;
pub mod nat;
mod neighbours;
pub mod network;
pub mod outbox;
pub mod prefix;
mod reassembly;
pub mod subnet;
mod succession;
pub mod switch;

pub use crate::drop::{Drop, Drops};
pub use event::{Event, HostError, IcmpError, Read, ReadTo};
pub use frame::{Frame, HEAD_MIN, Span, head_wanted};
pub use gateway::dns::Label;
pub use nat::port_forward::{Forward, ForwardGuest, ForwardProtocol};
pub use network::{Config, ConfigError, Dhcp, Dhcp6, Dns, MTU_MAX, MTU_MIN, MTU_MIN_IPV6, Network};
pub use outbox::{Action, Datagram, ForwardId, Outbox, PortId, SocketId, Target};
pub use prefix::{Prefix, PrefixError};
pub use subnet::{Ipv4, Subnet};
pub use succession::Succession;
pub use switch::port::{Port, Role};
