//! Port forwarding rules, of both generations: the first knows IPv4 only, and both speak of the same rules.
//!
//! Rules are the interface's and end with it; those of an interface on a network are the network's. A call is refused at
//! once if it cannot mean anything; what comes of it else is told by its handler, in a thread of the library. Calls of an
//! interface are carried out in their order.

use super::completion::{Completion, Done, Handler, Listed};
use super::{Interface, Ref, status};
use crate::argument::{self, Return};
use crate::foundation::Reference;
use openvmnet::interface::AddressFamily;
use openvmnet::{PortForwardingRule, Protocol, Status};
use std::ffi::{CStr, c_int, c_void};
use std::net::IpAddr;
use std::sync::Arc;
use vmnet_queue::Target;
use vmnet_xpc::{Array, Body, Dictionary, Object, Raw, border, object};

type DoneFunction = unsafe extern "C" fn(*mut c_void, Return);
type ListedFunction = unsafe extern "C" fn(*mut c_void, Raw);

// What is in the dictionary of a rule. Programs ask for it by the functions below.
const PROTOCOL: &CStr = c"protocol";
const EXTERNAL_PORT: &CStr = c"external_port";
const INTERNAL_ADDRESS: &CStr = c"internal_address";
const INTERNAL_PORT: &CStr = c"internal_port";

/// Does something about the rules of a running interface, in its turn.
unsafe fn call(
    interface: Ref,
    work: impl FnOnce(&Interface) + Send + 'static,
) -> Result<(), Status> {
    // SAFETY: The caller has null or a live handle.
    let interface = unsafe { Reference::retained(interface) }.ok_or(Status::InvalidArgument)?;
    interface.running(|_| Ok(()))?;
    let calls = Arc::clone(&interface.calls);
    calls.push(Box::new(move || work(&interface)));
    Ok(())
}

fn code(asked: impl FnOnce() -> Result<(), Status>) -> Return {
    border(Err(Status::Failure), asked)
        .err()
        .unwrap_or(Status::Success)
        .code()
}

/// Changes the rules, and tells what came of it, if anybody wants to hear.
unsafe fn change(
    interface: Ref,
    handler: Option<Handler<Done>>,
    change: impl FnOnce(&openvmnet::Interface) -> Result<(), openvmnet::Error> + Send + 'static,
) -> Result<(), Status> {
    let completion = handler.map(|handler| Completion::new(handler, Target::default()));
    let work = move |interface: &Interface| {
        let changed = border(Err(Status::Failure), || {
            interface.running(|interface| status(change(interface)))
        });
        if let Some(completion) = completion {
            completion.tell(changed.err().unwrap_or(Status::Success));
        }
    };
    // SAFETY: The caller has null or a live handle.
    unsafe { call(interface, work) }
}

/// A rule that is to be added.
struct Added {
    protocol: u8,
    external_port: u16,
    address: Option<IpAddr>,
    internal_port: u16,
}

unsafe fn add(interface: Ref, handler: Option<Handler<Done>>, added: Added) -> Return {
    code(|| {
        let rule = PortForwardingRule {
            protocol: argument::protocol(added.protocol).ok_or(Status::InvalidArgument)?,
            external_port: added.external_port,
            internal_address: added.address.ok_or(Status::InvalidArgument)?,
            internal_port: added.internal_port,
        };
        // SAFETY: The caller has null or a live handle.
        unsafe {
            change(interface, handler, move |interface| {
                interface.add_port_forwarding_rule(&rule)
            })
        }
    })
}

unsafe fn remove(
    interface: Ref,
    handler: Option<Handler<Done>>,
    protocol: u8,
    external_port: u16,
    family: Option<AddressFamily>,
) -> Return {
    code(|| {
        let protocol = argument::protocol(protocol).ok_or(Status::InvalidArgument)?;
        let family = family.ok_or(Status::InvalidArgument)?;
        // SAFETY: The caller has null or a live handle.
        unsafe {
            change(interface, handler, move |interface| {
                interface.remove_port_forwarding_rule(protocol, external_port, family)
            })
        }
    })
}

unsafe fn list(
    interface: Ref,
    handler: Option<Handler<Listed>>,
    family: Option<AddressFamily>,
) -> Return {
    code(|| {
        let handler = handler.ok_or(Status::InvalidArgument)?;
        let family = family.ok_or(Status::InvalidArgument)?;
        let completion = Completion::new(handler, Target::default());
        let work = move |interface: &Interface| {
            let rules = border(Err(Status::Failure), || {
                interface.running(|interface| status(interface.port_forwarding_rules(family)))
            });
            let rules: Array = rules.iter().flatten().map(rule_object).collect();
            let some = (rules.count() > 0).then(|| Object::new(Body::Array(rules)));
            completion.tell_rules(some);
        };
        // SAFETY: The caller has null or a live handle.
        unsafe { call(interface, work) }
    })
}

