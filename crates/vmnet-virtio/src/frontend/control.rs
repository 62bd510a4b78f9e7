//! Messages to a device, one after the other, each answered if it can be.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::FrontendError;
use crate::ring::RingConfig;
use crate::session::Request;
use crate::session::socket::{
    Got, HEADER, Header, NEED_REPLY, REPLY, halves, joined, read_full, write_message,
};

/// How long a device may think. One that has to drain rings first has to do so meanwhile.
const PATIENCE: Duration = Duration::from_secs(15);

/// The frontend's end of the socket.
#[derive(Debug)]
pub(super) struct Control {
    stream: UnixStream,
    /// The device says what became of each message (`REPLY_ACK`).
    pub(super) acknowledged: bool,
}

impl Control {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            acknowledged: false,
        })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends a message that has no answer of its own, and waits until it is done if the device can tell.
    pub(super) fn tell(
        &mut self,
        request: Request,
        payload: &[u64],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), FrontendError> {
        let flags = if self.acknowledged { NEED_REPLY } else { 0 };
        self.send(request, flags, payload, fds)?;
        if self.acknowledged && self.answer(request)? != 0 {
            return Err(FrontendError::Refused(request));
        }
        Ok(())
    }

    /// Sends a message that has an answer: one number of 64 bits.
    pub(super) fn ask(&mut self, request: Request, payload: &[u64]) -> Result<u64, FrontendError> {
        self.send(request, 0, payload, &[])?;
        self.answer(request)
    }

    fn send(
        &self,
        request: Request,
        flags: u32,
        payload: &[u64],
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), FrontendError> {
        let sent = write_message(&self.stream, request, flags, payload, fds);
        sent.map_err(|error| self.failed(request, error))
    }

    fn answer(&self, request: Request) -> Result<u64, FrontendError> {
        let mut fds = Vec::new();
        let mut header = [0; HEADER];
        let mut value = [0; 8];
        for part in [header.as_mut_slice(), value.as_mut_slice()] {
            match read_full(&self.stream, part, &mut fds) {
                Ok(Got::All) => {}
                Ok(Got::Bytes(_)) => return Err(FrontendError::Closed(request)),
                Ok(Got::TooManyFds) => return Err(FrontendError::Answer(request)),
                Err(error) => return Err(self.failed(request, error)),
            }
        }
        let header = Header::of(header);
        let is_it = header.sound
            && header.request == request
            && header.flags & REPLY != 0
            && header.len == value.len();
        if !is_it || !fds.is_empty() {
            return Err(FrontendError::Answer(request));
        }
        Ok(u64::from_ne_bytes(value))
    }

    fn failed(&self, request: Request, error: io::Error) -> FrontendError {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, WouldBlock};
        match error.kind() {
            BrokenPipe | ConnectionReset => FrontendError::Closed(request),
            TimedOut | WouldBlock => FrontendError::Late(request, PATIENCE.as_secs()),
            _ => FrontendError::Socket(error),
        }
    }

    /// Tells all about a ring, and switches it on.
    pub(super) fn start_ring(
        &mut self,
        index: u32,
        config: RingConfig,
        kick: BorrowedFd<'_>,
        call: BorrowedFd<'_>,
    ) -> Result<(), FrontendError> {
        let number = u64::from(index);
        let state = |value: u32| [joined(index, value)];
        self.tell(Request::SET_VRING_NUM, &state(config.size.into()), &[])?;
        let base = u32::from(config.base);
        let base = if config.packed {
            // Of what was made available, and of what was given back: the same, as nothing is on its way.
            base | base << 16
        } else {
            base
        };
        self.tell(Request::SET_VRING_BASE, &state(base), &[])?;
        let addresses = [
            joined(index, 0),
            config.descriptors,
            config.device,
            config.driver,
            0,
        ];
        self.tell(Request::SET_VRING_ADDR, &addresses, &[])?;
        self.tell(Request::SET_VRING_CALL, &[number], &[call])?;
        // Before it starts: what is sent by a ring that runs and is off may be thrown away.
        self.enable(index, true)?;
        self.tell(Request::SET_VRING_KICK, &[number], &[kick])
    }

    pub(super) fn enable(&mut self, index: u32, on: bool) -> Result<(), FrontendError> {
        let state = [joined(index, on.into())];
        self.tell(Request::SET_VRING_ENABLE, &state, &[])
    }

    pub(super) fn stop_ring(&mut self, index: u32) -> Result<u32, FrontendError> {
        let answer = self.ask(Request::GET_VRING_BASE, &[joined(index, 0)])?;
        match halves(answer) {
            (answered, base) if answered == index => Ok(base),
            _ => Err(FrontendError::Answer(Request::GET_VRING_BASE)),
        }
    }
}
