//! Bytes and descriptors over a socket.

use super::core::Core;
use crate::wire::Stream;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// The kernel's limit of descriptors in one call.
const MOST_AT_ONCE: usize = 253;

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Messages.
    Messages,
    /// A named service's: gives sockets of clients.
    Accept,
    /// An endpoint's: gets sockets of clients.
    Rendezvous,
}

/// A socket that the reactor waits for.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) token: u64,
    pub(super) socket: OwnedFd,
    pub(super) purpose: Use,
    pub(super) core: Arc<Core>,
    /// What has arrived; only the reactor's thread reads.
    pub(super) stream: Mutex<Stream>,
}

impl Link {
    /// Sends some bytes, with descriptors. Never waits.
    pub(super) fn send(&self, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<usize, Errno> {
        send(
            self.socket.as_fd(),
            bytes,
            descriptors.iter().map(AsFd::as_fd).collect(),
        )
    }

    /// Receives some bytes, with descriptors. Never waits. 0 bytes are the end.
    pub(super) fn receive(&self, bytes: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
        receive(self.socket.as_fd(), bytes)
    }
}

pub(super) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: Vec<BorrowedFd<'_>>,
) -> Result<usize, Errno> {
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(crate::wire::MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::MSGSIZE);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    retry_on_intr(|| sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags))
}

pub(super) fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_AT_ONCE))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received =
        retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags))?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    Ok((received.bytes, descriptors))
}
