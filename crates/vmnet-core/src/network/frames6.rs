//! An IPv6 packet came from a guest that the gateway may have to take.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use vmnet_wire::ethernet::{self, EtherType};
use vmnet_wire::icmpv6;
use vmnet_wire::ip::{self, Protocol};
use vmnet_wire::ipv6::{self, Packet, Told};
use vmnet_wire::offload::Checksum;
use vmnet_wire::{ndp, udp};
use zerocopy::{FromBytes, IntoBytes};

use crate::drop::Drop;
use crate::frame::{Frame, Span};
use crate::gateway::{dhcp6, icmp, icmp6};
use crate::link::{Gateway, Link};
use crate::nat::destination::DNS;
use crate::nat::outward::Outward;
use crate::network::Network;
use crate::network::frames::{From, Piece, datagram_in, is_dns_stream};
use crate::outbox::{Action, Outbox, PortId};
use crate::reassembly::Key;

/// Every node of the link, and every router (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

impl Network {
    /// Answers whether it was for the gateway, alone or among others.
    pub(super) fn receive_ipv6(
        &mut self,
        gateway: Gateway,
        now: Instant,
        from: From,
        (frame, bytes): (&Frame<'_>, &[u8]),
        out: &mut Outbox,
    ) -> Result<bool, Drop> {
        let len = frame.len.saturating_sub(ethernet::Header::LEN);
        let packet = match Packet::read(bytes, len) {
            Ok(packet) => packet,
            // What is not for us is none of our business.
            Err(_) if !from.for_gateway => return Ok(false),
            Err(_) => return Err(Drop::Malformed),
        };
        let (source, to) = (packet.header.source(), packet.header.destination());
        if !from.for_gateway && !listens_to(&gateway, to) && !is_ndp(&packet) {
            return Ok(false);
        }
        if let Some(problem) = packet.problem {
            self.tell_problem(gateway, now, (from, source), bytes, problem, out);
            return from.refused(Drop::Malformed);
        }
        if is_ndp(&packet) {
            return self.receive_ndp(gateway, now, from, frame, &packet, out);
        }
        let guest = IpAddr::V6(source);
        if !gateway.is_guest(guest) {
            return from.refused(Drop::ForeignSource);
        }
        if self.is_taken(now, from, guest) {
            return Err(Drop::Spoofed);
        }
        let place = (from.mac, Some(from.port));
        self.neighbours.learn(now, guest, place);
        // What the host hears among others is its own to put together.
        let is_ours = gateway.host.is_none() || from.for_gateway;
        if let Some(fragment) = packet.piece().filter(|_| is_ours) {
            self.receive_piece(now, from, &packet, fragment, out)?;
            return Ok(true);
        }
        if self.serve_ipv6(gateway, now, from, (frame, &packet), out)? {
            return Ok(true);
        }
        if to.is_multicast() || gateway.host.is_some() && !asks_dns(&gateway, &packet) {
            return Ok(false);
        }
        let outward = Outward::ipv6(from.mac, bytes, &packet, gateway.mtu, frame);
        let mut link = link!(self, gateway, now, out);
        self.nat.receive(&mut link, packet.protocol, &outward);
        Ok(true)
    }

    /// The gateway's services. Answers whether it was for one of them.
    fn serve_ipv6(
        &mut self,
        gateway: Gateway,
        now: Instant,
        from: From,
        (frame, packet): (&Frame<'_>, &Packet<'_>),
        out: &mut Outbox,
    ) -> Result<bool, Drop> {
        let (source, to) = (packet.header.source(), packet.header.destination());
        let ours = gateway.is_own(IpAddr::V6(to));
        if !ours && !to.is_multicast() {
            return Ok(false);
        }
        let port = match packet.protocol {
            Protocol::UDP => udp::Header::read(packet.payload).map(|(h, _)| h.destination_port()),
            _ => None,
        };
        let mut link = link!(self, gateway, now, out);
        match (packet.protocol, port) {
            (Protocol::UDP, Some(DNS)) if ours && gateway.dns => {
                check(packet, frame.offload.checksum)?;
                let (header, message) = datagram_in(packet.payload)?;
                let guest = SocketAddr::new(IpAddr::V6(source), header.source_port());
                let ends = (guest, IpAddr::V6(to));
                self.services
                    .receive_dns(&mut link, &self.nat.table, from.mac, ends, message);
                Ok(true)
            }
            (Protocol::UDP, Some(dhcp6::SERVER_PORT)) if ours || to == dhcp6::ALL_SERVERS => {
                check(packet, frame.offload.checksum)?;
                let (_, payload) = datagram_in(packet.payload)?;
                let request = dhcp6::Request {
                    ethernet_source: from.mac,
                    port: from.own_port(),
                    source,
                    to_one: ours,
                    payload,
                };
                let taken = self.services.receive_dhcp6(&mut link, &request);
                self.follow |= taken;
                Ok(taken)
            }
            (Protocol::ICMPV6, _) if gateway.host.is_some() => Ok(false),
            (Protocol::ICMPV6, _) if ours || to == ALL_NODES || to == ALL_ROUTERS => {
                let header = icmpv6::Header::read(packet.payload).ok_or(Drop::Malformed)?;
                if ours && icmpv6::is_error(header.kind) {
                    // About what was sent from our address, which the NAT does too.
                    return Ok(false);
                }
                if header.kind != icmpv6::ECHO_REQUEST {
                    // Reports of who listens to what.
                    return if ours {
                        Err(Drop::NoService)
                    } else {
                        Ok(false)
                    };
                }
                if frame.offload.checksum == Checksum::Wrong {
                    return Err(Drop::Checksum);
                }
                let message = Span {
                    start: ethernet::Header::LEN + packet.header_len,
                    len: packet.payload_len,
                };
                let request = icmp6::Request {
                    header,
                    to,
                    message,
                    checksum: frame.offload.checksum,
                };
                icmp6::echo_reply(&mut link, from.mac, source, &request);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn receive_ndp(
        &mut self,
        gateway: Gateway,
        now: Instant,
        from: From,
        frame: &Frame<'_>,
        packet: &Packet<'_>,
        out: &mut Outbox,
    ) -> Result<bool, Drop> {
        let source = packet.header.source();
        let ours = packet.header.hop_limit == ndp::HOP_LIMIT && packet.fragment.is_none();
        let message = ndp::Message::read(packet.payload).filter(|_| ours);
        let message = message.ok_or(Drop::NeighbourDiscovery)?;
        check(packet, frame.offload.checksum)?;
        if !source.is_unspecified() {
            let guest = IpAddr::V6(source);
            if !gateway.is_guest(guest) {
                return from.refused(Drop::ForeignSource);
            }
            if self.is_taken(now, from, guest) {
                return Err(Drop::Spoofed);
            }
        }
        let claimed = match message {
            ndp::Message::NeighbourAdvertisement { target, .. } => Some(target),
            // Who asks whether anybody has an address is about to take it (RFC 4862 §5.4).
            ndp::Message::NeighbourSolicitation { target, .. } if source.is_unspecified() => {
                Some(target)
            }
            _ => None,
        };
        if claimed.is_some_and(|target| self.is_taken(now, from, IpAddr::V6(target))) {
            return Err(Drop::Spoofed);
        }
        let mut link = link!(self, gateway, now, out);
        let ends = (source, packet.header.destination());
        let taken =
            crate::gateway::ndp::receive(&mut link, (from.mac, from.by_trunk), ends, &message)?;
        if let (ndp::Message::RouterSolicitation { .. }, Some(advertiser)) =
            (message, &mut self.advertiser)
        {
            advertiser.asked(&mut link, from.mac, source);
        }
        if gateway.host.is_some() {
            // What it asked for is for the host to hear.
            let answer = matches!(message, ndp::Message::NeighbourAdvertisement { .. });
            return Ok(taken && !answer);
        }
        Ok(taken || from.for_gateway)
    }

    /// Tells a guest what of its packet must not be passed over (RFC 4443 §3.4).
    fn tell_problem(
        &mut self,
        gateway: Gateway,
        now: Instant,
        (from, source): (From, Ipv6Addr),
        packet: &[u8],
        problem: ipv6::Problem,
        out: &mut Outbox,
    ) {
        let guest = IpAddr::V6(source);
        let told = match problem.told {
            Told::Nobody => false,
            Told::IfToOne => from.for_gateway,
            Told::Always => true,
        };
        let (true, Some(own)) = (told && gateway.is_guest(guest), gateway.facing(guest)) else {
            return;
        };
        let error = icmp::Error {
            from: own,
            kind: icmpv6::PARAMETER_PROBLEM,
            code: problem.code,
            word: problem.at,
            packet,
        };
        let mut link = link!(self, gateway, now, out);
        icmp::send_error(&mut link, &mut self.nat.budgets, from.mac, guest, &error);
    }

    /// A piece of a packet: kept until the others are there (RFC 8200 §4.5).
    fn receive_piece(
        &mut self,
        now: Instant,
        from: From,
        packet: &Packet<'_>,
        fragment: ipv6::Fragment,
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        let behind = fragment.at + ipv6::FragmentHeader::LEN;
        let end = packet.header_len + packet.payload_len;
        let key = Key {
            sender: from.sender(),
            source: IpAddr::V6(packet.header.source()),
            destination: IpAddr::V6(packet.header.destination()),
            protocol: fragment.next_header,
            id: fragment.id,
        };
        let piece = Piece {
            offset: fragment.offset,
            more: fragment.more,
            span: Span {
                start: ethernet::Header::LEN + behind,
                len: end.checked_sub(behind).ok_or(Drop::Malformed)?,
            },
        };
        let Some((buffer, len)) = self.hold(now, key, piece, out)? else {
            return Ok(());
        };
        self.largest_piece += ipv6::Header::LEN + ipv6::FragmentHeader::LEN;
        // What stood before the fragment header was looked at, and is for nobody behind us.
        let ethernet = ethernet::Header::new(self.mac, from.mac, EtherType::IPV6);
        let mut header = *packet.header;
        header.set_next_header(fragment.next_header);
        header.set_payload_len(len);
        let headers = out.write(&[ethernet.as_bytes(), header.as_bytes()]);
        out.push(Action::Reassemble {
            port: from.port,
            headers,
            buffer,
            len,
        });
        Ok(())
    }
}

impl From {
    /// The port that is the guest's own: behind the trunk are all guests that the kernel carries.
    pub(super) fn own_port(self) -> Option<PortId> {
        (!self.by_trunk).then_some(self.port)
    }

    /// The gateway does not take a packet. Others of a group may.
    fn refused(self, cause: Drop) -> Result<bool, Drop> {
        if self.for_gateway {
            Err(cause)
        } else {
            Ok(false)
        }
    }
}

/// A segment of a stream to the gateway's resolver.
fn asks_dns(gateway: &Gateway, packet: &Packet<'_>) -> bool {
    packet.fragment.is_none()
        && gateway.is_own(IpAddr::V6(packet.header.destination()))
        && is_dns_stream(gateway, packet.protocol, packet.payload)
}

/// The gateway is meant, as one of a group or alone.
fn listens_to(gateway: &Gateway, to: Ipv6Addr) -> bool {
    let nodes = || gateway.v6().into_iter().chain(gateway.link_local());
    to == ALL_NODES
        || to == ALL_ROUTERS
        || to == dhcp6::ALL_SERVERS
        || nodes().any(|own| ndp::solicited_node(own) == to)
}

/// A later fragment begins anywhere in its message.
fn is_ndp(packet: &Packet<'_>) -> bool {
    packet.protocol == Protocol::ICMPV6
        && packet.fragment.is_none_or(|fragment| fragment.offset == 0)
        && packet
            .payload
            .first()
            .is_some_and(|kind| ndp::is_ndp(*kind))
}

/// The checksum of a whole message for the gateway itself. What came to many was not looked at before.
fn check(packet: &Packet<'_>, checksum: Checksum) -> Result<(), Drop> {
    let right = match checksum {
        Checksum::Valid | Checksum::Partial { .. } => true,
        Checksum::Wrong => false,
        Checksum::Unverified => {
            let (source, to) = (packet.header.source(), packet.header.destination());
            let len = packet.payload.len();
            let zero = packet.protocol == Protocol::UDP
                && udp::Header::ref_from_prefix(packet.payload)
                    .is_ok_and(|(header, _)| header.checksum() == 0);
            let sum = ip::pseudo_header(IpAddr::V6(source), IpAddr::V6(to), packet.protocol, len);
            !zero && sum.with(packet.payload).finish() == 0
        }
    };
    if right && packet.payload.len() == packet.payload_len {
        Ok(())
    } else {
        Err(Drop::Checksum)
    }
}
