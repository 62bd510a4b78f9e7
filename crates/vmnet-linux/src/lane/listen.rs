//! The listening sockets of forwarded ports. They are made in the thread of whoever asks for them, all or none, so that
//! the datapath never waits for thousands of them.
//!
//! A rule to a guest's IPv6 address that listens on all addresses listens on those of IPv6 alone: the same port by IPv4 may
//! lead to the guest's IPv4 address by a rule of its own, as vmnet's rules do, which are of one family each.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::kernel::sysctl;
use crate::lane::{Forward, ForwardGuest, Ipv4, Prefix, Protocol};
use crate::sys::limits;
use crate::sys::sockopt::set_v6_only;

/// Connections that the kernel makes before we accept them; it has a limit of its own (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// Descriptors that forwards must leave to everything else.
const DESCRIPTORS_LEFT: u64 = 64;

/// A port could not be forwarded. It is the first of several that could not; none of them is forwarded then.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// Somebody listens there already.
    #[error(
        "{protocol}: cannot listen on {listen}: another program listens there; `ss -lnp{} 'sport = :{}'` (as root for \
         programs of others) names it: end it or choose another host port",
        letter(*protocol), listen.port()
    )]
    InUse {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where.
        listen: SocketAddr,
    },
    /// This user may not listen on so low a port.
    #[error(
        "{protocol}: cannot listen on {listen}: ports below {first} are for the superuser: choose another, or \
         `sysctl net.ipv4.ip_unprivileged_port_start={}` (as root)",
        listen.port()
    )]
    Privileged {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where.
        listen: SocketAddr,
        /// The first port that anybody may listen on (`net.ipv4.ip_unprivileged_port_start`).
        first: u16,
    },
    /// The address is not one of this host's.
    #[error(
        "{protocol}: cannot listen on {listen}: the host has no address {}; `ip address` lists those it has, and \
         without an address all of them are meant",
        listen.ip()
    )]
    NoAddress {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where.
        listen: SocketAddr,
    },
    /// Each forwarded port is an open file, and there may be no more.
    #[error(
        "{protocol}: cannot listen on {listen}: this process may open {limit} files (RLIMIT_NOFILE), and each \
         forwarded port is one: forward fewer, or raise the limit (`ulimit -n`, or `LimitNOFILE=` of its systemd unit)"
    )]
    TooManyFiles {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where.
        listen: SocketAddr,
        /// Files that may be open.
        limit: u64,
    },
    /// The host refused for another reason.
    #[error("{protocol}: cannot listen on {listen}: {source}")]
    Listen {
        /// TCP or UDP.
        protocol: Protocol,
        /// Where.
        listen: SocketAddr,
        /// What the host said.
        source: io::Error,
    },
    /// The network's gateway has no address.
    #[error(
        "nothing can be forwarded on a network without a gateway: give the network a subnet or an IPv6 prefix"
    )]
    NoGateway,
    /// No guest can have the address.
    #[error("{0} is no guest's address: it must be in {subnet} and not the gateway's, {gateway}", subnet = .1.subnet(), gateway = .1.gateway())]
    NotAGuest(Ipv4Addr, Ipv4),
    /// No guest can have the address.
    #[error("{0} is no guest's address: it must be in {1} and not the gateway's, {gateway}", gateway = .1.gateway())]
    NotInPrefix(Ipv6Addr, Prefix),
    /// No guest has addresses of its family.
    #[error("{0} is no guest's address: the network has no {family}", family = if .0.is_ipv4() { "IPv4 subnet" } else { "IPv6 prefix" })]
    OtherFamily(IpAddr),
    /// The lane has ended.
    #[error("the network has ended")]
    Ended,
}

