//! One network: its ports, its gateway, its NAT. Values in, values out; the clock is an argument.
//!
//! | file | what |
//! | --- | --- |
//! | `bridged` | a frame on a network that is bridged to a LAN |
//! | `by_host` | what goes round by the host, from guest to guest |
//! | `config` | what a network is to be |
//! | `frames`, `frames6` | a frame came: who takes it; IPv6 packets |
//! | `forward` | rules that lead to guests, and who these are now |
//! | `leases` | leases stored, put back and ended, addresses reserved |
//! | `look` | what a network tells about itself |

use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use slotmap::SlotMap;
use vmnet_wire::ethernet::{self, Mac};

use crate::drop::Drops;
use crate::event::{Event, Read};
use crate::gateway::ra::Advertiser;
use crate::gateway::services::{DnsProxy, Services};
use crate::gateway::{dhcp, dhcp6};
use crate::link::{Gateway, Link, PacketIds};
use crate::nat::Nat;
use crate::nat::destination::HostAccess;
use crate::nat::table::Flow;
use crate::neighbours::Neighbours;
use crate::outbox::{Outbox, PortId};
use crate::reassembly::Reassembly;
use crate::succession::Succession;
use crate::switch::fdb::Fdb;
use crate::switch::port::{Port, Role};

/// Borrows the parts of a network that sending needs, apart from those that decide.
macro_rules! link {
    ($self:ident, $gateway:expr, $now:expr, $out:expr) => {
        Link {
            now: $now,
            gateway: $gateway,
            ports: &$self.ports,
            fdb: &$self.fdb,
            neighbours: &mut $self.neighbours,
            ids: &mut $self.ids,
            drops: &mut $self.drops,
            out: $out,
        }
    };
}

mod bridged;
mod by_host;
mod config;
mod forward;
mod frames;
mod frames6;
mod leases;
mod look;

pub use config::{Config, ConfigError, Dhcp, Dhcp6, Dns, MTU_MAX, MTU_MIN, MTU_MIN_IPV6};

/// One network.
#[derive(Debug)]
pub struct Network {
    mac: Mac,
    mtu: u16,
    /// `None`: guests are among themselves.
    gateway: Option<Gateway>,
    /// No port exchanges frames with another.
    isolation: bool,
    /// Some port is isolated, by itself or as all are.
    some_isolated: bool,
    ports: SlotMap<PortId, Port>,
    /// Where the host is, if it has the gateway's addresses.
    trunk: Option<PortId>,
    /// A port leads to a LAN, or has.
    bridged: bool,
    /// Guests have spoken from other MACs.
    changed_macs: bool,
    fdb: Fdb,
    neighbours: Neighbours,
    services: Services,
    /// The gateway tells guests that it is a router.
    advertiser: Option<Advertiser>,
    nat: Nat,
    reassembly: Reassembly,
    /// The largest packet that carried a piece of what was put together last.
    largest_piece: usize,
    ids: PacketIds,
    drops: Drops,
    /// Guests may be at other addresses than before: rules follow them when the burst is over.
    follow: bool,
    /// They have just done so, and do it again from then on.
    follows_from: Instant,
    /// They were followed since somebody asked last.
    followed: bool,
}

/// After guests were followed by their rules, so long passes for each rule until they are followed again: a guest that moves
/// all the time takes no more than a small part of the time of others.
const REST_PER_RULE: Duration = Duration::from_micros(20);

impl Network {
    /// A network without ports.
    ///
    /// # Errors
    /// What of `config` cannot be.
    pub fn new(now: Instant, config: &Config) -> Result<Self, ConfigError> {
        config.check()?;
        let gateway = config.gateway();
        let dhcp = config.dhcp().map(dhcp::Server::new).transpose()?;
        let dhcp6 = config.dhcp6().map(dhcp6::Server::new).transpose()?;
        let dns = DnsProxy::new(&config.dns())?;
        let host = HostAccess {
            outside: None,
            outside6: None,
            loopback: config.host_loopback,
        };
        Ok(Self {
            mac: config.gateway_mac,
            mtu: config.mtu,
            gateway,
            isolation: config.isolation,
            some_isolated: config.isolation,
            ports: SlotMap::with_key(),
            trunk: None,
            bridged: false,
            changed_macs: false,
            fdb: Fdb::default(),
            neighbours: Neighbours::default(),
            services: Services::new(dhcp, dhcp6, config.store_leases, dns),
            advertiser: config
                .advertisement()
                .map(|contents| Advertiser::new(now, &contents, config.seed)),
            nat: Nat::new(now, config.flows_max, host),
            reassembly: Reassembly::default(),
            largest_piece: 0,
            ids: PacketIds::default(),
            drops: Drops::default(),
            follow: false,
            follows_from: now,
            followed: false,
        })
    }

