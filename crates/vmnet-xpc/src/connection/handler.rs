//! Blocks and functions that get objects, and those who wait for answers.

use crate::failure::Failure;
use crate::object::{Body, Object, Raw};
use std::ffi::c_void;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use vmnet_blocks::Held;
use vmnet_queue::Target;

/// A function that gets its context and an object.
pub(crate) type Function = unsafe extern "C" fn(*mut c_void, Raw);

/// What a program wants to be called with objects.
#[derive(Debug)]
pub(super) enum Handler {
    Function(Function, *mut c_void),
    Block(Held),
    #[cfg(test)]
    Rust(tests::Closure),
}

// SAFETY: Whoever gives a context to a connection gives it to all its threads.
unsafe impl Send for Handler {}
// SAFETY: As above.
unsafe impl Sync for Handler {}

impl Handler {
    /// A `void (^)(xpc_object_t)`.
    ///
    /// # Safety
    ///
    /// Null, or a block of this type.
    pub(super) unsafe fn block(block: *const c_void) -> Option<Self> {
        // SAFETY: The caller's promise.
        unsafe { Held::copy(block) }.map(Self::Block)
    }

    pub(super) fn call(&self, object: &Object) {
        match self {
            // SAFETY: Function and context were given together, to be called so.
            Self::Function(function, context) => unsafe { function(*context, object.as_ptr()) },
            Self::Block(block) => {
                // SAFETY: The function of such a block has this type.
                let invoke: Function = unsafe { std::mem::transmute(block.invoke()) };
                // SAFETY: As above; the block is kept.
                unsafe { invoke(block.as_ptr(), object.as_ptr()) };
            }
            #[cfg(test)]
            Self::Rust(closure) => (closure.0)(object),
        }
    }
}

/// A place for one answer, and a thread that waits at it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    answer: Mutex<Option<Object>>,
    answered: Condvar,
}

impl Slot {
    pub(super) fn wait(&self) -> Object {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            answer = self
                .answered
                .wait(answer)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn fill(&self, object: Object) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(object);
        self.answered.notify_one();
    }
}

/// Who waits for an answer.
#[derive(Debug)]
pub(super) enum Waiter {
    /// A thread.
    Thread(Arc<Slot>),
    /// A handler, on a queue of its own.
    Handler(Handler, Target),
}

impl Waiter {
    pub(super) fn answer(self, object: Object) {
        match self {
            Self::Thread(slot) => slot.fill(object),
            Self::Handler(handler, target) => {
                target.run(Box::new(move || handler.call(&object)));
            }
        }
    }

    pub(super) fn fail(self, failure: Failure) {
        self.answer(Object::new(Body::Error(failure)));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use crate::object::Object;

    /// What tests are called with.
    pub(in crate::connection) struct Closure(pub(in crate::connection) Box<dyn Fn(&Object)>);

    impl std::fmt::Debug for Closure {
        fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("Closure")
        }
    }
}
