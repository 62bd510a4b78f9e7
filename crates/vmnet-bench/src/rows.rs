//! Every row of the table, and the experiment that yields it. One experiment may yield several rows.

use crate::options::Options;
use crate::pair;
use crate::path::Path;
use crate::ports;
use crate::service::{self, Part};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    Udp { up: bool, size: usize },
    /// One byte there and back.
    RequestResponse(Family),
    /// Short connections, 32 at once.
    Connections(Family),
    /// Resident memory, idle and with 1,000 idle flows.
    Memory,
    /// Two guests of one network, measured once and not for each MTU.
    Pair(pair::Part),
    /// Ports in shared memory, measured once and not for each MTU.
    Ports(ports::Part),
    /// Something of the service, which is measured once and not for each MTU.
    Service(Part),
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
use Experiment::{Connections, Memory, Pair, Ports, RequestResponse, Service, Tcp, Udp};

const UP_1: Experiment = Tcp {
    by: Family::V4,
    up: true,
    streams: 1,
};
const DOWN_1: Experiment = Tcp {
    by: Family::V4,
    up: false,
    streams: 1,
};
const UP6_1: Experiment = Tcp {
    by: Family::V6,
    up: true,
    streams: 1,
};
const DOWN6_1: Experiment = Tcp {
    by: Family::V6,
    up: false,
    streams: 1,
};
const RR: Experiment = RequestResponse(Family::V4);
const RR6: Experiment = RequestResponse(Family::V6);
const RATE: (&str, usize) = ("Gbit/s", 2);
const TIME: (&str, usize) = ("us", 1);
const CPU: (&str, usize) = ("s/GB", 3);

