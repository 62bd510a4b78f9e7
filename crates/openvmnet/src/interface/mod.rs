//! A place on a network (`interface_ref`).
//!
//! | file | what |
//! | --- | --- |
//! | `configuration` | [`InterfaceConfiguration`]: what it is to be |
//! | `builder` | making one by calls |
//! | `parameters` | [`InterfaceParameters`]: what it turned out to be |
//! | `plan` | which network it is on |
//! | `start` | how it is started there |
//! | `life` | what happens when the service goes and comes back |
//! | `packet` | [`ReadPacket`], [`WritePacket`]: packets and their buffers |
//! | `datapath` | how packets travel |
//! | `rings` | through shared memory |
//! | `arriving` | a frame on its way to a program's buffers |
//! | `datagrams` | through a socket, where there are no rings |
//! | `drain` | what was written before an end goes out |
//! | `finish` | offloads, for programs without a virtio header |
//! | `events` | [`Event`]: telling a program that there is something to read |
//! | `forwarding` | [`PortForwardingRule`]: ports of the host that lead to guests |
//! | `bridgeable` | interfaces of the host that can be bridged to |

mod arriving;
mod bridgeable;
mod builder;
mod configuration;
mod datagrams;
mod datapath;
mod drain;
mod events;
mod finish;
mod forwarding;
mod life;
mod look;
mod packet;
mod parameters;
mod plan;
mod rings;
mod start;

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmnet_virtio::fork::ForkMark;

use crate::choice::Wanted;
use crate::client::Client;
use crate::membership::{Membership, in_a_child, lock};
use crate::mode::OperatingMode;
use crate::network::Network;
use crate::service::{ForwardRule, InterfaceOptions, Kind};
use crate::status::{Error, Status};

pub use bridgeable::{SharedInterface, SharedInterfaceKind, shared_interfaces};
pub use builder::{BridgedMode, HostMode, InterfaceBuilder, OnNetwork, PrivateMode, SharedMode};
pub use configuration::{InterfaceConfiguration, InterfaceKeys};
pub use events::{Event, PendingEvent};
pub use forwarding::{AddressFamily, PortForwardingRule};
pub use packet::{PacketBuffers, ReadPacket, WritePacket};
pub use parameters::{InterfaceParameters, MAX_PACKETS};

use configuration::Target;
use datapath::Datapath;
use finish::Agreed;

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
    /// How often it came back. Another service may give it the same number.
    comebacks: u64,
    /// Its rules are the network's.
    by_network: bool,
    /// What to ask for to get the same again.
    options: InterfaceOptions,
    /// Its own rules.
    rules: Vec<ForwardRule>,
}

/// It runs.
const RUNNING: u8 = 0;
/// It is being stopped by the program: a handler that runs may still read what it was told of.
const STOPPING: u8 = 3;
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
        let mut client = Client::connect_for(Wanted {
            network: None,
            privileges: (mode == OperatingMode::Bridged).then_some("a bridged network"),
        })?;
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
        let (datapath, agreed, started, options) =
            start::travel(&membership, configuration, options)?;
        let shared = Shared {
            mark: ForkMark::new().map_err(|error| failed(&error))?,
            state: AtomicU8::new(RUNNING),
            datapath,
            events: events::Events::new().map_err(|error| failed(&error))?,
            agreed,
            statistics: Statistics::default(),
            parameters: start::parameters(configuration, mode, &agreed, &started),
            service: Mutex::new(Some(AtService {
                membership: Arc::clone(&membership),
                number: started.interface.interface,
                comebacks: 0,
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
    /// any more when this returns, unless it is the one that calls this. A network that it was started on is let go. What was
    /// written before goes out first, unless the service takes nothing for half a second, or is gone.
    ///
    /// # Errors
    /// [`Status::SetupIncomplete`]: it is stopped already.
    pub fn stop(&self) -> Result<(), Error> {
        let shared = &self.shared;
        if !shared.mark.is_original() {
            return Err(in_a_child());
        }
        let begun = shared
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
                (!matches!(state, STOPPING | STOPPED)).then_some(STOPPING)
            });
        begun.map_err(|_| stopped())?;
        shared.events.end();
        shared.state.store(STOPPED, Ordering::Relaxed);
        shared.datapath.drain();
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

    /// Whether an event of it is with its handler.
    #[must_use]
    pub fn is_in_event(&self) -> bool {
        self.shared.events.is_out()
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
        // What is further away than any clock goes is never.
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            self.shared.check()?;
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
            self.shared.datapath.sleep(|ready| {
                let mut polled = [PollFd::from_borrowed_fd(ready, PollFlags::IN)];
                // A signal that interrupts is no event.
                let _ready = poll(&mut polled, left.as_ref());
            });
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

/// Readable while packets can be read, for programs that wait for several things or have a runtime. When it is readable,
/// [`Interface::read`] until there is none. Who reads a packet as soon as it is there may be told of it afterwards: then the
/// next read finds none, and it is not readable any more.
impl AsFd for Interface {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.datapath.watch()
    }
}

fn stopped() -> Error {
    Error::new(Status::SetupIncomplete, "the interface is stopped")
}