impl ForwardError {
    /// What an error of the host means to whoever wants to listen.
    #[must_use]
    pub fn of(protocol: Protocol, listen: SocketAddr, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EADDRINUSE) => Self::InUse { protocol, listen },
            Some(libc::EADDRNOTAVAIL) => Self::NoAddress { protocol, listen },
            Some(libc::EACCES) => Self::Privileged {
                protocol,
                listen,
                first: sysctl::first_unprivileged_port(),
            },
            Some(libc::EMFILE) => Self::TooManyFiles {
                protocol,
                listen,
                limit: limits::open_files(),
            },
            _ => Self::Listen {
                protocol,
                listen,
                source,
            },
        }
    }
}

fn letter(protocol: Protocol) -> char {
    match protocol {
        Protocol::Tcp => 't',
        Protocol::Udp => 'u',
    }
}

/// Listens for all of them, in order. One for datagrams to all addresses becomes two, one for each family: a socket for
/// datagrams has one guest's address behind it, and its clients are of that family.
///
/// # Errors
/// About the first for which it cannot; nothing is listened on then.
pub(super) fn open_all(forwards: Vec<Forward>) -> Result<Vec<(Forward, OwnedFd)>, ForwardError> {
    take_all(&forwards, true)
}

/// Takes the ports, so that nobody else does, and listens on none of them.
///
/// # Errors
/// As [`open_all`].
pub(super) fn reserve_all(forwards: &[Forward]) -> Result<Vec<OwnedFd>, ForwardError> {
    let taken = take_all(forwards, false)?;
    Ok(taken.into_iter().map(|(_, socket)| socket).collect())
}

fn take_all(forwards: &[Forward], listens: bool) -> Result<Vec<(Forward, OwnedFd)>, ForwardError> {
    let limit = limits::raise_open_files();
    let usable = limit.saturating_sub(DESCRIPTORS_LEFT);
    let mut sockets = Vec::with_capacity(forwards.len());
    let has_ipv6 = has_ipv6();
    for forward in forwards.iter().flat_map(|one| families(one, has_ipv6)) {
        let (protocol, listen) = (forward.protocol, forward.listen);
        let socket =
            open(&forward, listens).map_err(|error| ForwardError::of(protocol, listen, error))?;
        // The kernel gives the lowest number that is free: this one tells how many are open.
        if u64::try_from(socket.as_raw_fd()).is_ok_and(|number| number >= usable) {
            return Err(ForwardError::TooManyFiles {
                protocol,
                listen,
                limit,
            });
        }
        sockets.push((forward, socket));
    }
    Ok(sockets)
}

/// The kernel knows IPv6 at all, switched on or off.
fn has_ipv6() -> bool {
    rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None).is_ok()
}

/// What a forward means on this host: `[::]` is for both families, or for IPv4 alone where there is no other; for IPv6 alone
/// if it leads to an address of IPv6.
fn families(forward: &Forward, has_ipv6: bool) -> impl Iterator<Item = Forward> + use<> {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, forward.listen.port()));
    let all = is_all(forward);
    let first = if all && !has_ipv6 { v4 } else { forward.listen };
    let second = (all && has_ipv6 && forward.protocol == Protocol::Udp).then_some(v4);
    let forward = *forward;
    let at = move |listen| Forward { listen, ..forward };
    std::iter::once(first).chain(second).map(at)
}

/// It is for all addresses of both families.
fn is_all(forward: &Forward) -> bool {
    let one_family = matches!(forward.guest, ForwardGuest::Address(IpAddr::V6(_)));
    forward.listen.is_ipv6() && forward.listen.ip().is_unspecified() && !one_family
}

