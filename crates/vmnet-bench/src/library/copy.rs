//! How fast this machine copies a frame, from one place to another that it has not used for a while; and what is left of that
//! if each frame is copied three times.

use crate::service::Failure;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// Places that take turns, as those of a ring do.
const PLACES: usize = 64;
/// From a program into its ring, from there into another one's, from there into that program.
const COPIES: usize = 3;

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

/// The share of a plain copy's speed that is left where all processors do nothing but copy, none waits for another, and each
/// frame takes three copies: no way of a frame by way of two rings is faster than this, but by what it finds in caches.
pub(super) fn three_times(len: usize, time: Duration) -> Result<f64, Failure> {
    let threads = thread::available_parallelism()?.get().min(COPIES);
    let alone = seconds(len, time);
    let rates = thread::scope(|scope| {
        let all: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| 1.0 / seconds(len, time)))
            .collect();
        let joined = all.into_iter().map(|one| one.join());
        joined.collect::<Result<Vec<f64>, _>>()
    });
    let together: f64 = rates.map_err(|_| "a copying thread panicked")?.iter().sum();
    Ok(together / COPIES as f64 * alone)
}
