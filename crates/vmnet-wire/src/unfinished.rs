//! Frames whose sender left work to others: whether what it says of them can be ([`is_sound`]), and how frames without
//! a header of their own are given one ([`leave`]).
//!
//! It does none of the work; [`crate::segment`] does.

use zerocopy::FromBytes;

use crate::checksum::Sum;
use crate::ethernet::{self, EtherType};
use crate::ip::{self, Protocol};
use crate::offload::{Checksum, Kind, Offload, Segmentation};
use crate::segment::Layout;
use crate::{ipv4, ipv6, tcp, udp};

/// ICMPv6's checksum field (RFC 4443 §2.1).
const ICMPV6_CHECKSUM_OFFSET: u16 = 2;

/// What a sender says of its frame is possible: the place of its checksum is a transport header's or behind one, so that
/// completing it changes no address that was looked at before, and its segmentation is that of its protocol.
#[must_use]
pub fn is_sound(frame: &[u8], offload: &Offload) -> bool {
    is_sound_of(frame, frame.len(), offload)
}

/// The same of a frame of `len` bytes, of which `head` holds all headers.
#[must_use]
pub fn is_sound_of(head: &[u8], len: usize, offload: &Offload) -> bool {
    let (frame, layout) = (head, Layout::find(head, len));
    let checksum = match offload.checksum {
        Checksum::Partial { start, offset } => place_is_sound(frame, len, layout, start, offset),
        Checksum::Unverified | Checksum::Valid | Checksum::Wrong => true,
    };
    let Some(segmentation) = offload.segmentation else {
        return checksum;
    };
    let fits = match layout {
        Some(layout) => {
            let (protocol, v4) = (layout.protocol, layout.source.is_ipv4());
            match segmentation.kind {
                Kind::Tcp4 => protocol == Protocol::TCP && v4,
                Kind::Tcp6 => protocol == Protocol::TCP && !v4,
                Kind::Udp => protocol == Protocol::UDP,
            }
        }
        None => false,
    };
    checksum && fits && segmentation.size > 0
}

fn place_is_sound(
    frame: &[u8],
    len: usize,
    layout: Option<Layout>,
    start: u16,
    offset: u16,
) -> bool {
    let at = usize::from(start) + usize::from(offset);
    if at + 2 > len {
        return false;
    }
    match layout {
        Some(layout) if usize::from(start) == layout.transport => {
            checksum_offset(layout.protocol) == Some(offset)
        }
        // What neighbour discovery says stands behind its header, and was looked at before too.
        Some(layout) if layout.protocol == Protocol::ICMPV6 => false,
        // Of a packet inside this one.
        Some(layout) => usize::from(start) >= layout.payload,
        None => network_header_end(frame).is_some_and(|end| at >= end),
    }
}

fn checksum_offset(protocol: Protocol) -> Option<u16> {
    match protocol {
        Protocol::TCP => Some(tcp::Header::CHECKSUM_OFFSET),
        Protocol::UDP => Some(udp::Header::CHECKSUM_OFFSET),
        Protocol::ICMPV6 => Some(ICMPV6_CHECKSUM_OFFSET),
        _ => None,
    }
}

/// Where a frame's addresses and the headers behind them end, behind tags too; `None` if it has nothing behind them that has
/// a checksum.
fn network_header_end(frame: &[u8]) -> Option<usize> {
    let (ether_type, at) = ethernet::behind_tags(frame)?;
    let rest = frame.get(at..)?;
    match ether_type {
        EtherType::IPV4 => Some(at + header_len(rest)?),
        EtherType::IPV6 => Some(at + headers_len(rest)?),
        EtherType::ARP | EtherType::VLAN | EtherType::SERVICE_VLAN => None,
        _ => Some(at),
    }
}

/// Bytes of an IPv4 header, options included.
fn header_len(packet: &[u8]) -> Option<usize> {
    let len = usize::from(packet.first()? & 0x0f) * 4;
    (ipv4::Header::LEN..=packet.len())
        .contains(&len)
        .then_some(len)
}

