//! Forwarding between interfaces: switched on only where a network of ours needs it, and given back.
//!
//! IPv4 has a switch for each interface, by which packets come; IPv6 too since Linux 6.17 (`force_forwarding`). Before, there
//! is one for all, and an interface that forwards no longer listens to routers, unless it is told to. What was switched is
//! written down in a table of rules ([`super::nft::forwarding`]) before it is switched, so that whoever comes after a killed
//! service finds it. Where the host forwards by somebody else's wish, nothing is switched and nothing given back.

use super::link;
use super::nft::NftError;
use super::nft::Record;
use super::nft::forwarding::{read, write};
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
/// [has a switch of IPv6 for each interface](has_switch_each). `written`: what this process wrote down last, which is taken where
/// somebody has flushed all rules, and that with them. `carriers`: bridges whose rules keep apart what is of none of our networks.
///
/// # Errors
///
/// See [`ForwardingError`]. What was written down stays written down.
pub fn follow(
    wanted: &Wanted,
    each: bool,
    written: &mut Record,
    carriers: &BTreeSet<String>,
) -> Result<(), ForwardingError> {
    let stands = read()?;
    let before = if stands.is_empty() {
        written.clone()
    } else {
        stands.clone()
    };
    let mut switches = Switches::default();
    switches.decide_v4(wanted, &before);
    switches.decide_v6(wanted, &before, each)?;
    let Switches {
        mut record,
        on,
        off,
    } = switches;
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
        routed: record.routed.union(&before.routed).cloned().collect(),
    };
    // If there are none any more, they may have been when it was written down.
    if both != stands || carriers.is_empty() && !both.is_empty() {
        write(&both, carriers)?;
    }
    written.clone_from(&both);
    // An interface that has gone and come back is as it was before us. Who forwards and does not listen to routers forgets
    // what they said.
    for name in &record.ra {
        set("ipv6", name, "accept_ra", "2")?;
    }
    for (family, name, setting) in &on {
        set(family, name, setting, "1")?;
    }
    // Bridges of ours go on as routers, which their guests know them for.
    let mut again = before.routed.clone();
    again.extend(own_bridges()?);
    for (family, name, setting) in &off {
        set(family, name, setting, "0")?;
        // What is for all was for those too that were switched on before.
        if (*family, name.as_str()) == ("ipv6", "all") {
            for name in &again {
                set("ipv6", name, "forwarding", "1")?;
            }
        }
    }
    for name in before.ra.difference(&record.ra) {
        set("ipv6", name, "accept_ra", "1")?;
    }
    if record != both {
        write(&record, carriers)?;
    }
    *written = record;
    Ok(())
}

/// A setting of an interface: its family, the interface, and the setting.
type Switch = (&'static str, String, &'static str);

/// What is to be on, and what is not any more.
#[derive(Default)]
struct Switches {
    record: Record,
    on: Vec<Switch>,
    off: Vec<Switch>,
}

impl Switches {
    fn decide_v4(&mut self, wanted: &Wanted, before: &Record) {
        // Somebody else made the host a router: that is theirs to give back.
        if !is("ipv4", "all", "forwarding", "1") {
            let switch = |name: &str| ("ipv4", name.to_owned(), "forwarding");
            for name in wanted.v4.iter().filter(|name| exists("ipv4", name)) {
                if before.v4.contains(name) || is("ipv4", name, "forwarding", "0") {
                    self.record.v4.insert(name.clone());
                    self.on.push(switch(name));
                }
            }
            self.off.extend(
                before
                    .v4
                    .difference(&self.record.v4)
                    .map(|name| switch(name)),
            );
        }
    }

    fn decide_v6(
        &mut self,
        wanted: &Wanted,
        before: &Record,
        each: bool,
    ) -> Result<(), ForwardingError> {
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
                        self.record.v6.insert(name.clone());
                        self.on.push(switch(name));
                    }
                }
            } else if !wanted.v6.is_empty() {
                self.record.v6.insert("all".to_owned());
                self.on.push(switch("all"));
                let listens =
                    |name: &String| before.ra.contains(name) || is("ipv6", name, "accept_ra", "1");
                self.record
                    .ra
                    .extend(interfaces()?.into_iter().filter(listens));
                self.record.routed = if all_before {
                    before.routed.clone()
                } else {
                    forwarding_now()?
                };
            }
            self.off.extend(
                before
                    .v6
                    .difference(&self.record.v6)
                    .map(|name| switch(name)),
            );
        }
        Ok(())
    }
}

/// Interfaces that forward IPv6, and `default` if those to come do.
fn forwarding_now() -> Result<BTreeSet<String>, ForwardingError> {
    let names = link::list()?.into_iter().map(|link| link.name);
    let all = names.chain(["default".to_owned()]);
    Ok(all
        .filter(|name| is("ipv6", name, "forwarding", "1"))
        .collect())
}

/// Bridges of ours that forward IPv6.
fn own_bridges() -> Result<BTreeSet<String>, ForwardingError> {
    let links = link::list()?.into_iter();
    let bridges = links.filter(|link| link.is_ours() && link.kind.as_deref() == Some("bridge"));
    Ok(bridges
        .map(|link| link.name)
        .filter(|name| is("ipv6", name, "disable_ipv6", "0"))
        .filter(|name| is("ipv6", name, "forwarding", "1"))
        .collect())
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
