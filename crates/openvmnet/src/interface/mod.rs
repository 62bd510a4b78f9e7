//! A place on a network (`interface_ref`).
//!
//! | file | what |
//! | --- | --- |
//! | `configuration` | [`InterfaceConfiguration`]: what it is to be |
//! | `parameters` | [`InterfaceParameters`]: what it turned out to be |
//! | `plan` | which network it is on |
//! | `packet` | [`ReadPacket`], [`WritePacket`]: packets and their buffers |
//! | `datapath` | how packets travel |
//! | `rings` | through shared memory |
//! | `datagrams` | through a socket, where there are no rings |
//! | `finish` | offloads, for programs without a virtio header |
//! | `events` | [`Event`]: telling a program that there is something to read |
//! | `forwarding` | [`PortForwardingRule`]: ports of the host that lead to guests |
//! | `shared` | interfaces of the host that can be bridged to |

mod configuration;
mod datagrams;
mod datapath;
mod events;
mod finish;
mod forwarding;
mod packet;
mod parameters;
mod plan;
mod rings;
mod shared;

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmnet_virtio::fork::ForkMark;

use crate::client::{CallError, Client};
use crate::membership::{Membership, in_a_child, lock};
use crate::mode::OperatingMode;
use crate::network::Network;
use crate::service::{self, ForwardRule, InterfaceOptions, Kind, Started};
use crate::status::{Error, Status};

pub use configuration::{
    Bridged, Host, InterfaceBuilder, InterfaceConfiguration, InterfaceKeys, OnNetwork, Private,
    Shared as SharedMode,
};
pub use events::{Event, PendingEvent};
pub use forwarding::{AddressFamily, PortForwardingRule};
pub use packet::{PacketBuffers, ReadPacket, WritePacket};
pub use parameters::{InterfaceParameters, MAX_PACKETS};
pub use shared::{SharedInterface, SharedInterfaceKind, shared_interfaces};

use configuration::Target;
use datapath::Datapath;
use finish::Agreed;
use parameters::{ETHERNET, LARGE_FRAME};

/// A place on a network, with a queue of packets to be read.
///
/// It is stopped when it is dropped, and when the process ends. All its calls may be made by several threads at once, and
/// reading and writing do not wait for each other. In a child that was forked they fail.
///
/// ```no_run
/// use openvmnet::{Interface, InterfaceConfiguration};
///
/// let interface = Interface::start(&InterfaceConfiguration::shared().build()?)?;
/// println!("the guest is {:?}", interface.parameters().mac_address);
/// let mut buffer = vec![0; interface.parameters().max_packet_size as usize];
/// while interface.wait(None)? {
///     while let Some(len) = interface.read_packet(&mut buffer)? {
///         println!("{len} bytes");
///     }
/// }
/// # Ok::<(), openvmnet::Error>(())
/// ```
#[derive(Debug)]
pub struct Interface {
    shared: Arc<Shared>,
}

/// What an interface and the thread of its events have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    mark: ForkMark,
    state: AtomicU8,
    datapath: Datapath,
    events: events::Events,
    agreed: Agreed,
    statistics: Statistics,
    parameters: InterfaceParameters,
    /// None: it is stopped.
    service: Mutex<Option<AtService>>,
}

/// The interface at the service.
#[derive(Debug)]
struct AtService {
    membership: Arc<Membership>,
    number: u64,
    /// Its rules are the network's.
    by_network: bool,
    /// What to ask for to get the same again.
    options: InterfaceOptions,
    /// Its own rules.
    rules: Vec<ForwardRule>,
}

/// It runs.
const RUNNING: u8 = 0;
/// It was stopped by the program.
const STOPPED: u8 = 1;
/// Somebody else ended it at the service.
const ENDED: u8 = 2;

/// What an interface counted.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    truncated: AtomicU64,
    dropped: AtomicU64,
    bad: AtomicU64,
}

