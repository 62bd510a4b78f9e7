//! What an earlier service, which was killed, has left in the kernel.
//!
//! Everything there says which network it belongs to. What belongs to a network that is there again is that network's to take
//! over when it starts; the rest is removed.

use super::Supervisor;
use crate::privileged::client::HelperError;

impl Supervisor {
    /// Removes what belongs to no network. To be called once, when all that stay were started.
    pub(crate) fn remove_leftovers(&mut self) {
        if let Err(error) = self.try_remove_leftovers() {
            tracing::warn!(%error, "what an earlier service has left cannot be removed");
        }
    }

    fn try_remove_leftovers(&mut self) -> Result<(), HelperError> {
        let Some(helper) = &mut self.helper else {
            return Ok(());
        };
        for link in helper.links()? {
            let Some(mark) = link.mark else { continue };
            if self.networks.contains_key(&mark.network) {
                continue;
            }
            let Ok(name) = link.name.parse() else {
                tracing::warn!(
                    link = link.name,
                    "a link of an earlier service was renamed by somebody: it stays"
                );
                continue;
            };
            helper.delete_link(name)?;
            tracing::info!(link = link.name, network = %mark.network, "a link of an earlier service is removed");
        }
        Ok(())
    }
}
