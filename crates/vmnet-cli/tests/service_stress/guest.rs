//! A place on a network, and the DHCP frames of guests who live there (RFC 2131), made by hand.

use openvmnet::client::{CallError, Client};
use openvmnet::service::{InterfaceOptions, Kind, Started};
use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_wire::ethernet::Mac;

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
/// Where the options of a message begin.
const OPTIONS: usize = 240;
/// A guest asks again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one look at the socket waits.
const LOOK: Duration = Duration::from_millis(50);

/// The guest's end of an interface.
#[derive(Debug)]
pub(crate) struct Place {
    socket: UnixDatagram,
}

/// An interface of datagrams; the caller says what it is to be.
pub(crate) fn start(
    client: &mut Client,
    network: &str,
    options: InterfaceOptions,
) -> Result<(Started, Place), CallError> {
    over(client, network, options, UnixDatagram::pair().unwrap())
}

/// The same by a pair of sockets of packets, whose end is told to the other side: of datagrams it is seen when the next
/// one is sent.
pub(crate) fn start_packets(
    client: &mut Client,
    network: &str,
    options: InterfaceOptions,
) -> Result<(Started, Place), CallError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    let pair = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    );
    let (one, other) = pair.unwrap();
    over(client, network, options, (one.into(), other.into()))
}

fn over(
    client: &mut Client,
    network: &str,
    options: InterfaceOptions,
    (socket, theirs): (UnixDatagram, UnixDatagram),
) -> Result<(Started, Place), CallError> {
    let started = client.start_interface(network, options, vec![OwnedFd::from(theirs)])?;
    socket.set_read_timeout(Some(LOOK)).unwrap();
    socket
        .set_write_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    Ok((started, Place { socket }))
}

/// A datagram interface with nothing else said.
pub(crate) fn plain() -> InterfaceOptions {
    InterfaceOptions::new(Kind::Dgram)
}

/// The MAC of an interface.
pub(crate) fn mac_of(started: &Started) -> Mac {
    started.interface.mac.as_deref().unwrap().parse().unwrap()
}

/// A guest's MAC of our own choice.
pub(crate) fn numbered(number: usize) -> Mac {
    let [.., a, b, c] = u32::try_from(number).unwrap().to_be_bytes();
    Mac([0x52, 0x54, 0x00, a, b, c])
}

/// What a guest wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Any address.
    Any(Mac),
    /// The one that it had before it restarted (INIT-REBOOT).
    Same(Mac, Ipv4Addr),
}

impl Ask {
    fn mac(self) -> Mac {
        match self {
            Self::Any(mac) | Self::Same(mac, _) => mac,
        }
    }

    fn first(self, xid: u32) -> Vec<u8> {
        match self {
            Self::Any(mac) => message(mac, xid, DISCOVER, &[]),
            Self::Same(mac, address) => message(mac, xid, REQUEST, &[(50, address.octets())]),
        }
    }
}

/// What a guest was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Acknowledged(Ipv4Addr),
    Refused,
}

/// A message of the server.
#[derive(Debug)]
struct Reply {
    kind: u8,
    xid: u32,
    mac: Mac,
    address: Ipv4Addr,
    server: Option<[u8; 4]>,
}

