//! A frame came from a guest: who takes it? The switch, the gateway, or its NAT.

use core::net::{IpAddr, SocketAddr};
use std::time::Instant;

use vmnet_wire::arp::Packet as ArpPacket;
use vmnet_wire::ethernet::{self, EtherType, Mac};
use vmnet_wire::icmpv4;
use vmnet_wire::ip::Protocol;
use vmnet_wire::offload::Offload;
use vmnet_wire::segment::Fragments;
use vmnet_wire::{ipv4, tcp, udp};
use zerocopy::IntoBytes;

use crate::drop::Drop;
use crate::frame::{Frame, Span};
use crate::gateway::{arp, dhcp, icmp};
use crate::link::{Gateway, Link};
use crate::nat::destination::DNS;
use crate::nat::outward::Outward;
use crate::network::Network;
use crate::outbox::{Action, Outbox, PortId};
use crate::reassembly::Key;
use crate::switch::fdb::Learned;
use crate::switch::port::Role;
use crate::switch::spoof;

impl Network {
    /// A frame came from a guest.
    pub fn receive(&mut self, now: Instant, port: PortId, frame: &Frame<'_>, out: &mut Outbox) {
        if let Some(to) = self.pass(now, port, frame.head) {
            out.push(Action::Forward { port: to });
        } else if let Err(cause) = self.switch(now, port, frame, out) {
            self.drops.count(cause);
        }
    }

    /// To which port alone a frame goes that begins so, if that is plain: it is from an address known behind its own port,
    /// to one known behind another, both may speak to each other, and the gateway has nothing against it. That is
    /// all that [`Network::receive`] would have found; whatever else it may be is for `receive` to find out, and this
    /// answers `None`.
    #[inline]
    pub fn pass(&mut self, now: Instant, port: PortId, head: &[u8]) -> Option<PortId> {
        if self.bridged {
            return None;
        }
        let (header, payload) = ethernet::Header::read(head)?;
        let to = self.fdb.look_up(now, header.destination)?;
        let may = to != port && !self.is_isolated(port) && !self.is_isolated(to);
        let is_plain = may
            && self.gateway.as_ref().is_none_or(|gateway| {
                // What is for the host may be for a service of ours.
                !gateway.is_mac(header.destination)
                    && !gateway.is_mac(header.source)
                    && spoof::is_harmless(gateway, header.ether_type(), payload)
            });
        // Whoever is in the table has been looked at when it came there.
        (is_plain && self.fdb.hear(now, header.source, port)).then_some(to)
    }

    /// Whether a frame that begins so passes like one before it that begins with `passed`, after which nothing has changed: it
    /// is from the same address to the same, and the gateway has nothing against it.
    #[must_use]
    #[inline(always)]
    pub fn passes_too(&self, passed: &[u8], head: &[u8]) -> bool {
        // By far most.
        let origin = spoof::origin(passed);
        origin.is_some() && origin == spoof::origin(head) || self.may_pass_too(passed, head)
    }

    /// The same of a frame that is not IPv4 from the same address.
    #[inline(never)]
    fn may_pass_too(&self, passed: &[u8], head: &[u8]) -> bool {
        let addresses = |head: &[u8]| head.first_chunk::<{ 2 * size_of::<Mac>() }>().copied();
        addresses(passed) == addresses(head)
            && ethernet::Header::read(head).is_some_and(|(header, payload)| {
                self.gateway
                    .as_ref()
                    .is_none_or(|gateway| spoof::is_harmless(gateway, header.ether_type(), payload))
            })
    }

