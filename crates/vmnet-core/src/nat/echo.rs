//! ICMP echo through ping sockets of the host.
//!
//! A ping socket has an identifier of its own, which the kernel puts into requests and matches replies
//! by; a flow is one guest's identifier. (Linux: `net.ipv4.ping_group_range`.)

use core::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use vmnet_wire::checksum;
use vmnet_wire::ethernet::Mac;
use vmnet_wire::ip::{self, Protocol};
use vmnet_wire::offload::Offload;
use vmnet_wire::{icmpv4, icmpv6};
use zerocopy::IntoBytes;

use crate::drop::Drop;
use crate::frame::Span;
use crate::link::{Link, Route};
use crate::nat::destination::never_leaves;

/// A flow of echoes that was idle for so long ends (RFC 5508 §3.2: at least 60 s).
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// The echoes of one identifier of one guest.
#[derive(Debug)]
pub(crate) struct Echo {
    /// The guest, and its identifier as a port.
    pub(crate) guest: SocketAddr,
    pub(crate) mac: Mac,
    pub(crate) seen: Instant,
    /// Where the first request went: its sender hears if there can be no socket.
    pub(crate) first: SocketAddr,
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
        let Some((is_reply, sequence)) = read(head, self.guest.is_ipv6()) else {
            return link.drop(Drop::Malformed);
        };
        if !is_reply || from.is_ipv4() != self.guest.is_ipv4() {
            return link.drop(Drop::Protocol);
        }
        // On the guest's link it would be somebody else's.
        if never_leaves(from, &link.gateway) {
            return link.drop(Drop::Filtered);
        }
        self.seen = link.now;
        let Some(mac) = link.reach(self.mac, self.guest.ip()) else {
            return;
        };
        self.mac = mac;
        let v6 = self.guest.is_ipv6();
        let protocol = if v6 {
            Protocol::ICMPV6
        } else {
            Protocol::ICMPV4
        };
        let mut route = Route::new(from, self.guest.ip(), protocol);
        route.ttl = ttl.saturating_sub(1).max(1);
        let route = link.divisible(route);
        let headers = link.headers(self.mac, route, len);
        let body = Span {
            start: icmpv4::Header::LEN,
            len: len.saturating_sub(icmpv4::Header::LEN),
        };
        if v6 {
            // Its checksum is over the host's address too, which is not the guest's: it is made anew.
            let pseudo = ip::pseudo_header(from, self.guest.ip(), protocol, len);
            let reply = icmpv6::Header::echo(icmpv6::ECHO_REPLY, self.guest.port(), sequence)
                .with_checksum(pseudo.folded());
            let offload = Offload {
                checksum: Offload::partial(headers.len(), icmpv6::Header::CHECKSUM_OFFSET),
                segmentation: None,
            };
            let pieces = [headers.bytes(), reply.as_bytes()];
            return link.deliver(self.mac, &pieces, body, offload);
        }
        let Some(reply) = icmpv4::Header::read(head) else {
            return;
        };
        let id = self.guest.port();
        let sum = checksum::update(reply.checksum(), reply.id.get(), id);
        let reply = icmpv4::Header::new(reply.kind, reply.code, id, sequence).with_checksum(sum);
        let pieces = [headers.bytes(), reply.as_bytes()];
        link.deliver(self.mac, &pieces, body, Offload::VALID);
    }
}

/// Whether a message is a reply, and its sequence number.
fn read(head: &[u8], v6: bool) -> Option<(bool, u16)> {
    Some(if v6 {
        let header = icmpv6::Header::read(head)?;
        (header.kind == icmpv6::ECHO_REPLY, header.sequence())
    } else {
        let header = icmpv4::Header::read(head)?;
        (header.kind == icmpv4::ECHO_REPLY, header.sequence.get())
    })
}
