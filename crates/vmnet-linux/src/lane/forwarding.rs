//! Forwarded ports, whose clients are accepted here, and sockets that guests come by.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use rustix::net::{RecvFlags, SocketFlags};
use vmnet_core::{ForwardId, SocketId};

use crate::lane::datapath::{FLOWS_LEAST, Lane, flows_beside};
use crate::lane::execute::Hand;
use crate::lane::{Forward, ForwardError, ForwardGuest, ListenerId, PortOptions, Protocol};
use crate::poller::{READ, Token};
use crate::slots::Slot;
use crate::socket::HostSocket;
use crate::socket::datagrams::Datagrams;
use crate::socket::stream::Stream;
use crate::sys::limits;

/// Connections that one listener may bring in its turn.
const ACCEPTS: usize = 64;

/// Where the host listens for a forwarded port.
#[derive(Debug)]
pub(super) enum Forwarded {
    Tcp(OwnedFd),
    /// Until its guest has an address; then it is a flow's.
    Udp(OwnedFd),
}

impl Forwarded {
    fn into_fd(self) -> OwnedFd {
        match self {
            Self::Tcp(fd) | Self::Udp(fd) => fd,
        }
    }
}

/// Something that brings guests.
#[derive(Debug)]
pub(super) enum Listener {
    /// Guests that connect by a stream.
    Streams(UnixListener, PortOptions),
    /// Guests that send datagrams.
    Datagrams(Rc<OwnedFd>, PortOptions),
}

impl Listener {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Streams(listener, _) => listener.as_fd(),
            Self::Datagrams(socket, _) => socket.as_fd(),
        }
    }
}

impl Lane {
    /// Listens from now on; answers the listener's number.
    pub(super) fn add_listener(&mut self, listener: Listener) -> io::Result<u64> {
        let number = self.next_listener;
        self.next_listener += 1;
        self.poller
            .add(listener.fd(), Token::Listener(number), READ)?;
        self.listeners.insert(number, listener);
        Ok(number)
    }

    /// Takes ports that somebody listens on already, all or none.
    pub(super) fn forward(
        &mut self,
        forwards: Vec<(Forward, OwnedFd)>,
    ) -> Result<Vec<ForwardId>, ForwardError> {
        forwards
            .iter()
            .try_for_each(|(forward, _)| self.check_guest(forward))?;
        let mut ids = Vec::with_capacity(forwards.len());
        for (forward, socket) in forwards {
            let (protocol, listen) = (forward.protocol, forward.listen);
            let id = self.network.add_forward(forward);
            ids.push(id);
            let watched = self.poller.add(&socket, Token::Forward(Slot::of(id)), READ);
            let forwarded = match protocol {
                Protocol::Tcp => Forwarded::Tcp(socket),
                Protocol::Udp => Forwarded::Udp(socket),
            };
            self.forwards.insert(id, forwarded);
            if let Err(error) = watched {
                drop(self.remove_forwards(&ids));
                return Err(ForwardError::of(protocol, listen, error));
            }
        }
        self.make_room_for_forwards();
        Ok(ids)
    }

    /// A guest can be at the other end of a rule.
    pub(super) fn check_guest(&self, forward: &Forward) -> Result<(), ForwardError> {
        let (ipv4, ipv6) = (self.network.ipv4(), self.network.ipv6());
        if ipv4.is_none() && ipv6.is_none() {
            return Err(ForwardError::NoGateway);
        }
        let ForwardGuest::Address(address) = forward.guest else {
            return Ok(());
        };
        if self.network.is_guest_address(address) {
            return Ok(());
        }
        Err(match (address, ipv4, ipv6) {
            (IpAddr::V4(address), Some(ipv4), _) => ForwardError::NotAGuest(address, ipv4),
            (IpAddr::V6(address), _, Some(prefix)) => ForwardError::NotInPrefix(address, prefix),
            _ => ForwardError::OtherFamily(address),
        })
    }

