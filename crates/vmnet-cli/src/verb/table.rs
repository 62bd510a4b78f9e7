//! Columns that line up.

use std::fmt;

/// Between columns.
const GAP: &str = "  ";

/// A table with a line of headings.
#[derive(Debug)]
pub(super) struct Table<const COLUMNS: usize> {
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    pub(super) fn new(headings: [&str; COLUMNS]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned)],
        }
    }

    pub(super) fn row(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.map(|cell| printable(&cell)));
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = [0; COLUMNS];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            writeln!(f, "{}", cells.join(GAP).trim_end())?;
        }
        Ok(())
    }
}

/// What is known under names, one a line.
pub(super) fn sheet(lines: &[(&str, String)]) -> String {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines
        .iter()
        .map(|(name, value)| format!("{:<1$}{GAP}{2}\n", name, width, printable(value)))
        .collect()
}

/// The value, or the sign for none.
pub(super) fn or_none(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

pub(super) fn yes_or_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Guests choose their names: what they choose must not speak to a terminal. An empty cell would hide a column.
fn printable(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    text.chars()
        .map(|c| if is_harmless(c) { c } else { '\u{fffd}' })
        .collect()
}

/// No control character, and none that changes the direction of writing (Unicode, Bidi_Control).
fn is_harmless(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !c.is_control() && !turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["NUMBER", "NAME", "LAST"]);
        table.row(["1".into(), "größer-als-name".into(), "x".into()]);
        table.row([
            "22222222".into(),
            String::new(),
            "\x1b[2J\n\u{202e}y".into(),
        ]);
        insta::assert_snapshot!(table, @r"
        NUMBER    NAME             LAST
        1         größer-als-name  x
        22222222  -                �[2J��y
        ");
    }

    #[test]
    fn an_empty_table_has_headings() {
        assert_eq!(Table::new(["A", "B"]).to_string(), "A  B\n");
    }

    #[test]
    fn names_line_up() {
        let lines = [("mode", "host".to_owned()), ("subnet", "a\tb".to_owned())];
        assert_eq!(sheet(&lines), "mode    host\nsubnet  a\u{fffd}b\n");
    }
}
