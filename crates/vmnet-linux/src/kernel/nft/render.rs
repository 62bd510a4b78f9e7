//! The tables of one network as text.

use super::{COMMENT, Inet, Inet6, NftError, PREFIX, PortForward, Rules, is_name};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Replaces the tables of a network.
///
/// # Errors
///
/// A name cannot stand in a rule.
pub fn network(rules: &Rules) -> Result<String, NftError> {
    let names = [&rules.bridge, &rules.trunk].into_iter();
    let names = names.chain(&rules.external);
    for name in names.chain(rules.fixed.iter().map(|(name, _)| name)) {
        checked(name)?;
    }
    let mut text = removal(&rules.bridge)?;
    let bridge = &rules.bridge;
    let _infallible = write!(
        text,
        "table inet {bridge} {{\n comment \"{COMMENT}\"\n{}{}{}}}\n\
         table bridge {bridge} {{\n comment \"{COMMENT}\"\n{}}}\n",
        filter(rules),
        translation(rules),
        lists(&rules.forwards),
        guard(rules)
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
    // Deleting what is not there is refused, and adding what is there is not.
    let of = |family| format!("add table {family} {bridge}\ndelete table {family} {bridge}\n");
    Ok(of("inet") + &of("bridge"))
}

fn checked(name: &str) -> Result<(), NftError> {
    if is_name(name) {
        Ok(())
    } else {
        Err(NftError::Name(name.to_owned()))
    }
}

/// Lines of a chain, or of none.
struct Lines(String);

impl Lines {
    fn chain(name: &str, kind: &str) -> Self {
        Self(format!(" chain {name} {{\n  {kind}\n"))
    }

    fn add(&mut self, line: impl AsRef<str>) {
        self.0 += "  ";
        self.0 += line.as_ref();
        self.0 += "\n";
    }

    fn end(self) -> String {
        self.0 + " }\n"
    }
}

fn subnet(ipv4: Inet) -> String {
    format!("{}/{}", ipv4.network, ipv4.prefix_len)
}

fn prefix(ipv6: Inet6) -> String {
    format!("{}/64", ipv6.network)
}

/// What may pass between the network, the host, and all others.
fn filter(rules: &Rules) -> String {
    let own = &rules.bridge;
    let mut text = String::new();
    // Loopback clients of forwarded ports take `route_localnet`, which lets in what no guest may send.
    let mut raw = Lines::chain(
        "arriving",
        "type filter hook prerouting priority raw; policy accept;",
    );
    raw.add(format!("iifname \"{own}\" ip saddr 127.0.0.0/8 drop"));
    raw.add(format!("iifname \"{own}\" ip daddr 127.0.0.0/8 drop"));
    text += &raw.end();

    text += &input(rules);

    let mut forward = Lines::chain(
        "forward",
        "type filter hook forward priority filter; policy accept;",
    );
    forward.add(format!("iifname \"{own}\" ct status dnat accept"));
    forward.add(format!("oifname \"{own}\" ct status dnat accept"));
    // Between guests: what their bridge passes on, if that calls for these rules too, or what goes round by the host.
    let among = if rules.isolation { "drop" } else { "accept" };
    forward.add(format!("iifname \"{own}\" oifname \"{own}\" {among}"));
    // What has begun may go on, in both directions. Where only one interface will do, each packet is asked by which it leaves.
    let towards = match &rules.external {
        Some(_) => format!("oifname \"{own}\" "),
        None => String::new(),
    };
    forward.add(format!("{towards}ct state established,related accept"));
    forward.add(format!("oifname \"{own}\" drop"));
    forward.add(format!("iifname != \"{own}\" accept"));
    if let Some(ipv4) = rules.ipv4 {
        forward.add(format!("ip saddr != {} drop", subnet(ipv4)));
    }
    if let Some(ipv6) = rules.ipv6 {
        forward.add(format!("ip6 saddr != {} drop", prefix(ipv6)));
    }
    forward.add(format!(
        "oifname \"{PREFIX}*\" reject with icmpx admin-prohibited"
    ));
    for (family, nat) in [
        ("ipv4", rules.ipv4.is_some_and(|ipv4| ipv4.nat)),
        ("ipv6", rules.ipv6.is_some_and(|ipv6| ipv6.nat)),
    ] {
        if !nat {
            forward.add(format!(
                "meta nfproto {family} reject with icmpx admin-prohibited"
            ));
        }
    }
    if let Some(external) = &rules.external {
        forward.add(format!(
            "oifname != \"{external}\" reject with icmpx no-route"
        ));
    }
    text + &forward.end()
}

/// What the host hears of guests.
fn input(rules: &Rules) -> String {
    let own = &rules.bridge;
    let mut input = Lines::chain(
        "input",
        "type filter hook input priority filter; policy accept;",
    );
    input.add(format!("iifname != \"{own}\" accept"));
    // The gateway's services are not the host's, and the host's are not the gateway's.
    input.add("udp dport { 67, 547 } drop");
    // The services are the router that answers. The host would remember whoever asks, and its table is of one size for all.
    if rules.serves {
        input.add("icmpv6 type nd-router-solicit drop");
    }
    input.add("meta l4proto { tcp, udp } th dport 53 reject with icmpx port-unreachable");
    if let Some(ipv4) = rules.ipv4 {
        input.add(format!("ip saddr != {} drop", subnet(ipv4)));
        if !ipv4.nat {
            let own = ipv4.gateway;
            input.add(format!(
                "ip daddr != {own} meta pkttype host reject with icmpx admin-prohibited"
            ));
        }
    } else {
        input.add("meta nfproto ipv4 drop");
    }
    if let Some(ipv6) = rules.ipv6 {
        input.add(format!(
            "ip6 saddr != {{ {}, fe80::/10, :: }} drop",
            prefix(ipv6)
        ));
        if !ipv6.nat {
            input.add(format!(
                "ip6 daddr != {{ {}, fe80::/10, ff00::/8 }} reject with icmpx admin-prohibited",
                prefix(ipv6)
            ));
        }
    } else {
        input.add("meta nfproto ipv6 drop");
    }
    input.end()
}

/// Whose address stands for whom.
fn translation(rules: &Rules) -> String {
    let own = &rules.bridge;
    let mut behind = Lines::chain(
        "postrouting",
        "type nat hook postrouting priority srcnat; policy accept;",
    );
    if let Some(ipv4) = rules.ipv4 {
        let subnet = subnet(ipv4);
        // Clients that would mean something else inside the guest, or to which it knows no way.
        let strange = if ipv4.nat {
            format!("ip saddr {{ 127.0.0.0/8, {subnet} }}")
        } else {
            format!("ip saddr != {}", ipv4.gateway)
        };
        behind.add(format!(
            "oifname \"{own}\" ct status dnat {strange} masquerade"
        ));
        if ipv4.nat {
            behind.add(format!(
                "ip saddr {subnet} oifname != \"{PREFIX}*\" masquerade"
            ));
        }
    }
    if let Some(ipv6) = rules.ipv6 {
        let prefix = prefix(ipv6);
        let strange = if ipv6.nat {
            format!("ip6 saddr {{ fe80::/10, {prefix} }}")
        } else {
            format!("ip6 saddr != {}", ipv6.gateway)
        };
        behind.add(format!(
            "oifname \"{own}\" ct status dnat {strange} masquerade"
        ));
        if ipv6.nat {
            behind.add(format!(
                "ip6 saddr {prefix} oifname != \"{PREFIX}*\" masquerade"
            ));
        }
    }
    let mut text = behind.end();
    let lists: Vec<List> = by_list(&rules.forwards).into_keys().collect();
    if lists.is_empty() {
        return text;
    }
    for (name, hook) in [("prerouting", "prerouting"), ("output", "output")] {
        let mut chain = Lines::chain(
            name,
            &format!("type nat hook {hook} priority -100; policy accept;"),
        );
        for list in &lists {
            chain.add(list.rule());
        }
        text += &chain.end();
    }
    text
}

/// Forwards that one lookup finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct List {
    v6: bool,
    tcp: bool,
    /// By the host's address too.
    addressed: bool,
}

