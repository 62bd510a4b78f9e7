//! What an earlier service, which was killed, has left in the kernel.
//!
//! Everything there says which network it belongs to. What belongs to a network that is there again is that network's to take
//! over when it starts; the rest is removed. A bridge that a VMM is still on waits for that: its owner may come again, or it ends.

use super::{Supervisor, in_kernel};
use crate::privileged::client::HelperError;
use crate::privileged::name::Mark;

impl Supervisor {
    /// Removes what belongs to no network. To be called when all that stay were started.
    pub(crate) fn remove_leftovers(&mut self) {
        let done = self.try_remove_leftovers();
        self.leftovers_wait = done.unwrap_or_else(|error| {
            tracing::warn!(%error, "what an earlier service has left cannot be removed");
            false
        });
    }

    /// Removes what had to wait. To be called now and then.
    pub(crate) fn look_at_leftovers(&mut self) {
        if self.leftovers_wait {
            self.remove_leftovers();
        }
    }

    fn try_remove_leftovers(&mut self) -> Result<bool, HelperError> {
        let Some(helper) = &self.helper else {
            return Ok(false);
        };
        let mut helper = helper.borrow_mut();
        helper.sweep_links()?;
        let links = helper.links()?;
        // Of a bridge that a VMM is still on, nothing goes: its owner may come again. A tap is there for as long as somebody has
        // it; a macvtap was the service's own, and is there whoever has it.
        let in_use = |network| {
            let guests =
                |mark: &Mark| mark.network == network && mark.role.as_str().starts_with("guest");
            links.iter().any(|link| {
                link.kind.as_deref() == Some("tun") && link.mark.as_ref().is_some_and(guests)
            })
        };
        let mut waits = false;
        for link in &links {
            let Some(mark) = &link.mark else { continue };
            if self.networks.contains_key(&mark.network) {
                continue;
            }
            if in_use(mark.network) {
                waits = true;
                continue;
            }
            let Ok(name) = link.name.parse() else {
                tracing::warn!(
                    link = link.name,
                    "a link of an earlier service was renamed by somebody: it stays"
                );
                continue;
            };
            if link.kind.as_deref() == Some("bridge") {
                in_kernel::remove(&mut helper, &name)?;
            } else {
                helper.delete_link(name)?;
            }
            tracing::info!(link = link.name, network = %mark.network, "a link of an earlier service is removed");
        }
        drop(helper);
        self.left_alone.retain(|network| in_use(*network));
        Ok(waits)
    }
}
