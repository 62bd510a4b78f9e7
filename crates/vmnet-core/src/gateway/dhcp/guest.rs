//! A guest of the tests: writes requests byte by byte and reads replies with a reader of its own, which
//! shares nothing with `message.rs`.

use super::{Answer, Config, Drop, Outcome, Reply, Request, Server};
use crate::outbox::PortId;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use vmnet_wire::ethernet::Mac;

pub(super) const DISCOVER: u8 = 1;
pub(super) const OFFER: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const DECLINE: u8 = 4;
pub(super) const ACK: u8 = 5;
pub(super) const NAK: u8 = 6;
pub(super) const RELEASE: u8 = 7;
pub(super) const INFORM: u8 = 8;

pub(super) const GATEWAY: Ipv4Addr = ip(1);
pub(super) const XID: [u8; 4] = [0xde, 0xad, 0xbe, 0xef];
pub(super) const LEASE: Duration = Duration::from_secs(3600);

pub(super) const fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 64, last)
}

pub(super) fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

pub(super) fn config(first: u8, last: u8) -> Config {
    Config {
        gateway: GATEWAY,
        prefix_len: 24,
        first: ip(first),
        last: ip(last),
        lease_time: LEASE,
        mtu: 1400,
        domain: "vmnet.internal".into(),
        search: vec!["vmnet.internal".into(), "example.org".into()],
        resolvers: vec![GATEWAY],
        router: Some(GATEWAY),
        routes: Vec::new(),
    }
}

/// A request in the making.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) bytes: Vec<u8>,
    pub(super) source: Mac,
    pub(super) port: Option<PortId>,
    pub(super) ip_source: Ipv4Addr,
    pub(super) ip_destination: Ipv4Addr,
}

impl Wire {
    /// A request without any option, and without the end of options.
    pub(super) fn bare(source: Mac) -> Self {
        let mut bytes = vec![0; 240];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&XID);
        bytes[28..34].copy_from_slice(&source.0);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        let (ip_source, ip_destination) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
        Self {
            bytes,
            source,
            port: None,
            ip_source,
            ip_destination,
        }
    }

    pub(super) fn new(source: Mac, kind: u8) -> Self {
        Self::bare(source).option(53, &[kind])
    }

    pub(super) fn option(mut self, code: u8, value: &[u8]) -> Self {
        for piece in value.chunks(255) {
            self.bytes.extend([code, piece.len().try_into().unwrap()]);
            self.bytes.extend(piece);
        }
        self
    }

    pub(super) fn requested(self, address: Ipv4Addr) -> Self {
        self.option(50, &address.octets())
    }

    pub(super) fn server(self, address: Ipv4Addr) -> Self {
        self.option(54, &address.octets())
    }

    pub(super) fn id(self, id: Option<&[u8]>) -> Self {
        match id {
            Some(id) => self.option(61, id),
            None => self,
        }
    }

    pub(super) fn field(mut self, at: usize, value: &[u8]) -> Self {
        self.bytes[at..at + value.len()].copy_from_slice(value);
        self
    }

    pub(super) fn behind(self, port: PortId) -> Self {
        let port = Some(port);
        Self { port, ..self }
    }

    pub(super) fn ciaddr(mut self, address: Ipv4Addr) -> Self {
        self.ip_source = address;
        self.field(12, &address.octets())
    }

    pub(super) fn unicast(mut self) -> Self {
        self.ip_destination = GATEWAY;
        self
    }

    pub(super) fn send(&self, server: &mut Server, now: Instant) -> Answer {
        let mut payload = self.bytes.clone();
        payload.push(255);
        let request = Request {
            ethernet_source: self.source,
            port: self.port,
            ip_source: self.ip_source,
            ip_destination: self.ip_destination,
            payload: &payload,
        };
        server.receive(now, &request)
    }

    /// Sends, and reads the reply that must come.
    pub(super) fn ask(&self, server: &mut Server, now: Instant) -> Read {
        match self.send(server, now).outcome {
            Outcome::Reply(reply) => Read::new(reply),
            other => panic!("no reply but {other:?}"),
        }
    }

    /// Sends, and returns the cause of the drop that must come.
    pub(super) fn refused(&self, server: &mut Server, now: Instant) -> Drop {
        match self.send(server, now).outcome {
            Outcome::Dropped(cause) => cause,
            other => panic!("not dropped but {other:?}"),
        }
    }
}

