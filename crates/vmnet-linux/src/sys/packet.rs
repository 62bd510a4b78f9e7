//! A socket that sees the IPv4 packets of one interface, also while that has no address (packet(7)).
//!
//! `SOCK_DGRAM`: the kernel makes and takes the Ethernet header.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Opens a non-blocking packet socket on the interface with this index.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_RAW` over the network namespace.
pub fn open(interface: u32) -> io::Result<OwnedFd> {
    let protocol = (libc::ETH_P_IP as u16).to_be();
    // SAFETY: no memory is passed.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            libc::c_int::from(protocol),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let address = link_address(interface, [0; 6]);
    // SAFETY: `address` is a `sockaddr_ll` of the length given and outlives the call.
    let answer = unsafe {
        libc::bind(
            fd,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Sends one IPv4 packet to `station` on the link.
///
/// # Errors
///
/// What `sendto` says, `ENETDOWN` for an interface that is not up.
pub fn send(socket: impl AsFd, interface: u32, station: [u8; 6], packet: &[u8]) -> io::Result<()> {
    let address = link_address(interface, station);
    // SAFETY: `packet` and `address` are valid for the lengths given during the call.
    let answer = unsafe {
        libc::sendto(
            socket.as_fd().as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets a socket speak over the named interface only (`SO_BINDTODEVICE`, socket(7)). Allowed to everybody since Linux
/// 5.7, as long as the socket is not bound to another.
///
/// # Errors
///
/// `ENODEV` if there is no such interface.
pub fn bind_to_interface(socket: impl AsFd, name: &str) -> io::Result<()> {
    // SAFETY: the kernel reads `name.len()` bytes at `name`, which are there.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_ptr().cast(),
            name.len() as libc::socklen_t,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn link_address(interface: u32, station: [u8; 6]) -> libc::sockaddr_ll {
    // SAFETY: `sockaddr_ll` is made of integers; all zero is a value of it.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    address.sll_ifindex = interface as i32;
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&station);
    address
}
