//! Ports of the host that lead to guests.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use std::collections::BTreeSet;

use slotmap::{Key as _, KeyData, SecondaryMap, SlotMap};
use vmnet_wire::ethernet::Mac;
use vmnet_wire::ip::Protocol;

use crate::gateway::dns::Label;
use crate::link::Gateway;
use crate::nat::clients::Clients;
use crate::outbox::{ForwardId, PortId, SocketId};

/// The guest that a rule leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ForwardGuest {
    /// Whoever has this address.
    Address(Ipv4Addr),
    /// The guest behind this port, at whatever address it has.
    Port(PortId),
    /// The guest with this MAC address, at whatever address it has.
    Mac(Mac),
    /// The guest that has this name when a client comes.
    Name(Label),
}

/// TCP or UDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ForwardProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl core::fmt::Display for ForwardProtocol {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
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
    rules: SlotMap<ForwardId, Forward>,
    /// The rules again, by what the host listens on.
    by_port: BTreeSet<(u8, u16, u64)>,
    /// Sockets of UDP rules whose guest has, or had, an address.
    sockets: SecondaryMap<ForwardId, SocketId>,
    /// These sockets again, by the guest's address and port that they lead to.
    by_guest: BTreeSet<(SocketAddr, u64)>,
    /// Who came to a guest's port that several rules lead to, and by which.
    pub(crate) clients: Clients,
}

impl Forwards {
    pub(crate) fn add(&mut self, rule: Forward) -> ForwardId {
        let port = (rule.protocol.number().0, rule.listen.port());
        let id = self.rules.insert(rule);
        self.by_port.insert((port.0, port.1, id.data().as_ffi()));
        id
    }

    /// Answers the socket of the rule, if it has one.
    pub(crate) fn remove(&mut self, id: ForwardId) -> Option<SocketId> {
        let rule = self.rules.remove(id)?;
        let port = (rule.protocol.number().0, rule.listen.port());
        self.by_port.remove(&(port.0, port.1, id.data().as_ffi()));
        self.sockets.remove(id)
    }

    pub(crate) fn rule(&self, id: ForwardId) -> Option<&Forward> {
        self.rules.get(id)
    }

    pub(crate) fn socket(&self, id: ForwardId) -> Option<SocketId> {
        self.sockets.get(id).copied()
    }

    /// A rule's socket leads to `guest` from now on, and no longer to `before`.
    pub(crate) fn lead(
        &mut self,
        id: ForwardId,
        socket: SocketId,
        guest: SocketAddr,
        before: Option<SocketAddr>,
    ) {
        self.sockets.insert(id, socket);
        if let Some(before) = before {
            self.lead_away(socket, before);
        }
        self.by_guest.insert((guest, socket.data().as_ffi()));
    }

    /// A rule's socket leads to `guest` no longer.
    pub(crate) fn lead_away(&mut self, socket: SocketId, guest: SocketAddr) {
        self.by_guest.remove(&(guest, socket.data().as_ffi()));
    }

    /// The sockets of rules that lead to an address and port of a guest.
    pub(crate) fn sockets_to(&self, guest: SocketAddr) -> impl Iterator<Item = SocketId> + '_ {
        self.by_guest
            .range((guest, 0)..=(guest, u64::MAX))
            .map(|(_, socket)| SocketId::from(KeyData::from_ffi(*socket)))
    }

    /// Rules with a socket that leads to a guest wherever it is: to whom, and to which port of it.
    pub(crate) fn followers(&self) -> impl Iterator<Item = (ForwardId, ForwardGuest, u16)> + '_ {
        self.sockets.keys().filter_map(|id| {
            let rule = self.rules.get(id)?;
            let moves = !matches!(rule.guest, ForwardGuest::Address(_));
            moves.then_some((id, rule.guest, rule.guest_port))
        })
    }

    /// Where the host listens for a forwarded port, as an address that a guest's socket can reach.
    pub(crate) fn listener(&self, protocol: Protocol, port: u16) -> Option<SocketAddr> {
        self.by_port
            .range((protocol.0, port, 0)..=(protocol.0, port, u64::MAX))
            .filter_map(|(_, _, id)| self.rules.get(ForwardId::from(KeyData::from_ffi(*id))))
            .find_map(|rule| match rule.listen.ip() {
                // `[::]` takes IPv4 too (RFC 3493 §5.3), and guests' sockets are of that family.
                ip if ip.is_unspecified() => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                // A connection is of the family of its destination, a mapping of that of its guest.
                IpAddr::V6(_) if rule.protocol == ForwardProtocol::Udp => None,
                ip => Some(ip),
            })
            .map(|ip| SocketAddr::new(ip, port))
    }
}

/// The address by which a guest knows a client of a forwarded port: the client's own, unless it would
/// mean something else to the guest.
pub(crate) fn seen_by_guest(client: SocketAddr, gateway: &Gateway) -> SocketAddr {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    let own = match client.ip() {
        // Without a way out guests know none back.
        IpAddr::V4(_) if !gateway.nat44 => false,
        IpAddr::V4(ip) => {
            let guests = gateway.ipv4.subnet().contains(ip);
            !ip.is_loopback() && !ip.is_unspecified() && !guests
        }
        // Guests have IPv4 alone: a client by IPv6 is the gateway's guest.
        IpAddr::V6(_) => false,
    };
    if own {
        client
    } else {
        SocketAddr::new(IpAddr::V4(gateway.address()), client.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_from_where_the_guest_can_answer() {
        for (client, with_way_out) in [
            ("10.0.0.9:700", "10.0.0.9:700"),
            ("[::ffff:10.0.0.9]:700", "10.0.0.9:700"),
            ("127.0.0.1:700", "192.168.64.1:700"),
            ("192.168.64.9:700", "192.168.64.1:700"),
            ("[2001:db8::1]:700", "192.168.64.1:700"),
        ] {
            let client = client.parse().unwrap();
            let mut gateway = Gateway::shared("192.168.64.0/24");
            let seen = seen_by_guest(client, &gateway);
            assert_eq!(seen, with_way_out.parse().unwrap());
            gateway.nat44 = false;
            let seen = seen_by_guest(client, &gateway);
            assert_eq!(seen, "192.168.64.1:700".parse().unwrap());
        }
    }

    #[test]
    fn a_hairpin_reaches_the_listener_by_the_guests_family() {
        let (tcp, udp) = (ForwardProtocol::Tcp, ForwardProtocol::Udp);
        for (protocol, listen, reached) in [
            (tcp, "0.0.0.0:80", Some("127.0.0.1:80")),
            (udp, "[::]:80", Some("127.0.0.1:80")),
            (tcp, "[::]:80", Some("127.0.0.1:80")),
            (udp, "10.0.0.5:80", Some("10.0.0.5:80")),
            (tcp, "[::1]:80", Some("[::1]:80")),
            (udp, "[::1]:80", None),
            (udp, "[::]:81", None),
        ] {
            let mut forwards = Forwards::default();
            forwards.add(Forward {
                protocol,
                listen: listen.parse().unwrap(),
                guest: ForwardGuest::Address([192, 168, 64, 2].into()),
                guest_port: 80,
            });
            let found = forwards.listener(protocol.number(), 80);
            let reached = reached.map(|address| address.parse().unwrap());
            assert_eq!(found, reached, "{protocol:?} {listen}");
        }
    }
}
