//! Queues of work.
//!
//! A queue starts jobs in the order in which they came. Ordinary jobs of a concurrent queue run beside each other; an
//! exclusive job waits for all before it, and all after it wait. A serial queue is one whose jobs are all exclusive.

use crate::pool::{self, Job};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Where jobs of a queue run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One at a time, on any thread.
    Serial,
    /// Many at once, on any threads.
    Concurrent,
    /// One at a time, on the thread that called [`Queue::serve`].
    Main,
}

/// What stands in a queue.
enum Entry {
    /// Work for a thread of the pool, or the main thread.
    Job { job: Job, exclusive: bool },
    /// Somebody who waits for a turn, to do the work in a thread of its own.
    Turn { gate: Arc<Gate>, exclusive: bool },
}

impl Entry {
    fn exclusive(&self) -> bool {
        match self {
            Self::Job { exclusive, .. } | Self::Turn { exclusive, .. } => *exclusive,
        }
    }
}

/// What a turn waits at.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Entry>,
    /// How many run.
    running: usize,
    /// What runs is alone.
    alone: bool,
    suspended: usize,
}

impl State {
    /// Whether the first may start.
    fn startable(&self) -> bool {
        self.suspended == 0
            && !self.alone
            && self
                .waiting
                .front()
                .is_some_and(|entry| !entry.exclusive() || self.running == 0)
    }

    /// Starts the first, if it may.
    fn start(&mut self) -> Option<Entry> {
        if !self.startable() {
            return None;
        }
        let entry = self.waiting.pop_front()?;
        self.running += 1;
        self.alone = entry.exclusive();
        Some(entry)
    }
}

/// A queue of work.
pub struct Queue {
    kind: Kind,
    state: Mutex<State>,
    /// Told of jobs for the main thread.
    main: Condvar,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Queue")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(kind: Kind) -> Arc<Self> {
        Arc::new(Self {
            kind,
            state: Mutex::default(),
            main: Condvar::new(),
        })
    }

    /// Where its jobs run.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Lets a job run when those before it have started; on a serial queue, have ended.
    pub fn push(self: &Arc<Self>, job: Job) {
        self.enter(Entry::Job {
            job,
            exclusive: self.kind != Kind::Concurrent,
        });
    }

    /// Lets a job run when all before it have ended, and before any after it starts.
    pub fn push_exclusive(self: &Arc<Self>, job: Job) {
        self.enter(Entry::Job {
            job,
            exclusive: true,
        });
    }

    /// Waits for a turn, works in this thread, and gives the turn back. From a job of a serial queue to the same queue
    /// this never returns.
    pub fn wait_for_turn<R>(self: &Arc<Self>, exclusive: bool, work: impl FnOnce() -> R) -> R {
        /// Gives the turn back, also when the work panics.
        struct Turn<'a>(&'a Arc<Queue>);
        impl Drop for Turn<'_> {
            fn drop(&mut self) {
                self.0.end();
            }
        }
        let gate = Arc::new(Gate::default());
        let exclusive = exclusive || self.kind != Kind::Concurrent;
        self.enter(Entry::Turn {
            gate: Arc::clone(&gate),
            exclusive,
        });
        let mut open = gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open {
            open = gate
                .opened
                .wait(open)
                .unwrap_or_else(PoisonError::into_inner);
        }
        drop(open);
        let _turn = Turn(self);
        work()
    }

    /// Lets nothing start until as many [`Queue::resume`] have come.
    pub fn suspend(&self) {
        self.lock().suspended += 1;
    }

    /// Takes back one [`Queue::suspend`].
    pub fn resume(self: &Arc<Self>) {
        let mut state = self.lock();
        state.suspended = state.suspended.saturating_sub(1);
        drop(state);
        self.start();
    }

    /// Runs the jobs of a [`Kind::Main`] queue, for ever.
    pub fn serve(self: &Arc<Self>) -> ! {
        loop {
            let mut state = self.lock();
            let entry = loop {
                if let Some(entry) = state.start() {
                    break entry;
                }
                state = self
                    .main
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(state);
            match entry {
                Entry::Job { job, .. } => {
                    pool::finish(job);
                    self.end();
                }
                Entry::Turn { gate, .. } => open(&gate),
            }
        }
    }

    fn enter(self: &Arc<Self>, entry: Entry) {
        self.lock().waiting.push_back(entry);
        self.start();
    }

    /// Starts what may start.
    fn start(self: &Arc<Self>) {
        if self.kind == Kind::Main {
            self.main.notify_one();
            return;
        }
        loop {
            let Some(entry) = self.lock().start() else {
                return;
            };
            match entry {
                Entry::Turn { gate, .. } => open(&gate),
                Entry::Job { job, .. } => {
                    let queue = Arc::clone(self);
                    pool::run(Box::new(move || queue.work(job)));
                }
            }
        }
    }

    /// Does a job, and those that may start when it has ended, so that a busy serial queue stays on its thread.
    fn work(self: Arc<Self>, job: Job) {
        let mut next = Some(job);
        while let Some(job) = next.take() {
            pool::finish(job);
            let mut state = self.lock();
            state.running -= 1;
            state.alone = false;
            next = match state.start() {
                None => None,
                Some(Entry::Job { job, .. }) => Some(job),
                Some(Entry::Turn { gate, .. }) => {
                    open(&gate);
                    None
                }
            };
        }
        self.start();
    }

    /// A turn has ended.
    fn end(self: &Arc<Self>) {
        let mut state = self.lock();
        state.running -= 1;
        state.alone = false;
        drop(state);
        self.start();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells who waits there that its turn has come.
fn open(gate: &Gate) {
    *gate.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
    gate.opened.notify_one();
}

#[cfg(test)]
mod tests;
