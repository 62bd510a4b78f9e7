//! ICMP echo through ping sockets of the host.
//!
//! A ping socket has an identifier of its own, which the kernel puts into requests and matches replies
//! by; a flow is one guest's identifier. (Linux: `net.ipv4.ping_group_range`.)

use core::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use vmnet_wire::checksum;
use vmnet_wire::ethernet::Mac;
use vmnet_wire::icmpv4::{self, Header};
use vmnet_wire::ip::Protocol;
use vmnet_wire::offload::Offload;
use zerocopy::IntoBytes;

use crate::drop::Drop;
use crate::frame::Span;
use crate::link::{Link, Route};

/// A flow of echoes that was idle for so long ends (RFC 5508 §3.2: at least 60 s).
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// The echoes of one identifier of one guest.
#[derive(Debug)]
pub(crate) struct Echo {
    /// The guest, and its identifier as a port.
    pub(crate) guest: SocketAddr,
    pub(crate) mac: Mac,
    pub(crate) seen: Instant,
}

impl Echo {
    /// A reply came from the outside: its message is in the hand.
    pub(crate) fn deliver(
        &mut self,
        link: &mut Link<'_>,
        from: IpAddr,
        head: &[u8],
        len: usize,
        ttl: u8,
    ) {
        let Some(reply) = Header::read(head) else {
            return link.drop(Drop::Malformed);
        };
        if reply.kind != icmpv4::ECHO_REPLY || !from.is_ipv4() {
            return link.drop(Drop::Protocol);
        }
        self.seen = link.now;
        let Some(mac) = link.reach(self.mac, self.guest.ip()) else {
            return;
        };
        self.mac = mac;
        let mut route = Route::new(from, self.guest.ip(), Protocol::ICMPV4);
        route.ttl = ttl.saturating_sub(1).max(1);
        let route = link.divisible(route);
        let headers = link.headers(self.mac, route, len);
        let id = self.guest.port();
        let sum = checksum::update(reply.checksum(), reply.id.get(), id);
        let reply =
            Header::new(reply.kind, reply.code, id, reply.sequence.get()).with_checksum(sum);
        let body = Span {
            start: Header::LEN,
            len: len.saturating_sub(Header::LEN),
        };
        link.deliver(
            self.mac,
            &[headers.bytes(), reply.as_bytes()],
            body,
            Offload::VALID,
        );
    }
}
