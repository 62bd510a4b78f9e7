//! The services behind the gateway's address.
//!
//! | file | service |
//! | --- | --- |
//! | `arp` | who has the gateway's address |
//! | `ndp` | the same for IPv6: neighbours, and who asks for a router |
//! | `ra` | router advertisements |
//! | `icmp`, `icmp6` | echo replies, and errors about guests' packets |
//! | [`dhcp`] | which IPv4 address does a guest get |
//! | [`dhcp6`] | which IPv6 address does a guest get, if it asks |
//! | [`register`] | who has which address, for both versions of DHCP |
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
pub(crate) mod icmp6;
pub(crate) mod leases;
pub(crate) mod ndp;
pub(crate) mod ra;
pub mod register;
pub(crate) mod services;
