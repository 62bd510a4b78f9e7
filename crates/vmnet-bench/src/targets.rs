//! What the product promised for its speed, in one place, and the verdict on a run.
//!
//! All targets are about a guest MTU of 1500. "Own best MTU" of a peer is whichever of its measured MTUs gives the
//! better figure in that row.

use crate::path::{Kind, Path};
use crate::plan::Results;
use crate::rows::{self, Better, Experiment, Row};

/// The MTU at which the targets hold.
pub(crate) const MTU: u32 = 1500;

/// Ratios at the same MTU: a row of ours to another row, of kernel NAT or of ours. At least, where higher is better; at
/// most, where lower is.
const RATIOS: [(&str, Kind, &str, f64); 31] = [
    ("tcp_up_1", Kind::Kernel, "tcp_up_1", 0.50),
    ("tcp_down_1", Kind::Kernel, "tcp_down_1", 0.50),
    ("rr_p50", Kind::Kernel, "rr_p50", 1.25),
    ("connections", Kind::Kernel, "connections", 0.80),
    ("pair_tcp_1", Kind::Kernel, "pair_tcp_1", 0.35),
    ("pair_tcp_mixed", Kind::Ours, "pair_tcp_1", 0.95),
    ("nat_up_1", Kind::Kernel, "tcp_up_1", 0.70),
    ("nat_down_1", Kind::Kernel, "tcp_down_1", 0.70),
    ("nat_up_8", Kind::Ours, "nat_up_1", 1.0),
    ("nat_down_8", Kind::Ours, "nat_down_1", 1.0),
    ("testpmd_64", Kind::Ours, "testpmd_64_dpdk", 1.0),
    ("testpmd_1500", Kind::Ours, "testpmd_1500_dpdk", 2.0),
    ("tcp6_up_1", Kind::Ours, "tcp_up_1", 0.95),
    ("tcp6_down_1", Kind::Ours, "tcp_down_1", 0.95),
    ("udp6_up_1400", Kind::Ours, "udp_up_1400", 0.95),
    ("udp6_down_1400", Kind::Ours, "udp_down_1400", 0.95),
    ("rr6_p50", Kind::Ours, "rr_p50", 1.05),
    ("connections6", Kind::Ours, "connections", 0.95),
    ("kernel_tcp_up_1", Kind::Kernel, "kernel_tcp_up_1", 0.95),
    ("kernel_tcp_down_1", Kind::Kernel, "kernel_tcp_down_1", 0.95),
    ("kernel_tcp_up_8", Kind::Kernel, "kernel_tcp_up_8", 0.95),
    ("kernel_tcp_down_8", Kind::Kernel, "kernel_tcp_down_8", 0.95),
    ("kernel_rr_p50", Kind::Kernel, "kernel_rr_p50", 1.05),
    (
        "kernel_connections",
        Kind::Kernel,
        "kernel_connections",
        0.95,
    ),
    ("kernel_tcp6_up_1", Kind::Kernel, "kernel_tcp6_up_1", 0.95),
    (
        "kernel_tcp6_down_1",
        Kind::Kernel,
        "kernel_tcp6_down_1",
        0.95,
    ),
    ("kernel_tcp6_up_8", Kind::Kernel, "kernel_tcp6_up_8", 0.95),
    (
        "kernel_tcp6_down_8",
        Kind::Kernel,
        "kernel_tcp6_down_8",
        0.95,
    ),
    ("kernel_rr6_p50", Kind::Kernel, "kernel_rr6_p50", 1.05),
    (
        "kernel_connections6",
        Kind::Kernel,
        "kernel_connections6",
        0.95,
    ),
    ("library_64_32", Kind::Ours, "library_64_32_sockets", 3.0),
];

/// At least this, in the unit of the row.
const AT_LEAST: [(&str, f64); 3] = [
    ("rings_split_65549_of_copy", 0.80),
    ("rings_packed_65549_of_copy", 0.80),
    ("library_65549_32_of_copy", 0.50),
];

