//! What a process inside a namespace and its parent tell each other: one JSON text a packet, descriptors beside it.

use super::{Ending, NotExecuted};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vmnet_linux::sys::fd_passing;

/// The parent speaks.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum ToInside {
    /// The ids are mapped: begin.
    Begin,
    /// The tap is attached: configure it and start the command.
    Attached {
        /// The network's largest packet.
        mtu: u16,
        /// The interface's MAC.
        mac: [u8; 6],
        /// Routers advertise themselves on the network: IPv6 comes by itself.
        routers: bool,
    },
    /// Pass this signal to the command.
    Signal(i32),
}

/// Process 1 speaks.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum FromInside {
    /// The tap, beside this message.
    Tap,
    /// The command starts: signals are its own from now on.
    Starting,
    /// It could not be executed.
    NotExecuted(NotExecuted),
    /// A signal stopped it.
    Stopped,
    /// It ended.
    Ended(Ending),
    /// Nobody leased an address.
    NoLease,
    /// Something else went wrong.
    Failed(String),
}

/// One end of the channel.
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Both ends.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(one), Self(other)))
    }

    /// Sends one message.
    pub(crate) fn send(
        &self,
        message: &impl Serialize,
        beside: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        fd_passing::send(&self.0, &text, beside).map(drop)
    }

    /// Waits for one message; `None` when the other end is gone.
    pub(crate) fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut text = vec![0; 8192];
        let mut beside = Vec::new();
        let length = match fd_passing::receive(&self.0, &mut text, &mut beside) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other?,
        };
        if length == 0 {
            return Ok(None);
        }
        let message = serde_json::from_slice(text.get(..length).unwrap_or_default())?;
        Ok(Some((message, beside)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
