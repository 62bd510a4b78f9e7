//! Bridges on which the host has addresses of its own, and their members.
//!
//! A bridge is made down and without a name, gets what it needs, and appears under its name with its alias at once
//! ([`super::link`]); one that is there already is brought to what is asked for, so that a killed service's is taken over while
//! frames pass.

use super::link::{self, Link};
use super::loopback_guard;
use super::route::{RouteError, Routes};
use super::sysctl;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// A bridge cannot be as asked for.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The kernel refused.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// A setting of an interface cannot be written.
    #[error("the bridge {bridge}: {setting} cannot be set: {source}")]
    Setting {
        /// Its name.
        bridge: String,
        /// The setting.
        setting: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// There are no random bytes.
    #[error("a name for a bridge: {0}")]
    Name(#[from] io::Error),
    /// It is gone.
    #[error("the link {0} is gone")]
    Gone(String),
}

/// What a bridge is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// The MAC of the host on it.
    pub mac: [u8; 6],
    /// The largest packet.
    pub mtu: u16,
    /// The host's addresses on it, with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// What comes from guests may be forwarded, as far as rules let it.
    pub forwards: bool,
}

/// Makes a bridge, or brings the one of this name to what is asked for. It is up then.
///
/// # Errors
///
/// See [`BridgeError`].
pub fn establish(name: &str, alias: &str, bridge: &Bridge) -> Result<(), BridgeError> {
    let mut routes = Routes::open()?;
    let index = match link::find(name)? {
        Some(link) => link.index,
        None => make(&mut routes, name, alias, bridge)?,
    };
    settle(name, bridge)?;
    let mut change = LinkMessage::default();
    change.header.index = index;
    change.header.change_mask = LinkFlags::Up;
    change.header.flags = LinkFlags::Up;
    change.attributes = vec![
        LinkAttribute::Address(bridge.mac.to_vec()),
        LinkAttribute::Mtu(bridge.mtu.into()),
    ];
    routes.ask(
        RouteNetlinkMessage::SetLink(change),
        0,
        &format!("set up the bridge {name}"),
    )?;
    let had = addresses(&mut routes, index)?;
    for (address, length) in &bridge.addresses {
        if !had.contains(&(*address, *length)) {
            add_address(&mut routes, index, *address, *length)?;
        }
    }
    for (address, length) in had {
        if !bridge.addresses.contains(&(address, length)) {
            let message = address_message(index, address, length);
            routes.ask(
                RouteNetlinkMessage::DelAddress(message),
                0,
                &format!("remove the address {address}"),
            )?;
        }
    }
    Ok(())
}

fn make(routes: &mut Routes, name: &str, alias: &str, bridge: &Bridge) -> Result<u32, BridgeError> {
    let provisional = link::provisional_name()?;
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(provisional.clone()),
        LinkAttribute::Address(bridge.mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![
                InfoBridge::StpState(BridgeStpState::Disabled),
                InfoBridge::ForwardDelay(0),
                // Neighbour discovery goes by groups that nobody reports in time.
                InfoBridge::MulticastSnooping(false),
            ])),
        ]),
    ];
    routes.ask(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
        &format!("make the bridge {name}"),
    )?;
    let made = link::find(&provisional)?.ok_or_else(|| BridgeError::Gone(name.to_owned()))?;
    if let Err(error) = link::christen(made.index, name, alias) {
        let _gone = link::delete(made.index);
        return Err(error.into());
    }
    Ok(made.index)
}

/// Settings of the interface: addresses are given and not found, routers are not listened to.
fn settle(name: &str, bridge: &Bridge) -> Result<(), BridgeError> {
    let on = |wanted: bool| if wanted { "1" } else { "0" };
    let v4 = bridge
        .addresses
        .iter()
        .any(|(address, _)| address.is_ipv4());
    let v6 = bridge
        .addresses
        .iter()
        .any(|(address, _)| address.is_ipv6());
    let set = |family, setting, value| {
        let written = std::fs::write(sysctl::interface_path(family, name, setting), value);
        match written {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            written => written.map_err(|source| BridgeError::Setting {
                bridge: name.to_owned(),
                setting,
                source,
            }),
        }
    };
    set("ipv6", "disable_ipv6", on(!v6))?;
    set("ipv6", "addr_gen_mode", "1")?;
    set("ipv6", "accept_ra", "0")?;
    set("ipv6", "autoconf", "0")?;
    // A router says that it is one, or its guests forget it.
    set("ipv6", "forwarding", on(v6 && bridge.forwards))?;
    set("ipv6", "force_forwarding", on(v6 && bridge.forwards))?;
    set("ipv4", "forwarding", on(v4 && bridge.forwards))?;
    // What comes from addresses that are not behind the bridge is nobody's, whomever it is for: also ARP questions.
    set("ipv4", "rp_filter", "1")?;
    set("ipv4", "accept_redirects", "0")?;
    set("ipv4", "send_redirects", "0")
}

/// The setting by which the kernel takes packets of the loopback from a bridge.
const LOOPBACK: &str = "route_localnet";

/// Lets clients on the loopback reach guests of a bridge by forwarded ports, or not. The kernel does not keep guests from the loopback
/// then: it is let where rules stand that do, and where there are such ports. All members have filters first.
///
/// # Errors
///
/// See [`BridgeError`].
pub fn reach_from_loopback(name: &str, lets: bool) -> Result<(), BridgeError> {
    let value = if lets { "1" } else { "0" };
    if lets && !is_open(name) {
        keep_all_from_loopback(name)?;
    }
    write_setting(name, LOOPBACK, value)
}

