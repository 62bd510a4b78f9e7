//! Which address gets which guest's name in DNS.
//!
//! A lease's guest has the name that an owner gave to its port, else what it calls itself. A name is one guest's, in both
//! families: the one whose address has it first. Otherwise a guest could call itself by DHCPv6 like another one that has
//! only an IPv4 address, and programs, which prefer IPv6, would come to it.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use vmnet_wire::ethernet::Mac;

use crate::gateway::services::DnsProxy;

/// Whose the addresses with names are.
#[derive(Debug, Default)]
pub(super) struct GuestNames {
    /// Addresses of restored leases whose guests were not heard yet.
    restored: BTreeSet<IpAddr>,
    /// By address with a name. No larger than the table of names.
    owners: BTreeMap<IpAddr, Mac>,
}

impl GuestNames {
    /// Gives an address a name, in the place of all that it had. A name that cannot be one, or is another guest's, is the
    /// guest's own loss.
    pub(super) fn set(
        &mut self,
        dns: &mut DnsProxy,
        address: IpAddr,
        mac: Mac,
        name: Option<&str>,
    ) {
        self.remove(dns, address);
        let Some(name) = name.filter(|name| !self.is_anothers(dns, name, mac)) else {
            return;
        };
        if dns.0.set_name(name, address).is_ok() {
            self.owners.insert(address, mac);
        }
    }

    /// An address is nobody's any more.
    pub(super) fn remove(&mut self, dns: &mut DnsProxy, address: IpAddr) {
        self.restored.remove(&address);
        self.owners.remove(&address);
        dns.0.remove_address(address);
    }

    /// A lease was put back, whose guest was not heard yet: its port may have a name for it.
    pub(super) fn restored(&mut self, address: IpAddr) {
        self.restored.insert(address);
    }

    /// There are restored leases whose guests were not heard yet.
    pub(super) fn awaits(&self) -> bool {
        !self.restored.is_empty()
    }

    /// The guest of a restored lease was heard. Answers whether it was awaited.
    pub(super) fn heard(&mut self, address: IpAddr) -> bool {
        self.restored.remove(&address)
    }

    fn is_anothers(&self, dns: &DnsProxy, name: &str, mac: Mac) -> bool {
        let holders = dns.0.addresses_of(name);
        holders
            .into_iter()
            .flatten()
            .any(|holder| self.owners.get(&holder).is_some_and(|owner| *owner != mac))
    }
}
