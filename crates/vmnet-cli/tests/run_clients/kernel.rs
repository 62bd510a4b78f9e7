//! The stories of `main.rs` of a network of the machine's service, whose frames the kernel carries.

#[path = "../asking/mod.rs"]
mod asking;
mod common;
mod dhcp;
mod dhcp6;
mod dns;
mod ipv6;
mod life;
mod ports;
mod reach;

use common::{SOON, await_forwards, restart, service_of, stage};

/// The kernel carries the frames.
const KERNEL: bool = true;
