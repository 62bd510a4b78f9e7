//! The tables of one network as text.

use super::forwarding::{SETS, refuse_others};
use super::guard::{guard, turned_back};
use super::isolation::apart;
use super::text::Lines;
use super::translation::{LEADING, kept, lists, translation};
use super::{COMMENT, Inet, Inet6, NftError, Rules, is_name};
use std::fmt::Write as _;

/// The bit of a packet's mark by which the bridge tells what a forwarded port has turned back to it. It is taken off there.
pub(super) const TURNED_BACK: u32 = 0x0100_0000;
/// The bit by which [`policy_routing`](crate::kernel::policy_routing) leaves a packet to the host's own routes.
pub(crate) const ROUTED_BY_HOST: u32 = 0x0200_0000;
/// Puts a bit of these on a packet.
pub(super) fn mark(bit: u32) -> String {
    format!("meta mark set meta mark or {bit:#x}")
}

/// From the host's loopback, or to it. The kernel itself refuses that, unless clients of forwarded ports, or somebody else, have opened
/// it (`route_localnet`).
pub(super) const LOOPBACK: [&str; 2] = ["ip saddr 127.0.0.0/8 drop", "ip daddr 127.0.0.0/8 drop"];

/// Of a connection whose source is translated, and to which somebody has answered: more than begun. Without an answer each packet is still
/// judged by what holds now.
const ANSWERED: &str = "ct status & (snat | seen-reply) == (snat | seen-reply)";

/// What pieces of packets look like, in each family.
pub(super) const PIECES: [&str; 2] = [PIECE_V4, PIECE_V6];
pub(super) const PIECE_V4: &str = "ip frag-off & 0x3fff != 0";
/// What carries the usual protocols at once has no headers between, and is not searched for one.
pub(super) const PIECE_V6: &str = "ip6 nexthdr != { tcp, udp, ipv6-icmp } exthdr frag exists";

/// Sets the tables of a network, whether there are some or none.
///
/// A packet meets old rules or new ones. What they look up is looked up in the old or the new generation of sets, and not always
/// in that of the rules: where a map were replaced, a connection could be refused, which was seen. So maps stay, and what is in
/// them is replaced. A set that has no name is replaced with its rule: it may only stand where it does not matter if nothing
/// is found in it for once.
///
/// # Errors
///
/// A name cannot stand in a rule.
pub fn network(rules: &Rules) -> Result<String, NftError> {
    let names = [&rules.bridge, &rules.trunk].into_iter();
    let names = names
        .chain(&rules.external)
        .chain(&rules.members)
        .chain(&rules.others)
        .chain(&rules.isolated);
    for name in names.chain(rules.fixed.iter().map(|(name, _)| name)) {
        checked(name)?;
    }
    let bridge = &rules.bridge;
    let mut text = emptied(rules);
    let _infallible = write!(
        text,
        "table inet {bridge} {{\n comment \"{COMMENT}\"\n{}{}{}}}\n\
         {}table bridge {bridge} {{\n comment \"{COMMENT}\"\n{}{}{}}}\n",
        filter(rules),
        translation(rules),
        lists(&rules.forwards),
        removal_of("bridge", bridge),
        guard(rules),
        apart(rules),
        turned_back(rules)
    );
    Ok(text)
}

/// Removes the tables of a network, if they are there.
///
/// # Errors
///
/// The name cannot stand in a rule.
pub fn removal(bridge: &str) -> Result<String, NftError> {
    checked(bridge)?;
    Ok(removal_of("inet", bridge) + &removal_of("bridge", bridge))
}

fn removal_of(family: &str, bridge: &str) -> String {
    // Deleting what is not there is refused, and adding what is there is not.
    format!("add table {family} {bridge}\ndelete table {family} {bridge}\n")
}

/// Makes a table of a network, or empties it but for the maps that stay and the chains at hooks.
fn emptied(rules: &Rules) -> String {
    let bridge = &rules.bridge;
    let (stay, go) = kept(&rules.forwards);
    let mut chains = vec![(ROUTING, rules.external.is_some())];
    chains.push((ARRIVING, rules.guards_loopback()));
    chains.extend(LEADING.map(|(name, _)| (name, !stay.is_empty())));
    let unused: Vec<&str> = chains
        .iter()
        .filter(|(_, used)| !used)
        .map(|(name, _)| *name)
        .collect();
    let mut text = format!("add table inet {bridge}\n");
    for list in stay.iter().chain(&go) {
        let (name, of) = (list.name(), list.of());
        text += &format!("add map inet {bridge} {name} {{ type {of}; }}\n");
    }
    for name in &unused {
        text += &format!("add chain inet {bridge} {name}\n");
    }
    for set in SETS {
        text += &format!("add set inet {bridge} {set} {{ type ifname; }}\n");
    }
    text += &format!("flush table inet {bridge}\n");
    for list in &stay {
        text += &format!("flush map inet {bridge} {}\n", list.name());
    }
    for list in &go {
        text += &format!("delete map inet {bridge} {}\n", list.name());
    }
    for name in &unused {
        text += &format!("delete chain inet {bridge} {name}\n");
    }
    text
}

