//! A guest whose network card is an interface: smoltcp in the place of a virtual machine.

#![allow(dead_code)]

use std::time::{Duration, Instant as Clock};

use openvmnet::Interface;
use smoltcp::iface::{Config, Interface as Stack, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, icmp, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, IpAddress, IpCidr, Ipv4Address};

/// What a guest waits for comes within this.
const SOON: Duration = Duration::from_secs(20);

/// The card.
pub(crate) struct Card<'a>(pub(crate) &'a Interface);

pub(crate) struct Arrived(Vec<u8>);
pub(crate) struct Leaving<'a>(&'a Interface);

impl Device for Card<'_> {
    type RxToken<'t>
        = Arrived
    where
        Self: 't;
    type TxToken<'t>
        = Leaving<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let mut buffer = vec![0; 1514];
        let len = self.0.read_packet(&mut buffer).unwrap()?;
        buffer.truncate(len);
        Some((Arrived(buffer), Leaving(self.0)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, look: F) -> R {
        look(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let mut frame = vec![0; len];
        let done = fill(&mut frame);
        self.0.write_packet(&frame).unwrap();
        done
    }
}

pub(crate) struct Guest<'a> {
    card: Card<'a>,
    stack: Stack,
    sockets: SocketSet<'static>,
    began: Clock,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(interface: &'a Interface) -> Self {
        let mac = interface.parameters().mac_address.unwrap();
        let mut card = Card(interface);
        let config = Config::new(EthernetAddress(mac.0).into());
        let stack = Stack::new(config, &mut card, Instant::ZERO);
        Self {
            card,
            stack,
            sockets: SocketSet::new(Vec::new()),
            began: Clock::now(),
        }
    }

    /// Lets time and packets pass until something is so.
    #[track_caller]
    pub(crate) fn until<T>(
        &mut self,
        what: &str,
        mut found: impl FnMut(&mut SocketSet<'static>, &mut Stack) -> Option<T>,
    ) -> T {
        let until = Clock::now() + SOON;
        loop {
            let now =
                Instant::from_micros(i64::try_from(self.began.elapsed().as_micros()).unwrap());
            self.stack.poll(now, &mut self.card, &mut self.sockets);
            if let Some(found) = found(&mut self.sockets, &mut self.stack) {
                return found;
            }
            assert!(Clock::now() < until, "not in time: {what}");
            self.card.0.wait(Some(Duration::from_millis(5))).unwrap();
        }
    }

    /// Gets an address: it, and the router's.
    pub(crate) fn lease(&mut self) -> (Ipv4Address, Ipv4Address) {
        let handle = self.sockets.add(dhcpv4::Socket::new());
        let (address, router) = self.until("a lease", |sockets, _| {
            match sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
                Some(dhcpv4::Event::Configured(lease)) => Some((lease.address, lease.router)),
                _ => None,
            }
        });
        let router = router.unwrap();
        self.stack.update_ip_addrs(|all| {
            all.push(IpCidr::Ipv4(address)).unwrap();
        });
        self.stack
            .routes_mut()
            .add_default_ipv4_route(router)
            .unwrap();
        self.sockets.remove(handle);
        (address.address(), router)
    }

    /// Sends an echo request, and waits for the reply.
    pub(crate) fn ping(&mut self, to: Ipv4Address) {
        let buffer =
            || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 1024]);
        let mut socket = icmp::Socket::new(buffer(), buffer());
        socket.bind(icmp::Endpoint::Ident(7)).unwrap();
        let handle = self.sockets.add(socket);
        let request = Icmpv4Repr::EchoRequest {
            ident: 7,
            seq_no: 1,
            data: b"are you there",
        };
        let socket = self.sockets.get_mut::<icmp::Socket<'_>>(handle);
        let place = socket
            .send(request.buffer_len(), IpAddress::Ipv4(to))
            .unwrap();
        request.emit(
            &mut Icmpv4Packet::new_unchecked(place),
            &smoltcp::phy::ChecksumCapabilities::default(),
        );
        let from = self.until("an echo reply", |sockets, _| {
            let socket = sockets.get_mut::<icmp::Socket<'_>>(handle);
            socket.can_recv().then(|| socket.recv().unwrap().1)
        });
        assert_eq!(from, IpAddress::Ipv4(to));
    }

    /// Listens on a port.
    pub(crate) fn listen(&mut self, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 65_536]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.listen(port).unwrap();
        self.sockets.add(socket)
    }
}
