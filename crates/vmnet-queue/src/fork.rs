//! Children made by `fork` without `exec`.
//!
//! A child has the memory of its parent and none of its threads. What threads do is begun anew there: [`pool`](crate::pool)
//! has none and starts its own. What the parent's threads and sockets serve (connections, interfaces) is the parent's:
//! its things remember the [`generation`] they were made in, and refuse in another.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// How often this process was made by a fork, counted from the first that had something of ours.
#[must_use]
pub fn generation() -> u64 {
    watch();
    GENERATION.load(Ordering::Relaxed)
}

/// Has forks noticed, from now on.
pub fn watch() {
    static WATCHED: Once = Once::new();
    unsafe extern "C" fn before() {
        crate::pool::before_fork();
    }
    unsafe extern "C" fn in_parent() {
        crate::pool::after_fork(false);
    }
    unsafe extern "C" fn in_child() {
        GENERATION.fetch_add(1, Ordering::Relaxed);
        crate::pool::after_fork(true);
    }
    WATCHED.call_once(|| {
        // SAFETY: The functions have the types wanted, and stay as long as the library, which is never unloaded: its
        // threads are in it. Without memory for it forks go unnoticed.
        let _no_memory =
            unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
    });
}