/// Rows of the paths, in the order of the table and of the run.
const ROWS: [Row; 28] = [
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
    row("tcp6_up_1", "TCP up, IPv6", RATE, Higher, UP6_1),
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
    row("tcp6_down_1", "TCP down, IPv6", RATE, Higher, DOWN6_1),
    row(
        "tcp_up_8",
        "TCP up, 8 streams",
        RATE,
        Higher,
        Tcp {
            by: Family::V4,
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
            by: Family::V4,
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
    row("rr_p50", "Request/response, p50", TIME, Lower, RR),
    row("rr_p99", "Request/response, p99", TIME, Lower, RR),
    row("rr6_p50", "Request/response, IPv6, p50", TIME, Lower, RR6),
    row("rr6_p99", "Request/response, IPv6, p99", TIME, Lower, RR6),
    row(
        "connections",
        "New connections",
        ("/s", 0),
        Higher,
        Connections(Family::V4),
    ),
    row(
        "connections_failed",
        "  failed",
        ("/s", 1),
        Neither,
        Connections(Family::V4),
    ),
    row(
        "connections6",
        "New connections, IPv6",
        ("/s", 0),
        Higher,
        Connections(Family::V6),
    ),
    row(
        "connections6_failed",
        "  failed",
        ("/s", 1),
        Neither,
        Connections(Family::V6),
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

/// Rows of two guests.
const PAIR_ROWS: [Row; 4] = [
    row(
        "pair_tcp_1",
        "Guest to guest, TCP, 1 stream",
        RATE,
        Higher,
        Pair(pair::Part::Tcp {
            streams: 1,
            mixed: false,
        }),
    ),
    row(
        "pair_tcp_mixed",
        "  beside one without offload",
        RATE,
        Higher,
        Pair(pair::Part::Tcp {
            streams: 1,
            mixed: true,
        }),
    ),
    row(
        "pair_tcp_8",
        "Guest to guest, TCP, 8 streams",
        RATE,
        Higher,
        Pair(pair::Part::Tcp {
            streams: 8,
            mixed: false,
        }),
    ),
    row(
        "pair_rr_p50",
        "Guest to guest, round trip, p50",
        TIME,
        Lower,
        Pair(pair::Part::RequestResponse),
    ),
];

/// Rows of ports in shared memory.
const PORT_ROWS: [Row; 35] = [
    row(
        "rings_split_64",
        "Ring to ring, split, 64 bytes",
        ("Mpps", 2),
        Higher,
        Ports(ports::Part::Rings {
            len: 64,
            packed: false,
        }),
    ),
    row(
        "rings_split_64_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: 64,
            packed: false,
        }),
    ),
    row(
        "rings_split_64_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Neither,
        Ports(ports::Part::Rings {
            len: 64,
            packed: false,
        }),
    ),
    row(
        "rings_split_64_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: 64,
            packed: false,
        }),
    ),
    row(
        "rings_split_1500",
        "Ring to ring, split, 1500 bytes",
        RATE,
        Higher,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: false,
        }),
    ),
    row(
        "rings_split_1500_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: false,
        }),
    ),
    row(
        "rings_split_1500_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Neither,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: false,
        }),
    ),
    row(
        "rings_split_1500_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: false,
        }),
    ),
    row(
        "rings_split_65549",
        "Ring to ring, split, 64 KiB",
        RATE,
        Higher,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: false,
        }),
    ),
    row(
        "rings_split_65549_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: false,
        }),
    ),
    row(
        "rings_split_65549_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Higher,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: false,
        }),
    ),
    row(
        "rings_split_65549_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: false,
        }),
    ),
    row(
        "rings_packed_64",
        "Ring to ring, packed, 64 bytes",
        ("Mpps", 2),
        Higher,
        Ports(ports::Part::Rings {
            len: 64,
            packed: true,
        }),
    ),
    row(
        "rings_packed_64_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: 64,
            packed: true,
        }),
    ),
    row(
        "rings_packed_64_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Neither,
        Ports(ports::Part::Rings {
            len: 64,
            packed: true,
        }),
    ),
    row(
        "rings_packed_64_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: 64,
            packed: true,
        }),
    ),
    row(
        "rings_packed_1500",
        "Ring to ring, packed, 1500 bytes",
        RATE,
        Higher,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: true,
        }),
    ),
    row(
        "rings_packed_1500_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: true,
        }),
    ),
    row(
        "rings_packed_1500_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Neither,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: true,
        }),
    ),
    row(
        "rings_packed_1500_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: 1500,
            packed: true,
        }),
    ),
    row(
        "rings_packed_65549",
        "Ring to ring, packed, 64 KiB",
        RATE,
        Higher,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: true,
        }),
    ),
    row(
        "rings_packed_65549_thread",
        "  network's thread, a frame",
        ("ns", 0),
        Lower,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: true,
        }),
    ),
    row(
        "rings_packed_65549_of_copy",
        "  share of a plain copy's speed",
        ("x", 2),
        Higher,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: true,
        }),
    ),
    row(
        "rings_packed_65549_wakes",
        "  notifications, a frame",
        ("", 4),
        Neither,
        Ports(ports::Part::Rings {
            len: ports::LARGE,
            packed: true,
        }),
    ),
    row(
        "instructions_64",
        "Instructions a frame, 64 bytes",
        ("", 0),
        Lower,
        Ports(ports::Part::Instructions { len: 64 }),
    ),
    row(
        "instructions_1500",
        "Instructions a frame, 1500 bytes",
        ("", 0),
        Lower,
        Ports(ports::Part::Instructions { len: 1500 }),
    ),
    row(
        "instructions_65549",
        "Instructions a frame, 64 KiB",
        ("", 0),
        Lower,
        Ports(ports::Part::Instructions { len: ports::LARGE }),
    ),
    row(
        "testpmd_64",
        "DPDK's generator, 64 bytes",
        ("Mpps", 3),
        Higher,
        Ports(ports::Part::Testpmd { len: 64 }),
    ),
    row(
        "testpmd_64_dpdk",
        "  the same by DPDK's net_vhost",
        ("Mpps", 3),
        Neither,
        Ports(ports::Part::Testpmd { len: 64 }),
    ),
    row(
        "testpmd_1500",
        "DPDK's generator, 1500 bytes",
        ("Mpps", 3),
        Higher,
        Ports(ports::Part::Testpmd { len: 1500 }),
    ),
    row(
        "testpmd_1500_dpdk",
        "  the same by DPDK's net_vhost",
        ("Mpps", 3),
        Neither,
        Ports(ports::Part::Testpmd { len: 1500 }),
    ),
    row(
        "nat_up_1",
        "Guest in shared memory, TCP up, 1 flow",
        RATE,
        Higher,
        Ports(ports::Part::Nat { up: true, flows: 1 }),
    ),
    row(
        "nat_down_1",
        "Guest in shared memory, TCP down, 1 flow",
        RATE,
        Higher,
        Ports(ports::Part::Nat {
            up: false,
            flows: 1,
        }),
    ),
    row(
        "nat_up_8",
        "Guest in shared memory, TCP up, 8 flows",
        RATE,
        Higher,
        Ports(ports::Part::Nat { up: true, flows: 8 }),
    ),
    row(
        "nat_down_8",
        "Guest in shared memory, TCP down, 8 flows",
        RATE,
        Higher,
        Ports(ports::Part::Nat {
            up: false,
            flows: 8,
        }),
    ),
];

const MS: (&str, usize) = ("ms", 1);
const FINE: (&str, usize) = ("ms", 3);

