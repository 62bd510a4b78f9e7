//! The system calls that `rustix` does not have; the only raw `libc` of the workspace.
//!
//! | file | what |
//! | --- | --- |
//! | [`datagram`] | many datagrams in one call, their control messages, the error queue |
//! | [`interfaces`] | addresses of the host |
//! | [`peek`] | peeking behind the front without `SO_PEEK_OFF` |
//! | [`sockopt`] | options of sockets |

pub mod datagram;
pub mod interfaces;
pub mod peek;
pub mod sockopt;
