//! The network a verb works on.
//!
//! | file | what |
//! | --- | --- |
//! | [`private`] | a network in this process, for one guest, gone with it |
//! | [`subnet`] | which subnet such a network gets |
//! | [`membership`] | a network of the service, and an interface on it |
//! | [`lease_giver`] | who leases addresses on it, and why nobody did |
//! | [`keeper`] | the thread that joins again when the service was killed |

pub(crate) mod keeper;
pub(crate) mod lease_giver;
pub(crate) mod membership;
pub(crate) mod private;
pub(crate) mod subnet;

use crate::args::{Joining, Making};
use crate::identity::{self, GuestName};
use crate::port_spec::PortSpec;
use keeper::Keeper;
use lease_giver::LeaseGiver;
use membership::{JoinError, Membership, Opened, Request};
use openvmnet::service::{InterfaceOptions, Kind};
use private::PrivateError;
use std::io;
use std::os::fd::OwnedFd;
use uuid::Uuid;
use vmnet_linux::lane::{Attachment, Handle, PortOptions, Settings, VhostUserSocket, gateway_mac};
use vmnet_wire::ethernet::Mac;

/// A network could not be found or made, or not be joined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("there is no bridge: the kernel carries networks of the machine's service alone")]
    NoBridge,
    #[error("{0} is the MAC of the network's gateway: choose another")]
    Gateway(Mac),
    #[error("a random MAC: {0}")]
    Random(#[source] io::Error),
    #[error("-p {0} and -p {1} need the same port of the host: choose another for one of them")]
    PublishedTwice(PortSpec, PortSpec),
}

/// A network that can be joined.
pub(crate) enum Network {
    /// To be started in this process, which must not have other threads before.
    Private(Box<Settings>),
    /// The service's, held by us.
    Service(Box<Opened>),
}

/// A guest that joins.
pub(crate) struct Guest<'a> {
    /// Its name.
    pub(crate) name: Option<GuestName>,
    /// Its MAC; none if the service knows it by its identity.
    pub(crate) mac: Option<Mac>,
    /// Its identity.
    pub(crate) id: Option<Uuid>,
    /// Whether it must not reach other guests.
    pub(crate) isolated: bool,
    /// Host ports that lead to it.
    pub(crate) publish: &'a [PortSpec],
}

/// A network that was joined; dropping it leaves.
pub(crate) enum Joined {
    /// Started in this process.
    Private {
        handle: Handle,
        mtu: u16,
        mac: Mac,
        routers: bool,
    },
    /// The service's.
    Service(Box<Membership>),
}

/// A network on which we stay; dropping it leaves.
pub(crate) enum Kept {
    /// Of this process.
    Private(#[expect(dead_code, reason = "ends the network when it is dropped")] Handle),
    /// The service's.
    Service(Keeper),
}

/// The network asked for.
pub(crate) fn find(joining: &Joining, making: &Making) -> Result<Network, NetworkError> {
    refuse_clashes(&joining.publish)?;
    match &joining.network {
        Some(name) => Ok(Network::Service(Box::new(Opened::open(name, making)?))),
        None => Ok(Network::Private(Box::new(private::settings(making)?))),
    }
}

/// Refuses two specifications that need the same port of the host.
pub(crate) fn refuse_clashes(specs: &[PortSpec]) -> Result<(), NetworkError> {
    let mut later = specs;
    while let Some((first, rest)) = later.split_first() {
        if let Some(second) = rest.iter().find(|second| first.clashes(second)) {
            return Err(NetworkError::PublishedTwice(first.clone(), second.clone()));
        }
        later = rest;
    }
    Ok(())
}

impl Network {
    /// The largest packet of the network.
    pub(crate) fn mtu(&self) -> u16 {
        match self {
            Self::Private(settings) => settings.mtu,
            Self::Service(opened) => opened.mtu(),
        }
    }

    /// Whether the service has it.
    pub(crate) fn is_of_service(&self) -> bool {
        matches!(self, Self::Service(_))
    }

    /// Whether the kernel carries its frames.
    pub(crate) fn has_bridge(&self) -> bool {
        match self {
            Self::Private(_) => false,
            Self::Service(opened) => opened.has_bridge(),
        }
    }

    /// Queues of a tap for a VMM, on the bridge of a network that has one; with any of them it is joined.
    pub(crate) fn open_tap(&mut self, queues: u8) -> Result<Vec<OwnedFd>, NetworkError> {
        match self {
            Self::Private(_) => Err(NetworkError::NoBridge),
            Self::Service(opened) => Ok(opened.open_tap(queues)?),
        }
    }

    /// Joins with a tap that [`open_tap`](Self::open_tap) has given.
    pub(crate) fn join_with_tap(
        self,
        tap: OwnedFd,
        guest: &Guest<'_>,
    ) -> Result<Joined, NetworkError> {
        match self {
            Self::Private(_) => Err(NetworkError::NoBridge),
            Self::Service(opened) => join_service(*opened, (Kind::BridgeTap, tap, None), guest),
        }
    }

