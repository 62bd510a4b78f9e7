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

#[path = "../asking/mod.rs"]
mod asking;
mod dhcp;
mod dhcp6;
mod dns;
mod ipv6;
mod life;
mod ports;
mod reach;

use asking::Service;
use std::time::Duration;

use vmnet_lab::prerequisite::Prerequisite;
use vmnet_lab::stage::Stage;

/// These stories are told twice: of networks of the user's own, and, as the test `kernel_stories`, of a network of the
/// machine's service, whose frames the kernel carries.
const KERNEL: bool = matches!(env!("CARGO_CRATE_NAME").as_bytes(), b"kernel_stories");

/// For what takes a moment, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(30);

fn stage(programs: &[&'static str]) -> Option<Stage> {
    let programs: Vec<_> = programs
        .iter()
        .copied()
        .map(Prerequisite::Program)
        .collect();
    if KERNEL {
        Stage::of_machine(env!("CARGO_BIN_EXE_vmnet"), &programs)
    } else {
        Stage::new(env!("CARGO_BIN_EXE_vmnet"), &programs)
    }
}

/// The service of the stage's user, which may not run.
fn service_of(stage: &Stage) -> Service<'_> {
    Service(stage)
}
