//! Chains of the host that packets between interfaces pass, whoever made them, and which of them block what is not their own.
//!
//! A packet that one chain lets pass can still be dropped by another of the same hook: so no rule in a table of ours helps
//! against somebody else's policy.

use super::{NftError, PREFIX, program};
use serde_json::Value;

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The family of its table: `ip`, `ip6` or `inet`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// It is the first one for forwarded packets.
    pub forwards: bool,
    /// What no rule of it decides is dropped.
    pub drops: bool,
}

impl Chain {
    /// It is in a table of ours.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.table.starts_with(PREFIX)
    }

    /// It is somebody else's, and drops or rejects forwarded packets that are not its owner's: by its policy, or, as
    /// firewalld's, by its last rule.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.forwards && !self.is_ours() && (self.drops || self.table == "firewalld")
    }

    /// Docker's chain for the rules of others, which it leaves alone.
    #[must_use]
    pub fn is_for_others(&self) -> bool {
        !self.forwards && self.name == "DOCKER-USER"
    }
}

/// The chains of packets that this user can see.
///
/// # Errors
///
/// See [`NftError`].
pub fn all() -> Result<Vec<Chain>, NftError> {
    Ok(parse(&program::ask(&["list", "chains"])?))
}

/// Chains of others that drop frames between members of bridges by their policy, each with its table, that this user can see.
/// `ebtables` makes such chains.
///
/// # Errors
///
/// See [`NftError`].
pub fn that_drop_frames() -> Result<Vec<(String, String)>, NftError> {
    Ok(dropping_frames(&program::ask(&[
        "list", "chains", "bridge",
    ])?))
}

fn dropping_frames(said: &Value) -> Vec<(String, String)> {
    let all = said.get("nftables").and_then(Value::as_array);
    let drops = |object: &Value| {
        let chain = object.get("chain")?;
        let text = |field: &str| chain.get(field).and_then(Value::as_str);
        let (table, name) = (text("table")?, text("name")?);
        let drops = text("family") == Some("bridge") && text("policy") == Some("drop");
        let is_others = drops && !table.starts_with(PREFIX);
        is_others.then(|| (table.to_owned(), name.to_owned()))
    };
    all.into_iter().flatten().filter_map(drops).collect()
}

/// The chains of packets in what `nft -j list chains` says.
#[must_use]
pub fn parse(said: &Value) -> Vec<Chain> {
    let all = said.get("nftables").and_then(Value::as_array);
    let chain = |object: &Value| {
        let chain = object.get("chain")?;
        let text = |field: &str| chain.get(field).and_then(Value::as_str);
        let family = text("family")?;
        matches!(family, "ip" | "ip6" | "inet").then_some(())?;
        let filters = text("type") == Some("filter");
        Some(Chain {
            family: family.to_owned(),
            table: text("table")?.to_owned(),
            name: text("name")?.to_owned(),
            forwards: filters && text("hook") == Some("forward"),
            drops: text("policy") == Some("drop"),
        })
    };
    all.into_iter().flatten().filter_map(chain).collect()
}
