//! Router advertisements (RFC 4861 §6.2): periodic, asked for, to a guest that is plugged in, and a last one.
//!
//! Who asks from an address of its own is answered alone and at once (§6.2.6 allows it); who asks without one, or among
//! too many, hears the next one to all, and these are three seconds apart. A port is told when it is new, so that its
//! guest hears something soon, whether it asks or not.
//!
//! Where nothing leads out, by neither family (host mode), a network is quiet: it tells nobody anything before somebody has
//! asked, and a new port never. Programs on such a network, as on one of macOS, hear what they are sent and nothing else.
//!
//! Without NAT66 the router's lifetime is zero: guests get addresses and no way out. The resolver and the domain are those
//! of the network (RFC 8106). Prefixes live for 30 days and are preferred for 7, as Apple's networks have it.

use core::net::Ipv6Addr;
use std::time::{Duration, Instant};

use vmnet_wire::ethernet::{EtherType, Mac};
use vmnet_wire::icmpv6;
use vmnet_wire::ip::Protocol;
use vmnet_wire::ipv6;
use vmnet_wire::ndp::{self, Dnssl, LinkLayer, Mtu, PrefixInformation, Rdnss, RouterHead};
use zerocopy::IntoBytes;

use crate::gateway::icmp::Budgets;
use crate::gateway::ndp::ALL_NODES;
use crate::link::{Link, TTL};
use crate::outbox::{Action, PortId};
use crate::prefix::Prefix;

/// Time between two unsolicited advertisements, at least and at most (§6.2.1).
const INTERVAL_MIN: Duration = Duration::from_secs(200);
const INTERVAL_MAX: Duration = Duration::from_secs(600);
/// The first ones come sooner, at most so far apart (§6.2.4).
const INITIAL: u8 = 3;
const INITIAL_MAX: Duration = Duration::from_secs(16);
/// Who asks waits for so long at most (§6.2.6), but two to all are so far apart at least.
const DELAY_MAX: Duration = Duration::from_millis(500);
const APART: Duration = Duration::from_secs(3);
/// How long guests may use us as a way out or as a resolver when they hear nothing more, in seconds (§6.2.1: three
/// intervals; RFC 8106 §5.1 too).
const LIFETIME: u16 = 1800;
/// How long an address of the prefix is valid and preferred, in seconds.
const VALID: u32 = 30 * 24 * 3600;
const PREFERRED: u32 = 7 * 24 * 3600;
/// What is left of an address when the network ends: two hours are the least that guests believe (RFC 4862 §5.5.3 e).
const VALID_AT_END: u32 = 2 * 3600;

/// What is advertised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Contents {
    pub(crate) prefix: Prefix,
    pub(crate) mtu: u16,
    pub(crate) mac: Mac,
    /// There is a way out.
    pub(crate) router: bool,
    /// Nobody is told who does not ask.
    pub(crate) quiet: bool,
    /// A DHCPv6 server has addresses, and whatever else there is to know.
    pub(crate) dhcp6: bool,
    /// We are a resolver, and guests have names in this domain.
    pub(crate) domain: Option<String>,
}

impl Contents {
    /// The message, without its checksum. `ends`: the network does.
    fn message(&self, ends: bool) -> Vec<u8> {
        let lifetime = if self.router && !ends { LIFETIME } else { 0 };
        let (valid, preferred) = if ends {
            (VALID_AT_END, 0)
        } else {
            (VALID, PREFERRED)
        };
        let (prefix, dhcp6) = (self.prefix.network(), self.dhcp6 && !ends);
        let mut message = [
            RouterHead::new(TTL, lifetime, dhcp6, dhcp6).as_bytes(),
            LinkLayer::source(self.mac).as_bytes(),
            Mtu::new(self.mtu).as_bytes(),
            PrefixInformation::new(prefix, Prefix::LEN, valid, preferred).as_bytes(),
        ]
        .concat();
        let Some(domain) = &self.domain else {
            return message;
        };
        let lifetime = if ends { 0 } else { u32::from(LIFETIME) };
        let resolver = Rdnss::new(lifetime, self.prefix.gateway());
        message.extend(resolver.as_bytes());
        let names = labels(domain);
        if let Some(head) = Dnssl::new(lifetime, names.len()).filter(|_| !names.is_empty()) {
            message.extend(head.as_bytes());
            message.extend(names);
        }
        message
    }
}

/// A domain in the form of DNS (RFC 1035 §3.1), filled with zeros to a multiple of eight bytes; nothing, if it has none.
fn labels(domain: &str) -> Vec<u8> {
    let mut name = Vec::new();
    for label in domain.split('.').filter(|label| !label.is_empty()) {
        match u8::try_from(label.len()) {
            Ok(len @ 1..=63) => name.push(len),
            _ => return Vec::new(),
        }
        name.extend(label.as_bytes());
    }
    if !name.is_empty() {
        name.push(0);
        name.resize(name.len().next_multiple_of(8), 0);
    }
    name
}

/// The gateway as a router.
#[derive(Debug)]
pub(crate) struct Advertiser {
    message: Vec<u8>,
    last_message: Vec<u8>,
    /// There is a way out.
    router: bool,
    /// Ports that are new are not told.
    quiet: bool,
    /// Nobody has asked on a quiet network.
    silent: bool,
    random: u64,
    /// When the next one to all is due, and how many of the first are left.
    next: Instant,
    initial: u8,
    /// When one was last sent to all.
    sent: Option<Instant>,
    /// When one to all is due because somebody asked.
    asked: Option<Instant>,
    /// Ports that were told nothing yet.
    fresh: Vec<PortId>,
    /// Answers to one guest.
    budgets: Budgets,
}

