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
    for (number, (member, fixed)) in members.into_iter().enumerate() {
        let mut chain = Lines::part(&format!("usual-{number}"));
        for (protocol, whole) in WHOLE {
            // All of the header at once.
            chain.add(format!(
                "ether daddr {host} ether saddr {} ether type {protocol} goto {whole}",
                mac(*fixed)
            ));
        }
        chains += &chain.end();
        arriving.add(format!("iifname \"{member}\" jump usual-{number}"));
    }
    (sets, chains)
}

const WHOLE: [(&str, &str); 2] = [("ip", "whole-ip"), ("ip6", "whole-ip6")];

// Bytes of the header by their places, which takes no look at what protocol it is: that is known. Those that are loaded at once and
// are no more than four take next to no time. All that is asked of one protocol is one rule: that takes less than several.

fn whole_v4(rules: &Rules) -> String {
    let mut asked = String::new();
    if let Some(ipv4) = rules.ipv4 {
        // From a guest's address, as none of the loopback is.
        let (network, gateway) = (ipv4.network.to_bits(), ipv4.gateway.to_bits());
        let mask = network_mask(ipv4.prefix_len);
        asked += &format!("@nh,96,32 & {mask:#010x} == {:#010x} ", network & mask);
        asked += &format!("@nh,96,32 != {gateway:#010x} @nh,128,32 != {gateway:#010x} ");
    } else {
        asked += "@nh,96,8 != 127 ";
    }
    asked += "@nh,128,8 != 127";
    // More fragments, and their place; and what it carries.
    let carries = |protocol: u8| format!("@nh,48,32 & 0x3fff00ff == {protocol:#010x}");
    let mut chain = Lines::part("whole-ip");
    chain.add(format!("{} {asked} accept", carries(6)));
    chain.add(format!("{} {asked} @th,16,16 != 68 accept", carries(17)));
    chain.end()
}

fn network_mask(prefix_len: u8) -> u32 {
    let hosts = u32::MAX.checked_shr(prefix_len.into()).unwrap_or(0);
    !hosts
}

fn whole_v6(rules: &Rules) -> String {
    let mut asked = String::new();
    if let Some(ipv6) = rules.ipv6 {
        // By the last four bytes alone, which others may have too.
        for of in [ipv6.gateway, ipv6.link_local] {
            let last = of.to_bits() & 0xffff_ffff;
            asked += &format!("@nh,160,32 != {last:#010x} @nh,288,32 != {last:#010x} ");
        }
    }
    let mut chain = Lines::part("whole-ip6");
    chain.add(format!("@nh,48,8 6 {asked}accept"));
    chain.add(format!("@nh,48,8 17 {asked}@th,16,16 != 546 accept"));
    chain.end()
}
