//! The switch: which port does a frame go to?
//!
//! | file | what |
//! | --- | --- |
//! | [`fdb`] | where a MAC is learned, how it ages and moves |
//! | [`port`] | the ports |
//! | `spoof` | nobody speaks in the gateway's name |

pub mod fdb;
pub mod port;
pub(crate) mod spoof;
