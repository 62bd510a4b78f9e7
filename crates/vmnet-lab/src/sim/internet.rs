//! What is behind the NAT's sockets: servers, a resolver, and the sockets themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use vmnet_core::outbox::Datagram;
use vmnet_core::{IcmpError, SocketId, Target};

use crate::sim::stream::{Server, Stream};

/// What answers datagrams at an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UdpHost {
    /// Sends them back.
    Echo,
    /// Sends each back from another port of the same address.
    EchoFrom(u16),
    /// Hears them and is silent.
    Silent,
    /// An ICMP error of this type and code comes back, from the address itself.
    Error(u8, u8),
    /// The way there takes packets of this size at most.
    Narrow(u32),
}

/// A socket without a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bare {
    /// UDP, seen by the outside at this port.
    Udp(u16),
    /// A ping socket.
    Echo,
}

/// A datagram that left the host.
#[derive(Clone, PartialEq, Debug)]
pub struct Sent {
    /// By which socket.
    pub socket: SocketId,
    /// How.
    pub how: Datagram,
    /// What.
    pub payload: Vec<u8>,
}

/// The outside.
#[derive(Debug)]
pub struct Internet {
    /// TCP servers.
    pub tcp: BTreeMap<SocketAddr, Server>,
    /// UDP hosts.
    pub udp: BTreeMap<SocketAddr, UdpHost>,
    /// Hosts that answer pings.
    pub pingable: Vec<IpAddr>,
    /// How long the way there and back takes.
    pub latency: Duration,
    /// Resolvers and how long they take; `None`: silent.
    pub resolvers: BTreeMap<SocketAddr, Option<Duration>>,
    /// The address that the resolvers know for every name.
    pub resolved: Ipv4Addr,
    /// Streams that are open.
    pub streams: BTreeMap<SocketId, Stream>,
    /// Other sockets that are open.
    pub bare: BTreeMap<SocketId, Bare>,
    /// Streams that were closed: what their server had read, and whether by a reset.
    pub past: Vec<(Stream, bool)>,
    /// Every target that was asked for.
    pub targets: Vec<(SocketId, Target)>,
    /// Every datagram that left.
    pub sent: Vec<Sent>,
    /// Questions that came to resolvers.
    pub asked: Vec<(SocketAddr, Vec<u8>)>,
    pub(super) next_port: u16,
}

impl Internet {
    pub(super) fn new() -> Self {
        Self {
            tcp: BTreeMap::new(),
            udp: BTreeMap::new(),
            pingable: Vec::new(),
            latency: Duration::from_millis(1),
            resolvers: BTreeMap::new(),
            resolved: Ipv4Addr::new(93, 184, 215, 14),
            streams: BTreeMap::new(),
            bare: BTreeMap::new(),
            past: Vec::new(),
            targets: Vec::new(),
            sent: Vec::new(),
            asked: Vec::new(),
            next_port: 40_000,
        }
    }

    /// A TCP server at an address.
    pub fn serve(&mut self, address: &str, server: Server) {
        self.tcp
            .insert(address.parse().expect("an address"), server);
    }

    /// A UDP host at an address.
    pub fn serve_udp(&mut self, address: &str, host: UdpHost) {
        self.udp.insert(address.parse().expect("an address"), host);
    }

    /// The only open stream.
    ///
    /// # Panics
    /// If there is none, or several.
    pub fn only(&mut self) -> &mut Stream {
        assert_eq!(
            self.streams.len(),
            1,
            "one stream: {:?}",
            self.streams.keys()
        );
        self.streams.values_mut().next().expect("counted")
    }

    /// The stream that was closed last.
    ///
    /// # Panics
    /// If none was.
    #[must_use]
    pub fn last(&self) -> &Stream {
        &self.past.last().expect("a closed stream").0
    }

    pub(super) fn server_at(&self, to: SocketAddr) -> Server {
        self.tcp.get(&to).copied().unwrap_or(Server::Refuse)
    }

    /// An error about a datagram of this socket.
    #[must_use]
    pub fn error(to: SocketAddr, from: IpAddr, kind: u8, code: u8) -> IcmpError {
        IcmpError {
            to,
            from,
            kind,
            code,
            mtu: 0,
        }
    }

    /// A resolver's answer to a question: one A record.
    #[must_use]
    pub fn resolve(&self, question: &[u8]) -> Vec<u8> {
        let mut answer = question.to_vec();
        if answer.len() < 12 {
            return answer;
        }
        answer.truncate(end_of_question(question));
        answer[2] |= 0x80;
        answer[3] = 0x80;
        answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(self.resolved.octets());
        answer
    }
}

fn end_of_question(message: &[u8]) -> usize {
    let mut at = 12;
    while let Some(len) = message.get(at).copied() {
        at += 1 + usize::from(len);
        if len == 0 {
            break;
        }
    }
    (at + 4).min(message.len())
}
