//! ICMP of the gateway itself: echo replies (RFC 792), and errors about packets of guests, of which it
//! sends a bounded number (RFC 1812 §4.3.2, RFC 4443 §2.4). What differs with IPv6 is in `icmp6`.

use core::net::IpAddr;
use std::time::{Duration, Instant};

use slotmap::SecondaryMap;
use vmnet_wire::checksum::{self, Sum};
use vmnet_wire::ethernet::Mac;
use vmnet_wire::icmpv4::{self, Header};
use vmnet_wire::ip::Protocol;
use vmnet_wire::{icmpv6, ipv4};
use zerocopy::IntoBytes;

use crate::drop::Drop;
use crate::frame::Span;
use crate::gateway::icmp6;
use crate::link::{Link, Route};
use crate::outbox::PortId;
use crate::subnet::Subnet;

/// Errors that may be sent to a port at once.
const BURST: u32 = 100;
/// A new one may be sent every so often.
const INTERVAL: Duration = Duration::from_millis(2);
/// Bytes of the packet in question that an error carries behind its IP header (RFC 792).
const QUOTED: usize = 8;

/// The budgets of all ports: what one guest asks for is not another's.
#[derive(Debug, Default)]
pub(crate) struct Budgets(SecondaryMap<PortId, Limiter>);

impl Budgets {
    /// Whether the guest at `mac` may be sent another one. Who is behind no port could not be sent it.
    pub(crate) fn take(&mut self, link: &Link<'_>, mac: Mac) -> bool {
        let entry = link.port_of(mac).and_then(|(port, _)| self.0.entry(port));
        entry.is_some_and(|budget| budget.or_default().take(link.now))
    }
}

/// A budget of ICMP errors.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    tokens: u32,
    filled: Option<Instant>,
}

impl Limiter {
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let filled = *self.filled.get_or_insert_with(|| {
            self.tokens = BURST;
            now
        });
        let fresh = now.saturating_duration_since(filled).as_millis() / INTERVAL.as_millis();
        if fresh > 0 {
            self.tokens = self
                .tokens
                .saturating_add(u32::try_from(fresh).unwrap_or(BURST))
                .min(BURST);
            self.filled = Some(now);
        }
        self.tokens
            .checked_sub(1)
            .map(|left| self.tokens = left)
            .is_some()
    }
}

/// Answers an echo request to the gateway's own address. The message begins `start` bytes into the
/// frame in hand and has `len` bytes.
pub(crate) fn echo_reply(
    link: &mut Link<'_>,
    to: Mac,
    guest: IpAddr,
    request: &Header,
    Span { start, len }: Span,
) {
    let Some(gateway) = link.gateway.facing(guest) else {
        return;
    };
    let route = link.divisible(Route::new(gateway, guest, Protocol::ICMPV4));
    let headers = link.headers(to, route, len);
    // Only the type changes: 8 becomes 0 (RFC 1624).
    let kind = u16::from_be_bytes([request.kind, request.code]);
    let reply = Header::new(
        icmpv4::ECHO_REPLY,
        0,
        request.id.get(),
        request.sequence.get(),
    )
    .with_checksum(checksum::update(request.checksum(), kind, 0));
    let body = Span {
        start: start + Header::LEN,
        len: len.saturating_sub(Header::LEN),
    };
    let offload = vmnet_wire::offload::Offload::VALID;
    link.deliver(to, &[headers.bytes(), reply.as_bytes()], body, offload);
}

/// Why a packet went nowhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// No way there.
    NoRoute,
    /// Nobody there.
    Host,
    /// Nobody listens there.
    Port,
    /// Forbidden, or meant to have no way out.
    Prohibited,
    /// From an address of the link alone (IPv6).
    BeyondScope,
    /// Too many hops.
    Expired,
    /// Larger than the way takes: this is what it takes, in bytes.
    TooBig(u32),
}

