//! Groups: work that is waited for together.

use crate::border::border;
use crate::object::{Head, Kept, Tag, head};
use crate::queue::Target;
use crate::time::Moment;
use crate::work::{Function, Work};
use std::ffi::c_void;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

#[derive(Debug, Default)]
struct State {
    inside: usize,
    notices: Vec<(Target, Work)>,
}

/// A group.
#[repr(C)]
#[derive(Debug)]
pub struct Group {
    head: Head,
    state: Mutex<State>,
    empty: Condvar,
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self) {
        let mut state = self.lock();
        state.inside = state.inside.saturating_sub(1);
        if state.inside > 0 {
            return;
        }
        let notices = std::mem::take(&mut state.notices);
        self.empty.notify_all();
        drop(state);
        for (target, work) in notices {
            target.push(work.job());
        }
    }
}

unsafe fn group<'a>(object: *const c_void) -> Option<&'a Group> {
    // SAFETY: The caller has a live object; the tag says what it is.
    (unsafe { head(object) }?.tag() == Tag::Group).then(|| unsafe { &*object.cast() })
}

/// Makes a group.
#[unsafe(no_mangle)]
pub extern "C" fn dispatch_group_create() -> *mut c_void {
    Box::into_raw(Box::new(Group {
        head: Head::new(Tag::Group),
        state: Mutex::default(),
        empty: Condvar::new(),
    }))
    .cast()
}

/// Says that one more is in the group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_group_enter(object: *mut c_void) {
    // SAFETY: The caller has a live object.
    if let Some(group) = unsafe { group(object) } {
        group.lock().inside += 1;
    }
}

/// Says that one has left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_group_leave(object: *mut c_void) {
    border((), || {
        // SAFETY: The caller has a live object.
        if let Some(group) = unsafe { group(object) } {
            let kept = Kept::new(&group.head);
            group.leave();
            drop(kept);
        }
    });
}

unsafe fn push(object: *const c_void, queue: *const c_void, work: Option<Work>) {
    /// A group, as long as work of it is there.
    struct Inside(
        *const Group,
        #[expect(dead_code, reason = "it is kept")] Kept,
    );
    // SAFETY: Groups may be used from any thread.
    unsafe impl Send for Inside {}
    impl Drop for Inside {
        fn drop(&mut self) {
            // SAFETY: The reference beside it keeps it.
            unsafe { &*self.0 }.leave();
        }
    }
    border((), || {
        // SAFETY: The caller has live objects.
        let (group, target) = unsafe { (group(object), Target::new(queue)) };
        let (Some(group), Some(target), Some(work)) = (group, target, work) else {
            return;
        };
        group.lock().inside += 1;
        let inside = Inside(group, Kept::new(&group.head));
        target.push(Box::new(move || {
            let _inside = inside;
            work.call();
        }));
    });
}

/// Calls a block on a queue, as part of the group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_group_async(
    object: *mut c_void,
    queue: *mut c_void,
    block: *const c_void,
) {
    // SAFETY: The caller has live objects, and a `void (^)(void)`.
    unsafe { push(object, queue, Work::block(block)) };
}

/// Calls a function on a queue, as part of the group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_group_async_f(
    object: *mut c_void,
    queue: *mut c_void,
    context: *mut c_void,
    function: Option<Function>,
) {
    // SAFETY: The caller has live objects.
    unsafe { push(object, queue, Work::function(function, context)) };
}

/// Waits until the group is empty, at most until a time. 0 if it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_group_wait(object: *mut c_void, timeout: u64) -> isize {
    border(1, || {
        // SAFETY: The caller has a live object.
        let Some(group) = (unsafe { group(object) }) else {
            return 1;
        };
        let deadline = Moment::from_raw(timeout).deadline();
        let mut state = group.lock();
        while state.inside > 0 {
            state = match deadline {
                None => group
                    .empty
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return 1;
                    }
                    let waited = group.empty.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        0
    })
}

unsafe fn notify(object: *const c_void, queue: *const c_void, work: Option<Work>) {
    border((), || {
        // SAFETY: The caller has live objects.
        let (group, target) = unsafe { (group(object), Target::new(queue)) };
        let (Some(group), Some(target), Some(work)) = (group, target, work) else {
            return;
        };
        let mut state = group.lock();
        if state.inside == 0 {
            drop(state);
            target.push(work.job());
        } else {
            state.notices.push((target, work));
        }
    });
}

/// Calls a block on a queue when the group is empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_group_notify(
    object: *mut c_void,
    queue: *mut c_void,
    block: *const c_void,
) {
    // SAFETY: The caller has live objects, and a `void (^)(void)`.
    unsafe { notify(object, queue, Work::block(block)) };
}

/// Calls a function on a queue when the group is empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dispatch_group_notify_f(
    object: *mut c_void,
    queue: *mut c_void,
    context: *mut c_void,
    function: Option<Function>,
) {
    // SAFETY: The caller has live objects.
    unsafe { notify(object, queue, Work::function(function, context)) };
}
