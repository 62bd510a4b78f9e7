//! Looking again for a moment before sleeping.
//!
//! Whoever sleeps must be woken, by a system call of the service's, and on a core that rests that takes longer than a burst
//! of packets. So who waits for packets or for room gives way to others and looks again, for a moment. Where that is in vain, or
//! where others compute on this core, it sleeps at once for a while.

use std::thread;
use std::time::{Duration, Instant};

/// How long to look.
const LOOK: Duration = Duration::from_micros(100);
/// Giving way for longer than this is not to whoever moves packets.
const SCARCE: Duration = Duration::from_micros(500);
/// The first and the longest time without looks after one that was in vain.
const PAUSE_MIN: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// When it is worth looking.
#[derive(Debug)]
pub(super) struct Look {
    not_before: Option<Instant>,
    pause: Duration,
}

impl Look {
    pub(super) const fn new() -> Self {
        Self {
            not_before: None,
            pause: PAUSE_MIN,
        }
    }

    /// Gives way to others until `found` finds something or it takes too long. Answers what was found at last.
    ///
    /// # Errors
    /// As `found`.
    pub(super) fn look<E>(
        &mut self,
        mut found: impl FnMut() -> Result<bool, E>,
    ) -> Result<bool, E> {
        let begun = Instant::now();
        if self.not_before.is_some_and(|at| begun < at) {
            return Ok(false);
        }
        let mut before = begun;
        loop {
            thread::yield_now();
            let now = Instant::now();
            let is_there = found()?;
            let is_scarce = now.duration_since(before) > SCARCE;
            if is_there && !is_scarce {
                self.pause = (self.pause / 2).max(PAUSE_MIN);
                return Ok(true);
            }
            if is_scarce || now.duration_since(begun) > LOOK {
                self.not_before = Some(now + self.pause);
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                return Ok(is_there);
            }
            before = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn vain_looks_become_rare_and_what_is_found_brings_them_back() {
        let mut look = Look::new();
        for _ in 0..20 {
            look.not_before = None;
            assert_eq!(look.look(|| Ok::<_, Infallible>(false)), Ok(false));
        }
        assert_eq!(look.pause, PAUSE_MAX);
        let mut looked = false;
        let once = look.look(|| {
            looked = true;
            Ok::<_, Infallible>(true)
        });
        assert_eq!((once, looked), (Ok(false), false), "not yet again");
        look.not_before = None;
        assert_eq!(look.look(|| Ok::<_, Infallible>(true)), Ok(true));
        // Unless the test itself was kept from the core for long.
        assert!(look.pause == PAUSE_MAX / 2 || look.not_before.is_some());
    }
}