/// Bytes of an IPv6 packet that were looked at: its header, all extension headers, each of which says what the next is, and
/// the ports of UDP. A fragment has no checksum that could be completed, and all of ICMPv6 was looked at.
fn headers_len(packet: &[u8]) -> Option<usize> {
    let packet = ipv6::Packet::read(packet, usize::MAX).ok()?;
    match packet.protocol {
        _ if packet.piece().is_some() => None,
        Protocol::ICMPV6 => None,
        Protocol::UDP => Some(packet.header_len + 4),
        _ => Some(packet.header_len),
    }
}

/// What the sender of a frame without a header of its own may leave to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leaves {
    /// The checksums of IPv4, TCP and UDP.
    pub sums: bool,
    /// Cutting TCP segments for packets of this size at most, in bytes.
    pub cutting_to: Option<usize>,
}

/// Gives a frame without a header of its own the state that its sender means: its sums are to be made, or it is to be
/// cut. Answers that state, and where the frame ends without link padding; `None` if nothing is left to others.
///
/// An IPv4 header's sum is made at once; fragments keep theirs, as they carry no whole header (RFC 791 §3.2).
pub fn leave(frame: &mut [u8], leaves: Leaves) -> Option<(Offload, usize)> {
    let len = frame.len();
    leave_of(frame, len, leaves)
}

/// The same for a frame of `len` bytes of which `head` has the headers at least.
pub fn leave_of(head: &mut [u8], len: usize, leaves: Leaves) -> Option<(Offload, usize)> {
    if leaves.sums {
        sum_ipv4_header(head);
    }
    let layout = Layout::find(head, len)?;
    let packet = layout.end - layout.network;
    let headers = layout.payload - layout.network;
    let size = leaves
        .cutting_to
        .filter(|mtu| layout.protocol == Protocol::TCP && packet > *mtu)
        .and_then(|mtu| u16::try_from(mtu.checked_sub(headers)?).ok())
        .filter(|size| *size > 0);
    if !leaves.sums && size.is_none() {
        return None;
    }
    let checksum = set_pseudo_sum(head, len)?;
    let segmentation = size.map(|size| Segmentation {
        kind: if layout.source.is_ipv4() {
            Kind::Tcp4
        } else {
            Kind::Tcp6
        },
        size,
        ecn: carries_cwr(head, layout.transport),
    });
    let offload = Offload {
        checksum,
        segmentation,
    };
    Some((offload, layout.end))
}

/// Puts the sum of the pseudo header where the checksum of a TCP or UDP frame of `len` bytes belongs, of which `head`
/// holds all headers. `None` if it is no such frame.
pub fn set_pseudo_sum(head: &mut [u8], len: usize) -> Option<Checksum> {
    let layout = Layout::find(head, len)?;
    let offset = match layout.protocol {
        Protocol::TCP | Protocol::UDP => checksum_offset(layout.protocol)?,
        _ => return None,
    };
    let covered = layout.end - layout.transport;
    let sum = ip::pseudo_header(layout.source, layout.destination, layout.protocol, covered);
    let at = layout.transport + usize::from(offset);
    let field = head.get_mut(at..at + 2)?;
    field.copy_from_slice(&sum.folded().to_be_bytes());
    Some(Offload::partial(layout.transport, offset))
}

fn sum_ipv4_header(frame: &mut [u8]) {
    let Some((EtherType::IPV4, at)) = ethernet::behind_tags(frame) else {
        return;
    };
    let Some(packet) = frame.get_mut(at..) else {
        return;
    };
    let Some(header) = header_len(packet).and_then(|len| packet.get_mut(..len)) else {
        return;
    };
    // The field itself is no part of its sum (RFC 791 §3.1).
    let [_, _, _, _, _, _, _, _, _, _, high, low, ..] = header else {
        return;
    };
    (*high, *low) = (0, 0);
    let [first, second] = Sum::new().with(header).finish().to_be_bytes();
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&[first, second]);
    }
}

fn carries_cwr(frame: &[u8], transport: usize) -> bool {
    frame
        .get(transport..)
        .and_then(|bytes| tcp::Header::ref_from_prefix(bytes).ok())
        .is_some_and(|(header, _)| header.flags().has(tcp::Flags::CWR))
}

#[cfg(test)]
mod tests;
