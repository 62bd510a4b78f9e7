//! A network of the service, and an interface on it.
//!
//! The connection to the service holds both: they end with it. What is needed to come back after the service was killed
//! is kept: the network's configuration with its UUID and subnet, the interface's options with its MAC, a duplicate of its
//! descriptor, and the ports that lead to it.

use super::lease_giver::LeaseGiver;
use crate::args::Making;
use crate::identity::NetworkName;
use crate::port_spec::PortSpec;
use openvmnet::choice::Wanted;
use openvmnet::client::{CallError, Client, ConnectError};
use openvmnet::service::{
    Datapath, ForwardRule, Guest, Interface, InterfaceOptions, Kind, Mode, Network,
    NetworkConfiguration, Protocol, ServiceError, Started,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vmnet_linux::lane::Protocol as LaneProtocol;
use vmnet_wire::ethernet::Mac;

/// A network of the service could not be joined.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", about_network(.network, .source))]
    Network { network: String, source: CallError },
    #[error("an interface on the network {network}: {source}")]
    Interface { network: String, source: CallError },
    #[error("-p {port}: {source}")]
    Publish { port: PortSpec, source: CallError },
    #[error("the service gave no MAC for {0}")]
    NoMac(String),
    #[error("a copy of the descriptor: {0}")]
    Copy(#[source] io::Error),
    #[error(
        "the stream was cut with the service and cannot be followed any further: only its owner can make it anew"
    )]
    Cut,
}

/// With the network's name, unless that is said already.
fn about_network(network: &str, source: &CallError) -> String {
    let said = source.to_string();
    if said.contains(&format!("the network {network} ")) {
        return said;
    }
    format!("the network {network}: {said}")
}

impl JoinError {
    /// What the service has against the interface itself, if that is why: not against its network, which may not run
    /// yet.
    pub(super) fn refusal_of_interface(&self) -> Option<&ServiceError> {
        match self {
            Self::Interface {
                source: CallError::Refused(refusal),
                ..
            } => Some(refusal),
            _ => None,
        }
    }
}

/// Why the service has hung up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// It has ended.
    Died,
    /// Somebody deleted the network.
    Deleted,
    /// Somebody stopped the interface.
    Stopped,
}

/// A connection that holds a network.
pub(crate) struct Opened {
    client: Client,
    /// The process that is the service.
    service: u32,
    network: Network,
}

/// An interface as it was asked for.
pub(crate) struct Request {
    /// What it is to be.
    pub(crate) options: InterfaceOptions,
    /// Where its frames come and go.
    pub(crate) descriptor: OwnedFd,
    /// Host ports that lead to it.
    pub(crate) publish: Vec<PortSpec>,
}

/// An interface on a network, ended by dropping it.
pub(crate) struct Membership {
    opened: Opened,
    interface: Interface,
    options: InterfaceOptions,
    /// None if nobody could go on with it: then a peer sees that the service has closed its own.
    descriptor: Option<OwnedFd>,
    publish: Vec<PortSpec>,
}

impl Opened {
    /// Holds the network of this name or UUID. The service is started if it does not run, the network is made if it is
    /// not there.
    pub(crate) fn open(asked: &NetworkName, making: &Making) -> Result<Self, JoinError> {
        let at = |source| JoinError::Network {
            network: asked.to_string(),
            source,
        };
        let mut client = Client::connect_for(Wanted {
            network: Some(asked.as_str()),
            privileges: None,
        })?;
        let service = client.status().map_err(at)?.pid;
        let network = open(&mut client, asked, making).map_err(at)?;
        tracing::info!(uuid = %network.uuid, subnet = ?network.subnet, "joining {asked}");
        Ok(Self {
            client,
            service,
            network,
        })
    }

    /// Holds the same network again. As it is now: its configuration may have changed in the file meanwhile. Only if it is
    /// not there, it is made as it was.
    fn again(network: &Network) -> Result<Self, JoinError> {
        let at = |source| JoinError::Network {
            network: known_as(network).to_owned(),
            source,
        };
        let mut client = Client::connect_to(network.scope)?;
        let service = client.status().map_err(at)?.pid;
        let network = match client.open_network(Some(&network.uuid), None) {
            Err(CallError::Refused(ServiceError::NotFound { .. })) => {
                client.open_network(Some(&network.uuid), Some(network.pinned()))
            }
            other => other,
        }
        .map_err(at)?;
        Ok(Self {
            client,
            service,
            network,
        })
    }

    /// The network's largest packet.
    pub(crate) fn mtu(&self) -> u16 {
        self.network.mtu
    }

