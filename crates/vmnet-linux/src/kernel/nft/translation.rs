//! Whose address stands for whom on a network, and where forwarded ports lead.

use super::render::families;
use super::text::{Lines, collection};
use super::{PortForward, Rules};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The chains that lead to guests, which are there if any port is forwarded, and their hooks.
pub(super) const LEADING: [(&str, &str); 2] = [("prerouting", "prerouting"), ("output", "output")];

/// Whose address stands for whom.
pub(super) fn translation(rules: &Rules) -> String {
    let mut behind = Lines::nat("postrouting", "postrouting", "srcnat");
    let families = families(rules);
    // Nearly all that begins.
    for family in &families {
        family.masquerade(&rules.bridge, &mut behind);
    }
    for family in &families {
        family.masquerade_clients(&rules.bridge, &mut behind);
    }
    let mut text = behind.end();
    let lists: Vec<List> = by_list(&rules.forwards).into_keys().collect();
    if lists.is_empty() {
        return text;
    }
    for (name, hook) in LEADING {
        let mut chain = Lines::nat(name, hook, -100);
        for list in &lists {
            chain.add(list.rule());
        }
        text += &chain.end();
    }
    text
}

/// Forwards that one lookup finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct List {
    v6: bool,
    tcp: bool,
    /// By the host's address too.
    addressed: bool,
}

impl List {
    pub(super) fn name(self) -> String {
        let protocol = if self.tcp { "tcp" } else { "udp" };
        let family = if self.v6 { "6" } else { "4" };
        let addressed = if self.addressed { "-at" } else { "" };
        format!("{protocol}{family}{addressed}")
    }

    /// What it leads from and to, as a type of maps.
    pub(super) fn of(self) -> String {
        let family = if self.v6 { "ipv6_addr" } else { "ipv4_addr" };
        let at = if self.addressed {
            format!("{family} . ")
        } else {
            String::new()
        };
        format!("{at}inet_service : {family} . inet_service")
    }

    fn rule(self) -> String {
        let (ip, loopback) = if self.v6 {
            // The kernel sends nothing from this loopback to a guest.
            ("ip6", "ip6 daddr != ::1 ")
        } else {
            ("ip", "")
        };
        let protocol = if self.tcp { "tcp" } else { "udp" };
        let name = self.name();
        if self.addressed {
            // The host may have lost the address, and another may have it now.
            format!("fib daddr type local dnat {ip} to {ip} daddr . {protocol} dport map @{name}")
        } else {
            format!("{loopback}fib daddr type local dnat {ip} to {protocol} dport map @{name}")
        }
    }
}

fn by_list(forwards: &[PortForward]) -> BTreeMap<List, Vec<&PortForward>> {
    let mut lists: BTreeMap<List, Vec<&PortForward>> = BTreeMap::new();
    for forward in forwards {
        let list = List {
            v6: forward.guest.is_ipv6(),
            tcp: forward.tcp,
            addressed: forward.address.is_some(),
        };
        // One that names an address of the other family leads nowhere.
        if forward
            .address
            .is_none_or(|address| address.is_ipv6() == list.v6)
        {
            lists.entry(list).or_default().push(forward);
        }
    }
    lists
}

/// The lists that these forwards take, and all others.
pub(super) fn kept(forwards: &[PortForward]) -> (Vec<List>, Vec<List>) {
    let used = by_list(forwards);
    let all = (0..8_u8).map(|bits| List {
        v6: bits & 1 != 0,
        tcp: bits & 2 != 0,
        addressed: bits & 4 != 0,
    });
    all.partition(|list| used.contains_key(list))
}

/// Where forwarded ports lead.
pub(super) fn lists(forwards: &[PortForward]) -> String {
    let mut text = String::new();
    for (list, forwards) in by_list(forwards) {
        let elements: BTreeMap<(Option<IpAddr>, u16), String> = forwards
            .into_iter()
            .map(|forward| {
                let at = forward
                    .address
                    .map_or(String::new(), |address| format!("{address} . "));
                let PortForward {
                    port,
                    guest,
                    guest_port,
                    ..
                } = *forward;
                let element = format!("{at}{port} : {guest} . {guest_port}");
                ((forward.address, port), element)
            })
            .collect();
        let elements: Vec<String> = elements.into_values().collect();
        text += &collection("map", &list.name(), &list.of(), &elements);
    }
    text
}
