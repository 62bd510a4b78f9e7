//! Stories and properties of the proxy.
//!
//! | file | what it tells |
//! | --- | --- |
//! | `local` | what our own names answer, read back by a decoder |
//! | `resolving` | passing through, fail-over, limits, on a clock that jumps |
//! | `properties` | any bytes, any order of events |

mod local;
mod properties;
mod resolving;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Config, Guest, Output, Proxy, QueryId, Transport};

/// Message bytes by hand, so that the decoder under test is not its own judge.
fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// The query with an OPT record of this payload size, version and flags.
fn with_opt(mut query: Vec<u8>, payload: u16, version: u8, dnssec_ok: bool) -> Vec<u8> {
    query[11] += 1;
    query.extend([0, 0, 41]);
    query.extend(payload.to_be_bytes());
    query.extend([0, version, if dnssec_ok { 0x80 } else { 0 }, 0, 0, 0]);
    query
}

/// The answer of a resolver to a message it was asked.
fn answer(asked: &[u8], rcode: u8, tail: &[u8]) -> Vec<u8> {
    let mut bytes = asked.to_vec();
    bytes[2] |= 0x80;
    bytes[3] = 0x80 | rcode;
    bytes.extend(tail);
    bytes
}

fn config() -> Config {
    Config {
        domain: "vmnet.internal".into(),
        gateway: vec![
            "192.168.64.1".parse().unwrap(),
            "fd00:64::1".parse().unwrap(),
        ],
        subnets: vec![
            ("192.168.64.0".parse().unwrap(), 24),
            ("fd00:64::".parse().unwrap(), 64),
        ],
        asks_outside: true,
        seed: *b"sixteen bytes ok",
    }
}

const RESOLVERS: [&str; 3] = ["10.0.0.1:53", "10.0.0.2:53", "[2001:db8::3]:53"];

fn resolver(n: usize) -> SocketAddr {
    RESOLVERS[n].parse().unwrap()
}

#[derive(Debug, PartialEq)]
struct Asked {
    query: QueryId,
    resolver: SocketAddr,
    transport: Transport,
    message: Vec<u8>,
}

/// A proxy, a clock, and what came out.
struct Bench {
    proxy: Proxy<u32>,
    now: Instant,
    start: Instant,
    asked: Vec<Asked>,
    forgotten: Vec<QueryId>,
    replies: Vec<(u32, Vec<u8>)>,
}

impl Bench {
    fn new(resolvers: usize) -> Self {
        let now = Instant::now();
        let mut proxy = Proxy::new(&config()).unwrap();
        let addresses: Vec<SocketAddr> = (0..resolvers).map(resolver).collect();
        proxy.set_resolvers(now, &addresses);
        Self {
            proxy,
            now,
            start: now,
            asked: vec![],
            forgotten: vec![],
            replies: vec![],
        }
    }

    fn take(&mut self, out: Vec<Output<u32>>) {
        for output in out {
            match output {
                Output::Ask {
                    query,
                    resolver,
                    transport,
                    message,
                } => {
                    self.asked.push(Asked {
                        query,
                        resolver,
                        transport,
                        message,
                    });
                }
                Output::Forget { query } => self.forgotten.push(query),
                Output::Reply { asker, message } => self.replies.push((asker, message)),
            }
        }
    }

    fn query_from(
        &mut self,
        guest: u64,
        asker: u32,
        transport: Transport,
        message: &[u8],
    ) -> Result<(), super::Drop> {
        let mut out = vec![];
        let result = self
            .proxy
            .query(self.now, Guest(guest), asker, transport, message, &mut out);
        self.take(out);
        result
    }

    fn query(&mut self, message: &[u8]) {
        self.query_from(1, 1, Transport::Udp, message).unwrap();
    }

    fn answer(&mut self, query: QueryId, message: &[u8]) {
        let mut out = vec![];
        self.proxy.answer(self.now, query, message, &mut out);
        self.take(out);
    }

    fn fail(&mut self, query: QueryId) {
        let mut out = vec![];
        self.proxy.failed(self.now, query, &mut out);
        self.take(out);
    }

    /// Jumps from deadline to deadline.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.proxy.next_deadline().filter(|next| *next <= end) {
            assert!(
                next >= self.now,
                "a deadline in the past was not dealt with"
            );
            self.now = next;
            let mut out = vec![];
            self.proxy.timeout(self.now, &mut out);
            self.take(out);
            assert!(
                self.proxy.next_deadline() != Some(next),
                "the same deadline again"
            );
        }
        self.now = end;
    }

    fn seconds(&self) -> f64 {
        (self.now - self.start).as_secs_f64()
    }

    fn last_asked(&self) -> &Asked {
        self.asked.last().expect("something was asked")
    }

    fn only_reply(&mut self) -> Vec<u8> {
        assert_eq!(self.replies.len(), 1, "{:?}", self.replies);
        self.replies.pop().unwrap().1
    }

    /// Everything that was asked has been forgotten, and nothing twice.
    fn is_quiet(&self) -> bool {
        let mut asked: Vec<QueryId> = self.asked.iter().map(|asked| asked.query).collect();
        let mut forgotten = self.forgotten.clone();
        asked.sort();
        forgotten.sort();
        asked == forgotten && self.proxy.in_flight() == (0, 0) && self.proxy.is_consistent()
    }
}

fn rcode(message: &[u8]) -> u8 {
    message[3] & 0x0f
}
