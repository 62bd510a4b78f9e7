//! A stream of a flow: a TCP connection, or one end of a pair that leads to the DNS proxy.
//!
//! Received bytes stay in the socket until the guest has acknowledged them: they are peeked at, behind those
//! that the guest was sent already, and discarded later.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::port::body::Body;
use crate::sys::packet::bind_to_interface;
use crate::sys::places::{Places, Room};
use crate::sys::{peek, sockopt as options};

/// Acknowledged bytes that may stay in the socket until more are to be removed: a call for each small answer would be
/// too many.
const UNDISCARDED_MAX: usize = 4 << 10;
/// Kernel memory that a piece of a stream takes beside its bytes.
const OVERHEAD: usize = 1280;

/// Which kernel queue the bytes lie in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Tcp,
    Unix,
}

/// How bytes behind the first are peeked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Offset {
    /// `SO_PEEK_OFF` was never set: peeks begin at the front.
    Unset,
    /// `SO_PEEK_OFF` stands here.
    At(usize),
    /// The kernel has none for this socket: bytes in front are peeked at too, and thrown away.
    Unknown,
}

/// What a peek found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peeked {
    pub(crate) len: usize,
    pub(crate) ended: bool,
    pub(crate) more: bool,
}

/// A stream of a flow.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: OwnedFd,
    kind: Kind,
    offset: Offset,
    /// It leaves by a certain interface, and ends with it.
    pub(crate) bound: bool,
    /// The connection is not made yet.
    pub(crate) connecting: bool,
    /// The peer has closed its side.
    pub(crate) ended: bool,
    /// Somebody waits for room.
    pub(crate) write_wanted: bool,
    urgent: bool,
    /// At least so much room is left; the most that there ever was.
    room: usize,
    most: usize,
    /// Bytes at the front that are to be removed.
    undiscarded: usize,
    /// Those may be the rest of a large piece, which takes memory, and so the peer's window, until all of it is gone.
    large: bool,
    /// The last peek found more than a small answer.
    bulk: bool,
    /// More than one answer has been read.
    repeated: bool,
}

