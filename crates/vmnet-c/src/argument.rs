//! What C gives and gets.

use openvmnet::interface::AddressFamily;
use openvmnet::{Error, Protocol, Status};
use std::ffi::{c_int, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::OnceLock;

/// `vmnet_return_t`.
pub(crate) type Return = u32;

/// The number of what came of a call.
pub(crate) fn returned<T>(result: Result<T, Error>) -> Return {
    result
        .map_or_else(|error| status_of(&error), |_| Status::Success)
        .code()
}

/// What an error is to C, which gets a number only. With `VMNET_DEBUG` in its environment, its reason is written to the
/// standard error output.
pub(crate) fn status_of(error: &Error) -> Status {
    static DEBUG: OnceLock<bool> = OnceLock::new();
    if *DEBUG.get_or_init(|| std::env::var_os("VMNET_DEBUG").is_some_and(|it| !it.is_empty())) {
        eprintln!("vmnet: {error}");
    }
    error.status()
}

/// Writes what came of a call where the caller wants it, and gives the rest.
pub(crate) unsafe fn reported<T>(result: Result<T, Status>, status: *mut Return) -> Option<T> {
    let code = result
        .as_ref()
        .map_or_else(|status| *status, |_| Status::Success)
        .code();
    if !status.is_null() {
        // SAFETY: The caller has a place for it.
        unsafe { status.write(code) };
    }
    result.ok()
}

/// A `struct in_addr`, which is in network order.
pub(crate) unsafe fn ipv4(at: *const libc::in_addr) -> Option<Ipv4Addr> {
    // SAFETY: The caller has null or an address.
    let address = unsafe { at.as_ref() }?;
    Some(Ipv4Addr::from(address.s_addr.to_ne_bytes()))
}

/// A `struct in6_addr`.
pub(crate) unsafe fn ipv6(at: *const libc::in6_addr) -> Option<Ipv6Addr> {
    // SAFETY: The caller has null or an address.
    Some(Ipv6Addr::from(unsafe { at.as_ref() }?.s6_addr))
}

/// An address of a family.
pub(crate) unsafe fn address(family: c_int, at: *const c_void) -> Option<IpAddr> {
    match family {
        // SAFETY: The caller has null, or an address of the family.
        libc::AF_INET => unsafe { ipv4(at.cast()) }.map(IpAddr::V4),
        // SAFETY: The caller has null, or an address of the family.
        libc::AF_INET6 => unsafe { ipv6(at.cast()) }.map(IpAddr::V6),
        _ => None,
    }
}

/// `IPPROTO_TCP` or `IPPROTO_UDP`.
pub(crate) fn protocol(number: u8) -> Option<Protocol> {
    match c_int::from(number) {
        libc::IPPROTO_TCP => Some(Protocol::Tcp),
        libc::IPPROTO_UDP => Some(Protocol::Udp),
        _ => None,
    }
}

/// The number of a protocol.
pub(crate) fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// `AF_INET` or `AF_INET6`.
pub(crate) fn family(number: u8) -> Option<AddressFamily> {
    match c_int::from(number) {
        libc::AF_INET => Some(AddressFamily::Inet),
        libc::AF_INET6 => Some(AddressFamily::Inet6),
        _ => None,
    }
}