/// Forwards a port of the host to a guest. `address` is read during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_add_ip_port_forwarding_rule(
    interface: Ref,
    protocol: u8,
    external_port: u16,
    family: u8,
    address: *const c_void,
    internal_port: u16,
    block: *const c_void,
) -> Return {
    // SAFETY: The caller has a live handle, an address of the family and a block of this type, or null.
    unsafe {
        let added = Added {
            protocol,
            external_port,
            address: argument::address(family.into(), address),
            internal_port,
        };
        add(interface, Handler::block(block), added)
    }
}

/// The same with a function.
#[allow(clippy::too_many_arguments, reason = "they are the API's")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_add_ip_port_forwarding_rule_f(
    interface: Ref,
    protocol: u8,
    external_port: u16,
    family: u8,
    address: *const c_void,
    internal_port: u16,
    context: *mut c_void,
    function: Option<DoneFunction>,
) -> Return {
    // SAFETY: The caller has a live handle and an address of the family, or null.
    unsafe {
        let added = Added {
            protocol,
            external_port,
            address: argument::address(family.into(), address),
            internal_port,
        };
        add(interface, Handler::function(function, context), added)
    }
}

/// Forwards a port of the host to a guest, by IPv4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_add_port_forwarding_rule(
    interface: Ref,
    protocol: u8,
    external_port: u16,
    address: libc::in_addr,
    internal_port: u16,
    block: *const c_void,
) -> Return {
    // SAFETY: The caller has a live handle and a block of this type, or null; the address is here.
    unsafe {
        let added = Added {
            protocol,
            external_port,
            address: argument::ipv4(&raw const address).map(IpAddr::V4),
            internal_port,
        };
        add(interface, Handler::block(block), added)
    }
}

/// The same with a function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_add_port_forwarding_rule_f(
    interface: Ref,
    protocol: u8,
    external_port: u16,
    address: libc::in_addr,
    internal_port: u16,
    context: *mut c_void,
    function: Option<DoneFunction>,
) -> Return {
    // SAFETY: The caller has null or a live handle; the address is here.
    unsafe {
        let added = Added {
            protocol,
            external_port,
            address: argument::ipv4(&raw const address).map(IpAddr::V4),
            internal_port,
        };
        add(interface, Handler::function(function, context), added)
    }
}

/// Forwards a port no longer. A rule that is not there is a failure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_remove_ip_port_forwarding_rule(
    interface: Ref,
    protocol: u8,
    external_port: u16,
    family: u8,
    block: *const c_void,
) -> Return {
    let family = argument::family(family);
    // SAFETY: The caller has a live handle and a block of this type, or null.
    unsafe {
        remove(
            interface,
            Handler::block(block),
            protocol,
            external_port,
            family,
        )
    }
}

/// The same with a function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_remove_ip_port_forwarding_rule_f(
    interface: Ref,
    protocol: u8,
    external_port: u16,
    family: u8,
    context: *mut c_void,
    function: Option<DoneFunction>,
) -> Return {
    let handler = Handler::function(function, context);
    // SAFETY: The caller has null or a live handle.
    unsafe {
        remove(
            interface,
            handler,
            protocol,
            external_port,
            argument::family(family),
        )
    }
}

/// Forwards a port no longer, by IPv4.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_remove_port_forwarding_rule(
    interface: Ref,
    protocol: u8,
    external_port: u16,
    block: *const c_void,
) -> Return {
    let family = Some(AddressFamily::Inet);
    // SAFETY: The caller has a live handle and a block of this type, or null.
    unsafe {
        remove(
            interface,
            Handler::block(block),
            protocol,
            external_port,
            family,
        )
    }
}

/// The same with a function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_remove_port_forwarding_rule_f(
    interface: Ref,
    protocol: u8,
    external_port: u16,
    context: *mut c_void,
    function: Option<DoneFunction>,
) -> Return {
    let handler = Handler::function(function, context);
    // SAFETY: The caller has null or a live handle.
    unsafe {
        remove(
            interface,
            handler,
            protocol,
            external_port,
            Some(AddressFamily::Inet),
        )
    }
}

/// Gives the rules of a family to the block; null if there are none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_get_ip_port_forwarding_rules(
    interface: Ref,
    family: u8,
    block: *const c_void,
) -> Return {
    // SAFETY: The caller has a live handle and a block of this type, or null.
    unsafe { list(interface, Handler::block(block), argument::family(family)) }
}

