//! Packets larger than the MTU, cut (RFC 791 §2.3, RFC 8200 §4.5).

use core::ops::Range;

use zerocopy::{FromBytes, IntoBytes};

use crate::checksum::Sum;
use crate::ethernet::{self, EtherType};
use crate::ip::Protocol;
use crate::segment::Head;
use crate::{ipv4, ipv6};

/// Where the number of what follows stands in an IPv6 header.
const NEXT_HEADER_AT: usize = ethernet::Header::LEN + 6;

/// Cuts a packet that is larger than the MTU.
#[derive(Debug)]
pub struct Fragments {
    template: Head,
    /// Where the part that is cut starts in the frame.
    start: usize,
    id: Id,
    step: usize,
    next: usize,
    payload_len: usize,
}

/// What all fragments of a packet have in common.
#[derive(Clone, Copy, Debug)]
enum Id {
    V4(u16),
    V6(u32, Protocol),
}

impl Fragments {
    /// Prepares to cut `frame`, whose checksums are right; `None` if it carries no IP packet, or one that is a
    /// fragment already or must not be cut.
    ///
    /// An IPv6 packet may be cut by whoever sends it, and is cut behind its fixed header; TCP is never to be.
    #[must_use]
    pub fn new(frame: &[u8], mtu: usize) -> Option<Self> {
        let (ethernet, bytes) = ethernet::Header::read(frame)?;
        let (template, id, start, payload_len) = match ethernet.ether_type() {
            EtherType::IPV4 => v4(frame, bytes)?,
            EtherType::IPV6 => v6(frame, bytes)?,
            _ => return None,
        };
        let step = mtu.checked_sub(template.bytes().len() - ethernet::Header::LEN)? & !7;
        (step > 0).then_some(Self {
            template,
            start,
            id,
            step,
            next: 0,
            payload_len,
        })
    }
}

fn v4(frame: &[u8], bytes: &[u8]) -> Option<(Head, Id, usize, usize)> {
    let packet = ipv4::Packet::read(bytes, bytes.len()).ok()?;
    if packet.header.is_fragment() || packet.header.dont_fragment() {
        return None;
    }
    let start = ethernet::Header::LEN + packet.header_len;
    let template = Head::copy(frame.get(..start)?)?;
    let id = Id::V4(packet.header.id());
    Some((template, id, start, packet.payload_len))
}

fn v6(frame: &[u8], bytes: &[u8]) -> Option<(Head, Id, usize, usize)> {
    let packet = ipv6::Packet::read(bytes, bytes.len()).ok()?;
    if packet.fragment.is_some() || packet.protocol == Protocol::TCP {
        return None;
    }
    let start = ethernet::Header::LEN + ipv6::Header::LEN;
    let headers = frame.get(..start)?;
    // Another packet between the same two has another id: it differs in its ports, its length, or its checksum, which is
    // about all of it.
    let front = bytes.get(..64).unwrap_or(bytes);
    let id = front.iter().fold(0x811c_9dc5u32, |id, byte| {
        (id ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    let id = id ^ u32::from(Sum::new().with(packet.payload).folded());
    let place = ipv6::FragmentHeader::new(packet.header.next_header(), id, 0, false);
    let mut template = Head::copy(headers)?;
    template.push(place.as_bytes())?;
    let id = Id::V6(id, packet.header.next_header());
    Some((template, id, start, packet.header.payload_len()))
}

impl Iterator for Fragments {
    type Item = (Head, Range<usize>);

    /// The headers of the next fragment, and the place of its payload in the frame.
    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.payload_len {
            return None;
        }
        let end = (self.next + self.step).min(self.payload_len);
        let (offset, more) = (self.next, end < self.payload_len);
        let mut head = self.template;
        match self.id {
            Id::V4(id) => {
                let packet = head.bytes_mut().get_mut(ethernet::Header::LEN..)?;
                let total = packet.len() + (end - self.next);
                ipv4::rewrite(packet, total, id, ipv4::Fragment { offset, more });
            }
            Id::V6(id, protocol) => {
                *head.bytes_mut().get_mut(NEXT_HEADER_AT)? = Protocol::FRAGMENT.0;
                let packet = head.bytes_mut().get_mut(ethernet::Header::LEN..)?;
                let (header, rest) = ipv6::Header::mut_from_prefix(packet).ok()?;
                header.set_payload_len(ipv6::FragmentHeader::LEN + end - self.next);
                let place = ipv6::FragmentHeader::new(protocol, id, offset, more);
                rest.get_mut(..ipv6::FragmentHeader::LEN)?
                    .copy_from_slice(place.as_bytes());
            }
        }
        let range = self.start + self.next..self.start + end;
        self.next = end;
        Some((head, range))
    }
}
