//! A guest: smoltcp's stack behind a network card in memory, or nothing but frames.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::{dhcpv4, icmp, tcp, udp};
use smoltcp::storage::PacketMetadata;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Cidr, Ipv6Cidr};
use vmnet_wire::ethernet::Mac;
use vmnet_wire::ndp;

/// How long a guest believes an ARP answer, before it hears it again. smoltcp forgets a neighbour after a minute even
/// while its connections get on, and a segment that finds none loses its retransmission timer with it.
const ARP_FRESH: Duration = Duration::from_secs(30);

/// An ARP answer from its type field on: Ethernet and IPv4, a reply.
const ARP_ANSWER: [u8; 10] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2];

/// A network card in memory.
#[derive(Debug)]
struct Card {
    mtu: usize,
    arrived: VecDeque<Vec<u8>>,
    leaving: VecDeque<Vec<u8>>,
}

impl Device for Card {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(
        &mut self,
        _now: smoltcp::time::Instant,
    ) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((Arrived(frame), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        (self.leaving.len() < 1024).then_some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities.medium = Medium::Ethernet;
        let mut checksum = ChecksumCapabilities::default();
        checksum.tcp = Checksum::Both;
        capabilities.checksum = checksum;
        capabilities
    }
}

struct Arrived(Vec<u8>);

impl smoltcp::phy::RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl smoltcp::phy::TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

struct Stack {
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
}

/// A guest of a simulated network.
pub struct Guest {
    /// Its MAC address.
    pub mac: Mac,
    /// Frames that came to it, if `listening`.
    pub heard: Vec<Vec<u8>>,
    /// Keep frames in `heard`.
    pub listening: bool,
    /// The lease that DHCP gave it.
    pub lease: Option<dhcpv4::Config<'static>>,
    /// It does nothing at all: no frame leaves it, none is read.
    pub paused: bool,
    card: Card,
    stack: Option<Stack>,
    start: Instant,
    /// The last ARP answer, and when it was heard.
    neighbour: Option<(Vec<u8>, Instant)>,
}

impl Guest {
    /// A guest whose MAC ends in `number`, with a stack but without an address.
    #[must_use]
    pub fn new(number: u8, start: Instant, mtu: u16) -> Self {
        Self::with_stack(number, start, mtu, false)
    }

    /// The same, which makes itself IPv6 addresses: one of the link, and one of every prefix that it hears of (RFC 4862).
    #[must_use]
    pub fn autonomous(number: u8, start: Instant, mtu: u16) -> Self {
        let mut guest = Self::with_stack(number, start, mtu, true);
        let address = IpCidr::Ipv6(Ipv6Cidr::new(ndp::link_local(guest.mac), 64));
        let stack = guest.stack.as_mut().expect("a guest with a stack");
        stack
            .interface
            .update_ip_addrs(|addresses| addresses.push(address).expect("room"));
        guest
    }

    fn with_stack(number: u8, start: Instant, mtu: u16, slaac: bool) -> Self {
        let mut guest = Self::raw(number, start, mtu);
        let hardware = HardwareAddress::Ethernet(EthernetAddress(guest.mac.0));
        let mut config = Config::new(hardware);
        config.random_seed = u64::from(number) + 1;
        config.slaac = slaac;
        let interface = Interface::new(config, &mut guest.card, smoltcp::time::Instant::ZERO);
        guest.stack = Some(Stack {
            interface,
            sockets: SocketSet::new(Vec::new()),
            dhcp: None,
        });
        guest.listening = false;
        guest
    }

    /// A guest that only sends and hears raw frames.
    #[must_use]
    pub fn raw(number: u8, start: Instant, mtu: u16) -> Self {
        Self {
            mac: Mac([0x52, 0x54, 0, 0, 0, number]),
            heard: Vec::new(),
            listening: true,
            lease: None,
            paused: false,
            card: Card {
                mtu: usize::from(mtu),
                arrived: VecDeque::new(),
                leaving: VecDeque::new(),
            },
            stack: None,
            start,
            neighbour: None,
        }
    }

