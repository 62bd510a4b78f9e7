//! The guest's end of one TCP connection, on a wire that keeps the order and loses little: large segments, checksums left
//! to others, a window that never closes. It does what a kernel with TSO does, without one.

use std::net::{Ipv4Addr, SocketAddrV4};
use vmnet_virtio::memory::GuestSlice;
use vmnet_wire::ethernet::{self, EtherType, Mac};
use vmnet_wire::ip::{self, Protocol};
use vmnet_wire::ipv4;
use vmnet_wire::offload::{Kind, Offload, Segmentation};
use vmnet_wire::tcp::{Fields, Flags, Header, Segment, Seq};
use zerocopy::IntoBytes;

/// The payload of a segment on a LAN of 1500 bytes.
const MSS: u16 = 1460;
/// The payload of a large one: as many of the small ones as fit.
pub(super) const CHUNK: u32 = 44 * MSS as u32;
/// Bytes with which all headers end.
pub(super) const HEAD: usize = 128;
/// Bytes of all headers of a segment without options.
pub(super) const HEADERS: usize = 54;
/// The shift of our window, and the window: 4 MiB.
const SCALE: u8 = 8;
const WINDOW: u16 = 16_384;
/// The most that is on its way.
const AHEAD: u32 = 2 << 20;

/// One connection.
#[derive(Debug)]
pub(super) struct Flow {
    macs: (Mac, Mac),
    from: SocketAddrV4,
    to: SocketAddrV4,
    stands: bool,
    /// Ours: not acknowledged, and to be sent next.
    unacknowledged: Seq,
    next: Seq,
    duplicates: u8,
    /// What the peer takes, and the shift of its windows.
    window: u32,
    shift: u8,
    /// The peer's: expected next.
    expected: Seq,
    ack_due: bool,
    /// Bytes that came.
    pub(super) received: u64,
}

/// A frame to send: its virtio-net header and its headers; `body` bytes of payload follow.
pub(super) struct Outgoing {
    pub(super) virtio: [u8; Offload::HEADER_LEN],
    pub(super) headers: Vec<u8>,
    pub(super) body: u32,
}

impl Flow {
    /// A connection that is not made yet.
    pub(super) fn new(macs: (Mac, Mac), from: SocketAddrV4, to: SocketAddrV4) -> Self {
        Self {
            macs,
            from,
            to,
            stands: false,
            unacknowledged: Seq(1000),
            next: Seq(1000),
            duplicates: 0,
            window: 0,
            shift: 0,
            expected: Seq(0),
            ack_due: false,
            received: 0,
        }
    }

    /// Our port.
    pub(super) fn port(&self) -> u16 {
        self.from.port()
    }

    /// The SYN.
    pub(super) fn syn(&self) -> Outgoing {
        let [mss_high, mss_low] = MSS.to_be_bytes();
        let options = [2, 4, mss_high, mss_low, 1, 3, 3, SCALE];
        self.segment(Flags::SYN, self.next, &options, 0)
    }

    /// The next large segment, if the peer takes it.
    pub(super) fn bytes(&mut self) -> Option<Outgoing> {
        let on_the_way = self.next - self.unacknowledged;
        let allowed = self.window.min(AHEAD).saturating_sub(on_the_way);
        let body = allowed.min(CHUNK) / u32::from(MSS) * u32::from(MSS);
        // Nothing small while more may fit soon (RFC 9293 §3.8.6.2.1).
        if !self.stands || body == 0 || body < CHUNK && on_the_way > 0 {
            return None;
        }
        let made = self.segment(Flags::ACK, self.next, &[], body);
        self.next = self.next.advance(body);
        self.ack_due = false;
        Some(made)
    }

    /// The acknowledgement that is due.
    pub(super) fn acknowledgement(&mut self) -> Option<Outgoing> {
        if !std::mem::take(&mut self.ack_due) {
            return None;
        }
        Some(self.segment(Flags::ACK, self.next, &[], 0))
    }

