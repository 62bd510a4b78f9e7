//! Semaphores.

use crate::border::border;
use crate::object::{Head, Tag, head};
use crate::time::Moment;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// A semaphore.
#[repr(C)]
#[derive(Debug)]
pub struct Semaphore {
    head: Head,
    value: Mutex<isize>,
    raised: Condvar,
}

unsafe fn semaphore<'a>(object: *const c_void) -> Option<&'a Semaphore> {
    // SAFETY: The caller has a live object; the tag says what it is.
    (unsafe { head(object) }?.tag() == Tag::Semaphore).then(|| unsafe { &*object.cast() })
}

/// Makes a semaphore; null if the value is negative.
#[unsafe(no_mangle)]
pub extern "C" fn dispatch_semaphore_create(value: isize) -> *mut c_void {
    if value < 0 {
        return ptr::null_mut();
    }
    Box::into_raw(Box::new(Semaphore {
        head: Head::new(Tag::Semaphore),
        value: Mutex::new(value),
        raised: Condvar::new(),
    }))
    .cast()
}

/// Takes one, and waits for it at most until a time. 0 if it was had.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_semaphore_wait(object: *mut c_void, timeout: u64) -> isize {
    border(1, || {
        // SAFETY: The caller has a live object.
        let Some(semaphore) = (unsafe { semaphore(object) }) else {
            return 1;
        };
        let deadline = Moment::from_raw(timeout).deadline();
        let mut value = semaphore
            .value
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while *value <= 0 {
            value = match deadline {
                None => semaphore
                    .raised
                    .wait(value)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return 1;
                    }
                    let waited = semaphore.raised.wait_timeout(value, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        *value -= 1;
        0
    })
}

/// Gives one. Not 0 if somebody may have been waiting for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_semaphore_signal(object: *mut c_void) -> isize {
    border(0, || {
        // SAFETY: The caller has a live object.
        let Some(semaphore) = (unsafe { semaphore(object) }) else {
            return 0;
        };
        let mut value = semaphore
            .value
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *value = value.saturating_add(1);
        // Told under the lock: who waits may free the semaphore as soon as it has been woken.
        semaphore.raised.notify_one();
        isize::from(*value <= 1)
    })
}
