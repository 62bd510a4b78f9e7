//! Varlink without a runtime: a socket whose futures are done when they are polled, because they block meanwhile.
//!
//! A library must not bring threads or a runtime into its host process, and a program that clones itself into a namespace
//! must have one thread. So the codec is `zlink`'s, and waiting is the kernel's.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use std::future::Future;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use zlink::connection::PassedCredentials;
use zlink::connection::socket::{ReadHalf, ReadResult, Socket, WriteHalf};

/// Descriptors that one call may carry.
const MAX_DESCRIPTORS: usize = 8;

/// A connected unix socket.
#[derive(Debug)]
pub(crate) struct Blocking(pub(crate) Arc<UnixStream>);

/// One direction of it.
#[derive(Debug)]
pub(crate) struct Half(Arc<UnixStream>);

impl Socket for Blocking {
    type ReadHalf = Half;
    type WriteHalf = Half;

    const CAN_TRANSFER_FDS: bool = true;

    fn split(self) -> (Half, Half) {
        (Half(Arc::clone(&self.0)), Half(self.0))
    }
}

impl ReadHalf for Half {
    async fn read(&mut self, buffer: &mut [u8]) -> zlink::Result<ReadResult> {
        let mut space =
            [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(buffer)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })
        .map_err(io::Error::from)?;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        Ok(ReadResult::new(received.bytes).set_fds(descriptors))
    }
}

impl WriteHalf for Half {
    async fn write(
        &mut self,
        mut buffer: &[u8],
        descriptors: &[impl AsFd],
        _credentials: Option<&PassedCredentials>,
    ) -> zlink::Result<()> {
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        let mut beside = descriptors.as_slice();
        while !buffer.is_empty() {
            let sent = send(&self.0, buffer, beside)?;
            // Descriptors go with the first byte, once.
            beside = &[];
            buffer = buffer.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}

fn send(stream: &UnixStream, buffer: &[u8], beside: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    rustix::io::retry_on_intr(|| {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !beside.is_empty() && !control.push(SendAncillaryMessage::ScmRights(beside)) {
            return Err(rustix::io::Errno::INVAL);
        }
        rustix::net::sendmsg(
            stream,
            &[IoSlice::new(buffer)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })
    .map_err(io::Error::from)
}

/// The value of a future whose socket is [`Blocking`].
pub(crate) fn wait<T>(future: impl Future<Output = zlink::Result<T>>) -> zlink::Result<T> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(value) => value,
        Poll::Pending => Err(io::Error::other("a blocking call did not block").into()),
    }
}
