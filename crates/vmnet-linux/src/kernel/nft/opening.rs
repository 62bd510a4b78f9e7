//! Rules of ours in chains of others: where these block what is not theirs, nothing in a table of ours helps.
//!
//! Docker, ufw and others set the policy of a chain for forwarded packets to drop; firewalld's ends with a reject. There, two
//! rules at the head let our networks pass, with a comment by which they are found again. Docker has a chain for the rules
//! of others, which it leaves alone. Nothing else of theirs is touched.

use super::program::{self, NftError};
use super::{COMMENT, PREFIX};
use serde_json::Value;
use std::fmt::Write as _;

/// A chain of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    family: String,
    table: String,
    name: String,
}

/// Lets our networks pass wherever they are blocked.
///
/// # Errors
///
/// See [`NftError`].
pub fn open() -> Result<(), NftError> {
    let chains = chains()?;
    let mut script = String::new();
    for chain in blocking(&chains) {
        if handles(&chain)?.is_empty() {
            let Chain {
                family,
                table,
                name,
            } = &chain;
            tracing::info!(
                family,
                table,
                chain = name,
                "our networks are let pass by a rule there"
            );
            for side in ["iifname", "oifname"] {
                let _infallible = writeln!(
                    script,
                    "insert rule {family} {table} {name} {side} \"{PREFIX}*\" accept comment \"{COMMENT}\""
                );
            }
        }
    }
    if script.is_empty() {
        return Ok(());
    }
    program::run(&script)
}

/// Takes these rules back.
///
/// # Errors
///
/// See [`NftError`].
pub fn close() -> Result<(), NftError> {
    let mut script = String::new();
    for (chain, ..) in chains()?.iter().filter(|(_, hook, _)| may_hold(hook)) {
        for handle in handles(chain)? {
            let Chain {
                family,
                table,
                name,
            } = chain;
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

/// What is known of a chain: its hook, or what it is to Docker; and its policy.
type Known = (Chain, Option<String>, Option<String>);

fn may_hold(hook: &Option<String>) -> bool {
    hook.is_some()
}

/// Chains that forwarded packets pass, of all tables but ours.
fn chains() -> Result<Vec<Known>, NftError> {
    let said = program::ask(&["list", "chains"])?;
    let all = said.get("nftables").and_then(Value::as_array);
    Ok(all.into_iter().flatten().filter_map(known).collect())
}

fn known(object: &Value) -> Option<Known> {
    let chain = object.get("chain")?;
    let text = |field: &str| chain.get(field).and_then(Value::as_str).map(str::to_owned);
    let found = Chain {
        family: text("family")?,
        table: text("table")?,
        name: text("name")?,
    };
    let of_packets = matches!(found.family.as_str(), "ip" | "ip6" | "inet");
    let sound = is_word(&found.table) && is_word(&found.name);
    if !of_packets || !sound || found.table.starts_with(PREFIX) {
        return None;
    }
    let hook = match text("hook") {
        Some(hook) if hook == "forward" && text("type").as_deref() == Some("filter") => Some(hook),
        None if found.name == "DOCKER-USER" => Some(found.name.clone()),
        _ => None,
    };
    Some((found, hook, text("policy")))
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
fn blocking(chains: &[Known]) -> Vec<Chain> {
    let blocks = |(chain, hook, policy): &&Known| {
        let drops = policy.as_deref() == Some("drop");
        hook.as_deref() == Some("forward") && (drops || chain.table == "firewalld")
    };
    let for_others = |chain: &Chain| {
        let mut all = chains.iter();
        all.find(|(other, hook, _)| {
            hook.as_deref() == Some("DOCKER-USER")
                && (&other.family, &other.table) == (&chain.family, &chain.table)
        })
    };
    let mut found: Vec<Chain> = Vec::new();
    for (chain, ..) in chains.iter().filter(blocks) {
        let chain = for_others(chain).map_or(chain, |(other, ..)| other);
        if !found.contains(chain) {
            found.push(chain.clone());
        }
    }
    found
}

/// Our rules in a chain.
fn handles(chain: &Chain) -> Result<Vec<u64>, NftError> {
    let Chain {
        family,
        table,
        name,
    } = chain;
    let said = program::ask(&["-a", "list", "chain", family, table, name])?;
    let all = said.get("nftables").and_then(Value::as_array);
    let own = |object: &Value| {
        let rule = object.get("rule")?;
        let is_own = rule.get("comment").and_then(Value::as_str) == Some(COMMENT);
        is_own.then(|| rule.get("handle").and_then(Value::as_u64))?
    };
    Ok(all.into_iter().flatten().filter_map(own).collect())
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
        let known: Vec<Known> = all.iter().filter_map(known).collect();
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
