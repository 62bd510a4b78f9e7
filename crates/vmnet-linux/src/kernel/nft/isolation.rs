//! Members of a bridge that exchange frames with the host and the gateway's services alone.
//!
//! A bridge of Linux keeps isolated members from isolated ones, and lets all others speak with them. Behind the trunk there are
//! guests too: what comes from there is from the services or is kept, and what goes there is for the services or becomes so.
//! They see every question that a guest asks all, and answer it as if it had asked them. Where the bridge must not keep members
//! apart itself ([`Rules::keep_apart_alone`]), all of it is done here.

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
