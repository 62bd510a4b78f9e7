//! A network whose guests, host and internet are simulated, under one jumping clock.
//!
//! | file | what |
//! | --- | --- |
//! | [`lan`] | a network and all around it |
//! | `clock` | the clock, and what happens next |
//! | `execute` | carries out the core's actions |
//! | [`apps`] | what guests do with their connections |
//! | [`contract`] | what the core promised its caller, checked at every action |
//! | [`guest`] | guests: a TCP/IP stack of their own, or raw frames |
//! | [`internet`] | what is behind the NAT's sockets |
//! | [`stream`] | one TCP socket of the host and the server behind it |
//! | [`packets`], [`packets6`] | frames made by hand; IPv6 |
//! | [`trouble`] | seeded loss, duplication, reordering, bit flips |
//! | [`trace`] | frames as readable text |
//! | [`nonsense`] | any sequence of events, for fuzzing |

pub mod apps;
mod clock;
pub mod contract;
mod execute;
pub mod guest;
pub mod internet;
pub mod lan;
pub mod nonsense;
pub mod packets;
pub mod packets6;
pub mod stream;
pub mod trace;
pub mod trouble;

pub use apps::Talk;
pub use guest::Guest;
pub use internet::{Internet, UdpHost};
pub use lan::{Lan, Wire};
pub use stream::{Server, Stream, pattern};
pub use trouble::{Dice, Trouble};
