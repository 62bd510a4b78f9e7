//! How many files this process may have open: each flow, forwarded port and guest is one.

use std::sync::Once;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// So many are allowed at most where the host sets no limit.
const UNLIMITED: u64 = 1 << 20;

/// Raises the soft limit to the hard one, once for the life of the process, and answers [`open_files`].
///
/// Programs that this process starts later inherit the limit.
pub fn raise_open_files() -> u64 {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: Some(limit.maximum.unwrap_or(UNLIMITED)),
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit on open files stays as it is");
        }
    });
    open_files()
}

/// Files that this process may have open now (`RLIMIT_NOFILE`, the soft limit).
#[must_use]
pub fn open_files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let raised = raise_open_files();
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raised, hard.unwrap_or(UNLIMITED));
        assert_eq!(open_files(), raised);
    }
}
