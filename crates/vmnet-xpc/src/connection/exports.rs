//! What C sees.

use super::core::{Core, Role};
use super::handler::{Function, Handler, Waiter};
use super::{Connection, Endpoint};
use crate::border::border;
use crate::dictionary::writable;
use crate::failure::Failure;
use crate::object::{Body, Object, Raw, body};
use crate::scalar::text;
use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use vmnet_queue::Target;

/// `XPC_CONNECTION_MACH_SERVICE_LISTENER`.
const LISTENER: u64 = 1;

fn created(new: impl FnOnce() -> Option<Object>) -> Raw {
    border(ptr::null_mut(), || {
        new().map_or(ptr::null_mut(), Object::into_raw)
    })
}

/// A connection of C. That of a parent process is none here.
unsafe fn connection<'a>(object: Raw) -> Option<&'a Connection> {
    // SAFETY: The caller has null or a live object.
    match unsafe { body(object) } {
        Some(Body::Connection(connection)) if connection.0.is_ours() => Some(connection),
        _ => None,
    }
}

/// Does something with a connection of C.
unsafe fn with(object: Raw, work: impl FnOnce(&Connection)) {
    border((), || {
        // SAFETY: The caller has null or a live object.
        if let Some(connection) = unsafe { connection(object) } {
            work(connection);
        }
    });
}

/// A connection to a named service, or with `XPC_CONNECTION_MACH_SERVICE_LISTENER` the service itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_create_mach_service(
    name: *const c_char,
    queue: *mut c_void,
    flags: u64,
) -> Raw {
    created(|| {
        // SAFETY: The caller has null or a string.
        let name = unsafe { text(name) }?.to_owned();
        let role = if flags & LISTENER == 0 {
            Role::Client(name)
        } else {
            Role::Service(name)
        };
        // SAFETY: The caller has null or a live queue.
        Some(Core::object_of(role, None, unsafe { Target::new(queue) }))
    })
}

/// A connection to a named service; without a name, a listener that endpoints lead to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_create(name: *const c_char, queue: *mut c_void) -> Raw {
    created(|| {
        // SAFETY: The caller has null or a string.
        let name = unsafe { text(name) };
        let role = name.map_or(Role::Anonymous, |name| Role::Client(name.to_owned()));
        // SAFETY: The caller has null or a live queue.
        Some(Core::object_of(role, None, unsafe { Target::new(queue) }))
    })
}

/// A connection through an endpoint.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_create_from_endpoint(endpoint: Raw) -> Raw {
    created(|| {
        // SAFETY: The caller has null or a live object.
        let Some(Body::Endpoint(endpoint)) = (unsafe { body(endpoint) }) else {
            return None;
        };
        let endpoint = rustix::io::fcntl_dupfd_cloexec(endpoint.descriptor(), 3).ok()?;
        Some(Core::object_of(
            Role::EndpointClient(endpoint),
            None,
            Target::default(),
        ))
    })
}

/// What connections to this listener can be made from, here or in a program that it is sent to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_endpoint_create(object: Raw) -> Raw {
    created(|| {
        // SAFETY: The caller has null or a live object.
        let endpoint = unsafe { connection(object) }?.0.endpoint().ok()?;
        Some(Object::new(Body::Endpoint(Endpoint::new(endpoint))))
    })
}

/// Sets the block that gets messages, new connections and errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_set_event_handler(object: Raw, block: *const c_void) {
    // SAFETY: The caller has null or a live object, and a `void (^)(xpc_object_t)`.
    unsafe {
        with(object, |connection| {
            connection.0.set_handler(Handler::block(block))
        })
    };
}

/// Sets the function that gets messages, new connections and errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_set_event_handler_f(
    object: Raw,
    context: *mut c_void,
    function: Option<Function>,
) {
    let handler = function.map(|function| Handler::Function(function, context));
    // SAFETY: The caller has null or a live object.
    unsafe { with(object, |connection| connection.0.set_handler(handler)) };
}

/// Sets where events are handled: on a queue, or with null on any thread. One after the other in any case.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_set_target_queue(object: Raw, queue: *mut c_void) {
    // SAFETY: The caller has null or a live object, and null or a live queue.
    unsafe {
        with(object, |connection| {
            connection.0.mailbox.set_target(Target::new(queue))
        })
    };
}

/// Lets a connection begin, or go on after a suspension.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_resume(object: Raw) {
    // SAFETY: The caller has null or a live object.
    unsafe { with(object, |connection| connection.0.resume()) };
}

