//! Every row of the table, and the experiment that yields it. One experiment may yield several rows.

/// Which direction is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Higher,
    Lower,
    /// Explains another row; it is not judged.
    Neither,
}

/// What is done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Experiment {
    /// Bulk TCP. `up` is from the guest side to the server.
    Tcp { up: bool, streams: usize },
    /// Paced datagrams with this many bytes of payload.
    Udp { up: bool, size: usize },
    /// One byte there and back.
    RequestResponse,
    /// Short connections, 32 at once.
    Connections,
    /// Resident memory, idle and with 1,000 idle flows.
    Memory,
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

use Better::{Higher, Lower, Neither};
use Experiment::{Connections, Memory, RequestResponse, Tcp, Udp};

const UP_1: Experiment = Tcp {
    up: true,
    streams: 1,
};
const DOWN_1: Experiment = Tcp {
    up: false,
    streams: 1,
};
const RATE: (&str, usize) = ("Gbit/s", 2);
const TIME: (&str, usize) = ("us", 1);
const CPU: (&str, usize) = ("s/GB", 3);

/// All rows, in the order of the table and of the run.
pub(crate) const ROWS: [Row; 22] = [
    row("tcp_up_1", "TCP up, 1 stream", RATE, Higher, UP_1),
    row(
        "cpu_up_machine",
        "  processor time, machine",
        CPU,
        Lower,
        UP_1,
    ),
    row(
        "cpu_up_network",
        "  processor time, network process",
        CPU,
        Lower,
        UP_1,
    ),
    row("tcp_down_1", "TCP down, 1 stream", RATE, Higher, DOWN_1),
    row(
        "cpu_down_machine",
        "  processor time, machine",
        CPU,
        Lower,
        DOWN_1,
    ),
    row(
        "cpu_down_network",
        "  processor time, network process",
        CPU,
        Lower,
        DOWN_1,
    ),
    row(
        "tcp_up_8",
        "TCP up, 8 streams",
        RATE,
        Higher,
        Tcp {
            up: true,
            streams: 8,
        },
    ),
    row(
        "tcp_down_8",
        "TCP down, 8 streams",
        RATE,
        Higher,
        Tcp {
            up: false,
            streams: 8,
        },
    ),
    row(
        "udp_up_64",
        "UDP up, 64 bytes",
        ("kpps", 1),
        Higher,
        Udp { up: true, size: 64 },
    ),
    row(
        "udp_up_64_lost",
        "  lost",
        ("%", 1),
        Neither,
        Udp { up: true, size: 64 },
    ),
    row(
        "udp_down_64",
        "UDP down, 64 bytes",
        ("kpps", 1),
        Higher,
        Udp {
            up: false,
            size: 64,
        },
    ),
    row(
        "udp_down_64_lost",
        "  lost",
        ("%", 1),
        Neither,
        Udp {
            up: false,
            size: 64,
        },
    ),
    row(
        "udp_up_1400",
        "UDP up, 1400 bytes",
        ("kpps", 1),
        Higher,
        Udp {
            up: true,
            size: 1400,
        },
    ),
    row(
        "udp_up_1400_lost",
        "  lost",
        ("%", 1),
        Neither,
        Udp {
            up: true,
            size: 1400,
        },
    ),
    row(
        "udp_down_1400",
        "UDP down, 1400 bytes",
        ("kpps", 1),
        Higher,
        Udp {
            up: false,
            size: 1400,
        },
    ),
    row(
        "udp_down_1400_lost",
        "  lost",
        ("%", 1),
        Neither,
        Udp {
            up: false,
            size: 1400,
        },
    ),
    row(
        "rr_p50",
        "Request/response, p50",
        TIME,
        Lower,
        RequestResponse,
    ),
    row(
        "rr_p99",
        "Request/response, p99",
        TIME,
        Lower,
        RequestResponse,
    ),
    row(
        "connections",
        "New connections",
        ("/s", 0),
        Higher,
        Connections,
    ),
    row(
        "connections_failed",
        "  failed",
        ("/s", 1),
        Neither,
        Connections,
    ),
    row(
        "rss_idle",
        "Resident memory, idle",
        ("MiB", 2),
        Lower,
        Memory,
    ),
    row(
        "rss_1000",
        "Resident memory, 1,000 idle flows",
        ("MiB", 2),
        Lower,
        Memory,
    ),
];

impl Row {
    /// Whether one of the patterns is part of the identifier or the title; no pattern means every row.
    pub(crate) fn chosen(&self, patterns: &[String]) -> bool {
        let title = self.title.to_lowercase();
        let matches = |pattern: &String| {
            let pattern = pattern.to_lowercase();
            self.id.contains(&pattern) || title.contains(&pattern)
        };
        patterns.is_empty() || patterns.iter().any(matches)
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
        for (at, row) in ROWS.iter().enumerate() {
            assert!(
                ROWS[..at].iter().all(|other| other.id != row.id),
                "{} twice",
                row.id
            );
        }
        let chosen: Vec<_> = ROWS
            .iter()
            .filter(|row| row.chosen(&["UDP up".to_owned()]))
            .map(|row| row.id)
            .collect();
        assert_eq!(chosen, ["udp_up_64", "udp_up_1400"]);
    }
}