impl List {
    fn name(self) -> String {
        let protocol = if self.tcp { "tcp" } else { "udp" };
        let family = if self.v6 { "6" } else { "4" };
        let addressed = if self.addressed { "-at" } else { "" };
        format!("{protocol}{family}{addressed}")
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
            format!("dnat {ip} to {ip} daddr . {protocol} dport map @{name}")
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

/// Where forwarded ports lead.
fn lists(forwards: &[PortForward]) -> String {
    let mut text = String::new();
    for (list, forwards) in by_list(forwards) {
        let family = if list.v6 { "ipv6_addr" } else { "ipv4_addr" };
        let key = if list.addressed {
            format!("{family} . inet_service")
        } else {
            "inet_service".to_owned()
        };
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
        let _infallible = write!(
            text,
            " map {} {{\n  type {key} : {family} . inet_service\n  elements = {{ {} }}\n }}\n",
            list.name(),
            elements.join(", ")
        );
    }
    text
}

/// Nobody speaks in the gateway's name, and questions find its services.
fn guard(rules: &Rules) -> String {
    let (own, trunk) = (&rules.bridge, &rules.trunk);
    let mut arriving = Lines::chain(
        "arriving",
        "type filter hook prerouting priority -300; policy accept;",
    );
    arriving.add(format!("iifname \"{trunk}\" accept"));
    arriving.add(format!("iifname \"{own}-*\" jump guard"));
    arriving.add(format!(
        "iifname \"{own}-*\" ether daddr {} jump steer",
        mac(rules.host)
    ));
    let macs = format!("{{ {}, {} }}", mac(rules.host), mac(rules.services));
    let (sets, speaker) = speaker(rules, &macs);
    let mut guard = Lines(" chain known {\n".to_owned());
    for protocol in USUAL {
        guard.add(format!("ether type {protocol} goto known-{protocol}"));
    }
    guard.add(format!("arp saddr ether {macs} drop"));
    // Linux takes a frame with the tag of no VLAN as its own, and there are systems that take what SNAP carries.
    guard.add("ether type 8021ad drop");
    guard.add("vlan id 0 drop");
    guard.add("ether type < 0x0600 @nh,0,16 { 0xaaaa, 0xaaab, 0xabaa, 0xabab } drop");
    if let Some(ipv4) = rules.ipv4 {
        guard.add(format!("arp saddr ip {} drop", ipv4.gateway));
        guard.add(format!("ip saddr {} drop", ipv4.gateway));
    }
    if let Some(ipv6) = rules.ipv6 {
        guard.add(impostor6(ipv6));
        guard.add(impostor_of_neighbours(ipv6));
    }
    if rules.serves {
        for rule in [ROUTER, NEIGHBOUR_IN_PIECES, SERVER_V4, SERVER_V6] {
            guard.add(rule);
        }
    }
    let mut steer = Lines(" chain steer {\n".to_owned());
    let to = format!("ether daddr set {}", mac(rules.services));
    if let Some(ipv4) = rules.ipv4 {
        let at = format!("ip daddr {}", ipv4.gateway);
        let ports = if rules.dns { "{ 53, 67 }" } else { "67" };
        steer.add(format!("{at} udp dport {ports} {to}"));
        if rules.dns {
            steer.add(format!("{at} tcp dport 53 {to}"));
        }
    }
    if let Some(ipv6) = rules.ipv6 {
        let at = format!("ip6 daddr {{ {}, {} }}", ipv6.gateway, ipv6.link_local);
        let ports = if rules.dns { "{ 53, 547 }" } else { "547" };
        steer.add(format!("{at} udp dport {ports} {to}"));
        if rules.dns {
            steer.add(format!("{at} tcp dport 53 {to}"));
        }
    }
    sets + &usual(rules, &macs) + &guard.end() + &speaker + &steer.end() + &arriving.end()
}

/// Protocols of nearly all frames, which have chains of their own with what has to be looked at in them. All others, and frames
/// with tags, go through everything.
const USUAL: [&str; 3] = ["ip", "ip6", "arp"];

/// Whose MAC a frame has: the one that its member is to have, if it is to have one, and nobody's that is not a guest's. One
/// lookup for most frames, however many members there are.
fn speaker(rules: &Rules, macs: &str) -> (String, String) {
    let mut sets = String::new();
    let mut chain = Lines(" chain guard {\n".to_owned());
    let ours = [rules.host, rules.services];
    let fixed = rules.fixed.iter();
    let fixed: Vec<_> = fixed.filter(|(_, mac)| !ours.contains(mac)).collect();
    if !fixed.is_empty() {
        let pairs: Vec<String> = fixed
            .iter()
            .map(|(member, fixed)| format!("\"{member}\" . {}", mac(*fixed)))
            .collect();
        sets += &set("fixed", "ifname . ether_addr", &pairs);
        chain.add("iifname . ether saddr @fixed goto known");
    }
    if !rules.fixed.is_empty() {
        let fixed = rules.fixed.iter();
        let members: Vec<String> = fixed.map(|(member, _)| format!("\"{member}\"")).collect();
        sets += &set("members", "ifname", &members);
        chain.add("iifname @members drop");
    }
    chain.add(format!("ether saddr {macs} drop"));
    chain.add("goto known");
    (sets, chain.end())
}

fn set(name: &str, of: &str, elements: &[String]) -> String {
    let elements = elements.join(", ");
    format!(" set {name} {{\n  type {of}\n  elements = {{ {elements} }}\n }}\n")
}

/// What is looked at in frames of the usual protocols.
fn usual(rules: &Rules, macs: &str) -> String {
    let chain = |name: &str| Lines(format!(" chain {name} {{\n"));
    let [mut v4, mut v6, mut arp] = USUAL.map(|protocol| chain(&format!("known-{protocol}")));
    let mut neighbours = chain("neighbours");
    arp.add(format!("arp saddr ether {macs} drop"));
    if let Some(ipv4) = rules.ipv4 {
        arp.add(format!("arp saddr ip {} drop", ipv4.gateway));
        v4.add(format!("ip saddr {} drop", ipv4.gateway));
    }
    if let Some(ipv6) = rules.ipv6 {
        v6.add(impostor6(ipv6));
        neighbours.add(impostor_of_neighbours(ipv6));
    }
    v6.add("meta l4proto ipv6-icmp goto neighbours");
    if rules.serves {
        v4.add(SERVER_V4);
        v6.add(SERVER_V6);
        neighbours.add(ROUTER);
        neighbours.add(NEIGHBOUR_IN_PIECES);
    }
    // A chain that is gone to has to be there first.
    neighbours.end() + &v4.end() + &v6.end() + &arp.end()
}

/// Guests that would be the gateway's services.
const SERVER_V4: &str = "udp sport 67 udp dport 68 drop";
const SERVER_V6: &str = "meta protocol ip6 udp dport 546 drop";
const ROUTER: &str = "icmpv6 type { nd-router-advert, nd-redirect } drop";
const NEIGHBOUR_IN_PIECES: &str =
    "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } exthdr frag exists drop";

/// Who speaks from the gateway's addresses.
fn impostor6(ipv6: Inet6) -> String {
    let (one, other) = (ipv6.gateway, ipv6.link_local);
    format!("ip6 saddr {{ {one}, {other} }} drop")
}

/// Who claims them.
fn impostor_of_neighbours(ipv6: Inet6) -> String {
    format!(
        "icmpv6 type nd-neighbor-advert @th,64,128 {{ {:#034x}, {:#034x} }} drop",
        ipv6.gateway.to_bits(),
        ipv6.link_local.to_bits()
    )
}

fn mac(bytes: [u8; 6]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.join(":")
}

#[cfg(test)]
mod tests;
