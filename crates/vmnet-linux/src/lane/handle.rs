//! What other threads ask of a lane: each request goes by a channel and wakes the lane's poller.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use vmnet_core::ConfigError;
use vmnet_virtio::session::Change;
use vmnet_wire::ethernet::Mac;

use crate::lane::datapath::Lane;
use crate::lane::leases::{LeaseCommand, LeaseKeeper, LeaseRecord, Reservee};
use crate::lane::listen::{self, ForwardError};
use crate::lane::vmm::VhostUserSocket;
use crate::sys::lan_socket::Hears;

pub use vmnet_core::{
    Dhcp, Dhcp6, Dns, Forward, ForwardGuest, ForwardId, ForwardProtocol as Protocol, Ipv4, Label,
    MTU_MAX, MTU_MIN, MTU_MIN_IPV6, PortId, Prefix, PrefixError, Role, Subnet,
};

/// Forwards that the lane takes before it looks at frames again.
const FORWARDS_AT_ONCE: usize = 128;

/// What a network is made of.
#[derive(Debug)]
pub struct Settings {
    /// The network's name.
    pub name: String,
    /// The subnet and the gateway's address; `None`: a switch, on which guests are among themselves.
    pub ipv4: Option<Ipv4>,
    /// The host itself has the gateway's addresses, at this MAC address behind the port that is the
    /// [trunk](Role::Trunk); the lane has the gateway's services alone.
    pub host: Option<Mac>,
    /// Which addresses guests are given, if any.
    pub dhcp: Option<Dhcp>,
    /// What the gateway knows of names.
    pub dns: Dns,
    /// Guests reach the outside. If not, they reach each other and the host.
    pub nat44: bool,
    /// The IPv6 prefix; `None`: no IPv6 but among guests.
    pub ipv6: Option<Prefix>,
    /// Guests reach the outside by IPv6. If not, they reach each other and the host.
    pub nat66: bool,
    /// Guests are told the prefix, the way out and the resolver by router advertisements.
    pub router_advertisement: bool,
    /// Guests that ask by DHCPv6 are answered.
    pub dhcp6: Option<Dhcp6>,
    /// No port exchanges frames with another.
    pub isolation: bool,
    /// The largest packet in bytes, [`MTU_MIN`] to [`MTU_MAX`].
    pub mtu: u16,
    /// Domain of the guests' names.
    pub domain: String,
    /// Whether the gateway's address reaches the host's loopback.
    pub host_loopback: bool,
    /// Resolvers to ask; `None` follows `/etc/resolv.conf`. While `dns` is off, those that DHCP names to guests
    /// instead, as far as it can: by IPv4, at port 53.
    pub resolvers: Option<Vec<SocketAddr>>,
    /// The host's interface by which everything to the outside leaves; `None` leaves it to the host's routes.
    pub external_interface: Option<String>,
    /// A socket that does not block: a datagram is sent by it when guests may be at other addresses than before, for who leads
    /// others there by [`Handle::addresses_of`]. A full queue has told it already.
    pub moved: Option<Arc<UnixDatagram>>,
    /// Where leases are stored before they are acknowledged; `None`: nowhere.
    pub leases: Option<LeaseKeeper>,
    /// Leases that were stored before. Those that do not fit are skipped with a warning.
    pub restored: Vec<LeaseRecord>,
    /// Addresses kept for guests. Those that cannot be are skipped with a warning.
    pub reservations: Vec<(Reservee, IpAddr)>,
}

impl Settings {
    /// A shared network with everything on, for leases of this length that are stored nowhere.
    #[must_use]
    pub fn shared(name: &str, ipv4: Ipv4, lease_time: Duration) -> Self {
        Self {
            name: name.to_owned(),
            ipv4: Some(ipv4),
            host: None,
            dhcp: Some(Dhcp::whole(&ipv4, lease_time)),
            dns: Dns::Proxy,
            nat44: true,
            ipv6: None,
            nat66: false,
            router_advertisement: false,
            dhcp6: None,
            isolation: false,
            mtu: 1500,
            domain: "vmnet.internal".to_owned(),
            host_loopback: false,
            resolvers: None,
            external_interface: None,
            moved: None,
            leases: None,
            restored: Vec::new(),
            reservations: Vec::new(),
        }
    }
}

