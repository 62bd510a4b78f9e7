//! What the core sees of a frame: its head, its length, what its sender left undone.

use vmnet_wire::ethernet::{self, EtherType};
use vmnet_wire::ip::Protocol;
use vmnet_wire::offload::Offload;
use vmnet_wire::{ipv4, ipv6, udp};

/// Bytes of a frame that the core may want to see: all headers, and a whole DHCP or DNS message.
pub const HEAD_MAX: usize = 2048;

/// Bytes of a frame that hold all headers of what is not a message to the gateway.
pub const HEAD_MIN: usize = 192;

/// UDP ports of the gateway's services: DNS, DHCP, and DHCPv6.
const SERVICES: [u16; 3] = [53, 67, 547];

/// A frame in the hand of the caller.
///
/// The body stays with the caller; actions name places in it by [`Span`]. `head` must not
/// change while the core looks at it: a port in guest memory hands a copy.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The first bytes: all of them, or at least as many as [`head_wanted`] says.
    pub head: &'a [u8],
    /// Bytes of the whole frame, Ethernet header included.
    pub len: usize,
    /// What its sender left to others.
    pub offload: Offload,
    /// It came in pieces that were put together: those on the way may cut it again.
    pub in_pieces: bool,
    /// Bytes of payload of the frames that go on where it ends, by [`Network::succession`](crate::Network::succession): they are
    /// received with it. A [`Span`] names them behind its own bytes.
    pub following: usize,
}

impl<'a> Frame<'a> {
    /// A frame that is all there.
    #[must_use]
    pub fn whole(bytes: &'a [u8], offload: Offload) -> Self {
        Self {
            head: bytes,
            len: bytes.len(),
            offload,
            in_pieces: false,
            following: 0,
        }
    }

    /// A frame that [`Action::Reassemble`](crate::Action::Reassemble) was about.
    #[must_use]
    pub fn reassembled(bytes: &'a [u8]) -> Self {
        Self {
            in_pieces: true,
            ..Self::whole(bytes, Offload::NONE)
        }
    }
}

/// Bytes of a frame of `len` bytes, which begins with `head`, that the core may want to see: few of what only passes, and
/// [`HEAD_MAX`] of what may be a message to the gateway. `head` has all of the frame, or at least [`HEAD_MIN`] bytes.
#[must_use]
pub fn head_wanted(head: &[u8], len: usize) -> usize {
    let passes = ethernet::Header::read(head).is_some_and(|(header, packet)| {
        let (protocol, behind) = match header.ether_type() {
            EtherType::IPV4 => {
                let Ok(packet) =
                    ipv4::Packet::read(packet, len.saturating_sub(ethernet::Header::LEN))
                else {
                    return false;
                };
                (packet.header.protocol(), packet.payload)
            }
            EtherType::IPV6 => {
                let Some(header) = ipv6::Header::read(packet) else {
                    return false;
                };
                let behind = packet.get(ipv6::Header::LEN..).unwrap_or(&[]);
                (header.next_header(), behind)
            }
            _ => return false,
        };
        match protocol {
            Protocol::TCP => true,
            Protocol::UDP => udp::Header::read(behind)
                .is_some_and(|(header, _)| !SERVICES.contains(&header.destination_port())),
            _ => false,
        }
    });
    if passes {
        len.min(HEAD_MIN)
    } else {
        len.min(HEAD_MAX)
    }
}

/// A place in what the caller holds in its hand: the frame or the payload that it gave last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

impl Span {
    /// From the first byte on.
    #[must_use]
    pub fn first(len: usize) -> Self {
        Self { start: 0, len }
    }

    /// The bytes of `of` that this names; `None` if it reaches outside.
    #[must_use]
    pub fn of<'b>(&self, of: &'b [u8]) -> Option<&'b [u8]> {
        of.get(self.start..self.start.checked_add(self.len)?)
    }
}
