//! A stream socket on which each frame follows its length in four bytes, big-endian: QEMU's `-netdev stream`, and
//! what passt, gvproxy and socket_vmnet speak.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use vmnet_core::Drop;

use crate::port::{Flushed, INPUT_MAX, Pieces};
use crate::sys::places::Places;

/// Bytes before each frame.
const LENGTH: usize = 4;
/// Bytes that are read at once.
const INPUT: usize = 256 << 10;
/// Bytes that may wait for a guest that does not read. Streams of the NAT stop much earlier.
const QUEUE: usize = 1 << 20;
/// Bytes after which the queue is sent without waiting for the burst's end.
const BURST: usize = 128 << 10;

/// A stream socket.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: OwnedFd,
    input: Vec<u8>,
    filled: usize,
    queue: Vec<u8>,
    sent: usize,
    blocked: bool,
}

/// The guest sent what is no frame: its stream cannot be followed any further.
#[derive(Debug, thiserror::Error)]
#[error(
    "the VMM sent a frame of {0} bytes on its stream; at most {INPUT_MAX} are possible: is it QEMU's framing?"
)]
pub(crate) struct NoFrame(usize);

impl Stream {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            input: Vec::new(),
            filled: 0,
            queue: Vec::new(),
            sent: 0,
            blocked: false,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Reads what is there. Answers whether anything was.
    ///
    /// # Errors
    /// The guest is gone (`UnexpectedEof`), or the socket broke.
    pub(crate) fn receive(&mut self) -> io::Result<bool> {
        if self.input.is_empty() {
            self.input.resize(INPUT, 0);
        }
        match rustix::io::read(&self.fd, &mut self.input[self.filled..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.filled += count;
                Ok(true)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the buffer out, so that its frames can be looked at while the port is used; to be given back.
    pub(crate) fn take_input(&mut self) -> Input {
        Input {
            bytes: std::mem::take(&mut self.input),
            filled: self.filled,
            next: 0,
        }
    }

    /// Gives the buffer back; what is left of a frame moves to its front.
    pub(crate) fn give_back(&mut self, mut input: Input) {
        input.bytes.copy_within(input.next..input.filled, 0);
        self.filled = input.filled - input.next;
        self.input = input.bytes;
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// The queue is full.
    pub(crate) fn push(&mut self, pieces: Pieces<'_>) -> Result<(), Drop> {
        let len = pieces.len();
        if self.queue.len() - self.sent + LENGTH + len > QUEUE {
            return Err(Drop::PortFull);
        }
        let length = u32::try_from(len).map_err(|_| Drop::TooLong)?.to_be_bytes();
        if self.blocked || len < BURST / 4 {
            self.queue.extend_from_slice(&length);
            pieces.append_to(&mut self.queue);
        } else {
            self.send_large(&length, &pieces);
        }
        if self.queue.len() - self.sent >= BURST && !self.blocked {
            // A broken socket is met again by the flush at the burst's end.
            let _later = self.flush();
        }
        Ok(())
    }

    /// Sends a large frame without copying it, behind what is queued; what does not go is queued.
    fn send_large(&mut self, length: &[u8], pieces: &Pieces<'_>) {
        let queued = self.queue.len() - self.sent;
        let mut places = Places::new();
        places.push(self.queue.get(self.sent..).unwrap_or(&[]));
        places.push(length);
        pieces.name_to(&mut places);
        // A list that is not whole has the first of them: then it is as if the socket had taken no more.
        let mut written = places.write(&self.fd).unwrap_or(0);
        let from_queue = written.min(queued);
        self.sent += from_queue;
        written -= from_queue;
        self.blocked = self.sent < self.queue.len();
        for piece in [length, pieces.header] {
            let skipped = written.min(piece.len());
            written -= skipped;
            self.queue.extend_from_slice(&piece[skipped..]);
        }
        let (head, body) = pieces.rest(written);
        self.queue.extend_from_slice(head);
        body.append_to(&mut self.queue);
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// The guest is gone.
    pub(crate) fn flush(&mut self) -> io::Result<Flushed> {
        self.blocked = false;
        while self.sent < self.queue.len() {
            let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
            match rustix::net::send(&self.fd, &self.queue[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(rustix::io::Errno::AGAIN) => {
                    self.blocked = true;
                    self.queue.drain(..self.sent);
                    self.sent = 0;
                    return Ok(Flushed::Full);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.queue.clear();
        self.sent = 0;
        Ok(Flushed::Empty)
    }
}

/// What was read from a stream.
#[derive(Debug)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    filled: usize,
    next: usize,
}

impl Input {
    /// Where the next whole frame lies; `None` if the rest has not come yet.
    ///
    /// # Errors
    /// There is no frame of that length.
    pub(crate) fn next(&mut self) -> Result<Option<&mut [u8]>, NoFrame> {
        let rest = &self.bytes[self.next..self.filled];
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*length) as usize;
        if len > INPUT_MAX {
            return Err(NoFrame(len));
        }
        if rest.len() < len {
            return Ok(None);
        }
        self.next += LENGTH + len;
        Ok(Some(&mut self.bytes[self.next - len..self.next]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::body::Body;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Stream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Stream::new(ours.into()), theirs)
    }

    fn frames(stream: &mut Stream) -> Vec<Vec<u8>> {
        while stream.receive().unwrap_or(false) {}
        let mut input = stream.take_input();
        let mut frames = Vec::new();
        while let Some(frame) = input.next().unwrap() {
            frames.push(frame.to_vec());
        }
        stream.give_back(input);
        frames
    }

    fn pieces<'a>(head: &'a [u8], body: &'a [u8]) -> Pieces<'a> {
        Pieces {
            header: &[],
            head,
            body: Body::plain(body),
        }
    }

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let (mut stream, mut theirs) = pair();
        let wire = [&[0, 0, 0, 3, 1, 2, 3][..], &[0, 0, 0, 0], &[0, 0, 0, 1, 9]].concat();
        let mut found = Vec::new();
        for byte in wire {
            theirs.write_all(&[byte]).unwrap();
            found.extend(frames(&mut stream));
        }
        assert_eq!(found, [vec![1, 2, 3], vec![], vec![9]]);
    }

    #[test]
    fn an_impossible_length_is_named() {
        let (mut stream, mut theirs) = pair();
        theirs.write_all(&[0xff; 8]).unwrap();
        stream.receive().unwrap();
        assert!(
            stream
                .take_input()
                .next()
                .unwrap_err()
                .to_string()
                .contains("4294967295")
        );
    }

    #[test]
    fn a_guest_that_does_not_read_fills_a_bounded_queue_and_loses_no_byte_of_a_frame() {
        let (mut stream, mut theirs) = pair();
        let mut pushed = 0u32;
        loop {
            let size = if pushed.is_multiple_of(3) {
                60_000
            } else {
                100
            };
            let body = vec![pushed as u8; size];
            if stream.push(pieces(&pushed.to_be_bytes(), &body)).is_err() {
                break;
            }
            pushed += 1;
        }
        assert!(stream.queue.len() <= QUEUE);
        assert_eq!(stream.flush().unwrap(), Flushed::Full);
        let reader = std::thread::spawn(move || {
            let mut seen = 0u32;
            let mut length = [0; 4];
            while theirs.read_exact(&mut length).is_ok() {
                let mut frame = vec![0; u32::from_be_bytes(length) as usize];
                theirs.read_exact(&mut frame).unwrap();
                assert_eq!(frame[..4], seen.to_be_bytes());
                assert!(frame[4..].iter().all(|byte| *byte == seen as u8));
                seen += 1;
            }
            seen
        });
        while stream.flush().unwrap() != Flushed::Empty {
            std::thread::yield_now();
        }
        drop(stream);
        assert_eq!(reader.join().unwrap(), pushed);
    }
}