fn message(mac: Mac, xid: u32, kind: u8, options: &[(u8, [u8; 4])]) -> Vec<u8> {
    let mut bytes = vec![0; OPTIONS];
    bytes[..3].copy_from_slice(&[1, 1, 6]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[28..34].copy_from_slice(&mac.0);
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend([53, 1, kind]);
    for (code, value) in options {
        bytes.extend([*code, 4]);
        bytes.extend(value);
    }
    bytes.push(255);
    let ends = Ends {
        macs: (mac, Mac::BROADCAST),
        ips: (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
    };
    packets::udp(ends, (68, 67), 64, &bytes)
}

fn reply(frame: &[u8]) -> Option<Reply> {
    let (_, ports, bytes) = packets::read_udp(frame)?;
    if ports != (67, 68) || bytes.first() != Some(&2) {
        return None;
    }
    let four = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
    let option = |wanted: u8| {
        let mut at = OPTIONS;
        while let [code, len, ..] = *bytes.get(at..)? {
            if code == wanted {
                return bytes.get(at + 2..at + 2 + usize::from(len));
            }
            at += 2 + usize::from(len);
        }
        None
    };
    Some(Reply {
        kind: *option(53)?.first()?,
        xid: u32::from_be_bytes(four(4)?),
        mac: Mac(bytes.get(28..34)?.try_into().ok()?),
        address: four(16)?.into(),
        server: option(54).and_then(|server| server.try_into().ok()),
    })
}

/// A guest that waits for an answer.
struct Waiting {
    ask: Ask,
    xid: u32,
    since: Instant,
}

impl Place {
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// The next frame, if one comes soon.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 2048];
        let len = self.socket.recv(&mut frame).ok()?;
        if len == 0 {
            // The other end is closed, and says so at once each time.
            std::thread::sleep(LOOK);
            return None;
        }
        frame.truncate(len);
        Some(frame)
    }

    /// Takes everything that waits, and forgets it.
    pub(crate) fn drain(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 64]).is_ok_and(|len| len > 0) {}
        self.socket.set_nonblocking(false).unwrap();
    }

    /// Asks for many guests, `window` at a time, until all are told or `goes_on` says no; answers who was not told.
    pub(crate) fn ask_all(
        &self,
        asks: impl IntoIterator<Item = Ask>,
        window: usize,
        mut goes_on: impl FnMut() -> bool,
        mut told: impl FnMut(Ask, Told),
    ) -> Vec<Ask> {
        let mut asks = asks.into_iter();
        let mut waiting: HashMap<Mac, Waiting> = HashMap::new();
        let mut xid = std::process::id() << 12;
        loop {
            while waiting.len() < window
                && let Some(ask) = asks.next()
            {
                xid = xid.wrapping_add(1);
                let since = Instant::now();
                // If the service is gone, `goes_on` says so.
                let _ = self.send(&ask.first(xid));
                waiting.insert(ask.mac(), Waiting { ask, xid, since });
            }
            if waiting.is_empty() {
                return Vec::new();
            }
            if let Some(reply) = self.receive().as_deref().and_then(reply) {
                self.take(&reply, &mut waiting, &mut told);
                continue;
            }
            if !goes_on() {
                let left = waiting.into_values().map(|guest| guest.ask);
                return left.chain(asks).collect();
            }
            for guest in waiting.values_mut() {
                if guest.since.elapsed() > AGAIN {
                    guest.since = Instant::now();
                    let _ = self.send(&guest.ask.first(guest.xid));
                }
            }
        }
    }

    fn take(
        &self,
        reply: &Reply,
        waiting: &mut HashMap<Mac, Waiting>,
        told: &mut impl FnMut(Ask, Told),
    ) {
        let Some(guest) = waiting.get_mut(&reply.mac) else {
            return;
        };
        if guest.xid != reply.xid {
            return;
        }
        match reply.kind {
            OFFER => {
                let server = reply.server.expect("an offer names its server");
                let options = [(50, reply.address.octets()), (54, server)];
                guest.since = Instant::now();
                let _ = self.send(&message(reply.mac, reply.xid, REQUEST, &options));
            }
            ACK => {
                told(guest.ask, Told::Acknowledged(reply.address));
                waiting.remove(&reply.mac);
            }
            NAK if matches!(guest.ask, Ask::Same(..)) => {
                told(guest.ask, Told::Refused);
                waiting.remove(&reply.mac);
            }
            // Another has the offer, or the server forgot it: from the beginning.
            NAK => {
                let _ = self.send(&guest.ask.first(guest.xid));
            }
            _ => {}
        }
    }

    /// Asks for one guest; `None` if it is not told in time.
    pub(crate) fn ask(&self, ask: Ask, patience: Duration) -> Option<Told> {
        let deadline = Instant::now() + patience;
        let mut answer = None;
        self.ask_all(
            [ask],
            1,
            || Instant::now() < deadline,
            |_, told| answer = Some(told),
        );
        answer
    }

    /// The address that a guest gets.
    #[track_caller]
    pub(crate) fn lease(&self, mac: Mac) -> Ipv4Addr {
        match self.ask(Ask::Any(mac), Duration::from_secs(20)) {
            Some(Told::Acknowledged(address)) => address,
            other => panic!("{mac} got no lease: {other:?}"),
        }
    }
}
