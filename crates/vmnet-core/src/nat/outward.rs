//! Packets from guests to the outside.

use core::net::{IpAddr, SocketAddr};

use vmnet_wire::ethernet::{self, Mac};
use vmnet_wire::ip::Protocol;
use vmnet_wire::offload::{Checksum, Kind, Segmentation};
use vmnet_wire::tcp::{Flags, Segment, Seq};
use vmnet_wire::{icmpv4, icmpv6, ipv4, ipv6, udp};

use crate::drop::Drop;
use crate::frame::{Frame, Span};
use crate::gateway::icmp::{self, Cause};
use crate::link::{Gateway, Link};
use crate::nat::Nat;
use crate::nat::destination::{DNS, resolve};
use crate::nat::echo::{self, Echo};
use crate::nat::flow::Key;
use crate::nat::table::Flow;
use crate::nat::tcp::{Arrival, Ends, Fate, Goal, Tcp, refuse};
use crate::nat::udp::{IDLE, Mapping};
use crate::outbox::{Action, Datagram, SocketId, Target};

/// A packet of a guest, found in the frame in hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outward<'a> {
    pub(crate) mac: Mac,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ttl: u8,
    pub(crate) dont_fragment: bool,
    /// The packet as far as it is known, from its IP header on.
    pub(crate) packet: &'a [u8],
    /// What follows the IP header, as far as it is known.
    pub(crate) head: &'a [u8],
    /// The same as a place in the frame.
    pub(crate) body: Span,
    /// Bytes of payload that follow in other frames.
    following: usize,
    pub(crate) segmentation: Option<Segmentation>,
    pub(crate) checksum: Checksum,
}

impl<'a> Outward<'a> {
    /// An IPv4 packet in a frame whose IP header starts `start` bytes in.
    pub(crate) fn ipv4(
        mac: Mac,
        bytes: &'a [u8],
        packet: &ipv4::Packet<'a>,
        start: usize,
        frame: &Frame<'_>,
    ) -> Self {
        Self {
            mac,
            source: IpAddr::V4(packet.header.source()),
            destination: IpAddr::V4(packet.header.destination()),
            ttl: packet.header.ttl,
            dont_fragment: packet.header.dont_fragment(),
            packet: bytes,
            head: packet.payload,
            body: Span {
                start: start + packet.header_len,
                len: packet.payload_len,
            },
            following: frame.following,
            segmentation: frame.offload.segmentation,
            checksum: frame.offload.checksum,
        }
    }

    /// An IPv6 packet in a frame of a network with this MTU. Nobody on the way may cut it, unless it came in pieces.
    pub(crate) fn ipv6(
        mac: Mac,
        bytes: &'a [u8],
        packet: &ipv6::Packet<'a>,
        mtu: u16,
        frame: &Frame<'_>,
    ) -> Self {
        let offload = frame.offload;
        let len = packet.header_len + packet.payload_len;
        Self {
            mac,
            source: IpAddr::V6(packet.header.source()),
            destination: IpAddr::V6(packet.header.destination()),
            ttl: packet.header.hop_limit,
            dont_fragment: !frame.in_pieces
                && (len <= usize::from(mtu) || offload.segmentation.is_some()),
            packet: bytes,
            head: packet.payload,
            body: Span {
                start: ethernet::Header::LEN + packet.header_len,
                len: packet.payload_len,
            },
            following: frame.following,
            segmentation: offload.segmentation,
            checksum: offload.checksum,
        }
    }

    /// Hops that are left to it behind this one.
    fn hops_left(&self) -> u8 {
        self.ttl.saturating_sub(1).max(1)
    }

    fn behind(&self, header: usize) -> Option<Span> {
        let len = self.body.len.checked_sub(header)?;
        Some(Span {
            start: self.body.start + header,
            len,
        })
    }
}

