//! What a network tells about itself.

use core::net::Ipv4Addr;

use vmnet_wire::ethernet::Mac;

use crate::drop::{Drop, Drops};
use crate::gateway::{dhcp, dns};
use crate::network::Network;
use crate::outbox::PortId;
use crate::subnet::Subnet;
use crate::switch::port::Port;

impl Network {
    /// Counts a frame that the caller could not deliver.
    pub fn count_drop(&mut self, cause: Drop) {
        self.drops.count(cause);
    }

    /// Why frames were dropped, and how many.
    #[must_use]
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// What the DNS proxy has seen.
    #[must_use]
    pub fn dns_counters(&self) -> &dns::Counters {
        self.services.dns.counters()
    }

    /// Flows of the NAT.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.nat.table.len()
    }

    /// Addresses that guests have, had, or were offered.
    pub fn leases(&self) -> impl Iterator<Item = &dhcp::Lease> {
        self.services.dhcp.leases()
    }

    /// The address that the guest behind a port has leased. If several have, that of the one heard last.
    #[must_use]
    pub fn address_of(&self, port: PortId) -> Option<Ipv4Addr> {
        self.services
            .address_of(|mac| self.fdb.seen_behind(port, mac))
    }

    /// The MAC addresses that were seen behind a port.
    pub fn macs_behind(&self, port: PortId) -> impl Iterator<Item = Mac> {
        let entries = self.fdb.entries().filter(move |(_, other)| *other == port);
        entries.map(|(mac, _)| mac)
    }

    /// The gateway's MAC address.
    #[must_use]
    pub fn gateway_mac(&self) -> Mac {
        self.gateway.mac
    }

    /// Where guests' addresses come from.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.gateway.subnet
    }

    /// The gateway's IPv4 address.
    #[must_use]
    pub fn gateway_address(&self) -> Ipv4Addr {
        self.gateway.address()
    }

    /// The largest IP packet.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.gateway.mtu
    }

    /// One port.
    #[must_use]
    pub fn port(&self, port: PortId) -> Option<&Port> {
        self.ports.get(port)
    }

    /// The ports.
    pub fn ports(&self) -> impl Iterator<Item = (PortId, &Port)> {
        self.ports.iter()
    }
}