fn checked(name: &str) -> Result<(), NftError> {
    if is_name(name) {
        Ok(())
    } else {
        Err(NftError::Name(name.to_owned()))
    }
}

/// What rules say of one family of addresses.
pub(super) struct Family {
    /// How addresses of it are matched, and how it is called.
    ip: &'static str,
    protocol: &'static str,
    /// The network's own, if the host has an address on it.
    own: Option<Own>,
}

/// The network's addresses of a family.
struct Own {
    subnet: String,
    gateway: String,
    nat: bool,
}

/// Clients of forwarded ports that would mean something else inside a guest: those of the link or the host alone.
const STRANGE_V4: &str = "127.0.0.0/8";
const STRANGE_V6: &str = "fe80::/10";

pub(super) fn families(rules: &Rules) -> [Family; 2] {
    let v4 = |ipv4: Inet| Own {
        subnet: format!("{}/{}", ipv4.network, ipv4.prefix_len),
        gateway: ipv4.gateway.to_string(),
        nat: ipv4.nat,
    };
    let v6 = |ipv6: Inet6| Own {
        subnet: format!("{}/64", ipv6.network),
        gateway: ipv6.gateway.to_string(),
        nat: ipv6.nat,
    };
    [
        Family {
            ip: "ip",
            protocol: "ipv4",
            own: rules.ipv4.map(v4),
        },
        Family {
            ip: "ip6",
            protocol: "ipv6",
            own: rules.ipv6.map(v6),
        },
    ]
}

impl Family {
    fn is_v6(&self) -> bool {
        self.ip == "ip6"
    }

    /// What passes from guests to the outside, at the end of the chain.
    fn leave(&self, forward: &mut Lines) {
        if let Some(own) = &self.own {
            forward.add(format!("{} saddr != {} drop", self.ip, own.subnet));
        }
    }

    /// What guests of a network without a way out are told.
    fn stay(&self, forward: &mut Lines) {
        if !self.own.as_ref().is_some_and(|own| own.nat) {
            forward.add(format!(
                "meta nfproto {} reject with icmpx admin-prohibited",
                self.protocol
            ));
        }
    }

    /// What the host hears.
    fn arrive(&self, input: &mut Lines) {
        let ip = self.ip;
        let Some(own) = &self.own else {
            input.add(format!("meta nfproto {} drop", self.protocol));
            return;
        };
        // Neighbours of IPv6 speak from addresses of the link, and from none.
        let (from, to) = if self.is_v6() {
            let subnet = &own.subnet;
            (
                format!("{{ {subnet}, fe80::/10, :: }}"),
                format!("{{ {subnet}, fe80::/10, ff00::/8 }}"),
            )
        } else {
            (own.subnet.clone(), own.gateway.clone())
        };
        input.add(format!("{ip} saddr != {from} drop"));
        if !own.nat {
            // Others of the host's addresses are outside; what is for many is heard by the host as by all.
            let one = if self.is_v6() {
                ""
            } else {
                "meta pkttype host "
            };
            input.add(format!(
                "{ip} daddr != {to} {one}reject with icmpx admin-prohibited"
            ));
        }
    }

    /// Guests that stand behind the host's addresses.
    pub(super) fn masquerade(&self, bridge: &str, behind: &mut Lines) {
        if let Some(own) = self.own.as_ref().filter(|own| own.nat) {
            let Self { ip, protocol, .. } = self;
            // What costs least is asked first.
            behind.add(format!(
                "meta nfproto {protocol} iifname \"{bridge}\" oifname != \"{bridge}\" {ip} saddr {} masquerade",
                own.subnet
            ));
        }
    }

    /// Clients that stand behind the host's addresses, as guests see them.
    pub(super) fn masquerade_clients(&self, bridge: &str, behind: &mut Lines) {
        let Some(own) = &self.own else { return };
        let (ip, subnet) = (self.ip, &own.subnet);
        // Clients that would mean something else inside the guest, or to which it knows no way.
        let alone = if self.is_v6() { STRANGE_V6 } else { STRANGE_V4 };
        let strange = if own.nat {
            vec![alone.to_owned(), subnet.clone()]
        } else {
            vec![format!("!= {}", own.gateway)]
        };
        for whom in strange {
            behind.add(format!(
                "oifname \"{bridge}\" ct status dnat {ip} saddr {whom} masquerade"
            ));
        }
    }
}

/// The chain that leaves packets to the host's own routes, where guests have one way out.
const ROUTING: &str = "routing";

