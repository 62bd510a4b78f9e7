//! smoltcp behind a client: it makes and checks all sums by itself, the client does with them what was agreed.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};
use vmnet_linux::lane::PortId;
use vmnet_wire::ethernet::Mac;

use crate::client::{Client, MTU};

struct Card {
    client: Client,
    leaving: VecDeque<Vec<u8>>,
}

impl Card {
    fn flush(&mut self) {
        while let Some(frame) = self.leaving.pop_front() {
            self.client.send(frame);
        }
    }
}

/// A SYN tells how large our segments may be: as large as the card takes them.
fn allow_large_segments(frame: &mut [u8]) {
    let is_syn =
        frame.len() >= 58 && frame[12..14] == [8, 0] && frame[23] == 6 && frame[47] & 2 != 0;
    if is_syn && frame[54..56] == [2, 4] {
        frame[56..58].copy_from_slice(&40_000u16.to_be_bytes());
    }
}

impl Device for Card {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Arrived, Leaving<'_>)> {
        let mut frame = self.client.receive()?;
        if self.client.sends_large() {
            allow_large_segments(&mut frame);
        }
        Some((Arrived(frame), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Leaving<'_>> {
        (self.leaving.len() < 16).then_some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        let large = self.client.sends_large();
        capabilities.max_transmission_unit = if large { 65_000 } else { MTU + 14 };
        capabilities.medium = Medium::Ethernet;
        // The client has checked what came, and makes what leaves.
        capabilities.checksum = ChecksumCapabilities::ignored();
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

/// A guest.
pub(crate) struct Stack {
    card: Card,
    interface: Interface,
    start: Instant,
}

impl Stack {
    pub(crate) fn new(client: Client, mac: Mac, address: Ipv4Addr) -> Self {
        let mut card = Card {
            client,
            leaving: VecDeque::new(),
        };
        let config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac.0)));
        let mut interface = Interface::new(config, &mut card, smoltcp::time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::Ipv4(Ipv4Cidr::new(address, 24)))
                .unwrap();
        });
        Self {
            card,
            interface,
            start: Instant::now(),
        }
    }

    pub(crate) fn port(&self) -> PortId {
        self.card.client.id
    }

    /// Large frames that came.
    pub(crate) fn large_in(&self) -> usize {
        self.card.client.large
    }

    /// Sends all, then hears as much.
    pub(crate) fn exchange(&mut self, to: Ipv4Addr, port: u16, send: &[u8]) -> Vec<u8> {
        let buffer = || tcp::SocketBuffer::new(vec![0; 512 << 10]);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket
            .connect(self.interface.context(), (to, port), 50_000)
            .unwrap();
        let (mut sent, mut heard) = (0, Vec::new());
        let end = Instant::now() + Duration::from_secs(30);
        while heard.len() < send.len() && Instant::now() < end {
            let elapsed = i64::try_from(self.start.elapsed().as_micros()).unwrap();
            let now = smoltcp::time::Instant::from_micros(elapsed);
            self.interface.poll(now, &mut self.card, &mut sockets);
            self.card.flush();
            let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
            if socket.can_send() && sent < send.len() {
                sent += socket.send_slice(&send[sent..]).unwrap();
            }
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        heard.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
            }
        }
        heard
    }
}
