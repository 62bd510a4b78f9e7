//! Points in time, as libdispatch writes them: 64 bits, where 0 is now and all ones are never.
//!
//! Up to `i64::MAX` it is nanoseconds of the monotonic clock; above, minus nanoseconds of the clock on the wall. A deadline
//! by the wall is found when it is set: it does not follow later changes of that clock.

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

const NOW: u64 = 0;
const WALL_NOW: u64 = u64::MAX - 1;
const FOREVER: u64 = u64::MAX;
const NANOSECONDS: i64 = 1_000_000_000;

/// A point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Monotonic(i64),
    Wall(i64),
    Never,
}

impl Moment {
    pub(crate) fn from_raw(raw: u64) -> Self {
        match raw {
            FOREVER => Self::Never,
            NOW => Self::Monotonic(nanoseconds(libc::CLOCK_MONOTONIC)),
            WALL_NOW => Self::Wall(nanoseconds(libc::CLOCK_REALTIME)),
            _ => match i64::try_from(raw) {
                Ok(monotonic) => Self::Monotonic(monotonic),
                Err(_) => Self::Wall(raw.cast_signed().checked_neg().unwrap_or(i64::MAX)),
            },
        }
    }

    fn raw(self) -> u64 {
        match self {
            Self::Never => FOREVER,
            // 0 means now, so the first nanosecond is the earliest.
            Self::Monotonic(at) => at.max(1).cast_unsigned(),
            // -1 and -2 have meanings.
            Self::Wall(at) => (-at.max(3)).cast_unsigned(),
        }
    }

    fn plus(self, delta: i64) -> Self {
        let add = |at: i64| at.checked_add(delta).filter(|&sum| sum != i64::MAX);
        match self {
            Self::Never => Self::Never,
            Self::Monotonic(at) if delta > 0 => add(at).map_or(Self::Never, Self::Monotonic),
            Self::Wall(at) if delta > 0 => add(at).map_or(Self::Never, Self::Wall),
            Self::Monotonic(at) => Self::Monotonic(at.saturating_add(delta)),
            Self::Wall(at) => Self::Wall(at.saturating_add(delta)),
        }
    }

    /// When it is; never is none.
    pub(crate) fn deadline(self) -> Option<Instant> {
        let left = match self {
            Self::Never => return None,
            Self::Monotonic(at) => at.saturating_sub(nanoseconds(libc::CLOCK_MONOTONIC)),
            Self::Wall(at) => at.saturating_sub(nanoseconds(libc::CLOCK_REALTIME)),
        };
        // Beyond what an `Instant` holds is never too.
        Instant::now().checked_add(Duration::from_nanos(u64::try_from(left).unwrap_or(0)))
    }
}

/// What a clock says. Asked of libc, and not of the kernel's page: under valgrind there is no such page.
fn nanoseconds(clock: libc::clockid_t) -> i64 {
    let mut time = MaybeUninit::<libc::timespec>::zeroed();
    // SAFETY: It is filled in, and zeros are a time too.
    let time = unsafe {
        libc::clock_gettime(clock, time.as_mut_ptr());
        time.assume_init()
    };
    since_epoch(&time)
}

fn since_epoch(time: &libc::timespec) -> i64 {
    time.tv_sec
        .saturating_mul(NANOSECONDS)
        .saturating_add(time.tv_nsec)
}

/// A time some nanoseconds after another.
#[unsafe(no_mangle)]
pub extern "C" fn dispatch_time(when: u64, delta: i64) -> u64 {
    Moment::from_raw(when).plus(delta).raw()
}

/// A time some nanoseconds after one of the clock on the wall, or after now.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_walltime(when: *const libc::timespec, delta: i64) -> u64 {
    // SAFETY: Null or a time, which the caller has.
    let base =
        unsafe { when.as_ref() }.map_or_else(|| nanoseconds(libc::CLOCK_REALTIME), since_epoch);
    Moment::Wall(base).plus(delta).raw()
}

#[cfg(test)]
mod tests {
    use super::{FOREVER, Moment, NOW, WALL_NOW, dispatch_time, dispatch_walltime};
    use std::time::{Duration, Instant};

    #[test]
    fn a_delta_is_added() {
        let base = dispatch_time(NOW, 0);
        assert_eq!(dispatch_time(base, 1_000_000), base + 1_000_000);
        assert_eq!(dispatch_time(base + 5, -5), base);
        assert_eq!(dispatch_time(1, -100), 1);
    }

    #[test]
    fn never_stays_never_and_overflow_is_never() {
        assert_eq!(dispatch_time(FOREVER, -1), FOREVER);
        assert_eq!(dispatch_time(NOW, i64::MAX), FOREVER);
        assert_eq!(dispatch_time(WALL_NOW, i64::MAX), FOREVER);
        assert!(Moment::from_raw(FOREVER).deadline().is_none());
    }

    #[test]
    fn the_wall_runs_downwards() {
        let at = libc::timespec {
            tv_sec: 1000,
            tv_nsec: 7,
        };
        // SAFETY: A time that lives.
        let raw = unsafe { dispatch_walltime(&raw const at, 3) };
        assert_eq!(Moment::from_raw(raw), Moment::Wall(1_000_000_000_010));
        assert_eq!(
            Moment::from_raw(dispatch_time(raw, 10)),
            Moment::Wall(1_000_000_000_020)
        );
    }

    #[test]
    fn deadlines_of_both_clocks_agree() {
        let minute = 60_000_000_000;
        let monotonic = Moment::from_raw(dispatch_time(NOW, minute))
            .deadline()
            .unwrap();
        let wall = Moment::from_raw(dispatch_time(WALL_NOW, minute))
            .deadline()
            .unwrap();
        let apart = monotonic.max(wall) - monotonic.min(wall);
        assert!(apart < Duration::from_secs(1), "{apart:?}");
        assert!(Moment::from_raw(1).deadline().unwrap() <= Instant::now());
    }
}