impl Statistics {
    fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// What an interface counted since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InterfaceStatistics {
    /// Packets that were longer than the room for them, and were cut.
    pub truncated: u64,
    /// Packets that were written and found no room in time, and were dropped.
    pub dropped: u64,
    /// Packets that came and had wrong checksums or headers, and were dropped.
    pub bad: u64,
}

impl Interface {
    /// Starts an interface by its mode (`vmnet_start_interface`): on the network that all of that mode share, or on that of
    /// its address range or identifier, which comes into being with the first one and goes with the last.
    ///
    /// # Errors
    /// [`Status::Failure`]: the addresses or the identity are taken, or the service cannot be reached.
    /// [`Status::NotAuthorized`]: the service lacks privileges, or does not let this process in.
    /// [`Status::InvalidArgument`]: the configuration is for a network.
    pub fn start(configuration: &InterfaceConfiguration) -> Result<Self, Error> {
        let Target::Mode(mode) = configuration.target else {
            return Err(Error::invalid(
                "this configuration is for an interface on a network: give the network too",
            ));
        };
        let mut client = Client::connect()?;
        let network = plan::open(&mut client, configuration, mode)?;
        let membership = Membership::new(client, network)?;
        Self::begin(membership, configuration, Some(mode))
    }

    /// Starts an interface on a network (`vmnet_interface_start_with_network`), which it holds until it is stopped. Its
    /// identity and MAC are fresh ones.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub fn start_on(
        network: &Network,
        configuration: &InterfaceConfiguration,
    ) -> Result<Self, Error> {
        Self::begin(Arc::clone(network.membership()), configuration, None)
    }

    fn begin(
        membership: Arc<Membership>,
        configuration: &InterfaceConfiguration,
        mode: Option<OperatingMode>,
    ) -> Result<Self, Error> {
        let failed = |error: &dyn std::error::Error| Error::new(Status::Failure, error.to_string());
        let keys = &configuration.keys;
        let mut options = InterfaceOptions::new(Kind::VhostUserConnected);
        options.isolated = keys.enable_isolation;
        if mode.is_some() {
            options.id = keys.interface_id.map(|id| id.to_string());
            options.allocate_mac = keys.allocate_mac_address;
        }
        let (datapath, agreed, started, options) = travel(&membership, configuration, options)?;
        let shared = Shared {
            mark: ForkMark::new().map_err(|error| failed(&error))?,
            state: AtomicU8::new(RUNNING),
            datapath,
            events: events::Events::new().map_err(|error| failed(&error))?,
            agreed,
            statistics: Statistics::default(),
            parameters: parameters(configuration, mode, &agreed, &started),
            service: Mutex::new(Some(AtService {
                membership: Arc::clone(&membership),
                number: started.interface.interface,
                by_network: mode.is_none(),
                options: InterfaceOptions {
                    id: started.interface.id.clone().or(options.id),
                    ..options
                },
                rules: Vec::new(),
            })),
        };
        let shared = Arc::new(shared);
        membership.add_interface(&shared);
        Ok(Self { shared })
    }

    /// What it turned out to be (`interface_param`).
    #[must_use]
    pub fn parameters(&self) -> &InterfaceParameters {
        &self.shared.parameters
    }

    /// What it counted since it started.
    #[must_use]
    pub fn statistics(&self) -> InterfaceStatistics {
        let Statistics {
            truncated,
            dropped,
            bad,
        } = &self.shared.statistics;
        InterfaceStatistics {
            truncated: truncated.load(Ordering::Relaxed),
            dropped: dropped.load(Ordering::Relaxed),
            bad: bad.load(Ordering::Relaxed),
        }
    }

    /// Ends it (`vmnet_stop_interface`): its place on the network, its rules, and its packets. No handler of its events runs
    /// any more when this returns, unless it is the one that calls this. A network that it was started on is let go.
    ///
    /// # Errors
    /// [`Status::SetupIncomplete`]: it is stopped already.
    pub fn stop(&self) -> Result<(), Error> {
        let shared = &self.shared;
        if !shared.mark.is_original() {
            return Err(in_a_child());
        }
        if shared.state.swap(STOPPED, Ordering::Relaxed) == STOPPED {
            return Err(stopped());
        }
        shared.events.end();
        let service = lock(&shared.service).take();
        if let Some(AtService {
            membership, number, ..
        }) = service
            && let Err(error) = membership.call(|client, _| client.stop_interface(number))
        {
            // It is gone in any case: with its rings at the latest.
            tracing::debug!(%error, "an interface was stopped");
        }
        shared.datapath.end();
        Ok(())
    }

    // ---- packets -----------------------------------------------------------------------------

    /// Reads packets that wait, without waiting (`vmnet_read`): how many. At most [`MAX_PACKETS`] come at once; a packet
    /// that is longer than the room for it is cut, and counted.
    ///
    /// # Errors
    /// [`Status::SetupIncomplete`]: it is stopped. [`Status::Failure`]: the service broke the rings.
    #[inline]
    pub fn read<P: PacketBuffers + ?Sized>(&self, packets: &mut P) -> Result<usize, Error> {
        let shared = &*self.shared;
        shared.check()?;
        let read = shared
            .datapath
            .read(packets, &shared.agreed, &shared.statistics);
        shared.events.was_read();
        read.map_err(|error| Error::new(Status::Failure, error))
    }

    /// Reads one packet, if there is one: its length.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn read_packet(&self, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
        let mut buffers = [IoSliceMut::new(buffer)];
        let mut packets = [ReadPacket::new(&mut buffers)];
        let count = self.read(&mut packets[..])?;
        let [packet] = packets;
        Ok((count > 0).then_some(packet.size))
    }

    /// Writes packets (`vmnet_write`): all of them, or none if there is something wrong with one. Where there is no room it
    /// waits for a moment, and then drops what is left, as a switch does, and counts that.
    ///
    /// # Errors
    /// Nothing is written then. [`Status::TooManyPackets`]: more than [`MAX_PACKETS`]. [`Status::InvalidArgument`]: one is
    /// shorter than an Ethernet header, or longer than its buffers. [`Status::PacketTooBig`]: one is longer than
    /// [`InterfaceParameters::max_packet_size`]. [`Status::SetupIncomplete`]: the interface is stopped.
    /// [`Status::Failure`]: the service broke the rings.
    #[inline]
    pub fn write(&self, packets: &[WritePacket<'_>]) -> Result<usize, Error> {
        self.write_from(packets.iter().copied())
    }

    /// The same, of packets that are described elsewhere.
    ///
    /// # Errors
    /// As for [`Self::write`].
    #[inline]
    pub fn write_from<'a>(
        &self,
        packets: impl ExactSizeIterator<Item = WritePacket<'a>> + Clone,
    ) -> Result<usize, Error> {
        let shared = &*self.shared;
        shared.check()?;
        let count = packets.len();
        if count > MAX_PACKETS {
            return Err(Error::new(
                Status::TooManyPackets,
                format!("{count} packets at once; {MAX_PACKETS} can be written"),
            ));
        }
        for packet in packets.clone() {
            shared.check_packet(&packet)?;
        }
        shared
            .datapath
            .write(packets, &shared.agreed, &shared.statistics)
            .map_err(|error| Error::new(Status::Failure, error))?;
        Ok(count)
    }

    /// Writes one packet.
    ///
    /// # Errors
    /// As for [`Self::write`].
    pub fn write_packet(&self, packet: &[u8]) -> Result<(), Error> {
        let buffers = [IoSlice::new(packet)];
        self.write(&[WritePacket::new(&buffers)]).map(drop)
    }

    /// How many packets wait to be read.
    #[must_use]
    pub fn packets_available(&self) -> usize {
        match self.shared.check() {
            Ok(()) => self.shared.datapath.seen().waiting,
            Err(_) => 0,
        }
    }

    /// Waits until packets can be read, or the time is over: whether there are some.
    ///
    /// # Errors
    /// [`Status::SetupIncomplete`]: it is stopped, perhaps meanwhile.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            self.shared.check()?;
            let ready = self.shared.datapath.watch();
            if self.shared.datapath.seen().waiting > 0 {
                return Ok(true);
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            let left = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            });
            let mut polled = [PollFd::from_borrowed_fd(ready, PollFlags::IN)];
            // A signal that interrupts is no event.
            let _ready = poll(&mut polled, left.as_ref());
            self.shared.datapath.settle();
        }
    }

    // ---- events ------------------------------------------------------------------------------

    /// Calls `callback` when packets can be read, or nobody any more (`vmnet_interface_set_event_callback`). It is called in
    /// a thread of the interface's, never twice at once, and again as long as packets wait: at once if some were read or
    /// have come, else now and then. It may call everything here. Clearing and replacing do not wait for one that runs.
    ///
    /// # Errors
    /// [`Status::SetupIncomplete`]: the interface is stopped. [`Status::MemFailure`]: there is no thread to be had.
    pub fn set_event_callback<F>(&self, callback: Option<F>) -> Result<(), Error>
    where
        F: Fn(Event) + Send + Sync + 'static,
    {
        self.set_event_notifier(callback.map(|callback| {
            move |pending: PendingEvent| {
                if let Some(event) = pending.begin() {
                    callback(event);
                }
            }
        }))
    }

    /// The same for programs with threads or queues of their own. `notifier` is called in the interface's thread and passes
    /// the event on; where the handler is about to run, it asks [`PendingEvent::begin`], and drops it afterwards.
    ///
    /// # Errors
    /// As for [`Self::set_event_callback`].
    pub fn set_event_notifier<F>(&self, notifier: Option<F>) -> Result<(), Error>
    where
        F: Fn(PendingEvent) + Send + Sync + 'static,
    {
        self.shared.check()?;
        let notifier = notifier.map(|notifier| Arc::new(notifier) as Arc<events::Notifier>);
        events::set(&self.shared, notifier).map_err(|error| Error::new(Status::MemFailure, error))
    }

    // ---- its place at the service ------------------------------------------------------------

    fn membership(&self) -> Result<Arc<Membership>, Error> {
        self.shared.check()?;
        let service = lock(&self.shared.service);
        let membership = service.as_ref().map(|at| Arc::clone(&at.membership));
        membership.ok_or_else(stopped)
    }

    /// Whose its rules are; none: its network's.
    fn owner(&self) -> Option<u64> {
        let service = lock(&self.shared.service);
        service
            .as_ref()
            .filter(|at| !at.by_network)
            .map(|at| at.number)
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        if self.shared.mark.is_original() {
            let _stopped_before = self.stop();
        }
    }
}

