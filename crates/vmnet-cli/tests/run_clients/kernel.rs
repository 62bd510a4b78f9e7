//! The stories of `main.rs` of a network of the machine's service, whose frames the kernel carries.

#[path = "../asking/mod.rs"]
mod asking;
mod dhcp;
mod dhcp6;
mod dns;
mod ipv6;
mod life;
mod ports;
mod reach;
mod scene;

use scene::{SOON, await_forwards, restart, service_of, stage};

/// The kernel carries the frames.
const KERNEL: bool = true;
