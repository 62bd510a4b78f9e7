//! The services behind the gateway's address.
//!
//! | file | service |
//! | --- | --- |
//! | `arp` | who has the gateway's address |
//! | `icmp` | echo replies, and errors about guests' packets |
//! | [`dhcp`] | which IPv4 address does a guest get |
//! | [`register`] | who has which address, for both versions of DHCP |
//! | [`dhcp6`] | which IPv6 address does a guest get, if it asks |
//! | [`dns`] | names of guests, and everything else by the host's resolvers |
//! | `guest_names` | which address gets which guest's name |
//! | `leases` | what DHCP's leases bring with them: names, the store |
//! | `services` | DHCP and DNS joined to the network: who asked, where the answer goes |

pub(crate) mod arp;
pub mod dhcp;
pub mod dhcp6;
pub mod dns;
pub(crate) mod guest_names;
pub(crate) mod icmp;
pub(crate) mod leases;
pub mod register;
pub(crate) mod services;
