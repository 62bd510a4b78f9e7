//! The thread: waits for events, gives them to the core, carries out what it wants, and waits again.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use rustix::event::epoll::EventFlags;
use vmnet_core::{Config, Dns, ForwardId, Ipv4, Network, Outbox, PortId, Prefix, SocketId};
use vmnet_wire::ethernet::Mac;

use crate::lane::StartError;
use crate::lane::execute::Hand;
use crate::lane::forwarding;
use crate::lane::forwarding::{Forwarded, Listener};
use crate::lane::handle::{Command, CountersSnapshot, Inbox, ListenerId, Settings};
use crate::lane::leases::{self, LeaseKeeper};
use crate::lane::names::{DnsSession, Queries};
use crate::lane::patience::Patience;
use crate::lane::rings::Rings;
use crate::lane::sockets::Pending;
use crate::lane::vmm::Vmm;
use crate::poller::{Poller, READ, Token};
use crate::port::join::Joining;
use crate::port::{FRAME_MAX, Port};
use crate::resolv;
use crate::slots::{Slot, Slots};
use crate::socket::HostSocket;
use crate::sys::datagram::Batch;
use crate::sys::limits;
use crate::uplink::{Change, Uplink};

/// Streams of the NAT that are read in one turn before frames of guests are looked at again, and bytes of them: the next
/// begins behind these.
const READS: usize = 64;
const READS_BYTES: usize = 1 << 20;
/// How soon a port that cannot tell when it has room is tried again: at first, and at most.
const RETRY: Duration = Duration::from_micros(50);
const RETRY_MAX: Duration = Duration::from_millis(1);
/// Flows of the NAT at once, if descriptors allow.
const FLOWS_MAX: usize = 32_768;
/// So few flows are no network.
pub(super) const FLOWS_LEAST: usize = 64;
/// Descriptors that are kept for other things than flows: ports, queries, our ends of DNS streams.
const DESCRIPTORS_KEPT: usize = 128;

/// A network with everything it runs on.
pub(super) struct Lane {
    pub(super) network: Network,
    /// Its IPv6 prefix.
    prefix: Option<Prefix>,
    pub(super) out: Outbox,
    pub(super) now: Instant,
    pub(super) poller: Poller,
    pub(super) ports: Slots<PortId, Port>,
    /// Ports that were given frames in this turn.
    pub(super) touched: Vec<PortId>,
    /// Ports whose queue is full.
    pub(super) full: Vec<(PortId, bool)>,
    pub(super) sockets: Slots<SocketId, HostSocket>,
    pub(super) pending: Pending,
    /// Ports of guests that came by a socket for several.
    pub(super) came_by: HashMap<PortId, ListenerId>,
    pub(super) forwards: Slots<ForwardId, Forwarded>,
    pub(super) listeners: HashMap<u64, Listener>,
    pub(super) next_listener: u64,
    pub(super) queries: Queries,
    pub(super) dns_sessions: Slots<SocketId, DnsSession>,
    pub(super) holds: Vec<Vec<u8>>,
    /// A frame that was put together from fragments, and whose it is.
    pub(super) reassembled: Option<(PortId, Vec<u8>)>,
    /// What is read from a port or a stream; taken out while it is in the hand.
    pub(super) frame: Vec<u8>,
    /// Where bytes of a guest's memory are gathered that have to be in one piece.
    pub(super) scratch: Vec<u8>,
    /// Segments that may become one, and of which port they are.
    pub(super) joining: Joining,
    pub(super) joining_of: Option<PortId>,
    pub(super) batch: Option<Batch>,
    pub(super) warned: Warned,
    /// See [`forwarding::spare`].
    pub(super) spare: Option<OwnedFd>,
    pub(super) rings: Rings,
    pub(super) vmms: Slots<PortId, Vmm>,
    /// The action that is carried out is the only one.
    pub(super) alone: bool,
    /// A frame waits in its ring for room at this port.
    pub(super) stuck: Option<PortId>,
    /// What is taken is the last of a port: it cannot wait in its ring.
    pub(super) leaving: bool,
    patience: Patience,
    /// How soon ports that cannot tell are tried again.
    retry: Duration,
    /// Bytes of guests and of their peers in this turn.
    pub(super) moved: usize,
    pub(super) uplink: Uplink,
    resolvers: Option<resolv::Watch>,
    pub(super) inbox: Inbox,
    pub(super) lease_keeper: Option<LeaseKeeper>,
    /// Who wants to know that guests have moved.
    tells_of_moves: Option<Arc<UnixDatagram>>,
    stopped: bool,
}

/// What was told once and need not be told again.
#[derive(Debug, Default)]
pub(super) struct Warned {
    pub(super) ping: bool,
    pub(super) descriptors: bool,
}

