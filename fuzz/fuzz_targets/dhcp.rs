//! The DHCP server under a sequence of messages: each is a length, a guest, and bytes.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use vmnet_core::gateway::dhcp::{Config, Request, Server};
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
    let mut now = Instant::now();
    let mut rest = data;
    while let [length, length_low, guest, wait, tail @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*length % 4, *length_low])).min(tail.len());
        let (payload, tail) = tail.split_at(len);
        rest = tail;
        now += Duration::from_secs(u64::from(*wait));
        let request = Request {
            ethernet_source: Mac([2, 0, 0, 0, 0, guest % 32]),
            ip_source: if guest & 32 == 0 { [0; 4].into() } else { address(guest % 16) },
            ip_destination: if guest & 64 == 0 { [255; 4].into() } else { address(1) },
            payload,
        };
        let _ = server.receive(now, &request);
        let _ = server.timeout(now);
        assert!(server.next_deadline().is_none_or(|at| at > now));
        assert!(server.leases().count() <= 64);
    }
});
