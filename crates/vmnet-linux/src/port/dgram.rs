//! A datagram socket on which each datagram is a frame: QEMU's `-netdev dgram`, vfkit, libkrun.
//!
//! A socket of our own is bound to a path and shared by all guests that send to it; each is answered at the path it
//! sends from. Or a pair of connected sockets is one guest's alone. Of a pair of datagram sockets the kernel does not tell
//! that the other end was closed: it is seen when the next frame is sent there. Sequenced packets tell it at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketAddrUnix, SocketType, sockopt};
use vmnet_core::Drop;

use crate::port::{Flushed, INPUT_MAX, Pieces};
use crate::sys::unix_datagram;

/// Bytes that may wait for a guest that does not read.
const QUEUE: usize = 1 << 20;

/// Bytes after which the queue is sent without waiting for the burst's end.
const BURST: usize = 128 << 10;

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
    /// The guest's socket took no more when it was last tried.
    blocked: bool,
}

impl Dgram {
    /// A guest behind a connected socket.
    pub(crate) fn connected(fd: OwnedFd) -> Self {
        Self::new(Peer::Connected(fd))
    }

    /// A guest that sends to our shared socket from `path`.
    pub(crate) fn at(socket: Rc<OwnedFd>, path: SocketAddrUnix) -> Self {
        Self::new(Peer::Path(socket, path))
    }

    fn new(peer: Peer) -> Self {
        Self {
            peer,
            queue: Vec::new(),
            ends: Vec::new(),
            sent: 0,
            blocked: false,
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
        let len = pieces.len();
        if self.queue.len() + len > QUEUE {
            return Err(Drop::PortFull);
        }
        pieces.append_to(&mut self.queue);
        self.ends.push(self.queue.len());
        if self.queue.len() - self.start(self.sent) >= BURST && !self.blocked {
            // A broken socket is met again by the flush at the burst's end.
            let _later = self.flush();
        }
        Ok(())
    }

    /// Where a frame of the queue starts.
    fn start(&self, frame: usize) -> usize {
        let before = frame
            .checked_sub(1)
            .and_then(|before| self.ends.get(before));
        before.copied().unwrap_or(0)
    }

    /// Sends what is queued, many frames by one call.
    ///
    /// # Errors
    /// The guest is gone.
    pub(crate) fn flush(&mut self) -> io::Result<Flushed> {
        self.blocked = false;
        while self.sent < self.ends.len() {
            let frames = (self.sent..self.ends.len())
                .filter_map(|frame| self.queue.get(self.start(frame)..self.start(frame + 1)));
            let result = match &self.peer {
                Peer::Connected(fd) => unix_datagram::send(fd, None, frames),
                Peer::Path(fd, path) => unix_datagram::send(fd, Some(path), frames),
            };
            match result.map_err(|error| error.raw_os_error().ok_or(error)) {
                Ok(count) => self.sent += count,
                Err(Ok(libc::EINTR)) => {}
                Err(Ok(libc::EAGAIN | libc::ENOBUFS)) => return Ok(self.keep_rest()),
                // Larger than the host lets a datagram be: this frame cannot be helped.
                Err(Ok(libc::EMSGSIZE)) => self.sent += 1,
                Err(Ok(number)) => return Err(io::Error::from_raw_os_error(number)),
                Err(Err(error)) => return Err(error),
            }
        }
        self.queue.clear();
        self.ends.clear();
        self.sent = 0;
        Ok(Flushed::Empty)
    }

    fn keep_rest(&mut self) -> Flushed {
        self.blocked = true;
        let start = self.start(self.sent);
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
        // Of sockets with connections this is the end, told for ever; a datagram may be empty.
        Ok((_, 0, _)) if sockopt::socket_type(fd).ok() == Some(SocketType::SEQPACKET) => {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
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
    use crate::port::body::Body;
    use rustix::net::{AddressFamily, SocketFlags, socketpair};
    use std::os::unix::net::UnixDatagram;

    fn pieces<'a>(head: &'a [u8], body: &'a [u8]) -> Pieces<'a> {
        Pieces {
            header: &[],
            head,
            body: Body::plain(body),
        }
    }

    #[test]
    fn a_frame_larger_than_a_datagram_may_be_is_passed_over() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
        let mut dgram = Dgram::connected(ours.into());
        for len in [100, 60_000, 101] {
            dgram.push(pieces(&vec![7; len], &[])).unwrap();
        }
        assert_eq!(dgram.flush().unwrap(), Flushed::Empty);
        let mut frame = [0; 200];
        assert_eq!(theirs.recv(&mut frame).unwrap(), 100);
        assert_eq!(theirs.recv(&mut frame).unwrap(), 101);
    }

    #[test]
    fn an_empty_datagram_is_a_frame_and_an_empty_packet_the_end() {
        let mut frame = [0; INPUT_MAX];
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.send(&[]).unwrap();
        assert_eq!(receive(ours.as_fd(), &mut frame).unwrap(), Some((0, None)));
        assert_eq!(receive(ours.as_fd(), &mut frame).unwrap(), None);
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::empty(),
            None,
        )
        .unwrap();
        rustix::io::write(&theirs, &[7; 60]).unwrap();
        drop(theirs);
        let last = receive(ours.as_fd(), &mut frame).unwrap();
        assert_eq!(last.map(|(len, _)| len), Some(60));
        let error = receive(ours.as_fd(), &mut frame).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_guest_that_does_not_read_loses_whole_frames_only() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut dgram = Dgram::connected(ours.into());
        let mut pushed = 0u32;
        // More than the queue holds, as the socket takes some.
        while dgram
            .push(pieces(&pushed.to_be_bytes(), &[7; 1000]))
            .is_ok()
        {
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
