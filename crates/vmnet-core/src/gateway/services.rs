//! DHCP and DNS joined to the network: who asked, where the answer goes. What leases bring with them is in
//! `leases`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use vmnet_wire::checksum::Sum;
use vmnet_wire::ethernet::Mac;
use vmnet_wire::ip::{self, Protocol};
use vmnet_wire::segment::Fragments;
use vmnet_wire::{ipv4, ipv6, udp};
use zerocopy::IntoBytes;

use crate::drop::Drop;
use crate::event::Event;
use crate::gateway::guest_names::GuestNames;
use crate::gateway::leases::Leasing;
use crate::gateway::register::{Address, Register, Reservee};
use crate::gateway::{dhcp, dhcp6, dns};
use crate::link::{Link, Route};
use crate::nat::destination::DNS;
use crate::nat::table::Table;
use crate::outbox::{Action, SocketId};

/// Who asked a DNS question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    /// By a datagram to this address of ours.
    Datagram {
        mac: Mac,
        from: SocketAddr,
        to: IpAddr,
    },
    /// By a stream.
    Stream(SocketId),
}

/// The gateway's services that keep state.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) dhcp: Option<Leasing<dhcp::Server, Ipv4Addr>>,
    pub(crate) dhcp6: Option<Leasing<dhcp6::Server, Ipv6Addr>>,
    pub(super) names: GuestNames,
    pub(crate) dns: DnsProxy,
    /// Filled by the proxy, emptied at once.
    outputs: Vec<dns::Output<Asker>>,
}

/// The proxy, opaque to others.
#[derive(Debug)]
pub(crate) struct DnsProxy(pub(super) dns::Proxy<Asker>);

impl DnsProxy {
    pub(crate) fn new(config: &dns::Config) -> Result<Self, dns::ConfigError> {
        dns::Proxy::new(config).map(Self)
    }

    pub(crate) fn set_resolvers(&mut self, now: Instant, resolvers: &[SocketAddr]) {
        self.0.set_resolvers(now, resolvers);
    }

    /// The addresses that have a name, one of each family.
    pub(crate) fn addresses_of(&self, name: &dns::Label) -> [Option<IpAddr>; 2] {
        self.0.addresses_of(name.as_str())
    }

    pub(crate) fn address_named(&self, name: &dns::Label) -> Option<Ipv4Addr> {
        self.0.address_named(name)
    }

    pub(crate) fn counters(&self) -> &dns::Counters {
        self.0.counters()
    }
}

impl Services {
    pub(crate) fn new(
        dhcp: Option<dhcp::Server>,
        dhcp6: Option<dhcp6::Server>,
        store_leases: bool,
        dns: DnsProxy,
    ) -> Self {
        Self {
            dhcp: dhcp.map(|server| Leasing::new(server, store_leases)),
            dhcp6: dhcp6.map(|server| Leasing::new(server, store_leases)),
            names: GuestNames::default(),
            dns,
            outputs: Vec::new(),
        }
    }

    /// A DNS question by a datagram between the two of `ends`: a guest, and an address of ours.
    pub(crate) fn receive_dns(
        &mut self,
        link: &mut Link<'_>,
        streams: &Table,
        mac: Mac,
        ends: (SocketAddr, IpAddr),
        message: &[u8],
    ) {
        let (from, to) = ends;
        self.question(
            link,
            streams,
            Asker::Datagram { mac, from, to },
            dns::Transport::Udp,
            guest(mac),
            message,
        );
    }

    fn question(
        &mut self,
        link: &mut Link<'_>,
        streams: &Table,
        asker: Asker,
        transport: dns::Transport,
        guest: dns::Guest,
        message: &[u8],
    ) {
        let asked = self.dns.0.query(
            link.now,
            guest,
            asker,
            transport,
            message,
            &mut self.outputs,
        );
        if asked.is_err() {
            link.drop(Drop::Dns);
        }
        self.empty(link, streams);
    }

    /// Something happened that concerns DNS. `mac` is that of the guest whose stream it is.
    /// `streams`: those that are still open.
    pub(crate) fn event(
        &mut self,
        link: &mut Link<'_>,
        streams: &Table,
        event: &Event<'_>,
        mac: Option<Mac>,
    ) {
        match *event {
            Event::Answer { query, message } => {
                self.dns
                    .0
                    .answer(link.now, query, message, &mut self.outputs);
            }
            Event::QueryFailed { query } => self.dns.0.failed(link.now, query, &mut self.outputs),
            Event::StreamQuery { socket, message } => {
                let guest = guest(mac.unwrap_or_default());
                return self.question(
                    link,
                    streams,
                    Asker::Stream(socket),
                    dns::Transport::Tcp,
                    guest,
                    message,
                );
            }
            _ => {}
        }
        self.empty(link, streams);
    }

    /// Time has passed. Answers whether leases have ended.
    pub(crate) fn timeout(&mut self, link: &mut Link<'_>, streams: &Table) -> bool {
        let ended = self.timeout_leases(link);
        self.dns.0.timeout(link.now, &mut self.outputs);
        self.empty(link, streams);
        ended
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let dns = self.dns.0.next_deadline();
        self.leases_deadline().into_iter().chain(dns).min()
    }

