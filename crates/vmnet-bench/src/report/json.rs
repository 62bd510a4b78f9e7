//! The JSON of a run: every sample, so that somebody else can judge anew.

use super::facts::Facts;
use crate::options::Options;
use crate::plan::Results;
use crate::rows::Row;
use crate::targets::Verdict;
use serde_json::{Value, json};

/// Renders everything that was measured.
pub(crate) fn render(
    rows: &[&Row],
    results: &Results,
    verdicts: &[Option<Verdict>],
    facts: &Facts,
    options: &Options,
) -> String {
    let rows: Vec<Value> = rows
        .iter()
        .zip(verdicts)
        .map(|(row, verdict)| {
            json!({
                "id": row.id,
                "title": row.title.trim(),
                "unit": row.unit,
                "better": row.better,
                "verdict": verdict,
                "paths": cells(row, results),
            })
        })
        .collect();
    let document = json!({
        "format": 1,
        "machine": facts,
        "settings": {
            "seconds": options.seconds(),
            "lead_in_seconds": options.lead_in(),
            "repeat": options.repeat(),
            "congestion_control": "cubic",
            "lan_mtu": 1500,
            "user": options.user,
        },
        "rows": rows,
    });
    format!("{document:#}\n")
}

fn cells(row: &Row, results: &Results) -> Vec<Value> {
    let one = |path: crate::path::Path| {
        let cell = results.cell(row, path)?;
        Some(json!({
            "path": path.kind.title(),
            "mtu": path.mtu,
            "median": results.median(row, path),
            "ratio_to_kernel_nat": results.ratio(row, path),
            "samples": cell.samples,
            "failures": cell.failures,
        }))
    };
    results.paths().filter_map(one).collect()
}
