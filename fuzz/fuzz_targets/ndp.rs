//! Neighbour discovery: any message of a guest, with its checksum right, to a network whose gateway is a router. What
//! comes of it goes to no other guest than the one that sent it, unless it is to all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmnet_lab::sim::packets6::{self, Ends6, v6};
use vmnet_lab::sim::{Guest, Lan};
use vmnet_wire::{icmpv6, ndp};

/// The longest message in one packet.
const LARGEST: usize = 1500 - 40;

fuzz_target!(|data: &[u8]| {
    let [which, rest @ ..] = data else { return };
    let mut lan = Lan::dual(|_| {});
    let port = lan.plug(Guest::raw(9, lan.start, 1500));
    let other = lan.plug(Guest::raw(8, lan.start, 1500));
    lan.run_for(std::time::Duration::from_millis(1));
    lan.heard(port);
    lan.heard(other);
    let mac = lan.guest(port).mac;
    let gateway = lan.gateway6();
    let source = [ndp::link_local(mac), v6("::"), v6("fd00:0:0:64::9")][usize::from(which & 3) % 3];
    let ends = match which >> 2 & 3 {
        0 => Ends6 { macs: (mac, lan.network.gateway_mac()), ips: (source, gateway) },
        1 => Ends6::to_group(mac, source, v6("ff02::2")),
        2 => Ends6::to_group(mac, source, v6("ff02::1")),
        _ => Ends6::to_group(mac, source, ndp::solicited_node(gateway)),
    };
    // What does not fit into one packet leaves the guest in pieces, of which several pass and are no messages.
    if !(4..=LARGEST).contains(&rest.len()) {
        return;
    }
    let kind = rest[0];
    lan.inject(port, packets6::icmp(ends, 255, rest.to_vec()));
    let forwarded = lan.heard(other);
    assert!(forwarded.len() <= 1);
    for frame in forwarded {
        let Some((kind, _, seen)) = packets6::read_icmp(&frame) else { continue };
        assert!(kind != icmpv6::ROUTER_ADVERTISEMENT && kind != icmpv6::REDIRECT);
        assert!(seen.source == source);
    }
    for frame in lan.heard(port) {
        let (answer, _, seen) = packets6::read_icmp(&frame).expect("a message");
        match answer {
            icmpv6::NEIGHBOUR_ADVERTISEMENT => assert_eq!(kind, icmpv6::NEIGHBOUR_SOLICITATION),
            icmpv6::ROUTER_ADVERTISEMENT => assert_eq!(kind, icmpv6::ROUTER_SOLICITATION),
            icmpv6::ECHO_REPLY => assert_eq!(kind, icmpv6::ECHO_REQUEST),
            _ => assert!(icmpv6::is_error(answer)),
        }
        assert!(ndp::Message::read(&seen.payload).is_some() || !ndp::is_ndp(answer));
    }
});
