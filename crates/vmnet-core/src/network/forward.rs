//! Rules that lead from ports of the host to guests, and who these guests are now.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::collections::HashMap;
use std::time::Instant;

use vmnet_wire::ethernet::Mac;

use crate::gateway::dhcp::{self, State};
use crate::gateway::dns::Label;
use crate::gateway::leases::Leasing;
use crate::link::Link;
use crate::nat::port_forward::{Forward, ForwardGuest, ForwardProtocol};
use crate::network::Network;
use crate::outbox::{ForwardId, Outbox, PortId, SocketId};

impl Network {
    /// The host now listens for a forwarded port. On a network whose gateway has no address the rule leads nowhere.
    pub fn add_forward(&mut self, rule: Forward) -> ForwardId {
        self.nat.forwards.add(rule)
    }

    /// The host listens no longer. Connections that were accepted go on.
    pub fn remove_forward(&mut self, rule: ForwardId, out: &mut Outbox) {
        self.nat.remove_forward(rule, out);
    }

    /// The socket of a UDP rule, which the caller has bound and names so from now on: it stays the same as long as
    /// the rule, and follows the guest to other addresses. `None` while the guest of the rule has no address, and
    /// if the rule is not one for UDP: ask again when a datagram comes.
    pub fn forward_socket(
        &mut self,
        now: Instant,
        rule: ForwardId,
        out: &mut Outbox,
    ) -> Option<SocketId> {
        let gateway = self.gateway?;
        let forward = *self.nat.forwards.rule(rule)?;
        if forward.protocol != ForwardProtocol::Udp {
            return None;
        }
        // One socket has all clients of the rule: its guest is of the family that it listens for.
        let guest = self.forward_guest(now, &forward, forward.listen.ip())?;
        let mut link = link!(self, gateway, now, out);
        Some(self.nat.forward_socket(&mut link, rule, guest))
    }

    /// A client connected to a forwarded TCP port: the answer names its socket from now on. `None`: it
    /// cannot be served, and is to be reset. `room` is what its send queue takes, in bytes.
    pub fn accepted(
        &mut self,
        now: Instant,
        rule: ForwardId,
        client: SocketAddr,
        room: usize,
        out: &mut Outbox,
    ) -> Option<SocketId> {
        let gateway = self.gateway?;
        let forward = *self.nat.forwards.rule(rule)?;
        let guest = self.forward_guest(now, &forward, client.ip())?;
        let mut link = link!(self, gateway, now, out);
        self.nat.accepted(&mut link, guest, client, room)
    }

    /// The address and port of the guest that a rule leads to, if it has one: best one of the client's family.
    fn forward_guest(&self, now: Instant, rule: &Forward, client: IpAddr) -> Option<SocketAddr> {
        let v6 = client.to_canonical().is_ipv6();
        let address = self.address_of_guest(now, &rule.guest, v6)?;
        Some(SocketAddr::new(address, rule.guest_port))
    }

    /// The address that the guest of a rule has now: of this family (`v6`), or else of the other.
    fn address_of_guest(&self, now: Instant, guest: &ForwardGuest, v6: bool) -> Option<IpAddr> {
        let of = |v6: bool| {
            if v6 {
                self.address6_of_guest(now, guest).map(IpAddr::V6)
            } else {
                self.address4_of_guest(now, guest).map(IpAddr::V4)
            }
        };
        of(v6).or_else(|| of(!v6))
    }

