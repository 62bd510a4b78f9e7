//! How long others wait for a guest without free buffers.
//!
//! Who sends to a guest that is only a little slower waits, and loses nothing. But a guest that takes a frame now and then
//! must not keep others from everything else they want to send: waiting is paid for by what was taken.

use std::time::Duration;

/// What a frame that was taken pays for, and each of these many bytes of it.
const EARNED: Duration = Duration::from_micros(50);
const BYTES: usize = 1500;
/// The longest wait.
const MOST: Duration = Duration::from_millis(20);
/// For less than this it is not worth to wait.
const LEAST: Duration = Duration::from_micros(100);

/// How long a guest may keep others waiting.
#[derive(Debug)]
pub(super) struct Credit(Duration);

impl Credit {
    pub(super) fn new() -> Self {
        Self(MOST)
    }

    /// The guest took so many frames, of so many bytes together.
    pub(super) fn earn(&mut self, frames: usize, bytes: usize) {
        if self.0 < MOST {
            let pieces = (bytes / BYTES).saturating_add(frames);
            let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
            let earned = EARNED.saturating_mul(pieces);
            self.0 = self.0.saturating_add(earned).min(MOST);
        }
    }

    /// Others have waited.
    pub(super) fn spend(&mut self, waited: Duration) {
        self.0 = self.0.saturating_sub(waited);
    }

    /// How long others may wait now, if at all.
    pub(super) fn left(&self) -> Option<Duration> {
        (self.0 >= LEAST).then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_little_is_waited_for_little() {
        let mut credit = Credit::new();
        assert_eq!(credit.left(), Some(MOST));
        credit.spend(MOST * 2);
        assert_eq!(credit.left(), None);
        credit.earn(1, 60);
        assert_eq!(credit.left(), None);
        credit.earn(1, 60);
        assert_eq!(credit.left(), Some(EARNED * 2));
        for _ in 0..1000 {
            credit.earn(1, 65_000);
        }
        assert_eq!(credit.left(), Some(MOST));
    }
}
