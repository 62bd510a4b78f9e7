//! A packet socket on an interface of the host: the LAN that guests of a bridged network are on, or what the host sends
//! to it. Frames come and go as a tap's do.

use std::os::fd::OwnedFd;

use vmnet_wire::ethernet::Mac;

use crate::port::tap::Tap;
use crate::sys::lan_socket::{self, Hears};

/// The socket, and what it hears.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) tap: Tap,
    mac: Mac,
    hears: Hears,
}

impl Packet {
    /// A socket on an interface with this MAC, which [`lan_socket::open`] made.
    pub(crate) fn new(fd: OwnedFd, mac: Mac, hears: Hears) -> Self {
        let header = lan_socket::header_length(&fd);
        Self {
            tap: Tap::packet_socket(fd, header),
            mac,
            hears,
        }
    }

    /// From now on it hears what the host sends to these guests, and to no others.
    pub(crate) fn listen_for(&self, guests: &[[u8; 6]]) {
        let Mac(mac) = self.mac;
        if let Err(error) = lan_socket::set_filter(self.tap.fd(), mac, guests, self.hears) {
            tracing::warn!(%error, "the host may not reach guests on its LAN: the kernel takes no filter");
        }
    }
}
