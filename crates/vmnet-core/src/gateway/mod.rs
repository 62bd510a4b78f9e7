//! The services behind the gateway's address.
//!
//! | file | service |
//! | --- | --- |
//! | `arp` | who has the gateway's address |
//! | `ndp` | the same for IPv6: neighbours, and who asks for a router |
//! | `ra` | router advertisements |
//! | `icmp`, `icmp6` | echo replies, and errors about guests' packets |
//! | [`dhcp`] | which address does a guest get |
//! | `dhcp6` | the same by DHCPv6 |
//! | [`dns`] | names of guests, and everything else by the host's resolvers |
//! | `leases` | what DHCP's leases bring with them: names, the store |
//! | `services` | DHCP and DNS joined to the network: who asked, where the answer goes |

pub(crate) mod arp;
pub mod dhcp;
pub(crate) mod dhcp6;
pub mod dns;
pub(crate) mod icmp;
pub(crate) mod icmp6;
pub(crate) mod leases;
pub(crate) mod ndp;
pub(crate) mod ra;
pub(crate) mod services;
