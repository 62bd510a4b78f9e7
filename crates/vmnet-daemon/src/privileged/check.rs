//! What the helper lets pass. It knows no requests of before: what is ours is read off the kernel each time, so there is
//! nothing that could be talked out of step, and what an earlier helper made is ours as well.

use super::name::{LinkName, Mark};
use super::request::{Refusal, Request, Why};
use std::net::IpAddr;
use vmnet_linux::kernel::bridge::Bridge;
use vmnet_linux::kernel::link::Link;
use vmnet_linux::kernel::nft::{self, Rules};
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
    /// Remove links that were left half made.
    LinkSweep,
    /// To say the number of the host's rules.
    RulesGeneration,
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
    /// Make a bridge, or bring it to what it is to be.
    BridgeEstablish {
        /// Its name.
        name: LinkName,
        /// Whose it is.
        mark: Mark,
        /// What it is to be.
        bridge: Bridge,
    },
    /// Make a tap a member of a bridge.
    BridgeJoin {
        /// The tap.
        member: Link,
        /// The bridge.
        bridge: Link,
        /// It exchanges frames with no other isolated member.
        isolated: bool,
        /// A station that is behind it for good.
        station: Option<[u8; 6]>,
    },
    /// Set these rules.
    RulesSet(Box<Rules>),
    /// Remove the rules of this bridge.
    RulesRemove(LinkName),
    /// Switch forwarding.
    Forwarding {
        /// Interfaces by which IPv4 comes.
        v4: Vec<String>,
        /// Interfaces by which IPv6 comes.
        v6: Vec<String>,
        /// There are networks.
        open: bool,
    },
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
            Permitted::LinkDelete(own(&name, kernel)?.map(|link| link.index))
        }
        Request::LinkSweep => Permitted::LinkSweep,
        Request::RulesGeneration => Permitted::RulesGeneration,
        Request::TapCreate { name, mark, stays } => {
            free(&name, kernel)?;
            Permitted::TapCreate { name, mark, stays }
        }
        Request::TapOpen { name } => there(&name, TAP, kernel).map(|_| Permitted::TapOpen(name))?,
        Request::BridgeEstablish { name, mark, bridge } => {
            free_for(&name, &mark, kernel)?;
            bridge.addresses.iter().try_for_each(may_have)?;
            Permitted::BridgeEstablish { name, mark, bridge }
        }
        Request::BridgeJoin {
            member,
            bridge,
            isolated,
            station,
        } => Permitted::BridgeJoin {
            member: there(&member, TAP, kernel)?,
            bridge: there(&bridge, BRIDGE, kernel)?,
            isolated,
            station,
        },
        Request::RulesSet { rules } => {
            check_rules(&rules, kernel)?;
            Permitted::RulesSet(rules)
        }
        Request::RulesRemove { bridge } => {
            if let Some(there) = own(&bridge, kernel)? {
                of_kind(&there, BRIDGE)?;
            }
            Permitted::RulesRemove(bridge)
        }
        Request::Forwarding { v4, v6, open } => {
            let strange = v4.iter().chain(&v6).find(|name| !nft::is_name(name));
            if let Some(name) = strange {
                return Err(Refusal::forbidden(format!("`{name}` is no interface")));
            }
            Permitted::Forwarding { v4, v6, open }
        }
        Request::LanJoin { name, mark, nic } => {
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

/// Refuses the name of a bridge that another network has, or that is no bridge.
fn free_for(name: &LinkName, mark: &Mark, kernel: &impl Kernel) -> Result<(), Refusal> {
    let Some(there) = own(name, kernel)? else {
        return Ok(());
    };
    of_kind(&there, BRIDGE)?;
    if mark_of(&there).as_ref() == Some(mark) {
        return Ok(());
    }
    let reason = format!("the bridge {name} is another network's");
    Err(Refusal::new(Why::InUse, reason))
}

/// What the kernel calls taps and bridges.
const TAP: &str = "tun";
const BRIDGE: &str = "bridge";

/// The link of ours with this name, which is of this kind.
fn there(name: &LinkName, kind: &str, kernel: &impl Kernel) -> Result<Link, Refusal> {
    let link = own(name, kernel)?
        .ok_or_else(|| Refusal::new(Why::Missing, format!("there is no link {name}")))?;
    of_kind(&link, kind)?;
    Ok(link)
}

fn of_kind(link: &Link, kind: &str) -> Result<(), Refusal> {
    if link.kind.as_deref() == Some(kind) {
        return Ok(());
    }
    Err(Refusal::forbidden(format!("{} is no {kind}", link.name)))
}

/// The host may have this address on a network of ours.
fn may_have((address, length): &(IpAddr, u8)) -> Result<(), Refusal> {
    let sound = match address {
        IpAddr::V4(v4) => {
            let strange = v4.is_loopback() || v4.is_multicast() || v4.is_broadcast();
            (8..=30).contains(length) && !strange && v4.octets()[0] != 0
        }
        IpAddr::V6(v6) => *length == 64 && (v6.is_unique_local() || v6.is_unicast_link_local()),
    };
    if sound {
        return Ok(());
    }
    let reason = format!("{address}/{length} is no address for a network of ours");
    Err(Refusal::forbidden(reason))
}

/// Rules are about a bridge of ours and its members. What they say of addresses concerns who comes by that bridge, or goes
/// there; a forwarded port leads to no other network.
fn check_rules(rules: &Rules, kernel: &impl Kernel) -> Result<(), Refusal> {
    let name: LinkName = (rules.bridge.parse())
        .map_err(|_| Refusal::forbidden(format!("`{}` is no bridge of ours", rules.bridge)))?;
    there(&name, BRIDGE, kernel)?;
    let members = rules.fixed.iter().map(|(member, _)| member);
    for member in members.chain([&rules.trunk]) {
        let of_bridge = member.strip_prefix(name.as_str());
        if !of_bridge.is_some_and(|rest| rest.starts_with('-')) || !nft::is_name(member) {
            let reason = format!("`{member}` cannot be a member of {name}");
            return Err(Refusal::forbidden(reason));
        }
    }
    for forward in &rules.forwards {
        let inside = match forward.guest {
            IpAddr::V4(guest) => rules.ipv4.is_some_and(|net| {
                let bits = 32_u32.saturating_sub(net.prefix_len.into());
                let differ = guest.to_bits() ^ net.network.to_bits();
                differ.checked_shr(bits).unwrap_or(0) == 0
            }),
            IpAddr::V6(guest) => rules
                .ipv6
                .is_some_and(|net| (guest.to_bits() ^ net.network.to_bits()) >> 64 == 0),
        };
        if !inside {
            let reason = format!("{} is no guest's address on {name}", forward.guest);
            return Err(Refusal::forbidden(reason));
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests;
