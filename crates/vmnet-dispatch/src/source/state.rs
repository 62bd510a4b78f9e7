//! One source: what is pending, and when its handler runs.

use super::events::Events;
use super::signal;
use crate::queue::Target;
use crate::work::Work;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a source waits for.
#[derive(Debug)]
pub(super) enum Kind {
    Timer,
    Signal(i32),
    /// A descriptor of our own, so that several sources can wait for one of the program's.
    Read(OwnedFd),
}

/// A second descriptor of the same file; none if the first is not open.
pub(super) fn duplicate(descriptor: i32) -> Option<OwnedFd> {
    if descriptor < 0 {
        return None;
    }
    // SAFETY: If nobody has it open, the system says so.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 3).ok()
}

#[derive(Debug)]
struct State {
    handler: Option<Arc<Work>>,
    cancel_handler: Option<Work>,
    suspended: usize,
    /// It has been resumed once.
    active: bool,
    cancelled: bool,
    /// What the next call of the handler reports.
    pending: Option<u64>,
    /// What this call of the handler reports.
    data: u64,
    /// A call stands in the queue, or runs.
    scheduled: bool,
    first: Option<Instant>,
    interval: Option<Duration>,
    /// Counts settings of the timer, so that deadlines of earlier ones are known.
    setting: u64,
}

/// A source.
#[derive(Debug)]
pub(super) struct Source {
    kind: Kind,
    target: Target,
    events: &'static Events,
    state: Mutex<State>,
}

impl Source {
    pub(super) fn new(kind: Kind, target: Target, events: &'static Events) -> Arc<Self> {
        let state = State {
            handler: None,
            cancel_handler: None,
            suspended: 1,
            active: false,
            cancelled: false,
            pending: None,
            data: 0,
            scheduled: false,
            first: None,
            interval: None,
            setting: 0,
        };
        Arc::new(Self {
            kind,
            target,
            events,
            state: Mutex::new(state),
        })
    }

    pub(super) fn set_handler(&self, work: Option<Work>) {
        let mut state = self.lock();
        if !state.cancelled {
            let old = std::mem::replace(&mut state.handler, work.map(Arc::new));
            drop(state);
            drop(old);
        }
    }

    pub(super) fn set_cancel_handler(&self, work: Option<Work>) {
        let mut state = self.lock();
        if !state.cancelled {
            let old = std::mem::replace(&mut state.cancel_handler, work);
            drop(state);
            drop(old);
        }
    }

    pub(super) fn set_timer(self: &Arc<Self>, first: Option<Instant>, interval: Option<Duration>) {
        let mut state = self.lock();
        (state.first, state.interval) = (first, interval);
        state.setting += 1;
        if matches!(self.kind, Kind::Timer) {
            state.pending = None;
            if state.active {
                self.wait_for_timer(&state);
            }
        }
    }

