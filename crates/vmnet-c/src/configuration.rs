//! `vmnet_network_configuration_...`: what a network is to be. No call here reaches the service.

use crate::argument::{self, Return, address, ipv4, ipv6, reported, returned};
use crate::foundation::{Full, created};
use openvmnet::{Error, Mac, NetworkConfiguration, NetworkMode, OperatingMode, Status};
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};
use vmnet_xpc::border;

/// What `vmnet_network_configuration_ref` points at.
pub struct Configuration(Mutex<NetworkConfiguration>);

impl Configuration {
    /// As it is now.
    pub(crate) fn snapshot(&self) -> NetworkConfiguration {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

type Ref = *mut Full<Configuration>;

/// Changes a configuration of C.
unsafe fn change<T>(
    configuration: Ref,
    change: impl FnOnce(&mut NetworkConfiguration) -> Option<Result<T, Error>>,
) -> Return {
    border(Status::Failure.code(), || {
        // SAFETY: The caller has null or a live configuration.
        let Some(full) = (unsafe { configuration.as_ref() }) else {
            return Status::InvalidArgument.code();
        };
        let mut configuration = full.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut configuration).map_or(Status::InvalidArgument.code(), returned)
    })
}

/// A configuration of a mode, with defaults for everything else.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_configuration_create(mode: u32, status: *mut Return) -> Ref {
    border(ptr::null_mut(), || {
        let mode = OperatingMode::from_code(mode).and_then(|mode| NetworkMode::try_from(mode).ok());
        // SAFETY: The caller has null, or a place for the status.
        let mode = unsafe { reported(mode.ok_or(Status::InvalidArgument), status) };
        mode.map_or(ptr::null_mut(), |mode| {
            created(Configuration(Mutex::new(NetworkConfiguration::new(mode))))
        })
    })
}

macro_rules! disable {
    ($($symbol:ident $method:ident $what:literal)*) => {$(
        #[doc = $what]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(configuration: Ref) {
            // SAFETY: The caller has null or a live configuration. The function has no way to say that it is null.
            let _null = unsafe {
                change(configuration, |it| {
                    it.$method();
                    Some(Ok(()))
                })
            };
        }
    )*};
}

disable! {
    vmnet_network_configuration_disable_nat44 disable_nat44 "No way to the outside by IPv4."
    vmnet_network_configuration_disable_nat66 disable_nat66 "No way to the outside by IPv6."
    vmnet_network_configuration_disable_dhcp disable_dhcp "No addresses by DHCP."
    vmnet_network_configuration_disable_dns_proxy disable_dns_proxy "No answers to DNS questions."
    vmnet_network_configuration_disable_router_advertisement disable_router_advertisement
        "No IPv6 prefix for guests."
}

/// Sets the host's interface by which a shared network reaches the outside.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_configuration_set_external_interface(
    configuration: Ref,
    name: *const c_char,
) -> Return {
    // SAFETY: The caller has null or a live configuration, and null or a string.
    unsafe {
        change(configuration, |it| {
            let name = (!name.is_null()).then(|| CStr::from_ptr(name))?;
            Some(it.set_external_interface(name.to_str().ok()?).map(drop))
        })
    }
}

/// Sets the IPv4 subnet, by the host's address in it or its first address.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_configuration_set_ipv4_subnet(
    configuration: Ref,
    address: *const libc::in_addr,
    mask: *const libc::in_addr,
) -> Return {
    // SAFETY: The caller has null or a live configuration, and null or addresses.
    unsafe {
        change(configuration, |it| {
            Some(it.set_ipv4_subnet(ipv4(address)?, ipv4(mask)?).map(drop))
        })
    }
}

/// Sets the IPv6 prefix.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_configuration_set_ipv6_prefix(
    configuration: Ref,
    prefix: *const libc::in6_addr,
    length: u8,
) -> Return {
    // SAFETY: The caller has null or a live configuration, and null or an address.
    unsafe {
        change(configuration, |it| {
            Some(it.set_ipv6_prefix(ipv6(prefix)?, length).map(drop))
        })
    }
}

/// Sets the largest packet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_configuration_set_mtu(
    configuration: Ref,
    mtu: u32,
) -> Return {
    // SAFETY: The caller has null or a live configuration.
    unsafe { change(configuration, |it| Some(it.set_mtu(mtu).map(drop))) }
}

/// Keeps an IPv4 address for a guest.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_configuration_add_dhcp_reservation(
    configuration: Ref,
    client: *const [u8; 6],
    reservation: *const libc::in_addr,
) -> Return {
    // SAFETY: The caller has null or a live configuration, and null or addresses.
    unsafe {
        change(configuration, |it| {
            let client = Mac(*client.as_ref()?);
            Some(
                it.add_dhcp_reservation(client, ipv4(reservation)?)
                    .map(drop),
            )
        })
    }
}

/// Forwards a port of the host to a guest. The guest's port comes first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vmnet_network_configuration_add_port_forwarding_rule(
    configuration: Ref,
    protocol: u8,
    family: libc::sa_family_t,
    internal_port: u16,
    external_port: u16,
    internal_address: *const c_void,
) -> Return {
    // SAFETY: The caller has null or a live configuration, and null or an address of the family.
    unsafe {
        change(configuration, |it| {
            let protocol = argument::protocol(protocol)?;
            let address = address(family.into(), internal_address)?;
            Some(
                it.add_port_forwarding_rule(protocol, internal_port, external_port, address)
                    .map(drop),
            )
        })
    }
}
