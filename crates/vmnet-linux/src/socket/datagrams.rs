//! UDP and ping sockets of flows.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use vmnet_core::Datagram;

use crate::port::body::Body;
use crate::sys::packet::bind_to_interface;
use crate::sys::places::Places;
use crate::sys::{datagram, sockopt};

/// Hops that the host gives a datagram, which is as good as one less.
const TTL_DEFAULT: u8 = 64;

/// After so many datagrams in a row to one peer, it gets a socket of its own.
const STREAK: u32 = 64;

/// A descriptor, and what was told to the kernel about what leaves by it.
#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    v6: bool,
    ttl: u8,
    dont_fragment: Option<bool>,
}

impl Socket {
    fn new(fd: OwnedFd, v6: bool) -> io::Result<Self> {
        sockopt::set_receive_errors(&fd, v6)?;
        Ok(Self {
            fd,
            v6,
            ttl: TTL_DEFAULT,
            dont_fragment: None,
        })
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
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Udp,
    Echo,
}

/// A flow's sockets for datagrams.
#[derive(Debug)]
pub(crate) struct Datagrams {
    /// Speaks to everybody.
    open: Socket,
    /// Of the same port, connected to the peer that is spoken to most: the kernel looks its route up once, and gives it
    /// what comes from that peer.
    direct: Option<(SocketAddr, Socket)>,
    /// The interface that everything to the outside leaves by.
    by: Option<Rc<str>>,
    /// That interface was away when the socket was made.
    away: bool,
    /// Of the same port, for the host itself, which that interface does not lead to.
    home: Option<Socket>,
    kind: Kind,
    /// To whom the last datagrams went, and how many.
    streak: (Option<SocketAddr>, u32),
    /// Several of one size may be sent as one (`UDP_SEGMENT`).
    segments: bool,
}

impl Datagrams {
    /// A UDP socket, whose datagrams to the outside leave by an interface if one is given.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn udp(v6: bool, by: Option<Rc<str>>) -> io::Result<Self> {
        Self::leaving_by(Kind::Udp, v6, by)
    }

