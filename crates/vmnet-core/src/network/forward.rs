//! Rules that lead from ports of the host to guests, and who these guests are now.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::HashMap;
use std::time::Instant;

use vmnet_wire::ethernet::Mac;

use crate::gateway::dhcp::State;
use crate::gateway::dns::Label;
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
        let (guest, forward) = self.forward_guest(now, rule)?;
        if forward.protocol != ForwardProtocol::Udp {
            return None;
        }
        let guest = SocketAddr::new(IpAddr::V4(guest), forward.guest_port);
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
        let (guest, forward) = self.forward_guest(now, rule)?;
        let mut link = link!(self, gateway, now, out);
        self.nat
            .accepted(&mut link, (guest, forward.guest_port), client, room)
    }

    /// The address of the guest that a rule leads to, if it has one.
    fn forward_guest(&self, now: Instant, rule: ForwardId) -> Option<(Ipv4Addr, Forward)> {
        let forward = *self.nat.forwards.rule(rule)?;
        Some((self.address_of_guest(now, &forward.guest)?, forward))
    }

    /// The address that the guest of a rule has now.
    fn address_of_guest(&self, now: Instant, guest: &ForwardGuest) -> Option<Ipv4Addr> {
        match guest {
            ForwardGuest::Address(address) => Some(*address),
            ForwardGuest::Port(port) => self.address_of(now, *port),
            ForwardGuest::Mac(mac) => self.address_of_mac(now, *mac),
            ForwardGuest::Name(name) => self.address_named(now, name),
        }
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
        let is_it = |given: &str| {
            let mut labels = given.split('.');
            labels
                .next()
                .is_some_and(|first| first.eq_ignore_ascii_case(name.as_str()))
        };
        let mut given = self
            .ports
            .iter()
            .filter(|(_, port)| port.name.as_deref().is_some_and(is_it))
            .map(|(port, _)| port)
            .peekable();
        if given.peek().is_some() {
            return given.find_map(|port| self.address_of(now, port));
        }
        let leased = || {
            let dhcp = self.services.dhcp.as_ref()?;
            (dhcp.register().named(name.as_str())).map(|lease| lease.address)
        };
        self.services.dns.address_named(name).or_else(leased)
    }

    /// Sockets of UDP rules follow their guests to their addresses, and lead nowhere while these have none.
    pub(super) fn follow_forwards(&mut self, now: Instant, out: &mut Outbox) {
        let Some(gateway) = self.gateway else {
            return;
        };
        // Many rules may lead to few guests.
        let mut known: HashMap<ForwardGuest, Option<Ipv4Addr>> = HashMap::new();
        let follow: Vec<(ForwardId, SocketAddr)> = self
            .nat
            .forwards
            .followers()
            .map(|(rule, guest, guest_port)| {
                let address = *known
                    .entry(guest)
                    .or_insert_with(|| self.address_of_guest(now, &guest));
                let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
                (rule, SocketAddr::new(IpAddr::V4(address), guest_port))
            })
            .collect();
        for (rule, guest) in follow {
            let mut link = link!(self, gateway, now, out);
            self.nat.forward_socket(&mut link, rule, guest);
        }
    }
}
