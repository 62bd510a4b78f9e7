//! The network a verb works on: a private one of this process, or one that `vmnet up` holds.

use crate::args::{Joining, Making};
use crate::control::client::{Client, ClientError};
use crate::control::protocol::AttachKind;
use crate::identity::{self, GuestName};
use crate::port_spec::PortSpec;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::str::FromStr;
use std::time::Duration;
use vmnet_linux::kernel::route::{RouteError, Routes, Taken};
use vmnet_linux::lane::{
    self, AttachError, Attachment, Forward, ForwardGuest, Handle, Ipv4Net, PortOptions, Protocol,
    Settings, StartError,
};
use vmnet_wire::ethernet::Mac;

/// Apple's default; also what the world's paths take.
const DEFAULT_MTU: u16 = 1500;
/// The domain of guests' names.
pub(crate) const DOMAIN: &str = "vmnet.internal";
/// How long leases last.
const LEASE_TIME: Duration = Duration::from_secs(24 * 3600);
/// The name a private network has, in logs and for MACs.
const PRIVATE: &str = "private";

/// An IPv4 subnet with room for a gateway and guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet {
    address: Ipv4Addr,
    prefix_len: u8,
}

/// A text is no subnet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseSubnetError {
    #[error("say ADDRESS/LENGTH, like 192.168.64.0/24")]
    Form,
    #[error("the length is 8 to 29: shorter is no subnet, longer has no room for guests")]
    Length,
    #[error("{0} is no network address for that length: say {1}")]
    HostBits(Ipv4Addr, Subnet),
    #[error(
        "{0} cannot be given to guests: loopback, multicast and reserved addresses are no subnet"
    )]
    Reserved(Ipv4Addr),
}

impl Subnet {
    fn mask(prefix_len: u8) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(prefix_len))
            .unwrap_or(0)
    }

    fn overlaps(self, taken: &Taken) -> bool {
        let mask = Self::mask(self.prefix_len.min(taken.prefix_len));
        u32::from(self.address) & mask == u32::from(taken.network) & mask
    }
}

impl From<Ipv4Net> for Subnet {
    fn from(net: Ipv4Net) -> Self {
        Self {
            address: net.address,
            prefix_len: net.prefix_len,
        }
    }
}

impl FromStr for Subnet {
    type Err = ParseSubnetError;

    fn from_str(text: &str) -> Result<Self, ParseSubnetError> {
        let (address, length) = text.split_once('/').ok_or(ParseSubnetError::Form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| ParseSubnetError::Form)?;
        let prefix_len: u8 = length.parse().map_err(|_| ParseSubnetError::Form)?;
        if !(8..=29).contains(&prefix_len) {
            return Err(ParseSubnetError::Length);
        }
        let network = Ipv4Addr::from(u32::from(address) & Self::mask(prefix_len));
        let [first, ..] = network.octets();
        if first == 0 || first == 127 || first >= 224 {
            return Err(ParseSubnetError::Reserved(address));
        }
        let subnet = Self {
            address: network,
            prefix_len,
        };
        if network != address {
            return Err(ParseSubnetError::HostBits(address, subnet));
        }
        Ok(subnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

/// A network could not be found or made, or not be joined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error(
        "the subnet {subnet} is taken by the host: {user} uses {network}/{prefix_len}; choose another with --subnet"
    )]
    Taken {
        subnet: Subnet,
        user: String,
        network: Ipv4Addr,
        prefix_len: u8,
    },
    #[error(
        "the host uses addresses in every /24 of 192.168.64.0 to 192.168.127.0 ({user} uses {network}/{prefix_len}): choose a subnet with --subnet, like 10.77.0.0/24"
    )]
    NoneFree {
        user: String,
        network: Ipv4Addr,
        prefix_len: u8,
    },
    #[error(transparent)]
    Routes(#[from] RouteError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Named(#[from] ClientError),
    #[error("a random MAC: {0}")]
    Random(#[source] std::io::Error),
    #[error("{0}")]
    Forward(String),
    #[error("-p {0} and -p {1} need the same port of the host: choose another for one of them")]
    PublishedTwice(PortSpec, PortSpec),
}

/// A network that can be joined.
pub(crate) enum Network {
    /// To be started in this process, which must not have other threads before.
    Private(Settings),
    /// Held by another process.
    Named(Client),
}

/// A guest that joins.
pub(crate) struct Guest<'a> {
    /// Its name.
    pub(crate) name: Option<GuestName>,
    /// Its MAC.
    pub(crate) mac: Mac,
    /// Host ports that lead to it.
    pub(crate) forwards: &'a [PortSpec],
}

/// A network that was joined; dropping it leaves.
pub(crate) enum Joined {
    /// Started in this process.
    Private { handle: Option<Handle>, mtu: u16 },
    /// Held by another process, for as long as we are connected.
    Named { client: Client, mtu: u16 },
}

/// The network asked for.
pub(crate) fn find(joining: &Joining, making: &Making) -> Result<Network, NetworkError> {
    if let Some((first, second)) = clash(&joining.publish) {
        return Err(NetworkError::PublishedTwice(first, second));
    }
    match &joining.network {
        Some(name) => Ok(Network::Named(Client::connect(name)?)),
        None => Ok(Network::Private(settings(PRIVATE, making)?)),
    }
}

/// Two of the specifications that need the same port of the host.
fn clash(specs: &[PortSpec]) -> Option<(PortSpec, PortSpec)> {
    let mut later = specs;
    while let Some((first, rest)) = later.split_first() {
        if let Some(second) = rest.iter().find(|second| first.clashes(second)) {
            return Some((first.clone(), second.clone()));
        }
        later = rest;
    }
    None
}

