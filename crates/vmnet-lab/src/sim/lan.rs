//! A network with its guests and its internet.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use vmnet_core::{
    Config, Dhcp, Dns, Event, Forward, ForwardId, ForwardProtocol, Ipv4, Network, Outbox, Port,
    PortId, SocketId,
};
use vmnet_wire::ethernet::Mac;
use vmnet_wire::offload::Offload;

use crate::sim::clock::Later;
use crate::sim::contract::Contract;
use crate::sim::guest::Guest;
use crate::sim::internet::Internet;
use crate::sim::stream::{Server, Stream};
use crate::sim::trace::Trace;
use crate::sim::trouble::{Dice, Trouble};

/// The way of a frame between port and guest.
pub(super) const WIRE: Duration = Duration::from_micros(20);
/// How long leases are.
pub const LEASE: Duration = Duration::from_secs(3600);

/// A port and the wire to its guest.
pub struct Wire {
    /// Who is at its end.
    pub guest: Guest,
    /// Frames on their way to the guest.
    pub(super) queue: VecDeque<Vec<u8>>,
    /// Frames that the queue holds before the port says that it is full.
    pub limit: usize,
    /// Nothing moves from the queue to the guest.
    pub stuck: bool,
    pub(super) ready: bool,
    pub(super) flush_at: Option<Instant>,
    /// The port takes large segments.
    pub large: bool,
    /// On the way from the guest.
    pub from_guest: Trouble,
    /// On the way to it.
    pub to_guest: Trouble,
    /// What was seen, if wanted.
    pub trace: Option<Trace>,
    /// The largest TCP payload that came to the guest.
    pub largest: usize,
    /// Frames that came to the guest.
    pub frames: usize,
}

/// A network and all around it.
pub struct Lan {
    /// The time.
    pub now: Instant,
    /// When the story began.
    pub start: Instant,
    /// What is tested.
    pub network: Network,
    pub(super) out: Outbox,
    /// The ports.
    pub ports: BTreeMap<PortId, Wire>,
    /// The outside.
    pub internet: Internet,
    /// What the core promised.
    pub contract: Contract,
    /// Chance.
    pub dice: Dice,
    pub(super) hand: Vec<u8>,
    pub(super) hand_offload: Offload,
    pub(super) holds: Vec<Vec<u8>>,
    pub(super) whole: VecDeque<(PortId, Vec<u8>)>,
    pub(super) later: BTreeMap<(Instant, u64), Later>,
    pub(super) count: u64,
    pub(super) rules: BTreeMap<ForwardId, Forward>,
    /// Frames that were forwarded or made, by receiving port.
    pub mtu: u16,
    /// Calls of `timeout`.
    pub timeouts: usize,
    /// The core is told that bursts follow each other without a pause.
    pub another_follows: bool,
}

impl Default for Lan {
    fn default() -> Self {
        Self::new(1500, |_| {})
    }
}

impl Lan {
    /// A network, configured further by `change`.
    pub fn new(mtu: u16, change: impl FnOnce(&mut Config)) -> Self {
        let start = Instant::now();
        let ipv4 = Ipv4::new("192.168.64.0/24".parse().expect("a subnet"));
        let mut config = Config {
            ipv4: Some(ipv4),
            gateway_mac: Mac([0x52, 0x55, 0, 0, 0, 1]),
            mtu,
            dhcp: Some(Dhcp::whole(&ipv4, LEASE)),
            dns: Dns::Proxy,
            resolvers_offered: Vec::new(),
            nat44: true,
            ipv6: None,
            nat66: false,
            router_advertisement: false,
            dhcp6: None,
            isolation: false,
            domain: "vmnet.internal".to_owned(),
            store_leases: false,
            host: None,
            host_loopback: false,
            flows_max: 4096,
            seed: [7; 16],
        };
        change(&mut config);
        Self {
            now: start,
            start,
            network: Network::new(start, &config).expect("a network"),
            out: Outbox::new(),
            ports: BTreeMap::new(),
            internet: Internet::new(),
            contract: Contract::default(),
            dice: Dice::new(1),
            hand: Vec::new(),
            hand_offload: Offload::VALID,
            holds: Vec::new(),
            whole: VecDeque::new(),
            later: BTreeMap::new(),
            count: 0,
            rules: BTreeMap::new(),
            mtu,
            timeouts: 0,
            another_follows: false,
        }
    }

