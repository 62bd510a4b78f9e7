//! What a command sees behind each path, in the order of the table and of the run.

use super::Better::{Higher, Lower, Neither};
use super::Experiment::{Connections, Memory, RequestResponse, Tcp, Udp};
use super::{CPU, Experiment, Family, RATE, Row, TIME, row};

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
pub(super) static ROWS: [Row; 32] = [
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
        Udp {
            by: Family::V4,
            up: true,
            size: 64,
        },
    ),
    row(
        "udp_up_64_lost",
        "  lost",
        ("%", 1),
        Neither,
        Udp {
            by: Family::V4,
            up: true,
            size: 64,
        },
    ),
    row(
        "udp_down_64",
        "UDP down, 64 bytes",
        ("kpps", 1),
        Higher,
        Udp {
            by: Family::V4,
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
            by: Family::V4,
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
            by: Family::V4,
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
            by: Family::V4,
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
            by: Family::V4,
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
            by: Family::V4,
            up: false,
            size: 1400,
        },
    ),
    row(
        "udp6_up_1400",
        "UDP up, IPv6, 1400 bytes",
        ("kpps", 1),
        Higher,
        Udp {
            by: Family::V6,
            up: true,
            size: 1400,
        },
    ),
    row(
        "udp6_up_1400_lost",
        "  lost",
        ("%", 1),
        Neither,
        Udp {
            by: Family::V6,
            up: true,
            size: 1400,
        },
    ),
    row(
        "udp6_down_1400",
        "UDP down, IPv6, 1400 bytes",
        ("kpps", 1),
        Higher,
        Udp {
            by: Family::V6,
            up: false,
            size: 1400,
        },
    ),
    row(
        "udp6_down_1400_lost",
        "  lost",
        ("%", 1),
        Neither,
        Udp {
            by: Family::V6,
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
