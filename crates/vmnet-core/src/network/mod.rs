//! One network: its ports, its gateway, its NAT. Values in, values out; the clock is an argument.
//!
//! | file | what |
//! | --- | --- |
//! | `config` | what a network is to be |
//! | `frames` | a frame came: who takes it |
//! | `forward` | rules that lead to guests, and who these are now |
//! | `leases` | leases stored, put back and ended, addresses reserved |
//! | `look` | what a network tells about itself |

use core::net::{IpAddr, SocketAddr};
use std::time::Instant;

use slotmap::SlotMap;
use vmnet_wire::ethernet::Mac;

use crate::drop::Drops;
use crate::event::{Event, Read};
use crate::gateway::services::{DnsProxy, Services};
use crate::gateway::{dhcp, dns};
use crate::link::{Gateway, Link, Neighbours, PacketIds};
use crate::nat::Nat;
use crate::nat::destination::HostAccess;
use crate::nat::table::Flow;
use crate::outbox::{Outbox, PortId};
use crate::reassembly::Reassembly;
use crate::switch::fdb::Fdb;
use crate::switch::port::Port;

/// Borrows the parts of a network that sending needs, apart from those that decide.
macro_rules! link {
    ($self:ident, $now:expr, $out:expr) => {
        Link {
            now: $now,
            gateway: $self.gateway,
            ports: &$self.ports,
            fdb: &$self.fdb,
            neighbours: &mut $self.neighbours,
            ids: &mut $self.ids,
            drops: &mut $self.drops,
            out: $out,
        }
    };
}

mod config;
mod forward;
mod frames;
mod leases;
mod look;

pub use config::{Config, ConfigError, MTU_MAX, MTU_MIN};

/// One network.
#[derive(Debug)]
pub struct Network {
    gateway: Gateway,
    ports: SlotMap<PortId, Port>,
    fdb: Fdb,
    neighbours: Neighbours,
    services: Services,
    nat: Nat,
    reassembly: Reassembly,
    ids: PacketIds,
    drops: Drops,
}

impl Network {
    /// A network without ports.
    ///
    /// # Errors
    /// What of `config` cannot be.
    pub fn new(now: Instant, config: &Config) -> Result<Self, ConfigError> {
        if !(MTU_MIN..=MTU_MAX).contains(&config.mtu) {
            return Err(ConfigError::Mtu(config.mtu));
        }
        let gateway = Gateway {
            mac: config.gateway_mac,
            subnet: config.subnet,
            mtu: config.mtu,
        };
        let dhcp = dhcp::Server::new(dhcp::Config {
            gateway: gateway.address(),
            prefix_len: config.subnet.prefix_len(),
            first: config.subnet.first(),
            last: config.subnet.last(),
            lease_time: config.lease_time,
            mtu: config.mtu,
            domain: config.domain.clone(),
            search: vec![config.domain.clone()],
            resolvers: vec![gateway.address()],
            routes: Vec::new(),
        })?;
        let dns = DnsProxy::new(&dns::Config {
            domain: config.domain.clone(),
            gateway: vec![IpAddr::V4(gateway.address())],
            subnets: vec![(
                IpAddr::V4(config.subnet.network()),
                config.subnet.prefix_len(),
            )],
            seed: config.seed,
        })?;
        let host = HostAccess {
            outside: None,
            loopback: config.host_loopback,
        };
        Ok(Self {
            gateway,
            ports: SlotMap::with_key(),
            fdb: Fdb::default(),
            neighbours: Neighbours::default(),
            services: Services::new(dhcp, config.store_leases, dns),
            nat: Nat::new(now, config.flows_max, host),
            reassembly: Reassembly::default(),
            ids: PacketIds::default(),
            drops: Drops::default(),
        })
    }

    // ---- changes ---------------------------------------------------------------------------

    /// A guest's place on the switch.
    pub fn add_port(&mut self, port: Port) -> PortId {
        self.ports.insert(port)
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
        self.reassembly.forget_port(port);
        self.ports.remove(port);
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

    /// The host's resolvers, best first.
    pub fn set_resolvers(&mut self, now: Instant, resolvers: &[SocketAddr]) {
        self.services.dns.set_resolvers(now, resolvers);
    }

    // ---- what happens ----------------------------------------------------------------------

    /// Something happened to a socket of the host.
    pub fn event(&mut self, now: Instant, event: &Event<'_>, out: &mut Outbox) {
        let mut link = link!(self, now, out);
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
        let mut link = link!(self, now, out);
        self.nat.next_read(&mut link)
    }

    /// A burst of frames and events is over: acknowledgements go out.
    pub fn flush(&mut self, now: Instant, out: &mut Outbox) {
        let mut link = link!(self, now, out);
        self.nat.flush(&mut link);
    }

    /// When [`Network::timeout`] wants to be called next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.nat
            .next_deadline()
            .into_iter()
            .chain(self.services.next_deadline())
            .min()
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Instant, out: &mut Outbox) {
        let mut link = link!(self, now, out);
        self.nat.timeout(&mut link);
        self.services.timeout(&mut link, &self.nat.table);
    }
}
