//! Connections that accept others.
//!
//! A named service accepts from its socket. An endpoint is one end of a pair of sockets whose other end the listener has:
//! a client makes a pair of its own and sends one end of that through the endpoint. So an endpoint is a right that is
//! handed on with its descriptor, and nobody needs a name.

use super::core::{Core, Role, State, reactor};
use super::link::{self, Link, Use};
use super::{reactor, service};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

/// How many clients are accepted before the others' turn.
const CLIENTS: usize = 32;

/// What a listener has open.
#[derive(Debug, Default)]
pub(super) struct Open {
    links: Vec<Arc<Link>>,
    /// What endpoints are copies of.
    endpoint: Option<OwnedFd>,
    /// Says that the service is there. Closed after the socket.
    lock: Option<OwnedFd>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(reactor) = reactor::get() {
            self.links.iter().for_each(|link| reactor.remove(link));
        }
    }
}

fn pair(kind: SocketType) -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
}

/// A new connection through an endpoint.
pub(super) fn connect(endpoint: &OwnedFd) -> io::Result<OwnedFd> {
    let (ours, theirs) = pair(SocketType::STREAM)?;
    link::send(endpoint.as_fd(), b"c", vec![theirs.as_fd()])?;
    Ok(ours)
}

impl Core {
    /// Becomes a named service.
    pub(super) fn listen(self: &Arc<Self>, state: &mut State, name: &CStr) -> io::Result<()> {
        let service::Listening { socket, lock } = service::listen(name)?;
        state.listening.lock = Some(lock);
        let link = reactor()?.add(socket, Use::Accept, self)?;
        state.listening.links.push(link);
        Ok(())
    }

    /// Waits for clients of endpoints.
    pub(super) fn wait_for_endpoints(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        if state.listening.endpoint.is_some() {
            return Ok(());
        }
        let (ours, theirs) = pair(SocketType::SEQPACKET)?;
        state
            .listening
            .links
            .push(reactor()?.add(ours, Use::Rendezvous, self)?);
        state.listening.endpoint = Some(theirs);
        Ok(())
    }

    /// A new endpoint; none of what does not listen.
    pub(super) fn endpoint(self: &Arc<Self>) -> io::Result<OwnedFd> {
        if self.is_dead() || !matches!(self.role, Role::Service(_) | Role::Anonymous) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut state = self.lock();
        self.wait_for_endpoints(&mut state)?;
        let endpoint = state
            .listening
            .endpoint
            .as_ref()
            .ok_or(io::ErrorKind::NotConnected)?;
        Ok(rustix::io::fcntl_dupfd_cloexec(endpoint, 3)?)
    }

    /// Clients of a named service have come. False if the socket is of no more use.
    pub(super) fn accept(self: &Arc<Self>, link: &Link) -> bool {
        for _ in 0..CLIENTS {
            match rustix::net::accept_with(&link.socket, SocketFlags::CLOEXEC) {
                Ok(socket) => self.welcome(socket),
                Err(Errno::AGAIN) => return true,
                // One client less, and nothing about the socket.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // It would come again at once: those who have descriptors need time to close some.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                    return true;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Clients of an endpoint have come. False if the socket is of no more use.
    pub(super) fn meet(self: &Arc<Self>, link: &Link) -> bool {
        let mut byte = [0; 1];
        for _ in 0..CLIENTS {
            match link.receive(&mut byte) {
                // The listener has the other end too, so there is always somebody.
                Ok((_, sockets)) => sockets
                    .into_iter()
                    .take(1)
                    .for_each(|socket| self.welcome(socket)),
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Tells the program of a client. Unless the program resumes that connection, it ends with the event.
    fn welcome(self: &Arc<Self>, socket: OwnedFd) {
        // Who sends something else through an endpoint has no connection.
        if service::credentials(&socket).is_ok() {
            self.tell(Self::object_of(
                Role::Peer,
                Some(socket),
                self.mailbox.target(),
            ));
        }
    }
}
