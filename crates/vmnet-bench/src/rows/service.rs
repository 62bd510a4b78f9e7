//! The service.

use super::Better::{Higher, Lower, Neither};
use super::Experiment::Service;
use super::{Row, row};
use crate::service::Part;

const MS: (&str, usize) = ("ms", 1);
const FINE: (&str, usize) = ("ms", 3);

pub(super) static ROWS: [Row; 22] = [
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
