//! The libraries as C has them.
//!
//! | file | what |
//! | --- | --- |
//! | `headers` | every language and compiler takes them, and the ABI is that of programs for macOS |
//! | `programs` | programs of `tests/c`, run under valgrind |
//! | `compiler` | building C against what cargo has just built |

mod compiler;
mod headers;
mod programs;
