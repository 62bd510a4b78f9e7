//! The names of this network: which of them have an address, and which never leave.
//!
//! The domain and the reverse zones of the subnets are ours alone (RFC 6303 in spirit): what is unknown there does not
//! exist, and nobody outside hears of it. A bare `NAME` is answered while a guest has that name; types that a
//! validating resolver needs of a top-level domain are passed on even then.
//!
//! A name belongs to whoever had it first; whether another one may have it is the caller's decision
//! ([`Names::remove_name`]). Names are compared without regard to case (RFC 4343).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::label::{Label, first_label, is_label};
use super::reverse::Arpa;
use super::{Config, ConfigError};

/// Types and classes of questions that are decided here.
pub(super) mod code {
    pub(in super::super) const A: u16 = 1;
    pub(in super::super) const NS: u16 = 2;
    pub(in super::super) const SOA: u16 = 6;
    pub(in super::super) const PTR: u16 = 12;
    pub(in super::super) const AAAA: u16 = 28;
    pub(in super::super) const DS: u16 = 43;
    pub(in super::super) const DNSKEY: u16 = 48;
    pub(in super::super) const IXFR: u16 = 251;
    pub(in super::super) const AXFR: u16 = 252;
    pub(in super::super) const ANY: u16 = 255;
    pub(in super::super) const CLASS_IN: u16 = 1;
    pub(in super::super) const CLASS_ANY: u16 = 255;
}

/// The gateway's own names.
pub(super) const GATEWAY: &str = "gateway";
pub(super) const HOST: &str = "host";

/// Every name below means whoever asks (RFC 6761 §6.3), and nobody else is asked for it.
const LOCALHOST: &[u8] = b"localhost";
const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Guests choose names, so there is an end to them.
const NAME_LIMIT: usize = 4096;

/// Addresses with a name: guests have several.
const REVERSE_LIMIT: usize = 4 * NAME_LIMIT;

/// Names that one address may have.
const NAMES_PER_ADDRESS: usize = 16;

/// Why a name was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a label of letters, digits, hyphens and underscores.
    #[error("{name:?} cannot be the name of a guest: use at most 63 letters, digits and hyphens")]
    Invalid {
        /// As it was given.
        name: String,
    },
    /// The name has a meaning of its own.
    #[error("no guest may be called {name:?}: choose another name")]
    Reserved {
        /// The name without its domain.
        name: String,
    },
    /// Another address of the same family has the name.
    #[error("the name {name:?} belongs to {holder}: remove it there, or choose another name")]
    Taken {
        /// The name without its domain.
        name: String,
        /// Who has it.
        holder: IpAddr,
    },
    /// The table is full.
    #[error("too many names on this network, {name:?} was not added: remove some")]
    Full {
        /// The name without its domain.
        name: String,
    },
}

/// What is said about a name of ours.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) outcome: Outcome,
    pub(super) records: Vec<Data>,
    /// How many labels of the name, from the right, are the zone that says so.
    pub(super) zone_labels: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The name exists; without records, not with this type.
    Exists,
    /// There is no such name.
    Missing,
    /// A class we know nothing of.
    Refused,
}

/// One record about the name asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    /// A host of the domain, by its first label.
    Host(String),
    /// The gateway serves the zone.
    Server,
    Authority,
}

/// Names and addresses, both ways.
#[derive(Debug)]
pub(super) struct Names {
    domain: Vec<String>,
    gateway: Vec<IpAddr>,
    subnets: Vec<(IpAddr, u8)>,
    by_name: BTreeMap<String, Addresses>,
    by_address: BTreeMap<IpAddr, Vec<String>>,
    serial: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Addresses {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl Addresses {
    fn of_family(&mut self, address: IpAddr) -> &mut Option<IpAddr> {
        if address.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        }
    }
}

impl Names {
    pub(super) fn new(config: &Config) -> Result<Self, ConfigError> {
        let domain = config.domain.trim_end_matches('.').to_ascii_lowercase();
        let labels: Vec<String> = domain.split('.').map(String::from).collect();
        if domain.len() > 180 || !labels.iter().all(|label| is_label(label)) {
            return Err(ConfigError::Domain {
                domain: config.domain.clone(),
            });
        }
        Ok(Self {
            domain: labels,
            gateway: config.gateway.iter().map(IpAddr::to_canonical).collect(),
            // A prefix of zero bits would keep every reverse lookup of the world.
            subnets: config
                .subnets
                .iter()
                .copied()
                .filter(|(_, prefix)| *prefix > 0)
                .collect(),
            by_name: BTreeMap::new(),
            by_address: BTreeMap::new(),
            serial: 1,
        })
    }

