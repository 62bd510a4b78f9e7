//! A guest of the tests: writes requests byte by byte and reads answers with a reader of its own, which
//! shares nothing with `message.rs` and `reply.rs`.

use super::{Config, Drop, Outcome, Reply, Request, Server};
use crate::prefix::Prefix;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};
use vmnet_wire::ethernet::Mac;

pub(super) const SOLICIT: u8 = 1;
pub(super) const ADVERTISE: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const CONFIRM: u8 = 4;
pub(super) const RENEW: u8 = 5;
pub(super) const REBIND: u8 = 6;
pub(super) const REPLY: u8 = 7;
pub(super) const RELEASE: u8 = 8;
pub(super) const DECLINE: u8 = 9;
pub(super) const INFORMATION: u8 = 11;

pub(super) const SUCCESS: u16 = 0;
pub(super) const NO_ADDRESS: u16 = 2;
pub(super) const NO_BINDING: u16 = 3;
pub(super) const NOT_ON_LINK: u16 = 4;
pub(super) const USE_MULTICAST: u16 = 5;
pub(super) const NO_PREFIX: u16 = 6;

pub(super) const LEASE: Duration = Duration::from_secs(3600);
/// The server's DUID: that of its MAC.
pub(super) const SERVER: [u8; 10] = [0, 3, 0, 1, 2, 2, 2, 2, 2, 2];

pub(super) fn prefix() -> Prefix {
    "fd12:3456:789a:1::/64".parse().unwrap()
}

/// An address of the prefix.
pub(super) fn ip(last: u64) -> Ipv6Addr {
    prefix().host(last)
}

pub(super) fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, last])
}

/// The DUID of a guest with this MAC.
pub(super) fn duid(last: u8) -> Vec<u8> {
    [&[0, 3, 0, 1][..], &mac(last).0].concat()
}

pub(super) fn config() -> Config {
    Config {
        prefix: prefix(),
        mac: Mac([2; 6]),
        lease_time: LEASE,
        domain: "vmnet.internal".into(),
        resolvers: vec![prefix().gateway()],
    }
}

pub(super) fn server() -> (Server, Instant) {
    (Server::new(config()).unwrap(), Instant::now())
}

fn option(code: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap();
    [&code.to_be_bytes(), &len.to_be_bytes(), value].concat()
}

/// A request in the making.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) bytes: Vec<u8>,
    pub(super) mac: Mac,
    pub(super) source: Ipv6Addr,
    pub(super) to_one: bool,
}

impl Wire {
    /// A message without any option.
    pub(super) fn bare(guest: u8, kind: u8) -> Self {
        Self {
            bytes: vec![kind, 0xab, 0xcd, guest],
            mac: mac(guest),
            source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, guest.into()),
            to_one: false,
        }
    }

    /// A message with the guest's DUID.
    pub(super) fn new(guest: u8, kind: u8) -> Self {
        Self::bare(guest, kind).option(1, &duid(guest))
    }

    pub(super) fn option(mut self, code: u16, value: &[u8]) -> Self {
        self.bytes.extend(option(code, value));
        self
    }

    /// With our DUID.
    pub(super) fn ours(self) -> Self {
        self.option(2, &SERVER)
    }

    /// An association of an address.
    pub(super) fn address(self, iaid: u32, addresses: &[Ipv6Addr]) -> Self {
        let mut value = [iaid.to_be_bytes(), [0; 4], [0; 4]].concat();
        for address in addresses {
            value.extend(option(5, &[&address.octets()[..], &[0; 8]].concat()));
        }
        self.option(3, &value)
    }

    pub(super) fn wants(self, codes: &[u16]) -> Self {
        let codes: Vec<u8> = codes.iter().flat_map(|code| code.to_be_bytes()).collect();
        self.option(6, &codes)
    }

    /// A name, written as it is on the wire: `flags`, then labels.
    pub(super) fn named(self, flags: u8, name: &str) -> Self {
        let mut value = vec![flags];
        for label in name.split('.') {
            value.push(u8::try_from(label.len()).unwrap());
            value.extend(label.bytes());
        }
        self.option(39, &value)
    }

    pub(super) fn from(mut self, mac: Mac) -> Self {
        self.mac = mac;
        self
    }

    pub(super) fn unicast(mut self) -> Self {
        self.to_one = true;
        self
    }

    pub(super) fn send(&self, server: &mut Server, now: Instant) -> super::Answer {
        let request = Request {
            ethernet_source: self.mac,
            port: None,
            source: self.source,
            to_one: self.to_one,
            payload: &self.bytes,
        };
        server.receive(now, &request)
    }

    /// Sends, and reads the answer that must come.
    pub(super) fn ask(&self, server: &mut Server, now: Instant) -> Read {
        match self.send(server, now).outcome {
            Outcome::Reply(reply) => {
                assert_eq!((reply.mac, reply.port), (self.mac, 546));
                assert_eq!(reply.address, self.source);
                assert_eq!(reply.payload[1..4], self.bytes[1..4], "the transaction");
                Read::new(reply)
            }
            other => panic!("no answer: {other:?}"),
        }
    }

    /// Sends, and returns the cause of the drop that must come.
    pub(super) fn refused(&self, server: &mut Server, now: Instant) -> Drop {
        match self.send(server, now).outcome {
            Outcome::Dropped(cause) => cause,
            other => panic!("not dropped: {other:?}"),
        }
    }
}

