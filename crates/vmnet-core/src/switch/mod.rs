//! The switch: which port does a frame go to?
//!
//! | file | what |
//! | --- | --- |
//! | [`fdb`] | where a MAC is learned, how it ages and moves |
//! | [`port`] | the ports |
//! | `mac_hash` | by what an address is found in the table |
//! | `spoof` | nobody speaks in the gateway's name |
//! | `guard` | the same with IPv6: nobody is a router or a DHCPv6 server but the gateway |

pub mod fdb;
pub(crate) mod guard;
mod mac_hash;
pub mod port;
pub(crate) mod spoof;
