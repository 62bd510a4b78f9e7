//! Messages from a VMM: a request, its payload, and descriptors beside it. What is wrong with one is said with its
//! name.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::error::{MessageFault, Request, SessionError};
use super::socket::{
    Got, HEADER, Header, NEED_REPLY, NO_FD, REPLY, halves, read_full, write_message,
};
use crate::memory::RegionSource;

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
        let got = read_full(stream, &mut header, &mut fds).map_err(SessionError::Socket)?;
        match got {
            Got::Bytes(0) => return Ok(None),
            // Not even its kind came.
            Got::Bytes(1..=3) => header.fill(0),
            _ => {}
        }
        let header = Header::of(header);
        let wrong = |fault| SessionError::Message {
            message: header.request,
            fault,
        };
        whole(got).map_err(wrong)?;
        if !header.sound || header.flags & REPLY != 0 {
            return Err(wrong(MessageFault::Malformed));
        }
        let mut payload = vec![0; header.len];
        let got = read_full(stream, &mut payload, &mut fds).map_err(SessionError::Socket)?;
        whole(got).map_err(wrong)?;
        Ok(Some(Self {
            request: header.request,
            need_reply: header.flags & NEED_REPLY != 0,
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

    /// Answers the message. That the VMM is gone shows when the next one is read.
    pub(super) fn reply(&self, stream: &UnixStream, payload: &[u64]) -> Result<(), SessionError> {
        match write_message(stream, self.request, REPLY, payload, &[]) {
            Err(error) if is_gone(&error) => Ok(()),
            sent => sent.map_err(SessionError::Socket),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionReset)
}

const fn whole(got: Got) -> Result<(), MessageFault> {
    match got {
        Got::All => Ok(()),
        Got::Bytes(_) => Err(MessageFault::CutShort),
        Got::TooManyFds => Err(MessageFault::Descriptors),
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