/// Readable exactly while packets can be read, for programs that wait for several things or have a runtime. When it is
/// readable, [`Interface::read`] until there is none.
impl AsFd for Interface {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.datapath.watch()
    }
}

impl Shared {
    /// It can be used.
    #[inline]
    fn check(&self) -> Result<(), Error> {
        if self.mark.is_original() && self.state.load(Ordering::Relaxed) == RUNNING {
            return Ok(());
        }
        Err(self.why_not())
    }

    #[cold]
    fn why_not(&self) -> Error {
        if !self.mark.is_original() {
            return in_a_child();
        }
        match self.state.load(Ordering::Relaxed) {
            ENDED => Error::new(
                Status::SetupIncomplete,
                "somebody else has ended the interface, or its network: start another",
            ),
            _ => stopped(),
        }
    }

    // ---- when the service goes, and comes back -----------------------------------------------

    /// What hangs up when the service lets go of the rings.
    pub(crate) fn line(&self) -> Option<Arc<dyn AsFd + Send + Sync>> {
        (self.state.load(Ordering::Relaxed) == RUNNING)
            .then(|| self.datapath.line())
            .flatten()
    }

    /// The rings ended, and the service did not: somebody stopped the interface.
    pub(crate) fn hung_up(&self) {
        let at = lock(&self.service);
        let known = at
            .as_ref()
            .map(|at| (Arc::clone(&at.membership), at.number));
        drop(at);
        let Some((membership, number)) = known else {
            return;
        };
        let there = membership.call(|client, network| {
            let all = client.list_interfaces(Some(network))?.interfaces;
            Ok(all.iter().any(|one| one.interface == number))
        });
        match there {
            // It was killed a moment ago, and everything is back.
            _ if self.number() != Some(number) => {}
            Ok(there) => {
                tracing::warn!(there, "the service let go of an interface");
                self.give_up();
            }
            Err(error) => {
                tracing::warn!(%error, "the service let go of an interface");
                self.give_up();
            }
        }
    }

