//! The system calls that `rustix` does not have; the only raw `libc` of the workspace.
//!
//! | file | what |
//! | --- | --- |
//! | [`datagram`] | many datagrams in one call, their control messages, the error queue |
//! | [`fd_passing`] | descriptors beside a message (`SCM_RIGHTS`) |
//! | [`interfaces`] | addresses of the host |
//! | [`ioctl`] | the ioctls of a tap |
//! | [`lan_socket`] | a socket that sees and sends the frames of one interface |
//! | [`limits`] | how many files may be open |
//! | [`packet`] | a socket that sees the IPv4 packets of one interface |
//! | [`peer`] | who is at the other end of a unix socket |
//! | [`peek`] | peeking behind the front without `SO_PEEK_OFF` |
//! | [`places`] | bytes in many places, of ours and of guests, in one call |
//! | [`privilege`] | capabilities, and giving them up |
//! | [`process`] | fork into namespaces, exec, wait, die by a signal |
//! | [`signal`] | signals as something to read |
//! | `signal_eventfd` | eventfds of others, signalled without waiting |
//! | [`sockopt`] | options of sockets |
//! | [`unix_datagram`] | many frames to one guest in one call |

pub mod datagram;
pub mod fd_passing;
pub mod interfaces;
pub mod ioctl;
pub mod lan_socket;
pub mod limits;
pub mod packet;
pub mod peek;
pub mod peer;
pub mod places;
pub mod privilege;
pub mod process;
pub mod signal;
pub(crate) mod signal_eventfd;
pub mod sockopt;
pub mod unix_datagram;
