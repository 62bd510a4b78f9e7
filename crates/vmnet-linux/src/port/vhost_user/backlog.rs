//! Frames that wait for buffers of the guest, because nobody can be kept waiting for them.

use vmnet_core::Drop;
use vmnet_virtio::net::{HEADER_MAX, Header};

use crate::port::Pieces;

/// Bytes that may wait for a guest; and the memory that is kept while nothing waits.
const QUEUE: usize = 1 << 20;
/// The same for a program of the library's, whose ring has few buffers, so that they stay in a processor's cache. It is promised
/// that several hundred packets wait for it, however large.
const QUEUE_OF_PROGRAM: usize = 16 << 20;

/// A queue of frames, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Bytes that may wait.
    limit: usize,
    bytes: Vec<u8>,
    /// By which pair each goes, its header, and where it ends.
    frames: Vec<(u8, [u8; HEADER_MAX], usize)>,
    /// Frames that are out, and where the next begins.
    sent: usize,
    start: usize,
}

/// The frame that waits longest.
pub(super) struct Waiting<'a> {
    pub(super) pair: u8,
    pub(super) header: Header,
    pub(super) bytes: &'a [u8],
}

impl Backlog {
    /// An empty one, of a guest's port or a program's.
    pub(super) fn of(is_program: bool) -> Self {
        Self {
            limit: if is_program { QUEUE_OF_PROGRAM } else { QUEUE },
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent >= self.frames.len()
    }

    /// Adds a frame.
    ///
    /// # Errors
    /// There is no room.
    pub(super) fn push(
        &mut self,
        pair: u8,
        header: Header,
        pieces: &Pieces<'_>,
    ) -> Result<(), Drop> {
        let len = pieces.len() - pieces.header.len();
        let waiting = self.bytes.len() - self.start;
        if waiting + len > self.limit {
            return Err(Drop::PortFull);
        }
        // What is moved is less than what went out since it was moved last.
        if self.start > waiting {
            self.bytes.drain(..self.start);
            self.frames.drain(..self.sent);
            for (_, _, end) in &mut self.frames {
                *end -= self.start;
            }
            (self.sent, self.start) = (0, 0);
        }
        self.bytes.extend_from_slice(pieces.head);
        pieces.body.append_to(&mut self.bytes);
        self.frames.push((pair, header.0, self.bytes.len()));
        Ok(())
    }

    pub(super) fn first(&self) -> Option<Waiting<'_>> {
        let (pair, header, end) = self.frames.get(self.sent)?;
        Some(Waiting {
            pair: *pair,
            header: Header(*header),
            bytes: self.bytes.get(self.start..*end)?,
        })
    }

    /// The first one is out.
    pub(super) fn done(&mut self) {
        if let Some((_, _, end)) = self.frames.get(self.sent) {
            self.start = *end;
            self.sent += 1;
        }
        if self.is_empty() {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
        self.bytes.shrink_to(QUEUE);
        self.frames.shrink_to(QUEUE / 1024);
        (self.sent, self.start) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::body::Body;

    #[test]
    fn what_waits_keeps_its_order_and_its_limit() {
        let mut backlog = Backlog::of(false);
        let (mut pushed, mut seen) = (0u32, 0u32);
        for round in 0..3 {
            loop {
                let head = pushed.to_be_bytes();
                let pieces = Pieces {
                    header: &[],
                    head: &head,
                    body: Body::plain(&[7; 996]),
                };
                if backlog.push(1, Header::default(), &pieces).is_err() {
                    break;
                }
                pushed += 1;
            }
            if round == 0 {
                assert_eq!(pushed, 1048);
            }
            for _ in 0..500 {
                let first = backlog.first().unwrap();
                assert_eq!(first.bytes.len(), 1000);
                assert_eq!(first.bytes[..4], seen.to_be_bytes());
                seen += 1;
                backlog.done();
            }
        }
        assert!(backlog.bytes.len() <= 2 * QUEUE);
        while backlog.first().is_some() {
            seen += 1;
            backlog.done();
        }
        assert_eq!(seen, pushed);
        assert!(backlog.is_empty() && backlog.bytes.is_empty());
    }
}