    fn number(&self) -> Option<u64> {
        lock(&self.service).as_ref().map(|at| at.number)
    }

    /// The same interface, at the service that runs now.
    pub(crate) fn rejoin(
        &self,
        client: &mut Client,
        network: &service::Network,
    ) -> Result<(), Error> {
        let failed = |error: &dyn std::error::Error| Error::new(Status::Failure, error.to_string());
        let mut at = lock(&self.service);
        let Some(at) = at.as_mut() else { return Ok(()) };
        if self.state.load(Ordering::Relaxed) != RUNNING {
            return Ok(());
        }
        let (ours, theirs) = datapath::ends(at.options.kind).map_err(|error| failed(&error))?;
        let started = client.start_interface(&network.uuid, at.options.clone(), vec![theirs])?;
        at.number = started.interface.interface;
        let connected = self.datapath.reconnect(ours);
        connected.map_err(|error| Error::new(Status::Failure, error))?;
        for rule in &at.rules {
            if let Err(error) = client.add_forward(&network.uuid, Some(at.number), rule.clone()) {
                tracing::warn!(%error, "a port cannot be forwarded again");
            }
        }
        Ok(())
    }

    /// It is gone for good, and says so.
    pub(crate) fn give_up(&self) {
        let running =
            self.state
                .compare_exchange(RUNNING, ENDED, Ordering::Relaxed, Ordering::Relaxed);
        if running.is_ok() {
            self.datapath.end();
        }
    }