    fn switch(
        &mut self,
        now: Instant,
        port: PortId,
        frame: &Frame<'_>,
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        let (header, payload) = ethernet::Header::read(frame.head).ok_or(Drop::Malformed)?;
        let (source, to) = (header.source, header.destination);
        if !source.is_unicast() {
            return Err(Drop::SourceMac);
        }
        if self.bridged {
            return self.bridge(now, port, header, out);
        }
        let place = self.ports.get(port).ok_or(Drop::NoPort)?;
        let by_trunk = place.role == Role::Trunk;
        let hosts = |mac: Mac| {
            self.gateway
                .is_some_and(|gateway| gateway.host == Some(mac))
        };
        let is_gateways = |mac: Mac| self.gateway.is_some_and(|gateway| gateway.is_mac(mac));
        let from_host = by_trunk && hosts(source);
        if is_gateways(source) && !from_host || place.mac.is_some_and(|mac| mac != source) {
            return Err(Drop::Spoofed);
        }
        match self.fdb.learn(now, source, port) {
            Learned::Known => {}
            Learned::Fresh => {
                let name = self.ports.get(port).and_then(|port| port.name.as_deref());
                self.services.greet(source, name);
                self.follow = true;
            }
            // A member of the bridge that has no rules for a moment sends a guest's own frame back.
            Learned::Moved(before) if by_trunk => {
                self.fdb.learn(now, source, before);
                return Err(Drop::Looped);
            }
            Learned::Moved(before) if self.keeps(source, before, port) => {
                self.fdb.learn(now, source, before);
                return Err(Drop::Spoofed);
            }
            Learned::Moved(before) => {
                // Who waited for room at the port before need not wait at this one.
                let waits = self.ports.get(before).is_some_and(|port| !port.ready);
                if waits && self.ports.get(port).is_some_and(|port| port.ready) {
                    self.nat.unpark();
                }
                self.follow = true;
            }
            Learned::NoRoom => return Err(Drop::MacTableFull),
        }
        let for_host = !by_trunk && hosts(to);
        let for_gateway = for_host || self.gateway.is_some_and(|gateway| gateway.mac == to);
        let from = From {
            port,
            mac: source,
            for_gateway,
            by_trunk,
        };
        let mut taken = false;
        if let Some(gateway) = self.gateway {
            if !by_trunk {
                spoof::refuse(&gateway, header.ether_type(), payload)?;
            }
            if for_gateway || to.is_multicast() || header.ether_type() == EtherType::ARP {
                let ether_type = header.ether_type();
                taken = self.gateway(gateway, now, from, (ether_type, frame, payload), out)?;
            }
        }
        if for_gateway && !taken && self.would_go_round(port, header.ether_type(), payload) {
            return Err(Drop::Isolated);
        }
        if for_host && !taken {
            let trunk = self.trunk.ok_or(Drop::NoPort)?;
            out.push(Action::Forward { port: trunk });
        }
        if for_gateway {
            let host = self.gateway.and_then(|gateway| gateway.host);
            return match host {
                // Pieces were put together here, so that no guest fills the room that the host has for those of all.
                Some(host) if !taken && !for_host && frame.in_pieces => {
                    self.give_in_pieces(host, (source, by_trunk), (header, frame), out)
                }
                Some(_) if !taken && !for_host => Err(Drop::NoService),
                _ => Ok(()),
            };
        }
        let heard_by_all = from_host && !self.has_gone_round(header.ether_type(), payload);
        self.forward(now, (port, heard_by_all), to, taken, out)
    }

