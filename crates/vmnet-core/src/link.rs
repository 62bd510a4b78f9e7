//! The network as its gateway sees it: where frames towards guests are made.

use core::hash::Hash;
use core::net::{IpAddr, Ipv4Addr};
use std::collections::HashMap;
use std::time::{Duration, Instant};

use slotmap::SlotMap;
use vmnet_wire::ethernet::{self, EtherType, Mac};
use vmnet_wire::ip::Protocol;
use vmnet_wire::offload::Offload;
use vmnet_wire::{arp, ipv4, ipv6};
use zerocopy::IntoBytes;

use crate::drop::{Drop, Drops};
use crate::frame::Span;
use crate::outbox::{Action, Outbox, PortId};
use crate::subnet::Ipv4;
use crate::switch::fdb::Fdb;
use crate::switch::port::Port;

/// Hops that our own packets may take.
pub(crate) const TTL: u8 = 64;
/// Guests' addresses that are remembered with their MAC.
const NEIGHBOURS_MAX: usize = 8192;
/// A neighbour that was silent for so long may have moved: it is asked for again.
const NEIGHBOUR_AGE: Duration = Duration::from_secs(300);

/// The gateway: its own addresses, and what it does for guests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gateway {
    pub(crate) mac: Mac,
    pub(crate) ipv4: Ipv4,
    pub(crate) mtu: u16,
    /// It is a way to the outside.
    pub(crate) nat44: bool,
    /// It answers questions about names.
    pub(crate) dns: bool,
}

impl Gateway {
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.ipv4.gateway()
    }

    /// That of a shared network, for tests.
    #[cfg(test)]
    pub(crate) fn shared(subnet: &str) -> Self {
        Self {
            mac: Mac([2; 6]),
            ipv4: Ipv4::new(subnet.parse().unwrap()),
            mtu: 1500,
            nat44: true,
            dns: true,
        }
    }
}

/// Which guest's address belongs to which MAC (what ARP knows).
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    entries: HashMap<IpAddr, (Mac, Instant)>,
    /// From which address a MAC spoke last.
    addresses: HashMap<Mac, (IpAddr, Instant)>,
    /// A MAC spoke from another address than before.
    moved: bool,
}

impl Neighbours {
    /// `address` spoke from `mac`.
    pub(crate) fn learn(&mut self, now: Instant, address: IpAddr, mac: Mac) {
        remember(&mut self.entries, now, address, mac);
        let before = remember(&mut self.addresses, now, mac, address);
        self.moved |= before != Some(address);
    }

    pub(crate) fn look_up(&self, now: Instant, address: IpAddr) -> Option<Mac> {
        look_up(&self.entries, now, address)
    }

    /// The IPv4 address from which a MAC spoke last.
    pub(crate) fn address_of(&self, now: Instant, mac: Mac) -> Option<Ipv4Addr> {
        match look_up(&self.addresses, now, mac)? {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    /// Whether a MAC spoke from another address than before, since the last question.
    pub(crate) fn take_moved(&mut self) -> bool {
        core::mem::take(&mut self.moved)
    }
}

/// Writes down what belongs to a key, and returns what did before.
fn remember<K: Eq + Hash, V: Copy>(
    table: &mut HashMap<K, (V, Instant)>,
    now: Instant,
    key: K,
    value: V,
) -> Option<V> {
    if let Some(entry) = table.get_mut(&key) {
        let (before, _) = core::mem::replace(entry, (value, now));
        return Some(before);
    }
    if table.len() >= NEIGHBOURS_MAX {
        table.retain(|_, (_, seen)| now.saturating_duration_since(*seen) < NEIGHBOUR_AGE);
    }
    if table.len() < NEIGHBOURS_MAX {
        table.insert(key, (value, now));
    }
    None
}

fn look_up<K: Eq + Hash, V: Copy>(
    table: &HashMap<K, (V, Instant)>,
    now: Instant,
    key: K,
) -> Option<V> {
    let (value, seen) = table.get(&key)?;
    (now.saturating_duration_since(*seen) < NEIGHBOUR_AGE).then_some(*value)
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
        if self.port_of(mac).is_some() {
            return Some(mac);
        }
        let known = self.neighbours.look_up(self.now, guest);
        if let Some(mac) = known.filter(|mac| self.port_of(*mac).is_some()) {
            return Some(mac);
        }
        self.drop(Drop::NoNeighbour);
        if let IpAddr::V4(guest) = guest {
            self.resolve(guest);
        }
        None
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
    pub(crate) fn resolve(&mut self, address: Ipv4Addr) {
        let ethernet = self.ethernet(Mac::BROADCAST, EtherType::ARP);
        let request = arp::Packet::request(self.gateway.mac, self.gateway.address(), address);
        self.send(Mac::BROADCAST, &[ethernet.as_bytes(), request.as_bytes()]);
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

fn to_v6(address: IpAddr) -> core::net::Ipv6Addr {
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
