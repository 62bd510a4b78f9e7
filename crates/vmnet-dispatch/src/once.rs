//! `dispatch_once`: exactly once in a process, and whoever comes meanwhile waits.

use crate::border::border;
use crate::work::Function;
use std::ffi::c_void;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

const FRESH: isize = 0;
const BUSY: isize = 1;
/// libdispatch's own value, which its header compares with.
const DONE: isize = -1;

static WAITING: Mutex<()> = Mutex::new(());
static ENDED: Condvar = Condvar::new();

unsafe fn once(predicate: *mut isize, work: impl FnOnce()) {
    // SAFETY: The caller has a predicate, which is used by no other means.
    let state = unsafe { AtomicIsize::from_ptr(predicate) };
    match state.compare_exchange(FRESH, BUSY, Ordering::Acquire, Ordering::Acquire) {
        Ok(_) => {
            border((), work);
            let _waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
            state.store(DONE, Ordering::Release);
            ENDED.notify_all();
        }
        Err(DONE) => {}
        Err(_) => {
            let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
            while state.load(Ordering::Acquire) != DONE {
                waiting = ENDED.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// Calls a block if nobody has with this predicate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_once(predicate: *mut isize, block: *const c_void) {
    if !predicate.is_null() && !block.is_null() {
        // SAFETY: The caller has a predicate and a `void (^)(void)`.
        unsafe { once(predicate, || vmnet_blocks::held::call(block)) };
    }
}

/// Calls a function if nobody has with this predicate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_once_f(
    predicate: *mut isize,
    context: *mut c_void,
    function: Option<Function>,
) {
    if let Some(function) = function.filter(|_| !predicate.is_null()) {
        // SAFETY: The caller has a predicate, and gives context and function together.
        unsafe { once(predicate, || function(context)) };
    }
}