/// The same with a function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_get_ip_port_forwarding_rules_f(
    interface: Ref,
    family: u8,
    context: *mut c_void,
    function: Option<ListedFunction>,
) -> Return {
    let handler = Handler::function(function, context);
    // SAFETY: The caller has null or a live handle.
    unsafe { list(interface, handler, argument::family(family)) }
}

/// Gives the rules of IPv4 to the block; null if there are none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_get_port_forwarding_rules(
    interface: Ref,
    block: *const c_void,
) -> Return {
    // SAFETY: The caller has a live handle and a block of this type, or null.
    unsafe { list(interface, Handler::block(block), Some(AddressFamily::Inet)) }
}

/// The same with a function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_interface_get_port_forwarding_rules_f(
    interface: Ref,
    context: *mut c_void,
    function: Option<ListedFunction>,
) -> Return {
    let handler = Handler::function(function, context);
    // SAFETY: The caller has null or a live handle.
    unsafe { list(interface, handler, Some(AddressFamily::Inet)) }
}

/// A rule for C.
fn rule_object(rule: &PortForwardingRule) -> Object {
    let dictionary = Dictionary::default();
    let address: Box<[u8]> = match rule.internal_address {
        IpAddr::V4(address) => Box::new(address.octets()),
        IpAddr::V6(address) => Box::new(address.octets()),
    };
    let protocol = argument::protocol_number(rule.protocol);
    for (name, value) in [
        (PROTOCOL, Body::Uint64(protocol.into())),
        (EXTERNAL_PORT, Body::Uint64(rule.external_port.into())),
        (INTERNAL_ADDRESS, Body::Data(address)),
        (INTERNAL_PORT, Body::Uint64(rule.internal_port.into())),
    ] {
        drop(dictionary.set(name, Some(Object::new(value))));
    }
    Object::new(Body::Dictionary(dictionary))
}

/// A rule of C.
unsafe fn rule(rule: Raw) -> Option<PortForwardingRule> {
    // SAFETY: The caller has null or a live object.
    let Some(Body::Dictionary(dictionary)) = (unsafe { object::body(rule) }) else {
        return None;
    };
    let number = |name| match dictionary.get(name)?.body() {
        Body::Uint64(value) => Some(*value),
        _ => None,
    };
    let port = |name| number(name).and_then(|port| u16::try_from(port).ok());
    let address = dictionary.get(INTERNAL_ADDRESS)?;
    let Body::Data(address) = address.body() else {
        return None;
    };
    let internal_address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(&**address).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(&**address).ok()?),
    };
    let protocol: Protocol = argument::protocol(number(PROTOCOL)?.try_into().ok()?)?;
    Some(PortForwardingRule {
        protocol,
        external_port: port(EXTERNAL_PORT)?,
        internal_address,
        internal_port: port(INTERNAL_PORT)?,
    })
}

/// Reads a rule that a handler got. The family says what there is room for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_ip_port_forwarding_rule_get_details(
    object: Raw,
    protocol: *mut u8,
    external_port: *mut u16,
    family: u8,
    internal_address: *mut c_void,
    internal_port: *mut u16,
) -> Return {
    code(|| {
        // SAFETY: The caller has null or a live object.
        let rule = unsafe { rule(object) }.ok_or(Status::InvalidArgument)?;
        let places = [external_port, internal_port];
        if protocol.is_null() || internal_address.is_null() || places.iter().any(|it| it.is_null())
        {
            return Err(Status::InvalidArgument);
        }
        // SAFETY: The caller has places for an address of the family, ports and the protocol.
        unsafe {
            match (c_int::from(family), rule.internal_address) {
                (libc::AF_INET, IpAddr::V4(address)) => {
                    internal_address
                        .cast::<[u8; 4]>()
                        .write_unaligned(address.octets());
                }
                (libc::AF_INET6, IpAddr::V6(address)) => {
                    internal_address
                        .cast::<[u8; 16]>()
                        .write_unaligned(address.octets());
                }
                _ => return Err(Status::InvalidArgument),
            }
            protocol.write(argument::protocol_number(rule.protocol));
            external_port.write(rule.external_port);
            internal_port.write(rule.internal_port);
        }
        Ok(())
    })
}

/// Reads a rule of IPv4 that a handler got.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_port_forwarding_rule_get_details(
    object: Raw,
    protocol: *mut u8,
    external_port: *mut u16,
    internal_address: *mut libc::in_addr,
    internal_port: *mut u16,
) -> Return {
    const INET: u8 = 2;
    const _: () = assert!(INET as c_int == libc::AF_INET);
    // SAFETY: The caller has null or a live object, and places.
    unsafe {
        vmnet_ip_port_forwarding_rule_get_details(
            object,
            protocol,
            external_port,
            INET,
            internal_address.cast(),
            internal_port,
        )
    }
}
