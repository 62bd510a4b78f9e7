//! Sources: handlers that run on a queue when something happens.
//!
//! | file | what |
//! | --- | --- |
//! | `mod` | what C sees |
//! | `state` | one source: what is pending, when its handler runs |
//! | `events` | the thread that waits for descriptors, deadlines and signals |
//! | `signal` | signals, noted where they arrive |
//!
//! Timers, signals and readable descriptors; no others. What happens while a handler runs or the source is suspended
//! is reported together, afterwards, in one call.

pub(crate) mod events;
mod signal;
mod state;

use crate::border::border;
use crate::object::{Head, Tag, head};
use crate::queue::Target;
use crate::time::Moment;
use crate::work::{Function, Work};
use state::{Kind, Source};
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

/// What a source waits for. Only its address means something.
#[repr(C)]
#[derive(Debug)]
pub struct SourceType([usize; 4]);

/// `DISPATCH_SOURCE_TYPE_TIMER` is its address.
#[unsafe(no_mangle)]
pub static _dispatch_source_type_timer: SourceType = SourceType([1, 0, 0, 0]);
/// `DISPATCH_SOURCE_TYPE_SIGNAL` is its address.
#[unsafe(no_mangle)]
pub static _dispatch_source_type_signal: SourceType = SourceType([2, 0, 0, 0]);
/// `DISPATCH_SOURCE_TYPE_READ` is its address.
#[unsafe(no_mangle)]
pub static _dispatch_source_type_read: SourceType = SourceType([3, 0, 0, 0]);

/// A source.
#[repr(C)]
#[derive(Debug)]
pub struct SourceObject {
    head: Head,
    source: Arc<Source>,
    handle: usize,
    mask: usize,
}

impl SourceObject {
    pub(crate) fn suspend(&self) {
        self.source.suspend();
    }

    pub(crate) fn resume(&self) {
        self.source.resume();
    }

    pub(crate) fn activate(&self) {
        self.source.activate();
    }
}

impl Drop for SourceObject {
    fn drop(&mut self) {
        self.source.forget();
    }
}

unsafe fn source<'a>(object: *const c_void) -> Option<&'a SourceObject> {
    // SAFETY: The caller has a live object; the tag says what it is.
    (unsafe { head(object) }?.tag() == Tag::Source).then(|| unsafe { &*object.cast() })
}

/// Makes a source, suspended; null if there is no such kind, descriptor or signal. Without a queue, the global one is it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_source_create(
    kind: *const SourceType,
    handle: usize,
    mask: usize,
    queue: *mut c_void,
) -> *mut c_void {
    border(ptr::null_mut(), || {
        let kind = if ptr::eq(kind, &raw const _dispatch_source_type_timer) {
            Kind::Timer
        } else if ptr::eq(kind, &raw const _dispatch_source_type_signal) {
            let Some(number) = i32::try_from(handle)
                .ok()
                .filter(|&n| signal::can_be_caught(n))
            else {
                return ptr::null_mut();
            };
            Kind::Signal(number)
        } else if ptr::eq(kind, &raw const _dispatch_source_type_read) {
            let Some(descriptor) = i32::try_from(handle).ok().and_then(state::duplicate) else {
                return ptr::null_mut();
            };
            Kind::Read(descriptor)
        } else {
            return ptr::null_mut();
        };
        let target = if queue.is_null() {
            Target::global()
        } else {
            // SAFETY: The caller gives a live queue.
            unsafe { Target::new(queue) }
        };
        let (Some(target), Some(events)) = (target, events::get()) else {
            return ptr::null_mut();
        };
        let source = Source::new(kind, target, events);
        let head = Head::new(Tag::Source);
        Box::into_raw(Box::new(SourceObject {
            head,
            source,
            handle,
            mask,
        }))
        .cast()
    })
}

/// Sets the block that runs when something has happened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_source_set_event_handler(
    object: *mut c_void,
    block: *const c_void,
) {
    border((), || {
        // SAFETY: The caller has a live object, and a `void (^)(void)`.
        if let Some(object) = unsafe { source(object) } {
            // SAFETY: As above.
            object.source.set_handler(unsafe { Work::block(block) });
        }
    });
}

/// Sets the function that gets the source's context when something has happened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_source_set_event_handler_f(
    object: *mut c_void,
    function: Option<Function>,
) {
    border((), || {
        // SAFETY: The caller has a live object.
        if let Some(it) = unsafe { source(object) } {
            // SAFETY: As above.
            let context = unsafe { crate::object::dispatch_get_context(object) };
            it.source.set_handler(Work::function(function, context));
        }
    });
}

/// Sets the block that runs once when the source has been cancelled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_source_set_cancel_handler(
    object: *mut c_void,
    block: *const c_void,
) {
    border((), || {
        // SAFETY: The caller has a live object, and a `void (^)(void)`.
        if let Some(object) = unsafe { source(object) } {
            // SAFETY: As above.
            object
                .source
                .set_cancel_handler(unsafe { Work::block(block) });
        }
    });
}

/// Sets the function that gets the source's context once when the source has been cancelled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_source_set_cancel_handler_f(
    object: *mut c_void,
    function: Option<Function>,
) {
    border((), || {
        // SAFETY: The caller has a live object.
        if let Some(it) = unsafe { source(object) } {
            // SAFETY: As above.
            let context = unsafe { crate::object::dispatch_get_context(object) };
            it.source
                .set_cancel_handler(Work::function(function, context));
        }
    });
}

/// Sets when a timer fires first, and how many nanoseconds later again; never again if that is forever or 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_source_set_timer(
    object: *mut c_void,
    start: u64,
    interval: u64,
    _leeway: u64,
) {
    border((), || {
        // SAFETY: The caller has a live object.
        if let Some(object) = unsafe { source(object) } {
            let repeats = interval != 0 && i64::try_from(interval).is_ok();
            let interval = repeats.then(|| Duration::from_nanos(interval));
            object
                .source
                .set_timer(Moment::from_raw(start).deadline(), interval);
        }
    });
}

/// Lets no further call of the event handler begin, and calls the cancel handler.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_source_cancel(object: *mut c_void) {
    border((), || {
        // SAFETY: The caller has a live object.
        if let Some(object) = unsafe { source(object) } {
            object.source.cancel();
        }
    });
}

/// Not 0 if the source has been cancelled.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_source_testcancel(object: *mut c_void) -> isize {
    border(0, || {
        // SAFETY: The caller has a live object.
        unsafe { source(object) }.map_or(0, |it| isize::from(it.source.is_cancelled()))
    })
}

/// In a handler: how often a timer has fired, how many signals came, how many bytes can be read at least.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_source_get_data(object: *mut c_void) -> usize {
    border(0, || {
        // SAFETY: The caller has a live object.
        let data = unsafe { source(object) }.map_or(0, |it| it.source.data());
        usize::try_from(data).unwrap_or(usize::MAX)
    })
}

/// The descriptor or signal it was made with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_source_get_handle(object: *mut c_void) -> usize {
    // SAFETY: The caller has a live object.
    unsafe { source(object) }.map_or(0, |it| it.handle)
}

/// The mask it was made with.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_source_get_mask(object: *mut c_void) -> usize {
    // SAFETY: The caller has a live object.
    unsafe { source(object) }.map_or(0, |it| it.mask)
}