impl Stream {
    /// Begins a connection, by an interface if one is given; [`Self::connecting`] tells whether it is made already.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn connect(to: SocketAddr, by: Option<&str>) -> io::Result<Self> {
        let family = if to.is_ipv6() {
            AddressFamily::INET6
        } else {
            AddressFamily::INET
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        if let Some(name) = by {
            bind_to_interface(&fd, name)?;
        }
        // The guest has done its own waiting for more.
        sockopt::set_tcp_nodelay(&fd, true)?;
        let connecting = match rustix::net::connect(&fd, &to) {
            Ok(()) => false,
            Err(Errno::INPROGRESS) => true,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            connecting,
            bound: by.is_some(),
            ..Self::new(fd, Kind::Tcp)
        })
    }

    /// A connection that was accepted.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn accepted(fd: OwnedFd) -> io::Result<Self> {
        sockopt::set_tcp_nodelay(&fd, true)?;
        Ok(Self::new(fd, Kind::Tcp))
    }

    /// A pair: a flow's stream, and the end for whoever serves it.
    ///
    /// # Errors
    /// As the kernel says.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok((Self::new(ours, Kind::Unix), theirs))
    }

    fn new(fd: OwnedFd, kind: Kind) -> Self {
        Self {
            fd,
            kind,
            offset: Offset::Unset,
            bound: false,
            connecting: false,
            ended: false,
            write_wanted: false,
            urgent: false,
            room: 0,
            most: 0,
            undiscarded: 0,
            large: false,
            bulk: false,
            repeated: false,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Sends what goes; answers how much did.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn send<'b>(
        &mut self,
        bodies: impl Iterator<Item = Body<'b>> + Clone,
        scratch: &mut Vec<u8>,
    ) -> io::Result<usize> {
        match self.send_once(bodies, scratch) {
            Ok(taken) => {
                self.room = self.room.saturating_sub(taken + OVERHEAD);
                Ok(taken)
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                self.room = 0;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    fn send_once<'b>(
        &self,
        bodies: impl Iterator<Item = Body<'b>> + Clone,
        scratch: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let mut places = Places::new();
        bodies.clone().for_each(|body| body.name_to(&mut places));
        if places.is_whole() {
            return places.send(&self.fd);
        }
        scratch.clear();
        bodies.for_each(|body| body.append_to(scratch));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::send(&self.fd, scratch, flags)?)
    }

    /// Bytes that can surely be sent now.
    pub(crate) fn room(&mut self) -> usize {
        // While most of what there ever was is left, the kernel need not be asked again.
        if self.room <= self.most - self.most / 4 {
            self.room = self.ask_room();
            self.most = self.most.max(self.room);
        }
        self.room
    }

    fn ask_room(&self) -> usize {
        let Ok(memory) = options::memory(&self.fd) else {
            return 0;
        };
        let used = match self.kind {
            Kind::Tcp => memory.send_queued,
            Kind::Unix => memory.send_allocated,
        };
        let free = memory.send_limit.saturating_sub(used) as usize;
        // Bytes take more memory than they are: a sixteenth in large pieces.
        free - free / 16
    }

    /// Peeks at up to `into.len()` bytes that stand `offset` bytes behind the front.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn peek(&mut self, offset: usize, into: &mut [u8]) -> io::Result<Peeked> {
        let wanted = into.len();
        let offset = self.begin_peek(offset)?;
        let result = if self.offset == Offset::Unknown && offset > 0 {
            peek::behind(&self.fd, offset, into)
        } else {
            rustix::net::recv(&self.fd, &mut *into, RecvFlags::PEEK | RecvFlags::DONTWAIT)
                .map(|(_, len)| len)
                .map_err(io::Error::from)
        };
        self.end_peek(result, wanted)
    }

    /// The same into a guest's memory, where there is room for `wanted` bytes. `None`: not with this kernel.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn peek_into_guest(
        &mut self,
        offset: usize,
        room: &mut Room<'_>,
        wanted: usize,
    ) -> io::Result<Option<Peeked>> {
        let offset = self.begin_peek(offset)?;
        if self.offset == Offset::Unknown && offset > 0 {
            return Ok(None);
        }
        let result = room.peek(&self.fd);
        self.end_peek(result, wanted).map(Some)
    }

    /// The last peek found much, and the next may.
    pub(crate) fn is_bulk(&self) -> bool {
        self.bulk
    }

    /// Puts the kernel's offset where it has to be; answers how many bytes that is behind the front.
    fn begin_peek(&mut self, offset: usize) -> io::Result<usize> {
        // Most connections end after one answer: for them an offset is not worth its call.
        if offset == 0 && self.undiscarded > 0 && self.offset == Offset::Unset && !self.repeated {
            self.repeated = true;
            self.discard_now()?;
        }
        let offset = offset + self.undiscarded;
        self.go_to(offset);
        Ok(offset)
    }

    fn end_peek(&mut self, result: io::Result<usize>, wanted: usize) -> io::Result<Peeked> {
        match result {
            Ok(len) => {
                if let Offset::At(at) = &mut self.offset {
                    *at += len;
                }
                // Less than asked for was there: the rest is the end, or has not come. Urgent data divides a
                // stream (tcp(7)), so there it says nothing.
                let short = len < wanted;
                self.bulk = len > UNDISCARDED_MAX;
                if !short || len > UNDISCARDED_MAX {
                    self.large = true;
                }
                self.ended |= len == 0 && wanted > 0;
                let more = !short || (self.urgent && len > 0);
                Ok(Peeked {
                    len,
                    ended: self.ended && short && !more,
                    more,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Peeked {
                len: 0,
                ended: false,
                more: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Peeked {
                len: 0,
                ended: false,
                more: true,
            }),
            Err(error) => Err(error),
        }
    }

    fn go_to(&mut self, offset: usize) {
        let there = match self.offset {
            Offset::Unset => offset == 0,
            Offset::At(at) => at == offset,
            Offset::Unknown => true,
        };
        if there {
            return;
        }
        let value = i32::try_from(offset).unwrap_or(i32::MAX);
        self.offset = match options::set_peek_offset(&self.fd, value) {
            Ok(()) => Offset::At(offset),
            Err(_) => Offset::Unknown,
        };
    }

    /// Removes bytes from the front, now or together with others.
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn discard(&mut self, len: usize) -> io::Result<()> {
        self.undiscarded += len;
        if self.large || self.undiscarded > UNDISCARDED_MAX || self.offset == Offset::Unknown {
            self.discard_now()?;
        }
        Ok(())
    }

    /// Removes what is to be removed. A socket that is closed with bytes in its queue resets its connection (tcp(7)).
    ///
    /// # Errors
    /// The connection is broken.
    pub(crate) fn discard_now(&mut self) -> io::Result<()> {
        // What was sent to the guest and is not acknowledged may belong to a large piece as well.
        self.large &= self.offset != Offset::At(self.undiscarded);
        while self.undiscarded > 0 {
            let gone = match self.kind {
                Kind::Tcp => options::discard(&self.fd, self.undiscarded)?,
                Kind::Unix => {
                    let mut trash = [0; 4096];
                    let most = self.undiscarded.min(trash.len());
                    rustix::net::recv(&self.fd, &mut trash[..most], RecvFlags::DONTWAIT)?.1
                }
            };
            if gone == 0 {
                break;
            }
            if let Offset::At(at) = &mut self.offset {
                *at = at.saturating_sub(gone);
            }
            self.undiscarded = self.undiscarded.saturating_sub(gone);
        }
        Ok(())
    }

    /// From now on urgent data is data like any other.
    pub(crate) fn meet_urgent(&mut self) {
        self.urgent = true;
        if let Err(error) = options::set_urgent_inline(&self.fd) {
            tracing::debug!(%error, "urgent data of a connection is lost");
        }
    }

    /// Nothing more will be sent.
    pub(crate) fn shut_write(&self) {
        // It may be broken already, which its events will tell.
        let _broken = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Write);
    }

    /// Closing tells the peer that the connection was broken.
    pub(crate) fn reset_on_close(&self) {
        if self.kind == Kind::Tcp {
            let _closed_normally = options::set_reset_on_close(&self.fd);
        }
    }

    /// The error that waits, if one does.
    pub(crate) fn take_error(&self) -> Option<io::Error> {
        options::take_error(&self.fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    fn tcp() -> (Stream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = Stream::connect(listener.local_addr().unwrap(), None).unwrap();
        stream.connecting = false;
        (stream, listener.accept().unwrap().0)
    }

    fn settle() {
        std::thread::sleep(Duration::from_millis(30));
    }

    #[test]
    fn bytes_stay_until_they_are_discarded() {
        for forget_offset in [false, true] {
            let (mut stream, mut peer) = tcp();
            if forget_offset {
                stream.offset = Offset::Unknown;
            }
            peer.write_all(b"0123456789").unwrap();
            settle();
            let mut into = [0; 4];
            for (offset, bytes, more) in [
                (0, "0123", true),
                (4, "4567", true),
                (8, "89", false),
                (0, "0123", true),
            ] {
                let peeked = stream.peek(offset, &mut into).unwrap();
                assert_eq!(&into[..peeked.len], bytes.as_bytes());
                assert_eq!((peeked.more, peeked.ended), (more, false));
            }
            stream.discard(3).unwrap();
            assert_eq!(stream.peek(1, &mut into).unwrap().len, 4);
            assert_eq!(&into, b"4567");
            assert_eq!(stream.peek(7, &mut into).unwrap().len, 0);
            drop(peer);
            settle();
            let end = stream.peek(7, &mut into).unwrap();
            assert!(end.ended && end.len == 0);
            stream.ended = true;
            let last = stream.peek(5, &mut into).unwrap();
            assert!(last.ended && last.len == 2);
        }
    }

    #[test]
    fn a_socket_that_was_emptied_closes_without_a_reset() {
        let (mut stream, mut peer) = tcp();
        peer.write_all(b"0123456789").unwrap();
        settle();
        let mut into = [0; 16];
        assert_eq!(stream.peek(0, &mut into).unwrap().len, 10);
        stream.discard(10).unwrap();
        stream.discard_now().unwrap();
        drop(stream);
        settle();
        assert_eq!(peer.read(&mut into).unwrap(), 0);
    }

    /// What is left of a large piece holds all of its memory: it must not close the peer's window.
    #[test]
    fn small_rests_do_not_stop_a_stream() {
        let (mut stream, mut peer) = tcp();
        let total = 30_000_000;
        let writer = std::thread::spawn(move || {
            let chunk = vec![7; 1 << 20];
            let mut left = total;
            while left > 0 {
                left -= peer.write(&chunk[..left.min(chunk.len())]).unwrap();
            }
        });
        let mut into = vec![0; 64_000];
        let (mut seen, mut idle) = (0, 0);
        while seen < total {
            let len = stream.peek(0, &mut into).unwrap().len;
            // The guest acknowledges most of it, and the rest by itself.
            let rest = len.min(1000 + seen % 3000);
            stream.discard(len - rest).unwrap();
            stream.discard(rest).unwrap();
            seen += len;
            idle = if len == 0 { idle + 1 } else { 0 };
            assert!(idle < 5000, "stopped after {seen} bytes");
            if len == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        writer.join().unwrap();
    }

    #[test]
    fn a_pair_behaves_like_a_connection() {
        let (mut stream, theirs) = Stream::pair().unwrap();
        let mut peer = std::os::unix::net::UnixStream::from(theirs);
        peer.write_all(b"0123456789").unwrap();
        let mut into = [0; 6];
        assert_eq!(stream.peek(0, &mut into).unwrap().len, 6);
        assert_eq!(stream.peek(6, &mut into).unwrap().len, 4);
        stream.discard(5).unwrap();
        assert_eq!(stream.peek(1, &mut into).unwrap().len, 4);
        assert_eq!(&into[..4], b"6789");
        assert_eq!(
            stream
                .send(std::iter::once(Body::plain(b"hello")), &mut Vec::new())
                .unwrap(),
            5
        );
        let mut back = [0; 5];
        peer.set_nonblocking(false).unwrap();
        peer.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");
        assert!(stream.room() > 10_000);
    }

    #[test]
    fn room_is_never_promised_in_vain() {
        let (mut stream, _peer) = tcp();
        let chunk = vec![1; 60_000];
        let mut lost = 0;
        for _ in 0..1000 {
            let room = stream.room().min(chunk.len());
            if room == 0 {
                break;
            }
            lost += room
                - stream
                    .send(
                        std::iter::once(Body::plain(&chunk[..room])),
                        &mut Vec::new(),
                    )
                    .unwrap();
        }
        assert_eq!(lost, 0);
        assert!(
            stream.room() < 200_000,
            "the peer reads nothing, so room must run out"
        );
    }

    #[test]
    fn urgent_data_divides_nothing() {
        let (mut stream, peer) = tcp();
        stream.meet_urgent();
        (&peer).write_all(b"before").unwrap();
        rustix::net::send(&peer, b"!", SendFlags::OOB).unwrap();
        (&peer).write_all(b"after").unwrap();
        settle();
        let mut seen = Vec::<u8>::new();
        let mut into = [0; 64];
        loop {
            let peeked = stream.peek(seen.len(), &mut into).unwrap();
            seen.extend(&into[..peeked.len]);
            if !peeked.more {
                break;
            }
        }
        assert_eq!(seen, b"before!after");
    }
}
