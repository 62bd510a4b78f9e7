//! A DNS server (RFC 1035) that counts what it is asked, over UDP and TCP.
//!
//! | name | answer |
//! | --- | --- |
//! | `files.example.test` A | the server outside |
//! | `N.many.example.test` A | the server outside, for any `N` |
//! | `both.example.test` A, AAAA | the server outside, by both families |
//! | `six.example.test` AAAA | the server outside, by IPv6 alone |
//! | `big.example.test` TXT | about 3,600 bytes: truncated over UDP, whole over TCP |
//! | `silent.example.test` | none, ever |
//! | another name below `example.test` | NXDOMAIN |
//!
//! Written by hand and not on the codec that the product uses, so that one does not excuse the other.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use super::serve::Running;
use super::{SERVER, SERVER6};

/// What is asked for.
const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;
/// What a UDP answer may hold without EDNS; the server does not speak EDNS.
const UDP_LIMIT: usize = 512;

/// How a query came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// Behind a length, on a stream.
    Tcp,
}

/// What the server was asked.
#[derive(Debug, Default)]
pub struct Zone {
    asked: Mutex<HashMap<(String, Transport), usize>>,
}

impl Zone {
    /// How often `name` was asked for, with any type.
    #[must_use]
    pub fn asked(&self, name: &str, transport: Transport) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.to_ascii_lowercase(), transport);
        asked.get(&key).copied().unwrap_or(0)
    }

    /// The whole answer to `query`; `None` for what is no query or must stay unanswered.
    fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = Question::read(query)?;
        let name = question.name.to_ascii_lowercase();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        *asked.entry((name.clone(), transport)).or_default() += 1;
        drop(asked);
        let records: Vec<Vec<u8>> = match (name.as_str(), question.kind) {
            ("silent.example.test", _) => return None,
            ("big.example.test", TXT) => (0..16_u8).map(text_record).collect(),
            (name, A) if is_server(name) => vec![SERVER.octets().to_vec()],
            (name, AAAA) if has_ipv6(name) => vec![SERVER6.octets().to_vec()],
            (name, _) if is_server(name) || has_ipv6(name) || name == "big.example.test" => {
                Vec::new()
            }
            _ => return Some(question.reply(query, 3, false, &[])),
        };
        let whole = question.reply(query, 0, false, &records);
        if transport == Transport::Udp && whole.len() > UDP_LIMIT {
            return Some(question.reply(query, 0, true, &[]));
        }
        Some(whole)
    }
}

fn is_server(name: &str) -> bool {
    matches!(name, "files.example.test" | "both.example.test")
        || name.ends_with(".many.example.test")
}

fn has_ipv6(name: &str) -> bool {
    matches!(name, "both.example.test" | "six.example.test")
}

/// One string of 220 letters.
fn text_record(number: u8) -> Vec<u8> {
    let mut data = vec![220];
    data.extend(std::iter::repeat_n(b'a' + number % 26, 220));
    data
}

struct Question {
    name: String,
    kind: u16,
    /// Where the question ends in the query.
    end: usize,
}

impl Question {
    fn read(query: &[u8]) -> Option<Self> {
        let flags = query.get(2)?;
        // A response, or an operation other than a query.
        if flags & 0xf8 != 0 || query.get(4..6)? != [0, 1] {
            return None;
        }
        let (mut name, mut at) = (String::new(), 12);
        loop {
            let len = usize::from(*query.get(at)?);
            at += 1;
            if len == 0 {
                break;
            }
            if len > 63 {
                return None;
            }
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(&String::from_utf8_lossy(query.get(at..at + len)?));
            at += len;
        }
        let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
        query.get(at + 3)?;
        Some(Self {
            name,
            kind,
            end: at + 4,
        })
    }

    /// The answer with `records` of the asked type, 60 s each.
    fn reply(&self, query: &[u8], code: u8, truncated: bool, records: &[Vec<u8>]) -> Vec<u8> {
        let mut reply = query[..2].to_vec();
        // QR, AA, the client's RD; RA.
        reply.push(0x84 | (query[2] & 1) | if truncated { 2 } else { 0 });
        reply.push(0x80 | code);
        let count = u16::try_from(records.len()).expect("a handful of records");
        for number in [1, count, 0, 0] {
            reply.extend(number.to_be_bytes());
        }
        reply.extend(&query[12..self.end]);
        for record in records {
            // The name by a pointer to the question, the type, class IN, the time to live.
            reply.extend([0xc0, 12]);
            reply.extend(self.kind.to_be_bytes());
            reply.extend([0, 1, 0, 0, 0, 60]);
            let len = u16::try_from(record.len()).expect("a short record");
            reply.extend(len.to_be_bytes());
            reply.extend(record);
        }
        reply
    }
}

/// Serves `zone` at `address`; called inside the namespace.
pub(super) fn start(address: SocketAddr, zone: &Arc<Zone>, running: &Running) {
    let socket = UdpSocket::bind(address).expect("bind the DNS server");
    let this = Arc::clone(zone);
    running.datagrams(socket, move |query, _| this.answer(query, Transport::Udp));
    let listener = TcpListener::bind(address).expect("listen for DNS over TCP");
    let this = Arc::clone(zone);
    running.accept(listener, move |mut stream| {
        loop {
            let mut len = [0; 2];
            stream.read_exact(&mut len)?;
            let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
            stream.read_exact(&mut query)?;
            if let Some(reply) = this.answer(&query, Transport::Tcp) {
                let len = u16::try_from(reply.len()).expect("a short answer");
                let mut message = len.to_be_bytes().to_vec();
                message.extend(reply);
                stream.write_all(&message)?;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(u8::try_from(label.len()).unwrap());
            bytes.extend(label.bytes());
        }
        bytes.push(0);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes
    }

    #[test]
    fn answers_counts_and_truncates() {
        let zone = Zone::default();
        let reply = zone
            .answer(&query("Files.example.test", A), Transport::Udp)
            .unwrap();
        assert_eq!(reply[..4], [0xab, 0xcd, 0x85, 0x80]);
        assert!(reply.ends_with(&SERVER.octets()));
        assert_eq!(zone.asked("files.example.test", Transport::Udp), 1);
        assert_eq!(zone.asked("files.example.test", Transport::Tcp), 0);

        let six = zone
            .answer(&query("six.example.test", AAAA), Transport::Udp)
            .unwrap();
        assert!(six.ends_with(&SERVER6.octets()));
        let none = zone
            .answer(&query("six.example.test", A), Transport::Udp)
            .unwrap();
        assert_eq!((none[3] & 15, none[7]), (0, 0), "no error, no answer");

        let big = query("big.example.test", TXT);
        let short = zone.answer(&big, Transport::Udp).unwrap();
        assert_eq!(short[2] & 2, 2, "truncated");
        let whole = zone.answer(&big, Transport::Tcp).unwrap();
        assert_eq!(whole[2] & 2, 0);
        assert!(whole.len() > 3000);

        let missing = zone
            .answer(&query("no.example.test", A), Transport::Udp)
            .unwrap();
        assert_eq!(missing[3] & 15, 3, "NXDOMAIN");
        assert_eq!(
            zone.answer(&query("silent.example.test", A), Transport::Udp),
            None
        );
        assert_eq!(zone.answer(&[0; 5], Transport::Udp), None);
    }
}
