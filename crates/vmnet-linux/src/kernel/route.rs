//! Links, addresses and routes of this network namespace, by netlink (rtnetlink(7)) over a blocking socket.
//!
//! `netlink-packet-route` is imported here, and by the files of this folder that speak over this socket; no type of it leaves
//! the folder.
//!
//! | file | what |
//! | --- | --- |
//! | `conversation` | questions to the kernel, and what it answers |
//! | `taken` | what of the host uses which addresses |

mod conversation;
mod taken;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

pub use taken::Taken;
use taken::is_link_local;

/// The kernel refused something about links, addresses or routes.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The socket failed.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    /// A request was refused.
    #[error("the kernel refused to {what}: {source}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// An answer could not be read.
    #[error("netlink: an answer of the kernel could not be read: {0}")]
    Answer(String),
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The number of the link.
    pub link: u32,
    /// The host's address on it.
    pub address: IpAddr,
    /// The length of its prefix.
    pub prefix_len: u8,
}

/// What to change about a link; `None` leaves as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct LinkChange {
    /// Up or down.
    pub up: Option<bool>,
    /// The largest packet.
    pub mtu: Option<u32>,
    /// The station's address.
    pub mac: Option<[u8; 6]>,
    /// How many frames may wait.
    pub queue_length: Option<u32>,
    /// The bridge that it becomes a member of.
    pub controller: Option<u32>,
    /// It hears all groups.
    pub all_multicast: Option<bool>,
    /// It has neighbours that are asked for by ARP.
    pub arp: Option<bool>,
}

/// A netlink socket.
pub struct Routes {
    socket: Socket,
    sequence: u32,
}