    /// A segment of the peer.
    pub(super) fn receive(&mut self, segment: &Segment<'_>, payload: usize) {
        let fields = &segment.fields;
        if fields.flags.has(Flags::SYN) {
            self.shift = segment.syn_options().window_scale.unwrap_or(0);
            self.expected = fields.sequence.advance(1);
            self.next = fields.acknowledgement;
            (self.stands, self.ack_due) = (true, true);
        }
        if self.unacknowledged.before(fields.acknowledgement) {
            self.unacknowledged = fields.acknowledgement;
            self.duplicates = 0;
            if self.next.before(self.unacknowledged) {
                self.next = self.unacknowledged;
            }
        } else if payload == 0 && self.next != self.unacknowledged {
            self.duplicates += 1;
            if self.duplicates == 3 {
                self.next = self.unacknowledged;
            }
        }
        let shift = if fields.flags.has(Flags::SYN) {
            0
        } else {
            self.shift
        };
        self.window = u32::from(fields.window) << shift;
        if payload > 0 {
            self.ack_due = true;
            if fields.sequence == self.expected {
                self.expected = self.expected.advance(u32::try_from(payload).unwrap_or(0));
                self.received += payload as u64;
            }
        }
    }

    /// Bytes of ours that the peer has.
    pub(super) fn acknowledged(&self) -> u32 {
        self.unacknowledged - Seq(1001)
    }

    fn segment(&self, flags: Flags, sequence: Seq, options: &[u8], body: u32) -> Outgoing {
        let len = Header::LEN + options.len() + body as usize;
        let ethernet = ethernet::Header::new(self.macs.1, self.macs.0, EtherType::IPV4);
        let packet = ipv4::Fields {
            source: *self.from.ip(),
            destination: *self.to.ip(),
            protocol: Protocol::TCP,
            ttl: 64,
            id: 0,
            dont_fragment: true,
        };
        let fields = Fields {
            source_port: self.from.port(),
            destination_port: self.to.port(),
            sequence,
            acknowledgement: self.expected,
            flags,
            window: WINDOW,
        };
        let ends: [Ipv4Addr; 2] = [*self.from.ip(), *self.to.ip()];
        let pseudo = ip::pseudo_header(ends[0].into(), ends[1].into(), Protocol::TCP, len);
        let header = Header::new(&fields, options.len(), pseudo.folded());
        let headers = [
            ethernet.as_bytes(),
            ipv4::Header::new(&packet, len).as_bytes(),
            header.as_bytes(),
            options,
        ]
        .concat();
        let offload = Offload {
            checksum: Offload::partial(34, Header::CHECKSUM_OFFSET),
            segmentation: (body > u32::from(MSS)).then_some(Segmentation {
                kind: Kind::Tcp4,
                size: MSS,
                ecn: false,
            }),
        };
        Outgoing {
            virtio: offload.write(headers.len()),
            headers,
            body,
        }
    }
}

/// Finds the segment in a frame of `len` bytes: the port that it is for, and how much payload it has. Only its `head` is
/// copied.
pub(super) fn read<'h>(
    parts: &[GuestSlice<'_>],
    len: usize,
    head: &'h mut [u8; HEAD],
) -> Option<(u16, Segment<'h>, usize)> {
    let mut filled = 0;
    for part in parts {
        filled += part.copy_to(&mut head[filled..]);
    }
    let (ethernet, rest) = ethernet::Header::read(&head[..filled])?;
    if ethernet.ether_type() != EtherType::IPV4 {
        return None;
    }
    let packet = ipv4::Packet::read(rest, len.checked_sub(ethernet::Header::LEN)?).ok()?;
    if packet.header.protocol() != Protocol::TCP {
        return None;
    }
    let segment = Segment::read(packet.payload)?;
    let payload = packet.payload_len.checked_sub(segment.header_len)?;
    Some((segment.fields.destination_port, segment, payload))
}
