//! Rules of ours in chains of others: where these block what is not theirs, nothing in a table of ours helps.
//!
//! Docker, ufw and others set the policy of a chain for forwarded packets to drop; firewalld's ends with a reject. There, two
//! rules at the head let our networks pass, with a comment by which they are found again. Docker has a chain for the rules
//! of others, which it leaves alone. Nothing else of theirs is touched.

use super::COMMENT;
use super::chains::{self, Chain};
use super::program::{self, NftError};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Lets these bridges of ours pass wherever they are blocked, and no others: rules of bridges that are gone are taken back.
/// Names of others begin as ours do (VMware's), so each bridge has rules of its own.
///
/// # Errors
///
/// See [`NftError`].
pub fn follow(bridges: &BTreeSet<String>) -> Result<(), NftError> {
    let all = theirs(chains::all()?);
    let blocking = blocking(&all);
    let may_hold = |chain: &&Chain| chain.forwards || chain.is_for_others();
    let mut script = String::new();
    for chain in all.iter().filter(may_hold) {
        let Chain {
            family,
            table,
            name,
            ..
        } = chain;
        let said = program::ask(&["-a", "list", "chain", family, table, name])?;
        let nobody = BTreeSet::new();
        let wanted = if blocking.contains(chain) {
            bridges
        } else {
            &nobody
        };
        let change = change(&own(&said), wanted);
        if !change.missing.is_empty() {
            tracing::info!(
                family,
                table,
                chain = name,
                "our networks are let pass by rules there"
            );
        }
        for (side, bridge) in change.missing {
            let _infallible = writeln!(
                script,
                "insert rule {family} {table} {name} {side} \"{bridge}\" accept comment \"{COMMENT}\""
            );
        }
        for handle in change.strange {
            let _infallible = writeln!(
                script,
                "delete rule {family} {table} {name} handle {handle}"
            );
        }
    }
    if script.is_empty() {
        return Ok(());
    }
    program::run(&script)
}

/// What a rule lets pass: the word for the side, and the interface.
type Passes = (String, String);

/// What is to be done in a chain.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    missing: Vec<Passes>,
    /// Handles of rules that are not wanted any more.
    strange: Vec<u64>,
}

fn change(there: &[(u64, Option<Passes>)], bridges: &BTreeSet<String>) -> Change {
    let sides = ["iifname", "oifname"].map(str::to_owned);
    let wanted: Vec<Passes> = (bridges.iter())
        .flat_map(|bridge| sides.clone().map(|side| (side, bridge.clone())))
        .collect();
    let is_there = |passes: &Passes| there.iter().any(|(_, it)| it.as_ref() == Some(passes));
    let is_wanted = |it: &Option<Passes>| it.as_ref().is_some_and(|it| wanted.contains(it));
    let strange = there.iter().filter(|(_, it)| !is_wanted(it));
    Change {
        strange: strange.map(|(handle, _)| *handle).collect(),
        missing: (wanted.iter().filter(|it| !is_there(it)).cloned()).collect(),
    }
}

/// Chains of others whose names can stand in a script.
fn theirs(all: Vec<Chain>) -> Vec<Chain> {
    let sound = |chain: &Chain| !chain.is_ours() && is_word(&chain.table) && is_word(&chain.name);
    all.into_iter().filter(sound).collect()
}

/// A name that stands in a script as it is: nft knows no quotes for those of tables and chains.
fn is_word(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
}

/// Where rules have to be.
fn blocking(chains: &[Chain]) -> Vec<Chain> {
    let for_others = |chain: &Chain| {
        let mut all = chains.iter().filter(|other| other.is_for_others());
        all.find(|other| (&other.family, &other.table) == (&chain.family, &chain.table))
    };
    let mut found: Vec<Chain> = Vec::new();
    for chain in chains.iter().filter(|chain| chain.blocks()) {
        let chain = for_others(chain).unwrap_or(chain);
        if !found.contains(chain) {
            found.push(chain.clone());
        }
    }
    found
}

