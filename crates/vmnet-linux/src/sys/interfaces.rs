//! Addresses of the host's interfaces (`getifaddrs`).

use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// IPv4 addresses of all interfaces.
///
/// # Errors
/// As the kernel says.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs writes the list's head; it is freed below and not used after.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: every entry of the list, and the addresses it points to, live until freeifaddrs; the family says
    // which kind an address is.
    unsafe {
        while let Some(entry) = next.as_ref() {
            if let Some(address) = entry.ifa_addr.as_ref()
                && i32::from(address.sa_family) == libc::AF_INET
            {
                let address = &*entry.ifa_addr.cast::<libc::sockaddr_in>();
                found.push(IpAddr::V4(Ipv4Addr::from(
                    address.sin_addr.s_addr.to_ne_bytes(),
                )));
            }
            next = entry.ifa_next;
        }
        libc::freeifaddrs(list);
    }
    Ok(found)
}