    #[inline]
    fn check_packet(&self, packet: &WritePacket<'_>) -> Result<(), Error> {
        let size = packet.size;
        let have: usize = packet.buffers.iter().map(|buffer| buffer.len()).sum();
        if size <= have && (self.agreed.smallest()..=self.agreed.largest()).contains(&size) {
            return Ok(());
        }
        Err(self.why_no_packet(size, have))
    }

    #[cold]
    fn why_no_packet(&self, size: usize, have: usize) -> Error {
        let (smallest, largest) = (self.agreed.smallest(), self.agreed.largest());
        if size > largest {
            Error::new(
                Status::PacketTooBig,
                format!("a packet of {size} bytes; the largest has {largest}"),
            )
        } else if size < smallest {
            Error::invalid(format!(
                "a packet of {size} bytes; the headers alone have {smallest}"
            ))
        } else {
            Error::invalid(format!("a packet of {size} bytes in buffers of {have}"))
        }
    }
}

fn stopped() -> Error {
    Error::new(Status::SetupIncomplete, "the interface is stopped")
}

/// Starts an interface at the service, by rings if they can be had: how its packets travel, and what was asked for.
fn travel(
    membership: &Membership,
    configuration: &InterfaceConfiguration,
    options: InterfaceOptions,
) -> Result<(Datapath, Agreed, Started, InterfaceOptions), Error> {
    let failed = |error| Error::new(Status::Failure, error);
    let by_socket = datapath::by_socket(&options, configuration.tso());
    if !datapath::wants_socket() {
        let (ours, started) = start_at(membership, &options)?;
        let agreed = agreed(configuration, &started);
        match Datapath::connect(ours, &agreed) {
            Ok(datapath) => return Ok((datapath, agreed, started, options)),
            Err(error) => tracing::warn!(error, "no rings with the service: a socket has to do"),
        }
        // Its identity is to be free.
        let number = started.interface.interface;
        membership.call(|client, _| client.stop_interface(number))?;
    }
    let (ours, started) = start_at(membership, &by_socket)?;
    let agreed = agreed(configuration, &started);
    let datapath = Datapath::connect(ours, &agreed).map_err(failed)?;
    Ok((datapath, agreed, started, by_socket))
}

