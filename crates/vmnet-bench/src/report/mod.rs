//! What is said about a run: the table (`table.rs`), the JSON (`json.rs`), the facts of the machine (`facts.rs`).

pub(crate) mod facts;
pub(crate) mod json;
pub(crate) mod table;
