//! One network: its ports, its gateway, its NAT. Values in, values out; the clock is an argument.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use slotmap::SlotMap;
use vmnet_wire::ethernet::{self, EtherType, Mac};
use vmnet_wire::icmpv4;
use vmnet_wire::ip::Protocol;
use vmnet_wire::{ipv4, udp};
use zerocopy::IntoBytes;

use crate::drop::{Drop, Drops};
use crate::event::{Event, Read};
use crate::frame::{Frame, Span};
use crate::gateway::services::{DnsProxy, Services};
use crate::gateway::{arp, dhcp, dns, icmp};
use crate::link::{Gateway, Link, Neighbours, PacketIds};
use crate::nat::Nat;
use crate::nat::destination::HostAccess;
use crate::nat::outward::Outward;
use crate::nat::port_forward::{Forward, ForwardGuest, ForwardProtocol};
use crate::nat::table::Flow;
use crate::outbox::{Action, ForwardId, Outbox, PortId, SocketId};
use crate::reassembly::{Key, Reassembly};
use crate::subnet::Subnet;
use crate::switch::fdb::{Fdb, Learned};
use crate::switch::port::Port;
use crate::switch::spoof;

/// The smallest MTU that IPv4 lets a link have and DHCP option 26 may name (RFC 2132 §5.1 says 68; a host
/// must take 576).
pub const MTU_MIN: u16 = 576;
/// The largest MTU: what fits an IPv4 packet, less what our buffers add.
pub const MTU_MAX: u16 = 65_520;

/// What a network is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where guests' addresses come from.
    pub subnet: Subnet,
    /// The gateway's MAC address.
    pub gateway_mac: Mac,
    /// The largest IP packet on the network, [`MTU_MIN`] to [`MTU_MAX`].
    pub mtu: u16,
    /// The domain of guests' names.
    pub domain: String,
    /// How long a guest may keep an address without asking again.
    pub lease_time: Duration,
    /// The gateway's address reaches services on the host's loopback too.
    pub host_loopback: bool,
    /// Flows of the NAT that may exist at once.
    pub flows_max: usize,
    /// Random bits, fresh for each network: they make DNS ids unpredictable.
    pub seed: [u8; 16],
}

