//! The callback that packets can be read.
//!
//! It runs on the queue that the program gave, never twice at once, also on a concurrent queue: the next event waits until
//! the callback has returned.

use super::completion::{Handler, Happened};
use super::{Interface, Ref, status};
use crate::argument::Return;
use crate::key;
use openvmnet::Status;
use openvmnet::interface::PendingEvent;
use std::ffi::c_void;
use std::sync::Arc;
use vmnet_queue::Target;
use vmnet_xpc::{Body, Dictionary, Object, Raw, border};

/// `VMNET_INTERFACE_PACKETS_AVAILABLE`
const PACKETS_AVAILABLE: u32 = 1;

type HappenedFunction = unsafe extern "C" fn(*mut c_void, u32, Raw);

/// What is told with an event.
fn details(packets: usize) -> Object {
    let dictionary = Dictionary::default();
    let count = Object::new(Body::Uint64(packets.try_into().unwrap_or(u64::MAX)));
    let key = key::vmnet_estimated_packets_available_key.name();
    drop(dictionary.set(key, Some(count)));
    Object::new(Body::Dictionary(dictionary))
}

impl Interface {
    /// Nobody is told of events any more. A stopped interface has none anyway.
    fn clear(&self) -> Result<(), Status> {
        let cleared = self
            .running(|interface| status(interface.set_event_notifier(None::<fn(PendingEvent)>)));
        match cleared {
            Err(Status::SetupIncomplete) => Ok(()),
            cleared => cleared,
        }
    }

    fn tell(&self, handler: Handler<Happened>, target: Target) -> Result<(), Status> {
        let handler = Arc::new(handler);
        let notify = move |pending: PendingEvent| {
            let handler = Arc::clone(&handler);
            target.run(Box::new(move || {
                if let Some(event) = pending.begin() {
                    let details = details(event.estimated_packets_available);
                    handler.call(Happened {
                        events: PACKETS_AVAILABLE,
                        details: details.as_ptr(),
                    });
                }
                // Before the next event, and before an end that waits for this one.
                drop(handler);
                drop(pending);
            }));
        };
        self.running(|interface| status(interface.set_event_notifier(Some(notify))))
    }
}

unsafe fn set(
    interface: Ref,
    mask: u32,
    queue: *mut c_void,
    handler: Option<Handler<Happened>>,
) -> Return {
    border(Status::Failure.code(), || {
        // SAFETY: The caller has null or a live handle.
        let Some(interface) = (unsafe { interface.as_ref() }) else {
            return Status::InvalidArgument.code();
        };
        let outcome = match handler.filter(|_| mask & PACKETS_AVAILABLE != 0) {
            // SAFETY: The caller has null or a live queue.
            Some(handler) => interface.tell(handler, unsafe { Target::new(queue) }),
            None => interface.clear(),
        };
        outcome.err().unwrap_or(Status::Success).code()
    })
}

/// Sets the block that is called when packets can be read; without queue and block, nobody is. One without the other is
/// refused. Does not wait for a callback that runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_set_event_callback(
    interface: Ref,
    mask: u32,
    queue: *mut c_void,
    block: *const c_void,
) -> Return {
    if queue.is_null() != block.is_null() {
        return Status::InvalidArgument.code();
    }
    // SAFETY: The caller has a live handle, a live queue and a block of this type, or null.
    unsafe { set(interface, mask, queue, Handler::block(block)) }
}

/// The same with a function. Without a queue it is called in a thread of the library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_set_event_callback_f(
    interface: Ref,
    mask: u32,
    queue: *mut c_void,
    context: *mut c_void,
    function: Option<HappenedFunction>,
) -> Return {
    if function.is_none() && !queue.is_null() {
        return Status::InvalidArgument.code();
    }
    // SAFETY: The caller has a live handle and a live queue, or null.
    unsafe { set(interface, mask, queue, Handler::function(function, context)) }
}
