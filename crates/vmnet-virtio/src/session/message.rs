//! Messages on the socket: a header, a payload, and descriptors beside them (vhost-user, "Communication").
//!
//! Everything is read with as many system calls as it takes, and never beyond the message, so that descriptors stay with
//! theirs. What is wrong with a message is said with its name.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendFlags, recvmsg, send,
};

use super::error::{MessageFault, Request, SessionError};
use crate::memory::RegionSource;

/// Most descriptors beside a message: one for each region of a large memory table.
const FDS_MAX: usize = 32;
/// Bytes of the longest payload: that of a memory table is shorter.
const PAYLOAD_MAX: usize = 4096;
/// Bytes of request, flags and length.
const HEADER: usize = 12;
/// The version of the protocol, in the low two bits of the flags.
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
/// Flag: this answers a message.
const REPLY: u32 = 1 << 2;
/// Flag: tell if it was done.
const NEED_REPLY: u32 = 1 << 3;
/// In place of a ring's descriptor: there is none.
const NO_FD: u64 = 1 << 8;

/// A message from the VMM.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) request: Request,
    /// The VMM wants to know if it was done, by a message of its own if it has no other answer.
    pub(super) need_reply: bool,
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Message {
    /// Waits for the next message, and for all of it; `None` when the connection is closed between two.
    pub(super) fn read(stream: &UnixStream) -> Result<Option<Self>, SessionError> {
        let mut fds = Vec::new();
        let mut header = [0; HEADER];
        let got = read_full(stream, &mut header, &mut fds)?;
        let [r0, r1, r2, r3, f0, f1, f2, f3, l0, l1, l2, l3] = header;
        let request = Request(u32::from_ne_bytes([r0, r1, r2, r3]));
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let len = u32::from_ne_bytes([l0, l1, l2, l3]);
        let wrong = |fault| {
            Err(SessionError::Message {
                message: request,
                fault,
            })
        };
        match got {
            Got::All => {}
            Got::Bytes(0) => return Ok(None),
            Got::Bytes(_) => return wrong(MessageFault::CutShort),
            Got::TooManyFds => return wrong(MessageFault::Descriptors),
        }
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if flags & VERSION_MASK != VERSION || flags & REPLY != 0 || len > PAYLOAD_MAX {
            return wrong(MessageFault::Malformed);
        }
        let mut payload = vec![0; len];
        match read_full(stream, &mut payload, &mut fds)? {
            Got::All => {}
            Got::Bytes(_) => return wrong(MessageFault::CutShort),
            Got::TooManyFds => return wrong(MessageFault::Descriptors),
        }
        Ok(Some(Self {
            request,
            need_reply: flags & NEED_REPLY != 0,
            payload,
            fds,
        }))
    }

    /// What is wrong with this message, as an error.
    pub(super) fn wrong(&self, fault: MessageFault) -> SessionError {
        SessionError::Message {
            message: self.request,
            fault,
        }
    }

    /// The payload, if it has exactly `N` numbers of 64 bits, and there are no descriptors.
    fn words<const N: usize>(&self) -> Result<[u64; N], SessionError> {
        if !self.fds.is_empty() {
            return Err(self.wrong(MessageFault::Descriptors));
        }
        self.words_beside_fds()
    }

    fn words_beside_fds<const N: usize>(&self) -> Result<[u64; N], SessionError> {
        let (words, rest) = self.payload.as_chunks::<8>();
        match <&[[u8; 8]; N]>::try_from(words) {
            Ok(words) if rest.is_empty() => Ok(words.map(u64::from_ne_bytes)),
            _ => Err(self.wrong(MessageFault::Malformed)),
        }
    }

    /// Nothing beside the request.
    pub(super) fn nothing(&self) -> Result<(), SessionError> {
        self.words::<0>().map(|[]| ())
    }

    /// One number.
    pub(super) fn number(&self) -> Result<u64, SessionError> {
        self.words().map(|[number]| number)
    }

    /// A ring's number, and one more.
    pub(super) fn state(&self) -> Result<(u32, u32), SessionError> {
        self.words().map(|[word]| halves(word))
    }

    /// Where a ring is.
    pub(super) fn addresses(&self) -> Result<Addresses, SessionError> {
        let [first, descriptors, device, driver, _log] = self.words()?;
        let (index, flags) = halves(first);
        if flags != 0 {
            // The only flag is that for a log of what is written, which is not offered.
            return Err(self.wrong(MessageFault::NotNegotiated));
        }
        Ok(Addresses {
            index,
            descriptors,
            driver,
            device,
        })
    }

    /// A ring's number, and the descriptor for it, if there is to be one.
    pub(super) fn ring_fd(&mut self) -> Result<(u32, Option<OwnedFd>), SessionError> {
        let [word] = self.words_beside_fds()?;
        let (index, _) = halves(word & 0xff);
        match (word & NO_FD != 0, self.fds.len()) {
            (true, 0) | (false, 1) => Ok((index, self.fds.pop())),
            _ => Err(self.wrong(MessageFault::Descriptors)),
        }
    }

    /// All regions of a memory table.
    pub(super) fn regions(&mut self) -> Result<Vec<RegionSource>, SessionError> {
        let (words, rest) = self.payload.as_chunks::<8>();
        let Some((first, words)) = words.split_first().filter(|_| rest.is_empty()) else {
            return Err(self.wrong(MessageFault::Malformed));
        };
        let (count, _padding) = halves(u64::from_ne_bytes(*first));
        let (regions, rest) = words.as_chunks::<4>();
        if usize::try_from(count) != Ok(regions.len()) || !rest.is_empty() {
            return Err(self.wrong(MessageFault::Malformed));
        }
        if self.fds.len() != regions.len() {
            return Err(self.wrong(MessageFault::Descriptors));
        }
        let fds = std::mem::take(&mut self.fds);
        let pairs = regions.iter().zip(fds);
        Ok(pairs
            .map(|(region, file)| Region::of(region.map(u64::from_ne_bytes)).source(file))
            .collect())
    }

    /// One region more.
    pub(super) fn added_region(&mut self) -> Result<RegionSource, SessionError> {
        let [_padding, region @ ..] = self.words_beside_fds::<5>()?;
        match (self.fds.pop(), self.fds.len()) {
            (Some(file), 0) => Ok(Region::of(region).source(file)),
            _ => Err(self.wrong(MessageFault::Descriptors)),
        }
    }

    /// One region less. A descriptor beside it is tolerated: VMMs have sent one.
    pub(super) fn removed_region(&self) -> Result<Region, SessionError> {
        if self.fds.len() > 1 {
            return Err(self.wrong(MessageFault::Descriptors));
        }
        let [_padding, region @ ..] = self.words_beside_fds::<5>()?;
        Ok(Region::of(region))
    }

    /// Answers the message.
    pub(super) fn reply(&self, stream: &UnixStream, payload: &[u64]) -> Result<(), SessionError> {
        let len = u32::try_from(size_of_val(payload)).unwrap_or(0);
        let header = [self.request.0, VERSION | REPLY, len];
        let mut bytes: Vec<u8> = header.into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.extend(payload.iter().copied().flat_map(u64::to_ne_bytes));
        write_full(stream, &bytes)
    }
}

