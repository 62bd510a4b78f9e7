//! The services behind the gateway's address.
//!
//! | file | service |
//! | --- | --- |
//! | `arp` | who has the gateway's address |
//! | `icmp` | echo replies, and errors about guests' packets |
//! | [`dhcp`] | which address does a guest get |
//! | [`dns`] | names of guests, and everything else by the host's resolvers |
//! | `leases` | what DHCP's leases bring with them: names, the store |
//! | `services` | DHCP and DNS joined to the network: who asked, where the answer goes |

pub(crate) mod arp;
pub mod dhcp;
pub mod dns;
pub(crate) mod icmp;
pub(crate) mod leases;
pub(crate) mod services;
