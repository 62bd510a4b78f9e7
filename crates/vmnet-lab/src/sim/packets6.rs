//! IPv6 packets made by hand.

use std::net::{IpAddr, Ipv6Addr};

use vmnet_wire::ethernet::{self, EtherType, Mac};
use vmnet_wire::icmpv6::{self, Header};
use vmnet_wire::ip::{Protocol, pseudo_header};
use vmnet_wire::ndp::{self, LinkLayer, Neighbour};
use vmnet_wire::{ipv6, tcp, udp};
use zerocopy::IntoBytes;

use crate::sim::packets::frame;

/// Between whom a packet goes.
#[derive(Clone, Copy, Debug)]
pub struct Ends6 {
    /// MAC addresses: sender and receiver.
    pub macs: (Mac, Mac),
    /// IPv6 addresses: sender and receiver.
    pub ips: (Ipv6Addr, Ipv6Addr),
}

impl Ends6 {
    /// To a group.
    #[must_use]
    pub fn to_group(mac: Mac, source: Ipv6Addr, group: Ipv6Addr) -> Self {
        Self {
            macs: (mac, ndp::group_mac(group)),
            ips: (source, group),
        }
    }
}

/// What a packet was found to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Who sent it.
    pub source: Ipv6Addr,
    /// To whom.
    pub destination: Ipv6Addr,
    /// What it carries.
    pub protocol: Protocol,
    /// Hops left.
    pub hop_limit: u8,
    /// What follows its headers.
    pub payload: Vec<u8>,
}

/// An address.
///
/// # Panics
/// If it is none.
#[must_use]
pub fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("an IPv6 address")
}

/// An IPv6 packet in a frame. `next` is what `payload` begins with.
#[must_use]
pub fn ip(ends: Ends6, next: Protocol, hops: u8, payload: &[u8]) -> Vec<u8> {
    let header = ipv6::Header::new(ends.ips.0, ends.ips.1, next, hops, payload.len());
    frame(
        ends.macs,
        EtherType::IPV6,
        &[header.as_bytes(), payload].concat(),
    )
}

