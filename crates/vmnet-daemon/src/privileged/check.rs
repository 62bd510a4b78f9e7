//! What the helper lets pass. It knows no requests of before: what is ours is read off the kernel each time, so there is
//! nothing that could be talked out of step, and what an earlier helper made is ours as well.

use super::name::{LinkName, Mark};
use super::request::{Refusal, Request, Why};
use std::net::IpAddr;
use vmnet_linux::kernel::bridge::Bridge;
use vmnet_linux::kernel::link::Link;
use vmnet_linux::kernel::nft::{self, Rules};
use vmnet_linux::kernel::nics::{Method, Nic};
use vmnet_linux::kernel::route::Address;
use vmnet_linux::lane::Subnet;
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

    /// The addresses of all links.
    ///
    /// # Errors
    /// The kernel does not say.
    fn addresses(&self) -> Result<Vec<Address>, Refusal>;

    /// All links.
    ///
    /// # Errors
    /// The kernel does not say.
    fn links(&self) -> Result<Vec<Link>, Refusal>;
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
    /// Tell the number of the rules.
    RulesGeneration,
    /// Tell whose rules are there.
    RulesStanding,
    /// Route what comes by this bridge by this interface alone.
    RouteBy(LinkName, Option<String>),
    /// Switch forwarding.
    Forwarding {
        /// Interfaces by which IPv4 comes.
        v4: Vec<String>,
        /// Interfaces by which IPv6 comes.
        v6: Vec<String>,
        /// Bridges that pass.
        bridges: Vec<LinkName>,
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
        Request::TapCreate { name, mark, stays } => {
            free(&name, kernel)?;
            Permitted::TapCreate { name, mark, stays }
        }
        Request::TapOpen { name } => {
            there(&name, TAP, kernel)?;
            Permitted::TapOpen(name)
        }
        Request::BridgeEstablish { name, mark, bridge } => {
            let there = free_for(&name, &mark, kernel)?;
            may_have(&bridge.addresses, there.as_ref(), kernel)?;
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
        Request::RulesGeneration => Permitted::RulesGeneration,
        Request::RulesStanding => Permitted::RulesStanding,
        Request::RouteBy { bridge, external } => route_by(bridge, external, kernel)?,
        Request::Forwarding { v4, v6, bridges } => {
            let is_there = |bridge| there(bridge, BRIDGE, kernel).map(drop);
            bridges.iter().try_for_each(is_there)?;
            Permitted::Forwarding {
                v4: foreign(v4, kernel)?,
                v6: foreign(v6, kernel)?,
                bridges,
            }
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
            let nic = for_macvtap(&name, &nic, mac, kernel)?;
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

/// A bridge of ours, whose packets leave by somebody else's interface; or one that may be gone, if that is taken back.
fn route_by(
    bridge: LinkName,
    external: Option<String>,
    kernel: &impl Kernel,
) -> Result<Permitted, Refusal> {
    match &external {
        Some(external) => {
            there(&bridge, BRIDGE, kernel)?;
            // It may have gone, and come again.
            foreign(vec![external.clone()], kernel)?;
        }
        None => {
            own(&bridge, kernel)?;
        }
    }
    Ok(Permitted::RouteBy(bridge, external))
}

/// The interface on which a guest with this MAC can have a macvtap of this name.
fn for_macvtap(
    name: &LinkName,
    nic: &str,
    mac: [u8; 6],
    kernel: &impl Kernel,
) -> Result<Nic, Refusal> {
    free(name, kernel)?;
    let nic = bridgeable(nic, &[Method::Macvtap], kernel)?;
    if !Mac(mac).is_unicast() || mac == nic.mac {
        let reason = format!("{} cannot be a guest's MAC", Mac(mac));
        return Err(Refusal::forbidden(reason));
    }
    Ok(nic)
}

/// Refuses the name of a bridge that another network has, or that is no bridge.
fn free_for(name: &LinkName, mark: &Mark, kernel: &impl Kernel) -> Result<Option<Link>, Refusal> {
    let Some(there) = own(name, kernel)? else {
        return Ok(None);
    };
    of_kind(&there, BRIDGE)?;
    if mark_of(&there).as_ref() == Some(mark) {
        return Ok(Some(there));
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

/// The host may have these addresses on a network of ours, which may be there: one of each kind, all private, and none that
/// would draw to us what goes to a neighbour of the host's elsewhere.
fn may_have(
    addresses: &[(IpAddr, u8)],
    bridge: Option<&Link>,
    kernel: &impl Kernel,
) -> Result<(), Refusal> {
    let mut kinds = Vec::new();
    for (address, length) in addresses {
        let refuse = |what| Err(Refusal::forbidden(format!("{address}/{length} {what}")));
        match Kind::of(*address, *length) {
            None => return refuse("is no address for a network of ours"),
            Some(kind) if kinds.contains(&kind) => return refuse("is one too many for a network"),
            Some(kind) => kinds.push(kind),
        }
    }
    let known = kernel.addresses()?;
    let has = |one: &&(IpAddr, u8)| {
        let mut all = known.iter();
        all.any(|it| {
            bridge.is_some_and(|bridge| bridge.index == it.link)
                && (it.address, it.prefix_len) == **one
        })
    };
    let new: Vec<&(IpAddr, u8)> = addresses.iter().filter(|it| !has(it)).collect();
    let own: Vec<u32> = (kernel.links()?.iter())
        .filter(|link| mark_of(link).is_some())
        .map(|link| link.index)
        .collect();
    for other in known.iter().filter(|it| !own.contains(&it.link)) {
        let met = new.iter().find(|(address, length)| {
            let link_local = matches!(address, IpAddr::V6(it) if it.is_unicast_link_local());
            !link_local && meet(*address, other.address, other.prefix_len.min(*length))
        });
        if let Some((address, length)) = met {
            let reason = format!(
                "{address}/{length} is in use: the host has {}/{} on another interface",
                other.address, other.prefix_len
            );
            return Err(Refusal::new(Why::InUse, reason));
        }
    }
    Ok(())
}

/// Kinds of addresses that the host may have on a network of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// RFC 1918 and RFC 6598, with room for a guest.
    Private,
    /// RFC 4193.
    UniqueLocal,
    LinkLocal,
}

impl Kind {
    fn of(address: IpAddr, length: u8) -> Option<Self> {
        match address {
            IpAddr::V4(address) => {
                let private = (16..=30).contains(&length) && Subnet::is_private(address, length);
                private.then_some(Self::Private)
            }
            IpAddr::V6(_) if length != 64 => None,
            IpAddr::V6(address) if address.is_unique_local() => Some(Self::UniqueLocal),
            IpAddr::V6(address) => address.is_unicast_link_local().then_some(Self::LinkLocal),
        }
    }
}

/// Two addresses are the same in their first bits.
fn meet(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let (differ, width) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (u128::from(one.to_bits() ^ other.to_bits()), 32_u32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits(), 128),
        _ => return false,
    };
    let behind = width.saturating_sub(bits.into());
    differ.checked_shr(behind).unwrap_or(0) == 0
}

/// Rules are about a bridge of ours and its members. Its subnets are those of the addresses that it has, whatever the daemon
/// says, and forwarded ports lead to guests in them.
fn check_rules(rules: &Rules, kernel: &impl Kernel) -> Result<(), Refusal> {
    let name: LinkName = (rules.bridge.parse())
        .map_err(|_| Refusal::forbidden(format!("`{}` is no bridge of ours", rules.bridge)))?;
    let bridge = there(&name, BRIDGE, kernel)?;
    let fixed = rules.fixed.iter().map(|(member, _)| member);
    // What they are reached by is refused; it may have gone since.
    for other in &rules.others {
        let other = (other.parse::<LinkName>())
            .map_err(|_| Refusal::forbidden(format!("`{other}` is no bridge of ours")))?;
        own(&other, kernel)?;
    }
    for member in fixed
        .chain(&rules.members)
        .chain(&rules.isolated)
        .chain([&rules.trunk])
    {
        let of_bridge = member.strip_prefix(name.as_str());
        if !of_bridge.is_some_and(|rest| rest.starts_with('-')) || !nft::is_name(member) {
            let reason = format!("`{member}` cannot be a member of {name}");
            return Err(Refusal::forbidden(reason));
        }
    }
    let known = kernel.addresses()?;
    let has = |address: IpAddr, network: IpAddr, length: u8| {
        let mut own = known.iter().filter(|it| it.link == bridge.index);
        own.any(|it| (it.address, it.prefix_len) == (address, length))
            && meet(address, network, length)
    };
    let v4 = rules.ipv4.map(|net| {
        let (gateway, network) = (net.gateway.into(), net.network.into());
        (
            gateway,
            has(gateway, network, net.prefix_len),
            net.prefix_len,
        )
    });
    let v6 = rules.ipv6.map(|net| {
        let (gateway, link_local) = (net.gateway.into(), net.link_local.into());
        let sound = has(gateway, net.network.into(), 64) && has(link_local, link_local, 64);
        (gateway, sound, 64)
    });
    for (gateway, has, length) in v4.iter().chain(&v6) {
        if !has {
            let reason = format!("{name} has no address {gateway}/{length}");
            return Err(Refusal::forbidden(reason));
        }
    }
    for forward in &rules.forwards {
        let of_family = if forward.guest.is_ipv4() { v4 } else { v6 };
        if !of_family.is_some_and(|(gateway, _, length)| meet(forward.guest, gateway, length)) {
            let reason = format!("{} is no guest's address on {name}", forward.guest);
            return Err(Refusal::forbidden(reason));
        }
    }
    Ok(())
}

/// Those of these interfaces that are there; refused if one is ours, or stands for more than one interface. Settings of the
/// kernel are by name, and in the place of a name there can stand `all` of them, or the `default` of those to come.
fn foreign(names: Vec<String>, kernel: &impl Kernel) -> Result<Vec<String>, Refusal> {
    let mut there = Vec::new();
    for name in names {
        let refuse = |what| Err(Refusal::forbidden(format!("`{name}` is {what}")));
        if !nft::is_name(&name) || ["all", "default", ".", ".."].contains(&name.as_str()) {
            return refuse("no interface");
        }
        match kernel.link(&name)? {
            // It may have gone since it was seen.
            None => {}
            Some(link) if mark_of(&link).is_some() => return refuse("an interface of ours"),
            // A link has further names, by which it has no settings.
            Some(link) if link.name != name => return refuse("another name of an interface"),
            Some(_) => there.push(name),
        }
    }
    Ok(there)
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
