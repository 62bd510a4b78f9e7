//! The DHCPv6 server and its ledger under a sequence of messages: each is a length, a guest, and bytes. What the store
//! answers is decided by the guest's upper bits.
#![no_main]

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use vmnet_core::gateway::dhcp6::{Answer, Config, LeaseChange, Ledger, Outcome, Request, Server};
use vmnet_wire::ethernet::Mac;

/// Guests, each of which holds eight addresses at most; what they held before is remembered.
const GUESTS: u8 = 32;

fuzz_target!(|data: &[u8]| {
    let prefix: vmnet_core::Prefix = "fd12:3456:789a:1::/64".parse().expect("a prefix");
    let mut server = Server::new(Config {
        prefix,
        mac: Mac([2; 6]),
        lease_time: Duration::from_secs(600),
        domain: "vmnet.internal".to_owned(),
        resolvers: vec![prefix.gateway()],
    })
    .expect("a server");
    let mut ledger = Ledger::default();
    let mut under_way = None;
    let mut now = Instant::now();
    let mut rest = data;
    while let [length, length_low, guest, wait, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*length % 4, *length_low])).min(tail.len());
        let (payload, tail) = tail.split_at(len);
        rest = tail;
        now += Duration::from_secs(u64::from(*wait));
        let number = guest % GUESTS;
        let request = Request {
            ethernet_source: Mac([2, 0, 0, 0, 0, number]),
            port: None,
            source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number.into()),
            to_one: guest & 32 != 0,
            payload,
        };
        let Answer { outcome, changes } = server.receive(now, &request);
        changes.iter().for_each(|change| ledger.note(change));
        let bound = changes.into_iter().filter_map(|change| match change {
            LeaseChange::Bound(lease) => Some(lease),
            LeaseChange::Ended(_) | LeaseChange::Forgotten(_) => None,
        });
        let bound: Vec<_> = bound.collect();
        if let Outcome::Reply(reply) = outcome {
            assert_eq!((reply.mac, reply.address), (request.ethernet_source, request.source));
            assert_eq!(reply.payload.get(1..4), payload.get(1..4), "the transaction");
            assert!(matches!(reply.payload.first(), Some(2 | 7)));
            if !bound.is_empty() {
                let _ = ledger.hold(now, bound, reply);
            }
        }
        server.timeout(now).iter().for_each(|change| ledger.note(change));
        if guest & 128 == 0 && let Some(ticket) = under_way.take() {
            let settled = ledger.settle(now, &mut server, ticket, guest & 64 == 0);
            settled.ended.iter().for_each(|change| ledger.note(change));
        }
        if let Some((ticket, _writes)) = ledger.write(now, &server) {
            assert!(under_way.replace(ticket).is_none(), "one batch at a time");
        }
        assert!(server.next_deadline().is_none_or(|at| at > now));
        let mut addresses = BTreeSet::new();
        for lease in server.leases() {
            assert!(prefix.contains(lease.address) && lease.address != prefix.gateway());
            assert!(addresses.insert(lease.address), "one lease for an address");
        }
    }
});
