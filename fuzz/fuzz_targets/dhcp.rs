//! The DHCP server and its ledger under a sequence of messages: each is a length, a guest, and bytes. What the store
//! answers is decided by the guest's upper bits.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use vmnet_core::gateway::dhcp::{Answer, Config, LeaseChange, Ledger, Outcome, Request, Server};
use vmnet_wire::ethernet::Mac;

fuzz_target!(|data: &[u8]| {
    let address = |last| [192, 168, 64, last].into();
    let mut server = Server::new(Config {
        gateway: address(1),
        prefix_len: 28,
        first: address(2),
        last: address(14),
        lease_time: Duration::from_secs(600),
        mtu: 1500,
        domain: "vmnet.internal".to_owned(),
        search: vec!["vmnet.internal".to_owned()],
        resolvers: vec![address(1)],
        router: Some(address(1)),
        routes: Vec::new(),
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
        let request = Request {
            ethernet_source: Mac([2, 0, 0, 0, 0, guest % 32]),
            port: None,
            ip_source: if guest & 32 == 0 { [0; 4].into() } else { address(guest % 16) },
            ip_destination: if guest & 64 == 0 { [255; 4].into() } else { address(1) },
            payload,
        };
        let Answer { outcome, changes } = server.receive(now, &request);
        changes.iter().for_each(|change| ledger.note(change));
        let bound = changes.into_iter().find_map(|change| match change {
            LeaseChange::Bound(lease) => Some(lease),
            LeaseChange::Ended(_) | LeaseChange::Forgotten(_) => None,
        });
        if let (Outcome::Reply(reply), Some(lease)) = (outcome, bound) {
            let _ = ledger.hold(now, vec![lease], reply);
        }
        server.timeout(now).iter().for_each(|change| ledger.note(change));
        if guest & 128 == 0 && let Some(ticket) = under_way.take() {
            let settled = ledger.settle(now, &mut server, ticket, guest & 64 == 0);
            settled.ended.iter().for_each(|change| ledger.note(change));
        }
        if let Some((ticket, writes)) = ledger.write(now, &server) {
            assert!(under_way.replace(ticket).is_none(), "one batch at a time");
            assert!(writes.len() <= 16, "one write for an address");
        }
        assert!(ledger.waiting() <= 16);
        assert!(server.next_deadline().is_none_or(|at| at > now));
        assert!(server.leases().count() <= 64);
    }
});
