//! Points of our clock as dates, and back.
//!
//! [`Instant`] never jumps and means nothing to another process; a date outlives us, and jumps when somebody sets the
//! clock. Neither direction fails, however far the clock was set.

use std::time::{Duration, Instant, SystemTime};

/// Two clocks, read at the same moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct WallClock {
    now: Instant,
    date: SystemTime,
}

impl WallClock {
    /// As the clocks stand.
    pub(super) fn at(now: Instant) -> Self {
        Self {
            now,
            date: SystemTime::now(),
        }
    }

    /// The date of a point of time.
    pub(super) fn date(&self, at: Instant) -> SystemTime {
        let date = match at.checked_duration_since(self.now) {
            Some(ahead) => self.date.checked_add(ahead),
            None => self.date.checked_sub(self.now.duration_since(at)),
        };
        date.unwrap_or(self.date)
    }

    /// The point of time of a date, at most `most` ahead. A date too far back for our clock is now.
    pub(super) fn instant(&self, date: SystemTime, most: Duration) -> Instant {
        let at = match date.duration_since(self.date) {
            Ok(ahead) => self.now.checked_add(ahead.min(most)),
            Err(past) => self.now.checked_sub(past.duration()),
        };
        at.unwrap_or(self.now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn there_and_back() {
        let now = Instant::now();
        let clock = WallClock::at(now);
        for at in [
            now,
            now + HOUR,
            now + HOUR * 23,
            now.checked_sub(HOUR).unwrap(),
        ] {
            assert_eq!(clock.instant(clock.date(at), HOUR * 24), at);
        }
    }

    #[test]
    fn a_clock_that_was_set() {
        let now = Instant::now();
        let clock = WallClock::at(now);
        let years = HOUR * 24 * 365 * 40;
        assert_eq!(clock.instant(clock.date + years, HOUR), now + HOUR, "back");
        assert!(clock.instant(SystemTime::UNIX_EPOCH, HOUR) <= now, "forth");
        let far = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(1 << 62));
        assert_eq!(clock.instant(far.unwrap(), HOUR), now + HOUR);
        let long_ago = SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(1 << 62));
        assert!(clock.instant(long_ago.unwrap(), HOUR) <= now);
    }
}
