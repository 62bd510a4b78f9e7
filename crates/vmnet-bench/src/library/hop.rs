//! How long it takes to wake a thread, and one behind it: what any way of a frame from one process by way of another to a
//! third needs at least, where all sleep.

use super::ours::PAUSE;
use crate::service::{Failure, percentile};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{read, write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::channel;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// Microseconds, the median, from a write to an eventfd until a thread runs that waited for it; or, of several `hops`, that
/// waited for the one before. One each 2 ms, as frames in the row beside it.
pub(super) fn measure(hops: usize, time: Duration) -> Result<f64, Failure> {
    let flags = EventfdFlags::CLOEXEC;
    let bells: Vec<OwnedFd> = (0..hops)
        .map(|_| eventfd(0, flags))
        .collect::<Result<_, _>>()?;
    let first = bells.first().ok_or("no hop")?;
    let (tell, told) = channel();
    let want = usize::try_from(time.as_millis() / PAUSE.as_millis())?.max(50);
    let mut all = Vec::with_capacity(want);
    thread::scope(|scope| -> Result<(), Failure> {
        for (at, bell) in bells.iter().enumerate() {
            let next = bells.get(at + 1);
            let tell = tell.clone();
            scope.spawn(move || {
                for _ in 0..want {
                    hear(bell);
                    match next {
                        Some(next) => ring(next),
                        // Nobody listens any more when it is over.
                        None => drop(tell.send(Instant::now())),
                    }
                }
            });
        }
        for _ in 0..want {
            let before = Instant::now();
            ring(first);
            let heard = told.recv()?;
            all.push(heard.duration_since(before).as_secs_f64() * 1e6);
            sleep(PAUSE);
        }
        Ok(())
    })?;
    percentile(&all, 50)
}

fn ring(bell: &OwnedFd) {
    let _rung = write(bell, &1_u64.to_ne_bytes());
}

fn hear(bell: &OwnedFd) {
    let _ready = poll(&mut [PollFd::new(bell, PollFlags::IN)], None);
    let _taken = read(bell, &mut [0; 8]);
}
