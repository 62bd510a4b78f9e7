//! Links, addresses and routes of this network namespace, by netlink (rtnetlink(7)) over a blocking socket.
//!
//! `netlink-packet-route` is imported here, and by the files of this folder that speak over this socket; no type of it leaves
//! the folder.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
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
use vmnet_core::Prefix;

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

/// Something of the host that uses addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// First address.
    pub network: IpAddr,
    /// Length of the prefix.
    pub prefix_len: u8,
    /// The interface it belongs to, if any.
    pub interface: Option<String>,
    /// Whether it is an address of the host; otherwise a route.
    pub is_address: bool,
}

impl Taken {
    /// Whether some of the prefix is in use by it.
    #[must_use]
    pub fn meets(&self, prefix: Prefix) -> bool {
        let IpAddr::V6(network) = self.network else {
            return false;
        };
        let beyond = 128_u32.saturating_sub(self.prefix_len.min(Prefix::LEN).into());
        let different = network.to_bits() ^ prefix.network().to_bits();
        different.checked_shr(beyond).unwrap_or(0) == 0
    }
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

/// How a list was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// As it was at one time.
    Whole,
    /// It changed meanwhile.
    Changed,
}

/// How often a list is asked for that changes while it is told.
const DUMPS_MAX: u32 = 20;

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

    /// Every address and route of the host, those of IPv4 first, in the order the kernel tells them.
    ///
    /// Routes shorter than 8 bits, 16 of IPv6, are defaults in disguise (`0.0.0.0/1`, as VPNs set it) and left out, like
    /// multicast and link-local addresses of IPv6.
    ///
    /// # Errors
    ///
    /// See [`RouteError`].
    pub fn taken(&mut self) -> Result<Vec<Taken>, RouteError> {
        let names = self.link_names()?;
        let mut taken = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = AddressMessage::default();
            request.header.family = family;
            self.dump(
                RouteNetlinkMessage::GetAddress(request),
                "list the addresses",
                |message| {
                    if let RouteNetlinkMessage::NewAddress(address) = message {
                        taken.extend(taken_by_address(&address, &names));
                    }
                },
            )?;
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            self.dump(
                RouteNetlinkMessage::GetRoute(request),
                "list the routes",
                |message| {
                    if let RouteNetlinkMessage::NewRoute(route) = message {
                        taken.extend(taken_by_route(&route, &names));
                    }
                },
            )?;
        }
        Ok(taken)
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

    /// Sends a request that is answered by one acknowledgement.
    pub(super) fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
        what: &str,
    ) -> Result<(), RouteError> {
        self.send(request, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.answers(what, |_| {}).map(|_| ())
    }

    /// Sends a request that is answered by a list, and again if that changed while it was told: something that was there all
    /// the time can be missing from it then.
    pub(super) fn dump(
        &mut self,
        request: RouteNetlinkMessage,
        what: &str,
        each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<(), RouteError> {
        for _ in 0..DUMPS_MAX {
            self.send(request.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            let mut list = Vec::new();
            let told = self.answers(what, |message| list.push(message))?;
            if told == Told::Whole {
                list.into_iter().for_each(each);
                return Ok(());
            }
        }
        Err(RouteError::Answer(format!(
            "to {what}: it changed each time while it was told"
        )))
    }

    pub(super) fn send(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), RouteError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Reads answers until the acknowledgement or the end of the list.
    pub(super) fn answers(
        &self,
        what: &str,
        each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<Told, RouteError> {
        let receive = || Ok(self.socket.recv_from_full()?.0);
        read_answers(receive, self.sequence, what, each)
    }
}

fn read_answers(
    mut receive: impl FnMut() -> io::Result<Vec<u8>>,
    sequence: u32,
    what: &str,
    mut each: impl FnMut(RouteNetlinkMessage),
) -> Result<Told, RouteError> {
    let mut told = Told::Whole;
    loop {
        let bytes = receive()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| RouteError::Answer(error.to_string()))?;
            let length = (message.header.length as usize).next_multiple_of(4);
            if length == 0 {
                return Err(RouteError::Answer("a message of no length".into()));
            }
            rest = rest.get(length..).unwrap_or_default();
            if message.header.sequence_number != sequence {
                continue;
            }
            if message.header.flags & NLM_F_DUMP_INTR != 0 {
                told = Told::Changed;
            }
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(told),
                NetlinkPayload::Error(error) => {
                    return match error.code {
                        None => Ok(told),
                        Some(_) => Err(RouteError::Refused {
                            what: what.to_owned(),
                            source: error.to_io(),
                        }),
                    };
                }
                NetlinkPayload::InnerMessage(inner) => each(inner),
                _ => {}
            }
        }
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

fn taken_by_address(message: &AddressMessage, names: &BTreeMap<u32, String>) -> Option<Taken> {
    let network = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
        .filter(|address| !is_link_local(*address))?;
    Some(Taken {
        network,
        prefix_len: message.header.prefix_len,
        interface: names.get(&message.header.index).cloned(),
        is_address: true,
    })
}

fn taken_by_route(message: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<Taken> {
    let least = match message.header.address_family {
        AddressFamily::Inet6 => 16,
        _ => 8,
    };
    if message.header.destination_prefix_length < least
        || message.header.kind == RouteType::Multicast
    {
        return None;
    }
    let mut network = None;
    let mut interface = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                network = Some(IpAddr::V4(*address));
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                network = Some(IpAddr::V6(*address));
            }
            RouteAttribute::Oif(index) => interface = names.get(index).cloned(),
            _ => {}
        }
    }
    Some(Taken {
        network: network.filter(|network| !is_link_local(*network))?,
        prefix_len: message.header.destination_prefix_length,
        interface,
        is_address: false,
    })
}

