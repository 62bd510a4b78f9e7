//! Threads that run jobs. One is made when a job finds none idle, and ends when it has been idle for a while.
//!
//! Jobs may block (that is how handlers of vmnet programs push back), so their number is not that of the processors.
//! At [`MOST_THREADS`] jobs wait. A child of `fork` begins without threads and without jobs.

use crate::fork;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A piece of work.
pub type Job = Box<dyn FnOnce() + Send>;

/// How many threads there can be at once.
pub const MOST_THREADS: usize = 256;

/// How long a thread stays without work.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it takes to ask the host again for the first thread.
const RETRY: Duration = Duration::from_millis(5);

/// Jobs that wait, and the threads.
#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static STATE: Mutex<State> = Mutex::new(State {
    jobs: VecDeque::new(),
    threads: 0,
    idle: 0,
});
static WORK: Condvar = Condvar::new();

/// Runs a job on some thread, soon. Waits only for the first thread, if the host has none.
pub fn run(job: Job) {
    fork::watch();
    let mut state = lock();
    state.jobs.push_back(job);
    if state.idle >= state.jobs.len() || state.threads >= MOST_THREADS {
        WORK.notify_one();
        return;
    }
    state.threads += 1;
    drop(state);
    let spawn = || {
        std::thread::Builder::new()
            .name("vmnet-queue".to_owned())
            .spawn(work)
    };
    while spawn().is_err() {
        // The host has no thread for us now. Others will come to the job, if there are any.
        let mut state = lock();
        if state.threads > 1 {
            state.threads -= 1;
            return;
        }
        drop(state);
        std::thread::sleep(RETRY);
    }
}

/// A thread's life.
fn work() {
    let mut state = lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            finish(job);
            state = lock();
            continue;
        }
        state.idle += 1;
        let (woken, waited) = WORK
            .wait_timeout(state, PATIENCE)
            .unwrap_or_else(PoisonError::into_inner);
        state = woken;
        state.idle -= 1;
        if waited.timed_out() && state.jobs.is_empty() {
            state.threads -= 1;
            return;
        }
    }
}

/// Does a job. The panic of one must not take the thread from the others; it has been reported when it happened.
pub(crate) fn finish(job: Job) {
    let _reported = catch_unwind(AssertUnwindSafe(job));
}

thread_local! {
    /// Between [`before_fork`] and [`after_fork`], in the thread that forks, which is the child's only one.
    static LOCKED: RefCell<Option<MutexGuard<'static, State>>> = const { RefCell::new(None) };
}

/// Nobody changes anything while the process is copied.
pub(crate) fn before_fork() {
    // A thread that ends has no such places any more. It forks without.
    let _ending = LOCKED.try_with(|locked| *locked.borrow_mut() = Some(lock()));
}

/// The threads are the parent's, and so is the work they were to do.
pub(crate) fn after_fork(in_child: bool) {
    let locked = LOCKED.try_with(|locked| locked.borrow_mut().take());
    if let (Ok(Some(mut state)), true) = (locked, in_child) {
        // Not dropped: what it would let go of is the parent's.
        std::mem::forget(std::mem::take(&mut *state));
    }
}

fn lock() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::run;
    use std::sync::mpsc;
    use std::sync::{Arc, Barrier};
    use std::time::Duration;

    #[test]
    fn blocked_jobs_do_not_keep_others_waiting() {
        let barrier = Arc::new(Barrier::new(21));
        for _ in 0..20 {
            let barrier = Arc::clone(&barrier);
            run(Box::new(move || {
                barrier.wait();
            }));
        }
        let (sender, receiver) = mpsc::channel();
        run(Box::new(move || sender.send(7).unwrap()));
        assert_eq!(receiver.recv_timeout(Duration::from_secs(20)).unwrap(), 7);
        barrier.wait();
    }

    #[test]
    fn a_panic_ends_only_its_job() {
        run(Box::new(|| panic!("a job of the test")));
        let (sender, receiver) = mpsc::channel();
        run(Box::new(move || sender.send(()).unwrap()));
        receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