    /// A UDP socket that somebody bound.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn bound(fd: OwnedFd) -> io::Result<Self> {
        if let Err(error) = sockopt::set_udp_gro(&fd) {
            tracing::debug!(%error, "datagrams are received one by one");
        }
        let v6 = local(&fd)?.is_ipv6();
        Self::new(fd, v6, Kind::Udp)
    }

    /// A ping socket. `EACCES`: the host's `net.ipv4.ping_group_range` has no group of this user.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn echo(v6: bool, by: Option<Rc<str>>) -> io::Result<Self> {
        let mut echo = Self::leaving_by(Kind::Echo, v6, by)?;
        // Never in a row: the kernel gives a ping socket of its own another identifier.
        echo.streak.1 = u32::MAX;
        Ok(echo)
    }

    fn leaving_by(kind: Kind, v6: bool, by: Option<Rc<str>>) -> io::Result<Self> {
        let fd = make(kind, v6)?;
        let away = match by.as_deref().map(|name| bind_to_interface(&fd, name)) {
            Some(Err(error)) if error.raw_os_error() == Some(libc::ENODEV) => true,
            Some(Err(error)) => return Err(error),
            Some(Ok(())) | None => false,
        };
        Ok(Self {
            by,
            away,
            ..Self::new(fd, v6, kind)?
        })
    }

    fn new(fd: OwnedFd, v6: bool, kind: Kind) -> io::Result<Self> {
        Ok(Self {
            open: Socket::new(fd, v6)?,
            direct: None,
            by: None,
            away: false,
            home: None,
            kind,
            streak: (None, 0),
            segments: true,
        })
    }

    /// The interface is another one than before: a socket of the same port that leaves by it takes the place of the
    /// first, to be watched. `None`: this flow has nothing to do with it, or it is away again.
    pub(crate) fn rebind(&mut self) -> Option<BorrowedFd<'_>> {
        let name = self.by.as_deref()?;
        // A socket that is bound to an interface cannot leave it without privileges (socket(7)).
        let again = self.of_same_port().and_then(|fd| {
            bind_to_interface(&fd, name)?;
            Socket::new(fd, self.open.v6)
        });
        match again {
            Ok(socket) => {
                self.open = socket;
                self.direct = None;
                self.away = false;
                Some(self.fd())
            }
            Err(error) => {
                tracing::debug!(%error, "a flow stays without its interface");
                None
            }
        }
    }

    /// The socket for the host itself, if it has just been made.
    fn home(&mut self) -> io::Result<&mut Socket> {
        let home = match self.home.take() {
            Some(home) => home,
            None => Socket::new(self.of_same_port()?, self.open.v6)?,
        };
        Ok(self.home.insert(home))
    }

    /// The socket that speaks to the host itself, if that is another one.
    pub(crate) fn home_fd(&self) -> Option<BorrowedFd<'_>> {
        self.home.as_ref().map(|socket| socket.fd.as_fd())
    }

    /// What goes to an address of the host takes another way than the rest.
    pub(crate) fn leaves_by_interface(&self) -> bool {
        self.by.is_some()
    }

    /// Sends a datagram to the host itself, past the interface. Answers whether its socket is new, to be watched.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn send_home(&mut self, payload: &[u8], how: &Datagram) -> io::Result<bool> {
        let is_new = self.home.is_none();
        let home = self.home()?;
        home.prepare(how)?;
        let size = how.segment.map_or(payload.len(), usize::from).max(1);
        if payload.is_empty() {
            send_once(&home.fd, Some(&how.to), payload, None)?;
        }
        for piece in payload.chunks(size) {
            send_once(&home.fd, Some(&how.to), piece, None)?;
        }
        Ok(is_new)
    }

    /// A socket of the same kind and port.
    fn of_same_port(&self) -> io::Result<OwnedFd> {
        let fd = make(self.kind, self.open.v6)?;
        if self.kind == Kind::Udp {
            let here = local(&self.open.fd)?;
            // Not before the port was chosen, or the kernel might choose one for two guests.
            rustix::net::sockopt::set_socket_reuseaddr(&self.open.fd, true)?;
            rustix::net::sockopt::set_socket_reuseaddr(&fd, true)?;
            rustix::net::bind(&fd, &here)?;
        }
        Ok(fd)
    }

    /// The socket that speaks to everybody.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.open.fd.as_fd()
    }

    /// The socket of the peer that is spoken to most, if it has one.
    pub(crate) fn direct(&self) -> Option<BorrowedFd<'_>> {
        self.direct.as_ref().map(|(_, socket)| socket.fd.as_fd())
    }

    /// A datagram went to `peer`. Answers whether it has a socket of its own from now on.
    pub(crate) fn follow(&mut self, peer: SocketAddr) -> bool {
        if self.direct.is_some() || self.streak.1 == u32::MAX {
            return false;
        }
        if self.streak.0 != Some(peer) {
            self.streak = (Some(peer), 0);
        }
        self.streak.1 += 1;
        if self.streak.1 < STREAK {
            return false;
        }
        match self.connect(peer) {
            Ok(socket) => self.direct = Some((peer, socket)),
            // Then it goes on as before, and is not tried again.
            Err(error) => {
                tracing::debug!(%peer, %error, "no socket of its own for a peer");
                self.streak.1 = u32::MAX;
            }
        }
        self.direct.is_some()
    }

    /// A socket of the same port, for `peer` alone.
    fn connect(&self, peer: SocketAddr) -> io::Result<Socket> {
        let fd = self.of_same_port()?;
        if let Some(name) = self.by.as_deref() {
            bind_to_interface(&fd, name)?;
        }
        rustix::net::connect(&fd, &peer)?;
        Socket::new(fd, self.open.v6)
    }

    /// Sends a datagram, or several.
    ///
    /// # Errors
    /// As the kernel says. `EMSGSIZE` has an entry in the error queue.
    pub(crate) fn send(
        &mut self,
        payload: Body<'_>,
        how: &Datagram,
        scratch: &mut Vec<u8>,
    ) -> io::Result<()> {
        if self.away {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let segments = self.segments;
        let (socket, to) = match &mut self.direct {
            Some((peer, socket)) if *peer == how.to => (socket, None),
            _ => (&mut self.open, Some(how.to)),
        };
        socket.prepare(how)?;
        let size = how
            .segment
            .filter(|size| usize::from(*size) < payload.len());
        if let Some(size) = size
            && segments
        {
            match send_whole(&socket.fd, to.as_ref(), payload, Some(size), scratch) {
                // The kernel, or the route's device, cannot cut: we do.
                Err(error) if is_no_segments(&error) => self.segments = false,
                sent => return sent,
            }
        }
        let fd = match (&self.direct, to) {
            (Some((_, socket)), None) => &socket.fd,
            _ => &self.open.fd,
        };
        let Some(size) = size.map(usize::from) else {
            return send_whole(fd, to.as_ref(), payload, None, scratch);
        };
        let payload = payload.gathered(scratch);
        payload
            .chunks(size)
            .try_for_each(|piece| send_once(fd, to.as_ref(), piece, None))
    }

    /// The next entry of the error queue.
    pub(crate) fn take_queued_error(&self, original: &mut [u8]) -> Option<datagram::QueuedError> {
        let of = |fd: &OwnedFd, original: &mut [u8]| {
            datagram::take_queued_error(fd, original).ok().flatten()
        };
        let direct = self.direct.as_ref().map(|(_, socket)| &socket.fd);
        let home = self.home.as_ref().map(|socket| &socket.fd);
        of(&self.open.fd, original)
            .or_else(|| of(direct?, original))
            .or_else(|| of(home?, original))
    }
}