/// How a port's frames come and go.
#[derive(Debug)]
pub enum Attachment {
    /// A tap with a virtio-net header of 12 bytes.
    Tap(OwnedFd),
    /// A packet socket on an interface of the host, made by [`lan_socket::open`](crate::sys::lan_socket::open).
    Packet {
        /// The socket.
        socket: OwnedFd,
        /// The interface's MAC.
        mac: Mac,
        /// What it hears.
        hears: Hears,
    },
    /// One connected client, QEMU's framing.
    Stream(OwnedFd),
    /// A connected datagram socket.
    Dgram(OwnedFd),
    /// A VMM that shares its guest's memory. The port stays while the VMM is away.
    VhostUser(VhostUserSocket),
}

/// A socket by which any number of guests come; each gets a port of its own.
#[derive(Debug)]
pub enum GuestSocket {
    /// Clients connect to it, QEMU's framing.
    Stream(UnixListener),
    /// A bound socket: each path that sends to it is a guest.
    Dgram(UnixDatagram),
}

/// A socket that guests come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub(super) u64);

impl ListenerId {
    /// A number for people and other processes.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The addresses that a guest has, one of each family.
pub type GuestAddresses = (Option<Ipv4Addr>, Option<Ipv6Addr>);

/// What is known of a port's guest.
#[derive(Debug, Clone, Default)]
pub struct PortOptions {
    /// The guest's DNS name.
    pub name: Option<String>,
    /// The guest's MAC: frames from others are dropped.
    pub mac: Option<Mac>,
    /// It exchanges frames with the gateway alone, and with no other port.
    pub isolated: bool,
    /// What is behind it. A network without a gateway becomes a bridged one by a port that is not a guest's.
    pub role: Role,
    /// What a socket's client leaves to us and takes from us. A tap says it by itself.
    pub offload: PortOffload,
}

/// What the client of a stream or datagram port leaves to us and takes from us. Without any of it, frames are whole both
/// ways, and no larger than the network's MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortOffload {
    /// Every frame in both directions follows the 12 bytes of a virtio-net header (virtio 1.1 §5.1.6), little-endian.
    pub virtio_header: bool,
    /// TCP frames of up to 65,550 bytes come uncut towards the client, and it may send such.
    pub tso: bool,
    /// The client need not make the checksums of IPv4, TCP and UDP; what comes to it has right ones. Not together with
    /// `virtio_header`, which says the same frame by frame.
    pub checksum: bool,
}

impl PortOffload {
    fn check(self) -> Result<(), AttachError> {
        if self.virtio_header && self.checksum {
            return Err(AttachError::HeaderAndChecksum);
        }
        Ok(())
    }
}

/// How frames of a port travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// By a tap.
    Tap,
    /// By a packet socket.
    Packet,
    /// By a stream socket.
    Stream,
    /// By datagrams.
    Dgram,
    /// By rings in the guest's memory.
    VhostUser,
}

/// A port and the guest behind it.
#[derive(Debug, Clone)]
pub struct PortRow {
    /// Its id.
    pub id: PortId,
    /// How its frames travel.
    pub kind: PortKind,
    /// The socket the guest came by, if it was not attached by itself.
    pub listener: Option<ListenerId>,
    /// The guest's name: its owner's, else its own.
    pub name: Option<String>,
    /// The guest's MAC: the one that has an address if several were seen, `None` before the first frame.
    pub mac: Option<Mac>,
    /// The address it has leased, or speaks from.
    pub address: Option<Ipv4Addr>,
    /// It exchanges frames with the gateway alone: it was attached so, or all ports of the network are.
    pub isolated: bool,
}

/// The counters of a network at one moment.
#[derive(Debug, Clone, Default)]
pub struct CountersSnapshot {
    /// Name and value of each.
    pub rows: Vec<(String, u64)>,
}

/// A network could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The network cannot be so.
    #[error("the network: {0}")]
    Config(#[from] ConfigError),
    /// [`Settings::external_interface`] is not there.
    #[error("the host has no interface {name}; it has {existing}")]
    NoInterface {
        /// What was asked for.
        name: String,
        /// Those that are there.
        existing: String,
    },
    /// The kernel does not let this user's sockets be bound to [`Settings::external_interface`].
    #[error(
        "this user's sockets may not be bound to {name}: Linux 5.7 and later lets them be, before it takes the machine's service (`vmnet --system`)"
    )]
    InterfaceClosed {
        /// What was asked for.
        name: String,
    },
    /// The host has no thread or descriptor for it.
    #[error("the datapath could not start: {0}")]
    Host(#[from] io::Error),
}

