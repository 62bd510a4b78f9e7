//! Interfaces: `interface_ref`, and the calls that take one.
//!
//! | file | what |
//! | --- | --- |
//! | `mod` | the handle, from its start to its end |
//! | [`start`] | starting and stopping |
//! | `description` | what an interface is to be: `interface_desc` |
//! | `parameters` | what it turned out to be: `interface_param` |
//! | [`packets`] | reading and writing |
//! | [`events`] | the callback that packets can be read |
//! | [`rules`] | port forwarding |
//! | [`bridgeable`] | the host's interfaces that can be bridged to |
//! | [`completion`] | blocks and functions that are called |
//!
//! A handle stays valid after its interface has stopped, so that a program that uses it too late hears
//! `VMNET_SETUP_INCOMPLETE` and does not crash. It has two references: the program's, which few give back (by `CFRelease`),
//! and one of the running interface.

pub mod bridgeable;
pub mod completion;
mod description;
pub mod events;
pub mod packets;
mod parameters;
pub mod rules;
pub mod start;

use crate::argument::status_of;
use crate::foundation::{Full, Reference};
use completion::{Completion, Done, Started};
use openvmnet::{Error, Status};
use std::collections::HashSet;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use vmnet_queue::queue::{Kind, Queue};
use vmnet_xpc::border;

/// What `interface_ref` points at.
pub struct Interface {
    /// As long as it runs, and longer for a call that is still in it.
    started: RwLock<Option<openvmnet::Interface>>,
    /// A stop has been asked for.
    over: AtomicBool,
    life: Mutex<Life>,
    /// Calls about rules, in their order.
    calls: Arc<Queue>,
}

/// A handle of C.
pub(crate) type Ref = *mut Full<Interface>;

struct Life {
    phase: Phase,
    /// Who wants to hear of the end.
    stops: Vec<Completion<Done>>,
    /// The running interface's own reference.
    running: Option<Reference<Interface>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Stopping,
    Over,
}

impl fmt::Debug for Interface {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Interface")
            .field("phase", &self.lock().phase)
            .finish_non_exhaustive()
    }
}

/// The handles of this process. Programs forget theirs after the stop; nothing is lost as long as it is listed here.
fn handles() -> MutexGuard<'static, HashSet<usize>> {
    static HANDLES: OnceLock<Mutex<HashSet<usize>>> = OnceLock::new();
    let handles = HANDLES.get_or_init(Mutex::default);
    handles.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Interface {
    fn drop(&mut self) {
        handles().remove(&ptr::from_ref(self).addr());
    }
}

impl Interface {
    fn new() -> Self {
        Self {
            started: RwLock::new(None),
            over: AtomicBool::new(false),
            life: Mutex::new(Life {
                phase: Phase::Starting,
                stops: Vec::new(),
                running: None,
            }),
            calls: Queue::new(Kind::Serial),
        }
    }

    /// Does something with the interface, between its start and its stop.
    #[inline]
    fn running<T>(
        &self,
        work: impl FnOnce(&openvmnet::Interface) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let over = self.over.load(Ordering::Acquire);
        let started = self.started.read().unwrap_or_else(PoisonError::into_inner);
        let started = started.as_ref().ok_or(Status::SetupIncomplete)?;
        // A handler that runs may still read what it was told of: there are programs that end if they cannot.
        if over && !started.is_in_event() {
            return Err(Status::SetupIncomplete);
        }
        work(started)
    }

    /// It has started, or failed to. Who started it is told; who wants it stopped already comes after.
    fn begun(
        interface: &Reference<Self>,
        outcome: Result<openvmnet::Interface, Status>,
        completion: Completion<Started>,
    ) {
        let outcome = outcome.map(|started| {
            let parameters = parameters::dictionary(started.parameters());
            *interface
                .started
                .write()
                .unwrap_or_else(PoisonError::into_inner) = Some(started);
            parameters
        });
        let mut life = interface.lock();
        life.phase = match (&outcome, life.stops.is_empty()) {
            (Err(_), _) => Phase::Over,
            (Ok(_), true) => Phase::Running,
            (Ok(_), false) => Phase::Stopping,
        };
        let phase = life.phase;
        // With the lock, so that nobody hears of the end before.
        completion.tell_started(outcome);
        if phase != Phase::Over {
            life.running = Some(interface.clone());
        }
        drop(life);
        match phase {
            Phase::Over => interface.ended(),
            Phase::Stopping => interface.end(),
            Phase::Starting | Phase::Running => {}
        }
    }

    /// Ends it, and tells who wants to hear of it. What was with a handler has come back by then.
    fn end(&self) {
        border((), || {
            let started = self.started.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(Err(error)) = started.as_ref().map(openvmnet::Interface::stop) {
                // It is gone all the same.
                let _status = status_of(&error);
            }
            drop(started);
            // Calls that are still in it return soon, and no other begins.
            let mut started = self.started.write().unwrap_or_else(PoisonError::into_inner);
            let stopped = started.take();
            drop(started);
            drop(stopped);
        });
        self.ended();
    }

    fn ended(&self) {
        let mut life = self.lock();
        life.phase = Phase::Over;
        let stops = std::mem::take(&mut life.stops);
        let running = life.running.take();
        for stop in stops {
            stop.tell(Status::Success);
        }
        drop(life);
        drop(running);
    }

    /// Tells when it has ended, and ends it if nobody does.
    fn stop(interface: Reference<Self>, completion: Completion<Done>) {
        interface.over.store(true, Ordering::Release);
        let mut life = interface.lock();
        match life.phase {
            Phase::Over => completion.tell(Status::Success),
            Phase::Starting | Phase::Stopping => life.stops.push(completion),
            Phase::Running => {
                life.stops.push(completion);
                life.phase = Phase::Stopping;
                drop(life);
                vmnet_queue::pool::run(Box::new(move || interface.end()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does something with an interface of C, while it runs.
///
/// # Safety
///
/// Null, or a live handle.
#[inline]
unsafe fn running<T>(
    interface: Ref,
    work: impl FnOnce(&openvmnet::Interface) -> Result<T, Status>,
) -> Result<T, Status> {
    // SAFETY: The caller's promise.
    unsafe { interface.as_ref() }
        .ok_or(Status::InvalidArgument)?
        .running(work)
}

/// What an error means to C.
fn status<T>(result: Result<T, Error>) -> Result<T, Status> {
    result.map_err(|error| status_of(&error))
}
