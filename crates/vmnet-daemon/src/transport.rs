//! The service's end of a connection: varlink over a unix socket, with limits.
//!
//! A message is at most [`MESSAGE_MAX`] long, brings at most [`DESCRIPTORS_MAX`] descriptors, and a reply that is not taken
//! within [`PATIENCE`] ends its connection.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use zlink::connection::PassedCredentials;
use zlink::connection::socket::{ReadHalf, ReadResult, Socket, WriteHalf};

/// The longest message that is read, in bytes.
const MESSAGE_MAX: usize = 1 << 20;
/// Descriptors that come with one message; a call brings one. What is beyond is closed.
const DESCRIPTORS_MAX: usize = 8;
/// How long a reply may wait for its reader.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connected client.
#[derive(Debug)]
pub(crate) struct Transport(pub(crate) Rc<UnixStream>);

/// The way from it.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: Rc<UnixStream>,
    /// Bytes of a message that is not complete.
    incomplete: usize,
    /// Descriptors that came with it.
    descriptors: usize,
}

/// The way to it.
#[derive(Debug)]
pub(crate) struct Writer(Rc<UnixStream>);

impl Socket for Transport {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    const CAN_TRANSFER_FDS: bool = true;

    fn split(self) -> (Reader, Writer) {
        let reader = Reader {
            stream: Rc::clone(&self.0),
            incomplete: 0,
            descriptors: 0,
        };
        (reader, Writer(self.0))
    }
}

impl ReadHalf for Reader {
    async fn read(&mut self, buffer: &mut [u8]) -> zlink::Result<ReadResult> {
        let (length, descriptors) = self
            .stream
            .async_io(Interest::READABLE, || receive(&self.stream, buffer))
            .await?;
        let read = buffer.get(..length).unwrap_or_default();
        // Those that come with the end of a message are its own, and wait no longer.
        (self.incomplete, self.descriptors) = match read.iter().rposition(|&byte| byte == 0) {
            Some(end) => (length - end - 1, 0),
            None => (
                self.incomplete + length,
                self.descriptors + descriptors.len(),
            ),
        };
        if self.incomplete > MESSAGE_MAX || self.descriptors > DESCRIPTORS_MAX {
            return Err(zlink::Error::BufferOverflow);
        }
        Ok(ReadResult::new(length).set_fds(descriptors))
    }
}

fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(buffer)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((received.bytes, descriptors))
}

fn send_beside(
    stream: &UnixStream,
    buffer: &[u8],
    beside: &[OwnedFd],
    flags: SendFlags,
) -> io::Result<usize> {
    let beside: Vec<BorrowedFd<'_>> = beside.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !beside.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&beside)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let pieces = [IoSlice::new(buffer)];
    Ok(rustix::net::sendmsg(stream, &pieces, &mut control, flags)?)
}

impl WriteHalf for Writer {
    async fn write(
        &mut self,
        buffer: &[u8],
        _descriptors: &[impl AsFd],
        _credentials: Option<&PassedCredentials>,
    ) -> zlink::Result<()> {
        self.write_in_time(buffer, &[]).await
    }
}

impl Writer {
    pub(crate) fn new(stream: Rc<UnixStream>) -> Self {
        Self(stream)
    }

    /// Sends a reply that may be long. zlink's own way makes room for 256 bytes more whenever a message does not fit, and
    /// then begins it anew: the list of a thousand interfaces took seconds of everybody's time.
    /// Descriptors go with its first byte.
    pub(crate) async fn send(
        &self,
        reply: &impl Serialize,
        beside: &[OwnedFd],
    ) -> zlink::Result<()> {
        let mut message = serde_json::to_vec(reply)?;
        message.push(0);
        self.write_in_time(&message, beside).await
    }

    async fn write_in_time(&self, message: &[u8], beside: &[OwnedFd]) -> zlink::Result<()> {
        tokio::time::timeout(PATIENCE, self.write_all(message, beside))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(())
    }

    async fn write_all(&self, mut buffer: &[u8], mut beside: &[OwnedFd]) -> io::Result<()> {
        while !buffer.is_empty() {
            let sent = self
                .0
                .async_io(Interest::WRITABLE, || {
                    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                    send_beside(&self.0, buffer, beside, flags)
                })
                .await?;
            beside = &[];
            buffer = buffer.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Nowhere: what a call's handler gets in place of its connection, which no handler of ours uses.
#[derive(Debug)]
pub(crate) struct Nowhere;

impl Socket for Nowhere {
    type ReadHalf = Self;
    type WriteHalf = Self;

    fn split(self) -> (Self, Self) {
        (Self, Self)
    }
}

impl ReadHalf for Nowhere {
    async fn read(&mut self, _buffer: &mut [u8]) -> zlink::Result<ReadResult> {
        Err(zlink::Error::UnexpectedEof)
    }
}

impl WriteHalf for Nowhere {
    async fn write(
        &mut self,
        _buffer: &[u8],
        _descriptors: &[impl AsFd],
        _credentials: Option<&PassedCredentials>,
    ) -> zlink::Result<()> {
        Err(zlink::Error::SocketWrite)
    }
}