/// An association in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Granted {
    pub(super) code: u16,
    pub(super) iaid: u32,
    pub(super) times: (u32, u32),
    pub(super) addresses: Vec<(Ipv6Addr, u32)>,
    pub(super) status: Option<u16>,
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) kind: u8,
    pub(super) options: Vec<(u16, Vec<u8>)>,
}

fn read_options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = Vec::new();
    while !bytes.is_empty() {
        let code = u16::from_be_bytes([bytes[0], bytes[1]]);
        let len = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
        options.push((code, bytes[4..4 + len].to_vec()));
        bytes = &bytes[4 + len..];
    }
    options
}

fn status(value: &[u8]) -> u16 {
    assert!(std::str::from_utf8(&value[2..]).is_ok());
    u16::from_be_bytes([value[0], value[1]])
}

impl Read {
    pub(super) fn new(reply: Reply) -> Self {
        let options = read_options(&reply.payload[4..]);
        Self {
            kind: reply.payload[0],
            options,
        }
    }

    pub(super) fn get(&self, code: u16) -> Option<&[u8]> {
        let found = self.options.iter().find(|(other, _)| *other == code);
        found.map(|(_, value)| value.as_slice())
    }

    pub(super) fn codes(&self) -> Vec<u16> {
        self.options.iter().map(|(code, _)| *code).collect()
    }

    /// The status of the whole.
    pub(super) fn status(&self) -> Option<u16> {
        self.get(13).map(status)
    }

    pub(super) fn granted(&self) -> Vec<Granted> {
        let is_association = |(code, _): &&(u16, Vec<u8>)| [3, 4, 25].contains(code);
        let read = |(code, value): &(u16, Vec<u8>)| {
            let number = |at: usize| u32::from_be_bytes(value[at..at + 4].try_into().unwrap());
            let head = if *code == 4 { 4 } else { 12 };
            let inner = read_options(&value[head..]);
            let addresses = inner.iter().filter(|(code, _)| *code == 5);
            let address = |(_, value): &(u16, Vec<u8>)| {
                let octets: [u8; 16] = value[..16].try_into().unwrap();
                assert_eq!(value[16..20], value[20..24], "preferred as long as valid");
                let seconds = u32::from_be_bytes(value[20..24].try_into().unwrap());
                (Ipv6Addr::from(octets), seconds)
            };
            // What runs before what is over; the codec sorts by address.
            let mut addresses: Vec<_> = addresses.map(address).collect();
            addresses.sort_by_key(|(_, seconds)| std::cmp::Reverse(*seconds));
            Granted {
                code: *code,
                iaid: number(0),
                times: if head == 4 {
                    (0, 0)
                } else {
                    (number(4), number(8))
                },
                addresses,
                status: (inner.iter().find(|(code, _)| *code == 13)).map(|(_, v)| status(v)),
            }
        };
        self.options
            .iter()
            .filter(is_association)
            .map(read)
            .collect()
    }

    /// The only address of an answer.
    pub(super) fn only(&self) -> Ipv6Addr {
        let granted = self.granted();
        let [only] = granted.as_slice() else {
            panic!("{granted:?}")
        };
        assert_eq!(only.status, None);
        let [(address, 1..)] = only.addresses.as_slice() else {
            panic!("{only:?}")
        };
        *address
    }
}

/// A guest gets an address: SOLICIT and REQUEST with the association 1.
pub(super) fn boot(server: &mut Server, now: Instant, guest: u8) -> Ipv6Addr {
    let offered = Wire::new(guest, SOLICIT).address(1, &[]).ask(server, now);
    assert_eq!(offered.kind, ADVERTISE);
    let offered = offered.only();
    let request = Wire::new(guest, REQUEST).ours().address(1, &[offered]);
    let reply = request.ask(server, now);
    assert_eq!((reply.kind, reply.only()), (REPLY, offered));
    offered
}