    /// The addresses that a guest has now, of each family.
    #[must_use]
    pub fn addresses_of_guest(
        &self,
        now: Instant,
        guest: &ForwardGuest,
    ) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
        (
            self.address4_of_guest(now, guest),
            self.address6_of_guest(now, guest),
        )
    }

    fn address4_of_guest(&self, now: Instant, guest: &ForwardGuest) -> Option<Ipv4Addr> {
        self.gateway?.ipv4?;
        match guest {
            ForwardGuest::Address(IpAddr::V4(address)) => Some(*address),
            ForwardGuest::Address(IpAddr::V6(_)) => None,
            ForwardGuest::Port(port) => self.address_of(now, *port),
            ForwardGuest::Mac(mac) => self.address_of_mac(now, *mac),
            ForwardGuest::Name(name) => self.address_named(now, name),
        }
    }

    fn address6_of_guest(&self, now: Instant, guest: &ForwardGuest) -> Option<Ipv6Addr> {
        self.gateway?.ipv6?;
        match guest {
            ForwardGuest::Address(IpAddr::V6(address)) => Some(*address),
            ForwardGuest::Address(IpAddr::V4(_)) => None,
            ForwardGuest::Port(port) => self.address6_of(now, *port),
            ForwardGuest::Mac(mac) => self.address6_of_macs(now, &[*mac]),
            ForwardGuest::Name(name) => {
                let mut given = self.ports_named(name).peekable();
                if given.peek().is_some() {
                    return given.find_map(|port| self.address6_of(now, port));
                }
                if let Some(mac) = self.station_named(name) {
                    return self.address6_of_macs(now, &[mac]);
                }
                if let [_, Some(IpAddr::V6(address))] = self.services.dns.addresses_of(name) {
                    return Some(address);
                }
                // Names come with leases: whoever has the IPv4 address of the name is meant.
                let address = self.address_named(now, name)?;
                let lease = |dhcp: &Leasing<dhcp::Server, Ipv4Addr>| {
                    let lease = dhcp.register().lease(address)?;
                    (lease.state == State::Bound).then_some(lease.mac)
                };
                let known = self.neighbours.look_up(now, IpAddr::V4(address));
                let mac = known.or_else(|| self.services.dhcp.as_ref().and_then(lease))?;
                self.address6_of_macs(now, &[mac])
            }
        }
    }

    /// The IPv6 address of the guest behind a port, if several that of the one heard last. It is none that the link
    /// alone knows. Of a guest that was silent for long it is the one it has leased, else the one it spoke from last.
    #[must_use]
    pub fn address6_of(&self, now: Instant, port: PortId) -> Option<Ipv6Addr> {
        let last = |mac: &Mac| self.fdb.seen_behind(port, *mac);
        let mut macs: Vec<Mac> = self.macs_behind(port).collect();
        macs.sort_by_key(|mac| core::cmp::Reverse(last(mac)));
        self.address6_of_macs(now, &macs)
    }

    /// The IPv6 address of the first of these MACs that is known to have one.
    fn address6_of_macs(&self, now: Instant, macs: &[Mac]) -> Option<Ipv6Addr> {
        let heard = |mac: &Mac| self.neighbours.address6_of(now, *mac);
        let leased = |mac: &Mac| self.services.leased6_by(*mac);
        let aged = |mac: &Mac| self.neighbours.aged6_of(*mac);
        let find = |of: &dyn Fn(&Mac) -> Option<Ipv6Addr>| macs.iter().find_map(of);
        find(&heard)
            .or_else(|| find(&leased))
            .or_else(|| find(&aged))
    }

    /// The address of the guest behind a port: the one it has leased, if several that of the one heard last; else the
    /// one it speaks from.
    #[must_use]
    pub fn address_of(&self, now: Instant, port: PortId) -> Option<Ipv4Addr> {
        let leased = self
            .services
            .address_of(|mac| self.fdb.seen_behind(port, mac));
        leased.or_else(|| {
            let last = |mac: &Mac| self.fdb.seen_behind(port, *mac);
            let mac = self.macs_behind(port).max_by_key(last)?;
            self.neighbours.address_of(now, mac)
        })
    }

    /// The address of the guest with this MAC: the one it has leased, else the one it speaks from.
    fn address_of_mac(&self, now: Instant, mac: Mac) -> Option<Ipv4Addr> {
        let leases = self
            .services
            .dhcp
            .iter()
            .flat_map(|dhcp| dhcp.register().leases_of(mac));
        leases
            .filter(|lease| lease.state == State::Bound)
            .max_by_key(|lease| lease.expires)
            .map(|lease| lease.address)
            .or_else(|| self.neighbours.address_of(now, mac))
    }

    /// The address of the guest with this name: if its owner gave it to a port, of the guest there, whoever else calls
    /// itself so; else in DNS, or by its lease.
    fn address_named(&self, now: Instant, name: &Label) -> Option<Ipv4Addr> {
        let mut given = self.ports_named(name).peekable();
        if given.peek().is_some() {
            return given.find_map(|port| self.address_of(now, port));
        }
        if let Some(mac) = self.station_named(name) {
            return self.address_of_mac(now, mac);
        }
        let leased = || {
            let dhcp = self.services.dhcp.as_ref()?;
            (dhcp.register().named(name.as_str())).map(|lease| lease.address)
        };
        self.services.dns.address_named(name).or_else(leased)
    }

    /// The ports to which their owner gave this name.
    fn ports_named(&self, name: &Label) -> impl Iterator<Item = PortId> {
        self.ports
            .iter()
            .filter(move |(_, port)| {
                port.name
                    .as_deref()
                    .is_some_and(|given| is_called(given, name))
            })
            .map(|(port, _)| port)
    }

    /// The guest at no port of ours to which its owner gave this name.
    fn station_named(&self, name: &Label) -> Option<Mac> {
        let mut given = self.services.given_names();
        given
            .find(|(_, given)| is_called(given, name))
            .map(|(mac, _)| mac)
    }

    /// The guest with this MAC, which is behind the [trunk](crate::Role::Trunk) and at no port of this network, has a name from
    /// its owner, or no longer.
    pub fn name_station(&mut self, mac: Mac, name: Option<String>) {
        self.services.give_name(mac, name);
        self.follow = true;
    }

    /// Sockets of UDP rules follow their guests to their addresses, and lead nowhere while these have none. Answers how many
    /// rules were looked at.
    pub(super) fn follow_forwards(&mut self, now: Instant, out: &mut Outbox) -> usize {
        let Some(gateway) = self.gateway else {
            return 0;
        };
        // Many rules may lead to few guests.
        let mut known: HashMap<(ForwardGuest, bool), Option<IpAddr>> = HashMap::new();
        let follow: Vec<(ForwardId, SocketAddr)> = self
            .nat
            .forwards
            .followers()
            .map(|(id, rule)| {
                let v6 = rule.listen.ip().to_canonical().is_ipv6();
                let address = *known
                    .entry((rule.guest, v6))
                    .or_insert_with(|| self.address_of_guest(now, &rule.guest, v6));
                let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                (id, SocketAddr::new(address, rule.guest_port))
            })
            .collect();
        let rules = follow.len();
        for (rule, guest) in follow {
            let mut link = link!(self, gateway, now, out);
            self.nat.forward_socket(&mut link, rule, guest);
        }
        rules
    }
}

/// A name that an owner gave is this one, with or without the domain.
fn is_called(given: &str, name: &Label) -> bool {
    let mut labels = given.split('.');
    labels
        .next()
        .is_some_and(|first| first.eq_ignore_ascii_case(name.as_str()))
}
