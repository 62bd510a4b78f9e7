//! The host's resolvers: their order, and which of them is not answering at present.
//!
//! The configured order is kept, since a resolver may know names that the others do not. One that was silent or
//! unreachable goes behind the living ones for a while. UDP and TCP are judged apart: a resolver may speak one only.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Transport;

/// More than this are not used; `resolv.conf` itself ends at three.
const LIMIT: usize = 8;

/// How long a resolver that gave no answer is asked after the others.
const PENALTY: Duration = Duration::from_secs(30);

/// The list, in the order it was configured.
#[derive(Debug, Default)]
pub(super) struct Resolvers(Vec<Resolver>);

#[derive(Debug)]
struct Resolver {
    address: SocketAddr,
    udp: Health,
    tcp: Health,
}

#[derive(Clone, Copy, Debug, Default)]
struct Health {
    dead_until: Option<Instant>,
    answered: Option<Instant>,
}

impl Resolvers {
    /// Takes a new list; what is known of resolvers that stay is kept. Addresses that lead back to us, or nowhere,
    /// are left out. Says whether anything changed.
    pub(super) fn set(&mut self, addresses: &[SocketAddr], gateway: &[IpAddr]) -> bool {
        let mut wanted: Vec<SocketAddr> = Vec::new();
        for &address in addresses {
            let ip = address.ip().to_canonical();
            let unusable = gateway.contains(&ip) || ip.is_multicast() || address.port() == 0;
            if !unusable && !wanted.contains(&address) && wanted.len() < LIMIT {
                wanted.push(address);
            }
        }
        if self
            .0
            .iter()
            .map(|resolver| resolver.address)
            .eq(wanted.iter().copied())
        {
            return false;
        }
        let mut known = std::mem::take(&mut self.0);
        self.0 = wanted
            .into_iter()
            .map(|address| {
                match known
                    .iter()
                    .position(|resolver| resolver.address == address)
                {
                    Some(place) => known.swap_remove(place),
                    None => Resolver {
                        address,
                        udp: Health::default(),
                        tcp: Health::default(),
                    },
                }
            })
            .collect();
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whom to ask, best first.
    pub(super) fn order(&self, now: Instant, transport: Transport) -> Vec<SocketAddr> {
        let dead = |resolver: &&Resolver| {
            resolver
                .health(transport)
                .dead_until
                .is_some_and(|until| now < until)
        };
        let (last, first): (Vec<&Resolver>, Vec<&Resolver>) = self.0.iter().partition(dead);
        first
            .into_iter()
            .chain(last)
            .map(|resolver| resolver.address)
            .collect()
    }

    /// A valid answer came, late or not.
    pub(super) fn answered(&mut self, now: Instant, address: SocketAddr, transport: Transport) {
        if let Some(health) = self.health_mut(address, transport) {
            *health = Health {
                dead_until: None,
                answered: Some(now),
            };
        }
    }

    /// A query sent at `sent` got no answer. That says nothing if others were answered since: one name may be slow.
    pub(super) fn silent(
        &mut self,
        now: Instant,
        address: SocketAddr,
        transport: Transport,
        sent: Instant,
    ) {
        if let Some(health) = self.health_mut(address, transport)
            && health.answered.is_none_or(|answered| answered < sent)
        {
            health.dead_until = now.checked_add(PENALTY);
        }
    }

    fn health_mut(&mut self, address: SocketAddr, transport: Transport) -> Option<&mut Health> {
        let resolver = self
            .0
            .iter_mut()
            .find(|resolver| resolver.address == address)?;
        Some(match transport {
            Transport::Udp => &mut resolver.udp,
            Transport::Tcp => &mut resolver.tcp,
        })
    }
}

impl Resolver {
    fn health(&self, transport: Transport) -> Health {
        match transport {
            Transport::Udp => self.udp,
            Transport::Tcp => self.tcp,
        }
    }
}
