//! UDP: one socket of the host for each address and port of a guest, whoever it speaks to
//! (endpoint-independent mapping and filtering, RFC 4787 §4.1, §5).

use core::net::SocketAddr;
use std::time::{Duration, Instant};

use vmnet_wire::ethernet::Mac;
use vmnet_wire::ip::{self, Protocol};
use vmnet_wire::offload::{Kind, Offload, Segmentation};
use vmnet_wire::udp;
use zerocopy::IntoBytes;

use crate::drop::Drop;
use crate::frame::Span;
use crate::link::{Gateway, Link, Route};
use crate::nat::destination::never_leaves;
use crate::nat::port_forward;
use crate::outbox::ForwardId;

/// A mapping that was idle for so long ends (RFC 4787 §4.3, REQ-5: 5 minutes).
pub(crate) const IDLE: Duration = Duration::from_secs(300);
/// Peers that a mapping's guest knows by another address, at most.
const ALIASES_MAX: usize = 256;

/// Bytes of IP and UDP headers.
const HEADERS4: usize = 28;
const HEADERS6: usize = 48;

/// A peer that the guest knows by another address than the host does.
#[derive(Clone, Copy, Debug)]
struct Alias {
    real: SocketAddr,
    seen: SocketAddr,
}

/// The socket of one guest's address and port.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) guest: SocketAddr,
    pub(crate) mac: Mac,
    pub(crate) seen: Instant,
    /// The socket is that of a forwarding rule, and lives as long.
    pub(crate) forward: Option<ForwardId>,
    /// Where the first datagram went: its sender hears if there can be no socket.
    pub(crate) first: Option<SocketAddr>,
    aliases: Vec<Alias>,
}

impl Mapping {
    pub(crate) fn new(
        now: Instant,
        guest: SocketAddr,
        mac: Mac,
        forward: Option<ForwardId>,
    ) -> Self {
        Self {
            guest,
            mac,
            seen: now,
            forward,
            first: None,
            aliases: Vec::new(),
        }
    }

    fn headers(&self) -> usize {
        if self.guest.is_ipv4() {
            HEADERS4
        } else {
            HEADERS6
        }
    }

    /// It is a rule's, whose guest has no address now.
    pub(crate) fn is_lost(&self) -> bool {
        self.guest.ip().is_unspecified()
    }

    /// Without a way out nobody of the outside has a way in, but by a rule: the guest has spoken to the host alone,
    /// which it knows by another address.
    fn is_stranger(&self, from: SocketAddr, gateway: &Gateway) -> bool {
        !gateway.has_way_out(self.guest.ip())
            && self.forward.is_none()
            && !self.aliases.iter().any(|alias| alias.real == from)
    }

    /// Where a datagram goes that the guest sent to `seen`, if an alias says so.
    pub(crate) fn real(&self, seen: SocketAddr) -> Option<SocketAddr> {
        self.aliases
            .iter()
            .find(|alias| alias.seen == seen)
            .map(|alias| alias.real)
    }

    /// From now on the guest knows `real` as `seen`, which is the same for most.
    pub(crate) fn set_alias(&mut self, real: SocketAddr, seen: SocketAddr) {
        let known = self.aliases.iter().position(|alias| alias.real == real);
        if let Some(index) = known {
            if self
                .aliases
                .get(index)
                .is_some_and(|alias| alias.seen == seen)
            {
                return;
            }
            self.aliases.swap_remove(index);
        }
        if real != seen {
            if self.aliases.len() >= ALIASES_MAX {
                self.aliases.remove(0);
            }
            self.aliases.push(Alias { real, seen });
        }
    }

    /// As whom the guest knows a peer of the host side.
    pub(crate) fn seen_as(&mut self, real: SocketAddr, gateway: &Gateway) -> SocketAddr {
        let known = self.aliases.iter().position(|alias| alias.real == real);
        if let Some(used) = known.and_then(|index| self.aliases.get_mut(index..)) {
            // Of too many the one goes that was quiet for longest.
            used.rotate_left(1);
            return used.last().map_or(real, |alias| alias.seen);
        }
        if self.forward.is_none() {
            return real;
        }
        let Some(mut seen) = port_forward::seen_by_guest(real, self.guest.ip(), gateway) else {
            return real;
        };
        // Two clients of different addresses may have one port: the later gets another.
        while seen != real && self.real(seen).is_some() {
            seen.set_port(seen.port().checked_add(1).unwrap_or(1024));
        }
        self.set_alias(real, seen);
        seen
    }