    /// A network with everything of both families, configured further by `change`.
    pub fn dual(change: impl FnOnce(&mut Config)) -> Self {
        Self::new(1500, |config| {
            config.ipv6 = Some("fd00:0:0:64::/64".parse().expect("a prefix"));
            (config.nat66, config.router_advertisement) = (true, true);
            change(config);
        })
    }

    /// The gateway's IPv6 address.
    ///
    /// # Panics
    /// If it has none.
    #[must_use]
    pub fn gateway6(&self) -> Ipv6Addr {
        self.network.gateway_address6().expect("an IPv6 gateway")
    }

    /// Plugs a guest in that makes itself IPv6 addresses, and waits until it has.
    ///
    /// # Panics
    /// If it makes none.
    pub fn add_autonomous(&mut self, number: u8) -> PortId {
        let port = self.plug(Guest::autonomous(number, self.start, self.mtu));
        let limit = Duration::from_secs(5);
        let done = self.run_until(limit, |lan| lan.guest(port).address6().is_some());
        assert!(done, "no address of a prefix");
        // Systems ask whether anybody has an address that they take (RFC 4862 §5.4); smoltcp does not.
        let guest = self.guest(port);
        let (mac, address) = (guest.mac, guest.address6().expect("waited for"));
        self.inject(port, super::packets6::probe(mac, address));
        port
    }

