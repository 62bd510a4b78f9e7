//! What is wrong with a file, and where, in words for who wrote it: a library's are those of Rust.

use std::ops::Range;

/// The longest piece of a line that is shown.
const SHOWN: usize = 60;

/// Something is wrong at a place of the file.
#[derive(Debug)]
pub(super) struct Complaint {
    at: Option<Range<usize>>,
    why: String,
}

impl Complaint {
    pub(super) fn new(at: Range<usize>, why: String) -> Self {
        Self { at: Some(at), why }
    }

    /// Of a network, which is at this place if nothing more is known.
    pub(super) fn of(self, network: &str, at: Range<usize>) -> Self {
        let why = format!("network {network}: {}", self.why);
        Self {
            at: self.at.or(Some(at)),
            why,
        }
    }

    /// The number of its line, and what is wrong, with that line.
    pub(super) fn at_line(self, text: &str) -> (usize, String) {
        let number = line_of(text, self.at.map_or(0, |at| at.start));
        let line = text.lines().nth(number - 1).unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('[') {
            return (number, self.why);
        }
        let shown: String = line.chars().take(SHOWN).collect();
        let more = if shown.len() < line.len() { "..." } else { "" };
        (number, format!("{}, in `{shown}{more}`", self.why))
    }
}

/// The number of the line that this byte is in.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    before.filter(|byte| **byte == b'\n').count() + 1
}

impl From<toml::de::Error> for Complaint {
    fn from(error: toml::de::Error) -> Self {
        Self {
            at: error.span(),
            why: in_words(error.message()),
        }
    }
}

/// What serde says, without the names of Rust's types.
fn in_words(message: &str) -> String {
    // Its first line says all; a second names the key, which the line shows.
    let message = message.lines().next().unwrap_or_default();
    if let Some(rest) = message.strip_prefix("invalid value: integer `")
        && let Some((number, wanted)) = rest.split_once("`, expected ")
    {
        return format!("{number} is out of range: {} is expected", name(wanted));
    }
    if let Some(rest) = message.strip_prefix("invalid type: ")
        && let Some((found, wanted)) = rest.split_once(", expected ")
    {
        return format!("{} is expected, and not the {found}", name(wanted));
    }
    message.to_owned()
}

/// What is meant by what serde calls it.
fn name(wanted: &str) -> String {
    let up_to = |most: u64| format!("a whole number from 0 to {most}");
    match wanted {
        "u8" => up_to(u8::MAX.into()),
        "u16" => up_to(u16::MAX.into()),
        "u32" => up_to(u32::MAX.into()),
        "u64" => "a whole number from 0".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        other if other.starts_with("struct ") || other == "a map" => "a table".to_owned(),
        other => other.to_owned(),
    }
}
