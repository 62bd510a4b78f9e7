//! Rules of others that forwarded packets meet. They are read to say what blocks and whose it is, and never changed here.

use super::machine::program;
use super::{Concern, Finding, State};
use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use vmnet_linux::kernel::nft::NftError;
use vmnet_linux::kernel::nft::chains::{self, Chain};

/// What the machine's service does about chains that block.
const OURS: &str = "nothing for networks of users; where the kernel carries a network, the machine's service has a rule there while it is up (comment openvmnet)";

/// Those whose rules are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Docker,
    Firewalld,
    Ufw,
    Libvirt,
    /// Whoever it is.
    Another,
}

impl Owner {
    const ALL: [Self; 5] = [
        Self::Docker,
        Self::Firewalld,
        Self::Ufw,
        Self::Libvirt,
        Self::Another,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Firewalld => "firewalld",
            Self::Ufw => "ufw",
            Self::Libvirt => "libvirt",
            Self::Another => "firewall",
        }
    }
}

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = match chains::all() {
        Ok(chains) => {
            let frames = chains::that_drop_frames().unwrap_or_default();
            let mut findings = findings(&chains);
            findings.push(of_bridges(&frames));
            findings
        }
        Err(NftError::Missing) => Vec::new(),
        Err(error) => {
            let said = error.to_string();
            let first = said.lines().next().unwrap_or_default();
            let found = format!("the rules of this host cannot be read: {first}");
            let finding = Finding::ok("firewall", Concern::System, found);
            vec![finding.but(State::Unknown, "sudo vmnet doctor")]
        }
    };
    findings.extend(legacy());
    findings
}

fn findings(chains: &[Chain]) -> Vec<Finding> {
    let mut tables: BTreeMap<(&str, &str), Vec<&Chain>> = BTreeMap::new();
    for chain in chains {
        let table = (&*chain.family, &*chain.table);
        tables.entry(table).or_default().push(chain);
    }
    let mut found: BTreeMap<Owner, Vec<String>> = BTreeMap::new();
    for (table, chains) in &tables {
        let owners = owners(table.1, chains);
        for owner in &owners {
            found.entry(*owner).or_default();
        }
        let Some(blocking) = chains.iter().find(|chain| chain.blocks()) else {
            continue;
        };
        let place = format!("{} {} {}", table.0, table.1, blocking.name);
        let first = owners.first().copied().unwrap_or(Owner::Another);
        found.entry(first).or_default().push(place);
    }
    found.entry(Owner::Another).or_default();
    let all = Owner::ALL.into_iter();
    all.filter_map(|owner| Some(finding(owner, found.get(&owner)?)))
        .collect()
}

/// Whose rules stand in a table; several may share one.
fn owners(table: &str, chains: &[&Chain]) -> Vec<Owner> {
    let some = |prefix: &str| chains.iter().any(|chain| chain.name.starts_with(prefix));
    let mut owners = Vec::new();
    if some("DOCKER") || table.starts_with("docker") {
        owners.push(Owner::Docker);
    }
    if table == "firewalld" {
        owners.push(Owner::Firewalld);
    }
    if some("ufw") {
        owners.push(Owner::Ufw);
    }
    if some("LIBVIRT_") || table == "libvirt_network" {
        owners.push(Owner::Libvirt);
    }
    owners
}

fn finding(owner: Owner, blocking: &[String]) -> Finding {
    let said = |found: String| Finding::ok(owner.name(), Concern::System, found);
    if !blocking.is_empty() {
        let places = blocking.join(", ");
        let found = format!("packets between interfaces are dropped or rejected by {places}");
        return said(found).but(State::Limited, OURS);
    }
    said(match owner {
        Owner::Another => "no other chain drops forwarded packets by its policy".to_owned(),
        owner => format!(
            "{} has rules here, and does not drop what is not its own",
            owner.name()
        ),
    })
}

/// Chains by whose policy frames between members of bridges are dropped.
fn of_bridges(dropping: &[(String, String)]) -> Finding {
    let said = |found: String| Finding::ok("bridge-rules", Concern::System, found);
    if dropping.is_empty() {
        return said("no chain drops frames of bridges by its policy".to_owned());
    }
    let places: Vec<String> = dropping
        .iter()
        .map(|(table, chain)| format!("bridge {table} {chain}"))
        .collect();
    let rules: Vec<String> = dropping
        .iter()
        .flat_map(|(table, chain)| {
            let rule =
                |side| format!("nft insert rule bridge {table} {chain} {side} '\"vmnet*\"' accept");
            // In some of these chains one of them is not known.
            [rule("iifname"), rule("oifname")]
        })
        .collect();
    said(format!(
        "frames of bridges that no rule lets pass are dropped by {} (ebtables, or nft): so are those of guests of networks that the kernel carries, and of bridged ones by the method bridge",
        places.join(", ")
    ))
    .but(State::Limited, format!("{} (as root)", rules.join("; ")))
}

