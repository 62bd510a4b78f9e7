//! Frames that wait for buffers of the guest, because nobody can be kept waiting for them.

use std::sync::atomic::{AtomicUsize, Ordering};

use vmnet_core::Drop as Reason;
use vmnet_virtio::net::{HEADER_MAX, Header};

use crate::port::Pieces;

/// Bytes that may wait for a guest; and the memory that is kept while nothing waits.
const QUEUE: usize = 1 << 20;
/// The same for a program of the library's, whose ring has few buffers, so that they stay in a processor's cache. It is promised
/// that several hundred packets wait for it, however large.
const QUEUE_OF_PROGRAM: usize = 16 << 20;
/// What programs have in all beyond what a guest's port has. Who finds none left is treated as a guest.
const BEYOND: usize = 256 << 20;
/// It is taken in steps of this.
const STEP: usize = 1 << 20;
/// What is taken of it.
static TAKEN: AtomicUsize = AtomicUsize::new(0);
/// What a frame costs beside its bytes.
const ENTRY: usize = size_of::<(u8, [u8; HEADER_MAX], usize)>();

/// A queue of frames, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Bytes that may wait, those of entries included.
    limit: usize,
    /// What it has taken of [`BEYOND`].
    taken: usize,
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
        let mut made = Self::default();
        made.limit = if is_program { QUEUE_OF_PROGRAM } else { QUEUE };
        made
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
    ) -> Result<(), Reason> {
        let len = pieces.len() - pieces.header.len();
        let waiting = self.bytes.len() - self.start;
        let entries = (self.frames.len() - self.sent + 1) * ENTRY;
        if !self.takes(waiting + len + entries) {
            return Err(Reason::PortFull);
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

    /// Whether so many bytes may wait.
    fn takes(&mut self, bytes: usize) -> bool {
        let beyond = bytes.saturating_sub(QUEUE + self.taken);
        if bytes > self.limit || beyond == 0 {
            return bytes <= self.limit;
        }
        let step = beyond.next_multiple_of(STEP);
        let more = |taken: usize| taken.checked_add(step).filter(|sum| *sum <= BEYOND);
        let got = TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        self.taken += if got.is_ok() { step } else { 0 };
        got.is_ok()
    }

    fn give_back(&mut self) {
        TAKEN.fetch_sub(self.taken, Ordering::Relaxed);
        self.taken = 0;
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
        self.give_back();
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::body::Body;

    #[test]
    fn programs_share_what_they_have_beyond_guests() {
        let mut all: Vec<_> = (0..18).map(|_| Backlog::of(true)).collect();
        let had = all
            .iter_mut()
            .filter_map(|it| it.takes(QUEUE_OF_PROGRAM).then_some(()));
        assert_eq!(had.count(), BEYOND / (QUEUE_OF_PROGRAM - QUEUE));
        let last = all.last_mut().unwrap();
        assert!(
            last.takes(QUEUE) && !last.takes(QUEUE_OF_PROGRAM) && !last.takes(QUEUE_OF_PROGRAM + 1)
        );
        all.remove(0);
        assert!(
            all.last_mut().unwrap().takes(QUEUE_OF_PROGRAM),
            "who goes leaves it"
        );
    }

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
                assert_eq!(pushed, 1024, "with an entry of 24 bytes each");
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
