//! Panics stop here: none may cross into C.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what an exported function does. After a panic, which has been reported, the caller gets `fallback`.
pub fn border<R>(fallback: R, work: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(fallback)
}
