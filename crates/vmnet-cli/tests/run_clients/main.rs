//! Commands in `vmnet run`, as a user without rights: real DHCP and DNS clients, signals, ports, reachability.
//!
//! | file | what is seen |
//! | --- | --- |
//! | `dhcp.rs` | dhclient, dhcpcd and udhcpc take a lease; our own client sets up the namespace |
//! | `dhcp6.rs` | ISC's, dhcpcd, WIDE's and systemd's clients take addresses by DHCPv6 |
//! | `dns.rs` | dig over UDP and TCP, truncation, fail-over, names of guests |
//! | `ipv6.rs` | addresses, the world, names and forwarded ports by IPv6; a host without |
//! | `life.rs` | exit status, signals, and that nothing is left |
//! | `ports.rs` | forwarded ports, with the client's address |
//! | `reach.rs` | what can be reached, what is refused, and how soon |
//! | `own.rs` | what only networks of the user's own have |
//!
//! All but `own.rs` are told twice: of networks of the user's own, and, as the test `kernel_stories` (`kernel.rs`), of a network
//! of the machine's service, whose frames the kernel carries.

#[path = "../asking/mod.rs"]
mod asking;
mod dhcp;
mod dhcp6;
mod dns;
mod ipv6;
mod life;
mod own;
mod ports;
mod reach;
mod scene;

use scene::{SOON, await_forwards, restart, service_of, stage};

/// The kernel carries the frames.
const KERNEL: bool = false;
