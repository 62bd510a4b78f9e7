//! The table of a network's bridge, as far as it is about guests: nobody speaks in the gateway's name, questions find its services,
//! and what the host turns back comes to the guest it is for.

use super::isolation::astray;
use super::render::{LOOPBACK, PIECE_V4, PIECE_V6, PIECES, TURNED_BACK};
use super::text::{Lines, collection, mac, quoted};
use super::usual_frames::usual_frames;
use super::{Inet6, Rules};

/// Nobody speaks in the gateway's name, and questions find its services.
pub(super) fn guard(rules: &Rules) -> String {
    let (own, trunk) = (&rules.bridge, &rules.trunk);
    let mut arriving = Lines::filter("arriving", "prerouting", -300);
    let host = mac(rules.host);
    let (quick_sets, quick) = usual_frames(rules, &mut arriving);
    arriving.add(format!("iifname != \"{own}-*\" accept"));
    arriving.add(format!("iifname \"{trunk}\" goto judged"));
    arriving.add("jump guard");
    let astray = astray(rules, &mut arriving);
    arriving.add(format!("ether daddr {host} goto steer"));
    // The host would hear what is sent to the MAC of a member itself, which nobody speaks to.
    arriving.add("meta pkttype host drop");
    // Of frames by the trunk our switch has judged who speaks.
    let mut judged = Lines::part("judged");
    LOOPBACK.iter().for_each(|rule| judged.add(rule));
    judged.add(format!("ether daddr {host} accept"));
    // Pieces to all are heard by guests alone: the host takes nothing that is for others. Nor does it put any together, which it
    // would where bridged packets pass the rules of routed ones.
    for piece in PIECES {
        for chain in [&mut arriving, &mut judged] {
            chain.add(format!("{piece} meta pkttype set other notrack"));
        }
    }
    let macs = [rules.host, rules.services].map(mac);
    let (sets, speaker) = speaker(rules, &macs);
    let mut known = Lines::part("known");
    for protocol in USUAL {
        known.add(format!("ether type {protocol} goto known-{protocol}"));
    }
    for mac in &macs {
        known.add(format!("arp saddr ether {mac} drop"));
    }
    // Linux takes a frame with the tag of no VLAN as its own, and there are systems that take what SNAP carries.
    known.add("ether type 8021ad drop");
    known.add("vlan id 0 drop");
    for points in ["0xaaaa", "0xaaab", "0xabaa", "0xabab"] {
        known.add(format!("ether type < 0x0600 @nh,0,16 {points} drop"));
    }
    LOOPBACK.iter().for_each(|rule| known.add(rule));
    if let Some(ipv4) = rules.ipv4 {
        known.add(format!("arp saddr ip {} drop", ipv4.gateway));
        known.add(format!("ip saddr {} drop", ipv4.gateway));
    }
    if let Some(ipv6) = rules.ipv6 {
        impostor6(ipv6, &mut known);
        impostor_of_neighbours(ipv6, &mut known);
    }
    if rules.serves {
        for rule in ROUTER
            .iter()
            .chain(&[NEIGHBOUR_IN_PIECES, SERVER_V4, SERVER_V6])
        {
            known.add(rule);
        }
        known.add(in_pieces());
    }
    let judges = usual(rules, &macs) + &known.end() + &speaker;
    let all = [
        sets,
        quick_sets,
        judges,
        quick,
        astray,
        steer(rules),
        judged.end(),
        arriving.end(),
    ];
    all.concat()
}

/// What of the frames for the host is for our services.
fn steer(rules: &Rules) -> String {
    let to = format!("ether daddr set {}", mac(rules.services));
    let v4 = rules.ipv4.map(|net| net.gateway.to_string());
    let v6 = (rules.ipv6).map(|net| format!("{{ {}, {} }}", net.gateway, net.link_local));
    let (mut chains, mut steer) = (String::new(), Lines::part("steer"));
    for (ip, piece, at, dhcp) in [("ip", PIECE_V4, v4, 67), ("ip6", PIECE_V6, v6, 547)] {
        let mut chain = Lines::part(&format!("steer-{ip}"));
        // Our services put together what is in pieces, and give it to the host.
        chain.add(format!("{piece} {to} notrack accept"));
        if let Some(at) = at {
            if let ("ip", Some(ipv4)) = (ip, rules.ipv4) {
                // The host would hand on what is from addresses of others. What has the tag of a VLAN is not this network's.
                let own = format!("{}/{}", ipv4.network, ipv4.prefix_len);
                chain.add(format!(
                    "ether type ip ip daddr != {at} ip saddr != {own} drop"
                ));
            }
            chain.add(format!("{ip} daddr != {at} accept"));
            let ports = match rules.dns {
                true => format!("{{ 53, {dhcp} }}"),
                false => dhcp.to_string(),
            };
            chain.add(format!("udp dport {ports} {to}"));
            if rules.dns {
                chain.add(format!("tcp dport 53 {to}"));
            }
        }
        chains += &chain.end();
        // Also behind a tag.
        steer.add(format!("meta protocol {ip} goto steer-{ip}"));
    }
    chains + &steer.end()
}

/// Protocols of nearly all frames, which have chains of their own with what has to be looked at in them. All others, and frames
/// with tags, go through everything.
const USUAL: [&str; 3] = ["ip", "ip6", "arp"];