/// Rules of the old kind, which `nft` does not see.
fn legacy() -> Option<Finding> {
    let finding = |found: &str| Finding::ok("iptables-legacy", Concern::System, found);
    let tables = std::fs::read_to_string("/proc/net/ip_tables_names").ok()?;
    if !tables.lines().any(|table| table == "filter") {
        return None;
    }
    let said = program("iptables-legacy").and_then(|program| {
        let mut command = Command::new(program);
        let output = command
            .args(["-S", "FORWARD"])
            .stdin(Stdio::null())
            .output();
        output.ok().filter(|output| output.status.success())
    });
    let Some(output) = said else {
        let found = finding("there are rules of the old iptables, which cannot be read");
        return Some(found.but(State::Unknown, "sudo vmnet doctor; install iptables"));
    };
    let drops = String::from_utf8_lossy(&output.stdout).contains("-P FORWARD DROP");
    Some(if drops {
        finding("packets between interfaces are dropped by the policy of the old iptables' FORWARD").but(
            State::Limited,
            "iptables-legacy -I FORWARD -i vmnet+ -j ACCEPT; iptables-legacy -I FORWARD -o vmnet+ -j ACCEPT (as root)",
        )
    } else {
        finding("the old iptables does not drop forwarded packets by its policy")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn chain(family: &str, table: &str, name: &str) -> Value {
        json!({"chain": {"family": family, "table": table, "name": name, "handle": 1}})
    }

    fn base(family: &str, table: &str, name: &str, policy: &str) -> Value {
        json!({"chain": {
            "family": family, "table": table, "name": name, "handle": 1,
            "type": "filter", "hook": "forward", "prio": 0, "policy": policy,
        }})
    }

    fn states(chains: &[Value]) -> Vec<(&'static str, State)> {
        let said = json!({ "nftables": chains });
        let findings = findings(&chains::parse(&said));
        findings.iter().map(|one| (one.name, one.state)).collect()
    }

    #[test]
    fn an_empty_host_blocks_nothing() {
        assert_eq!(states(&[]), [("firewall", State::Ok)]);
        let accepts = [base("inet", "filter", "forward", "accept")];
        assert_eq!(states(&accepts), [("firewall", State::Ok)]);
        // Our own tables, and those of frames.
        let not_theirs = [
            base("inet", "vmnet0", "forward", "drop"),
            base("bridge", "filter", "forward", "drop"),
        ];
        assert_eq!(states(&not_theirs), [("firewall", State::Ok)]);
    }

    #[test]
    fn each_is_known_by_its_chains() {
        let docker = [
            base("ip", "filter", "FORWARD", "drop"),
            chain("ip", "filter", "DOCKER-USER"),
        ];
        let expected = [("docker", State::Limited), ("firewall", State::Ok)];
        assert_eq!(states(&docker), expected);
        let firewalld = [base("inet", "firewalld", "filter_FORWARD", "accept")];
        let expected = [("firewalld", State::Limited), ("firewall", State::Ok)];
        assert_eq!(states(&firewalld), expected);
        let ufw = [
            base("ip", "filter", "FORWARD", "drop"),
            chain("ip", "filter", "ufw-before-forward"),
        ];
        let expected = [("ufw", State::Limited), ("firewall", State::Ok)];
        assert_eq!(states(&ufw), expected);
        let libvirt = [
            base("ip", "filter", "FORWARD", "accept"),
            chain("ip", "filter", "LIBVIRT_FWI"),
        ];
        let expected = [("libvirt", State::Ok), ("firewall", State::Ok)];
        assert_eq!(states(&libvirt), expected);
        let own = [base("inet", "mine", "forward", "drop")];
        assert_eq!(states(&own), [("firewall", State::Limited)]);
    }

    #[test]
    fn what_drops_frames_of_bridges_is_named_with_rules_that_let_ours_pass() {
        assert_eq!(of_bridges(&[]).state, State::Ok);
        let found = of_bridges(&[("filter".to_owned(), "FORWARD".to_owned())]);
        assert_eq!(found.state, State::Limited);
        assert!(found.found.contains("bridge filter FORWARD"), "{found:?}");
    }

    #[test]
    fn where_it_is_blocked_is_said() {
        let said = json!({ "nftables": [
            base("ip", "filter", "FORWARD", "drop"),
            base("ip6", "filter", "FORWARD", "drop"),
            chain("ip", "filter", "DOCKER"),
            chain("ip6", "filter", "DOCKER"),
        ]});
        let findings = findings(&chains::parse(&said));
        let found = &findings[0].found;
        assert!(
            found.contains("ip filter FORWARD, ip6 filter FORWARD"),
            "{found}"
        );
        assert_eq!(chains::parse(&json!({"nftables": 7})), []);
    }
}
