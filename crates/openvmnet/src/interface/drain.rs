//! An interface that ends: what was written before goes out, as it would from a card that is unplugged behind it.
//!
//! The service takes what is in the ring or the socket by itself, soon, and that is waited for. A service that has gone, or
//! stands still, is not.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A service that took nothing for so long will not. It may have to wait for a processor.
const STILL: Duration = Duration::from_millis(500);
/// The longest wait.
const MOST: Duration = Duration::from_secs(2);

/// A wait for the service to take what was written.
#[derive(Debug)]
pub(super) struct Drain {
    until: Instant,
    still_until: Instant,
}

impl Drain {
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self {
            until: now + MOST,
            still_until: now + STILL,
        }
    }

    /// The service took something.
    pub(super) fn moved(&mut self) {
        self.still_until = Instant::now() + STILL;
    }

    /// Waits until `told` is readable. False: it took too long, or the service hung up at `line`.
    pub(super) fn wait(&self, told: Option<BorrowedFd<'_>>, line: BorrowedFd<'_>) -> bool {
        let until = self.until.min(self.still_until);
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let line = PollFd::from_borrowed_fd(line, PollFlags::RDHUP);
        let told = told.map(|told| PollFd::from_borrowed_fd(told, PollFlags::IN));
        let mut polled: Vec<PollFd<'_>> = std::iter::once(line).chain(told).collect();
        // Interrupted or not: who called looks again.
        let _ready = poll(&mut polled, Some(&left));
        polled.first().is_some_and(|line| line.revents().is_empty())
    }
}