/// A reply, read.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) reply: Reply,
    /// In the order of the wire, pieces of one code put together where they follow each other.
    pub(super) options: Vec<(u8, Vec<u8>)>,
}

impl Read {
    pub(super) fn new(reply: Reply) -> Self {
        let bytes = &reply.payload;
        assert!(bytes.len() >= 300, "shorter than BOOTP");
        assert_eq!(bytes[..4], [2, 1, 6, 0]);
        assert_eq!(bytes[8..10], [0, 0]);
        assert_eq!(bytes[236..240], [99, 130, 83, 99]);
        let mut options: Vec<(u8, Vec<u8>)> = Vec::new();
        let mut at = 240;
        while bytes[at] != 255 {
            let (code, len) = (bytes[at], usize::from(bytes[at + 1]));
            let value = &bytes[at + 2..at + 2 + len];
            match options.last_mut() {
                Some((last, before)) if *last == code => before.extend(value),
                _ => options.push((code, value.to_vec())),
            }
            at += 2 + len;
        }
        assert!(bytes[at + 1..].iter().all(|pad| *pad == 0));
        Self { reply, options }
    }

    pub(super) fn get(&self, code: u8) -> Option<&[u8]> {
        let mut found = self.options.iter().filter(|(c, _)| *c == code);
        let value = found.next().map(|(_, value)| value.as_slice());
        assert_eq!(found.next(), None, "option {code} twice");
        value
    }

    pub(super) fn seconds(&self, code: u8) -> u32 {
        u32::from_be_bytes(self.get(code).unwrap().try_into().unwrap())
    }

    pub(super) fn kind(&self) -> u8 {
        let [kind] = self.get(53).unwrap() else {
            panic!("length of option 53")
        };
        *kind
    }

    pub(super) fn codes(&self) -> Vec<u8> {
        self.options.iter().map(|(code, _)| *code).collect()
    }

    pub(super) fn at(&self, at: usize) -> Ipv4Addr {
        let bytes: [u8; 4] = self.reply.payload[at..at + 4].try_into().unwrap();
        bytes.into()
    }

    pub(super) fn yiaddr(&self) -> Ipv4Addr {
        self.at(16)
    }
}

/// DISCOVER and REQUEST, as a client that boots; the address it got.
pub(super) fn boot(server: &mut Server, now: Instant, source: Mac, id: Option<&[u8]>) -> Ipv4Addr {
    let offer = Wire::new(source, DISCOVER).id(id).ask(server, now);
    assert_eq!(offer.kind(), OFFER);
    let address = offer.yiaddr();
    let request = Wire::new(source, REQUEST)
        .requested(address)
        .server(GATEWAY)
        .id(id);
    let ack = request.ask(server, now);
    assert_eq!((ack.kind(), ack.yiaddr()), (ACK, address));
    address
}

/// The body of a fuzz target: any bytes, sent to a server as they are and in the shape of each message, from
/// the station they claim. Nothing panics, no address is given twice, and the table stays inside its pool.
pub(super) fn any_bytes(data: &[u8]) {
    let mut server = Server::new(config(1, 9)).unwrap();
    let mut now = Instant::now();
    for chunk in data.chunks(64) {
        for kind in [0, DISCOVER, REQUEST, DECLINE, RELEASE, INFORM] {
            let station: [u8; 6] =
                std::array::from_fn(|i| chunk.get(i).copied().unwrap_or(0) & 0xfe);
            let mut wire = Wire::new(Mac(station), kind);
            if kind == 0 {
                wire.bytes = data.to_vec();
                let claimed = data.get(28..34).and_then(|bytes| bytes.try_into().ok());
                wire.source = Mac(claimed.unwrap_or_default());
            } else {
                wire.bytes.extend(chunk);
            }
            let answer = wire.send(&mut server, now);
            if let Outcome::Reply(reply) = answer.outcome {
                assert!(reply.payload.len() <= 1400 - 28);
                Read::new(reply);
            }
            assert!(server.leases().count() <= 8);
            now += Duration::from_secs(u64::from(station[0]));
        }
    }
}
