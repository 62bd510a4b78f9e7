//! Forwarding between interfaces: switched on only where a network of ours needs it, and given back.
//!
//! IPv4 has a switch for each interface, by which packets come; IPv6 too since Linux 6.17 (`force_forwarding`). Before, there
//! is one for all, and an interface that forwards no longer listens to routers, unless it is told to. What was switched is
//! written down in a table of rules ([`super::nft::forwarding`]) before it is switched, so that whoever comes after a killed
//! service finds it. Where the host forwards by somebody else's wish, nothing is switched and nothing given back.

use super::link;
use super::nft::NftError;
use super::nft::forwarding::{Record, read, write};
use super::route::RouteError;
use super::sysctl;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// Forwarding could not be switched.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// What was switched cannot be written down or read.
    #[error(transparent)]
    Record(#[from] NftError),
    /// It cannot be told which interfaces there are.
    #[error(transparent)]
    Links(#[from] RouteError),
    /// The kernel refused.
    #[error("forwarding cannot be switched on at {interface}: {source}")]
    Switch {
        /// The interface.
        interface: String,
        /// What the kernel says.
        source: io::Error,
    },
}

/// Interfaces that packets come by which are to be forwarded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of IPv4.
    pub v4: BTreeSet<String>,
    /// Of IPv6.
    pub v6: BTreeSet<String>,
}

/// Whether this kernel has a switch of IPv6 for each interface.
#[must_use]
pub fn has_switch_each() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all/force_forwarding").exists()
}

/// Switches forwarding on where it is wanted and off where we had switched it on. `each`: the kernel
/// [has a switch of IPv6 for each interface](has_switch_each).
///
/// # Errors
///
/// See [`ForwardingError`]. What was written down stays written down.
pub fn follow(wanted: &Wanted, each: bool) -> Result<(), ForwardingError> {
    let before = read()?;
    let mut record = Record::default();
    let (mut on, mut off) = (Vec::new(), Vec::new());
    // Somebody else made the host a router: that is theirs to give back.
    if !is("ipv4", "all", "forwarding", "1") {
        let switch = |name: &str| ("ipv4", name.to_owned(), "forwarding");
        for name in wanted.v4.iter().filter(|name| exists("ipv4", name)) {
            if before.v4.contains(name) || is("ipv4", name, "forwarding", "0") {
                record.v4.insert(name.clone());
                on.push(switch(name));
            }
        }
        off.extend(before.v4.difference(&record.v4).map(|name| switch(name)));
    }
    let all_before = before.v6.contains("all");
    if all_before || !is("ipv6", "all", "forwarding", "1") {
        let setting = |name: &str| match name {
            "all" => "forwarding",
            _ => "force_forwarding",
        };
        let switch = |name: &str| ("ipv6", name.to_owned(), setting(name));
        if each {
            let wanted = wanted.v6.iter().filter(|name| exists("ipv6", name));
            for name in wanted {
                if before.v6.contains(name) || is("ipv6", name, "force_forwarding", "0") {
                    record.v6.insert(name.clone());
                    on.push(switch(name));
                }
            }
        } else if !wanted.v6.is_empty() {
            record.v6.insert("all".to_owned());
            on.push(switch("all"));
            let listens =
                |name: &String| before.ra.contains(name) || is("ipv6", name, "accept_ra", "1");
            record.ra.extend(interfaces()?.into_iter().filter(listens));
        }
        off.extend(before.v6.difference(&record.v6).map(|name| switch(name)));
    }
    if !record.is_empty() {
        // What came later is its maker's concern.
        record.others = if before.is_empty() {
            interfaces()?
        } else {
            before.others.clone()
        };
        let now = record.v4.union(&record.v6).filter(|name| *name != "all");
        record.others.extend(now.cloned().collect::<Vec<_>>());
    }
    let both = Record {
        v4: record.v4.union(&before.v4).cloned().collect(),
        v6: record.v6.union(&before.v6).cloned().collect(),
        ra: record.ra.union(&before.ra).cloned().collect(),
        others: record.others.union(&before.others).cloned().collect(),
    };
    if both != before {
        write(&both)?;
    }
    // An interface that has gone and come back is as it was before us. Who forwards and does not listen to routers forgets what they said.
    for name in &record.ra {
        set("ipv6", name, "accept_ra", "2")?;
    }
    for (family, name, setting) in &on {
        set(family, name, setting, "1")?;
    }
    for (family, name, setting) in &off {
        set(family, name, setting, "0")?;
    }
    for name in before.ra.difference(&record.ra) {
        set("ipv6", name, "accept_ra", "1")?;
    }
    if record != both {
        write(&record)?;
    }
    Ok(())
}

/// Every interface but ours and the loopback.
fn interfaces() -> Result<BTreeSet<String>, ForwardingError> {
    let links = link::list()?.into_iter();
    Ok(links
        .filter(|link| !link.loopback && !link.is_ours())
        .map(|link| link.name)
        .collect())
}

/// There is such an interface. What stands for several of them has settings too.
fn exists(family: &str, name: &str) -> bool {
    let one = !matches!(name, "" | "all" | "default" | "." | "..") && !name.contains('/');
    one && sysctl::interface_path(family, name, "forwarding").exists()
}

fn is(family: &str, name: &str, setting: &str, value: &str) -> bool {
    let path = sysctl::interface_path(family, name, setting);
    std::fs::read_to_string(path).is_ok_and(|text| text.trim_end() == value)
}

/// Sets a setting of an interface; of one that is gone it need not be set.
fn set(family: &str, name: &str, setting: &str, value: &str) -> Result<(), ForwardingError> {
    let path = sysctl::interface_path(family, name, setting);
    match std::fs::write(path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(|source| ForwardingError::Switch {
            interface: name.to_owned(),
            source,
        }),
    }
}
