//! Leases of the DHCP server in the network: who is answered when, which names follow them.
//!
//! With a ledger an acknowledgement waits until the store has its lease, and the name follows then. Names
//! of leases that end go at once.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use vmnet_wire::ethernet::Mac;

use crate::drop::Drop;
use crate::gateway::dhcp::{self, Lease, LeaseChange};
use crate::gateway::services::Services;
use crate::link::Link;
use crate::outbox::Action;

impl Services {
    /// A DHCP message of a guest. Answers whether there is a server to take it.
    pub(crate) fn receive_dhcp(
        &mut self,
        link: &mut Link<'_>,
        request: &dhcp::Request<'_>,
    ) -> bool {
        let Some(dhcp) = &mut self.dhcp else {
            return false;
        };
        let answer = dhcp.receive(link.now, request);
        for change in &answer.changes {
            self.note(link, change);
        }
        let lease = answer.changes.into_iter().find_map(|change| match change {
            LeaseChange::Bound(lease) => Some(lease),
            LeaseChange::Ended(_) | LeaseChange::Forgotten(_) => None,
        });
        match answer.outcome {
            dhcp::Outcome::Reply(reply) => match (&mut self.ledger, lease) {
                (Some(ledger), Some(lease)) => {
                    if ledger.hold(link.now, lease, reply) {
                        link.drop(Drop::LeaseWaited);
                    }
                }
                _ => self.send_dhcp(link, &reply),
            },
            dhcp::Outcome::Noted => {}
            dhcp::Outcome::Dropped(_) => link.drop(Drop::Dhcp),
        }
        self.write_leases(link);
        true
    }

    /// The store has a batch of leases, or may not have it.
    pub(crate) fn leases_stored(
        &mut self,
        link: &mut Link<'_>,
        ticket: dhcp::StoreTicket,
        stored: bool,
    ) {
        let (Some(ledger), Some(dhcp)) = (&mut self.ledger, &mut self.dhcp) else {
            return;
        };
        let settled = ledger.settle(link.now, dhcp, ticket, stored);
        for lease in &settled.bound {
            self.bound(link, lease);
        }
        for change in &settled.ended {
            self.note(link, change);
        }
        for reply in &settled.replies {
            self.send_dhcp(link, reply);
        }
        (0..settled.refused).for_each(|_| link.drop(Drop::LeaseNotStored));
        (0..settled.late).for_each(|_| link.drop(Drop::LeaseWaited));
        self.write_leases(link);
    }

    /// Ends leases whose time is over, and tries again what could not be stored. Answers whether any has ended.
    pub(super) fn timeout_leases(&mut self, link: &mut Link<'_>) -> bool {
        let dhcp = self.dhcp.as_mut();
        let ended = dhcp.map_or_else(Vec::new, |dhcp| dhcp.timeout(link.now));
        for change in &ended {
            self.note(link, change);
        }
        self.write_leases(link);
        !ended.is_empty()
    }

    /// Ends a lease at once, or forgets one that has ended. Answers whether there was one.
    pub(crate) fn release_lease(&mut self, link: &mut Link<'_>, address: Ipv4Addr) -> bool {
        let forgotten = self.dhcp.as_mut().and_then(|dhcp| dhcp.forget(address));
        let Some(change) = forgotten else {
            return false;
        };
        self.note(link, &change);
        self.write_leases(link);
        true
    }

    /// Puts stored leases back, with their names. Those that are refused are taken out of the store with the
    /// next batch.
    pub(crate) fn restore_leases(
        &mut self,
        leases: Vec<Lease>,
    ) -> Vec<(Ipv4Addr, dhcp::RestoreError)> {
        let Some(dhcp) = &mut self.dhcp else {
            return Vec::new();
        };
        let refused = dhcp.restore_all(leases);
        if let Some(ledger) = &mut self.ledger {
            refused
                .iter()
                .for_each(|(address, _)| ledger.refuse(*address));
        }
        let named: Vec<(Ipv4Addr, Option<String>)> = dhcp
            .leases()
            .filter(|lease| lease.state == dhcp::State::Bound)
            .map(|lease| (lease.address, lease.name.clone()))
            .collect();
        for (address, name) in named {
            self.restored.insert(address);
            if let Some(name) = name {
                self.set_name(&name, address);
            }
        }
        refused
    }

    /// A guest is heard behind a port with this name. If its lease was restored, the port's name wins over its own
    /// now; all other leases had their port when they were given.
    pub(crate) fn greet(&mut self, mac: Mac, name: Option<&str>) {
        let Some(name) = name.filter(|_| !self.restored.is_empty()) else {
            return;
        };
        let address = self.dhcp.as_ref().and_then(|dhcp| dhcp.bound_to(mac));
        if let Some(address) = address.filter(|address| self.restored.remove(address)) {
            self.dns.0.remove_address(IpAddr::V4(address));
            self.set_name(name, address);
        }
    }

    /// What a change brings with it.
    fn note(&mut self, link: &mut Link<'_>, change: &LeaseChange) {
        if let Some(ledger) = &mut self.ledger {
            ledger.note(change);
        }
        match change {
            LeaseChange::Bound(lease) if self.ledger.is_none() => self.bound(link, lease),
            LeaseChange::Bound(_) => {}
            LeaseChange::Ended(lease) | LeaseChange::Forgotten(lease) => {
                self.restored.remove(&lease.address);
                self.dns.0.remove_address(IpAddr::V4(lease.address));
            }
        }
    }

    /// A lease is acknowledged. A port's own name wins over what its guest calls itself.
    fn bound(&mut self, link: &mut Link<'_>, lease: &Lease) {
        let address = IpAddr::V4(lease.address);
        link.neighbours.learn(link.now, address, lease.mac);
        let port = link.port_of(lease.mac);
        let given = port.and_then(|(_, port)| port.name.clone());
        self.restored.remove(&lease.address);
        self.dns.0.remove_address(address);
        if let Some(name) = given.or_else(|| lease.name.clone()) {
            self.set_name(&name, lease.address);
        }
    }

    fn set_name(&mut self, name: &str, address: Ipv4Addr) {
        // A name that cannot be one is the guest's own loss.
        let _refused = self.dns.0.set_name(name, IpAddr::V4(address));
    }

    fn write_leases(&mut self, link: &mut Link<'_>) {
        let (Some(ledger), Some(dhcp)) = (&mut self.ledger, &self.dhcp) else {
            return;
        };
        if let Some((ticket, writes)) = ledger.write(link.now, dhcp) {
            link.out.push(Action::StoreLeases { ticket, writes });
        }
    }

    fn send_dhcp(&self, link: &mut Link<'_>, reply: &dhcp::Reply) {
        let to = SocketAddr::new(IpAddr::V4(reply.address), reply.port);
        self.send(link, reply.mac, dhcp::SERVER_PORT, to, &reply.payload);
    }
}
