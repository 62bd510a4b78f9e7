//! What is to be done: a function with its context, or a block.

use std::ffi::c_void;
use vmnet_blocks::Held;
use vmnet_queue::Job;

/// A function that gets its context.
pub(crate) type Function = unsafe extern "C" fn(*mut c_void);

/// A function with its context, or a block.
#[derive(Debug)]
pub(crate) enum Work {
    Function(Function, *mut c_void),
    Block(Held),
}

// SAFETY: Whoever gives a context to a queue gives it to all the queue's threads.
unsafe impl Send for Work {}
// SAFETY: As above.
unsafe impl Sync for Work {}

impl Work {
    /// A function, if there is one.
    pub(crate) fn function(function: Option<Function>, context: *mut c_void) -> Option<Self> {
        function.map(|function| Self::Function(function, context))
    }

    /// A block, if there is one.
    ///
    /// # Safety
    ///
    /// Null, or a `void (^)(void)`.
    pub(crate) unsafe fn block(block: *const c_void) -> Option<Self> {
        // SAFETY: The caller's promise.
        unsafe { Held::copy(block) }.map(Self::Block)
    }

    /// Does it.
    pub(crate) fn call(&self) {
        match self {
            // SAFETY: Function and context were given together, to be called so.
            Self::Function(function, context) => unsafe { function(*context) },
            // SAFETY: `block` was told that it takes nothing.
            Self::Block(block) => unsafe { block.call() },
        }
    }

    /// As a job for a queue.
    pub(crate) fn job(self) -> Job {
        Box::new(move || self.call())
    }
}