/// Whose MAC a frame has: the one that its member is to have, if it is to have one, and nobody's that is not a guest's. One
/// lookup for most frames, however many members there are.
fn speaker(rules: &Rules, macs: &[String]) -> (String, String) {
    let mut sets = String::new();
    let mut chain = Lines::part("guard");
    let ours = [rules.host, rules.services];
    let fixed = rules.fixed.iter();
    let fixed: Vec<_> = fixed.filter(|(_, mac)| !ours.contains(mac)).collect();
    if !fixed.is_empty() {
        let pairs: Vec<String> = fixed
            .iter()
            .map(|(member, fixed)| format!("\"{member}\" . {}", mac(*fixed)))
            .collect();
        sets += &collection("set", "fixed", "ifname . ether_addr", &pairs);
        chain.add("iifname . ether saddr @fixed goto known");
    }
    if !rules.fixed.is_empty() {
        let fixed = rules.fixed.iter();
        let members = quoted(fixed.map(|(member, _)| member));
        sets += &collection("set", "members", "ifname", &members);
        chain.add("iifname @members drop");
    }
    for mac in macs {
        chain.add(format!("ether saddr {mac} drop"));
    }
    chain.add("goto known");
    (sets, chain.end())
}

/// What is looked at in frames of the usual protocols.
fn usual(rules: &Rules, macs: &[String]) -> String {
    let [mut v4, mut v6, mut arp] = USUAL.map(|protocol| Lines::part(&format!("known-{protocol}")));
    let mut neighbours = Lines::part("neighbours");
    let mut pieces = Lines::part("pieces");
    FIRST_PIECE.iter().for_each(|rule| pieces.add(*rule));
    for mac in macs {
        arp.add(format!("arp saddr ether {mac} drop"));
    }
    LOOPBACK.iter().for_each(|rule| v4.add(rule));
    if let Some(ipv4) = rules.ipv4 {
        arp.add(format!("arp saddr ip {} drop", ipv4.gateway));
        v4.add(format!("ip saddr {} drop", ipv4.gateway));
    }
    if let Some(ipv6) = rules.ipv6 {
        impostor6(ipv6, &mut v6);
        impostor_of_neighbours(ipv6, &mut neighbours);
    }
    if rules.serves {
        v6.add(in_pieces());
    }
    v6.add("meta l4proto ipv6-icmp goto neighbours");
    if rules.serves {
        v4.add(SERVER_V4);
        v6.add(SERVER_V6);
        ROUTER.iter().for_each(|rule| neighbours.add(rule));
        neighbours.add(NEIGHBOUR_IN_PIECES);
    }
    // A chain that is gone to has to be there first.
    pieces.end() + &neighbours.end() + &v4.end() + &v6.end() + &arp.end()
}

/// Guests that would be the gateway's services, whatever port they speak from.
const SERVER_V4: &str = "meta protocol ip udp dport 68 drop";
const SERVER_V6: &str = "meta protocol ip6 udp dport 546 drop";
const ROUTER: [&str; 2] = [
    "icmpv6 type nd-router-advert drop",
    "icmpv6 type nd-redirect drop",
];
const NEIGHBOUR_IN_PIECES: &str =
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } exthdr frag exists drop";

/// A first piece that ends before what it is could say anything in the next one (RFC 7112). Bytes behind its end, which no system
/// reads, must not be taken for it: so its length counts, and nothing stands before or behind its header.
fn in_pieces() -> String {
    format!("{PIECE_V6} jump pieces")
}
const FIRST_PIECE: [&str; 3] = [
    "frag frag-off 0 ip6 nexthdr != 44 drop",
    "frag frag-off 0 frag nexthdr { 0, 43, 44, 51, 60, 135, 139, 140 } drop",
    "frag frag-off 0 ip6 length < 16 drop",
];

/// Who speaks from the gateway's addresses.
fn impostor6(ipv6: Inet6, chain: &mut Lines) {
    for address in [ipv6.gateway, ipv6.link_local] {
        chain.add(format!("ip6 saddr {address} drop"));
    }
}

/// Who claims them.
fn impostor_of_neighbours(ipv6: Inet6, chain: &mut Lines) {
    for address in [ipv6.gateway, ipv6.link_local] {
        let bits = address.to_bits();
        chain.add(format!(
            "icmpv6 type nd-neighbor-advert @th,64,128 {bits:#034x} drop"
        ));
    }
}

/// Where bridged packets pass the rules of routed ones (`br_netfilter`, which Docker switches on), the kernel bridges what a
/// forwarded port leads back to the bridge: it comes to the guest from the other guest's MAC, and perhaps out of the member that
/// it came by. So members may have back what came by them, if it is that, and it comes from the host, as it would have.
pub(super) fn turned_back(rules: &Rules) -> String {
    // Behind the kernel's own look at bridged packets, which is at 0.
    let mut passing = Lines::filter("passing", "forward", 100);
    passing.add(format!(
        "meta mark and {TURNED_BACK:#x} == {TURNED_BACK:#x} ether saddr set {} meta mark set meta mark and {:#x} accept",
        mac(rules.host),
        !TURNED_BACK
    ));
    let same: Vec<String> = rules
        .members
        .iter()
        .map(|member| format!("\"{member}\" . \"{member}\""))
        .collect();
    if !same.is_empty() {
        passing.add(format!("iifname . oifname {{ {} }} drop", same.join(", ")));
    }
    passing.end()
}
