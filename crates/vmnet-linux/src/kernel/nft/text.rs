//! Text of tables: chains, sets, and what stands in rules.

use std::fmt::Display;

/// A chain.
pub(super) struct Lines(String);

impl Lines {
    /// One at a hook. What no rule of it decides passes.
    pub(super) fn filter(name: &str, hook: &str, priority: impl Display) -> Self {
        Self::at_hook("filter", name, hook, priority)
    }

    /// The same, where addresses are translated.
    pub(super) fn nat(name: &str, hook: &str, priority: impl Display) -> Self {
        Self::at_hook("nat", name, hook, priority)
    }

    fn at_hook(kind: &str, name: &str, hook: &str, priority: impl Display) -> Self {
        let mut lines = Self::part(name);
        lines.add(format!(
            "type {kind} hook {hook} priority {priority}; policy accept;"
        ));
        lines
    }

    /// One that others lead to. It has to be there before them.
    pub(super) fn part(name: &str) -> Self {
        Self(format!(" chain {name} {{\n"))
    }

    pub(super) fn add(&mut self, line: impl AsRef<str>) {
        self.0 += "  ";
        self.0 += line.as_ref();
        self.0 += "\n";
    }

    pub(super) fn end(self) -> String {
        self.0 + " }\n"
    }
}

/// A set with a name, or a map.
pub(super) fn collection(kind: &str, name: &str, of: &str, elements: &[String]) -> String {
    let elements = match elements {
        [] => String::new(),
        some => format!("  elements = {{ {} }}\n", some.join(", ")),
    };
    format!(" {kind} {name} {{\n  type {of}\n{elements} }}\n")
}

/// Interfaces by their names.
pub(super) fn quoted<'a>(names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let names = names.into_iter();
    names.map(|name| format!("\"{name}\"")).collect()
}

/// One of these interfaces.
pub(super) fn set(names: &[String]) -> String {
    format!("{{ {} }}", quoted(names).join(", "))
}

pub(super) fn mac(bytes: [u8; 6]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.join(":")
}