/// At most this, in the unit of the row.
const AT_MOST: [(&str, f64); 9] = [
    ("rss_idle", 12.0),
    ("service_cold_private", 150.0),
    ("service_cold_starting", 150.0),
    ("service_cold_running", 150.0),
    ("service_interface_p50", 5.0),
    ("service_interface_p99", 5.0),
    ("service_plain_p99", 5.0),
    ("service_recovery_max", 1000.0),
    ("library_event_p50", 30.0),
];

/// No row of a path may be behind these, at their own best MTU. (Rows of the service have targets of their own: the peers
/// beside them start something smaller, which is there to be seen.)
const NOT_BEHIND: [Kind; 2] = [Kind::Pasta, Kind::Slirp4netns];

/// The verdict on one row.
#[derive(Debug, PartialEq, serde::Serialize)]
pub(crate) struct Verdict {
    /// Whether all targets of the row are met.
    pub(crate) met: bool,
    /// What was asked and what came.
    pub(crate) text: String,
}

fn behind(better: Better, ours: f64, theirs: f64) -> bool {
    match better {
        Better::Higher => ours < theirs,
        Better::Lower => ours > theirs,
        Better::Neither => false,
    }
}

fn target(table: &[(&str, f64)], row: &Row) -> Option<f64> {
    table
        .iter()
        .find(|(id, _)| *id == row.id)
        .map(|(_, value)| *value)
}

/// Of two rows of ours: what the kernel alone makes of the same difference.
fn by_the_kernel(row: &Row, other: &Row, results: &Results) -> Option<String> {
    let kernel = Path {
        kind: Kind::Kernel,
        mtu: MTU,
    };
    let (row, other) = (results.median(row, kernel)?, results.median(other, kernel)?);
    (other > 0.0).then(|| format!(" (kernel NAT {:.2})", row / other))
}

/// Judges one row; `None` if there is nothing to judge.
pub(crate) fn judge(row: &Row, results: &Results) -> Option<Verdict> {
    let path = Path {
        kind: Kind::Ours,
        mtu: MTU,
    };
    if row.better == Better::Neither || !results.asked(path) {
        return None;
    }
    let Some(ours) = results.median(row, path) else {
        return Some(Verdict {
            met: false,
            text: "not measured".to_owned(),
        });
    };
    let mut misses = Vec::new();
    let mut judged = false;
    for (_, kind, other, wanted) in RATIOS.iter().filter(|(id, ..)| *id == row.id) {
        let of = Path {
            kind: *kind,
            mtu: MTU,
        };
        let other = rows::all().find(|row| row.id == *other);
        let theirs = other.and_then(|other| results.median(other, of));
        let Some(theirs) = theirs.filter(|theirs| *theirs > 0.0) else {
            continue;
        };
        judged = true;
        let ratio = ours / theirs;
        if behind(row.better, ratio, *wanted) {
            let name = match kind {
                Kind::Ours => other.map_or("", |other| other.id),
                _ => kind.title(),
            };
            let other = other.filter(|_| *kind == Kind::Ours);
            let kernel = other.and_then(|other| by_the_kernel(row, other, results));
            let kernel = kernel.unwrap_or_default();
            misses.push(format!("{ratio:.2} of {name}, wanted {wanted:.2}{kernel}"));
        }
    }
    if let Some(wanted) = target(&AT_LEAST, row) {
        judged = true;
        if ours < wanted {
            misses.push(format!("wanted at least {wanted} {}", row.unit));
        }
    }
    if let Some(wanted) = target(&AT_MOST, row) {
        judged = true;
        if ours > wanted {
            misses.push(format!("wanted at most {wanted} {}", row.unit));
        }
    }
    for &kind in compared(row) {
        let measured = results.paths().filter(|path| path.kind == kind);
        let figures = measured.filter_map(|path| Some((results.median(row, path)?, path)));
        let best = figures.reduce(|best, next| {
            if behind(row.better, best.0, next.0) {
                next
            } else {
                best
            }
        });
        let Some((theirs, path)) = best else { continue };
        judged = true;
        if behind(row.better, ours, theirs) {
            misses.push(format!("behind {} ({theirs:.*})", path.name(), row.digits));
        }
    }
    let text = if misses.is_empty() {
        "met".to_owned()
    } else {
        format!("MISSED: {}", misses.join("; "))
    };
    judged.then_some(Verdict {
        met: misses.is_empty(),
        text,
    })
}

