//! Every row of the table, and the experiment that yields it. One experiment may yield several rows.
//!
//! | file | rows |
//! | --- | --- |
//! | `paths.rs` | of what a command sees behind a path |
//! | `pairs.rs` | of two guests of one network |
//! | `ports.rs` | of ports in shared memory |
//! | `privileged.rs` | of networks that take privileges |
//! | `library.rs` | of the library |
//! | `service.rs` | of the service |

mod library;
mod pairs;
mod paths;
mod ports;
mod privileged;
mod service;

use crate::options::Options;
use crate::path::Path;

/// Which direction is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Higher,
    Lower,
    /// Explains another row; it is not judged.
    Neither,
}

/// By which addresses the server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What is done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Experiment {
    /// Bulk TCP. `up` is from the guest side to the server.
    Tcp {
        by: Family,
        up: bool,
        streams: usize,
    },
    /// Paced datagrams with this many bytes of payload.
    Udp { by: Family, up: bool, size: usize },
    /// One byte there and back.
    RequestResponse(Family),
    /// Short connections, 32 at once.
    Connections(Family),
    /// Resident memory, idle and with 1,000 idle flows.
    Memory,
    /// Two guests of one network, measured once and not for each MTU.
    Pair(crate::pair::Part),
    /// Ports in shared memory, measured once and not for each MTU.
    Ports(crate::ports::Part),
    /// A network that takes privileges, measured once and not for each MTU.
    Privileged(crate::privileged::Part),
    /// Something of the service, which is measured once and not for each MTU.
    Service(crate::service::Part),
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
    /// Decimals shown.
    pub(crate) digits: usize,
    pub(crate) experiment: Experiment,
}

const fn row(
    id: &'static str,
    title: &'static str,
    (unit, digits): (&'static str, usize),
    better: Better,
    experiment: Experiment,
) -> Row {
    Row {
        id,
        title,
        unit,
        better,
        digits,
        experiment,
    }
}

/// Units, with the decimals shown.
const RATE: (&str, usize) = ("Gbit/s", 2);
const TIME: (&str, usize) = ("us", 1);
const CPU: (&str, usize) = ("s/GB", 3);

/// All rows, in the order of the table and of the run.
pub(crate) fn all() -> impl Iterator<Item = &'static Row> {
    let paths = paths::ROWS.iter();
    paths
        .chain(&pairs::ROWS)
        .chain(&ports::ROWS)
        .chain(&privileged::ROWS)
        .chain(&library::ROWS)
        .chain(&service::ROWS)
}

impl Family {
    /// What the identifiers of its rows have in the middle.
    pub(crate) fn mark(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => "6",
        }
    }
}

impl Experiment {
    /// Whether this is made with a path.
    pub(crate) fn is_of(self, path: Path, options: &Options) -> bool {
        let kind = match self {
            Self::Service(part) => part.is_of(path.kind),
            Self::Pair(part) => part.is_of(path.kind),
            Self::Ports(part) => part.is_of(path.kind),
            Self::Privileged(part) => part.is_of(path.kind),
            _ => true,
        };
        kind && self.is_at(path.mtu, options)
    }

    /// Whether this is made at an MTU.
    pub(crate) fn is_at(self, mtu: u32, options: &Options) -> bool {
        let once = matches!(
            self,
            Self::Service(_) | Self::Pair(_) | Self::Ports(_) | Self::Privileged(_)
        );
        !once || crate::service::column(options) == Some(mtu)
    }
}

impl Row {
    /// Whether one of the patterns of `only` is part of the identifier or the title, and none of `except`; no pattern in
    /// `only` means every row.
    pub(crate) fn chosen(&self, only: &[String], except: &[String]) -> bool {
        let title = self.title.to_lowercase();
        let matches = |pattern: &String| {
            let pattern = pattern.to_lowercase();
            self.id.contains(&pattern) || title.contains(&pattern)
        };
        (only.is_empty() || only.iter().any(matches)) && !except.iter().any(matches)
    }
}

/// The experiments behind some rows, each once, in order.
pub(crate) fn experiments(rows: &[&Row]) -> Vec<Experiment> {
    let mut found = Vec::new();
    for row in rows {
        if !found.contains(&row.experiment) {
            found.push(row.experiment);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unique_and_patterns_choose() {
        for row in all() {
            let same = all().filter(|other| other.id == row.id);
            assert_eq!(same.count(), 1, "{} twice", row.id);
        }
        let chosen: Vec<_> = all()
            .filter(|row| row.chosen(&["UDP up".to_owned()], &["ipv6".to_owned()]))
            .map(|row| row.id)
            .collect();
        assert_eq!(chosen, ["udp_up_64", "udp_up_1400"]);
    }
}