impl Lane {
    pub(super) fn new(settings: Settings, inbox: Inbox) -> Result<Self, StartError> {
        let now = Instant::now();
        let mut seed = [0; 16];
        rustix::rand::getrandom(&mut seed[..], rustix::rand::GetRandomFlags::empty())
            .map_err(io::Error::from)?;
        let mut network = Network::new(now, &config(&settings, flows_max()?, seed))?;
        let times = [
            settings.dhcp.map(|dhcp| dhcp.lease_time),
            settings.dhcp6.map(|dhcp6| dhcp6.lease_time),
        ];
        if let Some(lease_time) = times.into_iter().flatten().max() {
            leases::put_back(
                &mut network,
                now,
                lease_time,
                settings.reservations,
                settings.restored,
            );
        }
        let poller = Poller::new()?;
        poller.add(&inbox.line.wake, Token::Command, READ)?;
        let uplink = Uplink::new(settings.external_interface.as_deref())?;
        poller.add(uplink.fd(), Token::Uplink, READ)?;
        let resolvers = match &settings.resolvers {
            Some(fixed) => {
                network.set_resolvers(now, fixed);
                None
            }
            None if settings.dns == Dns::Proxy => watch_resolvers(&mut network, now, &poller)?,
            None => None,
        };
        let mut lane = Self {
            network,
            prefix: settings.ipv6,
            out: Outbox::new(),
            now,
            poller,
            ports: Slots::default(),
            touched: Vec::new(),
            full: Vec::new(),
            sockets: Slots::default(),
            pending: Pending::default(),
            came_by: HashMap::new(),
            forwards: Slots::default(),
            listeners: HashMap::new(),
            next_listener: 0,
            queries: Queries::default(),
            dns_sessions: Slots::default(),
            holds: Vec::new(),
            reassembled: None,
            frame: vec![0; FRAME_MAX],
            scratch: Vec::new(),
            joining: Joining::default(),
            joining_of: None,
            batch: None,
            warned: Warned::default(),
            spare: Some(forwarding::spare()?),
            rings: Rings::new(),
            vmms: Slots::default(),
            alone: false,
            stuck: None,
            leaving: false,
            patience: Patience::new(now),
            retry: RETRY,
            moved: 0,
            uplink,
            resolvers,
            inbox,
            lease_keeper: settings.leases,
            tells_of_moves: settings.moved,
            stopped: false,
        };
        lane.tell_outside();
        Ok(lane)
    }

    /// Tells the core by which addresses the outside reaches the host.
    fn tell_outside(&mut self) {
        if let Some(ipv4) = self.network.ipv4() {
            let address = self.uplink.address(ipv4.subnet());
            tracing::debug!(?address, "the host's outside address");
            self.network.set_outside(address);
        }
        if let Some(prefix) = self.prefix {
            let address = self.uplink.address6(prefix);
            tracing::debug!(?address, "the host's outside IPv6 address");
            self.network.set_outside6(address);
        }
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self) {
        let mut events = Vec::new();
        let (mut busy, mut had_frames) = (false, false);
        while !self.stopped {
            let moved = std::mem::take(&mut self.moved);
            if moved > 0 {
                self.patience.woke();
            }
            let (timeout, looked) = self.before_sleep(busy, moved);
            if !(had_frames && self.patience.goes_on(moved)) {
                let waited = self
                    .patience
                    .wait(&mut self.poller, timeout, looked, &mut events);
                if let Err(error) = waited {
                    tracing::error!(%error, "the datapath cannot wait for events and ends");
                    return;
                }
            }
            self.now = Instant::now();
            // Who has not read for long is not asked so often.
            self.retry = if events.is_empty() {
                (self.retry * 2).min(RETRY_MAX)
            } else {
                RETRY
            };
            for (token, flags) in events.drain(..) {
                self.dispatch(token, flags);
            }
            self.look_for_vmms();
            had_frames = self.serve_rings();
            self.send_pending();
            busy = self.read_streams() | had_frames;
            if self
                .network
                .next_deadline()
                .is_some_and(|at| at <= self.now)
            {
                self.network.timeout(self.now, &mut self.out);
                self.carry_out(Hand::EMPTY);
            }
            // Rings that had frames are looked at again before the lane sleeps.
            self.network.flush(self.now, had_frames, &mut self.out);
            self.carry_out(Hand::EMPTY);
            if self.network.take_followed()
                && let Some(moved) = &self.tells_of_moves
            {
                let _told_already = moved.send(&[1]);
            }
            self.flush_ports();
            // A port that has room again lets streams read that waited for it.
            busy |= self.network.has_reads();
        }
    }

