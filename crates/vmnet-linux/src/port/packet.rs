//! A packet socket on an interface of the host: the LAN that guests of a bridged network are on, or what the host sends
//! to it. Frames go as a tap's do, and come so too, but for their VLAN tags.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use vmnet_wire::ethernet::Mac;
use vmnet_wire::offload::{Checksum, Offload};

use crate::port::tap::{self, Tap};
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

    /// Reads the next frame, with its VLAN tag, and says where in `frame` it lies; `frame` has [`lan_socket::TAG`] bytes more
    /// than the largest. `Ok(None)`: there is none.
    ///
    /// # Errors
    /// The interface is gone, or a frame's header says what cannot be (`InvalidData`).
    pub(crate) fn receive(&self, frame: &mut [u8]) -> io::Result<Option<(Range<usize>, Offload)>> {
        let mut header = [0; Offload::HEADER_LEN];
        let (said, _) = header.split_at_mut(self.tap.header());
        let received = match lan_socket::receive(self.tap.fd(), said, frame) {
            Ok(received) => received,
            // It says once that its interface was switched off, and goes on when that is on again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENETDOWN)) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let mut offload = tap::read_offload(&header)?;
        if received.tagged {
            offload = behind_tag(offload)?;
        }
        let bytes = frame.get(received.place.clone()).unwrap_or(&[]);
        tap::judge(bytes, &offload)?;
        Ok(Some((received.place, offload)))
    }

    /// From now on it hears what the host sends to these guests, and to no others.
    pub(crate) fn listen_for(&self, guests: &[[u8; 6]]) {
        let Mac(mac) = self.mac;
        if let Err(error) = lan_socket::set_filter(self.tap.fd(), mac, guests, self.hears) {
            tracing::warn!(%error, "the host may not reach guests on its LAN: the kernel takes no filter");
        }
    }
}

/// The same of a frame that has got a tag.
fn behind_tag(offload: Offload) -> io::Result<Offload> {
    let Checksum::Partial { start, offset } = offload.checksum else {
        return Ok(offload);
    };
    let start = start
        .checked_add(lan_socket::TAG as u16)
        .ok_or(io::ErrorKind::InvalidData)?;
    let checksum = Checksum::Partial { start, offset };
    Ok(Offload {
        checksum,
        ..offload
    })
}

#[cfg(test)]
mod tests;
