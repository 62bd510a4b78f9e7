//! What the helper lets pass. It knows no requests of before: what is ours is read off the kernel each time, so there is
//! nothing that could be talked out of step, and what an earlier helper made is ours as well.

use super::name::{LinkName, Mark};
use super::request::{Refusal, Request, Why};
use vmnet_linux::kernel::link::Link;

/// The kernel, as far as checks look at it.
pub trait Kernel {
    /// The link with this name.
    ///
    /// # Errors
    /// The kernel does not say.
    fn link(&self, name: &str) -> Result<Option<Link>, Refusal>;
}

/// A request that may be carried out, with what was looked up for it.
#[derive(Debug, PartialEq, Eq)]
pub enum Permitted {
    /// List the links.
    LinkList,
    /// Delete the link with this number, if it is there.
    LinkDelete(Option<u32>),
    /// Make a tap.
    TapCreate {
        /// Its name.
        name: LinkName,
        /// Whose it is.
        mark: Mark,
        /// It stays when it is closed.
        stays: bool,
    },
    /// Open this tap.
    TapOpen(LinkName),
}

/// Decides whether a request may be carried out.
///
/// # Errors
/// It may not: the refusal is what the daemon is answered.
pub fn check(request: Request, kernel: &impl Kernel) -> Result<Permitted, Refusal> {
    Ok(match request {
        Request::LinkList => Permitted::LinkList,
        Request::LinkDelete { name } => {
            let found = own(&name, kernel)?;
            Permitted::LinkDelete(found.map(|link| link.index))
        }
        Request::TapCreate { name, mark, stays } => {
            if kernel.link(name.as_str())?.is_some() {
                let reason = format!("there is a link {name} already");
                return Err(Refusal::new(Why::InUse, reason));
            }
            Permitted::TapCreate { name, mark, stays }
        }
        Request::TapOpen { name } => {
            let link = own(&name, kernel)?
                .ok_or_else(|| Refusal::new(Why::Missing, format!("there is no link {name}")))?;
            if link.kind.as_deref() != Some("tun") {
                return Err(Refusal::forbidden(format!("{name} is no tap")));
            }
            Permitted::TapOpen(name)
        }
    })
}

/// The link with this name, if it is there; refused if it is somebody else's.
pub fn own(name: &LinkName, kernel: &impl Kernel) -> Result<Option<Link>, Refusal> {
    let Some(link) = kernel.link(name.as_str())? else {
        return Ok(None);
    };
    if mark_of(&link).is_none() {
        return Err(Refusal::forbidden(format!(
            "the link {name} was not made by vmnet"
        )));
    }
    Ok(Some(link))
}

/// Whose a link is, if it is ours.
#[must_use]
pub fn mark_of(link: &Link) -> Option<Mark> {
    link.alias.as_deref()?.parse().ok()
}
