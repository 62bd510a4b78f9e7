//! What a network tells about itself.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use vmnet_wire::ethernet::Mac;

use crate::drop::{Drop, Drops};
use crate::gateway::{dhcp, dhcp6, dns};
use crate::network::Network;
use crate::outbox::PortId;
use crate::prefix::Prefix;
use crate::subnet::Ipv4;
use crate::switch::port::Port;

impl Network {
    /// Counts a frame that the caller could not deliver.
    pub fn count_drop(&mut self, cause: Drop) {
        self.drops.count(cause);
    }

    /// Whoever is at this address takes large segments: the gateway does, and guests at ports that do.
    #[must_use]
    pub fn takes_large(&self, now: Instant, mac: Mac) -> bool {
        if self.is_gateway(mac) {
            return true;
        }
        match self.fdb.look_up(now, mac) {
            Some(port) => self.ports.get(port).is_some_and(|port| port.large_segments),
            // It is of the LAN: the host cuts them where it must.
            None => self.bridged,
        }
    }

    /// The gateway's addresses are found at this MAC, or its services speak from it.
    #[must_use]
    pub fn is_gateway(&self, mac: Mac) -> bool {
        self.gateway.is_some_and(|gateway| gateway.is_mac(mac))
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

    /// IPv4 addresses that guests have, had, or were offered.
    pub fn leases(&self) -> impl Iterator<Item = &dhcp::Lease> {
        self.services.leases()
    }

    /// IPv6 addresses that guests have, had, or were offered by DHCPv6.
    pub fn leases6(&self) -> impl Iterator<Item = &dhcp6::Lease> {
        self.services.leases6()
    }

    /// The MAC addresses that were seen behind a port.
    pub fn macs_behind(&self, port: PortId) -> impl Iterator<Item = Mac> {
        let entries = self.fdb.entries().filter(move |(_, other)| *other == port);
        entries.map(|(mac, _)| mac)
    }

    /// Every MAC address that was seen, with its port.
    pub fn macs(&self) -> impl Iterator<Item = (Mac, PortId)> {
        self.fdb.entries()
    }

    /// When a MAC was last heard behind a port.
    #[must_use]
    pub fn seen_behind(&self, port: PortId, mac: Mac) -> Option<Instant> {
        self.fdb.seen_behind(port, mac)
    }

    /// The address that a MAC speaks from, whether it has a lease or not.
    #[must_use]
    pub fn spoken_from(&self, now: Instant, mac: Mac) -> Option<Ipv4Addr> {
        self.neighbours.address_of(now, mac)
    }

    /// The IPv6 address that a MAC speaks from, or has told that it takes; none that the link alone knows.
    #[must_use]
    pub fn spoken_from6(&self, now: Instant, mac: Mac) -> Option<Ipv6Addr> {
        self.neighbours.address6_of(now, mac)
    }

    /// The gateway's MAC address; nobody's, if there is no gateway.
    #[must_use]
    pub fn gateway_mac(&self) -> Mac {
        self.mac
    }

    /// The MAC addresses at which the gateway takes frames; the same twice, if it has one.
    #[must_use]
    pub fn gateway_macs(&self) -> [Mac; 2] {
        [
            self.mac,
            self.gateway.map_or(self.mac, |gateway| gateway.at()),
        ]
    }

    /// Whether guests may be at other addresses than when this was asked last: where others than this network lead to
    /// guests ([`Network::addresses_of_guest`]), these have to look again.
    pub fn take_followed(&mut self) -> bool {
        core::mem::take(&mut self.followed)
    }

    /// The subnet and the gateway's address in it, if there are any.
    #[must_use]
    pub fn ipv4(&self) -> Option<Ipv4> {
        self.gateway?.ipv4
    }

    /// The IPv6 prefix, if the gateway knows IPv6.
    #[must_use]
    pub fn ipv6(&self) -> Option<Prefix> {
        self.gateway?.ipv6
    }

    /// The gateway's IPv4 address.
    #[must_use]
    pub fn gateway_address(&self) -> Option<Ipv4Addr> {
        self.ipv4().map(|ipv4| ipv4.gateway())
    }

    /// The gateway's IPv6 address.
    #[must_use]
    pub fn gateway_address6(&self) -> Option<Ipv6Addr> {
        self.ipv6().map(|prefix| prefix.gateway())
    }

    /// A guest of this network may have this address.
    #[must_use]
    pub fn is_guest_address(&self, address: IpAddr) -> bool {
        self.gateway
            .is_some_and(|gateway| gateway.is_guest(address))
    }

    /// The largest IP packet.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// A port exchanges frames with the gateway alone, by its own setting or by the network's.
    #[must_use]
    pub fn is_isolated(&self, port: PortId) -> bool {
        self.isolation || self.ports.get(port).is_some_and(|port| port.isolated)
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