/// Why a network cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// See [`MTU_MIN`] and [`MTU_MAX`].
    #[error("the MTU is {0}; it must be {MTU_MIN} to {MTU_MAX}")]
    Mtu(u16),
    /// The DHCP server cannot work with it.
    #[error(transparent)]
    Dhcp(#[from] dhcp::ConfigError),
    /// The DNS proxy cannot work with it.
    #[error(transparent)]
    Dns(#[from] dns::ConfigError),
}

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
            services: Services::new(dhcp, dns),
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

    /// The host now listens for a forwarded port.
    pub fn add_forward(&mut self, rule: Forward) -> ForwardId {
        self.nat.forwards.rules.insert(rule)
    }

    /// The host listens no longer. Connections that were accepted go on.
    pub fn remove_forward(&mut self, rule: ForwardId, out: &mut Outbox) {
        self.nat.remove_forward(rule, out);
    }

    /// The socket of a UDP rule, which the caller has bound and names so from now on: it stays the same as long as
    /// the rule, and follows the guest to other addresses. `None` while the guest of the rule has no address, and
    /// if the rule is not one for UDP: ask again when a datagram comes.
    pub fn forward_socket(
        &mut self,
        now: Instant,
        rule: ForwardId,
        out: &mut Outbox,
    ) -> Option<SocketId> {
        let (guest, forward) = self.forward_guest(rule)?;
        if forward.protocol != ForwardProtocol::Udp {
            return None;
        }
        let guest = SocketAddr::new(IpAddr::V4(guest), forward.guest_port);
        let mut link = link!(self, now, out);
        Some(self.nat.forward_socket(&mut link, rule, guest))
    }

    // ---- what happens ----------------------------------------------------------------------

    /// A frame came from a guest.
    pub fn receive(&mut self, now: Instant, port: PortId, frame: &Frame<'_>, out: &mut Outbox) {
        if let Err(cause) = self.switch(now, port, frame, out) {
            self.drops.count(cause);
        }
    }

    fn switch(
        &mut self,
        now: Instant,
        port: PortId,
        frame: &Frame<'_>,
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        let (header, payload) = ethernet::Header::read(frame.head).ok_or(Drop::Malformed)?;
        let (source, to) = (header.source, header.destination);
        if !source.is_unicast() {
            return Err(Drop::SourceMac);
        }
        let place = self.ports.get(port).ok_or(Drop::NoPort)?;
        if source == self.gateway.mac || place.mac.is_some_and(|mac| mac != source) {
            return Err(Drop::Spoofed);
        }
        match self.fdb.learn(now, source, port) {
            Learned::Known => {}
            Learned::Fresh => self.follow_forwards(now, out),
            Learned::Moved(before) => {
                // Who waited for room at the port before need not wait at this one.
                let waits = self.ports.get(before).is_some_and(|port| !port.ready);
                if waits && self.ports.get(port).is_some_and(|port| port.ready) {
                    self.nat.unpark();
                }
                self.follow_forwards(now, out);
            }
            Learned::NoRoom => return Err(Drop::MacTableFull),
        }
        spoof::refuse(&self.gateway, header.ether_type(), payload)?;
        let for_gateway = to == self.gateway.mac;
        if for_gateway || to.is_multicast() || header.ether_type() == EtherType::ARP {
            let from = From {
                port,
                mac: source,
                for_gateway,
            };
            self.gateway(now, from, header.ether_type(), frame, payload, out)?;
        }
        if !for_gateway {
            self.forward(now, port, to, out);
        }
        Ok(())
    }

    /// To the port where `to` is, or to all others if nobody knows or all are meant.
    fn forward(&self, now: Instant, from: PortId, to: Mac, out: &mut Outbox) {
        let known = if to.is_multicast() {
            None
        } else {
            self.fdb.look_up(now, to)
        };
        match known {
            // The guest is behind the port that the frame came from: it has it already.
            Some(port) if port == from => {}
            Some(port) => out.push(Action::Forward { port }),
            None => {
                for port in self.ports.keys().filter(|port| *port != from) {
                    out.push(Action::Forward { port });
                }
            }
        }
    }

    /// A frame that the gateway may have to take, alone or among others.
    fn gateway(
        &mut self,
        now: Instant,
        from: From,
        ether_type: EtherType,
        frame: &Frame<'_>,
        payload: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        let mut link = link!(self, now, out);
        match ether_type {
            EtherType::ARP => arp::receive(&mut link, from.mac, payload),
            EtherType::IPV4 => {
                let len = frame.len.saturating_sub(ethernet::Header::LEN);
                match ipv4::Packet::read(payload, len) {
                    Ok(packet) => self.receive_ipv4(now, from, frame, (&packet, payload), out),
                    // What is not for us is none of our business.
                    Err(_) if !from.for_gateway => Ok(()),
                    Err(ipv4::Malformed::Checksum) => Err(Drop::Checksum),
                    Err(_) => Err(Drop::Malformed),
                }
            }
            _ if from.for_gateway => Err(Drop::Protocol),
            _ => Ok(()),
        }
    }

    fn receive_ipv4(
        &mut self,
        now: Instant,
        from: From,
        frame: &Frame<'_>,
        (packet, bytes): (&ipv4::Packet<'_>, &[u8]),
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        let (source, to) = (packet.header.source(), packet.header.destination());
        let subnet = self.gateway.subnet;
        let start = ethernet::Header::LEN + packet.header_len;
        let broadcast = to.is_broadcast() || to == subnet.broadcast();
        let ours = to == self.gateway.address();
        if (broadcast || ours) && !packet.header.is_fragment() && is_dhcp(packet) {
            let mut link = link!(self, now, out);
            let request = dhcp::Request {
                ethernet_source: from.mac,
                ip_source: source,
                ip_destination: to,
                payload: datagram(packet)?.1,
            };
            self.services.receive_dhcp(&mut link, &request);
            self.follow_forwards(now, out);
            return Ok(());
        }
        if !from.for_gateway {
            return Ok(());
        }
        if !subnet.is_guest(source) {
            return Err(Drop::ForeignSource);
        }
        self.neighbours.learn(now, IpAddr::V4(source), from.mac);
        if packet.header.is_fragment() {
            return self.receive_fragment(now, from, packet, bytes, out);
        }
        let mut link = link!(self, now, out);
        let outward = Outward::ipv4(
            from.mac,
            bytes,
            packet,
            ethernet::Header::LEN,
            frame.offload,
        );
        match packet.header.protocol() {
            Protocol::UDP if ours && is_dns(packet) => {
                if frame.offload.checksum == vmnet_wire::offload::Checksum::Wrong {
                    return Err(Drop::Checksum);
                }
                let (header, message) = datagram(packet)?;
                let guest = SocketAddr::new(IpAddr::V4(source), header.source_port());
                self.services
                    .receive_dns(&mut link, &self.nat.table, from.mac, guest, message);
            }
            Protocol::ICMPV4 if ours => {
                let request = icmpv4::Header::read(packet.payload).ok_or(Drop::Malformed)?;
                if request.kind != icmpv4::ECHO_REQUEST {
                    return Err(Drop::NoService);
                }
                let body = Span {
                    start,
                    len: packet.payload_len,
                };
                icmp::echo_reply(&mut link, from.mac, IpAddr::V4(source), request, body);
            }
            protocol => self.nat.receive(&mut link, protocol, &outward),
        }
        Ok(())
    }

    /// A piece of a datagram: kept until the others are there.
    fn receive_fragment(
        &mut self,
        now: Instant,
        from: From,
        packet: &ipv4::Packet<'_>,
        bytes: &[u8],
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        let header = packet.header;
        let key = Key {
            port: from.port,
            source: header.source(),
            destination: header.destination(),
            protocol: header.protocol(),
            id: header.id(),
        };
        let offset = header.fragment_offset();
        let place = offset..offset + packet.payload_len;
        let kept = self
            .reassembly
            .receive(now, key, place, header.more_fragments())?;
        let start = ethernet::Header::LEN + packet.header_len;
        let span = Span {
            start,
            len: packet.payload_len,
        };
        out.push(Action::Hold {
            buffer: kept.buffer,
            at: offset,
            span,
        });
        let Some(len) = kept.complete else {
            return Ok(());
        };
        let ethernet = ethernet::Header::new(self.gateway.mac, from.mac, EtherType::IPV4);
        let header = bytes.get(..packet.header_len).ok_or(Drop::Malformed)?;
        let headers = out.write(&[ethernet.as_bytes(), header]);
        let total = packet.header_len + len;
        if let Some(whole) = out.bytes_mut(&headers).get_mut(ethernet::Header::LEN..) {
            ipv4::rewrite(whole, total, packet.header.id(), ipv4::Fragment::default());
        }
        out.push(Action::Reassemble {
            port: from.port,
            headers,
            buffer: kept.buffer,
            len,
        });
        Ok(())
    }

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

    /// A client connected to a forwarded TCP port: the answer names its socket from now on. `None`: it
    /// cannot be served, and is to be reset. `room` is what its send queue takes, in bytes.
    pub fn accepted(
        &mut self,
        now: Instant,
        rule: ForwardId,
        client: SocketAddr,
        room: usize,
        out: &mut Outbox,
    ) -> Option<SocketId> {
        let (guest, forward) = self.forward_guest(rule)?;
        let mut link = link!(self, now, out);
        self.nat
            .accepted(&mut link, (guest, forward.guest_port), client, room)
    }

    /// The address of the guest that a rule leads to, if it has one.
    fn forward_guest(&self, rule: ForwardId) -> Option<(Ipv4Addr, Forward)> {
        let forward = *self.nat.forwards.rules.get(rule)?;
        let address = match forward.guest {
            ForwardGuest::Address(address) => address,
            ForwardGuest::Port(port) => self.address_of(port)?,
        };
        Some((address, forward))
    }

    /// Sockets of UDP rules follow the guests behind ports to their addresses.
    fn follow_forwards(&mut self, now: Instant, out: &mut Outbox) {
        let follow: Vec<(ForwardId, SocketAddr)> = self
            .nat
            .forwards
            .followers()
            .filter_map(|(rule, port, guest_port)| {
                let address = self.address_of(port)?;
                Some((rule, SocketAddr::new(IpAddr::V4(address), guest_port)))
            })
            .collect();
        for (rule, guest) in follow {
            let mut link = link!(self, now, out);
            self.nat.forward_socket(&mut link, rule, guest);
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

    // ---- lookers ---------------------------------------------------------------------------

    /// Counts a frame that the caller could not deliver.
    pub fn count_drop(&mut self, cause: Drop) {
        self.drops.count(cause);
    }

    /// Why frames were dropped, and how many.
    #[must_use]
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// What the DNS proxy has seen.
    #[must_use]
    pub fn dns_counters(&self) -> &dns::Counters {
        self.services.dns.counters()
    }

    /// Flows of the NAT.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.nat.table.len()
    }

    /// Addresses that guests have, had, or were offered.
    pub fn leases(&self) -> impl Iterator<Item = &dhcp::Lease> {
        self.services.dhcp.leases()
    }

    /// The address that the guest behind a port has leased. If several have, that of the one heard last.
    #[must_use]
    pub fn address_of(&self, port: PortId) -> Option<Ipv4Addr> {
        self.services
            .address_of(|mac| self.fdb.seen_behind(port, mac))
    }

    /// The MAC addresses that were seen behind a port.
    pub fn macs_behind(&self, port: PortId) -> impl Iterator<Item = Mac> {
        let entries = self.fdb.entries().filter(move |(_, other)| *other == port);
        entries.map(|(mac, _)| mac)
    }

    /// The gateway's MAC address.
    #[must_use]
    pub fn gateway_mac(&self) -> Mac {
        self.gateway.mac
    }

    /// Where guests' addresses come from.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.gateway.subnet
    }

    /// The gateway's IPv4 address.
    #[must_use]
    pub fn gateway_address(&self) -> Ipv4Addr {
        self.gateway.address()
    }

    /// The largest IP packet.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.gateway.mtu
    }

    /// One port.
    #[must_use]
    pub fn port(&self, port: PortId) -> Option<&Port> {
        self.ports.get(port)
    }

    /// The ports.
    pub fn ports(&self) -> impl Iterator<Item = (PortId, &Port)> {
        self.ports.iter()
    }
}

/// Whence a frame came, and whether it was for the gateway alone.
#[derive(Clone, Copy, Debug)]
struct From {
    port: PortId,
    mac: Mac,
    for_gateway: bool,
}

fn is_dhcp(packet: &ipv4::Packet<'_>) -> bool {
    goes_to(packet, dhcp::SERVER_PORT)
}

fn is_dns(packet: &ipv4::Packet<'_>) -> bool {
    goes_to(packet, 53)
}

fn goes_to(packet: &ipv4::Packet<'_>, port: u16) -> bool {
    packet.header.protocol() == Protocol::UDP
        && udp::Header::read(packet.payload)
            .is_some_and(|(header, _)| header.destination_port() == port)
}

/// A datagram for a service: all of it must be there.
fn datagram<'a>(packet: &ipv4::Packet<'a>) -> Result<(&'a udp::Header, &'a [u8]), Drop> {
    let (header, payload) = udp::Header::read(packet.payload).ok_or(Drop::Malformed)?;
    let len = header
        .len()
        .checked_sub(udp::Header::LEN)
        .ok_or(Drop::Malformed)?;
    Ok((header, payload.get(..len).ok_or(Drop::Malformed)?))
}