    fn empty(&mut self, link: &mut Link<'_>, streams: &Table) {
        let mut outputs = core::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                dns::Output::Ask {
                    query,
                    resolver,
                    transport,
                    message,
                } => {
                    let message = link.out.write(&[&message]);
                    link.out.push(Action::Ask {
                        query,
                        resolver,
                        transport,
                        message,
                    });
                }
                dns::Output::Forget { query } => link.out.push(Action::Forget { query }),
                dns::Output::Reply {
                    asker: Asker::Datagram { mac, from, to },
                    message,
                } => {
                    let own = SocketAddr::new(to, DNS);
                    self.send_from(link, mac, own, from, &message);
                }
                dns::Output::Reply {
                    asker: Asker::Stream(socket),
                    message,
                } => {
                    // The guest may have closed it while the resolver was asked.
                    if streams.contains(socket) {
                        let message = link.out.write(&[&message]);
                        link.out.push(Action::StreamAnswer { socket, message });
                    }
                }
            }
        }
        self.outputs = outputs;
    }

    /// Sends a datagram from the gateway, by the address that a guest of that address knows.
    pub(super) fn send(
        &self,
        link: &mut Link<'_>,
        mac: Mac,
        port: u16,
        to: SocketAddr,
        payload: &[u8],
    ) {
        if let Some(own) = link.gateway.facing(to.ip()) {
            self.send_from(link, mac, SocketAddr::new(own, port), to, payload);
        }
    }

    /// Sends a datagram from an address of ours, in fragments if it must be.
    fn send_from(
        &self,
        link: &mut Link<'_>,
        mac: Mac,
        own: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) {
        let (source, port) = (own.ip(), own.port());
        let len = udp::Header::LEN + payload.len();
        let mut route = Route::new(source, to.ip(), Protocol::UDP);
        let header = if source.is_ipv4() {
            ipv4::Header::LEN
        } else {
            ipv6::Header::LEN
        };
        if len + header > usize::from(link.gateway.mtu) {
            route = link.divisible(route);
        }
        let headers = link.headers(mac, route, len);
        let sum = ip::pseudo_header(source, to.ip(), Protocol::UDP, len)
            .with(udp::Header::new(port, to.port(), payload.len(), 0).as_bytes())
            .with(payload);
        let header = udp::Header::new(port, to.port(), payload.len(), Sum::finish_udp(sum));
        let pieces: [&[u8]; 3] = [headers.bytes(), header.as_bytes(), payload];
        if route.dont_fragment {
            return link.send(mac, &pieces);
        }
        let frame = pieces.concat();
        for (head, range) in Fragments::new(&frame, usize::from(link.gateway.mtu))
            .into_iter()
            .flatten()
        {
            link.send(mac, &[head.bytes(), frame.get(range).unwrap_or(&[])]);
        }
    }

    /// What is known of every IPv4 address, if there is a DHCP server.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &dhcp::Lease> {
        let dhcp = self.dhcp.iter();
        dhcp.flat_map(|dhcp| dhcp.register().leases())
    }

    /// What is known of every IPv6 address, if there is a DHCPv6 server.
    pub(crate) fn leases6(&self) -> impl Iterator<Item = &dhcp6::Lease> {
        let dhcp6 = self.dhcp6.iter();
        dhcp6.flat_map(|dhcp6| dhcp6.register().leases())
    }

    /// Whether an address is leased to this MAC or to another; if to nobody, whether it is kept for this one. `None`: it is
    /// neither leased nor kept.
    pub(crate) fn is_its_own(&self, address: IpAddr, mac: Mac) -> Option<bool> {
        match address {
            IpAddr::V4(address) => whose(self.dhcp.as_ref()?.register(), address, mac),
            IpAddr::V6(address) => whose(self.dhcp6.as_ref()?.register(), address, mac),
        }
    }

    /// The IPv6 address that a MAC has leased, if several the one that it keeps longest.
    pub(crate) fn leased6_by(&self, mac: Mac) -> Option<Ipv6Addr> {
        let leases = (self.dhcp6.iter()).flat_map(|dhcp| dhcp.register().leases_of(mac));
        leases
            .filter(|lease| lease.state == dhcp::State::Bound)
            .max_by_key(|lease| lease.expires)
            .map(|lease| lease.address)
    }

    /// The address that is leased by the MAC seen last, among those that `seen` knows.
    pub(crate) fn address_of(&self, seen: impl Fn(Mac) -> Option<Instant>) -> Option<Ipv4Addr> {
        self.leases()
            .filter(|lease| lease.state == dhcp::State::Bound)
            .filter_map(|lease| Some((seen(lease.mac)?, lease)))
            .max_by_key(|(seen, lease)| (*seen, lease.expires))
            .map(|(_, lease)| lease.address)
    }
}

/// See [`Services::is_its_own`].
fn whose<A: Address>(register: &Register<A>, address: A, mac: Mac) -> Option<bool> {
    let lease = register.lease(address);
    let bound = lease.filter(|lease| lease.state == dhcp::State::Bound);
    // Who is meant by an id or a name is known when it takes the lease.
    let kept = || {
        register
            .kept_for(address)
            .map(|of| *of == Reservee::Mac(mac))
    };
    bound.map(|lease| lease.mac == mac).or_else(kept)
}

/// All questions from one MAC are one guest's.
fn guest(mac: Mac) -> dns::Guest {
    let [a, b, c, d, e, f] = mac.0;
    dns::Guest(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}
