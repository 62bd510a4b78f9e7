//! Ports of the host that lead to guests.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use slotmap::{SecondaryMap, SlotMap};
use vmnet_wire::ip::Protocol;

use crate::link::Gateway;
use crate::outbox::{ForwardId, PortId, SocketId};

/// The guest that a rule leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ForwardGuest {
    /// Whoever has this address.
    Address(Ipv4Addr),
    /// The guest behind this port, at whatever address it has leased.
    Port(PortId),
}

/// TCP or UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ForwardProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl ForwardProtocol {
    fn number(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::TCP,
            Self::Udp => Protocol::UDP,
        }
    }
}

/// A rule: what comes to `listen` goes to a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: ForwardProtocol,
    /// Where the host listens.
    pub listen: SocketAddr,
    /// To whom.
    pub guest: ForwardGuest,
    /// To which port of it.
    pub guest_port: u16,
}

/// The rules of a network.
#[derive(Debug, Default)]
pub(crate) struct Forwards {
    pub(crate) rules: SlotMap<ForwardId, Forward>,
    /// Sockets of UDP rules whose guest has, or had, an address.
    pub(crate) sockets: SecondaryMap<ForwardId, SocketId>,
}

impl Forwards {
    /// Rules with a socket that leads to whoever is behind a port, and to which port of it.
    pub(crate) fn followers(&self) -> impl Iterator<Item = (ForwardId, PortId, u16)> + '_ {
        self.sockets.keys().filter_map(|id| {
            let rule = self.rules.get(id)?;
            match rule.guest {
                ForwardGuest::Port(port) => Some((id, port, rule.guest_port)),
                ForwardGuest::Address(_) => None,
            }
        })
    }

    /// Where the host listens for a forwarded port, as an address to connect to.
    pub(crate) fn listener(&self, protocol: Protocol, port: u16) -> Option<SocketAddr> {
        let rule = self
            .rules
            .values()
            .find(|rule| rule.listen.port() == port && rule.protocol.number() == protocol)?;
        let ip = match rule.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        Some(SocketAddr::new(ip, port))
    }
}

/// The address by which a guest knows a client of a forwarded port: the client's own, unless it would
/// mean something else to the guest.
pub(crate) fn seen_by_guest(client: SocketAddr, gateway: &Gateway) -> SocketAddr {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let own = match client.ip() {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_unspecified() && !gateway.subnet.contains(ip),
        // Guests have IPv4 alone: a client by IPv6 is the gateway's guest.
        IpAddr::V6(_) => false,
    };
    if own {
        client
    } else {
        SocketAddr::new(IpAddr::V4(gateway.address()), client.port())
    }
}