/// Whom a row is not to be behind.
fn compared(row: &Row) -> &'static [Kind] {
    match row.experiment {
        Experiment::Service(_)
        | Experiment::Pair(_)
        | Experiment::Ports(_)
        | Experiment::Privileged(_) => &[],
        _ => &NOT_BEHIND,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str) -> &'static Row {
        rows::all().find(|row| row.id == id).unwrap()
    }

    fn results(row: &Row, figures: &[(Kind, u32, f64)]) -> Results {
        let mut results = Results::new(
            figures
                .iter()
                .map(|&(kind, mtu, _)| Path { kind, mtu })
                .collect(),
        );
        for &(kind, mtu, value) in figures {
            results.add(row.id, Path { kind, mtu }, value);
        }
        results
    }

    #[test]
    fn every_target_names_a_row() {
        for (id, _) in AT_LEAST.iter().chain(&AT_MOST) {
            row(id);
        }
        for (id, _, other, _) in RATIOS {
            row(id);
            row(other);
        }
    }

    #[test]
    fn one_row_is_measured_by_another() {
        let path = Path {
            kind: Kind::Ours,
            mtu: MTU,
        };
        let with = |v4, v6| {
            let mut results = Results::new(vec![path]);
            results.add("tcp_up_1", path, v4);
            results.add("tcp6_up_1", path, v6);
            judge(row("tcp6_up_1"), &results).unwrap()
        };
        assert!(with(10.0, 9.6).met);
        assert_eq!(
            with(10.0, 9.0).text,
            "MISSED: 0.90 of tcp_up_1, wanted 0.95"
        );
        // The kernel's own loss stands beside it, and excuses nothing.
        let kernel = Path {
            kind: Kind::Kernel,
            mtu: MTU,
        };
        let mut results = Results::new(vec![path, kernel]);
        for (path, v4, v6) in [(path, 10.0, 9.0), (kernel, 50.0, 47.0)] {
            results.add("tcp_up_1", path, v4);
            results.add("tcp6_up_1", path, v6);
        }
        assert_eq!(
            judge(row("tcp6_up_1"), &results).unwrap().text,
            "MISSED: 0.90 of tcp_up_1, wanted 0.95 (kernel NAT 0.94)"
        );
    }

    #[test]
    fn a_rate_needs_half_of_kernel_nat_and_the_peers_behind_it() {
        let row = row("tcp_up_1");
        let with = |ours, pasta| {
            let figures = [
                (Kind::Kernel, 1500, 20.0),
                (Kind::Pasta, 1500, 0.2),
                (Kind::Pasta, 65520, pasta),
                (Kind::Ours, 1500, ours),
            ];
            judge(row, &results(row, &figures)).unwrap()
        };
        assert!(with(10.0, 9.0).met);
        assert_eq!(
            with(9.0, 8.0).text,
            "MISSED: 0.45 of kernel NAT, wanted 0.50"
        );
        assert_eq!(with(11.0, 12.0).text, "MISSED: behind pasta 65520 (12.00)");
    }

    #[test]
    fn a_time_may_not_be_above() {
        let row = row("rr_p50");
        let with = |ours| {
            judge(
                row,
                &results(row, &[(Kind::Kernel, 1500, 80.0), (Kind::Ours, 1500, ours)]),
            )
            .unwrap()
            .met
        };
        assert!(with(99.0));
        assert!(!with(101.0));
    }

    #[test]
    fn a_path_that_was_not_asked_for_is_not_judged_but_one_that_failed_is() {
        let row = row("rss_idle");
        assert_eq!(
            judge(row, &results(row, &[(Kind::Kernel, 1500, 1.0)])),
            None
        );
        let failed = Results::new(vec![Path {
            kind: Kind::Ours,
            mtu: 1500,
        }]);
        assert!(!judge(row, &failed).unwrap().met);
    }
}