    /// Gives the host what came to it in pieces, cut as it was: the guest knows how large a packet its way takes. To the host's
    /// bridge a guest behind that is where it was, so another than it says this.
    fn give_in_pieces(
        &self,
        host: Mac,
        (source, by_trunk): (Mac, bool),
        (header, frame): (&ethernet::Header, &Frame<'_>),
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        let port = self.trunk.ok_or(Drop::NoPort)?;
        let from = if by_trunk { self.mac } else { source };
        let ethernet = ethernet::Header::new(host, from, header.ether_type());
        for (head, range) in Fragments::new(frame.head, self.largest_piece).ok_or(Drop::TooLong)? {
            let head = head.bytes().get(ethernet::Header::LEN..);
            let headers = out.write(&[ethernet.as_bytes(), head.ok_or(Drop::Malformed)?]);
            let body = Span {
                start: range.start,
                len: range.len(),
            };
            // Nobody can tell the checksum of a packet by one piece.
            out.push(Action::Deliver {
                port,
                headers,
                body,
                offload: Offload::NONE,
            });
        }
        Ok(())
    }

    /// An address does not move to an isolated port, or from one, unless its owner put it there: whoever claims it would
    /// hear what the gateway has for another.
    pub(super) fn keeps(&self, mac: Mac, before: PortId, port: PortId) -> bool {
        let is_given = self
            .ports
            .get(port)
            .is_some_and(|port| port.mac == Some(mac));
        !is_given && (self.is_isolated(before) || self.is_isolated(port))
    }

    /// The guest at an isolated port wants an address that is another's: leased, kept for it, or spoken from first. What
    /// a guest has leased is its own, whoever spoke from it.
    pub(super) fn is_taken(&self, now: Instant, from: From, address: IpAddr) -> bool {
        if !self.some_isolated {
            return false;
        }
        let isolated = self.is_isolated(from.port);
        match self.services.is_its_own(address, from.mac) {
            Some(true) => return false,
            Some(false) if isolated => return true,
            Some(false) | None => {}
        }
        let known = self.neighbours.look_up(now, address);
        known.filter(|mac| *mac != from.mac).is_some_and(|mac| {
            let port = self.fdb.look_up(now, mac);
            let elsewhere = port.filter(|port| *port != from.port);
            elsewhere.is_some_and(|port| isolated || self.is_isolated(port))
        })
    }

    /// To the port where `to` is, or to all others if nobody knows or all are meant; never between a port that is
    /// isolated and another. `taken`: the gateway has taken it. `heard_by_all`: it comes from the gateway.
    fn forward(
        &self,
        now: Instant,
        (from, heard_by_all): (PortId, bool),
        to: Mac,
        taken: bool,
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        let is_kept =
            |to: PortId| !heard_by_all && (self.is_isolated(from) || self.is_isolated(to));
        let known = if to.is_multicast() {
            None
        } else {
            self.fdb.look_up(now, to)
        };
        match known {
            // The guest is behind the port that the frame came from: it has it already.
            Some(port) if port == from => {}
            Some(port) if is_kept(port) => return Err(Drop::Isolated),
            Some(port) => out.push(Action::Forward { port }),
            None => {
                let (mut reached, mut kept) = (taken, false);
                for port in self.ports.keys().filter(|port| *port != from) {
                    if is_kept(port) {
                        kept = true;
                    } else {
                        out.push(Action::Forward { port });
                        reached = true;
                    }
                }
                if kept && !reached {
                    return Err(Drop::Isolated);
                }
            }
        }
        Ok(())
    }

    /// A frame that the gateway may have to take, alone or among others. Answers whether it was for the gateway.
    fn gateway(
        &mut self,
        gateway: Gateway,
        now: Instant,
        from: From,
        (ether_type, frame, payload): (EtherType, &Frame<'_>, &[u8]),
        out: &mut Outbox,
    ) -> Result<bool, Drop> {
        match ether_type {
            EtherType::ARP => {
                let Some(packet) = ArpPacket::read(payload) else {
                    // Too short to be one for anybody: it passes, as at any switch. What could be one to others does not.
                    let is_none = payload.len() < ArpPacket::LEN;
                    return if is_none {
                        Ok(false)
                    } else {
                        Err(Drop::Malformed)
                    };
                };
                if self.is_taken(now, from, IpAddr::V4(packet.sender())) {
                    return Err(Drop::Spoofed);
                }
                let mut link = link!(self, gateway, now, out);
                Ok(arp::receive(&mut link, from.mac, packet, from.by_trunk))
            }
            EtherType::IPV4 if gateway.ipv4.is_some() => {
                let len = frame.len.saturating_sub(ethernet::Header::LEN);
                match ipv4::Packet::read(payload, len) {
                    Ok(packet) => {
                        self.receive_ipv4(gateway, now, from, frame, (&packet, payload), out)
                    }
                    // What is not for us is none of our business.
                    Err(_) if !from.for_gateway => Ok(false),
                    Err(ipv4::Malformed::Checksum) => Err(Drop::Checksum),
                    Err(_) => Err(Drop::Malformed),
                }
            }
            EtherType::IPV6 if gateway.ipv6.is_some() => {
                self.receive_ipv6(gateway, now, from, (frame, payload), out)
            }
            _ if from.for_gateway => Err(Drop::Protocol),
            _ => Ok(false),
        }
    }

    fn receive_ipv4(
        &mut self,
        gateway: Gateway,
        now: Instant,
        from: From,
        frame: &Frame<'_>,
        (packet, bytes): (&ipv4::Packet<'_>, &[u8]),
        out: &mut Outbox,
    ) -> Result<bool, Drop> {
        let (source, to) = (packet.header.source(), packet.header.destination());
        let start = ethernet::Header::LEN + packet.header_len;
        let subnet = gateway.ipv4.map(|ipv4| ipv4.subnet());
        let broadcast = to.is_broadcast() || subnet.is_some_and(|net| to == net.broadcast());
        let ours = gateway.is_own(IpAddr::V4(to));
        if (broadcast || ours) && !packet.header.is_fragment() && is_dhcp(packet) {
            let mut link = link!(self, gateway, now, out);
            let request = dhcp::Request {
                ethernet_source: from.mac,
                port: from.own_port(),
                ip_source: source,
                ip_destination: to,
                payload: datagram(packet)?.1,
            };
            if self.services.receive_dhcp(&mut link, &request) {
                self.follow = true;
                return Ok(true);
            }
        }
        if !from.for_gateway {
            return Ok(false);
        }
        if !gateway.is_guest(IpAddr::V4(source)) {
            return Err(Drop::ForeignSource);
        }
        if self.is_taken(now, from, IpAddr::V4(source)) {
            return Err(Drop::Spoofed);
        }
        let place = (from.mac, Some(from.port));
        self.neighbours.learn(now, IpAddr::V4(source), place);
        if packet.header.is_fragment() {
            self.receive_fragment(now, from, packet, bytes, out)?;
            return Ok(true);
        }
        if gateway.host.is_some() && !is_own_service(&gateway, packet) {
            return Ok(false);
        }
        let mut link = link!(self, gateway, now, out);
        let outward = Outward::ipv4(from.mac, bytes, packet, ethernet::Header::LEN, frame);
        match packet.header.protocol() {
            Protocol::UDP if ours && gateway.dns && goes_to(packet, DNS) => {
                if frame.offload.checksum == vmnet_wire::offload::Checksum::Wrong {
                    return Err(Drop::Checksum);
                }
                let (header, message) = datagram(packet)?;
                let guest = SocketAddr::new(IpAddr::V4(source), header.source_port());
                let ends = (guest, IpAddr::V4(to));
                self.services
                    .receive_dns(&mut link, &self.nat.table, from.mac, ends, message);
            }
            Protocol::ICMPV4 if ours => {
                let request = icmpv4::Header::read(packet.payload).ok_or(Drop::Malformed)?;
                if request.kind == icmpv4::UNREACHABLE {
                    self.nat.receive(&mut link, Protocol::ICMPV4, &outward);
                    return Ok(true);
                }
                if request.kind != icmpv4::ECHO_REQUEST {
                    return Err(Drop::NoService);
                }
                let body = Span {
                    start,
                    len: packet.payload_len,
                };
                icmp::echo_reply(&mut link, from.mac, IpAddr::V4(source), request, body);
            }
            protocol => self.nat.receive(&mut link, protocol, &outward),
        }
        Ok(true)
    }

    /// A piece of a datagram: kept until the others are there.
    fn receive_fragment(
        &mut self,
        now: Instant,
        from: From,
        packet: &ipv4::Packet<'_>,
        bytes: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        let header = packet.header;
        let key = Key {
            sender: from.sender(),
            source: IpAddr::V4(header.source()),
            destination: IpAddr::V4(header.destination()),
            protocol: header.protocol(),
            id: u32::from(header.id()),
        };
        let piece = Piece {
            offset: header.fragment_offset(),
            more: header.more_fragments(),
            span: Span {
                start: ethernet::Header::LEN + packet.header_len,
                len: packet.payload_len,
            },
        };
        let Some((buffer, len)) = self.hold(now, key, piece, out)? else {
            return Ok(());
        };
        self.largest_piece += packet.header_len;
        let ethernet = ethernet::Header::new(self.mac, from.mac, EtherType::IPV4);
        let header = bytes.get(..packet.header_len).ok_or(Drop::Malformed)?;
        let headers = out.write(&[ethernet.as_bytes(), header]);
        let total = packet.header_len + len;
        if let Some(whole) = out.bytes_mut(&headers).get_mut(ethernet::Header::LEN..) {
            ipv4::rewrite(whole, total, packet.header.id(), ipv4::Fragment::default());
        }
        out.push(Action::Reassemble {
            port: from.port,
            headers,
            buffer,
            len,
        });
        Ok(())
    }

    /// Keeps a piece; if it was the last that was missing, answers in which buffer the whole is, and its length.
    pub(super) fn hold(
        &mut self,
        now: Instant,
        key: Key,
        piece: Piece,
        out: &mut Outbox,
    ) -> Result<Option<(usize, usize)>, Drop> {
        let Piece { offset, more, span } = piece;
        let place = offset..offset + span.len;
        let kept = self.reassembly.receive(now, key, place, more)?;
        self.largest_piece = kept.largest;
        out.push(Action::Hold {
            buffer: kept.buffer,
            at: offset,
            span,
        });
        Ok(kept.complete.map(|len| (kept.buffer, len)))
    }
}

/// A piece of a packet: where it stands in the whole and in the frame in hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) offset: usize,
    pub(super) more: bool,
    pub(super) span: Span,
}

/// Whence a frame came, and whether it was for the gateway alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct From {
    pub(super) port: PortId,
    pub(super) mac: Mac,
    pub(super) for_gateway: bool,
    /// By the port behind which the host is, if that has the gateway's addresses.
    pub(super) by_trunk: bool,
}

impl From {
    /// Whose pieces those of one packet are: behind the trunk are many guests.
    pub(super) fn sender(&self) -> (PortId, Option<Mac>) {
        (self.port, Some(self.mac).filter(|_| self.by_trunk))
    }
}

/// What is left to us of what goes to a gateway whose addresses the host has.
fn is_own_service(gateway: &Gateway, packet: &ipv4::Packet<'_>) -> bool {
    let protocol = packet.header.protocol();
    gateway.is_own(IpAddr::V4(packet.header.destination()))
        && (gateway.dns && goes_to(packet, DNS) || is_dns_stream(gateway, protocol, packet.payload))
}

/// A segment of a stream to the port of DNS.
pub(super) fn is_dns_stream(gateway: &Gateway, protocol: Protocol, segment: &[u8]) -> bool {
    gateway.dns
        && protocol == Protocol::TCP
        && tcp::Segment::read(segment).is_some_and(|read| read.fields.destination_port == DNS)
}

fn is_dhcp(packet: &ipv4::Packet<'_>) -> bool {
    goes_to(packet, dhcp::SERVER_PORT)
}

fn goes_to(packet: &ipv4::Packet<'_>, port: u16) -> bool {
    packet.header.protocol() == Protocol::UDP
        && udp::Header::read(packet.payload)
            .is_some_and(|(header, _)| header.destination_port() == port)
}

/// A datagram for a service: all of it must be there.
fn datagram<'a>(packet: &ipv4::Packet<'a>) -> Result<(&'a udp::Header, &'a [u8]), Drop> {
    datagram_in(packet.payload)
}

/// A datagram that is to be there as a whole, with its header.
pub(super) fn datagram_in(bytes: &[u8]) -> Result<(&udp::Header, &[u8]), Drop> {
    let (header, payload) = udp::Header::read(bytes).ok_or(Drop::Malformed)?;
    let len = header
        .len()
        .checked_sub(udp::Header::LEN)
        .ok_or(Drop::Malformed)?;
    Ok((header, payload.get(..len).ok_or(Drop::Malformed)?))
}

#[cfg(test)]
mod tests;
