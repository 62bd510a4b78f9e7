//! Deadlines of many things: which is due next?

use core::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Deadlines of things named by `K`.
///
/// An entry is a reminder to look, no promise that something is due: whoever moves its deadline
/// further away leaves the old entry in place, finds nothing due when it comes up, and sets
/// it anew. So moving a deadline away, the common case, costs nothing.
#[derive(Debug)]
pub struct Deadlines<K> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Ord + Copy> Default for Deadlines<K> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
        }
    }
}

impl<K: Ord + Copy> Deadlines<K> {
    /// Look at `key` at `at`, or soon after.
    pub fn set(&mut self, at: Instant, key: K) {
        self.heap.push(Reverse((at, key)));
    }

    /// When the next look is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Reminders, old ones among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// There is nothing to look at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Forgets reminders that nobody needs any more.
    pub fn retain(&mut self, mut is_needed: impl FnMut(Instant, K) -> bool) {
        self.heap.retain(|Reverse((at, key))| is_needed(*at, *key));
    }

    /// The next thing whose look is due.
    pub fn due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, key))| key)
    }
}
