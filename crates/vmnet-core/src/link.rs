//! The network as its gateway sees it: where frames towards guests are made.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use slotmap::SlotMap;
use vmnet_wire::ethernet::{self, EtherType, Mac};
use vmnet_wire::ip::Protocol;
use vmnet_wire::offload::Offload;
use vmnet_wire::{arp, ipv4, ipv6, ndp};
use zerocopy::IntoBytes;

use crate::drop::{Drop, Drops};
use crate::frame::Span;
use crate::neighbours::Neighbours;
use crate::outbox::{Action, Outbox, PortId};
use crate::prefix::Prefix;
use crate::subnet::Ipv4;
use crate::switch::fdb::Fdb;
use crate::switch::port::Port;

/// Hops that our own packets may take.
pub(crate) const TTL: u8 = 64;
/// The gateway: its own addresses, and what it does for guests. It has one address at least.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gateway {
    pub(crate) mac: Mac,
    /// See [`Config::host`](crate::Config::host).
    pub(crate) host: Option<Mac>,
    pub(crate) ipv4: Option<Ipv4>,
    pub(crate) ipv6: Option<Prefix>,
    pub(crate) mtu: u16,
    /// It is a way to the outside.
    pub(crate) nat44: bool,
    pub(crate) nat66: bool,
    /// It gives IPv4 addresses.
    pub(crate) dhcp: bool,
    /// It answers questions about names.
    pub(crate) dns: bool,
}

impl Gateway {
    pub(crate) fn v4(&self) -> Option<Ipv4Addr> {
        self.ipv4.map(|ipv4| ipv4.gateway())
    }

    pub(crate) fn v6(&self) -> Option<Ipv6Addr> {
        self.ipv6.map(|prefix| prefix.gateway())
    }

    /// Its address on the link alone.
    pub(crate) fn link_local(&self) -> Option<Ipv6Addr> {
        self.ipv6.map(|_| ndp::link_local(self.at()))
    }

    /// The MAC that guests find its addresses at.
    pub(crate) fn at(&self) -> Mac {
        self.host.unwrap_or(self.mac)
    }

    /// A MAC that no guest may have.
    pub(crate) fn is_mac(&self, mac: Mac) -> bool {
        self.mac == mac || self.host == Some(mac)
    }

    /// One of its addresses.
    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4() == Some(address),
            IpAddr::V6(address) => {
                self.ipv6.is_some()
                    && (self.v6() == Some(address) || self.link_local() == Some(address))
            }
        }
    }

    /// The address by which a guest of this address knows it.
    pub(crate) fn facing(&self, guest: IpAddr) -> Option<IpAddr> {
        match guest {
            IpAddr::V4(_) => self.v4().map(IpAddr::V4),
            IpAddr::V6(guest) if guest.is_unicast_link_local() => self.link_local().map(IpAddr::V6),
            IpAddr::V6(_) => self.v6().map(IpAddr::V6),
        }
    }

    /// A guest may have this address.
    pub(crate) fn is_guest(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.is_some_and(|ipv4| ipv4.is_guest(address)),
            IpAddr::V6(v6) => self.ipv6.is_some_and(|prefix| {
                let on_link = prefix.contains(v6) || v6.is_unicast_link_local();
                on_link && v6 != prefix.network() && !self.is_own(address)
            }),
        }
    }

    /// An address of its network, a guest's or not.
    pub(crate) fn is_here(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self
                .ipv4
                .is_some_and(|ipv4| ipv4.subnet().contains(address)),
            IpAddr::V6(address) => self.ipv6.is_some_and(|prefix| prefix.contains(address)),
        }
    }

    /// Guests have what they need from it: no other is to be their router or server, of either family.
    pub(crate) fn serves_guests(&self) -> bool {
        self.dhcp || self.nat44 || self.ipv6.is_some()
    }

    /// It is a way to the outside for whoever has an address of this family.
    pub(crate) fn has_way_out(&self, family: IpAddr) -> bool {
        match family {
            IpAddr::V4(_) => self.nat44,
            IpAddr::V6(_) => self.nat66,
        }
    }

    /// That of a shared network, for tests.
    #[cfg(test)]
    pub(crate) fn shared(subnet: &str) -> Self {
        Self {
            mac: Mac([2; 6]),
            host: None,
            ipv4: Some(Ipv4::new(subnet.parse().unwrap())),
            ipv6: Some("fd00:0:0:64::/64".parse().unwrap()),
            mtu: 1500,
            nat44: true,
            nat66: true,
            dhcp: true,
            dns: true,
        }
    }
}

