//! Events: telling a program that packets can be read (vmnet: `vmnet_interface_set_event_callback`).
//!
//! An event comes while packets wait, one after the other and never two at once. It comes again at once if there was a read
//! since, or packets arrived; to a program that does neither it comes again now and then. There is a thread while a
//! callback is set, which sleeps as long as nothing comes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};
use std::{fmt, io};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::Shared;
use super::rings::Seen;
use crate::membership::lock;

/// How soon packets that nobody reads are told of again.
const AGAIN: Duration = Duration::from_millis(10);
/// How soon it is seen that more have come to those.
const LOOK: Duration = Duration::from_millis(1);

/// Packets can be read (`VMNET_INTERFACE_PACKETS_AVAILABLE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// How many wait at this moment: one at least (`vmnet_estimated_packets_available_key`).
    pub estimated_packets_available: usize,
}

/// What is told that an event is due. It passes it on, to a queue or a thread of its own, or runs the handler at once.
pub(super) type Notifier = dyn Fn(PendingEvent) + Send + Sync;

/// An event that is due. There is no other one until this is dropped.
#[derive(Debug)]
pub struct PendingEvent {
    shared: Arc<Shared>,
    registration: u64,
}

impl PendingEvent {
    /// To be asked where the handler is about to run. `None`: it must not any more, because it was replaced or cleared, or
    /// the interface stopped, or the packets were read meanwhile.
    #[must_use]
    pub fn begin(&self) -> Option<Event> {
        let events = &self.shared.events;
        let state = lock(&events.state);
        if state.registration != self.registration || state.ended || state.notifier.is_none() {
            return None;
        }
        drop(state);
        let waiting = self.shared.datapath.seen().waiting;
        if waiting == 0 {
            return None;
        }
        lock(&events.state).handler = Some(thread::current().id());
        Some(Event {
            estimated_packets_available: waiting,
        })
    }
}

impl Drop for PendingEvent {
    fn drop(&mut self) {
        let events = &self.shared.events;
        let mut state = lock(&events.state);
        (state.out, state.handler) = (false, None);
        let here = state.thread == Some(thread::current().id());
        drop(state);
        events.changed.notify_all();
        if !here {
            events.wake();
        }
    }
}

/// Who is told, and what was told last.
pub(super) struct Events {
    state: Mutex<State>,
    changed: Condvar,
    wake: OwnedFd,
    /// The thread waits for a read.
    unread: AtomicBool,
}

#[derive(Default)]
struct State {
    notifier: Option<Arc<Notifier>>,
    /// Counts registrations.
    registration: u64,
    /// An event is with its handler.
    out: bool,
    /// The thread that runs it, once it has begun.
    handler: Option<ThreadId>,
    /// The thread that waits.
    thread: Option<ThreadId>,
    ended: bool,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            unread: AtomicBool::new(false),
        })
    }

    fn wake(&self) {
        // It is as full as it gets, or done.
        let _woken = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// There was a read.
    #[inline]
    pub(super) fn was_read(&self) {
        if self.unread.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// An event is with its handler.
    pub(super) fn is_out(&self) -> bool {
        lock(&self.state).out
    }

    /// No event comes any more, and none is with its handler; unless that is who asks.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        state.ended = true;
        // What it has captured may be anything, as in [`set`].
        let before = state.notifier.take();
        self.wake();
        let here = Some(thread::current().id());
        let asks_itself = state.thread == here || state.handler == here;
        while state.out && !asks_itself {
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        drop(before);
    }
}

/// Tells `notifier` from now on, or nobody.
pub(super) fn set(shared: &Arc<Shared>, notifier: Option<Arc<Notifier>>) -> io::Result<()> {
    let events = &shared.events;
    let mut state = lock(&events.state);
    if state.ended {
        return Ok(());
    }
    if notifier.is_some() {
        shared.datapath.watch();
    }
    state.registration += 1;
    let is_set = notifier.is_some();
    // What a callback has captured may be anything: it is dropped outside of the lock.
    let before = std::mem::replace(&mut state.notifier, notifier);
    if is_set && state.thread.is_none() {
        let ours = Arc::downgrade(shared);
        let thread = thread::Builder::new()
            .name("vmnet-events".to_owned())
            .spawn(move || wait(&ours));
        match thread {
            Ok(thread) => state.thread = Some(thread.thread().id()),
            Err(error) => {
                let new = state.notifier.take();
                drop(state);
                drop((before, new));
                return Err(error);
            }
        }
    }
    events.wake();
    drop(state);
    drop(before);
    Ok(())
}

/// What the last event told of.
#[derive(Default)]
struct Told {
    registration: u64,
    seen: Seen,
    at: Option<Instant>,
}

/// What is to be done next.
enum Next {
    End,
    Tell(Arc<Notifier>, u64),
    /// Nothing before somebody says so.
    Sleep,
    /// Nothing before packets come.
    Await,
    /// Nothing for a moment.
    Linger,
}

/// The thread: until the interface ends.
fn wait(ours: &Weak<Shared>) {
    vmnet_virtio::signals::block_all();
    let mut told = Told::default();
    while let Some(shared) = ours.upgrade() {
        let events = &shared.events;
        match next(&shared, &mut told) {
            Next::End => return,
            Next::Tell(notifier, registration) => {
                let event = PendingEvent {
                    shared: Arc::clone(&shared),
                    registration,
                };
                // Its panic was reported, and is the program's; others are told all the same.
                let _panicked = catch_unwind(AssertUnwindSafe(|| notifier(event)));
            }
            Next::Sleep => {
                // Whoever was just woken for the handler may have this core, which is awake.
                thread::yield_now();
                look(&[events.wake.as_ref()], None, events);
            }
            Next::Await => {
                let ready = shared.datapath.watch();
                look(&[events.wake.as_ref(), ready], None, events);
            }
            Next::Linger => {
                events.unread.store(true, Ordering::Relaxed);
                look(&[events.wake.as_ref()], Some(LOOK), events);
                events.unread.store(false, Ordering::Relaxed);
            }
        }
    }
}

fn next(shared: &Arc<Shared>, told: &mut Told) -> Next {
    let mut state = lock(&shared.events.state);
    if state.ended {
        return Next::End;
    }
    let (Some(notifier), false) = (state.notifier.clone(), state.out) else {
        return Next::Sleep;
    };
    let seen = shared.datapath.seen();
    if seen.waiting == 0 {
        return Next::Await;
    }
    let is_new = told.registration != state.registration
        || told.seen.reads != seen.reads
        || told.seen.arrived != seen.arrived;
    let is_old = told.at.is_none_or(|at| at.elapsed() >= AGAIN);
    if !is_new && !is_old {
        return Next::Linger;
    }
    *told = Told {
        registration: state.registration,
        seen,
        at: Some(Instant::now()),
    };
    state.out = true;
    Next::Tell(notifier, state.registration)
}

trait AsBorrowed {
    fn as_ref(&self) -> BorrowedFd<'_>;
}

impl AsBorrowed for OwnedFd {
    fn as_ref(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(self)
    }
}

/// Waits for one of these, and takes what woke us.
fn look(at: &[BorrowedFd<'_>], timeout: Option<Duration>, events: &Events) {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    });
    let mut polled: Vec<PollFd<'_>> = at
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    // Interrupted or not: who called looks again.
    let _ready = poll(&mut polled, timeout.as_ref());
    if polled
        .first()
        .is_some_and(|wake| !wake.revents().is_empty())
    {
        let _taken = rustix::io::read(&events.wake, &mut [0_u8; 8]);
    }
}
