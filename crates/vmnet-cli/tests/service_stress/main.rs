//! The service under many hands: stories that last, with figures.
//!
//! | file | what is seen |
//! | --- | --- |
//! | `play.rs` | a story is played by a copy of this program, as an ordinary user, in folders of its own |
//! | `guest.rs` | a place on a network, and the DHCP frames of guests |
//! | `daemon.rs` | what the service's process uses; seeded chance; times |
//! | `churn.rs` | twenty processes that start and stop interfaces on one network |
//! | `many.rs` | a thousand interfaces |
//! | `crash.rs` | ten thousand leases, and `kill -9` meanwhile |
//! | `ports.rs` | ten thousand forwarded ports |
//! | `holders.rs` | who holds a network when its maker dies |
//! | `full_disk.rs` | a full disk, and room again |
//!
//! `VMNET_STRESS_SECONDS` says how long stories last that could last for ever, `VMNET_STRESS_SEED` which chances there are.

mod churn;
mod crash;
mod daemon;
mod full_disk;
mod guest;
mod holders;
mod many;
mod play;
mod ports;
#[path = "../stage/mod.rs"]
mod stage;
