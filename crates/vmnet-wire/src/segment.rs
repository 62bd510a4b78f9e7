//! Offloads done in software, for a port that did not negotiate them: [`complete`] a checksum,
//! [`Cut`] a large frame into segments or datagrams, cut a packet into [`Fragments`].
//!
//! Frames come as a head (at least all headers) and the payload behind it, which need not be
//! contiguous: headers are made anew for each piece, payload is only pointed at.

use core::net::IpAddr;
use core::ops::Range;

use zerocopy::FromBytes;

use crate::checksum::Sum;
use crate::ethernet::{self, EtherType};
use crate::ip::{self, Protocol};
use crate::offload::{Checksum, Kind, Segmentation};
use crate::{ipv4, ipv6, tcp, udp};

mod fragments;
pub use fragments::Fragments;

/// Ethernet with two VLAN tags, the longest IPv4 header and the longest TCP header; an IPv6 header leaves room for some
/// extensions.
pub const HEADERS_MAX: usize = 14 + 8 + 60 + 60;

/// Where the headers of a frame stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Bytes before the IP header: Ethernet and its VLAN tags.
    pub network: usize,
    /// Bytes before the transport header: these and IP.
    pub transport: usize,
    /// Bytes before the payload.
    pub payload: usize,
    /// End of the packet, without link padding; at most the frame's length.
    pub end: usize,
    /// TCP, UDP or ICMP.
    pub protocol: Protocol,
    /// Who sent it.
    pub source: IpAddr,
    /// Who should get it.
    pub destination: IpAddr,
}

impl Layout {
    /// Finds the headers in the head of a frame of `len` bytes; `None` if it carries no whole TCP, UDP or
    /// ICMP header, is a fragment, or has a header before it that changes what a checksum covers.
    #[must_use]
    pub fn find(head: &[u8], len: usize) -> Option<Self> {
        let (ether_type, before) = ethernet::behind_tags(head)?;
        let packet = head.get(before..)?;
        let (transport, end, protocol, source, destination) = match ether_type {
            EtherType::IPV4 => {
                let packet = ipv4::Packet::read(packet, len.checked_sub(before)?).ok()?;
                if packet.header.is_fragment() {
                    return None;
                }
                let transport = before + packet.header_len;
                let header = packet.header;
                (
                    transport,
                    transport + packet.payload_len,
                    header.protocol(),
                    IpAddr::V4(header.source()),
                    IpAddr::V4(header.destination()),
                )
            }
            EtherType::IPV6 => {
                let packet = ipv6::Packet::read(packet, len.checked_sub(before)?).ok()?;
                if packet.piece().is_some() || packet.problem.is_some() {
                    return None;
                }
                let transport = before + packet.header_len;
                let header = packet.header;
                (
                    transport,
                    transport + packet.payload_len,
                    packet.protocol,
                    IpAddr::V6(header.source()),
                    IpAddr::V6(header.destination()),
                )
            }
            _ => return None,
        };
        let bytes = head.get(transport..)?;
        let header = match protocol {
            Protocol::TCP => tcp::Segment::read(bytes)?.header_len,
            Protocol::UDP => udp::Header::read(bytes).map(|_| udp::Header::LEN)?,
            Protocol::ICMPV4 | Protocol::ICMPV6 => bytes.get(..8).map(|_| 8)?,
            _ => return None,
        };
        let payload = transport + header;
        (payload <= end && end <= len).then_some(Self {
            network: before,
            transport,
            payload,
            end,
            protocol,
            source,
            destination,
        })
    }
}

/// The transport checksum of a whole frame is right, or there is none to check.
#[must_use]
pub fn verify(frame: &[u8]) -> bool {
    let Some(layout) = Layout::find(frame, frame.len()) else {
        return true;
    };
    let Some(transport) = frame.get(layout.transport..layout.end) else {
        return true;
    };
    match layout.protocol {
        Protocol::ICMPV4 => Sum::new().with(transport).finish() == 0,
        Protocol::UDP if udp::Header::read(transport).is_some_and(|(h, _)| h.checksum() == 0) => {
            layout.source.is_ipv4()
        }
        protocol => {
            let sum =
                ip::pseudo_header(layout.source, layout.destination, protocol, transport.len());
            let rest = sum.folded();
            Sum::new().with(transport).with_u16(rest).finish() == 0
        }
    }
}

/// Puts the checksum into a frame that has only the sum of its pseudo header. `head` holds at
/// least the transport header, `payload` what follows it. Nothing happens if the place is outside.
pub fn complete(head: &mut [u8], payload: &[u8], checksum: Checksum) {
    let Checksum::Partial { start, offset } = checksum else {
        return;
    };
    let Some(covered) = head.get(usize::from(start)..) else {
        return;
    };
    // A head of odd length would shift the payload's words: its last byte is summed with the
    // payload's first.
    let sum = if covered.len() % 2 == 0 {
        Sum::new().with(covered).with(payload)
    } else {
        let Some((last, even)) = covered.split_last() else {
            return;
        };
        let (first, rest) = payload.split_first().map_or((0, payload), |(f, r)| (*f, r));
        Sum::new().with(even).with(&[*last, first]).with(rest)
    };
    let at = usize::from(start) + usize::from(offset);
    let field = head.get_mut(at..at + 2);
    // Only UDP treats zero as "none"; all ones is the same number, so TCP does not mind.
    let bytes = sum.finish_udp().to_be_bytes();
    if let Some(field) = field {
        field.copy_from_slice(&bytes);
    }
}