    pub(super) fn data(&self) -> u64 {
        self.lock().data
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    pub(super) fn suspend(&self) {
        self.lock().suspended += 1;
    }

    pub(super) fn activate(self: &Arc<Self>) {
        if !self.lock().active {
            self.resume();
        }
    }

    pub(super) fn resume(self: &Arc<Self>) {
        let mut state = self.lock();
        state.suspended = state.suspended.saturating_sub(1);
        if state.suspended > 0 || state.cancelled {
            return;
        }
        if !state.active {
            state.active = true;
            match &self.kind {
                Kind::Timer => self.wait_for_timer(&state),
                Kind::Signal(number) => self.events.watch_signal(*number, self),
                Kind::Read(descriptor) => {
                    if !self.events.watch_descriptor(descriptor, self) {
                        // What cannot be waited for, a file, can always be read.
                        state.pending = Some(1);
                    }
                }
            }
        }
        self.schedule(&mut state);
    }

    /// Something has happened so many times, or so many bytes are there.
    pub(super) fn happened(self: &Arc<Self>, amount: u64) {
        let mut state = self.lock();
        if state.cancelled {
            return;
        }
        let before = match self.kind {
            Kind::Read(_) => 0,
            Kind::Timer | Kind::Signal(_) => state.pending.unwrap_or(0),
        };
        state.pending = Some(before.saturating_add(amount));
        self.schedule(&mut state);
    }

    /// The descriptor can be read.
    pub(super) fn readable(self: &Arc<Self>) {
        if let Kind::Read(descriptor) = &self.kind {
            self.happened(rustix::io::ioctl_fionread(descriptor).unwrap_or(0));
        }
    }

    /// A deadline of the timer has come; the next one, if there is one.
    pub(super) fn due(
        self: &Arc<Self>,
        setting: u64,
        deadline: Instant,
        now: Instant,
    ) -> Option<Instant> {
        let state = self.lock();
        if state.cancelled || state.setting != setting {
            return None;
        }
        let interval = state.interval;
        drop(state);
        let Some(interval) = interval else {
            self.happened(1);
            return None;
        };
        let missed =
            now.saturating_duration_since(deadline).as_nanos() / interval.as_nanos().max(1);
        let missed = u32::try_from(missed).unwrap_or(u32::MAX);
        self.happened(u64::from(missed) + 1);
        let steps = interval
            .checked_mul(missed)
            .and_then(|passed| passed.checked_add(interval))?;
        deadline.checked_add(steps)
    }

    /// Ends it: no further call of the event handler begins, and the cancel handler runs.
    pub(super) fn cancel(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.cancelled {
            return;
        }
        state.cancelled = true;
        let (handler, cancel_handler) = (state.handler.take(), state.cancel_handler.take());
        let active = state.active;
        drop(state);
        self.stop_waiting(active);
        // The event handler is let go where it runs: on the queue, after its last call.
        self.target.push(Box::new(move || {
            drop(handler);
            if let Some(work) = cancel_handler {
                work.call();
            }
        }));
    }

    /// Nobody has it any more.
    pub(super) fn forget(self: &Arc<Self>) {
        let mut state = self.lock();
        let active = state.active && !state.cancelled;
        state.cancelled = true;
        let handlers = (state.handler.take(), state.cancel_handler.take());
        drop(state);
        self.stop_waiting(active);
        drop(handlers);
    }

    fn stop_waiting(self: &Arc<Self>, active: bool) {
        if active {
            match &self.kind {
                Kind::Timer => {}
                Kind::Signal(number) => self.events.forget_signal(*number, self),
                Kind::Read(descriptor) => self.events.forget_descriptor(descriptor),
            }
        }
    }

    fn wait_for_timer(self: &Arc<Self>, state: &State) {
        if let Some(first) = state.first {
            self.events.wait_for_timer(first, state.setting, self);
        }
    }

    /// Puts a call in the queue, if there is something to report.
    fn schedule(self: &Arc<Self>, state: &mut State) {
        let may = state.active && !state.cancelled && state.suspended == 0 && !state.scheduled;
        if may && state.pending.is_some() {
            state.scheduled = true;
            let source = Arc::clone(self);
            self.target.push(Box::new(move || source.report()));
        }
    }

    /// Calls the handler.
    fn report(self: &Arc<Self>) {
        let mut state = self.lock();
        state.scheduled = false;
        if state.cancelled || state.suspended > 0 {
            return;
        }
        let Some(data) = state.pending.take() else {
            return;
        };
        state.scheduled = true;
        state.data = data;
        let handler = state.handler.clone();
        drop(state);
        if let Some(work) = handler {
            work.call();
        }
        let mut state = self.lock();
        state.scheduled = false;
        if !state.cancelled
            && let Kind::Read(descriptor) = &self.kind
            && !self.events.watch_again(descriptor)
        {
            state.pending = Some(1);
        }
        self.schedule(&mut state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signal's former action comes back when nobody waits for it.
pub(super) fn end_signal(number: i32) {
    signal::release(number);
}
