//! The ports: how frames come from guests and go to them.
//!
//! | file | kind |
//! | --- | --- |
//! | [`tap`] | a tap interface, with offloads both ways |
//! | [`packet`] | a packet socket on an interface of the host |
//! | [`stream`] | a stream socket with QEMU's framing |
//! | [`dgram`] | a datagram socket: a frame is a datagram |
//! | [`vhost_user`] | rings in a guest's memory |
//! | [`body`] | bytes of a frame behind its head, of ours or of a guest |
//! | [`software`] | offloads done by us, as far as a port takes none |
//! | [`join`] | segments of senders that make no large ones, joined |
//! | [`arriving`] | what a frame is that came over a socket |

pub(crate) mod arriving;
pub(crate) mod body;
pub(crate) mod dgram;
pub(crate) mod join;
pub(crate) mod packet;
pub(crate) mod software;
pub(crate) mod stream;
pub(crate) mod tap;
pub(crate) mod vhost_user;

use std::io;

use vmnet_wire::ethernet;
use vmnet_wire::offload::Offload;

use crate::lane::PortOffload;
use crate::port::body::Body;
use crate::port::vhost_user::Refused;
use crate::sys::places::Places;

/// Bytes of the largest frame: an IP packet of 65,535 bytes behind Ethernet and a VLAN tag.
pub(crate) const FRAME_MAX: usize = 65_535 + 18;

/// Bytes of the largest frame with a virtio-net header before it.
pub(crate) const INPUT_MAX: usize = FRAME_MAX + Offload::HEADER_LEN;

/// Ether types of VLAN tags: IEEE 802.1Q and 802.1ad.
const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

/// A frame on its way to a guest, in pieces that need not be contiguous.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    /// The first bytes: of a frame of ours all headers, of another's frame all of it.
    pub(crate) head: &'a [u8],
    /// The rest. Of another's frame, it is in the memory of its guest, or empty.
    pub(crate) body: Body<'a>,
    pub(crate) offload: Offload,
}

impl Outgoing<'_> {
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// What is behind its Ethernet header, with all VLAN tags, is larger than the MTU.
    #[inline]
    pub(crate) fn is_too_long(&self, mtu: usize) -> bool {
        self.len() > mtu + ethernet::Header::LEN && self.is_too_long_with_tags(mtu)
    }

    fn is_too_long_with_tags(&self, mtu: usize) -> bool {
        let is_tag = |at: &usize| {
            let word = self.head.get(*at..at + 2);
            word.is_some_and(|word| TAGS.iter().any(|tag| word == tag))
        };
        // As many as the kernel looks behind, too.
        let tags = [12, 16].iter().take_while(|at| is_tag(at)).count();
        self.len() > mtu + ethernet::Header::LEN + 4 * tags
    }
}

/// A whole frame in pieces: the virtio-net header, or nothing; the head; the body.
#[derive(Clone, Copy)]
pub(crate) struct Pieces<'a> {
    pub(crate) header: &'a [u8],
    pub(crate) head: &'a [u8],
    pub(crate) body: Body<'a>,
}

impl<'a> Pieces<'a> {
    pub(crate) fn len(&self) -> usize {
        self.header.len() + self.head.len() + self.body.len()
    }

    /// Copies all bytes behind those of `to`.
    pub(crate) fn append_to(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.header);
        to.extend_from_slice(self.head);
        self.body.append_to(to);
    }

    /// Names all bytes to a system call.
    pub(crate) fn name_to(&self, places: &mut Places<'a>) {
        places.push(self.header);
        places.push(self.head);
        self.body.name_to(places);
    }

    /// All bytes as one body but the header, the first `skip` of them left out.
    fn rest(&self, skip: usize) -> (&'a [u8], Body<'a>) {
        let behind = skip.saturating_sub(self.head.len());
        let len = self.body.len().saturating_sub(behind);
        (
            self.head.get(skip..).unwrap_or(&[]),
            self.body.span(behind, len),
        )
    }
}

/// The way from and to one guest.
#[derive(Debug)]
pub(crate) enum Port {
    Tap(tap::Tap),
    Packet(packet::Packet),
    Stream(stream::Stream, PortOffload),
    Dgram(dgram::Dgram, PortOffload),
    VhostUser(Box<vhost_user::VhostUser>),
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
    /// Gives a frame to the guest, or to the port's queue. What has to be looked at in one piece is gathered in
    /// `scratch`. A frame that `may_wait` where it is can be refused without being lost.
    ///
    /// # Errors
    /// The frame was not taken.
    pub(crate) fn send(
        &mut self,
        frame: &Outgoing<'_>,
        mtu: usize,
        scratch: &mut Vec<u8>,
        may_wait: bool,
    ) -> Result<(), Refused> {
        let sent = match self {
            Self::VhostUser(port) => return port.send(frame, mtu, scratch, may_wait),
            Self::Tap(tap) => tap.send(frame, mtu, scratch),
            Self::Packet(packet) => packet.tap.send(frame, mtu, scratch),
            Self::Stream(stream, takes) => {
                software::send(frame, mtu, *takes, scratch, &mut |pieces| {
                    stream.push(pieces)
                })
            }
            Self::Dgram(dgram, takes) => {
                software::send(frame, mtu, *takes, scratch, &mut |pieces| {
                    dgram.push(pieces)
                })
            }
        };
        sent.map_err(Refused::Dropped)
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// The guest is gone.
    pub(crate) fn flush(&mut self) -> io::Result<Flushed> {
        match self {
            Self::Tap(_) | Self::Packet(_) => Ok(Flushed::Empty),
            Self::Stream(stream, _) => stream.flush(),
            Self::Dgram(dgram, _) => dgram.flush(),
            Self::VhostUser(port) => port.flush(),
        }
    }
}
