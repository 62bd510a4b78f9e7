//! Interfaces on which we have switched forwarding on: a table that says which, and what keeps the host from becoming a router
//! between networks that are not ours.
//!
//! Each chain takes time of each packet, so the filters of our networks do that as well: who carries it has sets of these
//! interfaces. Where no network does, the table has a chain of its own.

use super::program::{self, NftError};
use super::text::{Lines, collection, quoted};
use super::{COMMENT, is_name};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The table. No bridge of ours can have this name: it is too long.
const TABLE: &str = "vmnet-forwarding";

/// What is written down, by what it means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Interfaces that forward IPv4 by our doing.
    pub v4: BTreeSet<String>,
    /// Interfaces that forward IPv6 by our doing; `all` for all of them.
    pub v6: BTreeSet<String>,
    /// Interfaces that take router advertisements although they forward, by our doing.
    pub ra: BTreeSet<String>,
    /// Interfaces that forwarded IPv6 before all of them did by our doing.
    pub routed: BTreeSet<String>,
    /// Interfaces that were there before: nothing is to pass between them by our doing.
    pub others: BTreeSet<String>,
}

impl Record {
    /// Nothing was switched on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty() && self.ra.is_empty()
    }
}

/// What is written down.
///
/// # Errors
///
/// See [`NftError`].
pub fn read() -> Result<Record, NftError> {
    let said = match program::ask(&["list", "table", "inet", TABLE]) {
        Ok(said) => said,
        // There is none. Whoever took another error for that would forget what is switched on.
        Err(NftError::Refused(why)) if why.contains("No such file or directory") => {
            return Ok(Record::default());
        }
        Err(error) => return Err(error),
    };
    let all = said.get("nftables").and_then(Value::as_array);
    let mut sets: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for set in all.into_iter().flatten().filter_map(|it| it.get("set")) {
        let elements = set.get("elem").and_then(Value::as_array);
        let names = elements.into_iter().flatten().filter_map(Value::as_str);
        if let Some(name) = set.get("name").and_then(Value::as_str) {
            sets.insert(name, names.map(str::to_owned).collect());
        }
    }
    let mut take = |name| sets.remove(name).unwrap_or_default();
    Ok(Record {
        v4: take("v4"),
        v6: take("v6"),
        ra: take("ra"),
        routed: take("routed"),
        others: take("others"),
    })
}

/// Writes down what is, or is about to be, switched on. `carriers`: bridges whose filters see to it.
///
/// # Errors
///
/// See [`NftError`].
pub fn write(record: &Record, carriers: &BTreeSet<String>) -> Result<(), NftError> {
    program::run(&render(record, carriers))
}

/// Sets of a network's table: interfaces on which IPv4 is forwarded by our doing, those on which IPv6 is, and all that were there
/// before.
pub(super) const SETS: [&str; 3] = ["forwarding4", "forwarding6", "others"];

/// Adds to a filter of forwarded packets what keeps those from passing that are of none of our networks, as far as that is by our
/// doing.
pub(super) fn refuse_others(forward: &mut Lines) {
    for (protocol, set) in [("ipv4", SETS[0]), ("ipv6", SETS[1])] {
        forward.add(format!(
            "meta nfproto {protocol} iifname @{set} oifname @{} drop",
            SETS[2]
        ));
    }
}

/// Says in the sets of a network's table what is switched on.
fn filled(bridge: &str, record: &Record) -> String {
    let v6 = match record.v6.contains("all") {
        true => &record.others,
        false => &record.v6,
    };
    let mut text = String::new();
    for (set, names) in SETS.into_iter().zip([&record.v4, v6, &record.others]) {
        text += &format!("flush set inet {bridge} {set}\n");
        let names = quoted(names.iter().filter(|name| is_name(name)));
        if !names.is_empty() {
            let names = names.join(", ");
            text += &format!("add element inet {bridge} {set} {{ {names} }}\n");
        }
    }
    text
}

