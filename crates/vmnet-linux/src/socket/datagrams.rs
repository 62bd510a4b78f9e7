//! UDP and ping sockets of flows.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use vmnet_core::Datagram;

use crate::sys::{datagram, sockopt};

/// Hops that the host gives a datagram, which is as good as one less.
const TTL_DEFAULT: u8 = 64;

/// A socket for datagrams.
#[derive(Debug)]
pub(crate) struct Datagrams {
    fd: OwnedFd,
    v6: bool,
    ttl: u8,
    dont_fragment: Option<bool>,
    /// Several of one size may be sent as one (`UDP_SEGMENT`).
    segments: bool,
}

impl Datagrams {
    /// A UDP socket.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn udp(v6: bool) -> io::Result<Self> {
        let fd = open(v6, None)?;
        Self::bound(fd, v6)
    }

    /// A UDP socket that somebody bound.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn bound(fd: OwnedFd, v6: bool) -> io::Result<Self> {
        if let Err(error) = sockopt::set_udp_gro(&fd) {
            tracing::debug!(%error, "datagrams are received one by one");
        }
        Self::new(fd, v6)
    }

    /// A ping socket. `EACCES`: the host's `net.ipv4.ping_group_range` has no group of this user.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn echo(v6: bool) -> io::Result<Self> {
        let protocol = if v6 { ipproto::ICMPV6 } else { ipproto::ICMP };
        let fd = open(v6, Some(protocol))?;
        sockopt::set_receive_ttl(&fd)?;
        Self::new(fd, v6)
    }

    fn new(fd: OwnedFd, v6: bool) -> io::Result<Self> {
        sockopt::set_receive_errors(&fd, v6)?;
        Ok(Self {
            fd,
            v6,
            ttl: TTL_DEFAULT,
            dont_fragment: None,
            segments: true,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends a datagram, or several.
    ///
    /// # Errors
    /// As the kernel says. `EMSGSIZE` has an entry in the error queue.
    pub(crate) fn send(&mut self, payload: &[u8], how: &Datagram) -> io::Result<()> {
        self.prepare(how)?;
        if how.segment.is_some() && !self.segments {
            return self.send_singly(payload, how);
        }
        match self.send_once(payload, how) {
            Ok(()) => Ok(()),
            // The kernel, or the route's device, cannot cut: we do.
            Err(error) if how.segment.is_some() && is_no_segments(&error) => {
                self.segments = false;
                self.send_singly(payload, how)
            }
            Err(error) => Err(error),
        }
    }

    fn send_once(&self, payload: &[u8], how: &Datagram) -> io::Result<()> {
        let segment = how
            .segment
            .filter(|size| usize::from(*size) < payload.len());
        match datagram::send(&self.fd, &how.to, payload, segment) {
            Ok(_) => Ok(()),
            // An earlier datagram's error is reported once, by whichever call comes next (ip(7), IP_RECVERR).
            Err(error) if is_of_earlier(&error) => {
                datagram::send(&self.fd, &how.to, payload, segment).map(|_| ())
            }
            Err(error) => Err(error),
        }
    }

    fn send_singly(&self, payload: &[u8], how: &Datagram) -> io::Result<()> {
        let size = how.segment.map_or(payload.len(), usize::from).max(1);
        let single = Datagram {
            segment: None,
            ..*how
        };
        payload
            .chunks(size)
            .try_for_each(|piece| self.send_once(piece, &single))
    }

    fn prepare(&mut self, how: &Datagram) -> io::Result<()> {
        let ttl = if how.ttl >= TTL_DEFAULT - 1 {
            TTL_DEFAULT
        } else {
            how.ttl
        };
        if ttl != self.ttl {
            sockopt::set_ttl(&self.fd, self.v6, ttl)?;
            self.ttl = ttl;
        }
        if self.dont_fragment != Some(how.dont_fragment) {
            sockopt::set_dont_fragment(&self.fd, self.v6, how.dont_fragment)?;
            self.dont_fragment = Some(how.dont_fragment);
        }
        Ok(())
    }

    /// The next entry of the error queue.
    pub(crate) fn take_queued_error(&self, original: &mut [u8]) -> Option<datagram::QueuedError> {
        datagram::take_queued_error(&self.fd, original)
            .ok()
            .flatten()
    }
}

fn open(v6: bool, protocol: Option<rustix::net::Protocol>) -> io::Result<OwnedFd> {
    let family = if v6 {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(
        family,
        SocketType::DGRAM,
        flags,
        protocol,
    )?)
}

fn is_no_segments(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EIO | libc::EOPNOTSUPP)
    )
}

fn is_of_earlier(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EPROTO
                | libc::ENOPROTOOPT
        )
    )
}

/// The socket's address, to tell a mapping's port.
///
/// # Errors
/// As the kernel says.
pub(crate) fn local(fd: impl AsFd) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(rustix::net::getsockname(fd)?)?)
}