impl Advertiser {
    pub(crate) fn new(now: Instant, contents: &Contents, seed: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = seed;
        let mut advertiser = Self {
            message: contents.message(false),
            last_message: contents.message(true),
            router: contents.router,
            quiet: contents.quiet,
            silent: contents.quiet,
            random: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            next: now,
            initial: INITIAL,
            sent: None,
            asked: None,
            fresh: Vec::new(),
            budgets: Budgets::default(),
        };
        advertiser.next = now + advertiser.chance(Duration::ZERO, INITIAL_MAX);
        advertiser
    }

    /// A port is new.
    pub(crate) fn plugged(&mut self, port: PortId) {
        if !self.quiet {
            self.fresh.push(port);
        }
    }

    /// A port's guest listens only now. It is told of a way out, as when it is plugged in; where there is none, it asks.
    pub(crate) fn listens(&mut self, port: PortId) {
        if self.router && !self.quiet && !self.fresh.contains(&port) {
            self.fresh.push(port);
        }
    }

    /// A port is gone.
    pub(crate) fn unplugged(&mut self, port: PortId) {
        self.fresh.retain(|other| *other != port);
    }

    /// The guest at `mac` asks who is a router, from this address if it has one.
    pub(crate) fn asked(&mut self, link: &mut Link<'_>, mac: Mac, source: Ipv6Addr) {
        if std::mem::take(&mut self.silent) {
            // From now on there is somebody to whom lifetimes are to be renewed.
            self.initial = 0;
            self.next = link.now + self.chance(INTERVAL_MIN, INTERVAL_MAX);
        }
        if !source.is_unspecified() && self.budgets.take(link, mac) {
            if let Some(frame) = frame(link, &self.message, mac, source) {
                link.send(mac, &[&frame]);
            }
            return;
        }
        if self.asked.is_none() {
            let soon = link.now + self.chance(Duration::ZERO, DELAY_MAX);
            self.asked = Some(self.sent.map_or(soon, |sent| soon.max(sent + APART)));
        }
    }

    /// Tells the ports that are new.
    pub(crate) fn flush(&mut self, link: &mut Link<'_>) {
        if self.fresh.is_empty() {
            return;
        }
        let group = ndp::group_mac(ALL_NODES);
        let Some(frame) = frame(link, &self.message, group, ALL_NODES) else {
            return;
        };
        let frame = link.out.write(&[&frame]);
        for port in self.fresh.drain(..) {
            let frame = frame.clone();
            link.out.push(Action::Reply { port, frame });
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let next = self.asked.map_or(self.next, |asked| asked.min(self.next));
        (!self.silent).then_some(next)
    }

    /// Sends what is due.
    pub(crate) fn timeout(&mut self, link: &mut Link<'_>) {
        if self.next_deadline().is_none_or(|due| link.now < due) {
            return;
        }
        if link.now >= self.next {
            self.initial = self.initial.saturating_sub(1);
            let wait = if self.initial > 0 {
                self.chance(APART, INITIAL_MAX)
            } else {
                self.chance(INTERVAL_MIN, INTERVAL_MAX)
            };
            self.next = link.now + wait;
        }
        // Others were told a moment ago: this one waits for its turn.
        if let Some(sent) = self.sent.filter(|sent| link.now < *sent + APART) {
            self.asked = Some(sent + APART);
            return;
        }
        (self.sent, self.asked) = (Some(link.now), None);
        tell_all(link, &self.message);
    }

    /// The network ends: guests look for another way out, and for other resolvers (§6.2.5).
    pub(crate) fn end(&mut self, link: &mut Link<'_>) {
        if self.silent {
            return;
        }
        tell_all(link, &self.last_message);
    }

    /// A time between two, by chance (splitmix64).
    fn chance(&mut self, least: Duration, most: Duration) -> Duration {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let span = u64::try_from((most - least).as_millis()).unwrap_or(u64::MAX);
        least + Duration::from_millis(bits % span.saturating_add(1))
    }
}

fn tell_all(link: &mut Link<'_>, message: &[u8]) {
    let group = ndp::group_mac(ALL_NODES);
    if let Some(frame) = frame(link, message, group, ALL_NODES) {
        link.send(group, &[&frame]);
    }
}

/// A frame of a message to `to` at `mac`.
fn frame(link: &Link<'_>, message: &[u8], mac: Mac, to: Ipv6Addr) -> Option<Vec<u8>> {
    let own = link.gateway.link_local()?;
    let ethernet = link.ethernet(mac, EtherType::IPV6);
    let len = message.len();
    let header = ipv6::Header::new(own, to, Protocol::ICMPV6, ndp::HOP_LIMIT, len);
    let mut frame = [ethernet.as_bytes(), header.as_bytes(), message].concat();
    let sum = icmpv6::checksum(own, to, message).to_be_bytes();
    let at = frame.len() - len + usize::from(icmpv6::Header::CHECKSUM_OFFSET);
    frame.get_mut(at..at + 2)?.copy_from_slice(&sum);
    Some(frame)
}

#[cfg(test)]
mod tests;