impl Nat {
    /// A packet wants to leave.
    pub(crate) fn receive(
        &mut self,
        link: &mut Link<'_>,
        protocol: Protocol,
        packet: &Outward<'_>,
    ) {
        if packet.checksum == Checksum::Wrong {
            return link.drop(Drop::Checksum);
        }
        let ours = link.gateway.is_own(packet.destination);
        match protocol {
            // Nobody outside can answer an address of the link alone (RFC 4291 §2.5.6).
            _ if is_of_link(packet.source) && !ours => {
                link.drop(Drop::ForeignSource);
                self.report(link, packet, Cause::BeyondScope);
            }
            // Nothing is forwarded, so nothing expires either.
            _ if !link.gateway.has_way_out(packet.source) && !ours => {
                self.refuse_way(link, protocol, packet);
            }
            Protocol::TCP => self.receive_tcp(link, packet),
            // Only what we forward expires: the gateway's services are at the end of the way (RFC 1812 §5.3.1).
            _ if packet.ttl <= 1 && !ours => self.expired(link, packet),
            Protocol::UDP => self.receive_udp(link, packet),
            Protocol::ICMPV4 if packet.source.is_ipv4() => self.receive_echo(link, packet),
            Protocol::ICMPV6 if packet.source.is_ipv6() => self.receive_echo(link, packet),
            _ => link.drop(Drop::Protocol),
        }
    }

    /// There is no way out. Of the codes for that RFC 1812 §5.2.7.1 has "administratively prohibited" for a network that
    /// is to have none; and systems give up at once when they hear it, by TCP as by UDP, while they take "network
    /// unreachable" for something that passes (RFC 1122 §4.2.3.9). The same code is RFC 4443's.
    fn refuse_way(&mut self, link: &mut Link<'_>, protocol: Protocol, packet: &Outward<'_>) {
        let to = SocketAddr::new(packet.destination, 1);
        let way = resolve(to, protocol, &link.gateway, &self.host, &self.forwards);
        let cause = way.err().unwrap_or(Drop::NoWayOut);
        link.drop(cause);
        if cause == Drop::NoWayOut {
            self.report(link, packet, Cause::Prohibited);
        }
    }

    fn expired(&mut self, link: &mut Link<'_>, packet: &Outward<'_>) {
        link.drop(Drop::Expired);
        self.report(link, packet, Cause::Expired);
    }

    /// Tells a guest by ICMP why its packet goes nowhere.
    fn report(&mut self, link: &mut Link<'_>, packet: &Outward<'_>, cause: Cause) {
        let (mac, guest) = (packet.mac, packet.source);
        icmp::report(link, &mut self.budgets, mac, guest, cause, packet.packet);
    }

    fn receive_tcp(&mut self, link: &mut Link<'_>, packet: &Outward<'_>) {
        let Some(segment) = Segment::read(packet.head) else {
            return link.drop(Drop::Malformed);
        };
        let Some(own) = packet.behind(segment.header_len) else {
            return link.drop(Drop::Malformed);
        };
        let body = Span {
            len: own.len.saturating_add(packet.following),
            ..own
        };
        let mac = packet.mac;
        let arrival = Arrival {
            mac,
            segment,
            body,
            several: packet.following > 0,
        };
        let guest = SocketAddr::new(packet.source, segment.fields.source_port);
        let peer = SocketAddr::new(packet.destination, segment.fields.destination_port);
        let key = Key::new(Protocol::TCP, guest, peer);
        if let Some(id) = self.table.look_up(&key) {
            self.continue_tcp(link, id, &arrival);
            // What is not there any more may be opened again by the very SYN that ended it.
            if self.table.look_up(&key).is_some() || !is_opening(segment.fields.flags) {
                return;
            }
        }
        if !is_opening(segment.fields.flags) {
            return refuse(link, guest, peer, &arrival);
        }
        self.open_tcp(
            link,
            packet,
            key,
            Ends {
                guest,
                peer,
                mac: packet.mac,
            },
            &segment,
        );
    }

    fn continue_tcp(&mut self, link: &mut Link<'_>, id: SocketId, arrival: &Arrival<'_>) {
        let Some(Flow::Tcp(flow)) = self.table.get_mut(id) else {
            return;
        };
        if flow.receive(link, &mut self.agenda, arrival) == Fate::Ended {
            self.table.remove(id);
        }
    }

