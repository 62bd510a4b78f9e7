//! Links of this network namespace: which there are, what they are called, and their end (rtnetlink(7)).
//!
//! A link of ours has an alias, which says whose it is. The kernel takes no alias when a link is made, so a link is made
//! under a [provisional](provisional_name) name, and gets its own name and its alias in one request: whoever is killed in
//! between leaves a link that cannot be taken for somebody else's.

use super::nft::COMMENT;
use super::route::{RouteError, Routes, link_index};
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoPortData, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage,
};
use std::io;

/// What provisional names begin with. Nobody else names links so: a tilde is rare in names.
const PROVISIONAL: &str = "vmnet~";
/// The longest name that a link can have, in bytes.
pub const NAME_MAX: usize = 15;

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its alias.
    pub alias: Option<String>,
    /// What it is, in the kernel's word (`bridge`, `tun`, `macvtap`, ...); none for hardware.
    pub kind: Option<String>,
    /// The bridge or bond it belongs to.
    pub master: Option<u32>,
    /// The link that it stands on, as a VLAN does.
    pub lower: Option<u32>,
    /// The station's address.
    pub mac: Option<[u8; 6]>,
    /// The largest packet.
    pub mtu: u32,
    /// It is up.
    pub up: bool,
    /// It is the loopback.
    pub loopback: bool,
    /// As a member of a bridge, it exchanges frames with no other isolated one.
    pub isolated: bool,
    /// As a bridge, it has packets that it carries pass the rules of routed ones, whatever is set for all bridges.
    pub bridged_pass: bool,
}

impl Link {
    /// It says of itself that we made it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let alias = self.alias.as_deref().unwrap_or_default();
        alias
            .split_once(' ')
            .is_some_and(|(owner, _)| owner == COMMENT)
    }
}

/// A name under which to make a link that has no alias yet.
///
/// # Errors
///
/// There are no random bytes.
pub fn provisional_name() -> io::Result<String> {
    let mut bytes = [0_u8; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!("{PROVISIONAL}{:08x}", u32::from_ne_bytes(bytes)))
}

/// Kinds of links that we make.
const MADE: [&str; 3] = ["tun", "bridge", "macvtap"];

/// Whether a link is one of ours that was left half made: of a kind that we make, under a [provisional](provisional_name) name,
/// and nobody's by its alias.
#[must_use]
pub fn is_left_half_made(link: &Link) -> bool {
    let random = link.name.strip_prefix(PROVISIONAL).unwrap_or_default();
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let made = link
        .kind
        .as_deref()
        .is_some_and(|kind| MADE.contains(&kind));
    made && link.alias.is_none() && random.len() == 8 && random.bytes().all(is_hex)
}

/// All links, by number.
///
/// # Errors
///
/// See [`RouteError`].
pub fn list() -> Result<Vec<Link>, RouteError> {
    let mut links = Vec::new();
    Routes::open()?.dump(
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        "list the links",
        |message| links.extend(link(message)),
    )?;
    links.sort_by_key(|link: &Link| link.index);
    Ok(links)
}

/// The link with this name.
///
/// # Errors
///
/// See [`RouteError`].
pub fn find(name: &str) -> Result<Option<Link>, RouteError> {
    let index = match link_index(name) {
        Ok(index) => index,
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut request = LinkMessage::default();
    request.header.index = index;
    let mut routes = Routes::open()?;
    routes.send(
        RouteNetlinkMessage::GetLink(request),
        NLM_F_REQUEST | NLM_F_ACK,
    )?;
    let mut found = None;
    let answered = routes.answers(&format!("tell of the link {name}"), |message| {
        found = link(message);
    });
    match answered {
        // It went in between.
        Err(RouteError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
            Ok(None)
        }
        answered => answered.map(|_| found),
    }
}

/// Gives a link that is down its name and its alias, both or none.
///
/// # Errors
///
/// See [`RouteError`]; `EEXIST` if another link has the name.
pub fn christen(index: u32, name: &str, alias: &str) -> Result<(), RouteError> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    request
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    request
        .attributes
        .push(LinkAttribute::IfAlias(alias.to_owned()));
    Routes::open()?.ask(
        RouteNetlinkMessage::SetLink(request),
        0,
        &format!("name a link {name}"),
    )
}

/// Gives a link another alias.
///
/// # Errors
///
/// See [`RouteError`].
pub fn set_alias(index: u32, alias: &str) -> Result<(), RouteError> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    request
        .attributes
        .push(LinkAttribute::IfAlias(alias.to_owned()));
    Routes::open()?.ask(
        RouteNetlinkMessage::SetLink(request),
        0,
        &format!("say what the link {index} is for"),
    )
}

/// Ends a link; `false` if it is gone already.
///
/// # Errors
///
/// See [`RouteError`].
pub fn delete(index: u32) -> Result<bool, RouteError> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    let done = Routes::open()?.ask(
        RouteNetlinkMessage::DelLink(request),
        0,
        &format!("delete the link {index}"),
    );
    match done {
        Ok(()) => Ok(true),
        Err(RouteError::Refused { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn link(message: RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let flags = message.header.flags;
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        alias: None,
        kind: None,
        master: None,
        lower: None,
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        isolated: false,
        bridged_pass: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::Link(lower) => link.lower = Some(lower).filter(|lower| *lower != 0),
            LinkAttribute::Address(address) => link.mac = address.try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::LinkInfo(about) => {
                for about in about {
                    match about {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                            link.isolated = port.contains(&InfoBridgePort::Isolated(true));
                        }
                        LinkInfo::Data(InfoData::Bridge(bridge)) => {
                            let set = [
                                InfoBridge::NfCallIpTables(true),
                                InfoBridge::NfCallIp6Tables(true),
                            ];
                            link.bridged_pass = set.iter().any(|it| bridge.contains(it));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_half_made_is_known_from_what_others_call_alike() {
        let link = |name: &str, kind: Option<&str>, alias: Option<&str>| Link {
            index: 7,
            name: name.to_owned(),
            alias: alias.map(str::to_owned),
            kind: kind.map(str::to_owned),
            master: None,
            lower: None,
            mac: None,
            mtu: 1500,
            up: false,
            loopback: false,
            isolated: false,
            bridged_pass: false,
        };
        let name = provisional_name().unwrap();
        for kind in MADE {
            assert!(is_left_half_made(&link(&name, Some(kind), None)), "{kind}");
        }
        for other in [
            link(&name, Some("vlan"), None),
            link(&name, None, None),
            link(&name, Some("tun"), Some("the administrator's")),
            link("vmnet~", Some("tun"), None),
            link("vmnet~1", Some("tun"), None),
            link("vmnet~0000000g", Some("tun"), None),
            link("vmnet~DEADBEEF", Some("tun"), None),
            link("vmnet0", Some("tun"), None),
        ] {
            assert!(!is_left_half_made(&other), "{other:?}");
        }
    }
}