/// The headers of one piece.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; HEADERS_MAX],
    len: usize,
}

impl Head {
    fn copy(of: &[u8]) -> Option<Self> {
        let mut bytes = [0; HEADERS_MAX];
        bytes.get_mut(..of.len())?.copy_from_slice(of);
        Some(Self {
            bytes,
            len: of.len(),
        })
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    fn push(&mut self, more: &[u8]) -> Option<()> {
        let end = self.len + more.len();
        self.bytes.get_mut(self.len..end)?.copy_from_slice(more);
        self.len = end;
        Some(())
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or(&mut [])
    }
}

/// Cuts a large frame into segments or datagrams that are whole in themselves.
#[derive(Debug)]
pub struct Cut {
    template: Head,
    layout: Layout,
    size: usize,
    next: usize,
    payload_len: usize,
    pieces: u16,
}

impl Cut {
    /// Prepares to cut a frame of `len` bytes; `head` holds at least its headers. `None` if the
    /// headers are not what the segmentation says.
    #[must_use]
    pub fn new(head: &[u8], len: usize, segmentation: Segmentation) -> Option<Self> {
        let layout = Layout::find(head, len)?;
        let fits = match segmentation.kind {
            Kind::Tcp4 => layout.protocol == Protocol::TCP && layout.source.is_ipv4(),
            Kind::Tcp6 => layout.protocol == Protocol::TCP && layout.source.is_ipv6(),
            Kind::Udp => layout.protocol == Protocol::UDP,
        };
        if !fits || segmentation.size == 0 {
            return None;
        }
        Some(Self {
            template: Head::copy(head.get(..layout.payload)?)?,
            layout,
            size: usize::from(segmentation.size),
            next: 0,
            payload_len: layout.end - layout.payload,
            pieces: 0,
        })
    }

    /// Bytes of the headers that the frame begins with.
    #[must_use]
    pub fn headers(&self) -> usize {
        self.layout.payload
    }

    /// The next piece: its headers, checksums right, and the place of its payload in `payload`,
    /// the bytes behind the frame's headers.
    pub fn next(&mut self, payload: &[u8]) -> Option<(Head, Range<usize>)> {
        if self.next >= self.payload_len && self.pieces > 0 {
            return None;
        }
        let range = self.next..(self.next + self.size).min(self.payload_len);
        let body = payload.get(range.clone())?;
        let last = range.end == self.payload_len;
        let mut head = self.template;
        self.write_ip(&mut head, body.len());
        self.write_transport(&mut head, body, last);
        self.next = range.end;
        self.pieces = self.pieces.wrapping_add(1);
        Some((head, range))
    }

    fn write_ip(&self, head: &mut Head, body: usize) {
        let transport_len = self.layout.payload - self.layout.transport + body;
        let network = self.layout.network;
        let Some(packet) = head.bytes_mut().get_mut(network..) else {
            return;
        };
        if self.layout.source.is_ipv4() {
            let Ok((header, _)) = ipv4::Header::ref_from_prefix(packet) else {
                return;
            };
            let id = header.id().wrapping_add(self.pieces);
            let total = self.layout.transport - network + transport_len;
            ipv4::rewrite(packet, total, id, ipv4::Fragment::default());
        } else if let Ok((header, _)) = ipv6::Header::mut_from_prefix(packet) {
            let before = network + ipv6::Header::LEN;
            let extensions = self.layout.transport.saturating_sub(before);
            header.set_payload_len(extensions + transport_len);
        }
    }

    fn write_transport(&self, head: &mut Head, body: &[u8], last: bool) {
        let Layout {
            transport,
            protocol,
            source,
            destination,
            ..
        } = self.layout;
        let Some(bytes) = head.bytes_mut().get_mut(transport..) else {
            return;
        };
        let pseudo = ip::pseudo_header(source, destination, protocol, bytes.len() + body.len());
        if protocol == Protocol::TCP {
            let Ok((header, _)) = tcp::Header::mut_from_prefix(bytes) else {
                return;
            };
            let mut flags = header.flags();
            if !last {
                flags = flags.without(tcp::Flags::FIN | tcp::Flags::PSH);
            }
            if self.pieces > 0 {
                flags = flags.without(tcp::Flags::CWR);
            }
            let sent = u32::try_from(self.next).unwrap_or(0);
            header.set(header.sequence().advance(sent), flags, 0);
            let sum = Sum::new()
                .with(bytes)
                .with(body)
                .with_u16(pseudo.folded())
                .finish();
            if let Ok((header, _)) = tcp::Header::mut_from_prefix(bytes) {
                header.set(header.sequence(), flags, sum);
            }
        } else {
            let Ok((header, _)) = udp::Header::mut_from_prefix(bytes) else {
                return;
            };
            header.set(body.len(), 0);
            let sum = Sum::new()
                .with(bytes)
                .with(body)
                .with_u16(pseudo.folded())
                .finish_udp();
            if let Ok((header, _)) = udp::Header::mut_from_prefix(bytes) {
                header.set(body.len(), sum);
            }
        }
    }
}

#[cfg(test)]
mod tests;
