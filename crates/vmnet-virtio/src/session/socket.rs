//! Bytes and descriptors on the socket, for either side of it (vhost-user, "Message specification").
//!
//! What is read is never more than was asked for, so that descriptors stay with the message that they came with.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::error::Request;

/// Most descriptors beside a message: one for each region of a large memory table.
pub(crate) const FDS_MAX: usize = 32;
/// Bytes of the longest payload: that of a memory table is shorter.
pub(crate) const PAYLOAD_MAX: usize = 4096;
/// Bytes of request, flags and length.
pub(crate) const HEADER: usize = 12;
/// The version of the protocol, in the low two bits of the flags.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
/// Flag: this answers a message.
pub(crate) const REPLY: u32 = 1 << 2;
/// Flag: tell if it was done.
pub(crate) const NEED_REPLY: u32 = 1 << 3;
/// In place of a ring's descriptor: there is none.
pub(crate) const NO_FD: u64 = 1 << 8;

/// What comes before each payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) request: Request,
    /// Without the version.
    pub(crate) flags: u32,
    /// Bytes of the payload.
    pub(crate) len: usize,
    /// The version is ours, and the length not more than any message has.
    pub(crate) sound: bool,
}

impl Header {
    pub(crate) fn of(bytes: [u8; HEADER]) -> Self {
        let [r0, r1, r2, r3, f0, f1, f2, f3, l0, l1, l2, l3] = bytes;
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        Self {
            request: Request(u32::from_ne_bytes([r0, r1, r2, r3])),
            flags: flags & !VERSION_MASK,
            len,
            sound: flags & VERSION_MASK == VERSION && len <= PAYLOAD_MAX,
        }
    }
}

/// What came before the connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Got {
    All,
    /// So many bytes.
    Bytes(usize),
    /// More descriptors than any message has.
    TooManyFds,
}

/// Fills `buffer`, and adds the descriptors that came with its bytes to `fds`.
pub(crate) fn read_full(
    stream: &UnixStream,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<Got> {
    let mut done: usize = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(rest)];
        let received = match recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            // The other side was killed with something of ours unread.
            Err(Errno::CONNRESET) => return Ok(Got::Bytes(done)),
            Err(error) => return Err(error.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                fds.extend(files);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > FDS_MAX {
            return Ok(Got::TooManyFds);
        }
        if received.bytes == 0 {
            return Ok(Got::Bytes(done));
        }
        done = done.saturating_add(received.bytes);
    }
    Ok(Got::All)
}

/// Sends a message, with `fds` beside it: at most [`FDS_MAX`].
pub(crate) fn write_message(
    stream: &UnixStream,
    request: Request,
    flags: u32,
    payload: &[u64],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let len = u32::try_from(size_of_val(payload)).unwrap_or(u32::MAX);
    let header = [request.0, VERSION | flags, len];
    let mut bytes: Vec<u8> = header.into_iter().flat_map(u32::to_ne_bytes).collect();
    bytes.extend(payload.iter().copied().flat_map(u64::to_ne_bytes));
    let (mut rest, mut fds) = (bytes.as_slice(), fds);
    while !rest.is_empty() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match sendmsg(
            stream,
            &[IoSlice::new(rest)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Ok(sent) => {
                rest = rest.get(sent..).unwrap_or_default();
                fds = &[];
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Two numbers of 32 bits that lie one behind the other, read as one of 64.
pub(crate) const fn halves(word: u64) -> (u32, u32) {
    let [a0, a1, a2, a3, b0, b1, b2, b3] = word.to_ne_bytes();
    (
        u32::from_ne_bytes([a0, a1, a2, a3]),
        u32::from_ne_bytes([b0, b1, b2, b3]),
    )
}

/// The reverse of [`halves`].
pub(crate) const fn joined(first: u32, second: u32) -> u64 {
    let [a0, a1, a2, a3] = first.to_ne_bytes();
    let [b0, b1, b2, b3] = second.to_ne_bytes();
    u64::from_ne_bytes([a0, a1, a2, a3, b0, b1, b2, b3])
}
