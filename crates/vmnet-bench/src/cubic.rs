//! Permission to use cubic in namespaces other than the first.
//!
//! Linux lets a namespace choose only what `net.ipv4.tcp_allowed_congestion_control` of the machine names. Where that is
//! not so (a machine whose default is bbr), the bench adds cubic for the length of the run and says so. After a
//! `kill -9` of the bench cubic stays allowed, which changes nothing for anybody who does not ask for it.

use crate::control::Refusal;
use std::fs;
use std::sync::{Mutex, PoisonError};

const ALLOWED: &str = "/proc/sys/net/ipv4/tcp_allowed_congestion_control";

/// The list as it was, while it is changed.
static BEFORE: Mutex<Option<String>> = Mutex::new(None);

/// Dropping it takes the permission back, if it was given here.
#[derive(Debug)]
pub(crate) struct Cubic;

impl Cubic {
    /// Sees to it that cubic may be chosen.
    pub(crate) fn allow() -> Result<Self, Refusal> {
        let refused = |error: std::io::Error| {
            format!("cubic is not allowed in network namespaces here; add it to {ALLOWED}: {error}")
        };
        let before = fs::read_to_string(ALLOWED).map_err(refused)?;
        if !before.split_whitespace().any(|name| name == "cubic") {
            eprintln!(
                "vmnet-bench: allowing cubic beside {} for the length of this run",
                before.trim()
            );
            fs::write(ALLOWED, format!("{} cubic", before.trim())).map_err(refused)?;
            *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        }
        Ok(Self)
    }
}

/// Takes the permission back, if it was given here and that was not done yet.
pub(crate) fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        let _ = fs::write(ALLOWED, before.trim());
    }
}

impl Drop for Cubic {
    fn drop(&mut self) {
        restore();
    }
}