    /// The kernel carries its frames: a VMM can have a tap of its own on the network's bridge.
    pub(crate) fn has_bridge(&self) -> bool {
        self.network.datapath == Datapath::Kernel
    }

    /// Queues of a tap on the network's bridge, for an interface of the kind [`Kind::BridgeTap`].
    pub(crate) fn open_tap(&mut self, queues: u8) -> Result<Vec<OwnedFd>, JoinError> {
        let opened = self.client.open_tap(&self.network.uuid, queues);
        let (_, tap) = opened.map_err(|source| JoinError::Interface {
            network: known_as(&self.network).to_owned(),
            source,
        })?;
        Ok(tap)
    }

    /// The network's name, else its UUID.
    pub(crate) fn known_as(&self) -> &str {
        known_as(&self.network)
    }

    /// Starts an interface, with the ports that lead to it.
    pub(crate) fn join(mut self, request: Request) -> Result<Membership, JoinError> {
        let Request {
            mut options,
            descriptor,
            publish,
        } = request;
        options.hang_up = Some(true);
        let copy = descriptor.try_clone().map_err(JoinError::Copy)?;
        let interface = self.start(&options, copy)?;
        for spec in &publish {
            self.forward(interface.interface, spec)?;
        }
        if options.mac.is_none() {
            options.mac.clone_from(&interface.mac);
        }
        // What a killed service had read of a stream is lost, and its peer must see its end.
        let resumable = options.kind != Kind::Stream;
        Ok(Membership {
            opened: self,
            interface,
            options,
            descriptor: resumable.then_some(descriptor),
            publish,
        })
    }

    fn start(
        &mut self,
        options: &InterfaceOptions,
        descriptor: OwnedFd,
    ) -> Result<Interface, JoinError> {
        let Started { interface, network } = self
            .client
            .start_interface(&self.network.uuid, options.clone(), vec![descriptor])
            .map_err(|source| JoinError::Interface {
                network: known_as(&self.network).to_owned(),
                source,
            })?;
        self.network = network;
        Ok(interface)
    }

    fn forward(&mut self, interface: u64, spec: &PortSpec) -> Result<(), JoinError> {
        self.client
            .add_forward(&self.network.uuid, Some(interface), rule(spec, interface))
            .map(drop)
            .map_err(|source| JoinError::Publish {
                port: spec.clone(),
                source,
            })
    }
}

impl Membership {
    /// The network's largest packet.
    pub(crate) fn mtu(&self) -> u16 {
        self.opened.mtu()
    }

    /// The guest's MAC.
    pub(crate) fn mac(&self) -> Result<Mac, JoinError> {
        let mac = self.interface.mac.as_deref();
        mac.and_then(|mac| mac.parse().ok())
            .ok_or_else(|| JoinError::NoMac(self.opened.known_as().to_owned()))
    }

    /// The network.
    pub(crate) fn network(&self) -> &Network {
        &self.opened.network
    }

    /// Who leases addresses on the network.
    pub(crate) fn lease_giver(&self) -> LeaseGiver {
        LeaseGiver::of(Some(self.network()))
    }

    /// Whether routers advertise themselves on the network. On a LAN there may be some, which is not for us to know.
    pub(crate) fn has_routers(&self) -> bool {
        let network = self.network();
        network.router_advertisement || network.mode == Mode::Bridged
    }