    /// A guest of this network: its MAC is as asked for, or the service's for its identity, or made of `known_as`, or
    /// random.
    pub(crate) fn guest<'a>(
        &self,
        joining: &'a Joining,
        name: Option<GuestName>,
        known_as: Option<&str>,
    ) -> Result<Guest<'a>, NetworkError> {
        let network = match self {
            Self::Private(_) => private::NAME,
            Self::Service(opened) => opened.known_as(),
        };
        let uid = rustix::process::getuid().as_raw();
        let mac = match (joining.mac, joining.id, known_as) {
            (Some(mac), _, _) => Some(mac),
            (None, Some(_), _) => None,
            (None, None, Some(word)) => Some(identity::stable_mac(uid, network, word)),
            (None, None, None) => Some(identity::random_mac().map_err(NetworkError::Random)?),
        };
        Ok(Guest {
            name,
            mac,
            id: joining.id,
            isolated: joining.isolated,
            publish: &joining.publish,
        })
    }

    /// Joins with one port. A private network starts here, with its thread.
    pub(crate) fn join(
        self,
        attachment: Attachment,
        guest: &Guest<'_>,
    ) -> Result<Joined, NetworkError> {
        match self {
            Self::Private(settings) => {
                let (mtu, routers) = (settings.mtu, settings.router_advertisement);
                let gateway = gateway_mac(settings.ipv4, settings.ipv6);
                let mac = match guest.mac {
                    Some(mac) if mac == gateway => return Err(NetworkError::Gateway(mac)),
                    Some(mac) => mac,
                    None => identity::random_mac().map_err(NetworkError::Random)?,
                };
                let options = PortOptions {
                    name: guest.name.as_ref().map(ToString::to_string),
                    mac: Some(mac),
                    ..PortOptions::default()
                };
                let handle = private::start(*settings, attachment, options, guest.publish)?;
                Ok(Joined::Private {
                    handle,
                    mtu,
                    mac,
                    routers,
                })
            }
            Self::Service(opened) => join_service(*opened, split(attachment), guest),
        }
    }
}

fn join_service(
    opened: Opened,
    (kind, descriptor, socket): (Kind, OwnedFd, Option<String>),
    guest: &Guest<'_>,
) -> Result<Joined, NetworkError> {
    let mut options = InterfaceOptions::new(kind);
    options.socket = socket;
    options.id = guest.id.map(|id| id.to_string());
    options.mac = guest.mac.map(|mac| mac.to_string());
    options.only_mac = Some(true);
    options.name = guest.name.as_ref().map(ToString::to_string);
    options.isolated = guest.isolated.then_some(true);
    let request = Request {
        options,
        descriptor,
        publish: guest.publish.to_vec(),
    };
    Ok(Joined::Service(Box::new(opened.join(request)?)))
}

/// What the service calls it, its descriptor, and the name of a socket in that.
fn split(attachment: Attachment) -> (Kind, OwnedFd, Option<String>) {
    match attachment {
        Attachment::Tap(descriptor)
        // The service alone has such, and would refuse ours.
        | Attachment::Packet {
            socket: descriptor, ..
        } => (Kind::Tap, descriptor, None),
        Attachment::Stream(descriptor) => (Kind::Stream, descriptor, None),
        Attachment::Dgram(descriptor) => (Kind::Dgram, descriptor, None),
        Attachment::VhostUser(VhostUserSocket::Listen(listener)) => {
            (Kind::VhostUser, listener.into(), None)
        }
        Attachment::VhostUser(VhostUserSocket::Connect(directory, name)) => {
            (Kind::VhostUserClient, directory, Some(name))
        }
        Attachment::VhostUser(VhostUserSocket::Connected(stream)) => {
            (Kind::VhostUserConnected, stream.into(), None)
        }
    }
}

impl Joined {
    /// The network's largest packet.
    pub(crate) fn mtu(&self) -> u16 {
        match self {
            Self::Private { mtu, .. } => *mtu,
            Self::Service(membership) => membership.mtu(),
        }
    }

    /// Whether routers advertise themselves on the network.
    pub(crate) fn has_routers(&self) -> bool {
        match self {
            Self::Private { routers, .. } => *routers,
            Self::Service(membership) => membership.has_routers(),
        }
    }

    /// The guest's MAC.
    pub(crate) fn mac(&self) -> Result<Mac, NetworkError> {
        match self {
            Self::Private { mac, .. } => Ok(*mac),
            Self::Service(membership) => Ok(membership.mac()?),
        }
    }

    /// Who leases addresses here.
    pub(crate) fn lease_giver(&self) -> LeaseGiver {
        match self {
            Self::Private { .. } => LeaseGiver::of(None),
            Self::Service(membership) => membership.lease_giver(),
        }
    }

    /// Stays, also when the service is killed. This process has threads from now on.
    pub(crate) fn keep(self) -> io::Result<Kept> {
        match self {
            Self::Private { handle, .. } => Ok(Kept::Private(handle)),
            Self::Service(membership) => Ok(Kept::Service(Keeper::start(*membership)?)),
        }
    }
}

impl Kept {
    /// Readable when the network is gone for good; `None` for one that ends with us.
    pub(crate) fn departure(&self) -> Option<&Keeper> {
        match self {
            Self::Private(_) => None,
            Self::Service(keeper) => Some(keeper),
        }
    }
}
