//! The ports: how frames come from guests and go to them.
//!
//! | file | kind |
//! | --- | --- |
//! | [`tap`] | a tap interface, with offloads both ways |
//! | [`stream`] | a stream socket with QEMU's framing |
//! | [`dgram`] | a datagram socket: a frame is a datagram |
//! | [`software`] | offloads done by us, as far as a port takes none |
//! | [`join`] | segments of senders that make no large ones, joined |
//! | [`arriving`] | what a frame is that came over a socket |

pub(crate) mod arriving;
pub(crate) mod dgram;
pub(crate) mod join;
pub(crate) mod software;
pub(crate) mod stream;
pub(crate) mod tap;

use std::io;

use vmnet_core::Drop;
use vmnet_wire::offload::Offload;

use crate::lane::PortOffload;

/// Bytes of the largest frame: an IP packet of 65,535 bytes behind Ethernet and a VLAN tag.
pub(crate) const FRAME_MAX: usize = 65_535 + 18;

/// Bytes of the largest frame with a virtio-net header before it.
pub(crate) const INPUT_MAX: usize = FRAME_MAX + Offload::HEADER_LEN;

/// A frame on its way to a guest, in two pieces that need not be contiguous.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    /// The first bytes: of a frame of ours all headers, of another's frame all of it.
    pub(crate) head: &'a [u8],
    /// The rest.
    pub(crate) body: &'a [u8],
    pub(crate) offload: Offload,
}

impl Outgoing<'_> {
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

/// The way from and to one guest.
#[derive(Debug)]
pub(crate) enum Port {
    Tap(tap::Tap),
    Stream(stream::Stream, PortOffload),
    Dgram(dgram::Dgram, PortOffload),
}

/// Whether a port takes more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flushed {
    /// Everything is out.
    Empty,
    /// Its queue is full: it will tell when it is not.
    Full,
    /// The same, but it cannot tell: try again soon.
    Retry,
}

impl Port {
    /// Gives a frame to the guest, or to the port's queue.
    ///
    /// # Errors
    /// The frame was dropped.
    pub(crate) fn send(&mut self, frame: &Outgoing<'_>, mtu: usize) -> Result<(), Drop> {
        match self {
            Self::Tap(tap) => tap.send(frame, mtu),
            Self::Stream(stream, takes) => {
                software::send(frame, mtu, *takes, &mut |pieces| stream.push(pieces))
            }
            Self::Dgram(dgram, takes) => {
                software::send(frame, mtu, *takes, &mut |pieces| dgram.push(pieces))
            }
        }
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// The guest is gone.
    pub(crate) fn flush(&mut self) -> io::Result<Flushed> {
        match self {
            Self::Tap(_) => Ok(Flushed::Empty),
            Self::Stream(stream, _) => stream.flush(),
            Self::Dgram(dgram, _) => dgram.flush(),
        }
    }
}