    /// Gives an address a name. Of a name with dots only the first label counts.
    pub(super) fn set_name(&mut self, name: &str, address: IpAddr) -> Result<(), NameError> {
        let label = name.parse::<Label>()?.as_str().to_owned();
        let mut addresses = self.by_name.get(&label).copied().unwrap_or_default();
        match addresses.of_family(address) {
            Some(holder) if *holder == address => return Ok(()),
            Some(holder) => {
                return Err(NameError::Taken {
                    name: label,
                    holder: *holder,
                });
            }
            free => *free = Some(address),
        }
        let full = self.by_name.len() >= NAME_LIMIT && !self.by_name.contains_key(&label);
        let names = self.by_address.get(&address).map_or(0, Vec::len);
        if full || names >= NAMES_PER_ADDRESS {
            return Err(NameError::Full { name: label });
        }
        self.by_address
            .entry(address)
            .or_default()
            .push(label.clone());
        self.by_name.insert(label, addresses);
        self.serial = self.serial.wrapping_add(1);
        Ok(())
    }

    /// Gives an address a name in reverse lookups alone: one of many addresses of a guest, which may use it for a day.
    pub(super) fn set_reverse(&mut self, name: &str, address: IpAddr) -> Result<(), NameError> {
        let label = name.parse::<Label>()?.as_str().to_owned();
        let full = self.by_address.len() >= REVERSE_LIMIT;
        let names = self.by_address.get(&address);
        if full && names.is_none() || names.is_some_and(|names| names.len() >= NAMES_PER_ADDRESS) {
            return Err(NameError::Full { name: label });
        }
        let names = self.by_address.entry(address).or_default();
        if !names.contains(&label) {
            names.push(label);
            self.serial = self.serial.wrapping_add(1);
        }
        Ok(())
    }

    /// The first name of an address.
    pub(super) fn name_of(&self, address: IpAddr) -> Option<&str> {
        let names = self.by_address.get(&address)?;
        names.first().map(String::as_str)
    }

    /// Takes a name from everyone who has it.
    pub(super) fn remove_name(&mut self, name: &str) {
        let label = first_label(name);
        if self.by_name.remove(&label).is_none() {
            return;
        }
        self.by_address.retain(|_, names| {
            names.retain(|name| *name != label);
            !names.is_empty()
        });
        self.serial = self.serial.wrapping_add(1);
    }

    /// Takes all names from an address.
    pub(super) fn remove_address(&mut self, address: IpAddr) {
        for label in self.by_address.remove(&address).unwrap_or_default() {
            if let Some(addresses) = self.by_name.get_mut(&label) {
                let place = addresses.of_family(address);
                // An address may have a name in reverse lookups alone.
                if *place == Some(address) {
                    *place = None;
                }
                if addresses.v4.is_none() && addresses.v6.is_none() {
                    self.by_name.remove(&label);
                }
            }
            self.serial = self.serial.wrapping_add(1);
        }
    }

    /// The addresses of a guest's name, as it was given.
    pub(super) fn addresses_of(&self, name: &str) -> [Option<IpAddr>; 2] {
        let found = self.by_name.get(&first_label(name));
        found.map_or([None; 2], |addresses| [addresses.v4, addresses.v6])
    }

    /// The IPv4 address of a guest's name.
    pub(super) fn address_named(&self, name: &Label) -> Option<IpAddr> {
        self.by_name.get(name.as_str())?.v4
    }

    /// The labels of our domain, lower-case.
    pub(super) fn domain(&self) -> &[String] {
        &self.domain
    }

    /// Our own addresses.
    pub(super) fn gateway(&self) -> &[IpAddr] {
        &self.gateway
    }

