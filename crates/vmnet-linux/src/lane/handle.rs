//! What other threads ask of a lane: each request goes by a channel and wakes the lane's poller.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use vmnet_core::subnet::SubnetError;
use vmnet_core::{ConfigError, Subnet};
use vmnet_wire::ethernet::Mac;

use crate::lane::datapath::Lane;
use crate::lane::leases::{LeaseCommand, LeaseKeeper, LeaseRecord, Reservee};

pub use vmnet_core::{Forward, ForwardGuest, ForwardId, ForwardProtocol as Protocol, PortId};

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Net {
    /// Its first address.
    pub address: Ipv4Addr,
    /// Bits that are equal for all stations.
    pub prefix_len: u8,
}

/// What a network is made of.
#[derive(Debug)]
pub struct Settings {
    /// The network's name.
    pub name: String,
    /// Where guests get addresses from.
    pub subnet: Ipv4Net,
    /// The largest packet, in bytes.
    pub mtu: u16,
    /// Domain of the guests' names.
    pub domain: String,
    /// Whether the gateway's address reaches the host's loopback.
    pub host_loopback: bool,
    /// How long a lease lasts.
    pub lease_time: Duration,
    /// Resolvers to ask; `None` follows `/etc/resolv.conf`.
    pub resolvers: Option<Vec<SocketAddr>>,
    /// Where leases are stored before they are acknowledged; `None`: nowhere.
    pub leases: Option<LeaseKeeper>,
    /// Leases that were stored before. Those that do not fit are skipped with a warning.
    pub restored: Vec<LeaseRecord>,
    /// Addresses kept for guests. Those that cannot be are skipped with a warning.
    pub reservations: Vec<(Reservee, Ipv4Addr)>,
}

/// How a port's frames come and go.
#[derive(Debug)]
pub enum Attachment {
    /// A tap with a virtio-net header of 12 bytes.
    Tap(OwnedFd),
    /// One connected client, QEMU's framing.
    Stream(OwnedFd),
    /// A connected datagram socket.
    Dgram(OwnedFd),
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

/// What is known of a port's guest.
#[derive(Debug, Clone, Default)]
pub struct PortOptions {
    /// The guest's DNS name.
    pub name: Option<String>,
    /// The guest's MAC: frames from others are dropped.
    pub mac: Option<Mac>,
}

/// How frames of a port travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortKind {
    /// By a tap.
    Tap,
    /// By a stream socket.
    Stream,
    /// By datagrams.
    Dgram,
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
    /// The address it has leased.
    pub address: Option<Ipv4Addr>,
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
    /// The subnet cannot be one.
    #[error("the network's subnet: {0}")]
    Subnet(#[from] SubnetError),
    /// The network cannot be so.
    #[error("the network: {0}")]
    Config(#[from] ConfigError),
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
    /// The lane has ended.
    #[error("the network has ended")]
    Ended,
}

/// A port could not be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// The host address could not be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
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
    Forward(Forward, SyncSender<Result<ForwardId, ForwardError>>),
    RemoveForward(ForwardId),
    Leases(LeaseCommand),
    Counters(SyncSender<CountersSnapshot>),
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
    let subnet = Subnet::new(settings.subnet.address, settings.subnet.prefix_len)?;
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
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        match Lane::new(settings, subnet, inbox) {
            Ok(lane) => {
                let _gone = ready.send(Ok(()));
                lane.run();
            }
            Err(error) => {
                let _gone = ready.send(Err(error));
            }
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
        self.ask(|answer| Command::Forward(forward, answer))
            .unwrap_or(Err(ForwardError::Ended))
    }

    /// Ends a forward. Connections that it made go on.
    pub fn remove_forward(&self, forward: ForwardId) {
        self.tell(Command::RemoveForward(forward));
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