/// Where a ring is, by the VMM's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Addresses {
    pub(super) index: u32,
    pub(super) descriptors: u64,
    /// The available ring, or the driver's event suppression.
    pub(super) driver: u64,
    /// The used ring, or the device's.
    pub(super) device: u64,
}

/// A region of memory, without its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Region {
    pub(super) guest_addr: u64,
    pub(super) size: u64,
    pub(super) user_addr: u64,
    offset: u64,
}

impl Region {
    const fn of([guest_addr, size, user_addr, offset]: [u64; 4]) -> Self {
        Self {
            guest_addr,
            size,
            user_addr,
            offset,
        }
    }

    fn source(self, file: OwnedFd) -> RegionSource {
        RegionSource {
            guest_addr: self.guest_addr,
            user_addr: self.user_addr,
            size: self.size,
            offset: self.offset,
            file,
        }
    }
}

/// Two numbers of 32 bits that lie one behind the other, read as one of 64.
const fn halves(word: u64) -> (u32, u32) {
    let [a0, a1, a2, a3, b0, b1, b2, b3] = word.to_ne_bytes();
    (
        u32::from_ne_bytes([a0, a1, a2, a3]),
        u32::from_ne_bytes([b0, b1, b2, b3]),
    )
}

/// The reverse of [`halves`].
pub(super) const fn joined(first: u32, second: u32) -> u64 {
    let [a0, a1, a2, a3] = first.to_ne_bytes();
    let [b0, b1, b2, b3] = second.to_ne_bytes();
    u64::from_ne_bytes([a0, a1, a2, a3, b0, b1, b2, b3])
}

/// What came before the connection ended.
enum Got {
    All,
    /// So many bytes.
    Bytes(usize),
    /// More descriptors than any message has.
    TooManyFds,
}

/// Fills `buffer`, and adds the descriptors that came with its bytes to `fds`.
fn read_full(
    stream: &UnixStream,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<Got, SessionError> {
    let mut done: usize = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(rest)];
        let received = match recvmsg(stream, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            // A VMM that was killed with an answer unread.
            Err(Errno::CONNRESET) => return Ok(Got::Bytes(done)),
            Err(error) => return Err(SessionError::Socket(error.into())),
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

fn write_full(stream: &UnixStream, mut bytes: &[u8]) -> Result<(), SessionError> {
    while !bytes.is_empty() {
        match send(stream, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // It is gone. The next look for a message says so.
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            Err(error) => return Err(SessionError::Socket(io::Error::from(error))),
        }
    }
    Ok(())
}