pub(super) fn render(record: &Record, carriers: &BTreeSet<String>) -> String {
    let mut text: String = carriers
        .iter()
        .map(|bridge| filled(bridge, record))
        .collect();
    text += &format!("add table inet {TABLE}\ndelete table inet {TABLE}\n");
    if record.is_empty() {
        return text;
    }
    let _infallible = write!(text, "table inet {TABLE} {{\n comment \"{COMMENT}\"\n");
    for (name, names) in [
        ("v4", &record.v4),
        ("v6", &record.v6),
        ("ra", &record.ra),
        ("routed", &record.routed),
        ("others", &record.others),
    ] {
        let names = quoted(names.iter().filter(|name| is_name(name)));
        text += &collection("set", name, "ifname", &names);
    }
    if carriers.is_empty() {
        text += &chain(record);
    }
    text + "}\n"
}

/// What keeps packets from passing between others by our doing.
fn chain(record: &Record) -> String {
    let mut forward = Lines::filter("forward", "forward", "filter");
    // Each packet of the host passes here: what takes time is kept short.
    let (v4, v6, others) = (&record.v4, &record.v6, &record.others);
    let between = |from, of, to| {
        let (from, to) = (one_of(from, of), one_of("others", to));
        format!("iifname {from} oifname {to} drop")
    };
    if !v4.is_empty() && v4 == v6 {
        forward.add(between("v4", v4, others));
    } else {
        if !v4.is_empty() {
            let rule = between("v4", v4, others);
            forward.add(format!("meta nfproto ipv4 {rule}"));
        }
        let rule = match v6.contains("all") {
            true => between("others", others, others),
            false => between("v6", v6, others),
        };
        if !v6.is_empty() {
            forward.add(format!("meta nfproto ipv6 {rule}"));
        }
    }
    forward.end()
}

/// How a rule asks for the interfaces of a set: one alone is compared, which takes less time than looking it up.
fn one_of(set: &str, names: &BTreeSet<String>) -> String {
    let mut sound = names.iter().filter(|name| is_name(name));
    match (sound.next(), sound.next()) {
        (Some(name), None) => format!("\"{name}\""),
        _ => format!("@{set}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_opened_leads_to_none_that_was_there_before() {
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        let rules = |v4: &[&str], v6: &[&str], others: &[&str]| -> Vec<String> {
            let record = Record {
                v4: names(v4),
                v6: names(v6),
                others: names(others),
                ..Record::default()
            };
            let text = render(&record, &BTreeSet::new());
            let rules = text.lines().filter(|line| line.ends_with(" drop"));
            rules.map(|line| line.trim().to_owned()).collect()
        };
        let lan = ["lan0"];
        assert_eq!(
            rules(&lan, &lan, &lan),
            ["iifname \"lan0\" oifname \"lan0\" drop"]
        );
        assert_eq!(
            rules(&lan, &["all"], &["lan0", "lan1"]),
            [
                "meta nfproto ipv4 iifname \"lan0\" oifname @others drop",
                "meta nfproto ipv6 iifname @others oifname @others drop"
            ]
        );
        assert_eq!(
            rules(&[], &["lan0", "lan1"], &["lan0", "no name"]),
            ["meta nfproto ipv6 iifname @v6 oifname \"lan0\" drop"]
        );
        assert_eq!(rules(&[], &[], &lan), [""; 0]);
    }

    #[test]
    fn filters_of_networks_see_to_it_in_place_of_a_chain() {
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        let record = Record {
            v4: names(&["lan0"]),
            v6: names(&["all"]),
            others: names(&["lan0", "lan1", "no name"]),
            ..Record::default()
        };
        let text = render(&record, &names(&["vmnet0"]));
        assert!(!text.contains("chain"), "{text}");
        let elements: Vec<&str> = text.lines().filter(|it| it.contains("element ")).collect();
        assert_eq!(
            elements,
            [
                "add element inet vmnet0 forwarding4 { \"lan0\" }",
                "add element inet vmnet0 forwarding6 { \"lan0\", \"lan1\" }",
                "add element inet vmnet0 others { \"lan0\", \"lan1\" }",
            ]
        );
        let nothing = render(&Record::default(), &names(&["vmnet0"]));
        assert!(
            nothing.contains("flush set inet vmnet0 others"),
            "{nothing}"
        );
        assert!(!nothing.contains("element "), "{nothing}");
        assert!(render(&record, &BTreeSet::new()).contains("chain forward"));
    }
}
