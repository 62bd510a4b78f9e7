//! Interfaces of the host whose LAN guests can be on, and by which methods. Reading them needs no privilege.
//!
//! Those that carry Ethernet and lead somewhere: cards, VLANs, bonds, bridges, wireless cards. A veth is one: what a
//! container or a nested host has for a card. Not the loopback, taps, tunnels, what is made of another interface to give
//! somebody a place of his own (macvlan, ipvlan), members of a bond, and what Openvmnet made.

use super::route::{RouteError, Routes};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

/// How the names of interfaces begin that Openvmnet makes.
const OURS: &str = "vmnet";

/// What an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NicKind {
    /// A card, or one end of a veth.
    Ethernet,
    /// A VLAN on another interface.
    Vlan,
    /// Several cards as one, by bonding or team.
    Bond,
    /// A bridge of the kernel.
    Bridge,
    /// A wireless card.
    Wifi,
}

/// How guests get onto the LAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// A tap joins the bridge that the interface is, or is a member of.
    Bridge,
    /// Each guest has a macvtap on the interface.
    Macvtap,
    /// Frames are read and written at the interface by a packet socket.
    Packet,
}

impl Method {
    /// Each of them, the best first.
    pub const ALL: [Self; 3] = [Self::Bridge, Self::Macvtap, Self::Packet];
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bridge => "bridge",
            Self::Macvtap => "macvtap",
            Self::Packet => "packet",
        })
    }
}

/// An interface of the host whose LAN guests can be on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: NicKind,
    /// Its own MAC.
    pub mac: [u8; 6],
    /// Its largest packet.
    pub mtu: u32,
    /// It is switched on, and its carrier is there.
    pub up: bool,
    /// The bridge that it is a member of.
    pub bridge: Option<String>,
    /// What else it is a member of, by name.
    pub member_of: Option<String>,
}

impl Nic {
    /// Why guests cannot get onto its LAN by this method, for people; `None` if they can.
    #[must_use]
    pub fn refuses(&self, method: Method) -> Option<String> {
        let name = &self.name;
        if self.kind == NicKind::Wifi {
            return Some(format!(
                "{name} is a wireless card, and its access point takes frames from one MAC alone, its own: guests \
                 cannot have theirs there; use a network in mode shared"
            ));
        }
        match (method, &self.bridge, &self.member_of) {
            (Method::Bridge, None, _) if self.kind != NicKind::Bridge => {
                Some(format!("{name} is no bridge, and no member of one"))
            }
            (Method::Macvtap | Method::Packet, Some(bridge), _) => Some(format!(
                "{name} is a member of the bridge {bridge}, which takes its frames: use the method bridge"
            )),
            (Method::Macvtap, None, Some(other)) => Some(format!(
                "{name} is a member of {other}, which takes its frames: use the method packet"
            )),
            _ => None,
        }
    }

    /// The method that is chosen where none is asked for.
    #[must_use]
    pub fn best(&self) -> Option<Method> {
        Method::ALL
            .into_iter()
            .find(|method| self.refuses(*method).is_none())
    }
}

/// The interfaces of this network namespace that can be bridged to, by name; with wireless ones, which cannot, so that
/// somebody who looks for his only card is told why.
///
/// # Errors
///
/// See [`RouteError`].
pub fn all() -> Result<Vec<Nic>, RouteError> {
    let mut links = BTreeMap::new();
    Routes::open()?.dump(
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        "list the links",
        |message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                links.insert(link.header.index, Link::read(link));
            }
        },
    )?;
    let mut nics: Vec<Nic> = links.values().filter_map(|link| link.nic(&links)).collect();
    nics.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(nics)
}

/// A link, as far as it matters here.
#[derive(Debug, Clone, Default)]
struct Link {
    index: u32,
    name: String,
    /// What made it; cards have none.
    kind: Option<InfoKind>,
    is_ethernet: bool,
    flags: LinkFlags,
    mac: Option<[u8; 6]>,
    mtu: u32,
    controller: Option<u32>,
}

