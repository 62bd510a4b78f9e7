//! What the helper lets pass. It knows no requests of before: what is ours is read off the kernel each time, so there is
//! nothing that could be talked out of step, and what an earlier helper made is ours as well.

use super::name::{LinkName, Mark};
use super::request::{Refusal, Request, Why};
use vmnet_linux::kernel::link::Link;
use vmnet_linux::kernel::nics::{Method, Nic};
use vmnet_linux::sys::lan_socket::Hears;
use vmnet_wire::ethernet::Mac;

/// The kernel, as far as checks look at it.
pub trait Kernel {
    /// The link with this name.
    ///
    /// # Errors
    /// The kernel does not say.
    fn link(&self, name: &str) -> Result<Option<Link>, Refusal>;

    /// The interface with this name, if guests may be bridged to it.
    ///
    /// # Errors
    /// The kernel does not say.
    fn nic(&self, name: &str) -> Result<Option<Nic>, Refusal>;
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
    /// Get onto the LAN of this interface.
    Bridging(Nic, Bridging),
}

/// A way onto a LAN, or to the host from there.
#[derive(Debug, PartialEq, Eq)]
pub enum Bridging {
    /// A tap joins its bridge.
    Join(LinkName, Mark),
    /// A macvtap with this MAC.
    Macvtap(LinkName, Mark, [u8; 6]),
    /// A packet socket.
    Socket(Hears),
    /// A tap to the host.
    Hostward(LinkName, Mark),
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
            free(&name, kernel)?;
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
        Request::BridgeJoin { name, mark, nic } => {
            free(&name, kernel)?;
            let nic = bridgeable(&nic, &[Method::Bridge], kernel)?;
            Permitted::Bridging(nic, Bridging::Join(name, mark))
        }
        Request::MacvtapCreate {
            name,
            mark,
            nic,
            mac,
        } => {
            free(&name, kernel)?;
            let nic = bridgeable(&nic, &[Method::Macvtap], kernel)?;
            if !Mac(mac).is_unicast() || mac == nic.mac {
                let reason = format!("{} cannot be a guest's MAC", Mac(mac));
                return Err(Refusal::forbidden(reason));
            }
            Permitted::Bridging(nic, Bridging::Macvtap(name, mark, mac))
        }
        Request::LanSocketOpen { nic, all } => {
            let (methods, hears) = match all {
                true => (&[Method::Packet][..], Hears::All),
                false => (&[Method::Macvtap][..], Hears::Host),
            };
            let nic = bridgeable(&nic, methods, kernel)?;
            Permitted::Bridging(nic, Bridging::Socket(hears))
        }
        Request::HostwardOpen { name, mark, nic } => {
            free(&name, kernel)?;
            let nic = bridgeable(&nic, &[Method::Macvtap, Method::Packet], kernel)?;
            Permitted::Bridging(nic, Bridging::Hostward(name, mark))
        }
    })
}

/// Refuses a name that a link has.
fn free(name: &LinkName, kernel: &impl Kernel) -> Result<(), Refusal> {
    match kernel.link(name.as_str())? {
        None => Ok(()),
        Some(_) => {
            let reason = format!("there is a link {name} already");
            Err(Refusal::new(Why::InUse, reason))
        }
    }
}

/// The interface with this name, if guests can get onto its LAN by one of these methods.
fn bridgeable(name: &str, methods: &[Method], kernel: &impl Kernel) -> Result<Nic, Refusal> {
    let nic = kernel.nic(name)?.ok_or_else(|| {
        let reason = format!("{name} is no interface that guests can be bridged to");
        Refusal::new(Why::Missing, reason)
    })?;
    let mut reasons = methods.iter().map(|method| nic.refuses(*method));
    match reasons.any(|reason| reason.is_none()) {
        true => Ok(nic),
        false => {
            let reason = methods.iter().find_map(|method| nic.refuses(*method));
            Err(Refusal::forbidden(reason.unwrap_or_default()))
        }
    }
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