/// A port could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The descriptor is not what it was said to be.
    #[error("the port could not be attached: {0}")]
    Host(#[from] io::Error),
    /// [`PortOffload::virtio_header`] and [`PortOffload::checksum`] were asked for together.
    #[error(
        "a port has a virtio header before its frames or leaves all checksums to the network, not both: the header \
         says of each frame whether its checksum is made"
    )]
    HeaderAndChecksum,
    /// The lane has ended.
    #[error("the network has ended")]
    Ended,
}

/// A request, with the channel for its answer.
pub(super) enum Command {
    Attach(
        Attachment,
        PortOptions,
        SyncSender<Result<PortId, AttachError>>,
    ),
    Detach(PortId),
    Listen(
        GuestSocket,
        PortOptions,
        SyncSender<Result<ListenerId, AttachError>>,
    ),
    EndListener(ListenerId),
    Ports(SyncSender<Vec<PortRow>>),
    Forward(
        Vec<(Forward, OwnedFd)>,
        SyncSender<Result<Vec<ForwardId>, ForwardError>>,
    ),
    /// Whether these can be.
    CheckForwards(Vec<Forward>, SyncSender<Result<(), ForwardError>>),
    /// Answered by the sockets, to be closed elsewhere.
    RemoveForwards(Vec<ForwardId>, SyncSender<Vec<OwnedFd>>),
    Leases(LeaseCommand),
    /// A guest behind the trunk has a name from its owner, or no longer.
    Name(Mac, Option<String>),
    /// Where these guests are now.
    Guests(Vec<ForwardGuest>, SyncSender<Vec<GuestAddresses>>),
    Counters(SyncSender<CountersSnapshot>),
    /// What the VMM of a port says, in its session of this number.
    Session(PortId, u64, Change),
    Stop,
}

/// What the lane keeps of the channel.
pub(super) struct Inbox {
    pub(super) commands: Receiver<Command>,
    /// The other end, for answers that come later.
    pub(super) line: Line,
}

/// The way to a lane, from any thread.
#[derive(Debug, Clone)]
pub(super) struct Line {
    commands: Sender<Command>,
    pub(super) wake: Arc<OwnedFd>,
}

