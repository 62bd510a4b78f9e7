//! One event after the other, where the program wants them, also if its queue is concurrent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmnet_queue::{Job, Target};

struct State {
    jobs: VecDeque<Job>,
    running: bool,
    /// How often it has been suspended; it begins with one.
    suspended: usize,
    target: Target,
}

/// Events of one connection.
pub(super) struct Mailbox(Mutex<State>);

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Mailbox")
    }
}

impl Mailbox {
    pub(super) fn new(target: Target) -> Arc<Self> {
        let jobs = VecDeque::new();
        Arc::new(Self(Mutex::new(State {
            jobs,
            running: false,
            suspended: 1,
            target,
        })))
    }

    /// Where the next events run.
    pub(super) fn set_target(&self, target: Target) {
        let old = std::mem::replace(&mut self.lock().target, target);
        drop(old);
    }

    /// Another reference of where they run.
    pub(super) fn target(&self) -> Target {
        self.lock().target.again()
    }

    pub(super) fn push(self: &Arc<Self>, job: Job) {
        let mut state = self.lock();
        state.jobs.push_back(job);
        self.start(&mut state);
    }

    pub(super) fn suspend(&self) {
        self.lock().suspended += 1;
    }

    pub(super) fn resume(self: &Arc<Self>) {
        let mut state = self.lock();
        state.suspended = state.suspended.saturating_sub(1);
        self.start(&mut state);
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Forgets what waits.
    pub(super) fn clear(&self) {
        let jobs = std::mem::take(&mut self.lock().jobs);
        drop(jobs);
    }

    fn start(self: &Arc<Self>, state: &mut State) {
        if state.running || state.suspended > 0 || state.jobs.is_empty() {
            return;
        }
        state.running = true;
        let mailbox = Arc::clone(self);
        state.target.run(Box::new(move || mailbox.work()));
    }

    /// Does one job, and asks for the next: others want the queue too.
    fn work(self: Arc<Self>) {
        /// Goes on also when a job panics.
        struct Next(Arc<Mailbox>);
        impl Drop for Next {
            fn drop(&mut self) {
                let mut state = self.0.lock();
                state.running = false;
                self.0.start(&mut state);
            }
        }
        let mut state = self.lock();
        let job = if state.suspended > 0 {
            None
        } else {
            state.jobs.pop_front()
        };
        drop(state);
        let _next = Next(self);
        if let Some(job) = job {
            job();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