/// A message of ICMPv6 with its checksum: `message` has none.
#[must_use]
pub fn summed(ends: Ends6, mut message: Vec<u8>) -> Vec<u8> {
    message[2..4].fill(0);
    let sum = icmpv6::checksum(ends.ips.0, ends.ips.1, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A message of ICMPv6 in a frame.
#[must_use]
pub fn icmp(ends: Ends6, hops: u8, message: Vec<u8>) -> Vec<u8> {
    ip(ends, Protocol::ICMPV6, hops, &summed(ends, message))
}

/// An echo request.
#[must_use]
pub fn echo(ends: Ends6, hops: u8, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let header = Header::echo(icmpv6::ECHO_REQUEST, id, sequence);
    icmp(ends, hops, [header.as_bytes(), payload].concat())
}

/// A UDP datagram.
#[must_use]
pub fn datagram(ends: Ends6, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (IpAddr::V6(ends.ips.0), IpAddr::V6(ends.ips.1));
    let sum = pseudo_header(source, destination, Protocol::UDP, 8 + payload.len())
        .with(udp::Header::new(ports.0, ports.1, payload.len(), 0).as_bytes())
        .with(payload)
        .finish_udp();
    let header = udp::Header::new(ports.0, ports.1, payload.len(), sum);
    [header.as_bytes(), payload].concat()
}

/// The same in a frame.
#[must_use]
pub fn udp(ends: Ends6, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    ip(ends, Protocol::UDP, 64, &datagram(ends, ports, payload))
}

/// A TCP segment in a frame.
#[must_use]
pub fn tcp(ends: Ends6, fields: &tcp::Fields, payload: &[u8]) -> Vec<u8> {
    let (source, destination) = (IpAddr::V6(ends.ips.0), IpAddr::V6(ends.ips.1));
    let len = tcp::Header::LEN + payload.len();
    let sum = pseudo_header(source, destination, Protocol::TCP, len)
        .with(tcp::Header::new(fields, 0, 0).as_bytes())
        .with(payload)
        .finish();
    let header = tcp::Header::new(fields, 0, sum);
    let segment = [header.as_bytes(), payload].concat();
    ip(ends, Protocol::TCP, 64, &segment)
}

/// A neighbour solicitation of one who has an address.
#[must_use]
pub fn solicitation(mac: Mac, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let ends = Ends6::to_group(mac, source, ndp::solicited_node(target));
    let message = Neighbour::solicitation(target, mac);
    icmp(ends, ndp::HOP_LIMIT, message.as_bytes().to_vec())
}

/// The probe of one who wants an address (RFC 4862 §5.4.2).
#[must_use]
pub fn probe(mac: Mac, target: Ipv6Addr) -> Vec<u8> {
    let group = ndp::solicited_node(target);
    let ends = Ends6::to_group(mac, Ipv6Addr::UNSPECIFIED, group);
    let message = Neighbour::solicitation(target, mac);
    let without_option = message.as_bytes()[..24].to_vec();
    icmp(ends, ndp::HOP_LIMIT, without_option)
}

/// A neighbour advertisement to all.
#[must_use]
pub fn advertisement(mac: Mac, target: Ipv6Addr, named: Mac) -> Vec<u8> {
    let ends = Ends6::to_group(mac, target, v6("ff02::1"));
    let message = Neighbour::advertisement(ndp::OVERRIDE, target, named);
    icmp(ends, ndp::HOP_LIMIT, message.as_bytes().to_vec())
}

/// A router solicitation; without an option from who has no address.
#[must_use]
pub fn router_solicitation(mac: Mac, source: Ipv6Addr) -> Vec<u8> {
    let ends = Ends6::to_group(mac, source, v6("ff02::2"));
    let header = Header::new(icmpv6::ROUTER_SOLICITATION, 0, 0);
    let mut message = header.as_bytes().to_vec();
    if !source.is_unspecified() {
        message.extend(LinkLayer::source(mac).as_bytes());
    }
    icmp(ends, ndp::HOP_LIMIT, message)
}

/// A packet in fragments of at most `mtu` bytes.
#[must_use]
pub fn fragments(
    ends: Ends6,
    protocol: Protocol,
    id: u32,
    payload: &[u8],
    mtu: usize,
) -> Vec<Vec<u8>> {
    let step = (mtu - 48) & !7;
    let piece = |at: usize| {
        let end = (at + step).min(payload.len());
        let place = ipv6::FragmentHeader::new(protocol, id, at, end < payload.len());
        let piece = [place.as_bytes(), &payload[at..end]].concat();
        ip(ends, Protocol::FRAGMENT, 64, &piece)
    };
    (0..payload.len()).step_by(step).map(piece).collect()
}

/// What a frame carries, if it is a whole IPv6 packet.
#[must_use]
pub fn read(frame: &[u8]) -> Option<Seen> {
    let (header, bytes) = ethernet::Header::read(frame)?;
    if header.ether_type() != EtherType::IPV6 {
        return None;
    }
    let packet = ipv6::Packet::read(bytes, bytes.len()).ok()?;
    Some(Seen {
        source: packet.header.source(),
        destination: packet.header.destination(),
        protocol: packet.protocol,
        hop_limit: packet.header.hop_limit,
        payload: packet.payload.to_vec(),
    })
}

/// Type and code of an ICMPv6 message in a frame, and what it says.
///
/// # Panics
/// If its checksum is wrong.
#[must_use]
pub fn read_icmp(frame: &[u8]) -> Option<(u8, u8, Seen)> {
    let seen = read(frame).filter(|seen| seen.protocol == Protocol::ICMPV6)?;
    let sum = icmpv6::checksum(seen.source, seen.destination, &seen.payload);
    assert_eq!(sum, 0, "ICMPv6 checksum");
    Some((*seen.payload.first()?, *seen.payload.get(1)?, seen))
}

/// What a frame carries, if it is UDP: the sender, the ports, the payload.
#[must_use]
pub fn read_udp(frame: &[u8]) -> Option<(Ipv6Addr, (u16, u16), Vec<u8>)> {
    let seen = read(frame).filter(|seen| seen.protocol == Protocol::UDP)?;
    let (header, payload) = udp::Header::read(&seen.payload)?;
    let ports = (header.source_port(), header.destination_port());
    Some((seen.source, ports, payload.to_vec()))
}
