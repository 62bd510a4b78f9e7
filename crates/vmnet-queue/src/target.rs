//! Where a program wants its handlers to run.
//!
//! A `dispatch_queue_t` belongs to the libdispatch that the program links, be it the system's or `libvmnet-dispatch`; only
//! that library's `dispatch_async_f` can put something on it. It is found by weak references, which also works in
//! static programs, and else by `dlsym`, for a library that was loaded later.

use crate::pool::{self, Job};
use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

type Function = unsafe extern "C" fn(*mut c_void);
type Async = unsafe extern "C" fn(*mut c_void, *mut c_void, Function);

std::arch::global_asm!(
    ".weak dispatch_async_f",
    ".weak dispatch_retain",
    ".weak dispatch_release",
    ".pushsection .data.rel.vmnet_queue,\"aw\"",
    ".balign 8",
    ".hidden vmnet_queue_async",
    ".globl vmnet_queue_async",
    "vmnet_queue_async: .8byte dispatch_async_f",
    ".hidden vmnet_queue_retain",
    ".globl vmnet_queue_retain",
    "vmnet_queue_retain: .8byte dispatch_retain",
    ".hidden vmnet_queue_release",
    ".globl vmnet_queue_release",
    "vmnet_queue_release: .8byte dispatch_release",
    ".popsection",
);

unsafe extern "C" {
    safe static vmnet_queue_async: Option<Async>;
    safe static vmnet_queue_retain: Option<Function>;
    safe static vmnet_queue_release: Option<Function>;
}

/// A symbol of a library that was loaded after this one.
fn loaded(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: The name is a string.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}

fn find_async() -> Option<Async> {
    vmnet_queue_async.or_else(|| {
        // SAFETY: libdispatch's function of this name has this type.
        loaded(c"dispatch_async_f").map(|symbol| unsafe { std::mem::transmute(symbol) })
    })
}

fn find(linked: Option<Function>, name: &CStr) -> Option<Function> {
    linked.or_else(|| {
        // SAFETY: libdispatch's functions of these names have this type.
        loaded(name).map(|symbol| unsafe { std::mem::transmute(symbol) })
    })
}

/// A queue of the program, retained.
#[derive(Debug)]
struct Theirs(NonNull<c_void>);

// SAFETY: Dispatch queues are used from all threads.
unsafe impl Send for Theirs {}
// SAFETY: As above.
unsafe impl Sync for Theirs {}

impl Drop for Theirs {
    fn drop(&mut self) {
        if let Some(release) = find(vmnet_queue_release, c"dispatch_release") {
            // SAFETY: This reference was taken when it was made.
            unsafe { release(self.0.as_ptr()) };
        }
    }
}

/// Where handlers run.
#[derive(Debug, Default)]
pub struct Target(Option<Theirs>);

impl Target {
    /// A queue of the program; null is any thread.
    ///
    /// # Safety
    ///
    /// Null, or a live queue of the libdispatch that the program links.
    #[must_use]
    pub unsafe fn new(queue: *mut c_void) -> Self {
        let queue = NonNull::new(queue).filter(|_| find_async().is_some());
        if let Some(queue) = queue
            && let Some(retain) = find(vmnet_queue_retain, c"dispatch_retain")
        {
            // SAFETY: The caller's promise.
            unsafe { retain(queue.as_ptr()) };
        }
        Self(queue.map(Theirs))
    }

    /// Another reference of the same queue.
    #[must_use]
    pub fn again(&self) -> Self {
        match &self.0 {
            // SAFETY: It is kept by this reference.
            Some(theirs) => unsafe { Self::new(theirs.0.as_ptr()) },
            None => Self(None),
        }
    }

    /// Runs a job there, soon. Never waits.
    pub fn run(&self, job: Job) {
        /// Runs the job that the context is.
        unsafe extern "C" fn start(context: *mut c_void) {
            // SAFETY: `run` gave this box to this call.
            let job = unsafe { Box::from_raw(context.cast::<Job>()) };
            pool::finish(*job);
        }
        match (&self.0, find_async()) {
            (Some(queue), Some(start_on)) => {
                let context = Box::into_raw(Box::new(job)).cast();
                // SAFETY: The queue is of this library, and the function takes this context.
                unsafe { start_on(queue.0.as_ptr(), context, start) };
            }
            _ => pool::run(job),
        }
    }
}