impl Line {
    pub(super) fn tell(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // A full counter wakes as well.
            let _woken = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// A running network. Dropping the handle ends it.
#[derive(Debug)]
pub struct Handle {
    line: Line,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Starts the datapath thread of a network.
///
/// # Errors
/// See [`StartError`].
pub fn start(settings: Settings) -> Result<Handle, StartError> {
    let wake = Arc::new(
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?,
    );
    let (commands, receiver) = channel();
    let line = Line { commands, wake };
    let inbox = Inbox {
        commands: receiver,
        line: line.clone(),
    };
    // What must not be sent to another thread is made by the lane's own.
    let (ready, started) = sync_channel(1);
    let name = format!("vmnet-{}", settings.name);
    let thread =
        std::thread::Builder::new()
            .name(name)
            .spawn(move || match Lane::new(settings, inbox) {
                Ok(lane) => {
                    let _gone = ready.send(Ok(()));
                    lane.run();
                }
                Err(error) => {
                    let _gone = ready.send(Err(error));
                }
            })?;
    started
        .recv()
        .map_err(|_| io::Error::other("the datapath thread ended at once"))??;
    Ok(Handle {
        line,
        thread: Mutex::new(Some(thread)),
    })
}

impl Handle {
    /// Attaches a port.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn attach(
        &self,
        attachment: Attachment,
        options: PortOptions,
    ) -> Result<PortId, AttachError> {
        options.offload.check()?;
        self.ask(|answer| Command::Attach(attachment, options, answer))
            .unwrap_or(Err(AttachError::Ended))
    }

    /// Detaches a port.
    pub fn detach(&self, port: PortId) {
        self.tell(Command::Detach(port));
    }

    /// Lets guests come by a socket; `options` are those of each of them.
    ///
    /// # Errors
    /// See [`AttachError`].
    pub fn listen(
        &self,
        socket: GuestSocket,
        options: PortOptions,
    ) -> Result<ListenerId, AttachError> {
        options.offload.check()?;
        self.ask(|answer| Command::Listen(socket, options, answer))
            .unwrap_or(Err(AttachError::Ended))
    }

    /// Closes a socket for guests, and detaches those that came by it.
    pub fn end_listener(&self, listener: ListenerId) {
        self.tell(Command::EndListener(listener));
    }

    /// The ports that are attached now, by whichever way.
    #[must_use]
    pub fn ports(&self) -> Vec<PortRow> {
        self.ask(Command::Ports).unwrap_or_default()
    }

    /// Forwards a port of the host to a guest.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub fn forward(&self, forward: Forward) -> Result<ForwardId, ForwardError> {
        let ids = self.forward_all(vec![forward])?;
        ids.first().copied().ok_or(ForwardError::Ended)
    }

    /// Forwards ports of the host to guests, all or none. The answer names them in their order; a UDP port of all
    /// addresses has two names, one for each family.
    ///
    /// # Errors
    /// See [`ForwardError`]; it is about the first that failed.
    pub fn forward_all(&self, forwards: Vec<Forward>) -> Result<Vec<ForwardId>, ForwardError> {
        let pairs = listen::open_all(forwards)?;
        let mut ids = Vec::with_capacity(pairs.len());
        let mut pairs = pairs.into_iter();
        loop {
            let some: Vec<_> = pairs.by_ref().take(FORWARDS_AT_ONCE).collect();
            if some.is_empty() {
                return Ok(ids);
            }
            let answer = self.ask(|answer| Command::Forward(some, answer));
            match answer.unwrap_or(Err(ForwardError::Ended)) {
                Ok(more) => ids.extend(more),
                Err(error) => {
                    self.remove_forwards(ids);
                    return Err(error);
                }
            }
        }
    }

    /// Takes ports of the host that somebody else forwards to guests: nobody else can have them while the sockets are
    /// open. Ports that are for the superuser are not taken.
    ///
    /// # Errors
    /// See [`ForwardError`]; it is about the first that failed.
    pub fn reserve_all(&self, forwards: &[Forward]) -> Result<Vec<OwnedFd>, ForwardError> {
        self.ask(|answer| Command::CheckForwards(forwards.to_vec(), answer))
            .unwrap_or(Err(ForwardError::Ended))?;
        match listen::reserve_all(forwards) {
            Err(ForwardError::Privileged { .. }) => Ok(Vec::new()),
            reserved => reserved,
        }
    }

    /// Ends a forward. Connections that it made go on.
    pub fn remove_forward(&self, forward: ForwardId) {
        self.remove_forwards(vec![forward]);
    }

    /// Ends forwards; those that are not there are passed over. Connections that they made go on.
    pub fn remove_forwards(&self, forwards: Vec<ForwardId>) {
        for some in forwards.chunks(FORWARDS_AT_ONCE) {
            // Closed here, in the asker's thread.
            drop(self.ask(|answer| Command::RemoveForwards(some.to_vec(), answer)));
        }
    }

    /// Gives a guest that is behind the [trunk](Role::Trunk), and at no port of this lane, a name, or takes it back.
    pub fn name_station(&self, mac: Mac, name: Option<String>) {
        self.line.tell(Command::Name(mac, name));
    }

    /// The addresses that guests have now, in their order.
    #[must_use]
    pub fn addresses_of(&self, guests: Vec<ForwardGuest>) -> Vec<GuestAddresses> {
        self.ask(|answer| Command::Guests(guests, answer))
            .unwrap_or_default()
    }

    /// The counters now.
    #[must_use]
    pub fn counters(&self) -> CountersSnapshot {
        self.ask(Command::Counters).unwrap_or_default()
    }

    /// Ends the network and waits until it is gone.
    pub fn stop(self) {
        drop(self);
    }

    fn tell(&self, command: Command) {
        self.line.tell(command);
    }

    /// `None`: the lane has ended.
    pub(super) fn ask<T>(&self, command: impl FnOnce(SyncSender<T>) -> Command) -> Option<T> {
        let (answer, receiver) = sync_channel(1);
        self.tell(command(answer));
        receiver.recv().ok()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        if let Some(thread) = self.thread.lock().ok().and_then(|mut thread| thread.take())
            && thread.join().is_err()
        {
            tracing::error!("the datapath thread panicked");
        }
    }
}
