//! A datagram socket on which each datagram is a frame: QEMU's `-netdev dgram`, vfkit, libkrun.
//!
//! A socket of our own is bound to a path and shared by all guests that send to it; each is answered at the path it
//! sends from. Or a pair of connected sockets is one guest's alone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketAddrUnix};
use vmnet_core::Drop;

use crate::port::software::Pieces;
use crate::port::{Flushed, INPUT_MAX};

/// Bytes that may wait for a guest that does not read.
const QUEUE: usize = 1 << 20;

/// Where frames to the guest go.
#[derive(Debug)]
enum Peer {
    /// A socket that leads to the guest alone.
    Connected(OwnedFd),
    /// The shared socket, and the guest's path.
    Path(Rc<OwnedFd>, SocketAddrUnix),
}

/// A guest that speaks by datagrams.
#[derive(Debug)]
pub(crate) struct Dgram {
    peer: Peer,
    /// Frames that wait, one behind the other, and where each ends.
    queue: Vec<u8>,
    ends: Vec<usize>,
    /// Frames of `ends` that are out.
    sent: usize,
}

impl Dgram {
    /// A guest behind a connected socket.
    pub(crate) fn connected(fd: OwnedFd) -> Self {
        Self {
            peer: Peer::Connected(fd),
            queue: Vec::new(),
            ends: Vec::new(),
            sent: 0,
        }
    }

    /// A guest that sends to our shared socket from `path`.
    pub(crate) fn at(socket: Rc<OwnedFd>, path: SocketAddrUnix) -> Self {
        Self {
            peer: Peer::Path(socket, path),
            queue: Vec::new(),
            ends: Vec::new(),
            sent: 0,
        }
    }

    /// The socket to read this guest's frames from, unless it is a shared one.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.peer {
            Peer::Connected(fd) => Some(fd.as_fd()),
            Peer::Path(..) => None,
        }
    }

    /// The path of a guest on a shared socket.
    pub(crate) fn path(&self) -> Option<&SocketAddrUnix> {
        match &self.peer {
            Peer::Connected(_) => None,
            Peer::Path(_, path) => Some(path),
        }
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// The queue is full.
    pub(crate) fn push(&mut self, pieces: Pieces<'_>) -> Result<(), Drop> {
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        if self.queue.len() + len > QUEUE {
            return Err(Drop::PortFull);
        }
        for piece in pieces {
            self.queue.extend_from_slice(piece);
        }
        self.ends.push(self.queue.len());
        Ok(())
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// The guest is gone.
    pub(crate) fn flush(&mut self) -> io::Result<Flushed> {
        while let Some(end) = self.ends.get(self.sent) {
            let start = self
                .sent
                .checked_sub(1)
                .map_or(0, |before| self.ends[before]);
            let frame = &self.queue[start..*end];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let result = match &self.peer {
                Peer::Connected(fd) => rustix::net::send(fd, frame, flags),
                Peer::Path(fd, path) => rustix::net::sendto(fd, frame, flags, path),
            };
            match result {
                Ok(_) => self.sent += 1,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(self.keep_rest()),
                // Larger than the host lets a datagram be: this frame cannot be helped.
                Err(Errno::MSGSIZE) => self.sent += 1,
                Err(error) => return Err(error.into()),
            }
        }
        self.queue.clear();
        self.ends.clear();
        self.sent = 0;
        Ok(Flushed::Empty)
    }

    fn keep_rest(&mut self) -> Flushed {
        let start = self
            .sent
            .checked_sub(1)
            .map_or(0, |before| self.ends[before]);
        self.queue.drain(..start);
        self.ends.drain(..self.sent);
        for end in &mut self.ends {
            *end -= start;
        }
        self.sent = 0;
        match self.peer {
            Peer::Connected(_) => Flushed::Full,
            Peer::Path(..) => Flushed::Retry,
        }
    }
}

/// Receives the next frame into `frame`, of at least [`INPUT_MAX`] bytes, and the path it came from, if it has one.
/// `Ok(None)`: there is none.
///
/// # Errors
/// The guest is gone, or the socket broke.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    frame: &mut [u8],
) -> io::Result<Option<(usize, Option<SocketAddrUnix>)>> {
    debug_assert!(frame.len() >= INPUT_MAX);
    match rustix::net::recvfrom(fd, frame, RecvFlags::DONTWAIT) {
        Ok((_, len, from)) => {
            let path = from.and_then(|from| SocketAddrUnix::try_from(from).ok());
            Ok(Some((
                len,
                path.filter(|path| path.path().is_some() || path.abstract_name().is_some()),
            )))
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_guest_that_does_not_read_loses_whole_frames_only() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut dgram = Dgram::connected(ours.into());
        let mut pushed = 0u32;
        while dgram.push([&[], &pushed.to_be_bytes(), &[7; 1000]]).is_ok() {
            pushed += 1;
        }
        assert_eq!(dgram.flush().unwrap(), Flushed::Full);
        let mut seen = 0;
        let mut frame = [0; 2000];
        while seen < pushed {
            assert_eq!(theirs.recv(&mut frame).unwrap(), 1004);
            assert_eq!(frame[..4], seen.to_be_bytes());
            seen += 1;
            dgram.flush().unwrap();
        }
        assert_eq!(dgram.flush().unwrap(), Flushed::Empty);
    }
}
