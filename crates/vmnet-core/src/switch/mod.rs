//! The switch: which port does a frame go to?
//!
//! | file | what |
//! | --- | --- |
//! | [`fdb`] | where a MAC is learned, how it ages and moves |
//! | [`port`] | the ports |
//! | `spoof` | nobody speaks in the gateway's name |
//! | `guard` | the same with IPv6: nobody is a router or a DHCPv6 server but the gateway |

pub mod fdb;
pub(crate) mod guard;
pub mod port;
pub(crate) mod spoof;