/// Our rules in a chain, and what each lets pass, if it can be told.
fn own(said: &Value) -> Vec<(u64, Option<Passes>)> {
    let all = said.get("nftables").and_then(Value::as_array);
    let own = |object: &Value| {
        let rule = object.get("rule")?;
        let is_own = rule.get("comment").and_then(Value::as_str) == Some(COMMENT);
        let handle = is_own.then(|| rule.get("handle").and_then(Value::as_u64))??;
        let passes = || {
            let matched = rule
                .get("expr")?
                .as_array()?
                .iter()
                .find_map(|it| it.get("match"))?;
            let side = matched.get("left")?.get("meta")?.get("key")?.as_str()?;
            let name = matched.get("right")?.as_str()?;
            Some((side.to_owned(), name.to_owned()))
        };
        Some((handle, passes()))
    };
    all.into_iter().flatten().filter_map(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chain(family: &str, table: &str, name: &str, base: Value) -> Value {
        let mut chain = json!({"family": family, "table": table, "name": name, "handle": 1});
        for (key, value) in base.as_object().unwrap() {
            chain[key] = value.clone();
        }
        json!({ "chain": chain })
    }

    #[test]
    fn each_bridge_has_its_rules_and_bridges_that_are_gone_have_none() {
        let rule = |handle: u64, comment: &str, side: &str, name: &str| {
            json!({"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": handle, "comment": comment,
                "expr": [{"match": {"op": "==", "left": {"meta": {"key": side}}, "right": name}}, {"accept": null}]}})
        };
        let said = json!({"nftables": [
            rule(1, COMMENT, "iifname", "vmnet0"),
            rule(2, COMMENT, "oifname", "vmnet0"),
            rule(3, COMMENT, "iifname", "vmnet1"),
            // Of a bridge that is gone, and of an earlier version.
            rule(4, COMMENT, "iifname", "vmnet7"),
            rule(5, COMMENT, "oifname", "vmnet*"),
            // Somebody else's.
            rule(6, "VMware", "iifname", "vmnet8"),
            {"rule": {"handle": 7, "comment": COMMENT, "expr": []}},
        ]});
        let there = own(&said);
        assert_eq!(there.len(), 6);
        let bridges = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
        let passes = |side: &str, name: &str| (side.to_owned(), name.to_owned());
        let found = change(&there, &bridges(&["vmnet0", "vmnet1"]));
        assert_eq!(found.missing, [passes("oifname", "vmnet1")]);
        assert_eq!(found.strange, [4, 5, 7]);
        let found = change(&there, &bridges(&[]));
        assert_eq!(
            (found.missing.len(), found.strange),
            (0, vec![1, 2, 3, 4, 5, 7])
        );
        let found = change(&[], &bridges(&["vmnet0"]));
        assert_eq!(
            found.missing,
            [passes("iifname", "vmnet0"), passes("oifname", "vmnet0")]
        );
    }

    #[test]
    fn rules_go_where_others_block_and_nowhere_else() {
        let forward = |policy: &str| json!({"type": "filter", "hook": "forward", "policy": policy});
        let all = [
            json!({"metainfo": {"version": "1.0.6"}}),
            chain("ip", "filter", "FORWARD", forward("drop")),
            chain("ip", "filter", "DOCKER-USER", json!({})),
            chain("ip6", "filter", "FORWARD", forward("drop")),
            chain("inet", "firewalld", "filter_FORWARD", forward("accept")),
            chain("inet", "mine", "forward", forward("accept")),
            chain("inet", "vmnet0", "forward", forward("drop")),
            chain("bridge", "filter", "FORWARD", forward("drop")),
            chain(
                "ip",
                "nat",
                "FORWARD",
                json!({"type": "nat", "hook": "forward", "policy": "drop"}),
            ),
            chain("inet", "a\"b", "forward", forward("drop")),
            chain(
                "inet",
                "filter",
                "input",
                json!({"type": "filter", "hook": "input", "policy": "drop"}),
            ),
        ];
        let known = theirs(chains::parse(&json!({ "nftables": all })));
        let found: Vec<String> = blocking(&known)
            .into_iter()
            .map(|chain| format!("{} {} {}", chain.family, chain.table, chain.name))
            .collect();
        let expected = [
            "ip filter DOCKER-USER",
            "ip6 filter FORWARD",
            "inet firewalld filter_FORWARD",
        ];
        assert_eq!(found, expected);
    }
}