/// Rows of the service.
const SERVICE_ROWS: [Row; 22] = [
    row(
        "service_cold_private",
        "Cold start, network of its own",
        MS,
        Lower,
        Service(Part::ColdPrivate),
    ),
    row(
        "service_cold_private_max",
        "  slowest",
        MS,
        Neither,
        Service(Part::ColdPrivate),
    ),
    row(
        "service_cold_starting",
        "Cold start, service not running",
        MS,
        Lower,
        Service(Part::ColdStarting),
    ),
    row(
        "service_cold_starting_max",
        "  slowest",
        MS,
        Neither,
        Service(Part::ColdStarting),
    ),
    row(
        "service_cold_running",
        "Cold start, service running",
        MS,
        Lower,
        Service(Part::ColdRunning),
    ),
    row(
        "service_cold_running_max",
        "  slowest",
        MS,
        Neither,
        Service(Part::ColdRunning),
    ),
    row(
        "service_interface_p50",
        "Interface start, fresh id, p50",
        FINE,
        Lower,
        Service(Part::Interfaces),
    ),
    row(
        "service_interface_p99",
        "Interface start, fresh id, p99",
        FINE,
        Lower,
        Service(Part::Interfaces),
    ),
    row(
        "service_stop_p50",
        "  stop, p50",
        FINE,
        Neither,
        Service(Part::Interfaces),
    ),
    row(
        "service_disk_p50",
        "  one page made durable, p50",
        FINE,
        Neither,
        Service(Part::Interfaces),
    ),
    row(
        "service_plain_p50",
        "Interface start, no id, p50",
        FINE,
        Lower,
        Service(Part::PlainInterfaces),
    ),
    row(
        "service_plain_p99",
        "Interface start, no id, p99",
        FINE,
        Lower,
        Service(Part::PlainInterfaces),
    ),
    row(
        "service_network_held",
        "Network made, held, p50",
        FINE,
        Lower,
        Service(Part::Networks),
    ),
    row(
        "service_network_kept",
        "Network made, kept, p50",
        FINE,
        Lower,
        Service(Part::Networks),
    ),
    row(
        "service_rss_idle",
        "Daemon idle, Rss",
        ("MiB", 2),
        Lower,
        Service(Part::Memory),
    ),
    row(
        "service_pss_idle",
        "Daemon idle, Pss",
        ("MiB", 2),
        Lower,
        Service(Part::Memory),
    ),
    row(
        "service_pss_network",
        "  per idle network (of 100), Pss",
        ("KiB", 1),
        Lower,
        Service(Part::Memory),
    ),
    row(
        "service_pss_port",
        "  per port (of 500), Pss",
        ("KiB", 1),
        Lower,
        Service(Part::Memory),
    ),
    row(
        "service_calls_1",
        "Calls, 1 client",
        ("/s", 0),
        Higher,
        Service(Part::Calls { connections: 1 }),
    ),
    row(
        "service_calls_8",
        "Calls, 8 clients",
        ("/s", 0),
        Higher,
        Service(Part::Calls { connections: 8 }),
    ),
    row(
        "service_recovery_p50",
        "Guest after kill -9, p50",
        MS,
        Lower,
        Service(Part::Recovery),
    ),
    row(
        "service_recovery_max",
        "Guest after kill -9, slowest",
        MS,
        Lower,
        Service(Part::Recovery),
    ),
];

/// All rows, in the order of the table and of the run.
pub(crate) fn all() -> impl Iterator<Item = &'static Row> {
    const PATHS: &[Row] = &ROWS;
    const SERVICE: &[Row] = &SERVICE_ROWS;
    const PAIRS: &[Row] = &PAIR_ROWS;
    const PORTS: &[Row] = &PORT_ROWS;
    PATHS.iter().chain(PAIRS).chain(PORTS).chain(SERVICE)
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
            _ => true,
        };
        kind && self.is_at(path.mtu, options)
    }

    /// Whether this is made at an MTU.
    pub(crate) fn is_at(self, mtu: u32, options: &Options) -> bool {
        !matches!(self, Self::Service(_) | Self::Pair(_) | Self::Ports(_))
            || service::column(options) == Some(mtu)
    }
}

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
        for row in all() {
            let same = all().filter(|other| other.id == row.id);
            assert_eq!(same.count(), 1, "{} twice", row.id);
        }
        let chosen: Vec<_> = all()
            .filter(|row| row.chosen(&["UDP up".to_owned()]))
            .map(|row| row.id)
            .collect();
        assert_eq!(chosen, ["udp_up_64", "udp_up_1400"]);
    }
}
