//! What was moved under a token. Threads add to it while the control loop reads it.

use crate::control::{Count, Totals};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the last bytes of a finished job may take.
const DRAIN: Duration = Duration::from_secs(20);

/// The counters of one job.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    bytes: AtomicU64,
    packets: AtomicU64,
    /// Threads at work.
    busy: AtomicU64,
    halted: AtomicBool,
    peer: Mutex<Option<IpAddr>>,
    failure: Mutex<Option<String>>,
}

/// All jobs of one load generator.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tallies(Arc<Mutex<HashMap<u64, Arc<Tally>>>>);

/// Keeps a job from being summed up while a thread still works on it.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Tally>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tallies {
    /// The tally of a token, new if there was none.
    pub(crate) fn open(&self, token: u64) -> Arc<Tally> {
        Arc::clone(lock(&self.0).entry(token).or_default())
    }

    /// Waits for the threads of a token, sums up and forgets it.
    pub(crate) fn close(&self, token: u64) -> Totals {
        let tally = lock(&self.0).remove(&token).unwrap_or_default();
        let limit = Instant::now() + DRAIN;
        while tally.busy.load(Relaxed) > 0 {
            if Instant::now() > limit {
                tally.fail(&format!(
                    "the last bytes did not arrive within {} s",
                    DRAIN.as_secs()
                ));
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Totals {
            bytes: tally.bytes.load(Relaxed),
            packets: tally.packets.load(Relaxed),
            peer: *lock(&tally.peer),
            failure: lock(&tally.failure).clone(),
        }
    }
}

impl Tally {
    /// Counts a thread in; drop the guard when it is done.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Relaxed);
        Busy(Arc::clone(self))
    }

    /// Adds one read, write or batch.
    pub(crate) fn add(&self, bytes: usize, packets: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.packets.fetch_add(packets as u64, Relaxed);
    }

    /// Notes with which address the other end came.
    pub(crate) fn saw(&self, peer: IpAddr) {
        *lock(&self.peer) = Some(peer);
    }

    /// Keeps the first failure.
    pub(crate) fn fail(&self, why: &str) {
        lock(&self.failure).get_or_insert_with(|| why.to_owned());
    }

    /// Asks the threads to end.
    pub(crate) fn halt(&self) {
        self.halted.store(true, Relaxed);
    }

    /// Whether the threads were asked to end.
    pub(crate) fn halted(&self) -> bool {
        self.halted.load(Relaxed)
    }

    /// A sample with its time.
    pub(crate) fn count(&self) -> Count {
        let bytes = self.bytes.load(Relaxed);
        let packets = self.packets.load(Relaxed);
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let nanos = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
        Count {
            bytes,
            packets,
            nanos,
        }
    }
}
