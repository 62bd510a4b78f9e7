//! The host's interfaces and their addresses.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address, and the interface that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface's name.
    pub interface: String,
    /// IPv4 or IPv6.
    pub ip: IpAddr,
}

/// Addresses of all interfaces (`getifaddrs`).
///
/// # Errors
/// As the kernel says.
pub fn addresses() -> io::Result<Vec<Address>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs writes the list's head; it is freed below and not used after.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: every entry of the list, its name and the addresses it points to, live until freeifaddrs; the family says
    // which kind an address is.
    unsafe {
        while let Some(entry) = next.as_ref() {
            if let Some(address) = entry.ifa_addr.as_ref()
                && let Some(ip) = read(address)
            {
                let name = CStr::from_ptr(entry.ifa_name);
                found.push(Address {
                    interface: name.to_string_lossy().into_owned(),
                    ip,
                });
            }
            next = entry.ifa_next;
        }
        libc::freeifaddrs(list);
    }
    Ok(found)
}

/// # Safety
/// `address` is the start of an address as long as its family says.
unsafe fn read(address: &libc::sockaddr) -> Option<IpAddr> {
    let raw = std::ptr::from_ref(address);
    match i32::from(address.sa_family) {
        libc::AF_INET => {
            // SAFETY: as promised by the caller; read unaligned.
            let address = unsafe { raw.cast::<libc::sockaddr_in>().read_unaligned() };
            let octets = address.sin_addr.s_addr.to_ne_bytes();
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { raw.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)))
        }
        _ => None,
    }
}

/// The names of all interfaces, in order.
#[must_use]
pub fn names() -> Vec<String> {
    // SAFETY: the array is freed below and not used after.
    let list = unsafe { libc::if_nameindex() };
    let mut names = Vec::new();
    let mut next = list;
    if list.is_null() {
        return names;
    }
    // SAFETY: the array ends with an entry whose name is null (if_nameindex(3)), and names live until it is freed.
    unsafe {
        while let Some(entry) = next.as_ref()
            && !entry.if_name.is_null()
        {
            names.push(CStr::from_ptr(entry.if_name).to_string_lossy().into_owned());
            next = next.add(1);
        }
        libc::if_freenameindex(list);
    }
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there() {
        assert!(names().iter().any(|name| name == "lo"));
        let loopback = Address {
            interface: "lo".to_owned(),
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        assert!(addresses().unwrap().contains(&loopback));
    }
}