/// Has the service start an interface.
fn start_at(
    membership: &Membership,
    options: &InterfaceOptions,
) -> Result<(datapath::Ours, Started), Error> {
    let failed = |error: std::io::Error| Error::new(Status::Failure, error);
    let (ours, theirs) = datapath::ends(options.kind).map_err(failed)?;
    let started = membership.call(|client, network| {
        let copy = theirs.try_clone();
        let copy = copy.map_err(|error| CallError::Strange(error.to_string()))?;
        client.start_interface(network, options.clone(), vec![copy])
    })?;
    Ok((ours, started))
}

/// What both sides of the rings agree upon.
fn agreed(configuration: &InterfaceConfiguration, started: &Started) -> Agreed {
    let mtu = u32::from(started.network.mtu);
    let max = if configuration.tso() {
        LARGE_FRAME
    } else {
        mtu + ETHERNET
    };
    let bytes = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Agreed {
        header: configuration.virtio_header(),
        tso: configuration.tso(),
        checksum: configuration.checksum_offload(),
        mtu: bytes(mtu),
        max: bytes(max),
    }
}

fn parameters(
    configuration: &InterfaceConfiguration,
    mode: Option<OperatingMode>,
    agreed: &Agreed,
    started: &Started,
) -> InterfaceParameters {
    let Started { interface, network } = started;
    let keys = &configuration.keys;
    let number = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let packets = number(MAX_PACKETS);
    let mut parameters = InterfaceParameters {
        interface_id: interface.id.as_deref().and_then(|id| id.parse().ok()),
        mac_address: interface.mac.as_deref().and_then(|mac| mac.parse().ok()),
        mtu: number(agreed.mtu),
        max_packet_size: number(agreed.max),
        read_max_packets: packets,
        write_max_packets: packets,
        start_address: None,
        end_address: None,
        subnet_mask: None,
        nat66_prefix: None,
    };
    if !matches!(mode, Some(OperatingMode::Shared | OperatingMode::Host)) {
        return parameters;
    }
    if let Some((prefix, _)) = network
        .ipv6_prefix
        .as_deref()
        .and_then(|it| it.split_once('/'))
        && mode == Some(OperatingMode::Shared)
    {
        parameters.nat66_prefix = prefix.parse().ok();
    }
    if keys.network_identifier.is_none() && keys.start_address.is_some() {
        // As they were asked for.
        parameters.start_address = keys.start_address;
        parameters.end_address = keys.end_address;
        parameters.subnet_mask = keys.subnet_mask;
        return parameters;
    }
    let host = network
        .gateway
        .as_deref()
        .and_then(|host| host.parse().ok());
    let len = network.subnet.as_deref().and_then(|it| it.split_once('/'));
    let len: Option<u32> = len.and_then(|(_, len)| len.parse().ok());
    if let (Some(host), Some(len @ 1..=32)) = (host, len) {
        let mask = u32::MAX << (32 - len);
        let last = std::net::Ipv4Addr::to_bits(host) | !mask;
        parameters.start_address = Some(host);
        parameters.end_address = Some((last - 1).into());
        parameters.subnet_mask = Some(mask.into());
    }
    parameters
}