fn open(forward: &Forward, listens: bool) -> io::Result<OwnedFd> {
    let (protocol, listen) = (forward.protocol, forward.listen);
    let family = match listen {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if listen.is_ipv6() {
        // Whatever the host's default is (net.ipv6.bindv6only).
        set_v6_only(&socket, protocol == Protocol::Udp || !is_all(forward))?;
    }
    if protocol == Protocol::Tcp && listens {
        // Connections of a forward that has ended do not stand in the way of the next.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &listen)?;
    if protocol == Protocol::Tcp && listens {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::ForwardGuest;
    use std::net::{TcpListener, TcpStream};

    fn forward(listen: SocketAddr) -> Forward {
        Forward {
            protocol: Protocol::Tcp,
            listen,
            guest: ForwardGuest::Address([192, 168, 64, 2].into()),
            guest_port: 80,
        }
    }

    #[test]
    fn the_first_that_fails_is_named_and_the_others_are_closed() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = taken.local_addr().unwrap();
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let error = open_all(vec![forward(free), forward(busy)]).unwrap_err();
        assert!(matches!(error, ForwardError::InUse { listen, .. } if listen == busy));
        let text = error.to_string();
        assert!(text.contains("ss -lnpt"), "{text}");
        TcpStream::connect(free).expect_err("closed again");
        let elsewhere = forward("192.0.2.77:80".parse().unwrap());
        let text = open_all(vec![elsewhere]).unwrap_err().to_string();
        assert!(text.contains("no address 192.0.2.77"), "{text}");
    }

    #[test]
    fn every_reason_has_a_remedy() {
        let listen = "0.0.0.0:80".parse().unwrap();
        for (errno, word) in [
            (libc::EADDRINUSE, "ss -lnpu 'sport = :80'"),
            (libc::EACCES, "ip_unprivileged_port_start=80"),
            (libc::EADDRNOTAVAIL, "no address 0.0.0.0"),
            (libc::EMFILE, "LimitNOFILE"),
            (libc::ENOBUFS, "UDP: cannot listen on 0.0.0.0:80"),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let text = ForwardError::of(Protocol::Udp, listen, error).to_string();
            assert!(text.contains(word), "{text}");
        }
    }

    #[test]
    fn all_addresses_are_those_of_both_families() {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let socket = open(&forward(all), true).unwrap();
        let port = crate::socket::datagrams::local(&socket).unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        TcpStream::connect(("::1", port)).unwrap();
        let one = open(&forward("[::1]:0".parse().unwrap()), true).unwrap();
        let port = crate::socket::datagrams::local(&one).unwrap().port();
        TcpStream::connect(("::1", port)).unwrap();
        TcpStream::connect(("127.0.0.1", port)).unwrap_err();
    }

    #[test]
    fn a_rule_for_each_family_may_have_one_port() {
        let any = |ip: &str, port| SocketAddr::new(ip.parse().unwrap(), port);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let to = |listen, guest: &str| Forward {
                protocol,
                guest: ForwardGuest::Address(guest.parse().unwrap()),
                ..forward(listen)
            };
            let v6 = open_all(vec![to(any("::", 0), "fd00::2")]).unwrap();
            let [(_, socket)] = v6.as_slice() else {
                panic!("{v6:?}");
            };
            let port = crate::socket::datagrams::local(socket).unwrap().port();
            let v4 = open_all(vec![to(any("0.0.0.0", port), "192.168.64.2")]).unwrap();
            assert_eq!(v4.len(), 1);
            if protocol == Protocol::Tcp {
                TcpStream::connect(("::1", port)).unwrap();
                drop(v4);
                TcpStream::connect(("127.0.0.1", port)).unwrap_err();
            }
        }
    }

    #[test]
    fn all_addresses_are_two_sockets_for_datagrams_and_one_for_streams() {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 80));
        let of = |protocol, has_ipv6| {
            let rule = Forward {
                protocol,
                ..forward(all)
            };
            let found: Vec<String> = families(&rule, has_ipv6)
                .map(|forward| forward.listen.to_string())
                .collect();
            found.join(" ")
        };
        assert_eq!(of(Protocol::Tcp, true), "[::]:80");
        assert_eq!(of(Protocol::Udp, true), "[::]:80 0.0.0.0:80");
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            assert_eq!(of(protocol, false), "0.0.0.0:80");
        }
    }
}
