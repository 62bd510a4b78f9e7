//! The host's sockets that flows have, and what their errors mean.
//!
//! | file | kind |
//! | --- | --- |
//! | [`stream`] | TCP connections, and our streams to the DNS proxy |
//! | [`datagrams`] | UDP and ping sockets |

pub(crate) mod datagrams;
pub(crate) mod stream;

use std::io;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use vmnet_core::HostError;

/// A flow's socket.
#[derive(Debug)]
pub(crate) enum HostSocket {
    Stream(stream::Stream),
    Datagrams(datagrams::Datagrams),
}

/// What an error of the host means to a flow that was to be opened to `to`.
pub(crate) fn error_towards(error: &io::Error, to: SocketAddr) -> HostError {
    // A host that has switched IPv6 off says the same as one that has no port left.
    if to.is_ipv6() && error.raw_os_error() == Some(libc::EADDRNOTAVAIL) && !has_way(to) {
        return HostError::NetworkUnreachable;
    }
    host_error(error)
}

/// The host knows a way to this address, and an address of its own to go there from.
fn has_way(to: SocketAddr) -> bool {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    // Connecting a datagram socket sends nothing.
    UdpSocket::bind(any).is_ok_and(|socket| socket.connect(to).is_ok())
}

/// What an error of the host means to a flow.
pub(crate) fn host_error(error: &io::Error) -> HostError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => HostError::Refused,
        // ENODEV: the interface that it must leave by is away.
        // EAFNOSUPPORT: the host knows no IPv6.
        Some(
            libc::ENETUNREACH | libc::ENETDOWN | libc::ENODEV | libc::ENXIO | libc::EAFNOSUPPORT,
        ) => HostError::NetworkUnreachable,
        Some(libc::EHOSTUNREACH | libc::EHOSTDOWN) => HostError::HostUnreachable,
        Some(libc::ETIMEDOUT) => HostError::TimedOut,
        Some(libc::EACCES | libc::EPERM) => HostError::Forbidden,
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EAGAIN,
        ) => HostError::Exhausted,
        Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN) => {
            HostError::Reset
        }
        _ => HostError::Other,
    }
}