/// A socket of this kind; of UDP, one that has a port of the kernel's choice once it has sent.
fn make(kind: Kind, v6: bool) -> io::Result<OwnedFd> {
    match kind {
        Kind::Udp => {
            let fd = open(v6, None)?;
            if v6 {
                // Strangers of the other family are no peers of an IPv6 flow.
                sockopt::set_v6_only(&fd, true)?;
            }
            if let Err(error) = sockopt::set_udp_gro(&fd) {
                tracing::debug!(%error, "datagrams are received one by one");
            }
            Ok(fd)
        }
        Kind::Echo => {
            let protocol = if v6 { ipproto::ICMPV6 } else { ipproto::ICMP };
            let fd = open(v6, Some(protocol))?;
            sockopt::set_receive_ttl(&fd, v6)?;
            Ok(fd)
        }
    }
}

/// Sends a datagram from where it is.
fn send_whole(
    fd: &OwnedFd,
    to: Option<&SocketAddr>,
    payload: Body<'_>,
    segment: Option<u16>,
    scratch: &mut Vec<u8>,
) -> io::Result<()> {
    let mut places = Places::new();
    payload.name_to(&mut places);
    if !places.is_whole() {
        return send_once(fd, to, payload.gathered(scratch), segment);
    }
    send_places(fd, to, &places, segment)
}

fn send_once(
    fd: &OwnedFd,
    to: Option<&SocketAddr>,
    payload: &[u8],
    segment: Option<u16>,
) -> io::Result<()> {
    let mut places = Places::new();
    places.push(payload);
    send_places(fd, to, &places, segment)
}

fn send_places(
    fd: &OwnedFd,
    to: Option<&SocketAddr>,
    places: &Places<'_>,
    segment: Option<u16>,
) -> io::Result<()> {
    match datagram::send(fd, to, places, segment) {
        // An earlier datagram's error is reported once, by whichever call comes next (ip(7), IP_RECVERR).
        Err(error) if is_of_earlier(&error) => datagram::send(fd, to, places, segment),
        sent => sent,
    }
    .map(|_| ())
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn heard(socket: &UdpSocket) -> SocketAddr {
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket.recv_from(&mut [0; 16]).unwrap().1
    }

    fn a_peer_of_its_own(datagrams: &mut Datagrams, here: &str) {
        let (peer, other) = (
            UdpSocket::bind(here).unwrap(),
            UdpSocket::bind(here).unwrap(),
        );
        let to = |socket: &UdpSocket| Datagram {
            to: socket.local_addr().unwrap(),
            ttl: 33,
            dont_fragment: true,
            segment: None,
        };
        let mut became_direct = 0;
        let mut ports = Vec::new();
        for _ in 0..STREAK + 10 {
            datagrams
                .send(Body::plain(b"hello"), &to(&peer), &mut Vec::new())
                .unwrap();
            became_direct += u32::from(datagrams.follow(to(&peer).to));
            ports.push(heard(&peer).port());
        }
        assert_eq!(became_direct, 1);
        datagrams
            .send(Body::plain(b"hello"), &to(&other), &mut Vec::new())
            .unwrap();
        let seen = heard(&other);
        assert!(ports.iter().all(|port| *port == seen.port()));
        // Each answer comes by its socket, and both are heard.
        peer.send_to(b"from peer", seen).unwrap();
        other.send_to(b"from other", seen).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let mut batch = datagram::Batch::new(4, 64);
        for (fd, from) in [
            (datagrams.direct().unwrap(), &peer),
            (datagrams.fd(), &other),
        ] {
            batch.receive(fd).unwrap();
            let heard: Vec<_> = batch
                .received()
                .iter()
                .map(|received| received.from)
                .collect();
            assert_eq!(heard, [from.local_addr().unwrap()]);
        }
    }

    #[test]
    fn a_peer_with_a_socket_of_its_own_sees_the_same_port_as_others() {
        for (here, v6) in [("127.0.0.1:0", false), ("[::1]:0", true)] {
            a_peer_of_its_own(&mut Datagrams::udp(v6, None).unwrap(), here);
        }
    }

    #[test]
    fn a_flow_of_one_family_does_not_hear_the_other() {
        let mut datagrams = Datagrams::udp(true, None).unwrap();
        let peer = UdpSocket::bind("[::1]:0").unwrap();
        let how = Datagram {
            to: peer.local_addr().unwrap(),
            ttl: 63,
            dont_fragment: false,
            segment: None,
        };
        datagrams
            .send(Body::plain(b"hello"), &how, &mut Vec::new())
            .unwrap();
        let port = heard(&peer).port();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.send_to(b"psst", ("127.0.0.1", port)).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let error = datagram::Batch::new(4, 64)
            .receive(datagrams.fd())
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