impl Link {
    fn read(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            flags: message.header.flags,
            ..Self::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(mac) => link.mac = mac.try_into().ok(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Controller(index) => {
                    link.controller = Some(index).filter(|index| *index != 0);
                }
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }

    fn nic(&self, links: &BTreeMap<u32, Self>) -> Option<Nic> {
        let carries = self.is_ethernet && !self.flags.contains(LinkFlags::Loopback);
        if !carries || self.name.starts_with(OURS) {
            return None;
        }
        let kind = match &self.kind {
            None if is_wireless(&self.name, self.index) => NicKind::Wifi,
            None | Some(InfoKind::Veth | InfoKind::Dsa) => NicKind::Ethernet,
            Some(InfoKind::Vlan) => NicKind::Vlan,
            Some(InfoKind::Bond | InfoKind::Team) => NicKind::Bond,
            Some(InfoKind::Bridge) => NicKind::Bridge,
            Some(_) => return None,
        };
        let controller = self.controller.and_then(|index| links.get(&index));
        let name = || controller.map(|link| link.name.clone());
        let (bridge, member_of) = match controller.and_then(|link| link.kind.as_ref()) {
            Some(InfoKind::Bond | InfoKind::Team) => return None,
            Some(InfoKind::Bridge) => (name(), None),
            // A VRF takes no frames, it only chooses routes.
            Some(InfoKind::Vrf) => (None, None),
            _ => (None, name()),
        };
        Some(Nic {
            index: self.index,
            name: self.name.clone(),
            kind,
            mac: self.mac?,
            mtu: self.mtu,
            up: self.flags.contains(LinkFlags::Up | LinkFlags::Running),
            bridge,
            member_of,
        })
    }
}

/// Netlink does not tell. The number is compared, because `/sys` may be that of another network namespace.
fn is_wireless(name: &str, index: u32) -> bool {
    if name.contains('/') {
        return false;
    }
    let folder = Path::new("/sys/class/net").join(name);
    let same = fs::read_to_string(folder.join("ifindex"))
        .is_ok_and(|number| number.trim().parse() == Ok(index));
    same && ["phy80211", "wireless"]
        .iter()
        .any(|sign| folder.join(sign).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: Option<InfoKind>, controller: Option<u32>) -> Link {
        Link {
            index,
            name: name.to_owned(),
            kind,
            is_ethernet: true,
            flags: LinkFlags::Up | LinkFlags::Running,
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            controller,
        }
    }

    #[test]
    fn what_leads_to_a_lan_is_told_from_what_does_not() {
        let mut loopback = link(1, "lo", None, None);
        loopback.flags |= LinkFlags::Loopback;
        let mut down = link(9, "eth9", None, None);
        down.flags = LinkFlags::Up;
        let mut tunnel = link(10, "ppp0", None, None);
        tunnel.is_ethernet = false;
        let links = [
            loopback,
            link(2, "eth0", None, None),
            link(3, "eth1", None, Some(5)),
            link(4, "eth2", None, Some(6)),
            link(5, "br0", Some(InfoKind::Bridge), None),
            link(6, "bond0", Some(InfoKind::Bond), None),
            link(7, "eth0.5", Some(InfoKind::Vlan), None),
            link(8, "veth1", Some(InfoKind::Veth), None),
            down,
            tunnel,
            link(11, "tap0", Some(InfoKind::Tun), None),
            link(12, "vmnet0", Some(InfoKind::Bridge), None),
            link(13, "mv0", Some(InfoKind::MacVlan), None),
            link(14, "eth3", None, Some(15)),
            link(
                15,
                "ovs-system",
                Some(InfoKind::Other("openvswitch".to_owned())),
                None,
            ),
        ];
        let links = links.into_iter().map(|link| (link.index, link)).collect();
        let nic = |index: u32| BTreeMap::get(&links, &index).and_then(|link| link.nic(&links));
        for refused in [1, 4, 10, 11, 12, 13] {
            assert_eq!(nic(refused), None, "{refused}");
        }
        let best = |index| nic(index).unwrap().best();
        assert_eq!(best(2), Some(Method::Macvtap));
        assert_eq!(best(3), Some(Method::Bridge));
        assert_eq!(nic(3).unwrap().bridge.as_deref(), Some("br0"));
        assert_eq!(best(5), Some(Method::Bridge));
        assert_eq!(best(6), Some(Method::Macvtap));
        assert_eq!(nic(7).unwrap().kind, NicKind::Vlan);
        assert_eq!(nic(8).unwrap().kind, NicKind::Ethernet);
        assert!(nic(8).unwrap().up && !nic(9).unwrap().up);
        assert_eq!(best(14), Some(Method::Packet));
    }

    #[test]
    fn a_wireless_card_says_why_it_refuses() {
        let links = BTreeMap::from([(2, link(2, "wlan0", None, None))]);
        let mut wlan = links[&2].nic(&links).unwrap();
        wlan.kind = NicKind::Wifi;
        assert_eq!(wlan.best(), None);
        for method in Method::ALL {
            let why = wlan.refuses(method).unwrap();
            assert!(why.contains("one MAC") && why.contains("shared"), "{why}");
        }
    }

    #[test]
    fn the_loopback_is_not_among_them() {
        assert!(all().unwrap().iter().all(|nic| nic.name != "lo"));
    }
}
