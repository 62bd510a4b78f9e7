//! `vmnet_network_...`: networks that this process holds.

use crate::argument::{Return, reported, status_of};
use crate::configuration::Configuration;
use crate::foundation::{Full, created};
use openvmnet::{Error, Network, NetworkSerialization, Status};
use std::ffi::CStr;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ptr;
use vmnet_xpc::{Body, Dictionary, Object, Raw, border};

type Ref = *mut Full<Network>;

/// The name of the bytes in a serialization.
const SERIALIZATION: &CStr = c"networkSerialization";

/// Makes something for C, and says what came of it.
unsafe fn made<T>(status: *mut Return, make: impl FnOnce() -> Result<*mut T, Status>) -> *mut T {
    let result = border(Err(Status::Failure), make);
    // SAFETY: The caller has null, or a place for the status.
    unsafe { reported(result, status) }.unwrap_or(ptr::null_mut())
}

/// Makes a network. The service is started if it does not run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_create(
    configuration: *mut Full<Configuration>,
    status: *mut Return,
) -> Ref {
    // SAFETY: The caller has null or a live configuration, and null or a place for the status.
    unsafe {
        made(status, || {
            let configuration = configuration.as_ref().ok_or(Status::InvalidArgument)?;
            let network =
                Network::create(&configuration.snapshot()).map_err(|error| status_of(&error))?;
            Ok(created(network))
        })
    }
}

/// What another process can hold the same network by.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_copy_serialization(
    network: Ref,
    status: *mut Return,
) -> Raw {
    // SAFETY: The caller has null or a live network, and null or a place for the status.
    unsafe {
        made(status, || {
            let network = network.as_ref().ok_or(Status::InvalidArgument)?;
            let serialization = network.serialize().map_err(|error| status_of(&error))?;
            let dictionary = Dictionary::default();
            let bytes = Body::Data(serialization.as_bytes().as_slice().into());
            drop(dictionary.set(SERIALIZATION, Some(Object::new(bytes))));
            Ok(Object::new(Body::Dictionary(dictionary)).into_raw())
        })
    }
}

/// Holds a network that another process has serialized.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_create_with_serialization(
    serialization: Raw,
    status: *mut Return,
) -> Ref {
    // SAFETY: The caller has null or a live object, and null or a place for the status.
    unsafe {
        made(status, || {
            let serialization = Object::retained(serialization).ok_or(Status::InvalidArgument)?;
            let Body::Dictionary(dictionary) = serialization.body() else {
                return Err(Status::InvalidArgument);
            };
            let bytes = dictionary
                .get(SERIALIZATION)
                .ok_or(Status::InvalidArgument)?;
            let Body::Data(bytes) = bytes.body() else {
                return Err(Status::InvalidArgument);
            };
            let network = NetworkSerialization::from_bytes(bytes)
                .and_then(|serialization| Network::from_serialization(&serialization))
                .map_err(|error: Error| status_of(&error))?;
            Ok(created(network))
        })
    }
}

/// The host's IPv4 address on a network, and the mask; zeros without.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_get_ipv4_subnet(
    network: Ref,
    subnet: *mut libc::in_addr,
    mask: *mut libc::in_addr,
) {
    // SAFETY: The caller has null or a live network.
    let found = border(None, || unsafe { network.as_ref() }?.ipv4_subnet());
    let (host, bits) = found.unwrap_or((Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED));
    for (place, address) in [(subnet, host), (mask, bits)] {
        if !place.is_null() {
            let s_addr = u32::from_ne_bytes(address.octets());
            // SAFETY: The caller has a place for it.
            unsafe { place.write(libc::in_addr { s_addr }) };
        }
    }
}

/// The IPv6 prefix of a network, and its length; 0 without.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_get_ipv6_prefix(
    network: Ref,
    prefix: *mut libc::in6_addr,
    length: *mut u8,
) {
    // SAFETY: The caller has null or a live network.
    let found = border(None, || unsafe { network.as_ref() }?.ipv6_prefix());
    let (address, bits) = found.unwrap_or((Ipv6Addr::UNSPECIFIED, 0));
    if !prefix.is_null() {
        // SAFETY: The caller has a place for it.
        unsafe {
            prefix.write(libc::in6_addr {
                s6_addr: address.octets(),
            })
        };
    }
    if !length.is_null() {
        // SAFETY: The caller has a place for it.
        unsafe { length.write(bits) };
    }
}
