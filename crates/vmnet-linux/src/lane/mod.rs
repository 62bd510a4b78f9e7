//! The lane: one thread that owns a network, with all its ports and sockets.
//!
//! | file | what |
//! | --- | --- |
//! | `handle` | what other threads ask of a lane, and what they get |
//! | `datapath` | the thread: wait, dispatch, read, flush |
//! | `execute` | where actions of the core become system calls |
//! | `guests` | frames from ports, guests that come and go |
//! | `rings` | frames from rings in guests' memory |
//! | `vmm` | VMMs that come and go, and what they say of their rings |
//! | `leaving` | guests that go without a word |
//! | `patience` | looking again for a moment before sleeping |
//! | `sockets` | events of the flows' sockets |
//! | `names` | queries to resolvers, and streams to the DNS proxy |
//! | `leases` | leases stored and put back, addresses reserved |
//! | `wall_clock` | points of our clock as dates, and back |
//! | `forwarding` | forwarded ports, sockets that guests come by |
//! | `following` | segments on their way to one socket, by one call |
//! | `joining` | small segments on their way to who takes large ones |
//! | `listen` | listening sockets, made in the asker's thread |

mod datapath;
mod execute;
mod following;
mod forwarding;
mod guests;
mod handle;
mod joining;
mod leases;
mod leaving;
mod listen;
mod names;
mod patience;
mod rings;
mod sockets;
mod vmm;
mod wall_clock;

pub use datapath::{gateway_mac, services_mac};
pub use handle::{
    AttachError, Attachment, CountersSnapshot, Dhcp, Dhcp6, Dns, Forward, ForwardGuest, ForwardId,
    GuestAddresses, GuestSocket, Handle, Ipv4, Label, ListenerId, MTU_MAX, MTU_MIN, MTU_MIN_IPV6,
    PortId, PortKind, PortOffload, PortOptions, PortRow, Prefix, PrefixError, Protocol, Role,
    Settings, StartError, Subnet, start,
};
pub use leases::{
    LeaseKeeper, LeaseRecord, LeaseRow, LeaseState, LeaseWrite, Receipt, ReserveRefused, Reservee,
};
pub use listen::ForwardError;
pub use vmm::VhostUserSocket;
