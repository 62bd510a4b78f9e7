//! The one thread that writes. Whatever waits when it is free is committed together, in the order in which it came.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::{io, mem, thread};

use super::StoreError;
use super::contents::{Change, Contents, Draft};
use super::database::Keeper;

/// How many jobs wait; those that come then wait before the queue, or are refused.
pub(super) const WAITING: usize = 1024;

/// A decision about the contents, and who wants to know that the disk has what came of it.
pub(super) struct Job {
    decide: Box<dyn FnOnce(&mut Draft) + Send>,
    done: Promise,
}

impl Job {
    pub(super) fn new(
        decide: impl FnOnce(&mut Draft) + Send + 'static,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) -> Self {
        Self {
            decide: Box::new(decide),
            done: Promise(Some(Box::new(done))),
        }
    }
}

type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Answers exactly once: when nobody does, it says that the store has ended.
struct Promise(Option<Done>);

impl Promise {
    fn answer(mut self, result: Result<(), StoreError>) {
        self.tell(result);
    }

    fn tell(&mut self, result: Result<(), StoreError>) {
        let Some(done) = self.0.take() else { return };
        if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
            tracing::error!("a callback of the store panicked");
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.tell(Err(StoreError::Ended));
    }
}

/// The way to the thread, and what it has committed.
#[derive(Debug)]
pub(super) struct Queue {
    committed: Arc<RwLock<Contents>>,
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Queue {
    pub(super) fn start(keeper: Keeper, contents: Contents) -> io::Result<Self> {
        let path = keeper.medium().path().to_owned();
        let (jobs, waiting) = sync_channel(WAITING);
        let draft = contents.clone();
        let committed = Arc::new(RwLock::new(contents));
        let writer = Writer {
            keeper,
            committed: Arc::clone(&committed),
            draft,
        };
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.run(&waiting))?;
        Ok(Self {
            committed,
            jobs: Some(jobs),
            thread: Some(thread),
            path,
        })
    }

    /// What is stored.
    pub(super) fn contents(&self) -> RwLockReadGuard<'_, Contents> {
        self.committed
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the store in messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for room, and then is in line.
    pub(super) fn send(&self, job: Job) -> Result<(), StoreError> {
        if self.is_its_thread() {
            return Err(StoreError::Itself);
        }
        let jobs = self.jobs.as_ref().ok_or(StoreError::Ended)?;
        jobs.send(job).map_err(|_| StoreError::Ended)
    }

    /// Is in line, or answers now that there is no room.
    pub(super) fn offer(&self, job: Job) {
        match self.jobs.as_ref().map(|jobs| jobs.try_send(job)) {
            Some(Err(TrySendError::Full(job))) => job.done.answer(Err(StoreError::Busy {
                path: self.path.clone(),
            })),
            // Ended: dropping the job has said so.
            Some(Ok(()) | Err(TrySendError::Disconnected(_))) | None => {}
        }
    }

    fn is_its_thread(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|store| store.thread().id() == thread::current().id())
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        drop(self.jobs.take());
        // A callback may have had the last handle. The thread ends by itself then.
        if !self.is_its_thread()
            && let Some(store) = self.thread.take()
            && store.join().is_err()
        {
            tracing::error!("the thread of the store panicked");
        }
    }
}

struct Writer {
    keeper: Keeper,
    committed: Arc<RwLock<Contents>>,
    /// The same as `committed`, outside of its lock.
    draft: Contents,
}

impl Writer {
    fn run(mut self, jobs: &Receiver<Job>) {
        while let Ok(first) = jobs.recv() {
            let batch = std::iter::once(first)
                .chain(jobs.try_iter().take(WAITING))
                .collect();
            self.commit(batch);
        }
    }

    fn commit(&mut self, batch: Vec<Job>) {
        let mut draft = Draft::of(mem::take(&mut self.draft));
        let mut promises = Vec::with_capacity(batch.len());
        for job in batch {
            (job.decide)(&mut draft);
            promises.push(job.done);
        }
        let (contents, changes) = draft.into_parts();
        let result = self.store(contents, changes);
        for promise in promises {
            promise.answer(result.clone());
        }
    }

    fn store(&mut self, draft: Contents, changes: Vec<Change>) -> Result<(), StoreError> {
        let result = if changes.is_empty() {
            Ok(())
        } else {
            let before = self
                .committed
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            self.keeper.commit(&changes, &before)
        };
        if result.is_err() {
            self.draft = self
                .committed
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            return result;
        }
        self.draft = draft;
        let mut committed = self
            .committed
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        changes
            .into_iter()
            .for_each(|change| committed.apply(change));
        Ok(())
    }
}
