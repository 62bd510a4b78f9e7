//! How fast this machine copies a frame, from one place to another that it has not used for a while.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Places that take turns, as those of a ring do.
const PLACES: usize = 64;

/// Seconds of one copy.
pub(super) fn seconds(len: usize, time: Duration) -> f64 {
    let from = vec![1_u8; len * PLACES];
    let mut to = vec![0_u8; len * PLACES];
    let mut copies: u32 = 0;
    let mut begun = None;
    loop {
        for (from, to) in from.chunks(len).zip(to.chunks_mut(len)) {
            black_box(to).copy_from_slice(black_box(from));
        }
        // The first round maps the pages.
        let begun = *begun.get_or_insert_with(Instant::now);
        let elapsed = begun.elapsed();
        if elapsed >= time && copies > 0 {
            return elapsed.as_secs_f64() / f64::from(copies);
        }
        copies += PLACES as u32;
    }
}
