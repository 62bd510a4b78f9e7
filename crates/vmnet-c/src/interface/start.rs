//! Starting and stopping.
//!
//! A start gives a handle at once; everything but a missing argument is told by the handler, later, from another thread.

use super::completion::{Completion, Done, Handler, Started};
use super::{Interface, Ref, description, handles, status};
use crate::argument::Return;
use crate::foundation::{Full, Reference, created};
use openvmnet::{InterfaceConfiguration, Network, Status};
use std::ffi::c_void;
use std::ptr;
use vmnet_queue::Target;
use vmnet_xpc::{Body, Dictionary, Object, Raw, border};

type StartedFunction = unsafe extern "C" fn(*mut c_void, Return, Raw);
type DoneFunction = unsafe extern "C" fn(*mut c_void, Return);

/// Where an interface is to be started: by its mode, or on a network, which it holds.
enum Place {
    Mode,
    Network(Network),
}

impl Place {
    fn configuration(&self, description: &Dictionary) -> Result<InterfaceConfiguration, Status> {
        match self {
            Self::Mode => description::by_mode(description),
            Self::Network(_) => description::on_network(description),
        }
    }

    fn start(
        &self,
        configuration: &InterfaceConfiguration,
    ) -> Result<openvmnet::Interface, Status> {
        status(match self {
            Self::Mode => openvmnet::Interface::start(configuration),
            Self::Network(network) => openvmnet::Interface::start_on(network, configuration),
        })
    }
}

/// A handle whose interface starts now.
unsafe fn start(
    place: Option<Place>,
    description: Raw,
    queue: *mut c_void,
    handler: Option<Handler<Started>>,
) -> Ref {
    border(ptr::null_mut(), || {
        // SAFETY: The caller has null or a live object.
        let described = unsafe { Object::retained(description) };
        let (Some(place), Some(described), Some(handler)) = (place, described, handler) else {
            return ptr::null_mut();
        };
        // Read now: it is the caller's to change.
        let configuration = match described.body() {
            Body::Dictionary(dictionary) => place.configuration(dictionary),
            _ => Err(Status::InvalidArgument),
        };
        // SAFETY: The caller has null or a live queue.
        let completion = Completion::new(handler, unsafe { Target::new(queue) });
        let handle = created(Interface::new());
        // SAFETY: It was just made; the program's reference is the one that it has.
        let Some(interface) = (unsafe { Reference::retained(handle) }) else {
            return ptr::null_mut();
        };
        handles().insert(ptr::from_ref::<Interface>(&interface).addr());
        vmnet_queue::pool::run(Box::new(move || {
            let outcome = configuration.and_then(|configuration| {
                border(Err(Status::Failure), || place.start(&configuration))
            });
            // A network is held by the interface now, or by nobody.
            drop(place);
            Interface::begun(&interface, outcome, completion);
        }));
        handle
    })
}

/// A network of C, held.
unsafe fn on(network: *mut Full<Network>) -> Option<Place> {
    // SAFETY: The caller has null or a live network.
    unsafe { network.as_ref() }.map(|network| Place::Network((**network).clone()))
}

/// Starts an interface by its mode. Null for a null argument, and the handler is not called then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_start_interface(
    description: Raw,
    queue: *mut c_void,
    block: *const c_void,
) -> Ref {
    if queue.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: The caller has a live object, a live queue and a block of this type, or null.
    unsafe { start(Some(Place::Mode), description, queue, Handler::block(block)) }
}

/// The same with a function. Without a queue it is called in a thread of the library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_start_interface_f(
    description: Raw,
    queue: *mut c_void,
    context: *mut c_void,
    function: Option<StartedFunction>,
) -> Ref {
    let handler = Handler::function(function, context);
    // SAFETY: The caller has a live object and a live queue, or null.
    unsafe { start(Some(Place::Mode), description, queue, handler) }
}

/// Starts an interface on a network, which it holds until it has stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_start_with_network(
    network: *mut Full<Network>,
    description: Raw,
    queue: *mut c_void,
    block: *const c_void,
) -> Ref {
    if queue.is_null() {
        return ptr::null_mut();
    }
    // SAFETY: The caller has live objects, a live queue and a block of this type, or null.
    unsafe { start(on(network), description, queue, Handler::block(block)) }
}

/// The same with a function. Without a queue it is called in a thread of the library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_start_with_network_f(
    network: *mut Full<Network>,
    description: Raw,
    queue: *mut c_void,
    context: *mut c_void,
    function: Option<StartedFunction>,
) -> Ref {
    let handler = Handler::function(function, context);
    // SAFETY: The caller has live objects and a live queue, or null.
    unsafe { start(on(network), description, queue, handler) }
}

unsafe fn stop(interface: Ref, queue: *mut c_void, handler: Option<Handler<Done>>) -> Return {
    border(Status::Failure.code(), || {
        // SAFETY: The caller has null or a live handle.
        let interface = unsafe { Reference::retained(interface) };
        let (Some(interface), Some(handler)) = (interface, handler) else {
            return Status::InvalidArgument.code();
        };
        // SAFETY: The caller has null or a live queue.
        Interface::stop(
            interface,
            Completion::new(handler, unsafe { Target::new(queue) }),
        );
        Status::Success.code()
    })
}

/// Stops an interface. The handler is told of success when it is gone, also if it was before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_stop_interface(
    interface: Ref,
    queue: *mut c_void,
    block: *const c_void,
) -> Return {
    if queue.is_null() {
        return Status::InvalidArgument.code();
    }
    // SAFETY: The caller has a live handle, a live queue and a block of this type, or null.
    unsafe { stop(interface, queue, Handler::block(block)) }
}

/// The same with a function. Without a queue it is called in a thread of the library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_stop_interface_f(
    interface: Ref,
    queue: *mut c_void,
    context: *mut c_void,
    function: Option<DoneFunction>,
) -> Return {
    // SAFETY: The caller has a live handle and a live queue, or null.
    unsafe { stop(interface, queue, Handler::function(function, context)) }
}