    fn open_tcp(
        &mut self,
        link: &mut Link<'_>,
        packet: &Outward<'_>,
        key: Key,
        ends: Ends,
        syn: &Segment<'_>,
    ) {
        let goal = if is_dns(ends.peer, &link.gateway) {
            Goal {
                target: Target::DnsStream,
                otherwise: None,
            }
        } else {
            match resolve(
                ends.peer,
                Protocol::TCP,
                &link.gateway,
                &self.host,
                &self.forwards,
            ) {
                Ok(to) => Goal {
                    target: Target::Tcp(to.address),
                    otherwise: to.otherwise,
                },
                Err(Drop::NoService) => {
                    let body = Span { start: 0, len: 0 };
                    let arrival = Arrival {
                        mac: ends.mac,
                        segment: *syn,
                        body,
                        several: false,
                    };
                    link.drop(Drop::NoService);
                    return refuse(link, ends.guest, ends.peer, &arrival);
                }
                Err(cause) => return link.drop(cause),
            }
        };
        if !self.table.has_room(link, ends.mac) {
            link.drop(Drop::FlowsFull);
            return self.report(link, packet, Cause::Prohibited);
        }
        let isn = self.isn(link, &key);
        let agenda = &mut self.agenda;
        self.table.insert(link, ends.mac, key, |link, id| {
            Flow::Tcp(Box::new(Tcp::open(
                link,
                agenda,
                id,
                ends,
                syn,
                (goal, isn),
            )))
        });
    }

    /// An initial sequence number (RFC 6528 §3): a clock of 4 µs and a secret of the connection.
    pub(super) fn isn(&self, link: &Link<'_>, key: &Key) -> Seq {
        let clock = link.now.saturating_duration_since(self.epoch).as_micros() / 4;
        let [a, b, c, d, ..] = self.table.secret_of(key).to_le_bytes();
        let [e, f, g, h, ..] = clock.to_le_bytes();
        Seq(u32::from_le_bytes([a, b, c, d]).wrapping_add(u32::from_le_bytes([e, f, g, h])))
    }

    fn receive_udp(&mut self, link: &mut Link<'_>, packet: &Outward<'_>) {
        let Some((header, _)) = udp::Header::read(packet.head) else {
            return link.drop(Drop::Malformed);
        };
        let (Some(body), Some(len)) = (
            packet.behind(udp::Header::LEN),
            header.len().checked_sub(udp::Header::LEN),
        ) else {
            return link.drop(Drop::Malformed);
        };
        // A frame that stands for several datagrams has the length of all of them, or of one.
        let len = if packet.segmentation.is_some() {
            body.len
        } else {
            len
        };
        if len > body.len {
            return link.drop(Drop::Malformed);
        }
        // With IPv6 there is no datagram without a checksum (RFC 8200 §8.1).
        let partial = matches!(packet.checksum, Checksum::Partial { .. });
        if packet.source.is_ipv6() && header.checksum() == 0 && !partial {
            return link.drop(Drop::Checksum);
        }
        let guest = SocketAddr::new(packet.source, header.source_port());
        let seen = SocketAddr::new(packet.destination, header.destination_port());
        let Some((id, to)) = self.datagram_leaves_by(link, packet, guest, seen) else {
            return;
        };
        let Some(Flow::Udp(mapping)) = self.table.get_mut(id) else {
            return;
        };
        mapping.set_alias(to, seen);
        mapping.first.get_or_insert(to);
        (mapping.seen, mapping.mac) = (link.now, packet.mac);
        let how = Datagram {
            to,
            ttl: packet.hops_left(),
            dont_fragment: packet.dont_fragment,
            segment: packet
                .segmentation
                .filter(|s| s.kind == Kind::Udp)
                .map(|s| s.size),
        };
        link.out.push(Action::SendTo {
            socket: id,
            span: Span {
                start: body.start,
                len,
            },
            how,
        });
    }

    /// By which socket a datagram leaves that the guest sent to `seen`, and where it really goes.
    fn datagram_leaves_by(
        &mut self,
        link: &mut Link<'_>,
        packet: &Outward<'_>,
        guest: SocketAddr,
        seen: SocketAddr,
    ) -> Option<(SocketId, SocketAddr)> {
        if let Some(client) = self.client(guest, seen) {
            return Some((client.socket, client.real));
        }
        let to = self.datagram_goes_to(link, packet, guest, seen)?;
        Some((self.mapping(link, packet.mac, guest)?, to))
    }

