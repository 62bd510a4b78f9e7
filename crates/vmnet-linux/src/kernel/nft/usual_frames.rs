//! The short way through the guard of a bridge, for nearly all frames: each rule that a packet meets takes time.
//!
//! A frame goes it whose member is to have its MAC, and that is for the host: a whole TCP segment or UDP datagram, without a tag,
//! from a guest's address of IPv4, neither to the gateway nor from there. The guard would find nothing in it, and nothing is steered. All that is asked here is
//! asked so that a frame that could be something else goes the long way; so it does not matter either if a set has nothing yet.

use super::Rules;
use super::text::{Lines, collection, mac};

/// So many members have a rule of their own each; of more, all are looked up at once, which takes as long as some rules.
const FEW: usize = 3;

/// Adds the way to a chain that sees all frames first, and gives the sets and chains that it takes.
pub(super) fn usual_frames(rules: &Rules, arriving: &mut Lines) -> (String, String) {
    let ours = [rules.host, rules.services];
    // What isolated members send to the host may be for guests.
    let (host, isolated) = (mac(rules.host), &rules.isolated);
    let members = rules.fixed.iter();
    let members: Vec<_> = members
        .filter(|(member, mac)| !ours.contains(mac) && !isolated.contains(member))
        .collect();
    let (mut sets, mut chains) = (String::new(), String::new());
    if members.is_empty() {
        return (sets, chains);
    }
    chains += &whole_v4(rules);
    chains += &whole_v6(rules);
    if members.len() > FEW {
        let pairs = members.iter();
        let pairs = pairs.map(|(member, fixed)| format!("\"{member}\" . {}", mac(*fixed)));
        let pairs: Vec<String> = pairs.collect();
        sets += &collection("set", "usual", "ifname . ether_addr", &pairs);
        let mut chain = Lines::part("usual");
        for (protocol, whole) in WHOLE {
            chain.add(format!(
                "ether daddr {host} ether type {protocol} goto {whole}"
            ));
        }
        chains += &chain.end();
        arriving.add("iifname . ether saddr @usual jump usual");
        return (sets, chains);
    }
    if let [(member, fixed)] = members[..] {
        // No way to a chain and back. More members than one would all be asked for by each rule.
        for ((protocol, _), whole) in WHOLE.iter().zip([segments_v4(rules), segments_v6(rules)]) {
            let own = header(&host, *fixed, protocol);
            // Frames of the other protocol are done with here soonest.
            arriving.add(format!(
                "meta protocol {protocol} iifname \"{member}\" {own} {whole} accept"
            ));
        }
    }
    for (number, (member, fixed)) in members.into_iter().enumerate() {
        let mut chain = Lines::part(&format!("usual-{number}"));
        for (protocol, whole) in WHOLE {
            let own = header(&host, *fixed, protocol);
            chain.add(format!("{own} goto {whole}"));
        }
        chains += &chain.end();
        arriving.add(format!("iifname \"{member}\" jump usual-{number}"));
    }
    (sets, chains)
}

/// All of the header at once.
fn header(host: &str, from: [u8; 6], protocol: &str) -> String {
    let from = mac(from);
    format!("ether daddr {host} ether saddr {from} ether type {protocol}")
}

const WHOLE: [(&str, &str); 2] = [("ip", "whole-ip"), ("ip6", "whole-ip6")];

// Bytes of the header by their places, which takes no look at what protocol it is: that is known. Those that are loaded at once and
// are no more than four take next to no time. All that is asked of one protocol is one rule: that takes less than several.

fn whole_v4(rules: &Rules) -> String {
    let mut chain = Lines::part("whole-ip");
    chain.add(format!("{} accept", segments_v4(rules)));
    let datagrams = format!("{} {}", carries(17), asked_v4(rules));
    chain.add(format!("{datagrams} @th,16,16 != 68 accept"));
    chain.end()
}

/// TCP of IPv4.
fn segments_v4(rules: &Rules) -> String {
    format!("{} {}", carries(6), asked_v4(rules))
}

/// No more fragments, and the first place; and what it carries.
fn carries(protocol: u8) -> String {
    format!("@nh,48,32 & 0x3fff00ff == {protocol:#010x}")
}

fn asked_v4(rules: &Rules) -> String {
    let no_loopback = |at: u8| format!("@nh,{at},8 != 127");
    let Some(ipv4) = rules.ipv4 else {
        return format!("{} {}", no_loopback(96), no_loopback(128));
    };
    // From a guest's address, as none of the loopback is.
    let (network, gateway) = (ipv4.network.to_bits(), ipv4.gateway.to_bits());
    let mask = network_mask(ipv4.prefix_len);
    format!(
        "@nh,96,32 & {mask:#010x} == {:#010x} @nh,96,32 != {gateway:#010x} @nh,128,32 != {gateway:#010x} {}",
        network & mask,
        no_loopback(128)
    )
}

fn network_mask(prefix_len: u8) -> u32 {
    let hosts = u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
    !hosts
}

fn whole_v6(rules: &Rules) -> String {
    let mut chain = Lines::part("whole-ip6");
    chain.add(format!("{} accept", segments_v6(rules)));
    let datagrams = format!("@nh,48,8 17 {}", asked_v6(rules));
    chain.add(format!("{datagrams} @th,16,16 != 546 accept"));
    chain.end()
}

/// TCP of IPv6.
fn segments_v6(rules: &Rules) -> String {
    format!("@nh,48,8 6 {}", asked_v6(rules))
}

fn asked_v6(rules: &Rules) -> String {
    let ends = (rules.ipv6.into_iter()).flat_map(|ipv6| [ipv6.gateway, ipv6.link_local]);
    // By the last four bytes alone, which others may have too.
    let asked = ends.map(|of| {
        let last = of.to_bits() & 0xffff_ffff;
        format!("@nh,160,32 != {last:#010x} @nh,288,32 != {last:#010x}")
    });
    asked.collect::<Vec<_>>().join(" ")
}
