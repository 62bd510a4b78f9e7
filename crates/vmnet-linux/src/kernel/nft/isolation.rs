//! Members of a bridge that exchange frames with the host and the gateway's services alone.
//!
//! A bridge of Linux keeps isolated members from isolated ones, and lets all others speak with them. Behind the trunk there are
//! guests too: what comes from there is from the services or is kept, and what goes there is for the services or becomes so.
//! They see every question that a guest asks all, and answer it as if it had asked them. Where the bridge must not keep members
//! apart itself ([`Rules::keep_apart_alone`]), all of it is done here. What goes round by the host, from one member to another, passes no
//! member to another on the bridge: it is judged where it comes from an isolated one, and where it would go out to one.

use super::Rules;
use super::render::TURNED_BACK;
use super::text::{Lines, mac, set};

/// The chain that keeps them apart; none where the bridge does, or nobody is.
pub(super) fn apart(rules: &Rules) -> String {
    let all = rules.isolation && rules.keep_apart_alone();
    let isolated: Vec<String> = match all {
        true => (rules.members.iter().filter(|it| **it != rules.trunk))
            .cloned()
            .collect(),
        false => rules.isolated.clone(),
    };
    if isolated.is_empty() {
        return String::new();
    }
    let (alone, trunk, services) = (set(&isolated), &rules.trunk, mac(rules.services));
    let mut chain = Lines::filter("apart", "forward", 50);
    // Behind the kernel's own look at bridged packets, as what takes this bit off: by a forwarded port of the host's, everybody
    // reaches everybody.
    chain.add(format!(
        "meta mark and {TURNED_BACK:#x} == {TURNED_BACK:#x} accept"
    ));
    if all {
        // What comes from behind the trunk, or goes there, our switch has judged.
        chain.add(format!("iifname {alone} oifname {alone} drop"));
        return chain.end();
    }
    chain.add(format!("oifname {alone} iifname != \"{trunk}\" drop"));
    chain.add(format!("oifname {alone} ether saddr != {services} drop"));
    chain.add(format!("iifname {alone} oifname != \"{trunk}\" drop"));
    // The bit of groups, and of all.
    chain.add(format!(
        "iifname {alone} ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 ether daddr set {services}"
    ));
    chain.add(format!("iifname {alone} ether daddr != {services} drop"));
    chain.end()
}

/// Adds the look at what isolated members would send to guests by way of the host, and gives the chains that it takes. Forwarded
/// ports are at other addresses, also those that lead back.
pub(super) fn astray(rules: &Rules, arriving: &mut Lines) -> String {
    if rules.isolated.is_empty() || rules.isolation {
        return String::new();
    }
    let by = |chain: &str, side: &str| {
        let mut chain = Lines::part(chain);
        for member in &rules.isolated {
            chain.add(format!("{side} \"{member}\" drop"));
        }
        chain.end()
    };
    // A client by a forwarded port has the gateway's address.
    let mut leaving = Lines::filter("leaving", "output", 0);
    for to in guests(rules, "daddr") {
        arriving.add(format!("meta pkttype host {to} jump from-isolated"));
    }
    for from in guests(rules, "saddr") {
        leaving.add(format!("{from} jump to-isolated"));
    }
    by("from-isolated", "iifname") + &by("to-isolated", "oifname") + &leaving.end()
}

/// Packets of guests' addresses on this side.
fn guests(rules: &Rules, side: &str) -> Vec<String> {
    let v4 = rules.ipv4.map(|ipv4| {
        let (network, length, gateway) = (ipv4.network, ipv4.prefix_len, ipv4.gateway);
        format!("ip {side} {network}/{length} ip {side} != {gateway}")
    });
    let v6 = rules.ipv6.map(|ipv6| {
        let (network, gateway) = (ipv6.network, ipv6.gateway);
        format!("ip6 {side} {network}/64 ip6 {side} != {gateway}")
    });
    v4.into_iter().chain(v6).collect()
}