    /// Answers the sockets of those that are there, for somebody else to close.
    pub(super) fn remove_forwards(&mut self, ids: &[ForwardId]) -> Vec<OwnedFd> {
        let mut sockets = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(forwarded) = self.forwards.remove(*id) {
                let socket = forwarded.into_fd();
                self.poller.remove(&socket);
                sockets.push(socket);
            }
            self.network.remove_forward(*id, &mut self.out);
        }
        self.carry_out(Hand::EMPTY);
        self.make_room_for_forwards();
        sockets
    }

    /// What forwarded ports take of the descriptors, flows cannot have.
    fn make_room_for_forwards(&mut self) {
        let flows = flows_beside(limits::open_files(), self.forwards.count());
        self.network.set_flows_max(flows.max(FLOWS_LEAST));
    }

    pub(super) fn forward_event(&mut self, slot: Slot) {
        let Some(id) = self.forwards.find(slot) else {
            return;
        };
        let kept = match self.forwards.remove(id) {
            Some(Forwarded::Tcp(listener)) => {
                self.accept(id, &listener);
                Some(Forwarded::Tcp(listener))
            }
            Some(Forwarded::Udp(socket)) => self.serve_udp(id, socket),
            None => None,
        };
        if let Some(kept) = kept {
            self.forwards.insert(id, kept);
        }
    }

    pub(super) fn listener_event(&mut self, number: u64) {
        let Some(listener) = self.listeners.remove(&number) else {
            return;
        };
        let kept = match listener {
            Listener::Streams(listener, options) => {
                self.accept_guests(&listener, &options, ListenerId(number));
                Listener::Streams(listener, options)
            }
            Listener::Datagrams(socket, options) => {
                self.receive_from_paths(&socket, &options, ListenerId(number));
                Listener::Datagrams(socket, options)
            }
        };
        self.listeners.insert(number, kept);
    }

    fn accept(&mut self, id: ForwardId, listener: &OwnedFd) {
        for _ in 0..ACCEPTS {
            let (client, from) = match accept(listener) {
                Ok(accepted) => accepted,
                Err(error) if is_exhausted(&error) => {
                    self.turn_away(&error, || drop(accept(listener)));
                    continue;
                }
                Err(_) => return,
            };
            if let Err(error) = self.accepted(id, client, from) {
                tracing::debug!(%from, %error, "a client of a forwarded port cannot be served");
            }
            self.carry_out(Hand::EMPTY);
        }
    }

    /// There is no descriptor left for who comes: the spare one lets it in and out, so that it does not knock for ever.
    fn turn_away(&mut self, error: &io::Error, admit: impl FnOnce()) {
        if !self.warned.descriptors {
            self.warned.descriptors = true;
            tracing::warn!(%error, "clients are turned away: raise the limit with `ulimit -n`");
        }
        self.spare = None;
        admit();
        self.spare = spare().ok();
    }

    fn accepted(&mut self, id: ForwardId, client: OwnedFd, from: SocketAddr) -> io::Result<()> {
        let mut stream = Stream::accepted(client)?;
        let room = stream.room();
        match self
            .network
            .accepted(self.now, id, from, room, &mut self.out)
        {
            Some(socket) => self
                .register(socket, HostSocket::Stream(stream))
                .map(|_| ()),
            None => {
                stream.reset_on_close();
                Err(io::Error::other(
                    "the guest has no address yet, or too many connections",
                ))
            }
        }
    }

    /// A datagram came to a forwarded port: if its guest has an address, the socket becomes a flow's.
    fn serve_udp(&mut self, id: ForwardId, socket: OwnedFd) -> Option<Forwarded> {
        let Some(flow) = self.network.forward_socket(self.now, id, &mut self.out) else {
            // Nobody is there: the datagram is lost, as on any network.
            let _lost = rustix::net::recv(&socket, &mut [0; 1], RecvFlags::DONTWAIT);
            return Some(Forwarded::Udp(socket));
        };
        self.carry_out(Hand::EMPTY);
        self.poller.remove(&socket);
        if let Err(error) = self.adopt_udp(flow, socket) {
            tracing::warn!(%error, "a forwarded port cannot be served");
        }
        None
    }

    fn adopt_udp(&mut self, flow: SocketId, socket: OwnedFd) -> io::Result<()> {
        self.register(flow, HostSocket::Datagrams(Datagrams::bound(socket)?))?;
        Ok(())
    }

    fn accept_guests(&mut self, listener: &UnixListener, options: &PortOptions, by: ListenerId) {
        for _ in 0..ACCEPTS {
            let guest = match listener.accept() {
                Ok((guest, _)) => guest,
                Err(error) if is_exhausted(&error) => {
                    self.turn_away(&error, || drop(listener.accept()));
                    continue;
                }
                Err(_) => return,
            };
            if let Err(error) = self.welcome(guest.into(), options.clone(), by) {
                tracing::warn!(%error, "a guest cannot be attached");
            }
        }
    }
}

/// A descriptor to give up when there is no other.
///
/// # Errors
/// There is none.
pub(super) fn spare() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(
        0,
        rustix::event::EventfdFlags::CLOEXEC,
    )?)
}

fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (client, from) = rustix::net::acceptfrom_with(listener, flags)?;
    let from = from.ok_or_else(|| io::Error::other("a client without an address"))?;
    let from = SocketAddr::try_from(from)?;
    // Who came by IPv4 to a socket of both families is known by that.
    Ok((
        client,
        SocketAddr::new(from.ip().to_canonical(), from.port()),
    ))
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