impl Cause {
    /// Type, code and second word of the ICMP message that says so to a guest of this family.
    fn message(self, family: IpAddr) -> (u8, u8, u32) {
        use icmpv4::unreachable as v4;
        use icmpv6::unreachable as v6;
        match (family, self) {
            (IpAddr::V4(_), Self::Expired) => (icmpv4::TIME_EXCEEDED, 0, 0),
            (IpAddr::V4(_), Self::TooBig(mtu)) => {
                let mtu = mtu.min(u32::from(u16::MAX));
                (icmpv4::UNREACHABLE, v4::FRAGMENTATION_NEEDED, mtu)
            }
            (IpAddr::V4(_), cause) => {
                let code = match cause {
                    Self::NoRoute => v4::NETWORK,
                    Self::Port => v4::PORT,
                    Self::Prohibited => v4::PROHIBITED,
                    _ => v4::HOST,
                };
                (icmpv4::UNREACHABLE, code, 0)
            }
            (IpAddr::V6(_), Self::Expired) => (icmpv6::TIME_EXCEEDED, 0, 0),
            (IpAddr::V6(_), Self::TooBig(mtu)) => (icmpv6::PACKET_TOO_BIG, 0, mtu),
            (IpAddr::V6(_), cause) => {
                let code = match cause {
                    Self::NoRoute => v6::NO_ROUTE,
                    Self::Port => v6::PORT,
                    Self::Prohibited => v6::PROHIBITED,
                    Self::BeyondScope => v6::BEYOND_SCOPE,
                    _ => v6::ADDRESS,
                };
                (icmpv6::UNREACHABLE, code, 0)
            }
        }
    }
}

/// An ICMP error to a guest, of the guest's family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Error<'a> {
    /// Who reports it: the gateway, or a router of the outside.
    pub(crate) from: IpAddr,
    /// ICMP type and code.
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// The second word: an MTU, a place in the packet, or zero.
    pub(crate) word: u32,
    /// The guest's packet, from its IP header on; cut to what an error carries.
    pub(crate) packet: &'a [u8],
}

/// Sends an ICMP error about a packet to the guest that sent it, if the budget allows.
pub(crate) fn send_error(
    link: &mut Link<'_>,
    budgets: &mut Budgets,
    to: Mac,
    guest: IpAddr,
    error: &Error<'_>,
) {
    let may = match link.gateway.ipv4 {
        _ if guest.is_ipv6() => icmp6::may_be_reported(error),
        Some(ipv4) => may_be_reported(error.packet, ipv4.subnet()),
        None => false,
    };
    if !may {
        return;
    }
    if !budgets.take(link, to) {
        return link.drop(Drop::IcmpRate);
    }
    match (guest, error.from) {
        (IpAddr::V4(_), _) => send_error4(link, to, guest, error),
        (IpAddr::V6(guest), IpAddr::V6(from)) => icmp6::send_error(link, to, (from, guest), error),
        (IpAddr::V6(_), IpAddr::V4(_)) => {}
    }
}

/// Tells a guest why its packet, `packet`, goes nowhere: the gateway itself says so.
pub(crate) fn report(
    link: &mut Link<'_>,
    budgets: &mut Budgets,
    to: Mac,
    guest: IpAddr,
    cause: Cause,
    packet: &[u8],
) {
    let Some(from) = link.gateway.facing(guest) else {
        return;
    };
    let (kind, code, word) = cause.message(guest);
    let error = Error {
        from,
        kind,
        code,
        word,
        packet,
    };
    send_error(link, budgets, to, guest, &error);
}

