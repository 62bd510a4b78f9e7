//! The system calls that `rustix` does not have; the only raw `libc` of the workspace.
//!
//! | file | what |
//! | --- | --- |
//! | [`fd_passing`] | descriptors beside a message (`SCM_RIGHTS`) |
//! | [`ioctl`] | the ioctls of a tap |
//! | [`packet`] | a socket that sees the IPv4 packets of one interface |
//! | [`process`] | fork into namespaces, exec, wait, die by a signal |
//! | [`signal`] | signals as something to read |

pub mod fd_passing;
pub mod ioctl;
pub mod packet;
pub mod process;
pub mod signal;
