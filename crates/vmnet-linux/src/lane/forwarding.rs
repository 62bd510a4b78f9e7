//! Listeners: of forwarded ports, and of sockets for guests.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use vmnet_core::{ForwardId, SocketId};

use crate::lane::datapath::Lane;
use crate::lane::execute::Hand;
use crate::lane::{Forward, ForwardError, ForwardGuest, ListenerId, PortOptions, Protocol};
use crate::poller::{READ, Token};
use crate::socket::HostSocket;
use crate::socket::datagrams::Datagrams;
use crate::socket::stream::Stream;

/// Connections that one listener may bring in its turn.
const ACCEPTS: usize = 64;

/// Something that brings guests or their clients.
#[derive(Debug)]
pub(super) enum Listener {
    /// A forwarded TCP port.
    Tcp(ForwardId, TcpListener),
    /// A forwarded UDP port whose guest has no address yet.
    Udp(ForwardId, UdpSocket),
    /// Guests that connect by a stream.
    Streams(UnixListener, PortOptions),
    /// Guests that send datagrams.
    Datagrams(Rc<OwnedFd>, PortOptions),
}

impl Listener {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(_, listener) => listener.as_fd(),
            Self::Udp(_, socket) => socket.as_fd(),
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

    pub(super) fn forward(&mut self, forward: Forward) -> Result<ForwardId, ForwardError> {
        self.check_guest(&forward)?;
        let refused = |error| ForwardError::Listen(forward.listen, error);
        let id = match forward.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(forward.listen).map_err(refused)?;
                listener.set_nonblocking(true).map_err(refused)?;
                let id = self.network.add_forward(forward);
                self.add_listener(Listener::Tcp(id, listener)).map(|_| id)
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(forward.listen).map_err(refused)?;
                socket.set_nonblocking(true).map_err(refused)?;
                let id = self.network.add_forward(forward);
                self.add_listener(Listener::Udp(id, socket)).map(|_| id)
            }
        };
        id.map_err(refused)
    }

    /// A guest can be at the other end of a rule.
    fn check_guest(&self, forward: &Forward) -> Result<(), ForwardError> {
        let ipv4 = self.network.ipv4().ok_or(ForwardError::NoGateway)?;
        match forward.guest {
            ForwardGuest::Address(address) if !ipv4.is_guest(address) => {
                Err(ForwardError::NotAGuest(address, ipv4))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn remove_forward(&mut self, id: ForwardId) {
        self.listeners.retain(|_, listener| {
            !matches!(listener, Listener::Tcp(other, _) | Listener::Udp(other, _) if *other == id)
        });
        self.network.remove_forward(id, &mut self.out);
        self.carry_out(Hand::EMPTY);
    }

    pub(super) fn listener_event(&mut self, number: u64) {
        let Some(listener) = self.listeners.remove(&number) else {
            return;
        };
        let kept = match listener {
            Listener::Tcp(id, listener) => {
                self.accept(id, &listener);
                Some(Listener::Tcp(id, listener))
            }
            Listener::Udp(id, socket) => self.serve_udp(id, socket),
            Listener::Streams(listener, options) => {
                self.accept_guests(&listener, &options, ListenerId(number));
                Some(Listener::Streams(listener, options))
            }
            Listener::Datagrams(socket, options) => {
                self.receive_from_paths(&socket, &options, ListenerId(number));
                Some(Listener::Datagrams(socket, options))
            }
        };
        if let Some(kept) = kept {
            self.listeners.insert(number, kept);
        }
    }

    fn accept(&mut self, id: ForwardId, listener: &TcpListener) {
        for _ in 0..ACCEPTS {
            let (client, from) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if is_exhausted(&error) => {
                    self.turn_away(&error, || drop(listener.accept()));
                    continue;
                }
                Err(_) => return,
            };
            if let Err(error) = self.accepted(id, client.into(), from) {
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
        rustix::io::ioctl_fionbio(&client, true)?;
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
    fn serve_udp(&mut self, id: ForwardId, socket: UdpSocket) -> Option<Listener> {
        let Some(flow) = self.network.forward_socket(self.now, id, &mut self.out) else {
            // Nobody is there: the datagram is lost, as on any network.
            let _lost = socket.recv_from(&mut [0; 1]);
            return Some(Listener::Udp(id, socket));
        };
        self.carry_out(Hand::EMPTY);
        self.poller.remove(&socket);
        if let Err(error) = self.adopt_udp(flow, socket.into()) {
            tracing::warn!(%error, "a forwarded port cannot be served");
        }
        None
    }

    fn adopt_udp(&mut self, flow: SocketId, socket: OwnedFd) -> io::Result<()> {
        let v6 = crate::socket::datagrams::local(&socket)?.is_ipv6();
        self.register(flow, HostSocket::Datagrams(Datagrams::bound(socket, v6)?))?;
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

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