fn send_error4(link: &mut Link<'_>, to: Mac, guest: IpAddr, error: &Error<'_>) {
    let header_len = error
        .packet
        .first()
        .map_or(0, |first| usize::from(first & 0x0f) * 4);
    let quoted = error
        .packet
        .get(..header_len + QUOTED)
        .unwrap_or(error.packet);
    let mtu = u16::try_from(error.word).unwrap_or(u16::MAX);
    let header = Header::new(error.kind, error.code, 0, mtu);
    let sum = Sum::new().with(header.as_bytes()).with(quoted).finish();
    let route = Route::new(error.from, guest, Protocol::ICMPV4);
    let headers = link.headers(to, route, Header::LEN + quoted.len());
    link.send(
        to,
        &[
            headers.bytes(),
            header.with_checksum(sum).as_bytes(),
            quoted,
        ],
    );
}

/// No error is sent about an ICMP error, about what was sent to many, or about a fragment other than the first
/// (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7).
fn may_be_reported(packet: &[u8], subnet: Subnet) -> bool {
    let Ok(packet) = ipv4::Packet::read(packet, usize::MAX) else {
        return false;
    };
    let to = packet.header.destination();
    let to_many = to.is_multicast() || to.is_broadcast() || to == subnet.broadcast();
    let about_error = packet.header.protocol() == Protocol::ICMPV4
        && packet.payload.first().is_none_or(|kind| !is_query(*kind));
    !to_many && !about_error && packet.header.fragment_offset() == 0
}

/// Requests and replies; what is neither, or unknown, is taken for an error.
fn is_query(kind: u8) -> bool {
    // Echo, router discovery, and timestamp to address mask (RFC 1122 §3.2.2, RFC 1256).
    matches!(kind, icmpv4::ECHO_REPLY | icmpv4::ECHO_REQUEST | 9..=10 | 13..=18)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(to: [u8; 4], protocol: Protocol, body: &[u8]) -> Vec<u8> {
        let fields = ipv4::Fields {
            source: [192, 168, 64, 2].into(),
            destination: to.into(),
            protocol,
            ttl: 1,
            id: 1,
            dont_fragment: false,
        };
        [ipv4::Header::new(&fields, body.len()).as_bytes(), body].concat()
    }

    #[test]
    fn what_no_error_is_sent_about() {
        let subnet = "192.168.64.0/24".parse().unwrap();
        let outside = [10, 0, 0, 1];
        for (packet, may) in [
            (packet(outside, Protocol::UDP, &[0; 8]), true),
            (packet(outside, Protocol::ICMPV4, &[8; 8]), true),
            (packet(outside, Protocol::ICMPV4, &[0; 8]), true),
            (packet(outside, Protocol::ICMPV4, &[3; 8]), false),
            (packet(outside, Protocol::ICMPV4, &[11; 8]), false),
            (packet(outside, Protocol::ICMPV4, &[200; 8]), false),
            (packet(outside, Protocol::ICMPV4, &[]), false),
            (packet([224, 0, 0, 251], Protocol::UDP, &[0; 8]), false),
            (packet([255; 4], Protocol::UDP, &[0; 8]), false),
            (packet([192, 168, 64, 255], Protocol::UDP, &[0; 8]), false),
            (vec![0x45; 7], false),
        ] {
            assert_eq!(may_be_reported(&packet, subnet), may, "{packet:?}");
        }
        let mut fragment = packet(outside, Protocol::UDP, &[0; 8]);
        for (offset, may) in [(0, true), (8, false)] {
            ipv4::rewrite(&mut fragment, 28, 1, ipv4::Fragment { offset, more: true });
            assert_eq!(may_be_reported(&fragment, subnet), may);
        }
    }

    #[test]
    fn errors_are_sent_in_a_burst_and_then_slowly() {
        let mut limiter = Limiter::default();
        let start = Instant::now();
        let burst = (0..1000).filter(|_| limiter.take(start)).count();
        assert_eq!(burst, BURST as usize);
        assert!(limiter.take(start + INTERVAL));
        assert!(!limiter.take(start + INTERVAL));
        let later = start + Duration::from_secs(60);
        assert_eq!(
            (0..1000).filter(|_| limiter.take(later)).count(),
            BURST as usize
        );
    }
}