    /// A datagram, or several of one size, came from the outside; the payload is in the hand.
    pub(crate) fn deliver(
        &mut self,
        link: &mut Link<'_>,
        from: SocketAddr,
        len: usize,
        segment: Option<u16>,
        ttl: u8,
    ) {
        if self.is_lost() {
            return link.drop(Drop::NoNeighbour);
        }
        if self.is_stranger(from, &link.gateway) {
            return link.drop(Drop::Filtered);
        }
        let real = from;
        let from = self.seen_as(real, &link.gateway);
        // On the guest's link it would be somebody else's.
        if from == real && never_leaves(from.ip(), &link.gateway) {
            return link.drop(Drop::Filtered);
        }
        self.seen = link.now;
        if from.is_ipv4() != self.guest.is_ipv4() {
            return link.drop(Drop::Protocol);
        }
        // A rule outlives its guest's card: whoever has the address now is meant.
        if self.forward.is_some()
            && let Some(mac) = link.neighbours.look_up(link.now, self.guest.ip())
        {
            self.mac = mac;
        }
        let Some(mac) = link.reach(self.mac, self.guest.ip()) else {
            return;
        };
        self.mac = mac;
        let segment = segment.filter(|size| usize::from(*size) < len && *size > 0);
        match segment.map(usize::from) {
            // Datagrams that must be cut each by itself cannot go as one.
            Some(size) if size + self.headers() > usize::from(link.gateway.mtu) => {
                for start in (0..len).step_by(size) {
                    let len = size.min(len - start);
                    self.send(link, from, Span { start, len }, None, ttl);
                }
            }
            _ => self.send(link, from, Span::first(len), segment, ttl),
        }
    }

    fn send(
        &self,
        link: &mut Link<'_>,
        from: SocketAddr,
        body: Span,
        segment: Option<u16>,
        ttl: u8,
    ) {
        let len = body.len + udp::Header::LEN;
        let mut route = Route::new(from.ip(), self.guest.ip(), Protocol::UDP);
        route.ttl = ttl.saturating_sub(1).max(1);
        // A datagram larger than the MTU must be cut on its way, so it may be.
        if segment.is_none() && body.len + self.headers() > usize::from(link.gateway.mtu) {
            route = link.divisible(route);
        }
        let headers = link.headers(self.mac, route, len);
        let pseudo = ip::pseudo_header(from.ip(), self.guest.ip(), Protocol::UDP, len);
        let header = udp::Header::new(from.port(), self.guest.port(), body.len, pseudo.folded());
        let offload = Offload {
            checksum: Offload::partial(headers.len(), udp::Header::CHECKSUM_OFFSET),
            segmentation: segment.map(|size| Segmentation {
                kind: Kind::Udp,
                size,
                ecn: false,
            }),
        };
        let pieces = [headers.bytes(), header.as_bytes()];
        link.deliver(self.mac, &pieces, body, offload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> Gateway {
        Gateway::shared("192.168.64.0/24")
    }

    #[test]
    fn a_busy_client_keeps_its_port_among_many() {
        let guest = "192.168.64.2:53".parse().unwrap();
        let forward = slotmap::SlotMap::with_key().insert(());
        let mut mapping = Mapping::new(Instant::now(), guest, Mac([4; 6]), Some(forward));
        let client = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let busy = mapping.seen_as(client(700), &gateway());
        for port in 1000..3000 {
            mapping.seen_as(client(port), &gateway());
            assert_eq!(mapping.seen_as(client(700), &gateway()), busy);
            assert_eq!(mapping.real(busy), Some(client(700)));
            assert!(mapping.aliases.len() <= ALIASES_MAX);
        }
    }

    #[test]
    fn clients_of_a_forward_keep_their_address_where_it_means_them() {
        let guest = "192.168.64.2:53".parse().unwrap();
        let forward = slotmap::SlotMap::with_key().insert(());
        let mut mapping = Mapping::new(Instant::now(), guest, Mac([4; 6]), Some(forward));
        for (client, seen) in [
            ("10.0.0.9:700", "10.0.0.9:700"),
            ("127.0.0.1:700", "192.168.64.1:700"),
            ("127.0.0.2:700", "192.168.64.1:701"),
            ("127.0.0.1:700", "192.168.64.1:700"),
        ] {
            let (client, seen) = (client.parse().unwrap(), seen.parse().unwrap());
            assert_eq!(mapping.seen_as(client, &gateway()), seen);
            assert_eq!(mapping.real(seen).unwrap_or(seen), client);
        }
    }
}
