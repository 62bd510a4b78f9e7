//! DNS messages over sockets: framed by their length in a stream (RFC 1035 §4.2.2, RFC 7766 §8), or one in a datagram.
//!
//! A stream takes as many messages at once as its peer sends, in whatever pieces they come, and gives them on in order;
//! answers may go back in any order. Nothing here waits. What a peer can make us hold has an end: one message of
//! input, and [`OUTPUT_LIMIT`] bytes that it does not read. Time limits for idle streams are the caller's.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::packet::bind_to_interface;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// A peer that leaves more than this unread has to be closed.
pub const OUTPUT_LIMIT: usize = 256 * 1024;

/// Bytes taken by one call of [`Stream::read`], so that one busy peer does not keep the others waiting.
const READ_LIMIT: usize = 128 * 1024;

const CHUNK: usize = 16 * 1024;

/// An idle stream keeps at most this much memory.
const IDLE_CAPACITY: usize = 4096;

/// How a stream stands after it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All that came was taken.
    Drained,
    /// There is more to read at once; others first.
    More,
    /// The peer will send nothing any more. It may still read: answers to what it asked are owed.
    Ended,
}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The peer does not read its answers.
    #[error("the peer has left {OUTPUT_LIMIT} bytes unread: close the stream")]
    Full,
    /// Its length does not fit in front of it.
    #[error("the message is longer than 65,535 bytes and cannot be framed")]
    TooLong,
}

/// One non-blocking stream socket that carries DNS messages.
#[derive(Debug)]
pub struct Stream {
    fd: OwnedFd,
    input: Vec<u8>,
    output: VecDeque<u8>,
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Stream {
    /// Takes a connected stream socket and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// If `fd` cannot be made non-blocking.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self {
            fd,
            input: Vec::new(),
            output: VecDeque::new(),
        })
    }

    /// Begins a TCP connection to a resolver. Queue the query at once and call [`Stream::flush`] when the socket is
    /// writable: if the connection failed, that is where it shows.
    ///
    /// # Errors
    ///
    /// If there is no socket left, or the host knows at once that the resolver cannot be reached.
    pub fn connect(resolver: SocketAddr, by: Option<&str>) -> io::Result<Self> {
        let fd = socket(resolver, SocketType::STREAM, by)?;
        rustix::net::sockopt::set_tcp_nodelay(&fd, true)?;
        match rustix::net::connect(&fd, &resolver) {
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self {
            fd,
            input: Vec::new(),
            output: VecDeque::new(),
        })
    }

    /// Takes what has come and gives every whole message to `each`, without its length.
    ///
    /// # Errors
    ///
    /// If the connection broke, or could not be made. Messages that came before have been given on.
    pub fn read(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<Status> {
        let mut chunk = [0; CHUNK];
        let mut taken = 0;
        let status = loop {
            if taken >= READ_LIMIT {
                break Ok(Status::More);
            }
            match rustix::net::recv(&self.fd, &mut chunk[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => break Ok(Status::Ended),
                Ok((count, _)) => {
                    self.input.extend(chunk.iter().take(count));
                    taken += count;
                    let rest = split(&self.input, &mut each).len();
                    self.input.drain(..self.input.len() - rest);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Ok(Status::Drained),
                Err(error) => break Err(error.into()),
            }
        };
        if self.input.is_empty() {
            self.input.shrink_to(IDLE_CAPACITY);
        }
        status
    }

    /// Puts a message behind those that are not sent yet; [`Stream::flush`] sends it.
    ///
    /// # Errors
    ///
    /// If the peer has left too much unread, or the message is too long. Nothing was queued then.
    pub fn queue(&mut self, message: &[u8]) -> Result<(), QueueError> {
        let length = u16::try_from(message.len()).map_err(|_| QueueError::TooLong)?;
        if self.output.len() + 2 + message.len() > OUTPUT_LIMIT {
            return Err(QueueError::Full);
        }
        self.output.extend(length.to_be_bytes());
        self.output.extend(message);
        Ok(())
    }

    /// Sends what the socket takes. What it does not take stays; see [`Stream::wants_write`].
    ///
    /// # Errors
    ///
    /// If the connection broke, or could not be made.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let (first, _) = self.output.as_slices();
            match rustix::net::send(&self.fd, first, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.output.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.output.shrink_to(IDLE_CAPACITY);
        Ok(())
    }

    /// Whether to wait until the socket is writable.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }
}

/// Gives on the whole messages and returns what is left of an unfinished one.
fn split<'a>(mut bytes: &'a [u8], each: &mut impl FnMut(&[u8])) -> &'a [u8] {
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let Some((message, rest)) = rest.split_at_checked(u16::from_be_bytes(*length).into())
        else {
            break;
        };
        each(message);
        bytes = rest;
    }
    bytes
}

/// Sends one message to a resolver from a fresh UDP socket and returns it, non-blocking and connected.
///
/// The kernel chooses the source port at random, and passes on only what comes from that resolver. An unreachable
/// port shows as an error when the socket is read.
///
/// # Errors
///
/// If there is no socket or port left, or the host knows at once that the resolver cannot be reached.
pub fn udp_query(resolver: SocketAddr, message: &[u8], by: Option<&str>) -> io::Result<OwnedFd> {
    let fd = socket(resolver, SocketType::DGRAM, by)?;
    rustix::net::connect(&fd, &resolver)?;
    rustix::net::send(&fd, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(fd)
}

/// A socket that leaves by the interface called `by`, if one is given.
fn socket(peer: SocketAddr, kind: SocketType, by: Option<&str>) -> io::Result<OwnedFd> {
    let family = if peer.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if let Some(name) = by {
        bind_to_interface(&socket, name)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests;