    /// Gives it an address by hand, and a default route if there is a gateway.
    pub fn set_address(
        &mut self,
        address: Ipv4Addr,
        prefix_len: u8,
        gateway: impl Into<Option<Ipv4Addr>>,
    ) {
        let stack = self.stack.as_mut().expect("a guest with a stack");
        stack.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            addresses
                .push(IpCidr::Ipv4(Ipv4Cidr::new(address, prefix_len)))
                .expect("room");
        });
        if let Some(gateway) = gateway.into() {
            stack
                .interface
                .routes_mut()
                .add_default_ipv4_route(gateway)
                .expect("room");
        }
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.stack.as_ref()?.interface.ipv4_addr()
    }

    /// Its IPv6 address that others than the link can answer to.
    #[must_use]
    pub fn address6(&self) -> Option<Ipv6Addr> {
        let addresses = self.stack.as_ref()?.interface.ip_addrs().iter();
        addresses
            .filter_map(|address| match address {
                IpCidr::Ipv6(address) => Some(address.address()),
                IpCidr::Ipv4(_) => None,
            })
            .find(|address| !address.is_unicast_link_local())
    }

    /// Starts a DHCP client, which sets address and route by itself.
    pub fn start_dhcp(&mut self) {
        let stack = self.stack.as_mut().expect("a guest with a stack");
        stack.dhcp = Some(stack.sockets.add(dhcpv4::Socket::new()));
    }

    /// The DHCP client.
    pub fn dhcp(&mut self) -> &mut dhcpv4::Socket<'static> {
        let stack = self.stack.as_mut().expect("a guest with a stack");
        stack.sockets.get_mut(stack.dhcp.expect("a DHCP client"))
    }

    /// A TCP socket with buffers of these sizes.
    pub fn add_tcp(&mut self, receive: usize, send: usize) -> SocketHandle {
        let socket = tcp::Socket::new(
            tcp::SocketBuffer::new(vec![0; receive]),
            tcp::SocketBuffer::new(vec![0; send]),
        );
        self.stack
            .as_mut()
            .expect("a guest with a stack")
            .sockets
            .add(socket)
    }

    /// Opens a TCP connection from a port of its own.
    pub fn connect(&mut self, to: SocketAddrV4, from: u16, buffer: usize) -> SocketHandle {
        let handle = self.add_tcp(buffer, buffer);
        self.reconnect(handle, to, from);
        handle
    }

    /// Opens a TCP connection over IPv6.
    pub fn connect6(&mut self, to: SocketAddrV6, from: u16, buffer: usize) -> SocketHandle {
        let handle = self.add_tcp(buffer, buffer);
        let stack = self.stack.as_mut().expect("a guest with a stack");
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(handle);
        let to = (IpAddress::Ipv6(*to.ip()), to.port());
        socket
            .connect(stack.interface.context(), to, from)
            .expect("a closed socket");
        handle
    }

    /// Opens a connection by a socket that is there.
    pub fn reconnect(&mut self, handle: SocketHandle, to: SocketAddrV4, from: u16) {
        let stack = self.stack.as_mut().expect("a guest with a stack");
        let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(handle);
        let to = (IpAddress::Ipv4(*to.ip()), to.port());
        socket
            .connect(stack.interface.context(), to, from)
            .expect("a closed socket");
    }

    /// Waits for a TCP connection.
    pub fn listen(&mut self, port: u16, buffer: usize) -> SocketHandle {
        let handle = self.add_tcp(buffer, buffer);
        self.tcp(handle).listen(port).expect("a closed socket");
        handle
    }

    /// A TCP socket.
    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.stack
            .as_mut()
            .expect("a guest with a stack")
            .sockets
            .get_mut(handle)
    }

    /// A UDP socket at a port.
    pub fn bind_udp(&mut self, port: u16) -> SocketHandle {
        let buffer =
            || udp::PacketBuffer::new(vec![PacketMetadata::EMPTY; 64], vec![0; 256 * 1024]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).expect("a port");
        self.stack
            .as_mut()
            .expect("a guest with a stack")
            .sockets
            .add(socket)
    }

    /// A UDP socket.
    pub fn udp(&mut self, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.stack
            .as_mut()
            .expect("a guest with a stack")
            .sockets
            .get_mut(handle)
    }

    /// An ICMP socket for echoes of this identifier, or for errors about a UDP port.
    pub fn bind_icmp(&mut self, endpoint: icmp::Endpoint) -> SocketHandle {
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 64], vec![0; 64 * 1024]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(endpoint).expect("an endpoint");
        self.stack
            .as_mut()
            .expect("a guest with a stack")
            .sockets
            .add(socket)
    }

    /// An ICMP socket.
    pub fn icmp(&mut self, handle: SocketHandle) -> &mut icmp::Socket<'static> {
        self.stack
            .as_mut()
            .expect("a guest with a stack")
            .sockets
            .get_mut(handle)
    }

    /// Puts a frame on the wire, whatever it is.
    pub fn inject(&mut self, frame: Vec<u8>) {
        self.card.leaving.push_back(frame);
    }

    /// The guest is switched off and on: all its sockets are gone.
    pub fn reboot(&mut self) {
        if let Some(stack) = &mut self.stack {
            stack.sockets = SocketSet::new(Vec::new());
            stack.dhcp = None;
        }
        self.card.leaving.clear();
        self.card.arrived.clear();
    }

    pub(super) fn arrive(&mut self, frame: Vec<u8>) {
        if self.listening {
            self.heard.push(frame.clone());
        }
        if self.stack.is_some() {
            self.card.arrived.push_back(frame);
        }
    }

    fn clock(&self, now: Instant) -> smoltcp::time::Instant {
        let micros = now.saturating_duration_since(self.start).as_micros();
        smoltcp::time::Instant::from_micros(i64::try_from(micros).expect("a short story"))
    }

    /// Lets the stack work; frames that leave.
    pub(super) fn work(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.paused {
            return Vec::new();
        }
        self.refresh_neighbour(now);
        let clock = self.clock(now);
        if let Some(stack) = &mut self.stack {
            stack
                .interface
                .poll(clock, &mut self.card, &mut stack.sockets);
            // What a router has said becomes an address only now.
            stack.interface.poll_maintenance(clock);
            self.follow_dhcp();
        }
        self.card.leaving.drain(..).collect()
    }

    /// Hears the gateway's last ARP answer once more when it has become old.
    fn refresh_neighbour(&mut self, now: Instant) {
        let is_answer = |frame: &Vec<u8>| frame.get(12..22) == Some(&ARP_ANSWER[..]);
        if let Some(answer) = self.card.arrived.iter().rfind(|frame| is_answer(frame)) {
            self.neighbour = Some((answer.clone(), now));
        } else if let Some((answer, heard)) = &mut self.neighbour
            && now.saturating_duration_since(*heard) >= ARP_FRESH
        {
            *heard = now;
            self.card.arrived.push_front(answer.clone());
        }
    }

    fn follow_dhcp(&mut self) {
        let Some(handle) = self.stack.as_ref().and_then(|stack| stack.dhcp) else {
            return;
        };
        let stack = self.stack.as_mut().expect("looked at above");
        match stack.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
            None => {}
            Some(dhcpv4::Event::Configured(config)) => {
                let config = dhcpv4::Config {
                    packet: None,
                    ..config
                };
                let router = config.router;
                let address = config.address;
                self.lease = Some(config);
                stack.interface.update_ip_addrs(|addresses| {
                    addresses.clear();
                    addresses.push(IpCidr::Ipv4(address)).expect("room");
                });
                if let Some(router) = router {
                    stack
                        .interface
                        .routes_mut()
                        .add_default_ipv4_route(router)
                        .expect("room");
                }
            }
            Some(dhcpv4::Event::Deconfigured) => {
                self.lease = None;
                stack
                    .interface
                    .update_ip_addrs(|addresses| addresses.clear());
            }
        }
    }

    /// When the stack wants to work next.
    pub(super) fn next_deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.paused {
            return None;
        }
        if !self.card.leaving.is_empty() || !self.card.arrived.is_empty() {
            return Some(now);
        }
        let clock = self.clock(now);
        let stack = self.stack.as_mut()?;
        let at = stack.interface.poll_at(clock, &stack.sockets)?;
        let since = u64::try_from(at.total_micros()).unwrap_or(0);
        Some((self.start + Duration::from_micros(since)).max(now))
    }
}
