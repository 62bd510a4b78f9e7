//! Everything of a virtual network that is a system call.
//!
//! | file | what |
//! | --- | --- |
//! | [`lane`] | the datapath thread, and the one place where actions become system calls |
//! | `poller` | waiting for many descriptors |
//! | `port` | taps and sockets that lead to guests |
//! | `socket` | sockets that lead to the outside |
//! | [`dns_stream`] | DNS over sockets |
//! | [`resolv`] | the host's resolvers |
//! | `uplink` | the host's outside address |
//! | [`kernel`] | taps, routes, namespaces, mounts |
//! | [`dhcp_client`] | the client of a namespace |
//! | [`sys`] | the only raw `libc` |

pub mod dhcp_client;
pub mod dns_stream;
pub mod kernel;
pub mod lane;
mod poller;
mod port;
pub mod resolv;
mod slots;
mod socket;
pub mod sys;
mod uplink;