/// Of IPv6, where each link has its own.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if Ipv6Addr::is_unicast_link_local(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of the kernel's: a link of this number, or the end of the list.
    fn message(link: Option<u32>, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = 7;
        let payload = match link {
            Some(index) => {
                let mut link = LinkMessage::default();
                link.header.index = index;
                NetlinkPayload::from(RouteNetlinkMessage::NewLink(link))
            }
            None => NetlinkPayload::Done(netlink_packet_core::DoneMessage::default()),
        };
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn a_list_that_changed_while_it_was_told_is_known() {
        for (flags, expected) in [
            ([0, 0, 0], Told::Whole),
            ([0, NLM_F_DUMP_INTR, 0], Told::Changed),
            ([0, 0, NLM_F_DUMP_INTR], Told::Changed),
        ] {
            let [first, second, last] = flags;
            let mut datagrams = vec![
                [message(Some(1), first), message(Some(2), second)].concat(),
                message(None, last),
            ]
            .into_iter();
            let mut links = 0;
            let receive = || Ok(datagrams.next().unwrap());
            let told = read_answers(receive, 7, "list the links", |_| links += 1).unwrap();
            assert_eq!((told, links), (expected, 2), "{flags:?}");
        }
    }

    #[test]
    fn a_prefix_meets_what_holds_it_and_what_it_holds() {
        let taken = |network: &str, prefix_len| Taken {
            network: network.parse().unwrap(),
            prefix_len,
            interface: None,
            is_address: false,
        };
        let prefix: Prefix = "fd12:3456:789a:1::/64".parse().unwrap();
        for (network, len, meets) in [
            ("fd12:3456:789a:1::", 64, true),
            ("fd12:3456:789a:1::99", 128, true),
            ("fd12:3456:789a:1::", 80, true),
            ("fd12:3456:789a::", 48, true),
            ("fd12:3456::", 32, true),
            ("fd00::", 8, true),
            ("::", 0, true),
            ("fd12:3456:789a:2::", 64, false),
            ("fd12:3456:789a:2::1", 128, false),
            ("fd12:3456:789b::", 48, false),
            ("192.168.0.0", 16, false),
            ("0.0.0.0", 0, false),
        ] {
            assert_eq!(taken(network, len).meets(prefix), meets, "{network}/{len}");
        }
    }
}