    /// The gateway's address.
    ///
    /// # Panics
    /// If there is no gateway.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.network.gateway_address().expect("a gateway")
    }

    /// The address of the guest behind a port.
    #[must_use]
    pub fn address_of(&self, port: PortId) -> Option<Ipv4Addr> {
        self.network.address_of(self.now, port)
    }

    /// Plugs a guest in.
    pub fn plug(&mut self, guest: Guest) -> PortId {
        self.plug_into(guest, Port::new(256))
    }

    /// Plugs a guest into a port of one's choice.
    pub fn plug_into(&mut self, guest: Guest, port: Port) -> PortId {
        let large = port.large_segments;
        let port = self.network.add_port(port);
        let wire = Wire {
            guest,
            queue: VecDeque::new(),
            limit: 256,
            stuck: false,
            ready: true,
            flush_at: None,
            large,
            from_guest: Trouble::default(),
            to_guest: Trouble::default(),
            trace: None,
            largest: 0,
            frames: 0,
        };
        self.ports.insert(port, wire);
        port
    }

    /// A guest with a stack and the address 192.168.64.`number`.
    pub fn add_guest(&mut self, number: u8) -> PortId {
        let mut guest = Guest::new(number, self.start, self.mtu);
        let gateway = self.network.gateway_address();
        guest.set_address(Ipv4Addr::new(192, 168, 64, number), 24, gateway);
        self.plug(guest)
    }

    /// A guest of raw frames, which has introduced itself by ARP.
    pub fn add_raw(&mut self, number: u8) -> PortId {
        let guest = Guest::raw(number, self.start, self.mtu);
        let mac = guest.mac;
        let port = self.plug(guest);
        let address = Ipv4Addr::new(192, 168, 64, number);
        let target = self.network.gateway_address().unwrap_or(address);
        self.inject(
            port,
            super::packets::arp_request(mac, (mac, address), target),
        );
        self.guest(port).heard.clear();
        port
    }

    /// Unplugs a guest.
    pub fn unplug(&mut self, port: PortId) -> Guest {
        let wire = self.ports.remove(&port).expect("a port");
        self.network.remove_port(self.now, port);
        self.settle();
        wire.guest
    }

    /// The network ends: what it has to say last reaches its guests.
    pub fn shutdown(&mut self) {
        self.network.shutdown(self.now, &mut self.out);
        self.run_for(WIRE * 2);
    }

    /// The guest of a port.
    pub fn guest(&mut self, port: PortId) -> &mut Guest {
        &mut self.wire(port).guest
    }

    /// The wire of a port.
    pub fn wire(&mut self, port: PortId) -> &mut Wire {
        self.ports.get_mut(&port).expect("a port")
    }

    /// A frame leaves a guest now, and everything that it leads to at once happens.
    pub fn inject(&mut self, port: PortId, frame: Vec<u8>) {
        self.guest(port).inject(frame);
        self.run_for(WIRE * 2);
    }

    /// Frames that came to a listening guest since the last question.
    pub fn heard(&mut self, port: PortId) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.guest(port).heard)
    }

    /// A rule that forwards a port of the host, and its socket if it is one for UDP.
    pub fn forward(&mut self, rule: Forward) -> (ForwardId, Option<SocketId>) {
        let id = self.network.add_forward(rule);
        self.rules.insert(id, rule);
        let socket = if rule.protocol == ForwardProtocol::Udp {
            let socket = self.network.forward_socket(self.now, id, &mut self.out);
            if let Some(socket) = socket {
                self.adopt(socket, rule.listen.port());
            }
            socket
        } else {
            None
        };
        self.settle();
        (id, socket)
    }

    /// A socket that was bound for a UDP rule is a flow's from now on.
    pub fn adopt(&mut self, socket: SocketId, port: u16) {
        self.contract.open(socket);
        let bare = super::internet::Bare::Udp(port);
        self.internet.bare.insert(socket, bare);
    }

    /// A rule is gone.
    pub fn unforward(&mut self, rule: ForwardId) {
        self.rules.remove(&rule);
        self.network.remove_forward(rule, &mut self.out);
        self.settle();
    }

    /// A client connects to a forwarded port.
    pub fn dial(
        &mut self,
        rule: ForwardId,
        client: SocketAddr,
        server: Server,
    ) -> Option<SocketId> {
        let mut stream = Stream::new(client, server);
        stream.connected = true;
        let room = stream.room();
        let socket = self
            .network
            .accepted(self.now, rule, client, room, &mut self.out)?;
        self.contract.open(socket);
        self.internet.streams.insert(socket, stream);
        self.drain();
        Some(socket)
    }

    /// A datagram comes to a socket from the outside.
    pub fn datagram(&mut self, socket: SocketId, from: &str, payload: &[u8]) {
        let from = from.parse().expect("an address");
        self.after(
            Duration::ZERO,
            Later::Datagram(socket, from, payload.to_vec()),
        );
        self.run_for(WIRE * 2);
    }

    /// Tells the core that something happened to a socket, if it is still open.
    pub fn event(&mut self, event: &Event<'_>) {
        self.network.event(self.now, event, &mut self.out);
        self.drain();
    }

    /// The address of a server as smoltcp wants it.
    #[must_use]
    pub fn v4(address: &str) -> SocketAddrV4 {
        address.parse().expect("an address")
    }
}

impl Wire {
    pub(super) fn arrive(&mut self, frame: Vec<u8>) {
        if let Some(trace) = &mut self.trace {
            trace.note(false, &frame);
        }
        if let Some((_, _, _, payload)) = super::packets::read_tcp(&frame) {
            self.largest = self.largest.max(payload.len());
        }
        self.frames += 1;
        self.guest.arrive(frame);
    }

    /// Frames that wait for the guest.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn wakes(&mut self, now: Instant) {
        if self.flush_at.is_none() {
            self.flush_at = Some(now + WIRE);
        }
    }
}
