//! Frames made by hand, for guests that do what no stack does.

use std::net::{IpAddr, Ipv4Addr};

use vmnet_wire::checksum::Sum;
use vmnet_wire::ethernet::{self, EtherType, Mac};
use vmnet_wire::ip::{Protocol, pseudo_header};
use vmnet_wire::tcp::{Fields, Flags, Header, Segment};
use vmnet_wire::{arp, icmpv4, ipv4, udp};
use zerocopy::IntoBytes;

/// Between whom a packet goes.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// MAC addresses: sender and receiver.
    pub macs: (Mac, Mac),
    /// IP addresses: sender and receiver.
    pub ips: (Ipv4Addr, Ipv4Addr),
}

/// An Ethernet frame.
#[must_use]
pub fn frame(macs: (Mac, Mac), ether_type: EtherType, payload: &[u8]) -> Vec<u8> {
    [
        ethernet::Header::new(macs.1, macs.0, ether_type).as_bytes(),
        payload,
    ]
    .concat()
}

/// An IPv4 packet in a frame.
#[must_use]
pub fn ip(ends: Ends, protocol: Protocol, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let fields = ipv4::Fields {
        source: ends.ips.0,
        destination: ends.ips.1,
        protocol,
        ttl,
        id: 7,
        dont_fragment: false,
    };
    let header = ipv4::Header::new(&fields, payload.len());
    frame(
        ends.macs,
        EtherType::IPV4,
        &[header.as_bytes(), payload].concat(),
    )
}

/// A UDP datagram in a frame.
#[must_use]
pub fn udp(ends: Ends, ports: (u16, u16), ttl: u8, payload: &[u8]) -> Vec<u8> {
    ip(ends, Protocol::UDP, ttl, &udp_packet(ends, ports, payload))
}

/// A UDP datagram.
#[must_use]
pub fn udp_packet(ends: Ends, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (IpAddr::V4(ends.ips.0), IpAddr::V4(ends.ips.1));
    let sum = pseudo_header(source, destination, Protocol::UDP, 8 + payload.len())
        .with(udp::Header::new(ports.0, ports.1, payload.len(), 0).as_bytes())
        .with(payload)
        .finish_udp();
    let header = udp::Header::new(ports.0, ports.1, payload.len(), sum);
    [header.as_bytes(), payload].concat()
}

/// A TCP segment in a frame. `options` are padded by the caller.
#[must_use]
pub fn tcp(ends: Ends, fields: &Fields, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (IpAddr::V4(ends.ips.0), IpAddr::V4(ends.ips.1));
    let len = Header::LEN + options.len() + payload.len();
    let sum = pseudo_header(source, destination, Protocol::TCP, len)
        .with(Header::new(fields, options.len(), 0).as_bytes())
        .with(options)
        .with(payload)
        .finish();
    let header = Header::new(fields, options.len(), sum);
    ip(
        ends,
        Protocol::TCP,
        64,
        &[header.as_bytes(), options, payload].concat(),
    )
}

/// An echo request in a frame.
#[must_use]
pub fn echo(ends: Ends, ttl: u8, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    ip(
        ends,
        Protocol::ICMPV4,
        ttl,
        &echo_packet(id, sequence, payload),
    )
}

/// An echo request.
#[must_use]
pub fn echo_packet(id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let header = icmpv4::Header::new(icmpv4::ECHO_REQUEST, 0, id, sequence);
    let sum = Sum::new().with(header.as_bytes()).with(payload).finish();
    [header.with_checksum(sum).as_bytes(), payload].concat()
}

/// An IPv4 packet in fragments of at most `mtu` bytes.
#[must_use]
pub fn fragments(
    ends: Ends,
    protocol: Protocol,
    id: u16,
    payload: &[u8],
    mtu: usize,
) -> Vec<Vec<u8>> {
    let step = (mtu - 20) & !7;
    let mut frames = Vec::new();
    for at in (0..payload.len()).step_by(step) {
        let end = (at + step).min(payload.len());
        let mut frame = ip(ends, protocol, 64, &payload[at..end]);
        let place = ipv4::Fragment {
            offset: at,
            more: end < payload.len(),
        };
        ipv4::rewrite(&mut frame[14..], 20 + end - at, id, place);
        frames.push(frame);
    }
    frames
}