/// The MAC of a guest: as asked, by its name, or random.
pub(crate) fn mac_of(joining: &Joining) -> Result<Mac, NetworkError> {
    let name = joining.name.as_ref().map(GuestName::as_str);
    mac_for(joining, name)
}

/// The MAC of a guest with this identity, if nothing else was asked for.
pub(crate) fn mac_for(joining: &Joining, identity: Option<&str>) -> Result<Mac, NetworkError> {
    let network = joining
        .network
        .as_ref()
        .map_or(PRIVATE, |name| name.as_str());
    match (joining.mac, identity) {
        (Some(mac), _) => Ok(mac),
        (None, Some(identity)) => {
            let uid = rustix::process::getuid().as_raw();
            Ok(identity::stable_mac(uid, network, identity))
        }
        (None, None) => identity::random_mac().map_err(NetworkError::Random),
    }
}

/// The settings of a network this process makes.
pub(crate) fn settings(name: &str, making: &Making) -> Result<Settings, NetworkError> {
    let taken = Routes::open()?.taken()?;
    let subnet = choose(making.subnet, &taken)?;
    tracing::info!(name, %subnet, "network");
    Ok(Settings {
        name: name.to_owned(),
        subnet: Ipv4Net {
            address: subnet.address,
            prefix_len: subnet.prefix_len,
        },
        mtu: making.mtu.unwrap_or(DEFAULT_MTU),
        domain: DOMAIN.to_owned(),
        host_loopback: making.host_loopback,
        lease_time: LEASE_TIME,
        resolvers: None,
        external_interface: None,
    })
}

/// The subnet asked for, or the first free one of the default range; none that the host uses.
fn choose(asked: Option<Subnet>, taken: &[Taken]) -> Result<Subnet, NetworkError> {
    let user_of = |subnet: Subnet| taken.iter().find(|taken| subnet.overlaps(taken));
    if let Some(subnet) = asked {
        return match user_of(subnet) {
            None => Ok(subnet),
            Some(taken) => Err(NetworkError::Taken {
                subnet,
                user: describe(taken),
                network: taken.network,
                prefix_len: taken.prefix_len,
            }),
        };
    }
    let mut last = None;
    for third in 64..=127 {
        let subnet = Subnet {
            address: Ipv4Addr::new(192, 168, third, 0),
            prefix_len: 24,
        };
        match user_of(subnet) {
            None => return Ok(subnet),
            Some(taken) => last = Some(taken),
        }
    }
    let (user, network, prefix_len) = last.map_or_else(
        || ("the host".to_owned(), Ipv4Addr::UNSPECIFIED, 0),
        |taken| (describe(taken), taken.network, taken.prefix_len),
    );
    Err(NetworkError::NoneFree {
        user,
        network,
        prefix_len,
    })
}

fn describe(taken: &Taken) -> String {
    let kind = if taken.is_address {
        "an address"
    } else {
        "a route"
    };
    match &taken.interface {
        Some(interface) => format!("{kind} of interface {interface}"),
        None => kind.to_owned(),
    }
}

impl Network {
    /// The largest packet of the network.
    pub(crate) fn mtu(&mut self) -> Result<u16, NetworkError> {
        match self {
            Self::Private(settings) => Ok(settings.mtu),
            Self::Named(client) => Ok(client.status()?.mtu),
        }
    }

    /// Joins with one port. A private network starts here.
    pub(crate) fn join(
        self,
        attachment: Attachment,
        guest: &Guest<'_>,
    ) -> Result<Joined, NetworkError> {
        let name = guest.name.as_ref().map(ToString::to_string);
        match self {
            Self::Private(settings) => {
                let mtu = settings.mtu;
                let handle = lane::start(settings)?;
                let options = PortOptions {
                    name,
                    mac: Some(guest.mac),
                    ..PortOptions::default()
                };
                let port = handle.attach(attachment, options)?;
                for (listen, guest_port, protocol) in pairs(guest.forwards) {
                    let forward = Forward {
                        protocol,
                        listen,
                        guest: ForwardGuest::Port(port),
                        guest_port,
                    };
                    handle
                        .forward(forward)
                        .map_err(|error| NetworkError::Forward(error.to_string()))?;
                }
                Ok(Joined::Private {
                    handle: Some(handle),
                    mtu,
                })
            }
            Self::Named(mut client) => {
                let (kind, descriptor) = AttachKind::split(attachment);
                let attached = client.attach(kind, descriptor.as_fd(), name, Some(guest.mac))?;
                client.publish(guest.forwards, attached)?;
                Ok(Joined::Named {
                    client,
                    mtu: attached.mtu,
                })
            }
        }
    }
}

fn pairs(specs: &[PortSpec]) -> impl Iterator<Item = (SocketAddr, u16, Protocol)> + '_ {
    specs.iter().flat_map(|spec| {
        spec.pairs()
            .map(|(listen, guest)| (listen, guest, spec.protocol))
    })
}

impl Joined {
    /// The network's largest packet.
    pub(crate) fn mtu(&self) -> u16 {
        match self {
            Self::Private { mtu, .. } | Self::Named { mtu, .. } => *mtu,
        }
    }

    /// Readable when the network is gone; `None` for one that ends with us.
    pub(crate) fn departure(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Private { .. } => None,
            Self::Named { client, .. } => Some(client.as_fd()),
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Self::Private { handle, .. } = self
            && let Some(handle) = handle.take()
        {
            handle.stop();
        }
    }
}

#[cfg(test)]
mod tests;