    /// Counts the changes, for the SOA.
    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    /// What is known about a name, given as lower-case labels; `None` if it is not ours to answer.
    pub(super) fn find(&self, labels: &[Vec<u8>], kind: u16, class: u16) -> Option<Local> {
        let local = if let Some(host) = self.under_domain(labels) {
            self.forward(host, kind)
        } else if labels.last().is_some_and(|last| last == LOCALHOST) {
            Local {
                outcome: Outcome::Exists,
                records: of_kind(&LOOPBACK, kind),
                zone_labels: 1,
            }
        } else if let [label] = labels {
            self.bare(label, kind)?
        } else {
            self.reverse(Arpa::read(labels)?, labels.len(), kind)?
        };
        if class != code::CLASS_IN && class != code::CLASS_ANY {
            return Some(Local {
                outcome: Outcome::Refused,
                records: Vec::new(),
                ..local
            });
        }
        Some(local)
    }

    /// The labels before our domain, if the name lies in it.
    fn under_domain<'a>(&self, labels: &'a [Vec<u8>]) -> Option<&'a [Vec<u8>]> {
        let (host, domain) =
            labels.split_at_checked(labels.len().checked_sub(self.domain.len())?)?;
        let ours = domain
            .iter()
            .zip(&self.domain)
            .all(|(one, other)| one == other.as_bytes());
        ours.then_some(host)
    }

    fn forward(&self, host: &[Vec<u8>], kind: u16) -> Local {
        let found = match host {
            [] => Some(apex(kind)),
            [label] => self.addresses(label).map(|all| of_kind(&all, kind)),
            _ => None,
        };
        Local {
            outcome: if found.is_some() {
                Outcome::Exists
            } else {
                Outcome::Missing
            },
            records: found.unwrap_or_default(),
            zone_labels: self.domain.len(),
        }
    }

    fn bare(&self, label: &[u8], kind: u16) -> Option<Local> {
        if matches!(kind, code::NS | code::SOA | code::DS | code::DNSKEY) {
            return None;
        }
        let records = of_kind(&self.addresses(label)?, kind);
        Some(Local {
            outcome: Outcome::Exists,
            records,
            zone_labels: 1,
        })
    }

    fn addresses(&self, label: &[u8]) -> Option<Vec<IpAddr>> {
        let label = str::from_utf8(label).ok()?;
        if label == GATEWAY || label == HOST {
            return Some(self.gateway.clone());
        }
        let addresses = self.by_name.get(label)?;
        Some([addresses.v4, addresses.v6].into_iter().flatten().collect())
    }

    fn reverse(&self, arpa: Arpa, labels: usize, kind: u16) -> Option<Local> {
        let hosts = if arpa.is_address() {
            self.hosts(arpa.network)
        } else {
            Vec::new()
        };
        let subnet = self
            .subnets
            .iter()
            .find(|(network, prefix)| arpa.is_inside(*network, *prefix));
        let zone_labels = match subnet {
            Some((_, prefix)) => arpa.zone_labels(*prefix),
            None if !hosts.is_empty() => labels,
            None => return None,
        };
        let is_apex = labels == zone_labels;
        let missing = arpa.below || (arpa.is_address() && hosts.is_empty() && !is_apex);
        let mut records = Vec::new();
        if matches!(kind, code::PTR | code::ANY) {
            records.extend(hosts.into_iter().map(Data::Host));
        }
        if is_apex {
            records.extend(apex(kind));
        }
        Some(Local {
            outcome: if missing {
                Outcome::Missing
            } else {
                Outcome::Exists
            },
            records,
            zone_labels,
        })
    }

    fn hosts(&self, address: IpAddr) -> Vec<String> {
        if self.gateway.contains(&address) {
            return vec![GATEWAY.to_owned()];
        }
        self.by_address.get(&address).cloned().unwrap_or_default()
    }
}

/// What the top of a zone says of itself.
fn apex(kind: u16) -> Vec<Data> {
    match kind {
        code::SOA => vec![Data::Authority],
        code::NS => vec![Data::Server],
        code::ANY => vec![Data::Authority, Data::Server],
        _ => Vec::new(),
    }
}

fn of_kind(addresses: &[IpAddr], kind: u16) -> Vec<Data> {
    let wanted = |address: &&IpAddr| match kind {
        code::A => address.is_ipv4(),
        code::AAAA => address.is_ipv6(),
        kind => kind == code::ANY,
    };
    addresses
        .iter()
        .filter(wanted)
        .copied()
        .map(Data::Address)
        .collect()
}
