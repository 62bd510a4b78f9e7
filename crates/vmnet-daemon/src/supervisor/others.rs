//! Firewalls that begin, or read their rules anew, while networks of ours are there: what we had added to their chains is gone
//! then, or was never there.

use super::Supervisor;
use std::time::{Duration, Instant};

/// How often it is looked at most. There are hosts whose rules change all the time.
const PAUSE: Duration = Duration::from_secs(2);

/// The rules of a host, when they were last looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    at: Instant,
    generation: Option<u32>,
}

impl Supervisor {
    /// Lets our networks pass again wherever they are blocked, if rules of the host have changed. To be called now and then.
    pub(crate) fn look_at_others(&mut self) {
        if !self.networks.values().any(|it| it.kernel.is_some()) {
            self.looked = None;
            return;
        }
        let rests = |looked: &Looked| looked.at.elapsed() < PAUSE;
        if self.looked.as_ref().is_some_and(rests) {
            return;
        }
        let generation = self.rules_generation();
        let known = self.looked.and_then(|looked| looked.generation);
        if known.is_none() || known != generation {
            self.follow_forwarding_anew();
        }
        // Ours have changed it, too.
        self.looked = Some(Looked {
            at: Instant::now(),
            generation: self.rules_generation(),
        });
    }

    fn rules_generation(&self) -> Option<u32> {
        let mut helper = self.helper.as_ref()?.borrow_mut();
        let asked = helper.rules_generation();
        asked
            .inspect_err(|error| tracing::debug!(%error, "whether rules have changed is not known"))
            .ok()
    }
}