fn write_setting(name: &str, setting: &'static str, value: &str) -> Result<(), BridgeError> {
    match std::fs::write(sysctl::interface_path("ipv4", name, setting), value) {
        // A bridge that is gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written.map_err(|source| BridgeError::Setting {
            bridge: name.to_owned(),
            setting,
            source,
        }),
    }
}

/// Sets filters at members of a bridge that are ours, which keep guests from the loopback.
///
/// # Errors
///
/// The kernel does not tell which they are.
pub fn keep_all_from_loopback(name: &str) -> Result<(), BridgeError> {
    let mut routes = Routes::open()?;
    let all = link::list()?;
    let bridge = all.iter().find(|link| link.name == name);
    let is_member = |it: &&Link| it.master.is_some() && it.master == bridge.map(|it| it.index);
    for member in all.iter().filter(is_member).filter(|it| it.is_ours()) {
        keep_from_loopback(&mut routes, member);
    }
    Ok(())
}

/// Whether the kernel takes packets of the loopback from an interface, or `all` for any.
#[must_use]
pub fn is_open(interface: &str) -> bool {
    let setting = std::fs::read_to_string(sysctl::interface_path("ipv4", interface, LOOPBACK));
    setting.is_ok_and(|it| it.trim() != "0")
}

fn keep_from_loopback(routes: &mut Routes, member: &Link) {
    if let Err(error) = loopback_guard::set(routes, member.index) {
        tracing::warn!(
            member = member.name,
            %error,
            "while somebody has flushed all rules, this guest may reach what listens on the host's loopback"
        );
    }
}

/// Makes a link a member of a bridge, with the bridge's MTU, and sets it up. What came by it may go back by it: rules decide what
/// does ([`super::nft`]).
///
/// # Errors
///
/// See [`BridgeError`].
pub fn join(member: &Link, bridge: &Link, isolated: bool) -> Result<(), BridgeError> {
    let disable = sysctl::interface_path("ipv6", &member.name, "disable_ipv6");
    let _without_ipv6 = std::fs::write(disable, "1");
    let mut routes = Routes::open()?;
    // Each packet pays for filters, which are needed only then: by our doing, or somebody else's for all interfaces.
    if is_open(&bridge.name) || is_open("all") {
        keep_from_loopback(&mut routes, member);
    }
    let what = format!("join {} to {}", member.name, bridge.name);
    let mut message = LinkMessage::default();
    message.header.index = member.index;
    message.header.change_mask = LinkFlags::Up;
    message.header.flags = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::Mtu(bridge.mtu),
        LinkAttribute::Controller(bridge.index),
    ];
    routes.ask(RouteNetlinkMessage::SetLink(message), 0, &what)?;
    let options = vec![
        InfoBridgePort::Isolated(isolated),
        InfoBridgePort::HairpinMode(true),
    ];
    Ok(set_port(&mut routes, member, options, &what)?)
}

/// Has those members of a bridge that are ours be kept by it from others that are, or no more: those of which that is true, or
/// those of which it is not.
///
/// # Errors
///
/// See [`BridgeError`].
pub fn isolate(bridge: &str, on: bool, isolates: impl Fn(&str) -> bool) -> Result<(), BridgeError> {
    let all = link::list()?;
    let Some(bridge) = all.iter().find(|link| link.name == bridge) else {
        return Ok(());
    };
    let members = all.iter().filter(|it| it.master == Some(bridge.index));
    let wrong = |it: &&Link| it.is_ours() && it.isolated != on && isolates(&it.name) == on;
    for member in members.filter(wrong) {
        let options = vec![InfoBridgePort::Isolated(on)];
        let what = format!("isolate {} or not", member.name);
        set_port(&mut Routes::open()?, member, options, &what)?;
    }
    Ok(())
}

/// Sets options of a member of a bridge.
fn set_port(
    routes: &mut Routes,
    member: &Link,
    options: Vec<InfoBridgePort>,
    what: &str,
) -> Result<(), RouteError> {
    let mut message = LinkMessage::default();
    message.header.index = member.index;
    message.attributes = vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(options)),
    ])];
    routes.ask(RouteNetlinkMessage::NewLink(message), 0, what)
}

/// Has a bridge know for good that a MAC is behind a member.
///
/// # Errors
///
/// See [`BridgeError`].
pub fn fix(member: &Link, mac: [u8; 6]) -> Result<(), BridgeError> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = member.index;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.to_vec())];
    Ok(Routes::open()?.ask(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
        &format!("fix a station behind {}", member.name),
    )?)
}

fn add_address(
    routes: &mut Routes,
    index: u32,
    address: IpAddr,
    length: u8,
) -> Result<(), BridgeError> {
    let mut message = address_message(index, address, length);
    if address.is_ipv6() {
        // Nobody else can have it: rules see to that, and there need not be anybody yet who could be asked.
        message.header.flags = AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    Ok(routes.ask(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_REPLACE,
        &format!("set the address {address}/{length}"),
    )?)
}

fn address_message(index: u32, address: IpAddr, length: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = length;
    message.header.scope = AddressScope::Universe;
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    if let IpAddr::V4(own) = address
        && length < 31
    {
        let hosts = u32::MAX.checked_shr(length.into()).unwrap_or(0);
        let broadcast = Ipv4Addr::from_bits(own.to_bits() | hosts);
        message
            .attributes
            .push(AddressAttribute::Broadcast(broadcast));
    }
    message
}

/// The addresses of a link, with the lengths of their prefixes.
fn addresses(routes: &mut Routes, index: u32) -> Result<Vec<(IpAddr, u8)>, BridgeError> {
    let all = routes.addresses()?.into_iter();
    Ok(all
        .filter(|it| it.link == index)
        .map(|it| (it.address, it.prefix_len))
        .collect())
}
