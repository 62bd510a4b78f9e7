//! The service: named networks that any process joins, with addresses that stay.
//!
//! | file | what |
//! | --- | --- |
//! | `listening` | where the socket comes from |
//! | `connection` | who may connect, and one task for each who does |
//! | `transport` | varlink over a unix socket, with limits |
//! | `call` | what a message asks for, and whether it fits |
//! | `rpc` | the calls |
//! | `bridgeable` | interfaces of the host that can be bridged to |
//! | `supervisor/` | which networks there are, who holds them, what is on them |
//! | `plan/` | what a network is, with everything decided |
//! | `descriptor` | what a client's descriptor must be |
//! | [`store`] | what must stay |
//! | `file` | the configuration file |
//! | `system` | the machine's service: who may use it, as whom it runs |
//! | [`privileged`] | what takes privileges, done by another process |
//! | `life` | from the start to the end of the process |

mod bridgeable;
mod call;
mod connection;
mod descriptor;
mod file;
mod life;
mod listening;
mod plan;
pub mod privileged;
mod rpc;
pub mod store;
mod supervisor;
mod system;
mod transport;

pub use bridgeable::interfaces as shared_interfaces;
pub use file::ConfigurationError;
pub use life::{DaemonError, Idle, Options, State, check_configuration, run};
pub use listening::ListenError;
pub use system::SystemError;