    /// How long to wait for events, and how much was moved by whoever may answer soon. Before it sleeps, the lane looks
    /// at rings for a moment, and then asks their guests for kicks.
    fn before_sleep(&mut self, busy: bool, moved: usize) -> (Option<Duration>, usize) {
        if busy {
            self.patience.found();
            return (Some(Duration::ZERO), moved);
        }
        if !self.rings.are_looked_at() {
            return (self.timeout(), moved);
        }
        if self.patience.look_again() || self.arm_rings() {
            return (Some(Duration::ZERO), moved);
        }
        // It has looked already.
        (self.timeout(), 0)
    }

    fn timeout(&mut self) -> Option<Duration> {
        let retry = self
            .full
            .iter()
            .any(|(_, retry)| *retry)
            .then(|| self.now + self.retry);
        let next = self
            .network
            .next_deadline()
            .into_iter()
            .chain(retry)
            .chain(self.rings.next_look(self.now))
            .chain(
                self.vmms
                    .iter_mut()
                    .filter_map(|(_, vmm)| vmm.next_look())
                    .min(),
            )
            .min()?;
        // Rounded up: a wait that ends too early only waits again.
        Some(next.saturating_duration_since(Instant::now()) + Duration::from_micros(50))
    }

    fn dispatch(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Port(slot) => self.port_event(slot, flags),
            Token::Socket(slot) => self.socket_event(slot, flags),
            Token::DnsStream(slot) => self.dns_stream_event(slot, flags),
            Token::Query(number) => self.query_event(number, flags),
            Token::Listener(number) => self.listener_event(number),
            Token::Forward(slot) => self.forward_event(slot),
            Token::Kick(slot, ring) => self.kick_event(slot, ring),
            Token::Vmm(slot) => self.vmm_event(slot),
            Token::Command => self.obey(),
            Token::Resolvers => self.follow_resolvers(),
            Token::Uplink => self.follow_uplink(),
        }
    }

    /// Lets streams with something to read take turns. Answers whether some are left.
    fn read_streams(&mut self) -> bool {
        let enough = self.moved.saturating_add(READS_BYTES);
        for _ in 0..READS {
            if self.moved >= enough {
                break;
            }
            let Some(read) = self.network.next_read(self.now, &mut self.out) else {
                self.carry_out(Hand::EMPTY);
                return false;
            };
            self.read_stream(read);
        }
        true
    }

    /// The gateway as it reports errors about what goes `to`; only one that has an address has any.
    pub(super) fn gateway(&self, to: SocketAddr) -> IpAddr {
        if to.is_ipv6() {
            let gateway = self.prefix.map(|prefix| prefix.gateway());
            return IpAddr::V6(gateway.unwrap_or(Ipv6Addr::UNSPECIFIED));
        }
        let address = self.network.gateway_address();
        IpAddr::V4(address.unwrap_or(Ipv4Addr::UNSPECIFIED))
    }

    fn obey(&mut self) {
        let mut count = [0; 8];
        let _drained = rustix::io::read(&*self.inbox.line.wake, &mut count);
        while let Ok(command) = self.inbox.commands.try_recv() {
            match command {
                Command::Attach(attachment, options, answer) => {
                    let _gone = answer.send(self.attach(attachment, options));
                }
                Command::Detach(port) => self.leave(port),
                Command::Listen(socket, options, answer) => {
                    let _gone = answer.send(self.listen(socket, options));
                }
                Command::EndListener(listener) => self.end_listener(listener),
                Command::Ports(answer) => {
                    let _gone = answer.send(self.port_rows());
                }
                Command::Forward(forwards, answer) => {
                    let _gone = answer.send(self.forward(forwards));
                }
                Command::CheckForwards(forwards, answer) => {
                    let mut all = forwards.iter();
                    let _gone = answer.send(all.try_for_each(|one| self.check_guest(one)));
                }
                Command::RemoveForwards(ids, answer) => {
                    let _gone = answer.send(self.remove_forwards(&ids));
                }
                Command::Leases(command) => self.obey_leases(command),
                Command::Name(mac, name) => self.network.name_station(mac, name),
                Command::Guests(guests, answer) => {
                    let of = |guest| self.network.addresses_of_guest(self.now, guest);
                    let _gone = answer.send(guests.iter().map(of).collect());
                }
                Command::Counters(answer) => {
                    let _gone = answer.send(self.counters());
                }
                Command::Session(port, epoch, change) => self.session_change(port, epoch, change),
                Command::Stop => {
                    self.network.shutdown(self.now, &mut self.out);
                    self.carry_out(Hand::EMPTY);
                    self.stopped = true;
                }
            }
        }
    }

    fn counters(&self) -> CountersSnapshot {
        let drops = self.network.drops().met();
        let mut rows: Vec<_> = drops
            .map(|(cause, count)| (format!("drop-{}", cause.name()), count))
            .collect();
        let dns = self.network.dns_counters();
        rows.extend([
            ("flows".to_owned(), self.network.flows() as u64),
            ("dns-queries".to_owned(), dns.queries),
            ("dns-local".to_owned(), dns.local),
            ("dns-asked".to_owned(), dns.asked),
            ("dns-answered".to_owned(), dns.answered),
            ("dns-unanswered".to_owned(), dns.unanswered),
        ]);
        CountersSnapshot { rows }
    }

    fn follow_resolvers(&mut self) {
        if let Some(conf) = self.resolvers.as_mut().and_then(resolv::Watch::changed) {
            tracing::info!(servers = ?conf.servers, "the host's resolvers have changed");
            self.network.set_resolvers(self.now, &conf.servers);
        }
    }

    fn follow_uplink(&mut self) {
        let change = self.uplink.follow();
        if change == Change::None {
            return;
        }
        self.tell_outside();
        if change == Change::Returned {
            self.rebind_sockets();
        }
    }

    /// Adds a descriptor to the poller under the key of a slot.
    pub(super) fn slot_token(port: PortId) -> Token {
        Token::Port(Slot::of(port))
    }
}