    /// The interface.
    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }

    /// Why the service has hung up: if it still runs, it let go of us on purpose.
    pub(super) fn what_happened(&self) -> Happening {
        let scope = self.opened.network.scope;
        let Ok(mut client) = Client::connect_running_to(scope) else {
            return Happening::Died;
        };
        match client.status() {
            Ok(status) if status.pid == self.opened.service => {}
            _ => return Happening::Died,
        }
        let uuid = &self.opened.network.uuid;
        match client.list_networks(Some(uuid)) {
            Ok(found) if !found.networks.is_empty() => Happening::Stopped,
            Ok(_) | Err(CallError::Refused(ServiceError::NotFound { .. })) => Happening::Deleted,
            Err(_) => Happening::Died,
        }
    }

    /// What happened to the interface, by the service's own word; `None` if it is there or nothing is known.
    pub(super) fn look(&mut self) -> Option<Happening> {
        let uuid = &self.opened.network.uuid;
        match self.opened.client.list_interfaces(Some(uuid)) {
            Ok(found) => {
                let ours = self.interface.interface;
                let there = found.interfaces.iter().any(|one| one.interface == ours);
                (!there).then_some(Happening::Stopped)
            }
            Err(CallError::Refused(ServiceError::NotFound { .. })) => Some(Happening::Deleted),
            Err(_) => None,
        }
    }

    /// The same interface with the service that runs now, or is started. Answers the ports that could not be forwarded
    /// yet, with the reason.
    pub(super) fn rejoin(&mut self) -> Result<Vec<(PortSpec, JoinError)>, JoinError> {
        let descriptor = self.descriptor.as_ref().ok_or(JoinError::Cut)?;
        let copy = descriptor.try_clone().map_err(JoinError::Copy)?;
        let mut opened = Opened::again(&self.opened.network)?;
        self.interface = opened.start(&self.options, copy)?;
        self.opened = opened;
        let all = self.publish.clone();
        Ok(self.publish_again(all))
    }

    /// A tap, which somebody else may delete: it has an error to tell then.
    pub(super) fn tap(&self) -> Option<BorrowedFd<'_>> {
        let descriptor = self.descriptor.as_ref();
        let is_tap = matches!(self.options.kind, Kind::Tap | Kind::BridgeTap);
        Some(descriptor.filter(|_| is_tap)?.as_fd())
    }

    /// Where a VMM knocks that is the only one awaited there, if we have that.
    pub(super) fn knocks(&self) -> Option<BorrowedFd<'_>> {
        let descriptor = self.descriptor.as_ref();
        let descriptor = descriptor.filter(|_| self.options.kind == Kind::VhostUser)?;
        Some(descriptor.as_fd())
    }

    /// Forwards these ports; answers those that could not be, with the reason.
    pub(super) fn publish_again(&mut self, specs: Vec<PortSpec>) -> Vec<(PortSpec, JoinError)> {
        let mut refused = Vec::new();
        for spec in specs {
            if let Err(error) = self.opened.forward(self.interface.interface, &spec) {
                refused.push((spec, error));
            }
        }
        refused
    }

    /// Leaves, and waits until the service knows: name, MAC and ports are free then.
    pub(super) fn leave(mut self) {
        let interface = self.interface.interface;
        if let Err(error) = self.opened.client.stop_interface(interface) {
            tracing::debug!(%error, "leaving the network");
        }
    }
}

/// Readable when the service is gone, or has let go of us.
impl AsFd for Membership {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.opened.client.as_fd()
    }
}

fn known_as(network: &Network) -> &str {
    network.name.as_deref().unwrap_or(&network.uuid)
}

/// Opens the network of this name or UUID, or makes it.
fn open(client: &mut Client, asked: &NetworkName, making: &Making) -> Result<Network, CallError> {
    let word = asked.as_str();
    if !making.says_something() {
        match client.open_network(Some(word), None) {
            Err(CallError::Refused(ServiceError::NotFound { .. })) => {}
            other => return other,
        }
    }
    let mode = mode_of(client, word)?;
    client.open_network(Some(word), Some(configuration(asked, making, mode)))
}

/// The mode of a network, or the one it will be made with.
fn mode_of(client: &mut Client, word: &str) -> Result<Mode, CallError> {
    let there = match client.list_networks(Some(word)) {
        Ok(found) => found.networks.first().map(|network| network.mode),
        Err(CallError::Refused(ServiceError::NotFound { .. })) => None,
        Err(error) => return Err(error),
    };
    Ok(there.unwrap_or(if word == "host" {
        Mode::Host
    } else {
        Mode::Shared
    }))
}

fn configuration(asked: &NetworkName, making: &Making, mode: Mode) -> NetworkConfiguration {
    let mut configuration = NetworkConfiguration::new(mode);
    if asked.is_uuid() {
        configuration.uuid = Some(asked.to_string());
    } else {
        configuration.name = Some(asked.to_string());
    }
    configuration.subnet = making
        .subnet
        .map(|asked| format!("{}/{}", asked.gateway(), asked.subnet().prefix_len()));
    configuration.mtu = making.mtu;
    configuration.ipv6 = making.no_ipv6.then_some(false);
    configuration.ipv6_prefix = making.ipv6_prefix.map(|prefix| prefix.to_string());
    configuration.host_loopback = making.host_loopback.then_some(true);
    configuration
}

fn rule(spec: &PortSpec, interface: u64) -> ForwardRule {
    ForwardRule {
        protocol: match spec.protocol {
            LaneProtocol::Tcp => Protocol::Tcp,
            LaneProtocol::Udp => Protocol::Udp,
        },
        address: spec.address.to_string(),
        first: *spec.host.start(),
        last: *spec.host.end(),
        except: Vec::new(),
        guest: Guest {
            address: None,
            mac: None,
            name: None,
            interface: Some(interface),
        },
        guest_port: spec.guest,
    }
}