impl Routes {
    /// Opens a socket in the network namespace of this thread.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub fn open() -> Result<Self, RouteError> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// The addresses of all links, those of IPv4 first.
    ///
    /// # Errors
    ///
    /// See [`RouteError`].
    pub fn addresses(&mut self) -> Result<Vec<Address>, RouteError> {
        let mut found = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = AddressMessage::default();
            request.header.family = family;
            let request = RouteNetlinkMessage::GetAddress(request);
            self.dump(request, "list the addresses", |message| {
                if let RouteNetlinkMessage::NewAddress(message) = message {
                    found.extend(address(&message));
                }
            })?;
        }
        Ok(found)
    }

    /// IPv6 addresses of a link that others than the link's stations know, and that are not still being probed for.
    ///
    /// # Errors
    ///
    /// See [`RouteError`].
    pub fn ipv6_addresses(&mut self, index: u32) -> Result<Vec<Ipv6Addr>, RouteError> {
        let mut request = AddressMessage::default();
        request.header.family = AddressFamily::Inet6;
        let mut found = Vec::new();
        self.dump(
            RouteNetlinkMessage::GetAddress(request),
            "list the addresses",
            |message| {
                let RouteNetlinkMessage::NewAddress(message) = message else {
                    return;
                };
                let probed = message.header.flags.contains(AddressHeaderFlags::Tentative);
                if message.header.index != index || probed {
                    return;
                }
                found.extend(message.attributes.iter().filter_map(|attribute| {
                    match attribute {
                        AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
                        _ => None,
                    }
                    .filter(|address| !is_link_local(IpAddr::V6(*address)))
                }));
            },
        )?;
        Ok(found)
    }

    /// Changes a link.
    ///
    /// # Errors
    ///
    /// See [`RouteError`].
    pub fn change_link(&mut self, index: u32, change: LinkChange) -> Result<(), RouteError> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        for (flag, on) in [
            (LinkFlags::Up, change.up),
            (LinkFlags::Allmulti, change.all_multicast),
            (LinkFlags::Noarp, change.arp.map(|arp| !arp)),
        ] {
            link.header.change_mask.set(flag, on.is_some());
            link.header.flags.set(flag, on == Some(true));
        }
        link.attributes.extend(change.mtu.map(LinkAttribute::Mtu));
        link.attributes
            .extend(change.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        link.attributes
            .extend(change.queue_length.map(LinkAttribute::TxQueueLen));
        link.attributes
            .extend(change.controller.map(LinkAttribute::Controller));
        self.ask(
            RouteNetlinkMessage::SetLink(link),
            0,
            &format!("change the link ({change:?})"),
        )
    }

    /// Gives a link an address, for ever or for a time; an equal one is renewed.
    ///
    /// # Errors
    ///
    /// See [`RouteError`].
    pub fn set_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix_len: u8,
        lifetime: Option<Duration>,
    ) -> Result<(), RouteError> {
        let mut message = address_message(index, address, prefix_len);
        if let Some(lifetime) = lifetime {
            let mut cache = CacheInfo::default();
            let seconds = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX).max(1);
            cache.ifa_preferred = seconds;
            cache.ifa_valid = seconds;
            message.attributes.push(AddressAttribute::CacheInfo(cache));
        }
        self.ask(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            &format!("set the address {address}/{prefix_len}"),
        )
    }

    /// Takes an address from a link; one that is not there, because its time was over, is no mistake.
    ///
    /// # Errors
    ///
    /// See [`RouteError`].
    pub fn remove_address(
        &mut self,
        index: u32,
        address: Ipv4Addr,
        prefix_len: u8,
    ) -> Result<(), RouteError> {
        let message = address_message(index, address, prefix_len);
        let answer = self.ask(
            RouteNetlinkMessage::DelAddress(message),
            0,
            &format!("remove the address {address}/{prefix_len}"),
        );
        match answer {
            Err(RouteError::Refused { source, .. })
                if source.kind() == io::ErrorKind::AddrNotAvailable =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// Sets a route; without a gateway its stations are on the link.
    ///
    /// # Errors
    ///
    /// See [`RouteError`].
    pub fn set_route(
        &mut self,
        index: u32,
        network: Ipv4Addr,
        prefix_len: u8,
        gateway: Option<Ipv4Addr>,
    ) -> Result<(), RouteError> {
        let mut route = RouteMessage::default();
        route.header.address_family = AddressFamily::Inet;
        route.header.destination_prefix_length = prefix_len;
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.protocol = RouteProtocol::Dhcp;
        route.header.kind = RouteType::Unicast;
        route.header.scope = if gateway.is_some() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        };
        if prefix_len > 0 {
            route
                .attributes
                .push(RouteAttribute::Destination(RouteAddress::Inet(network)));
        }
        route
            .attributes
            .extend(gateway.map(|to| RouteAttribute::Gateway(RouteAddress::Inet(to))));
        route.attributes.push(RouteAttribute::Oif(index));
        self.ask(
            RouteNetlinkMessage::NewRoute(route),
            NLM_F_CREATE | NLM_F_REPLACE,
            &format!("set the route {network}/{prefix_len}"),
        )
    }

    /// The links by their index.
    fn link_names(&mut self) -> Result<BTreeMap<u32, String>, RouteError> {
        let mut names = BTreeMap::new();
        self.dump(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            "list the links",
            |message| {
                if let RouteNetlinkMessage::NewLink(link) = message {
                    let name = link
                        .attributes
                        .into_iter()
                        .find_map(|attribute| match attribute {
                            LinkAttribute::IfName(name) => Some(name),
                            _ => None,
                        });
                    names.extend(name.map(|name| (link.header.index, name)));
                }
            },
        )?;
        Ok(names)
    }
}

/// The index of the interface with this name.
///
/// # Errors
///
/// `ENODEV` if there is none.
pub fn link_index(name: &str) -> io::Result<u32> {
    let any = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    Ok(rustix::net::netdevice::name_to_index(any, name)?)
}

fn inet_address() -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message
}

fn address_message(index: u32, address: Ipv4Addr, prefix_len: u8) -> AddressMessage {
    let mut message = inet_address();
    message.header.index = index;
    message.header.prefix_len = prefix_len;
    message.header.scope = AddressScope::Universe;
    message
        .attributes
        .push(AddressAttribute::Local(address.into()));
    message
        .attributes
        .push(AddressAttribute::Address(address.into()));
    if prefix_len < 31 {
        let hosts = u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0);
        let broadcast = Ipv4Addr::from(u32::from(address) | hosts);
        message
            .attributes
            .push(AddressAttribute::Broadcast(broadcast));
    }
    message
}

fn address(message: &AddressMessage) -> Option<Address> {
    // Beside a peer's there is one of its own.
    let own = message.attributes.iter().find_map(|it| match it {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let only = || {
        message.attributes.iter().find_map(|it| match it {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    };
    Some(Address {
        link: message.header.index,
        address: own.or_else(only)?,
        prefix_len: message.header.prefix_len,
    })
}