/// Takes the host's resolvers, and follows them if the host lets us watch its file.
fn watch_resolvers(
    network: &mut Network,
    now: Instant,
    poller: &Poller,
) -> io::Result<Option<resolv::Watch>> {
    let watch = resolv::Watch::new(resolv::PATH).inspect_err(
        |error| tracing::warn!(%error, "changes of {} will not be noticed", resolv::PATH),
    );
    let servers: Vec<SocketAddr> = match &watch {
        Ok(watch) => watch.current().servers.clone(),
        Err(_) => resolv::ResolvConf::read(resolv::PATH.as_ref()).servers,
    };
    if servers.is_empty() {
        tracing::warn!(
            "{} names no resolver: guests can resolve names of this network only",
            resolv::PATH
        );
    }
    network.set_resolvers(now, &servers);
    if let Ok(watch) = &watch {
        poller.add(watch, Token::Resolvers, READ)?;
    }
    Ok(watch.ok())
}

/// The core's part of the settings.
fn config(settings: &Settings, flows_max: usize, seed: [u8; 16]) -> Config {
    let resolvers = settings.resolvers.iter().flatten();
    let offered = resolvers.filter_map(|resolver| match resolver {
        SocketAddr::V4(resolver) if resolver.port() == 53 => Some(*resolver.ip()),
        _ => None,
    });
    Config {
        ipv4: settings.ipv4,
        gateway_mac: match settings.host {
            None => gateway_mac(settings.ipv4, settings.ipv6),
            Some(host) => services_mac(host),
        },
        host: settings.host,
        mtu: settings.mtu,
        dhcp: settings.dhcp,
        dns: settings.dns,
        resolvers_offered: offered.collect(),
        nat44: settings.nat44,
        ipv6: settings.ipv6,
        nat66: settings.nat66,
        router_advertisement: settings.router_advertisement,
        dhcp6: settings.dhcp6,
        isolation: settings.isolation,
        store_leases: settings.leases.is_some(),
        domain: settings.domain.clone(),
        host_loopback: settings.host_loopback,
        flows_max,
        seed,
    }
}

/// The MAC of a network's gateway. Locally administered; the same for the same network, so that guests' caches stay right.
#[must_use]
pub fn gateway_mac(ipv4: Option<Ipv4>, ipv6: Option<Prefix>) -> Mac {
    let [a, b, c, d] = match (ipv4, ipv6) {
        (Some(ipv4), _) => ipv4.gateway().octets(),
        (None, Some(prefix)) => {
            let [_, _, _, _, a, b, c, d, ..] = prefix.network().octets();
            [a, b, c, d]
        }
        (None, None) => [0; 4],
    };
    Mac([0x5a, 0x94, a, b, c, d])
}

/// The MAC of the gateway's services where the gateway is the host, at `host`.
#[must_use]
pub fn services_mac(host: Mac) -> Mac {
    let Mac([first, rest @ ..]) = host;
    let [a, b, c, d, e] = rest;
    Mac([first ^ 4, a, b, c, d, e])
}

/// As many flows as descriptors allow: each has one.
fn flows_max() -> io::Result<usize> {
    let files = limits::raise_open_files();
    let flows = flows_beside(files, 0);
    if flows < FLOWS_LEAST {
        let needed = DESCRIPTORS_KEPT + FLOWS_LEAST;
        return Err(io::Error::other(format!(
            "this user may open {files} files, and a network needs {needed}: raise the hard limit (`ulimit -Hn`)"
        )));
    }
    Ok(flows)
}

/// Flows for which descriptors are left beside so many forwarded ports.
pub(super) fn flows_beside(files: u64, forwards: usize) -> usize {
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    FLOWS_MAX.min(files.saturating_sub(DESCRIPTORS_KEPT + forwards))
}
