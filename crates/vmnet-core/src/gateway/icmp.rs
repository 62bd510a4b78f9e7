//! ICMP of the gateway itself: echo replies (RFC 792), and errors about packets of guests, of which it
//! sends a bounded number (RFC 1812 §4.3.2).

use core::net::IpAddr;
use std::time::{Duration, Instant};

use vmnet_wire::checksum::{self, Sum};
use vmnet_wire::ethernet::Mac;
use vmnet_wire::icmpv4::{self, Header};
use vmnet_wire::ip::Protocol;
use zerocopy::IntoBytes;

use crate::drop::Drop;
use crate::frame::Span;
use crate::link::{Link, Route};

/// Errors that may be sent at once.
const BURST: u32 = 100;
/// A new one may be sent every so often.
const INTERVAL: Duration = Duration::from_millis(2);
/// Bytes of the packet in question that an error carries behind its IP header (RFC 792).
const QUOTED: usize = 8;

/// A budget of ICMP errors.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    tokens: u32,
    filled: Option<Instant>,
}

impl Limiter {
    fn take(&mut self, now: Instant) -> bool {
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
    let gateway = IpAddr::V4(link.gateway.address());
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

/// An ICMP error to a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Error<'a> {
    /// Who reports it: the gateway, or a router of the outside.
    pub(crate) from: IpAddr,
    /// ICMP type and code.
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// For "fragmentation needed".
    pub(crate) mtu: u16,
    /// The guest's packet, from its IP header on; cut to what an error carries.
    pub(crate) packet: &'a [u8],
}

/// Sends an ICMP error about a packet to the guest that sent it, if the budget allows.
pub(crate) fn send_error(
    link: &mut Link<'_>,
    limiter: &mut Limiter,
    to: Mac,
    guest: IpAddr,
    error: &Error<'_>,
) {
    if !limiter.take(link.now) {
        return link.drop(Drop::IcmpRate);
    }
    let header_len = error
        .packet
        .first()
        .map_or(0, |first| usize::from(first & 0x0f) * 4);
    let quoted = error
        .packet
        .get(..header_len + QUOTED)
        .unwrap_or(error.packet);
    let header = Header::new(error.kind, error.code, 0, error.mtu);
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

#[cfg(test)]
mod tests {
    use super::*;

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