/// What may pass between the network, the host, and all others.
fn filter(rules: &Rules) -> String {
    let own = &rules.bridge;
    let mut text = String::new();
    if rules.guards_loopback() {
        text += &arriving(rules);
    }

    if rules.external.is_some() {
        // Behind the translation, before a route is looked for. Clients of forwarded ports come by any interface.
        let mut routing = Lines::filter(ROUTING, "prerouting", -50);
        routing.add(format!(
            "iifname \"{own}\" ct status dnat {}",
            mark(ROUTED_BY_HOST)
        ));
        text += &routing.end();
    }

    text += &input(rules);

    // Between guests: what their bridge passes on, if that calls for these rules too, or what goes round by the host.
    let mut between = Lines::part("between");
    // By a forwarded port a guest would speak to another as anybody. The host itself looks at IPv4 (`rp_filter`), and has nothing like
    // that for IPv6.
    let foreign = rules.ipv6.map(|ipv6| {
        let subnet = format!("{}/64", ipv6.network);
        format!("ip6 saddr != {{ {subnet}, fe80::/10, :: }} drop")
    });
    if let Some(foreign) = &foreign {
        between.add(format!("ct status dnat {foreign}"));
    }
    between.add(format!("ct status dnat {} accept", mark(TURNED_BACK)));
    let some_isolated = !rules.isolated.is_empty() || rules.isolated_behind;
    if let (true, Some(foreign)) = (some_isolated, &foreign) {
        // The bridge, or our switch, keeps from isolated guests what comes round from addresses of the network.
        between.add(foreign);
    }
    between.add(if rules.isolation { "drop" } else { "accept" });
    text += &between.end();
    let to_between = format!("oifname \"{own}\" goto between");
    // Each packet is asked whether it is between guests only if that matters.
    let each = rules.isolation || rules.keep_apart_alone();

    let mut forward = Lines::filter("forward", "forward", "filter");
    if each {
        forward.add(format!("iifname \"{own}\" {to_between}"));
    }
    // What has begun may go on, in both directions. Where only one interface will do, each packet is asked by which it leaves.
    let towards = match &rules.external {
        Some(_) => format!("oifname \"{own}\" "),
        None => String::new(),
    };
    let begun = format!("{towards}ct state established,related");
    // Nearly all that is ours has another source, and an answer was seen: that takes one look. What is not translated may have begun
    // between others while there were no rules.
    forward.add(format!("{towards}{ANSWERED} accept"));
    forward.add(format!("{begun} ct status snat,dnat accept"));
    // Nothing is asked of what guests begin that is about others alone.
    forward.add(format!("iifname \"{own}\" goto outward"));
    refuse_others(&mut forward);
    forward.add(format!("{begun} accept"));
    forward.add(format!("oifname \"{own}\" ct status dnat accept"));
    forward.add(format!("oifname \"{own}\" drop"));

    let mut outward = Lines::part("outward");
    outward.add(format!("{begun} accept"));
    if !each {
        outward.add(&to_between);
    }
    if let Some(foreign) = &foreign {
        outward.add(format!("ct status dnat {foreign}"));
    }
    outward.add("ct status dnat accept");
    let families = families(rules);
    families
        .iter()
        .for_each(|family| family.leave(&mut outward));
    for other in &rules.others {
        outward.add(format!(
            "oifname \"{other}\" reject with icmpx admin-prohibited"
        ));
    }
    families.iter().for_each(|family| family.stay(&mut outward));
    if let Some(external) = &rules.external {
        outward.add(format!(
            "oifname != \"{external}\" reject with icmpx no-route"
        ));
    }
    text + &outward.end() + &forward.end()
}

/// The chain of what arrives, which each packet of the host passes.
const ARRIVING: &str = "arriving";

/// What of the network the host does not take, before it looks at anything else: by ports of the bridge that are not ours, too, of
/// which the bridge has no rules.
fn arriving(rules: &Rules) -> String {
    let own = &rules.bridge;
    let mut arriving = Lines::filter(ARRIVING, "prerouting", -450);
    // Loopback clients of forwarded ports take `route_localnet`, which lets in what nobody may send.
    arriving.add(format!("iifname != \"{own}\" accept"));
    LOOPBACK.iter().for_each(|rule| arriving.add(rule));
    arriving.end()
}

/// What the host hears of guests.
fn input(rules: &Rules) -> String {
    let own = &rules.bridge;
    let mut input = Lines::filter("input", "input", "filter");
    input.add(format!("iifname != \"{own}\" accept"));
    // The gateway's services are not the host's, and the host's are not the gateway's.
    input.add("udp dport { 67, 547 } drop");
    // The services are the router that answers. The host would remember whoever asks, and its table is of one size for all.
    if rules.serves {
        input.add("icmpv6 type nd-router-solicit drop");
    }
    input.add("meta l4proto { tcp, udp } th dport 53 reject with icmpx port-unreachable");
    families(rules)
        .iter()
        .for_each(|family| family.arrive(&mut input));
    input.end()
}

#[cfg(test)]
mod tests;
