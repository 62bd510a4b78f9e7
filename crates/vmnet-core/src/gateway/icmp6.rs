//! ICMPv6 of the gateway itself: echo replies and the form of errors (RFC 4443).

use core::net::{IpAddr, Ipv6Addr};

use vmnet_wire::checksum;
use vmnet_wire::ethernet::Mac;
use vmnet_wire::icmpv6::{self, Header};
use vmnet_wire::ip::{self, Protocol};
use vmnet_wire::ipv6;
use vmnet_wire::offload::{Checksum, Offload};
use zerocopy::IntoBytes;

use crate::frame::Span;
use crate::gateway::icmp::Error;
use crate::link::{Link, Route};

/// The largest packet that every link takes: an error is no larger (RFC 4443 §2.4 c).
const MTU_LEAST: usize = 1280;

/// An echo request of a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) header: &'a Header,
    /// To whom: one of our addresses, or a group that we listen to.
    pub(crate) to: Ipv6Addr,
    /// The message in the frame in hand.
    pub(crate) message: Span,
    pub(crate) checksum: Checksum,
}

/// Answers an echo request, which came from the guest `guest` at `mac`.
pub(crate) fn echo_reply(link: &mut Link<'_>, mac: Mac, guest: Ipv6Addr, request: &Request<'_>) {
    let Some(IpAddr::V6(own)) = link.gateway.facing(IpAddr::V6(guest)) else {
        return;
    };
    let from = if request.to.is_multicast() {
        own
    } else {
        request.to
    };
    let (source, destination) = (IpAddr::V6(from), IpAddr::V6(guest));
    let route = link.divisible(Route::new(source, destination, Protocol::ICMPV6));
    let len = request.message.len;
    let headers = link.headers(mac, route, len);
    let mut reply = *request.header;
    reply.kind = icmpv6::ECHO_REPLY;
    let (sum, checksum) = if let Checksum::Partial { .. } = request.checksum {
        let pseudo = ip::pseudo_header(source, destination, Protocol::ICMPV6, len);
        let partial = Offload::partial(headers.len(), Header::CHECKSUM_OFFSET);
        (pseudo.folded(), partial)
    } else {
        (reply_sum(request, from), Checksum::Valid)
    };
    let body = Span {
        start: request.message.start + Header::LEN,
        len: len.saturating_sub(Header::LEN),
    };
    let offload = Offload {
        checksum,
        segmentation: None,
    };
    let reply = reply.with_checksum(sum);
    link.deliver(mac, &[headers.bytes(), reply.as_bytes()], body, offload);
}

/// The checksum of the answer: a request that came broken goes back broken (RFC 1624).
fn reply_sum(request: &Request<'_>, from: Ipv6Addr) -> u16 {
    let kind = |kind: u8| u16::from_be_bytes([kind, request.header.code]);
    let sum = checksum::update(
        request.header.checksum(),
        kind(request.header.kind),
        kind(icmpv6::ECHO_REPLY),
    );
    // The group that was asked gives way to the address that answers.
    let words = request.to.segments().into_iter().zip(from.segments());
    words.fold(sum, |sum, (old, new)| checksum::update(sum, old, new))
}

/// Sends an error from `ends.0` to the guest `ends.1`.
pub(crate) fn send_error(
    link: &mut Link<'_>,
    to: Mac,
    ends: (Ipv6Addr, Ipv6Addr),
    error: &Error<'_>,
) {
    let packet = whole(error.packet);
    let room = MTU_LEAST - ipv6::Header::LEN - Header::LEN;
    let quoted = packet.get(..room).unwrap_or(packet);
    let header = Header::new(error.kind, error.code, error.word);
    let (source, destination) = (IpAddr::V6(ends.0), IpAddr::V6(ends.1));
    let len = Header::LEN + quoted.len();
    let sum = ip::pseudo_header(source, destination, Protocol::ICMPV6, len)
        .with(header.as_bytes())
        .with(quoted)
        .finish();
    let headers = link.headers(to, Route::new(source, destination, Protocol::ICMPV6), len);
    let header = header.with_checksum(sum);
    link.send(to, &[headers.bytes(), header.as_bytes(), quoted]);
}

/// A packet without the padding of its frame.
fn whole(packet: &[u8]) -> &[u8] {
    let len = ipv6::Header::read(packet).map_or(0, |header| header.payload_len());
    packet.get(..ipv6::Header::LEN + len).unwrap_or(packet)
}

/// No error is sent about an ICMPv6 error or a redirect, to who has no address of its own, nor about what was sent to
/// many, unless it was too big or had an option that says so (RFC 4443 §2.4 e).
pub(crate) fn may_be_reported(error: &Error<'_>) -> bool {
    let Ok(packet) = ipv6::Packet::read(error.packet, usize::MAX) else {
        return false;
    };
    let source = packet.header.source();
    if source.is_unspecified() || source.is_multicast() {
        return false;
    }
    let about_option = error.kind == icmpv6::PARAMETER_PROBLEM && error.code == 2;
    if packet.header.destination().is_multicast()
        && error.kind != icmpv6::PACKET_TOO_BIG
        && !about_option
    {
        return false;
    }
    packet.protocol != Protocol::ICMPV6
        || packet
            .payload
            .first()
            .is_some_and(|kind| !icmpv6::is_error(*kind) && *kind != icmpv6::REDIRECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: &str, to: &str, protocol: Protocol, body: &[u8]) -> Vec<u8> {
        let (source, to) = (source.parse().unwrap(), to.parse().unwrap());
        let header = ipv6::Header::new(source, to, protocol, 64, body.len());
        [header.as_bytes(), body].concat()
    }

    #[test]
    fn what_no_error_is_sent_about() {
        let (guest, outside, many) = ("fd00::2", "2001:db8::1", "ff02::1");
        let (udp, icmp) = (Protocol::UDP, Protocol::ICMPV6);
        let unreachable = (icmpv6::UNREACHABLE, 4);
        for (packet, (kind, code), may) in [
            (packet(guest, outside, udp, &[0; 8]), unreachable, true),
            (packet(guest, outside, icmp, &[128; 8]), unreachable, true),
            (packet(guest, outside, icmp, &[129; 8]), unreachable, true),
            (packet(guest, outside, icmp, &[1; 8]), unreachable, false),
            (packet(guest, outside, icmp, &[127; 8]), unreachable, false),
            (packet(guest, outside, icmp, &[137; 8]), unreachable, false),
            (packet(guest, outside, icmp, &[]), unreachable, false),
            (packet("::", outside, udp, &[0; 8]), unreachable, false),
            (packet(guest, many, udp, &[0; 8]), unreachable, false),
            (
                packet(guest, many, udp, &[0; 8]),
                (icmpv6::PACKET_TOO_BIG, 0),
                true,
            ),
            (
                packet(guest, many, udp, &[0; 8]),
                (icmpv6::PARAMETER_PROBLEM, 2),
                true,
            ),
            (
                packet(guest, many, udp, &[0; 8]),
                (icmpv6::PARAMETER_PROBLEM, 1),
                false,
            ),
            (vec![0x60; 39], unreachable, false),
        ] {
            let from = "fd00::1".parse().unwrap();
            let error = Error {
                from,
                kind,
                code,
                word: 0,
                packet: &packet,
            };
            assert_eq!(may_be_reported(&error), may, "{packet:?}");
        }
    }
}
