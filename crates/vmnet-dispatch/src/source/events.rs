//! The thread that waits for descriptors, deadlines and signals. It runs nothing of the program's: handlers go to queues.

use super::signal;
use super::state::{Source, end_signal};
use crate::queue::Target;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use vmnet_queue::Job;

/// The token of the eventfd; others are descriptors.
const WAKE: u64 = u64::MAX;

enum Due {
    Job(Target, Job),
    Timer(Weak<Source>, u64),
}

/// What happens at a time; among equals, what was set first.
struct Deadline {
    at: Instant,
    order: u64,
    due: Due,
}

impl PartialEq for Deadline {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Deadline {}
impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Deadline {
    /// Backwards: the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

#[derive(Default)]
struct State {
    deadlines: BinaryHeap<Deadline>,
    order: u64,
    descriptors: HashMap<u64, Weak<Source>>,
    signals: Vec<(i32, Weak<Source>)>,
}

/// What is waited for.
pub(crate) struct Events {
    epoll: OwnedFd,
    wake: OwnedFd,
    state: Mutex<State>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Events")
    }
}

/// The one of this process, and its thread; none if the system has no descriptors or threads left.
pub(crate) fn get() -> Option<&'static Events> {
    static EVENTS: OnceLock<Option<Events>> = OnceLock::new();
    static STARTED: OnceLock<bool> = OnceLock::new();
    let events = EVENTS.get_or_init(|| Events::new().ok()).as_ref()?;
    let started = STARTED.get_or_init(|| {
        signal::wake_by(events.wake.as_raw_fd());
        std::thread::Builder::new()
            .name("vmnet-events".to_owned())
            .spawn(|| events.run())
            .is_ok()
    });
    started.then_some(events)
}

impl Events {
    fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Self {
            epoll,
            wake,
            state: Mutex::default(),
        })
    }

    /// Does something on a queue at a time.
    pub(crate) fn push_at(&self, at: Instant, target: Target, job: Job) {
        self.enter(at, Due::Job(target, job));
    }

    /// Tells a source of a deadline.
    pub(super) fn wait_for_timer(&self, at: Instant, setting: u64, source: &Arc<Source>) {
        self.enter(at, Due::Timer(Arc::downgrade(source), setting));
    }

    fn enter(&self, at: Instant, due: Due) {
        let mut state = self.lock();
        let order = state.order;
        state.order += 1;
        state.deadlines.push(Deadline { at, order, due });
        drop(state);
        self.wake();
    }

    /// Tells a source, once, that its descriptor can be read; false if the system cannot.
    pub(super) fn watch_descriptor(&self, descriptor: &OwnedFd, source: &Arc<Source>) -> bool {
        let token = token(descriptor);
        self.lock()
            .descriptors
            .insert(token, Arc::downgrade(source));
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ONESHOT;
        epoll::add(&self.epoll, descriptor, EventData::new_u64(token), flags).is_ok()
    }

    /// Tells it once more.
    pub(super) fn watch_again(&self, descriptor: &OwnedFd) -> bool {
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ONESHOT;
        epoll::modify(
            &self.epoll,
            descriptor,
            EventData::new_u64(token(descriptor)),
            flags,
        )
        .is_ok()
    }

    /// Tells it no more.
    pub(super) fn forget_descriptor(&self, descriptor: &OwnedFd) {
        self.lock().descriptors.remove(&token(descriptor));
        let _never_watched = epoll::delete(&self.epoll, descriptor);
    }

    /// Tells a source of signals.
    pub(super) fn watch_signal(&self, number: i32, source: &Arc<Source>) {
        self.lock().signals.push((number, Arc::downgrade(source)));
        signal::catch(number);
    }

    /// Tells it no more.
    pub(super) fn forget_signal(&self, number: i32, source: &Arc<Source>) {
        end_signal(number);
        let this = Arc::downgrade(source);
        self.lock()
            .signals
            .retain(|(_, other)| !other.ptr_eq(&this));
    }

    fn wake(&self) {
        let _already_awake = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The thread's life.
    fn run(&self) {
        let mut ready = [MaybeUninit::uninit(); 32];
        loop {
            let patience = self.deadlines_passed(Instant::now());
            let patience = patience.and_then(|left| Timespec::try_from(left).ok());
            let tokens: Vec<u64> = match epoll::wait(&self.epoll, &mut ready, patience.as_ref()) {
                Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
                Err(_) => Vec::new(),
            };
            for token in tokens {
                if token == WAKE {
                    let _empty = rustix::io::read(&self.wake, &mut [0; 8]);
                } else if let Some(source) = self.descriptor(token) {
                    source.readable();
                }
            }
            for (number, count) in signal::take() {
                for source in self.sources_of(number) {
                    source.happened(count.into());
                }
            }
        }
    }

    fn descriptor(&self, token: u64) -> Option<Arc<Source>> {
        self.lock().descriptors.get(&token).and_then(Weak::upgrade)
    }

    fn sources_of(&self, signal: i32) -> Vec<Arc<Source>> {
        let state = self.lock();
        let of_signal = state.signals.iter().filter(|(number, _)| *number == signal);
        of_signal
            .filter_map(|(_, source)| source.upgrade())
            .collect()
    }

    /// Does what is due, and says how long it is until more is.
    fn deadlines_passed(&self, now: Instant) -> Option<Duration> {
        loop {
            let mut state = self.lock();
            let first = state.deadlines.peek()?;
            if first.at > now {
                return Some(first.at - now);
            }
            let Deadline { at, due, .. } = state.deadlines.pop()?;
            drop(state);
            match due {
                Due::Job(target, job) => target.push(job),
                Due::Timer(source, setting) => {
                    if let Some(source) = source.upgrade()
                        && let Some(next) = source.due(setting, at, now)
                    {
                        self.wait_for_timer(next, setting, &source);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn token(descriptor: &OwnedFd) -> u64 {
    u64::from(descriptor.as_raw_fd().unsigned_abs())
}