    /// Where a datagram really goes that the guest sent to `seen`, if anywhere.
    fn datagram_goes_to(
        &mut self,
        link: &mut Link<'_>,
        packet: &Outward<'_>,
        guest: SocketAddr,
        seen: SocketAddr,
    ) -> Option<SocketAddr> {
        let known = self.table.look_up(&Key::mapping(Protocol::UDP, guest));
        if let Some(Flow::Udp(mapping)) = known.and_then(|id| self.table.get_mut(id))
            && let Some(real) = mapping.real(seen)
        {
            return Some(real);
        }
        match resolve(
            seen,
            Protocol::UDP,
            &link.gateway,
            &self.host,
            &self.forwards,
        ) {
            Ok(destination) => Some(destination.address),
            Err(cause) => {
                link.drop(cause);
                if cause == Drop::NoService {
                    self.report(link, packet, Cause::Port);
                }
                None
            }
        }
    }

    /// The socket of a guest's address and port.
    fn mapping(&mut self, link: &mut Link<'_>, mac: Mac, guest: SocketAddr) -> Option<SocketId> {
        let key = Key::mapping(Protocol::UDP, guest);
        if let Some(id) = self.table.look_up(&key) {
            return Some(id);
        }
        let v6 = guest.is_ipv6();
        self.socket(link, (mac, key), Target::Udp { v6 }, IDLE, |now| {
            Flow::Udp(Mapping::new(now, guest, mac, None))
        })
    }

    fn socket(
        &mut self,
        link: &mut Link<'_>,
        (mac, key): (Mac, Key),
        target: Target,
        idle: std::time::Duration,
        flow: impl FnOnce(std::time::Instant) -> Flow,
    ) -> Option<SocketId> {
        if !self.table.has_room(link, mac) {
            link.drop(Drop::FlowsFull);
            return None;
        }
        let socket = self.table.insert(link, mac, key, |link, _| flow(link.now));
        self.agenda.deadlines.set(link.now + idle, socket);
        link.out.push(Action::Open { socket, target });
        Some(socket)
    }

    fn receive_echo(&mut self, link: &mut Link<'_>, packet: &Outward<'_>) {
        let v6 = packet.source.is_ipv6();
        let (request, protocol) = if v6 {
            let header = icmpv6::Header::read(packet.head);
            let echo = header.map(|h| (h.kind == icmpv6::ECHO_REQUEST, h.id()));
            (echo, Protocol::ICMPV6)
        } else {
            let header = icmpv4::Header::read(packet.head);
            let echo = header.map(|h| (h.kind == icmpv4::ECHO_REQUEST, h.id.get()));
            (echo, Protocol::ICMPV4)
        };
        let id = match request {
            Some((true, id)) => id,
            Some((false, _)) => return self.refused_by_guest(link, packet),
            None => return link.drop(Drop::Malformed),
        };
        let to = SocketAddr::new(packet.destination, 0);
        let to = match resolve(to, protocol, &link.gateway, &self.host, &self.forwards) {
            Ok(destination) => destination.address,
            Err(cause) => return link.drop(cause),
        };
        let guest = SocketAddr::new(packet.source, id);
        let key = Key::mapping(protocol, guest);
        let id = match self.table.look_up(&key) {
            Some(id) => id,
            None => {
                let mac = packet.mac;
                let target = Target::Echo { v6 };
                let made = self.socket(link, (mac, key), target, echo::IDLE, |now| {
                    Flow::Echo(Echo {
                        guest,
                        mac,
                        seen: now,
                        first: to,
                    })
                });
                let Some(id) = made else { return };
                id
            }
        };
        if let Some(Flow::Echo(echo)) = self.table.get_mut(id) {
            (echo.seen, echo.mac) = (link.now, packet.mac);
        }
        let how = Datagram {
            to,
            ttl: packet.hops_left(),
            dont_fragment: packet.dont_fragment,
            segment: None,
        };
        link.out.push(Action::SendTo {
            socket: id,
            span: packet.body,
            how,
        });
    }
}

/// An address that means nothing outside the link.
fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn is_opening(flags: Flags) -> bool {
    flags.has(Flags::SYN) && flags.0 & (Flags::ACK | Flags::RST | Flags::FIN).0 == 0
}

fn is_dns(to: SocketAddr, gateway: &Gateway) -> bool {
    gateway.dns && to.port() == DNS && gateway.is_own(to.ip())
}