/// Lets a connection begin, if it has not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_activate(object: Raw) {
    // SAFETY: The caller has null or a live object.
    unsafe { with(object, |connection| connection.0.activate()) };
}

/// Handles no event until as many resumes have come.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_suspend(object: Raw) {
    // SAFETY: The caller has null or a live object.
    unsafe { with(object, |connection| connection.0.mailbox.suspend()) };
}

/// Ends a connection. Its handler gets `XPC_ERROR_CONNECTION_INVALID`, as the last thing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_cancel(object: Raw) {
    // SAFETY: The caller has null or a live object.
    unsafe { with(object, |connection| connection.0.die()) };
}

/// Sends a message, or the answer that it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_send_message(object: Raw, message: Raw) {
    // SAFETY: The caller has null or live objects.
    unsafe {
        with(object, |connection| {
            if let Some(message) = writable(message) {
                connection.0.send(message);
            }
        });
    }
}

unsafe fn ask(object: Raw, message: Raw, queue: *mut c_void, handler: Option<Handler>) {
    let Some(handler) = handler else {
        return;
    };
    border((), || {
        // SAFETY: The caller has null or live objects, and null or a live queue.
        let (connection, message, target) =
            unsafe { (connection(object), writable(message), Target::new(queue)) };
        let own = queue
            .is_null()
            .then(|| connection.map(|it| it.0.mailbox.target()))
            .flatten();
        let waiter = Waiter::Handler(handler, own.unwrap_or(target));
        match (connection, message) {
            (Some(connection), Some(message)) => connection.0.ask(message, waiter),
            _ => waiter.fail(Failure::Invalid),
        }
    });
}

/// Sends a message; the block gets the answer, or an error, on the queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_send_message_with_reply(
    object: Raw,
    message: Raw,
    queue: *mut c_void,
    block: *const c_void,
) {
    // SAFETY: The caller has null or live objects, and a `void (^)(xpc_object_t)`.
    unsafe { ask(object, message, queue, Handler::block(block)) };
}

/// Sends a message; the function gets the answer, or an error, on the queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_send_message_with_reply_f(
    object: Raw,
    message: Raw,
    queue: *mut c_void,
    context: *mut c_void,
    function: Option<Function>,
) {
    let handler = function.map(|function| Handler::Function(function, context));
    // SAFETY: The caller has null or live objects.
    unsafe { ask(object, message, queue, handler) };
}

/// Sends a message and waits for the answer, or an error, which the caller releases.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_send_message_with_reply_sync(
    object: Raw,
    message: Raw,
) -> Raw {
    created(|| {
        // SAFETY: The caller has null or live objects.
        match unsafe { (connection(object), writable(message)) } {
            (Some(connection), Some(message)) => Some(connection.0.ask_and_wait(message)),
            _ => Some(Object::new(Body::Error(Failure::Invalid))),
        }
    })
}

/// What the service is called; null without a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_get_name(object: Raw) -> *const c_char {
    // SAFETY: The caller has null or a live object.
    let name = unsafe { connection(object) }.and_then(|connection| connection.0.name());
    name.map_or(ptr::null(), std::ffi::CStr::as_ptr)
}

/// The peer's process; 0 before there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_get_pid(object: Raw) -> libc::pid_t {
    // SAFETY: The caller has null or a live object.
    let connection = unsafe { connection(object) };
    border(0, || connection.map_or(0, Connection::pid))
}

/// The peer's user; all ones before there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_get_euid(object: Raw) -> libc::uid_t {
    // SAFETY: The caller has null or a live object.
    let connection = unsafe { connection(object) };
    let peer = border(None, || connection?.0.credentials());
    peer.map_or(libc::uid_t::MAX, |peer| peer.uid.as_raw())
}

/// The peer's group; all ones before there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn xpc_connection_get_egid(object: Raw) -> libc::gid_t {
    // SAFETY: The caller has null or a live object.
    let connection = unsafe { connection(object) };
    let peer = border(None, || connection?.0.credentials());
    peer.map_or(libc::gid_t::MAX, |peer| peer.gid.as_raw())
}

static TRANSACTIONS: AtomicUsize = AtomicUsize::new(0);

/// Says that the program has something to finish. Nothing here ends programs, so it is only counted.
#[unsafe(no_mangle)]
pub extern "C" fn xpc_transaction_begin() {
    TRANSACTIONS.fetch_add(1, Ordering::Relaxed);
}

/// Says that it has finished.
#[unsafe(no_mangle)]
pub extern "C" fn xpc_transaction_end() {
    let down = |count: usize| count.checked_sub(1);
    let _more_ends_than_begins =
        TRANSACTIONS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, down);
}