/// Identifications of packets that may be cut on their way: one sequence for a network, so that fragments of two
/// packets are never taken for one (RFC 6864 §4.3).
#[derive(Debug, Default)]
pub(crate) struct PacketIds(u16);

impl PacketIds {
    fn next(&mut self) -> u16 {
        self.0 = self.0.wrapping_add(1);
        self.0
    }
}

/// Everything that sending a frame to a guest needs.
pub(crate) struct Link<'a> {
    pub(crate) now: Instant,
    pub(crate) gateway: Gateway,
    pub(crate) ports: &'a SlotMap<PortId, Port>,
    pub(crate) fdb: &'a Fdb,
    pub(crate) neighbours: &'a mut Neighbours,
    pub(crate) ids: &'a mut PacketIds,
    pub(crate) drops: &'a mut Drops,
    pub(crate) out: &'a mut Outbox,
}

impl Link<'_> {
    /// Counts a dropped frame.
    pub(crate) fn drop(&mut self, cause: Drop) {
        self.drops.count(cause);
    }

    /// The port behind which a guest is, if it is known.
    pub(crate) fn port_of(&self, mac: Mac) -> Option<(PortId, &Port)> {
        let port = self.fdb.look_up(self.now, mac)?;
        Some((port, self.ports.get(port)?))
    }

    /// The same, if the port's settings do not matter.
    pub(crate) fn port_at(&self, mac: Mac) -> Option<PortId> {
        self.port_of(mac).map(|(port, _)| port)
    }

    /// `address` spoke from `mac`.
    pub(crate) fn learn(&mut self, address: IpAddr, mac: Mac) {
        let place = (mac, self.port_at(mac));
        self.neighbours.learn(self.now, address, place);
    }

    /// A guest's port has room, or is unknown and will be found by flooding.
    pub(crate) fn is_ready(&self, mac: Mac) -> bool {
        self.port_of(mac).is_none_or(|(_, port)| port.ready)
    }

    /// Sends a whole frame made of `pieces`, from Ethernet on.
    pub(crate) fn send(&mut self, to: Mac, pieces: &[&[u8]]) {
        let frame = self.out.write(pieces);
        self.egress(to, |port| Action::Reply {
            port,
            frame: frame.clone(),
        });
    }

    /// Sends a whole frame to the guest at `at` alone, whoever it is addressed to.
    pub(crate) fn send_at(&mut self, at: Mac, pieces: &[&[u8]]) {
        let Some((port, _)) = self.port_of(at) else {
            return self.drop(Drop::NoNeighbour);
        };
        let frame = self.out.write(pieces);
        self.out.push(Action::Reply { port, frame });
    }

    /// Sends a frame whose payload is in the hand.
    pub(crate) fn deliver(&mut self, to: Mac, headers: &[&[u8]], body: Span, offload: Offload) {
        let headers = self.out.write(headers);
        self.egress(to, |port| Action::Deliver {
            port,
            headers: headers.clone(),
            body,
            offload,
        });
    }

    /// To the port where `to` is, or to all if all are meant. What is for one guest is not for others to hear,
    /// so nothing of ours is flooded because its guest is unknown.
    fn egress(&mut self, to: Mac, action: impl Fn(PortId) -> Action) {
        if let Some((port, _)) = self.port_of(to) {
            self.out.push(action(port));
        } else if to.is_multicast() {
            self.ports
                .keys()
                .for_each(|port| self.out.push(action(port)));
        } else {
            self.drop(Drop::NoNeighbour);
        }
    }

    /// The MAC of a guest, which was at `mac` when it was last heard, if its port is known. If not, it is asked for,
    /// and what was to be sent has to be sent again, or is lost.
    pub(crate) fn reach(&mut self, mac: Mac, guest: IpAddr) -> Option<Mac> {
        let mac = if self.port_of(mac).is_some() {
            Some(mac)
        } else {
            let known = self.neighbours.look_up(self.now, guest);
            known.filter(|mac| self.port_of(*mac).is_some())
        };
        match (mac, guest) {
            (Some(mac), IpAddr::V6(guest)) if self.gateway.host.is_none() => {
                if self.neighbours.wants_probe(self.now, IpAddr::V6(guest)) {
                    self.solicit(mac, guest, guest);
                }
            }
            (Some(_), _) => {}
            (None, guest) => {
                self.drop(Drop::NoNeighbour);
                self.resolve(guest);
            }
        }
        mac
    }

    /// A packet that may be cut on its way to a guest.
    pub(crate) fn divisible(&mut self, route: Route) -> Route {
        Route {
            id: self.ids.next(),
            dont_fragment: false,
            ..route
        }
    }

    /// The Ethernet header of a frame of ours to `to`.
    pub(crate) fn ethernet(&self, to: Mac, ether_type: EtherType) -> ethernet::Header {
        ethernet::Header::new(to, self.gateway.mac, ether_type)
    }

    /// Asks who has an address.
    fn resolve(&mut self, address: IpAddr) {
        // The host asks for itself; whoever asks in its name says where it is.
        if self.gateway.host.is_some() || !self.neighbours.wants_question(self.now, address) {
            return;
        }
        match (address, self.gateway.v4()) {
            (IpAddr::V4(address), Some(own)) => {
                let ethernet = self.ethernet(Mac::BROADCAST, EtherType::ARP);
                let request = arp::Packet::request(self.gateway.mac, own, address);
                self.send(Mac::BROADCAST, &[ethernet.as_bytes(), request.as_bytes()]);
            }
            (IpAddr::V6(address), _) => {
                let group = ndp::solicited_node(address);
                self.solicit(ndp::group_mac(group), group, address);
            }
            (IpAddr::V4(_), None) => {}
        }
    }

    /// Asks `to`, which is at `mac`, whether it has an address (RFC 4861 §7.2.2).
    fn solicit(&mut self, mac: Mac, to: Ipv6Addr, address: Ipv6Addr) {
        let Some(IpAddr::V6(own)) = self.gateway.facing(IpAddr::V6(address)) else {
            return;
        };
        let message = ndp::Neighbour::solicitation(address, self.gateway.mac).between(own, to);
        let headers = self.link_headers(mac, own, to, message.as_bytes().len());
        self.send(mac, &[headers.bytes(), message.as_bytes()]);
    }

    /// Headers of an ICMPv6 message that does not leave the link (RFC 4861 §4).
    pub(crate) fn link_headers(
        &self,
        mac: Mac,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        len: usize,
    ) -> Headers {
        let mut route = Route::new(
            IpAddr::V6(source),
            IpAddr::V6(destination),
            Protocol::ICMPV6,
        );
        route.ttl = ndp::HOP_LIMIT;
        self.headers(mac, route, len)
    }

    /// Ethernet and IP headers for a packet with `len` bytes behind them, from `source` to the guest
    /// `destination` at `mac`. Both addresses are of one family.
    pub(crate) fn headers(&self, mac: Mac, route: Route, len: usize) -> Headers {
        match (route.source, route.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let fields = ipv4::Fields {
                    source,
                    destination,
                    protocol: route.protocol,
                    ttl: route.ttl,
                    id: route.id,
                    dont_fragment: route.dont_fragment,
                };
                let mut headers = Headers::of(&self.ethernet(mac, EtherType::IPV4));
                headers.push(ipv4::Header::new(&fields, len).as_bytes());
                headers
            }
            (source, destination) => {
                let mut headers = Headers::of(&self.ethernet(mac, EtherType::IPV6));
                let header = ipv6::Header::new(
                    to_v6(source),
                    to_v6(destination),
                    route.protocol,
                    route.ttl,
                    len,
                );
                headers.push(header.as_bytes());
                headers
            }
        }
    }
}

fn to_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

/// Between whom a packet towards a guest goes, and what it carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) ttl: u8,
    pub(crate) id: u16,
    pub(crate) dont_fragment: bool,
}

impl Route {
    /// A packet that must not be cut, as all of ours that fit.
    pub(crate) fn new(source: IpAddr, destination: IpAddr, protocol: Protocol) -> Self {
        Self {
            source,
            destination,
            protocol,
            ttl: TTL,
            id: 0,
            dont_fragment: true,
        }
    }
}

/// Ethernet and IP headers of one packet.
#[derive(Clone, Copy)]
pub(crate) struct Headers {
    bytes: [u8; ethernet::Header::LEN + ipv6::Header::LEN],
    len: usize,
}

impl Headers {
    fn of(ethernet: &ethernet::Header) -> Self {
        let mut headers = Self {
            bytes: [0; ethernet::Header::LEN + ipv6::Header::LEN],
            len: 0,
        };
        headers.push(ethernet.as_bytes());
        headers
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(bytes);
            self.len = end;
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    /// Bytes: where the transport header will start.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}
