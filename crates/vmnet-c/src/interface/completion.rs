//! What a program wants to be called with: blocks, and functions with a context.

use crate::argument::Return;
use openvmnet::Status;
use std::ffi::c_void;
use std::ptr;
use vmnet_blocks::Held;
use vmnet_queue::Target;
use vmnet_xpc::{Object, Raw};

/// How a function for C is typed that gets these arguments behind its context. A block's function is typed so too: the
/// block itself is what comes first.
pub trait Arguments {
    /// The function.
    type Function: Copy + Send + Sync + 'static;

    /// Calls it.
    ///
    /// # Safety
    ///
    /// The context belongs to the function, and the arguments live as long as it runs.
    unsafe fn call(self, function: Self::Function, context: *mut c_void);
}

macro_rules! arguments {
    ($name:ident($($field:ident: $type:ty),*) $what:literal) => {
        #[doc = $what]
        #[derive(Debug, Clone, Copy)]
        pub struct $name {
            $(pub(super) $field: $type,)*
        }

        impl Arguments for $name {
            type Function = unsafe extern "C" fn(*mut c_void, $($type),*);

            unsafe fn call(self, function: Self::Function, context: *mut c_void) {
                // SAFETY: The caller's promise.
                unsafe { function(context, $(self.$field),*) }
            }
        }
    };
}

arguments!(Started(status: Return, parameters: Raw) "`vmnet_start_interface_completion_handler_t`");
arguments!(Done(status: Return) "`vmnet_interface_completion_handler_t`");
arguments!(Happened(events: u32, details: Raw) "`vmnet_interface_event_callback_t`");
arguments!(Listed(rules: Raw) "`vmnet_interface_get_ip_port_forwarding_rules_handler_t`");

/// What is to be called, kept past the call that it came by.
pub(super) enum Handler<A: Arguments> {
    Block(Held),
    Function(A::Function, *mut c_void),
}

// SAFETY: Who gives a block or a context to the library gives it to the threads that its queues run on.
unsafe impl<A: Arguments> Send for Handler<A> {}
// SAFETY: As above.
unsafe impl<A: Arguments> Sync for Handler<A> {}

impl<A: Arguments> Handler<A> {
    /// A block that gets these arguments.
    ///
    /// # Safety
    ///
    /// Null, or a block of this type.
    pub(super) unsafe fn block(block: *const c_void) -> Option<Self> {
        // SAFETY: The caller's promise.
        unsafe { Held::copy(block) }.map(Self::Block)
    }

    /// A function that gets its context and these arguments.
    pub(super) fn function(function: Option<A::Function>, context: *mut c_void) -> Option<Self> {
        function.map(|function| Self::Function(function, context))
    }

    /// Calls it, with what lives as long as it runs.
    pub(super) fn call(&self, arguments: A) {
        let (function, context) = match self {
            Self::Function(function, context) => (*function, *context),
            Self::Block(block) => {
                let invoke = block.invoke();
                // SAFETY: The function of such a block has this type, with the block where others have their context.
                let function = unsafe { std::mem::transmute_copy::<_, A::Function>(&invoke) };
                (function, block.as_ptr())
            }
        };
        // SAFETY: They were given together, and a block is kept as long as this.
        unsafe { arguments.call(function, context) };
    }
}

/// A handler that is called once, and where.
pub(super) struct Completion<A: Arguments> {
    handler: Handler<A>,
    target: Target,
}

impl<A: Arguments> Completion<A> {
    pub(super) fn new(handler: Handler<A>, target: Target) -> Self {
        Self { handler, target }
    }
}

impl Completion<Done> {
    /// Tells what came of it.
    pub(super) fn tell(self, status: Status) {
        let Self { handler, target } = self;
        let status = status.code();
        target.run(Box::new(move || handler.call(Done { status })));
    }
}

impl Completion<Started> {
    /// Tells that an interface has started, with its parameters, or why not.
    pub(super) fn tell_started(self, outcome: Result<Object, Status>) {
        let Self { handler, target } = self;
        target.run(Box::new(move || {
            let status = outcome.as_ref().err().unwrap_or(&Status::Success).code();
            let parameters = outcome.as_ref().map_or(ptr::null_mut(), Object::as_ptr);
            handler.call(Started { status, parameters });
        }));
    }
}

impl Completion<Listed> {
    /// Gives the rules; null if there are none.
    pub(super) fn tell_rules(self, rules: Option<Object>) {
        let Self { handler, target } = self;
        target.run(Box::new(move || {
            let rules = rules.as_ref().map_or(ptr::null_mut(), Object::as_ptr);
            handler.call(Listed { rules });
        }));
    }
}