    // ---- changes ---------------------------------------------------------------------------

    /// A guest's place on the switch. If the gateway is a router, [`Network::flush`] tells the guest so.
    ///
    /// The first port that is not a guest's makes a network without a gateway a bridged one.
    pub fn add_port(&mut self, port: Port) -> PortId {
        let role = port.role;
        self.some_isolated |= port.isolated;
        let port = self.ports.insert(port);
        match role {
            Role::Guest => {}
            Role::Trunk => self.trunk = Some(port),
            Role::Lan | Role::Wire(_) | Role::Host | Role::Ear => {
                self.bridged |= self.gateway.is_none();
            }
        }
        if let Role::Wire(guest) = role
            && let Some(guest) = self.ports.get_mut(guest)
        {
            guest.wire = Some(port);
        }
        if let Some(advertiser) = &mut self.advertiser {
            advertiser.plugged(port);
        }
        port
    }

    /// The guest of a port hears what is sent to it from now on. What it was told when it was plugged in has got lost.
    pub fn listens(&mut self, port: PortId) {
        if let Some(advertiser) = &mut self.advertiser
            && self.ports.contains_key(port)
        {
            advertiser.listens(port);
        }
    }

    /// A port is gone, with everything that was known behind it. Its guests' connections wait a little.
    pub fn remove_port(&mut self, now: Instant, port: PortId) {
        let fdb = &self.fdb;
        let behind: Vec<Mac> = fdb
            .entries()
            .filter(|(_, other)| *other == port)
            .map(|(mac, _)| mac)
            .collect();
        self.nat.orphan(now, |mac| behind.contains(&mac));
        self.fdb.forget_port(port);
        self.changed_macs = true;
        self.reassembly.forget_port(port);
        self.ports.remove(port);
        self.some_isolated = self.isolation || self.ports.values().any(|port| port.isolated);
        self.trunk = self.trunk.filter(|trunk| *trunk != port);
        if let Some(advertiser) = &mut self.advertiser {
            advertiser.unplugged(port);
        }
        self.follow = true;
        // Who waited for room at this port would wait forever.
        self.nat.unpark();
    }

    /// A port's queue towards its guest is full, or has room again.
    pub fn set_port_ready(&mut self, port: PortId, ready: bool) {
        if let Some(port) = self.ports.get_mut(port) {
            port.ready = ready;
        }
        if ready {
            self.nat.unpark();
        }
    }

    /// The address by which the outside reaches the host, if it has any: its services are the gateway's.
    pub fn set_outside(&mut self, address: Option<IpAddr>) {
        self.nat.host.outside = address;
    }

    /// The IPv6 address by which the outside reaches the host, if it has any. Without one, TCP services of the
    /// host are the gateway's by what [`Network::set_outside`] says.
    pub fn set_outside6(&mut self, address: Option<Ipv6Addr>) {
        self.nat.host.outside6 = address;
    }

    /// Flows of the NAT that may exist at once from now on. If more do, each new one takes the place of one.
    pub fn set_flows_max(&mut self, max: usize) {
        self.nat.table.set_max(max);
    }

    /// The host's resolvers, best first.
    pub fn set_resolvers(&mut self, now: Instant, resolvers: &[SocketAddr]) {
        self.services.dns.set_resolvers(now, resolvers);
    }

    // ---- what happens ----------------------------------------------------------------------

