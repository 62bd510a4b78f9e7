//! Which address gets which guest's name in DNS.
//!
//! A lease's guest has the name that an owner gave to its port, else what it calls itself. A name is one guest's, in both
//! families: the one whose address has it first. Otherwise a guest could call itself by DHCPv6 like another one that has
//! only an IPv4 address, and programs, which prefer IPv6, would come to it.
//!
//! Guests make IPv6 addresses of their own, several at once, and tell nobody a name for them (RFC 4862, 8981). The MAC that
//! has them in neighbour discovery has a name by its port or by a lease: one of them, the same as long as it is heard, is
//! the answer to `AAAA` questions, unless DHCPv6 gave another; all have the name in reverse lookups.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use vmnet_wire::ethernet::Mac;

use crate::gateway::services::DnsProxy;

/// Whose the addresses with names are.
#[derive(Debug, Default)]
pub(super) struct GuestNames {
    /// Names that owners gave to guests which are at no port of ours.
    given: BTreeMap<Mac, String>,
    /// Addresses of restored leases whose guests were not heard yet.
    restored: BTreeSet<IpAddr>,
    /// By address with a name. No larger than the table of names.
    owners: BTreeMap<IpAddr, Mac>,
    /// Those of the addresses with names that were learnt.
    learnt: BTreeMap<Mac, Vec<IpAddr>>,
    /// MACs whose name or addresses are others than before.
    stale: BTreeSet<Mac>,
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
        // Among a guest's addresses, one that was leased wins.
        self.forget_learnt(dns, mac);
        self.remove(dns, address);
        self.stale.insert(mac);
        let Some(name) = name.filter(|name| !self.is_anothers(dns, name, mac)) else {
            return;
        };
        if dns.0.set_name(name, address).is_ok() {
            self.owners.insert(address, mac);
        }
    }

    /// The guest with this MAC is at no port of ours, and has a name from its owner, or no longer.
    pub(super) fn give(&mut self, mac: Mac, name: Option<String>) {
        match name {
            Some(name) => self.given.insert(mac, name),
            None => self.given.remove(&mac),
        };
        self.stale.insert(mac);
    }

    /// The name that its owner gave to a guest at no port of ours.
    pub(super) fn given(&self, mac: Mac) -> Option<&str> {
        self.given.get(&mac).map(String::as_str)
    }

    /// All guests with such names.
    pub(super) fn all_given(&self) -> impl Iterator<Item = (Mac, &str)> {
        let all = self.given.iter();
        all.map(|(mac, name)| (*mac, name.as_str()))
    }

    /// An address is nobody's any more.
    pub(super) fn remove(&mut self, dns: &mut DnsProxy, address: IpAddr) {
        self.restored.remove(&address);
        self.owners.remove(&address);
        dns.0.remove_address(address);
    }

    /// What is known of a guest's name has changed.
    pub(super) fn stale(&mut self, mac: Mac) {
        self.stale.insert(mac);
    }

    /// The guests whose names or addresses are others than before.
    pub(super) fn take_stale(&mut self) -> BTreeSet<Mac> {
        core::mem::take(&mut self.stale)
    }

    /// Takes the names from all addresses that a guest was heard with.
    pub(super) fn forget_learnt(&mut self, dns: &mut DnsProxy, mac: Mac) {
        for address in self.learnt.remove(&mac).unwrap_or_default() {
            // It may be another's by a lease since.
            if self.owners.get(&address) == Some(&mac) {
                self.owners.remove(&address);
                dns.0.remove_address(address);
            }
        }
    }

    /// A guest of this name has these addresses, the best first, by leases without a name of their own and by neighbour
    /// discovery.
    pub(super) fn learn(
        &mut self,
        dns: &mut DnsProxy,
        mac: Mac,
        name: &str,
        addresses: impl Iterator<Item = IpAddr>,
    ) {
        if self.is_anothers(dns, name, mac) {
            return;
        }
        let mut learnt = Vec::new();
        for address in addresses {
            if self.owners.contains_key(&address) {
                continue;
            }
            let [_, v6] = dns.0.addresses_of(name);
            let named = match v6 {
                None => dns.0.set_name(name, address),
                Some(_) => dns.0.set_reverse(name, address),
            };
            if named.is_ok() {
                self.owners.insert(address, mac);
                learnt.push(address);
            }
        }
        if !learnt.is_empty() {
            self.learnt.insert(mac, learnt);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::dns::Config;

    #[test]
    fn what_was_learnt_of_one_is_not_taken_from_another() {
        let mut dns = DnsProxy::new(&Config {
            domain: "vmnet.internal".to_owned(),
            gateway: vec!["fd00::1".parse().unwrap()],
            subnets: vec![("fd00::".parse().unwrap(), 64)],
            asks_outside: false,
            seed: [7; 16],
        })
        .unwrap();
        let [before, after] = [Mac([2; 6]), Mac([4; 6])];
        let address: IpAddr = "fd00::9".parse().unwrap();
        let mut names = GuestNames::default();
        names.learn(&mut dns, before, "old", [address].into_iter());
        // Another leases it.
        names.set(&mut dns, address, after, Some("new"));
        names.forget_learnt(&mut dns, before);
        assert_eq!(dns.0.name_of(address), Some("new"));
        assert_eq!(names.owners.get(&address), Some(&after));
        // Who made it up still gives it back.
        names.remove(&mut dns, address);
        names.learn(&mut dns, before, "old", [address].into_iter());
        names.forget_learnt(&mut dns, before);
        assert_eq!(dns.0.name_of(address), None);
    }
}
