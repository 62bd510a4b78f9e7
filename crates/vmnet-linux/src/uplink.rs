//! The host's way to the outside: the address by which others reach it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr as NetlinkAddr, protocols::NETLINK_ROUTE};
use vmnet_core::Subnet;

/// Groups of `rtnetlink(7)`: IPv4 addresses and routes.
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV4_ROUTE: u32 = 0x40;
/// An address that every default route leads to. Nothing is sent there.
const ANYWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Watches the host's addresses and routes.
pub(crate) struct Uplink {
    socket: Socket,
}

impl Uplink {
    pub(crate) fn new() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&NetlinkAddr::new(0, RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes what was told. Answers whether anything was.
    pub(crate) fn changed(&self) -> bool {
        let mut any = false;
        let mut message = Vec::with_capacity(8192);
        loop {
            message.clear();
            match self.socket.recv(&mut message, 0) {
                Ok(_) => any = true,
                // Too much was told: that is news as well.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                Err(_) => return any,
            }
        }
    }

    /// The address from which the host speaks to the outside; without a default route, any that is not loopback.
    /// Addresses inside `except`, the network's own subnet, mean guests.
    pub(crate) fn address(&self, except: Subnet) -> Option<IpAddr> {
        routed()
            .or_else(any_address)
            .filter(|address| match address {
                IpAddr::V4(address) => !except.contains(*address),
                IpAddr::V6(_) => true,
            })
    }
}

fn routed() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Connecting a datagram socket only looks the route up.
    socket.connect(SocketAddr::from((ANYWHERE, 9))).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

/// The first address of any interface that is not loopback.
fn any_address() -> Option<IpAddr> {
    crate::sys::interfaces::addresses()
        .ok()?
        .into_iter()
        .find(|address| match address {
            IpAddr::V4(address) => !address.is_loopback() && !address.is_unspecified(),
            IpAddr::V6(_) => false,
        })
}
