//! The table on the terminal: one block for each guest MTU, one column for each path.

use super::facts::Facts;
use crate::options::Options;
use crate::path::{Kind, Path};
use crate::plan::Results;
use crate::rows::Row;
use crate::targets::{self, Verdict};
use std::fmt::Write;

const COLUMN: usize = 18;

/// Renders the whole report.
pub(crate) fn render(
    rows: &[&Row],
    results: &Results,
    verdicts: &[Option<Verdict>],
    facts: &Facts,
    options: &Options,
) -> String {
    let mut notes = Vec::new();
    let mut text = head(facts, options);
    for &mtu in &options.mtu {
        if !rows.iter().any(|row| row.experiment.is_at(mtu, options)) {
            continue;
        }
        let _ = writeln!(
            text,
            "\nGuest MTU {mtu}{:w$}(value, ratio to kernel NAT at this MTU)",
            "",
            w = 20
        );
        let _ = write!(text, "{:<36}{:<8}", "", "");
        for kind in &options.paths {
            let _ = write!(text, "{:>COLUMN$}", kind.title());
        }
        text.push_str(if mtu == targets::MTU {
            "  target\n"
        } else {
            "\n"
        });
        for (row, verdict) in rows.iter().zip(verdicts) {
            if !row.experiment.is_at(mtu, options) {
                continue;
            }
            let mut line = format!("{:<36}{:<8}", row.title, row.unit);
            for &kind in &options.paths {
                let _ = write!(
                    line,
                    "{:>COLUMN$}",
                    cell(row, Path { mtu, kind }, results, &mut notes)
                );
            }
            if let Some(verdict) = verdict.as_ref().filter(|_| mtu == targets::MTU) {
                let _ = write!(line, "  {}", verdict.text);
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    if !notes.is_empty() {
        text.push('\n');
    }
    for (number, note) in notes.iter().enumerate() {
        let _ = writeln!(text, "[{}] {note}", number + 1);
    }
    text
}

fn head(facts: &Facts, options: &Options) -> String {
    let versions: Vec<_> = facts
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    format!(
        "{}  {} cores, {}, kernel {}, {}\n{}\nmedian of {} x {} s; up is from the guest side to the server\n",
        facts.date,
        facts.cores,
        facts.cpu,
        facts.kernel,
        facts.system,
        versions.join(", "),
        options.repeat(),
        options.seconds()
    )
}

fn cell(row: &Row, path: Path, results: &Results, notes: &mut Vec<String>) -> String {
    let failure = results
        .cell(row, path)
        .and_then(|cell| cell.failures.first());
    let mark = failure.map(|why| {
        let note = format!("{}: {why}", path.kind.title());
        let number = notes
            .iter()
            .position(|known| *known == note)
            .unwrap_or_else(|| {
                notes.push(note);
                notes.len() - 1
            });
        format!("[{}]", number + 1)
    });
    let Some(median) = results.median(row, path) else {
        return mark.unwrap_or_else(|| "-".to_owned());
    };
    let mark = mark.unwrap_or_default();
    match results
        .ratio(row, path)
        .filter(|_| path.kind != Kind::Kernel && row.better != crate::rows::Better::Neither)
    {
        Some(ratio) => format!(
            "{median:.*}{mark} {:>7}",
            row.digits,
            format!("{ratio:.2}x")
        ),
        None => format!("{median:.*}{mark}{:8}", row.digits, ""),
    }
}