    /// Something happened to a socket of the host.
    pub fn event(&mut self, now: Instant, event: &Event<'_>, out: &mut Outbox) {
        let Some(gateway) = self.gateway else {
            return;
        };
        let mut link = link!(self, gateway, now, out);
        match event {
            Event::Answer { .. } | Event::QueryFailed { .. } => {
                self.services.event(&mut link, &self.nat.table, event, None);
            }
            Event::StreamQuery { socket, .. } => {
                let mac = match self.nat.table.get_mut(*socket) {
                    Some(Flow::Tcp(flow)) => Some(flow.mac),
                    _ => return,
                };
                self.services.event(&mut link, &self.nat.table, event, mac);
            }
            _ => self.nat.event(&mut link, event),
        }
    }

    /// What the next stream in line wants to read. Ask until there is none, and after each carry out the
    /// read, [`Event::Peeked`], and what comes of it: so streams take turns.
    pub fn next_read(&mut self, now: Instant, out: &mut Outbox) -> Option<Read> {
        let mut link = link!(self, self.gateway?, now, out);
        self.nat.next_read(&mut link)
    }

    /// Streams are in line to be read: [`Network::next_read`] is to be asked.
    #[must_use]
    pub fn has_reads(&self) -> bool {
        self.nat.has_reads()
    }

    /// A read could not be carried out, as its port has no room: it comes again, once the port is ready
    /// ([`Network::set_port_ready`]).
    pub fn put_back(&mut self, read: &Read) {
        self.nat.put_back(read);
    }

    /// Whether a frame of `len` bytes that begins with `head` is a segment for the NAT that may be received together with those
    /// that go on where it ends: in one call, with their payload as [`Frame::following`](crate::Frame::following).
    #[must_use]
    pub fn succession(&self, head: &[u8], len: usize) -> Option<Succession> {
        let (header, _) = ethernet::Header::read(head)?;
        let gateway = self.gateway?;
        // Where the gateway is the host, the host gets each frame as it is.
        let is_for_nat = gateway.host.is_none() && gateway.mac == header.destination;
        is_for_nat.then(|| Succession::begin(head, len))?
    }

    /// A burst of frames and events is over: acknowledgements go out, rules and names follow their guests.
    ///
    /// `another_follows`: without a pause, and with a later `now`, whether or not there turn out to be frames in it. Acknowledgements that
    /// no guest waits for may then go out together with those of the next.
    pub fn flush(&mut self, now: Instant, another_follows: bool, out: &mut Outbox) {
        self.follow_guests(now, out);
        if let Some(gateway) = self.gateway {
            let mut link = link!(self, gateway, now, out);
            self.services.follow_names(&mut link);
            self.nat.flush(&mut link, another_follows);
            if let Some(advertiser) = &mut self.advertiser {
                advertiser.flush(&mut link);
            }
        }
    }

    /// Rules follow their guests, if these may have moved, and the rules are not to rest.
    fn follow_guests(&mut self, now: Instant, out: &mut Outbox) {
        self.follow |= self.neighbours.take_moved();
        if self.follow && self.follows_from <= now {
            (self.follow, self.followed) = (false, true);
            let rules = self.follow_forwards(now, out);
            self.follows_from = now + REST_PER_RULE * u32::try_from(rules).unwrap_or(u32::MAX);
        }
    }

    /// The network is about to end: guests are told that its router, resolver and prefix do. Carry out what comes of
    /// it, and call nothing else.
    pub fn shutdown(&mut self, now: Instant, out: &mut Outbox) {
        if let (Some(gateway), Some(advertiser)) = (self.gateway, &mut self.advertiser) {
            advertiser.end(&mut link!(self, gateway, now, out));
        }
    }

    /// When [`Network::timeout`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.nat
            .next_deadline()
            .into_iter()
            .chain(self.services.next_deadline())
            .chain(self.advertiser.as_ref().and_then(Advertiser::next_deadline))
            .chain(self.follow.then_some(self.follows_from))
            .min()
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Instant, out: &mut Outbox) {
        if let Some(gateway) = self.gateway {
            let mut link = link!(self, gateway, now, out);
            self.nat.timeout(&mut link);
            self.follow |= self.services.timeout(&mut link, &self.nat.table);
            if let Some(advertiser) = &mut self.advertiser {
                advertiser.timeout(&mut link);
            }
        }
        self.follow_guests(now, out);
    }
}
