//! What the kernel tells of changes at the host's links, addresses, routes and rules of routing, to whoever asks (rtnetlink(7)).
//!
//! What has changed is not read: there can be much of it, and it is looked at as a whole then.

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// What can be told of, of both families: bits of groups in `linux/rtnetlink.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Interfaces.
    Links,
    /// Their addresses.
    Addresses,
    /// Routes.
    Routes,
    /// Rules of policy routing.
    Rules,
}

impl Of {
    const fn groups(self) -> u32 {
        match self {
            Self::Links => 0x1,
            Self::Addresses => 0x10 | 0x100,
            Self::Routes => 0x40 | 0x400,
            Self::Rules => 0x80 | 0x4_0000,
        }
    }
}

/// A socket that is readable when something has changed.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
}

impl Events {
    /// From now on the kernel tells of these, in this namespace. Takes no privilege.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn of(kinds: &[Of]) -> io::Result<Self> {
        let groups = kinds.iter().fold(0, |all, one| all | one.groups());
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, groups))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Whether anything has changed since this was asked last.
    #[must_use]
    pub fn were_told(&self) -> bool {
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
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmnet_lab::namespace::Namespace;
    use vmnet_lab::prerequisite::{Prerequisite, all_present};

    #[test]
    fn what_is_listened_for_is_told_once() {
        if !all_present(&[Prerequisite::Root, Prerequisite::Program("ip")]) {
            return;
        }
        let host = Namespace::new();
        let all = [
            (Of::Links, "link add br0 type bridge"),
            (Of::Addresses, "address add 10.9.9.1/24 dev lo"),
            (Of::Addresses, "address add fd09::1/64 dev lo nodad"),
            (Of::Routes, "route add 10.9.8.0/24 dev lo"),
            (Of::Routes, "-6 route add fd08::/64 dev lo"),
            (Of::Rules, "rule add iif lo table 7"),
            (Of::Rules, "-6 rule add iif lo table 7"),
        ];
        for (kind, change) in all {
            let other = match kind {
                Of::Rules => Of::Links,
                _ => Of::Rules,
            };
            let [events, others] =
                [kind, other].map(|kind| host.enter(|| Events::of(&[kind])).unwrap());
            assert!(!events.were_told(), "{change}");
            host.ip(&change.split(' ').collect::<Vec<_>>());
            assert!(events.were_told(), "{change}");
            assert!(!events.were_told(), "{change}");
            assert!(!others.were_told(), "{change}");
        }
    }
}
