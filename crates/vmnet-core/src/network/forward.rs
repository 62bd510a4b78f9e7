//! Rules that lead from ports of the host to guests, and who these guests are now.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::collections::HashMap;
use std::time::Instant;

use crate::link::Link;
use crate::nat::port_forward::{Forward, ForwardGuest, ForwardProtocol};
use crate::network::Network;
use crate::outbox::{ForwardId, Outbox, SocketId};

impl Network {
    /// The host now listens for a forwarded port.
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
        let (guest, forward) = self.forward_guest(rule)?;
        if forward.protocol != ForwardProtocol::Udp {
            return None;
        }
        let guest = SocketAddr::new(IpAddr::V4(guest), forward.guest_port);
        let mut link = link!(self, now, out);
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
        let (guest, forward) = self.forward_guest(rule)?;
        let mut link = link!(self, now, out);
        self.nat
            .accepted(&mut link, (guest, forward.guest_port), client, room)
    }

    /// The address of the guest that a rule leads to, if it has one.
    fn forward_guest(&self, rule: ForwardId) -> Option<(Ipv4Addr, Forward)> {
        let forward = *self.nat.forwards.rule(rule)?;
        let address = match forward.guest {
            ForwardGuest::Address(address) => address,
            ForwardGuest::Port(port) => self.address_of(port)?,
        };
        Some((address, forward))
    }

    /// Sockets of UDP rules follow the guests behind ports to their addresses.
    pub(super) fn follow_forwards(&mut self, now: Instant, out: &mut Outbox) {
        // Many rules lead to few guests, and an address is looked for among all leases.
        let mut addresses = HashMap::new();
        let follow: Vec<(ForwardId, SocketAddr)> = self
            .nat
            .forwards
            .followers()
            .filter_map(|(rule, port, guest_port)| {
                let known = addresses.entry(port);
                let address = (*known.or_insert_with(|| self.address_of(port)))?;
                Some((rule, SocketAddr::new(IpAddr::V4(address), guest_port)))
            })
            .collect();
        for (rule, guest) in follow {
            let mut link = link!(self, now, out);
            self.nat.forward_socket(&mut link, rule, guest);
        }
    }
}
