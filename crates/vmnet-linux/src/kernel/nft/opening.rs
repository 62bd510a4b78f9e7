//! Rules of ours in chains of others: where these block what is not theirs, nothing in a table of ours helps.
//!
//! Docker, ufw and others set the policy of a chain for forwarded packets to drop; firewalld's ends with a reject. There, two
//! rules at the head let our networks pass, with a comment by which they are found again. Docker has a chain for the rules
//! of others, which it leaves alone. Nothing else of theirs is touched.

use super::chains::{self, Chain};
use super::program::{self, NftError};
use super::{COMMENT, PREFIX};
use serde_json::Value;
use std::fmt::Write as _;

/// Lets our networks pass wherever they are blocked.
///
/// # Errors
///
/// See [`NftError`].
pub fn open() -> Result<(), NftError> {
    let chains = theirs(chains::all()?);
    let mut script = String::new();
    for chain in blocking(&chains) {
        if handles(&chain)?.is_empty() {
            let Chain {
                family,
                table,
                name,
                ..
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
    let may_hold = |chain: &&Chain| chain.forwards || chain.is_for_others();
    for chain in theirs(chains::all()?).iter().filter(may_hold) {
        for handle in handles(chain)? {
            let Chain {
                family,
                table,
                name,
                ..
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

/// Our rules in a chain.
fn handles(chain: &Chain) -> Result<Vec<u64>, NftError> {
    let Chain {
        family,
        table,
        name,
        ..
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
