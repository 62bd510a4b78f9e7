//! Places on networks.

use super::bridged::Wire;
use super::{ConnectionId, Supervisor, chain, failed, no_interface, text};
use crate::descriptor;
use crate::privileged::name::LinkName;
use openvmnet::service::{Interface, InterfaceOptions, Kind, ServiceError, Started};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use uuid::Uuid;
use vmnet_linux::kernel::route::link_index;
use vmnet_linux::lane::{
    AttachError, Attachment, ForwardGuest, GuestSocket, ListenerId, PortId, PortKind, PortOffload,
    PortOptions, PortRow, VhostUserSocket,
};
use vmnet_wire::ethernet::Mac;

/// Bytes of an Ethernet header.
const ETHERNET: u32 = 14;
/// Bytes of the virtio-net header.
const VIRTIO_HEADER: u32 = 12;
/// The largest frame with TCP segmentation offload (vmnet: `max_packet_size` with `enable_tso`).
const LARGE_FRAME: u32 = 65_536 + ETHERNET;

/// What was attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Port(PortId),
    Listener(ListenerId),
    /// A member of the network's bridge.
    Member(LinkName),
}

/// An interface, or a guest that came by one that listens.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) network: Uuid,
    pub(super) owner: ConnectionId,
    pub(super) place: Place,
    pub(super) pid: i32,
    kind: Kind,
    /// The interface by which it came.
    listener: Option<u64>,
    /// A copy of the socket on which it alone is awaited.
    knocks: Option<OwnedFd>,
    pub(super) id: Option<Uuid>,
    pub(super) mac: Option<Mac>,
    pub(super) name: Option<String>,
    pub(super) isolated: bool,
    /// It has this MAC and no other.
    only_mac: bool,
    /// Its owner's connection is to be ended if another client ends it.
    hang_up: bool,
    offload: PortOffload,
    /// Its own way onto the LAN of a bridged network.
    wire: Option<Wire>,
}