/// An ARP request from one who may lie about who it is.
#[must_use]
pub fn arp_request(from: Mac, claimed: (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let request = arp::Packet::request(claimed.0, claimed.1, target);
    frame((from, Mac::BROADCAST), EtherType::ARP, request.as_bytes())
}

/// What a frame carries, if it is TCP over IPv4: the addresses, the segment's fields and its payload.
#[must_use]
pub fn read_tcp(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, Fields, Vec<u8>)> {
    let (header, bytes) = ethernet::Header::read(frame)?;
    if header.ether_type() != EtherType::IPV4 {
        return None;
    }
    let packet = ipv4::Packet::read(bytes, bytes.len()).ok()?;
    if packet.header.protocol() != Protocol::TCP || packet.header.is_fragment() {
        return None;
    }
    let segment = Segment::read(packet.payload)?;
    let payload = packet.payload.get(segment.header_len..)?.to_vec();
    Some((
        packet.header.source(),
        packet.header.destination(),
        segment.fields,
        payload,
    ))
}

/// The same of a frame of which perhaps only the headers are there.
#[must_use]
pub fn read_tcp_head(head: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, Fields, Vec<u8>)> {
    let (header, bytes) = ethernet::Header::read(head)?;
    if header.ether_type() != EtherType::IPV4 {
        return None;
    }
    let packet = ipv4::Packet::read(bytes, usize::MAX).ok()?;
    if packet.header.protocol() != Protocol::TCP {
        return None;
    }
    let segment = Segment::read(packet.payload)?;
    Some((
        packet.header.source(),
        packet.header.destination(),
        segment.fields,
        Vec::new(),
    ))
}

/// What a frame carries, if it is ICMP over IPv4: the sender, type, code, and the rest behind these.
#[must_use]
pub fn read_icmp(frame: &[u8]) -> Option<(Ipv4Addr, u8, u8, Vec<u8>)> {
    let (header, bytes) = ethernet::Header::read(frame)?;
    if header.ether_type() != EtherType::IPV4 {
        return None;
    }
    let packet = ipv4::Packet::read(bytes, bytes.len()).ok()?;
    if packet.header.protocol() != Protocol::ICMPV4 {
        return None;
    }
    let message = packet.payload;
    assert_eq!(Sum::new().with(message).finish(), 0, "ICMP checksum");
    Some((
        packet.header.source(),
        *message.first()?,
        *message.get(1)?,
        message.get(4..)?.to_vec(),
    ))
}

/// What a frame carries, if it is UDP over IPv4: sender, ports, payload.
#[must_use]
pub fn read_udp(frame: &[u8]) -> Option<(Ipv4Addr, (u16, u16), Vec<u8>)> {
    let (header, bytes) = ethernet::Header::read(frame)?;
    if header.ether_type() != EtherType::IPV4 {
        return None;
    }
    let packet = ipv4::Packet::read(bytes, bytes.len()).ok()?;
    if packet.header.protocol() != Protocol::UDP || packet.header.is_fragment() {
        return None;
    }
    let (header, payload) = udp::Header::read(packet.payload)?;
    Some((
        packet.header.source(),
        (header.source_port(), header.destination_port()),
        payload.to_vec(),
    ))
}

/// A DNS question for a name's A record.
#[must_use]
pub fn dns_question(id: u16, name: &str) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a short label"));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The last address in a DNS answer with one A record.
#[must_use]
pub fn dns_address(answer: &[u8]) -> Option<Ipv4Addr> {
    let count = u16::from_be_bytes([*answer.get(6)?, *answer.get(7)?]);
    let tail: [u8; 4] = answer
        .get(answer.len().checked_sub(4)?..)?
        .try_into()
        .ok()?;
    (count > 0).then(|| tail.into())
}

/// Flags in words.
#[must_use]
pub fn flags_in_words(flags: Flags) -> String {
    [
        (Flags::SYN, "SYN"),
        (Flags::FIN, "FIN"),
        (Flags::RST, "RST"),
        (Flags::ACK, "ACK"),
    ]
    .iter()
    .filter(|(flag, _)| flags.has(*flag))
    .map(|(_, name)| *name)
    .collect::<Vec<_>>()
    .join(" ")
}
