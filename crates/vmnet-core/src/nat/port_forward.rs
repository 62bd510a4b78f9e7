//! Ports of the host that lead to guests.

use core::net::{IpAddr, SocketAddr};

use std::collections::BTreeSet;

use slotmap::{Key as _, KeyData, SecondaryMap, SlotMap};
use vmnet_wire::ethernet::Mac;
use vmnet_wire::ip::Protocol;

use crate::gateway::dns::Label;
use crate::link::Gateway;
use crate::nat::clients::Clients;
use crate::nat::destination::loopback;
use crate::outbox::{ForwardId, PortId, SocketId};

/// The guest that a rule leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ForwardGuest {
    /// Whoever has this address.
    Address(IpAddr),
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

    /// Rules with a socket that leads to a guest wherever it is.
    pub(crate) fn followers(&self) -> impl Iterator<Item = (ForwardId, Forward)> + '_ {
        self.sockets.keys().filter_map(|id| {
            let rule = *self.rules.get(id)?;
            let moves = !matches!(rule.guest, ForwardGuest::Address(_));
            moves.then_some((id, rule))
        })
    }

    /// Where the host listens for a forwarded port, as an address that the socket of a guest of this family (`v6`) can
    /// reach; best one of that family.
    pub(crate) fn listener(&self, protocol: Protocol, port: u16, v6: bool) -> Option<SocketAddr> {
        self.by_port
            .range((protocol.0, port, 0)..=(protocol.0, port, u64::MAX))
            .filter_map(|(_, _, id)| self.rules.get(ForwardId::from(KeyData::from_ffi(*id))))
            .map(|rule| match rule.listen.ip() {
                // `[::]` takes IPv4 too (RFC 3493 §5.3), `0.0.0.0` no IPv6.
                IpAddr::V6(ip) if ip.is_unspecified() => loopback(v6),
                IpAddr::V4(ip) if ip.is_unspecified() => loopback(false),
                ip => ip,
            })
            // A connection is of the family of its destination, a mapping of that of its guest.
            .filter(|ip| ip.is_ipv6() == v6 || protocol == Protocol::TCP)
            .min_by_key(|ip| ip.is_ipv6() != v6)
            .map(|ip| SocketAddr::new(ip, port))
    }
}

/// The address by which a guest at `guest` knows a client of a forwarded port: the client's own, unless it would mean
/// something else to the guest, or is of another family. `None`: the gateway has no address of the guest's family.
pub(crate) fn seen_by_guest(
    client: SocketAddr,
    guest: IpAddr,
    gateway: &Gateway,
) -> Option<SocketAddr> {
    let ip = client.ip().to_canonical();
    let of_host = match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_unspecified(),
        IpAddr::V6(ip) => {
            matches!(ip.segments(), [0, ..]) || ip.is_unicast_link_local() || ip.is_multicast()
        }
    };
    // Without a way out guests know none back.
    let own = ip.is_ipv4() == guest.is_ipv4()
        && gateway.has_way_out(ip)
        && !of_host
        && !gateway.is_here(ip);
    let seen = if own { ip } else { gateway.facing(guest)? };
    Some(SocketAddr::new(seen, client.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_from_where_the_guest_can_answer() {
        let (v4, v6) = ("192.168.64.2", "fd00:0:0:64::2");
        let (own4, own6) = ("192.168.64.1", "fd00:0:0:64::1");
        for (client, guest, seen, without_way_out) in [
            ("10.0.0.9", v4, "10.0.0.9", own4),
            ("::ffff:10.0.0.9", v4, "10.0.0.9", own4),
            ("127.0.0.1", v4, own4, own4),
            ("192.168.64.9", v4, own4, own4),
            ("2001:db8::1", v4, own4, own4),
            ("2001:db8::1", v6, "2001:db8::1", own6),
            ("fd99::1", v6, "fd99::1", own6),
            ("fd00:0:0:64::9", v6, own6, own6),
            ("::1", v6, own6, own6),
            ("fe80::9", v6, own6, own6),
            ("10.0.0.9", v6, own6, own6),
            ("::ffff:10.0.0.9", v6, own6, own6),
        ] {
            let client = SocketAddr::new(client.parse().unwrap(), 700);
            let guest = guest.parse().unwrap();
            let at = |ip: &str| Some(SocketAddr::new(ip.parse().unwrap(), 700));
            let mut gateway = Gateway::shared("192.168.64.0/24");
            assert_eq!(seen_by_guest(client, guest, &gateway), at(seen), "{client}");
            (gateway.nat44, gateway.nat66) = (false, false);
            let found = seen_by_guest(client, guest, &gateway);
            assert_eq!(found, at(without_way_out), "{client} without a way out");
        }
    }

    #[test]
    fn a_hairpin_reaches_the_listener_by_the_guests_family() {
        let (tcp, udp) = (ForwardProtocol::Tcp, ForwardProtocol::Udp);
        for (protocol, listen, by_v4, by_v6) in [
            (
                tcp,
                "0.0.0.0:80",
                Some("127.0.0.1:80"),
                Some("127.0.0.1:80"),
            ),
            (udp, "0.0.0.0:80", Some("127.0.0.1:80"), None),
            (udp, "[::]:80", Some("127.0.0.1:80"), Some("[::1]:80")),
            (tcp, "[::]:80", Some("127.0.0.1:80"), Some("[::1]:80")),
            (udp, "10.0.0.5:80", Some("10.0.0.5:80"), None),
            (tcp, "[::1]:80", Some("[::1]:80"), Some("[::1]:80")),
            (udp, "[::1]:80", None, Some("[::1]:80")),
            (udp, "[::]:81", None, None),
        ] {
            let mut forwards = Forwards::default();
            let rule = Forward {
                protocol,
                listen: listen.parse().unwrap(),
                guest: ForwardGuest::Address([192, 168, 64, 2].into()),
                guest_port: 80,
            };
            forwards.add(rule);
            for (v6, reached) in [(false, by_v4), (true, by_v6)] {
                let found = forwards.listener(protocol.number(), 80, v6);
                let reached = reached.map(|address| address.parse().unwrap());
                assert_eq!(found, reached, "{protocol:?} {listen} {v6}");
            }
            // Of two listeners the one of the guest's family is taken.
            forwards.add(Forward {
                listen: "[2001:db8::5]:80".parse().unwrap(),
                ..rule
            });
            let found = forwards.listener(protocol.number(), 80, true).unwrap();
            assert!(found.is_ipv6());
        }
    }
}