impl Supervisor {
    pub(crate) fn start_interface(
        &mut self,
        connection: ConnectionId,
        network: &str,
        options: InterfaceOptions,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Started, ServiceError> {
        let network = self.find(network)?;
        let descriptor = only(descriptors)?;
        descriptor::check(&descriptor, options.kind)?;
        self.prune(network);
        let started = self.begin_interface(connection, network, options, descriptor);
        if started.is_err() {
            // What was found gone may have been the last that held it.
            self.settle(network);
        }
        started
    }

    fn begin_interface(
        &mut self,
        connection: ConnectionId,
        network: Uuid,
        options: InterfaceOptions,
        descriptor: OwnedFd,
    ) -> Result<Started, ServiceError> {
        let name = options.name.as_deref().map(text::guest_name).transpose()?;
        if let Some(name) = &name {
            self.free_name(network, name)?;
        }
        let (id, mac) = self.identify(network, &options)?;
        let offload = offload_of(&options);
        let isolated = options.isolated.unwrap_or(false);
        let has_wires = self.has_wires(network)?;
        if has_wires && mac.is_none() {
            self.forget_unused(&options, id);
            return Err(ServiceError::InvalidArgument {
                reason: "by the method macvtap each guest has a MAC that is known before: give it one, or make the network \
                         with the method packet"
                    .to_owned(),
            });
        }
        let port = PortOptions {
            name: name.clone(),
            mac: mac.filter(|_| options.only_mac.unwrap_or(false) || has_wires),
            isolated,
            offload,
            ..PortOptions::default()
        };
        let socket = vmm_socket(&options)?;
        let knocks = (options.kind == Kind::VhostUser)
            .then(|| descriptor.try_clone())
            .transpose()
            .map_err(|error| failed(&error))?;
        let place = match self.attach(network, (options.kind, socket), descriptor, port) {
            Ok(place) => place,
            Err(error) => {
                self.forget_unused(&options, id);
                return Err(error);
            }
        };
        let wire = match (&place, mac) {
            (Place::Port(port), Some(mac)) => self.open_wire(network, *port, mac),
            _ => Ok(None),
        };
        let wire = match wire {
            Ok(wire) => wire,
            Err(error) => {
                if let (Place::Port(port), Some(running)) = (&place, self.networks.get(&network)) {
                    running.handle.detach(*port);
                }
                self.forget_unused(&options, id);
                return Err(error);
            }
        };
        let member = Member {
            network,
            owner: connection,
            place,
            pid: self.pid_of(connection),
            kind: options.kind,
            listener: None,
            knocks,
            id,
            mac,
            name,
            isolated,
            only_mac: options.only_mac.unwrap_or(false),
            hang_up: options.hang_up.unwrap_or(false),
            offload,
            wire,
        };
        self.name_member(&member, member.name.clone());
        let number = self.number();
        self.interfaces.insert(number, member);
        if let Err(error) = self.rule(network) {
            self.end_interface(number);
            return Err(error);
        }
        tracing::info!(interface = number, %network, "an interface began");
        let interface = self.row(number, None).ok_or_else(|| no_interface(number))?;
        let network = self.show(network)?;
        Ok(Started { interface, network })
    }

    /// Names the guest of a bridge's member, which is at no port of the lane.
    fn name_member(&self, member: &Member, name: Option<String>) {
        if let (Place::Member(_), Some(mac), Some(_), Some(running)) = (
            &member.place,
            member.mac,
            &member.name,
            self.networks.get(&member.network),
        ) {
            running.handle.name_station(mac, name);
        }
    }

    fn attach(
        &self,
        network: Uuid,
        (kind, socket): (Kind, Option<String>),
        descriptor: OwnedFd,
        options: PortOptions,
    ) -> Result<Place, ServiceError> {
        if kind == Kind::BridgeTap {
            let isolated = options.isolated;
            return self
                .join_bridge(network, &descriptor, isolated)
                .map(Place::Member);
        }
        let handle = &self.running(network)?.handle;
        let attached = match kind {
            Kind::Tap | Kind::BridgeTap => handle
                .attach(Attachment::Tap(descriptor), options)
                .map(Place::Port),
            Kind::Stream => handle
                .attach(Attachment::Stream(descriptor), options)
                .map(Place::Port),
            Kind::Dgram => handle
                .attach(Attachment::Dgram(descriptor), options)
                .map(Place::Port),
            Kind::VhostUser => handle
                .attach(
                    Attachment::VhostUser(VhostUserSocket::Listen(descriptor.into())),
                    options,
                )
                .map(Place::Port),
            Kind::VhostUserClient => handle
                .attach(
                    Attachment::VhostUser(VhostUserSocket::Connect(
                        descriptor,
                        socket.unwrap_or_default(),
                    )),
                    options,
                )
                .map(Place::Port),
            Kind::VhostUserConnected => handle
                .attach(
                    Attachment::VhostUser(VhostUserSocket::Connected(descriptor.into())),
                    options,
                )
                .map(Place::Port),
            Kind::StreamListener => handle
                .listen(GuestSocket::Stream(descriptor.into()), options)
                .map(Place::Listener),
            Kind::DgramListener => handle
                .listen(GuestSocket::Dgram(descriptor.into()), options)
                .map(Place::Listener),
        };
        attached.map_err(|error| match error {
            AttachError::HeaderAndChecksum => ServiceError::InvalidArgument {
                reason: chain(&error),
            },
            AttachError::Host(_) | AttachError::Ended => failed(&error),
        })
    }

    /// Ends an interface for this client, and has its owner know if that is another.
    pub(crate) fn stop_interface_for(
        &mut self,
        connection: ConnectionId,
        interface: u64,
    ) -> Result<(), ServiceError> {
        let member = self.interfaces.get(&interface);
        let owner = member
            .filter(|member| member.hang_up)
            .map(|member| member.owner);
        self.stop_interface(interface)?;
        if let Some(owner) = owner {
            self.hang_up_on(owner, connection);
        }
        Ok(())
    }

    /// Who is to know that this network ends.
    pub(super) fn owners_to_tell(&self, network: Uuid) -> Vec<ConnectionId> {
        let on = self.interfaces_on(network);
        on.filter(|(_, member)| member.hang_up)
            .map(|(_, member)| member.owner)
            .collect()
    }

    pub(crate) fn stop_interface(&mut self, interface: u64) -> Result<(), ServiceError> {
        let member = self
            .interfaces
            .get_mut(&interface)
            .ok_or_else(|| no_interface(interface))?;
        let knocks = member.knocks.take();
        self.end_interface(interface);
        if let Some(knocks) = knocks {
            refuse_knocks(&knocks);
        }
        Ok(())
    }

    /// Ends an interface with its rules, and its network if nobody holds that any more.
    pub(super) fn end_interface(&mut self, interface: u64) {
        let Some(mut member) = self.interfaces.remove(&interface) else {
            return;
        };
        if let Some(wire) = member.wire.take() {
            self.close_wire(member.network, wire);
        }
        self.name_member(&member, None);
        self.end_forwards_of(interface);
        self.end_guests_of(interface);
        if let Some(running) = self.networks.get(&member.network) {
            match member.place {
                Place::Port(port) => running.handle.detach(port),
                Place::Listener(listener) => running.handle.end_listener(listener),
                Place::Member(name) => self.leave_bridge(member.network, name),
            }
        }
        tracing::info!(interface, network = %member.network, "an interface ended");
        self.settle(member.network);
    }

    /// Forgets the guests that came by a listener that ended, with their rules.
    fn end_guests_of(&mut self, listener: u64) {
        let guests: Vec<u64> = self
            .interfaces
            .iter()
            .filter(|(_, member)| member.listener == Some(listener))
            .map(|(number, _)| *number)
            .collect();
        for guest in guests {
            self.interfaces.remove(&guest);
            self.end_forwards_of(guest);
        }
    }

    pub(crate) fn list_interfaces(
        &mut self,
        network: Option<&str>,
    ) -> Result<Vec<Interface>, ServiceError> {
        let mut all = Vec::new();
        for network in self.chosen(network)? {
            let ports = self.prune(network);
            let ports: BTreeMap<PortId, &PortRow> = ports.iter().map(|row| (row.id, row)).collect();
            let on: Vec<u64> = self
                .interfaces_on(network)
                .map(|(number, _)| number)
                .collect();
            all.extend(
                on.into_iter()
                    .filter_map(|number| self.row(number, Some(&ports))),
            );
            self.settle(network);
        }
        all.sort_by_key(|row| row.interface);
        Ok(all)
    }

    /// Members of a network's bridge whose guest has this MAC and no other.
    pub(super) fn fixed_members(&self, network: Uuid) -> Vec<(String, [u8; 6])> {
        let on = self.members(network).filter(|(_, member)| member.only_mac);
        on.filter_map(|(name, member)| Some((name.to_string(), member.mac?.0)))
            .collect()
    }

    /// Interfaces that are members of a network's bridge.
    pub(super) fn members(&self, network: Uuid) -> impl Iterator<Item = (&LinkName, &Member)> {
        let on = self.interfaces_on(network);
        on.filter_map(|(_, member)| match &member.place {
            Place::Member(name) => Some((name, member)),
            Place::Port(_) | Place::Listener(_) => None,
        })
    }

    pub(super) fn interfaces_on(&self, network: Uuid) -> impl Iterator<Item = (u64, &Member)> {
        self.interfaces
            .iter()
            .filter(move |(_, member)| member.network == network)
            .map(|(number, member)| (*number, member))
    }

    /// Forgets interfaces whose guest has gone by itself (who held the network by them is for the caller to
    /// [settle](Self::settle)), and learns of guests that came by sockets for several.
    pub(super) fn prune(&mut self, network: Uuid) -> Vec<PortRow> {
        let Ok(running) = self.running(network) else {
            return Vec::new();
        };
        let ports = running.handle.ports();
        let there: BTreeSet<PortId> = ports.iter().map(|row| row.id).collect();
        let gone: Vec<u64> = self
            .interfaces_on(network)
            .filter(|(_, member)| match &member.place {
                Place::Port(port) => !there.contains(port),
                Place::Listener(_) => false,
                Place::Member(name) => link_index(name.as_str()).is_err(),
            })
            .map(|(number, _)| number)
            .collect();
        for interface in gone {
            let member = self.interfaces.remove(&interface);
            if let Some(member) = &member {
                self.name_member(member, None);
            }
            if let Some(wire) = member.and_then(|member| member.wire) {
                self.close_wire(network, wire);
            }
            self.end_forwards_of(interface);
        }
        for row in &ports {
            self.learn_guest(network, row);
        }
        ports
    }

    fn learn_guest(&mut self, network: Uuid, row: &PortRow) {
        let place = Place::Port(row.id);
        let Some(by) = row.listener else { return };
        let mut known = self.interfaces.values_mut();
        if let Some(member) =
            known.find(|member| member.network == network && member.place == place)
        {
            // Its MAC is the one it is seen with: nobody else may have it.
            member.mac = row.mac.or(member.mac);
            return;
        }
        let Some((listener, member)) = self
            .interfaces_on(network)
            .find(|(_, member)| member.place == Place::Listener(by))
        else {
            return;
        };
        let guest = Member {
            network,
            owner: member.owner,
            place,
            pid: member.pid,
            kind: match row.kind {
                PortKind::Tap | PortKind::Packet => Kind::Tap,
                PortKind::Stream => Kind::Stream,
                PortKind::Dgram => Kind::Dgram,
                PortKind::VhostUser => Kind::VhostUser,
            },
            listener: Some(listener),
            knocks: None,
            id: None,
            mac: row.mac,
            name: None,
            isolated: member.isolated,
            only_mac: member.only_mac,
            hang_up: false,
            offload: member.offload,
            wire: None,
        };
        let number = self.number();
        self.interfaces.insert(number, guest);
    }

    /// What an interface is, for clients.
    fn row(&self, number: u64, ports: Option<&BTreeMap<PortId, &PortRow>>) -> Option<Interface> {
        let member = self.interfaces.get(&number)?;
        let plan = &self.networks.get(&member.network)?.plan;
        let port = match &member.place {
            Place::Port(port) => ports.and_then(|ports| ports.get(port)),
            Place::Listener(_) | Place::Member(_) => None,
        };
        let by_itself = matches!(
            member.kind,
            Kind::Tap
                | Kind::BridgeTap
                | Kind::VhostUser
                | Kind::VhostUserClient
                | Kind::VhostUserConnected
        );
        let header = member.offload.virtio_header || by_itself;
        let large = member.offload.tso || by_itself;
        let frame = if large {
            LARGE_FRAME
        } else {
            u32::from(plan.mtu) + ETHERNET
        };
        let mac = member.mac.or_else(|| port?.mac);
        let name = member.name.clone().or_else(|| port?.name.clone());
        Some(Interface {
            interface: number,
            network: plan.uuid.to_string(),
            network_name: plan.name.clone(),
            kind: member.kind,
            listener: member.listener,
            id: member.id.map(|id| id.to_string()),
            mac: mac.map(|mac| mac.to_string()),
            name,
            address: port
                .and_then(|port| port.address)
                .or_else(|| self.address_of_member(member))
                .map(|address| address.to_string()),
            mtu: plan.mtu,
            max_packet_size: if header { frame + VIRTIO_HEADER } else { frame },
            isolated: member.isolated || plan.isolation,
            virtio_header: header,
            tso: large,
            checksum_offload: member.offload.checksum,
            pid: member.pid,
        })
    }

    /// Refuses an interface that is not there, or elsewhere.
    pub(super) fn is_on(&self, interface: u64, network: Uuid) -> Result<(), ServiceError> {
        match self.interfaces.get(&interface) {
            None => Err(no_interface(interface)),
            Some(member) if member.network == network => Ok(()),
            Some(_) => Err(ServiceError::InvalidArgument {
                reason: format!("interface {interface} is on another network"),
            }),
        }
    }

    /// The address that the guest of a tap of our bridge has.
    fn address_of_member(&self, member: &Member) -> Option<Ipv4Addr> {
        let (Place::Member(_), Some(mac)) = (&member.place, member.mac) else {
            return None;
        };
        let handle = &self.networks.get(&member.network)?.handle;
        let addresses = handle.addresses_of(vec![ForwardGuest::Mac(mac)]);
        addresses.first()?.0
    }

    /// Who a rule to an interface that has one guest leads to.
    pub(super) fn guest_behind(&self, interface: u64) -> Result<ForwardGuest, ServiceError> {
        let member = self
            .interfaces
            .get(&interface)
            .ok_or_else(|| no_interface(interface))?;
        match (&member.place, member.mac) {
            (Place::Port(port), _) => Ok(ForwardGuest::Port(*port)),
            (Place::Member(_), Some(mac)) => Ok(ForwardGuest::Mac(mac)),
            (Place::Member(_), None) => Err(ServiceError::InvalidArgument {
                reason: format!(
                    "the MAC of the guest of interface {interface} is not known: forward to its address"
                ),
            }),
            (Place::Listener(_), _) => Err(ServiceError::InvalidArgument {
                reason: format!(
                    "several guests come by interface {interface}: forward to one of them by its address, MAC or name"
                ),
            }),
        }
    }
}

/// Has connects to a listening socket refused at once, whoever has copies of it: a VMM that tries to come again would wait
/// for somebody to accept it, and stand still.
fn refuse_knocks(listener: &OwnedFd) {
    if let Err(error) = rustix::net::shutdown(listener, rustix::net::Shutdown::Both) {
        tracing::debug!(%error, "a VMM's socket");
    }
}

/// The name of a VMM's socket, which interfaces of one kind have, and no others.
fn vmm_socket(options: &InterfaceOptions) -> Result<Option<String>, ServiceError> {
    let refuse = |reason: &str| {
        Err(ServiceError::InvalidArgument {
            reason: reason.to_owned(),
        })
    };
    match (&options.socket, options.kind) {
        (Some(name), Kind::VhostUserClient) => match name.as_str() {
            "" | "." | ".." => refuse("the name of the VMM's socket is empty or a directory's"),
            name if name.contains(['/', '\0']) || name.len() > 64 => {
                refuse("the VMM's socket has a name of at most 64 bytes in the directory, no path")
            }
            name => Ok(Some(name.to_owned())),
        },
        (None, Kind::VhostUserClient) => refuse("the name of the VMM's socket is missing"),
        (Some(_), _) => refuse("only interfaces of the kind vhost_user_client have a `socket`"),
        (None, _) => Ok(None),
    }
}

/// The one descriptor beside a call.
fn only(mut descriptors: Vec<OwnedFd>) -> Result<OwnedFd, ServiceError> {
    let count = descriptors.len();
    descriptors
        .pop()
        .filter(|_| count == 1)
        .ok_or_else(|| ServiceError::InvalidArgument {
            reason: format!(
                "an interface is started with one descriptor beside the call; {count} came"
            ),
        })
}

/// What a guest's frames are like, as its owner says.
fn offload_of(options: &InterfaceOptions) -> PortOffload {
    PortOffload {
        virtio_header: options.virtio_header.unwrap_or(false),
        tso: options.tso.unwrap_or(false),
        checksum: options.checksum_offload.unwrap_or(false),
    }
}
