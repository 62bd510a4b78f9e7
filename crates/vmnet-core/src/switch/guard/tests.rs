use super::*;
use core::net::Ipv6Addr;
use proptest::prelude::*;
use vmnet_wire::ethernet::Mac;
use vmnet_wire::ipv6::{FragmentHeader, Header};
use zerocopy::IntoBytes;

const ROUTER_ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];

fn gateway() -> Gateway {
    Gateway::shared("192.168.64.0/24")
}

fn packet(source: &str, next: Protocol, behind: &[u8]) -> Vec<u8> {
    let (source, to): (Ipv6Addr, Ipv6Addr) = (source.parse().unwrap(), "ff02::1".parse().unwrap());
    let header = Header::new(source, to, next, 255, behind.len());
    [header.as_bytes(), behind].concat()
}

fn judged(next: Protocol, behind: &[u8]) -> Result<(), Drop> {
    refuse(&gateway(), &packet("fe80::9", next, behind))
}

/// Options of eight bytes before a protocol.
fn options(next: Protocol) -> Vec<u8> {
    vec![next.0, 0, 1, 4, 0, 0, 0, 0]
}

fn fragment(next: Protocol, offset: usize, more: bool) -> Vec<u8> {
    FragmentHeader::new(next, 7, offset, more)
        .as_bytes()
        .to_vec()
}

#[test]
fn routers_and_servers_are_the_gateway_alone() {
    let (icmp, udp) = (Protocol::ICMPV6, Protocol::UDP);
    let redirect = [&[137, 0, 0, 0][..], &[0; 36]].concat();
    let reply = udp::Header::new(547, 546, 4, 0).as_bytes().to_vec();
    let odd_reply = udp::Header::new(1000, 546, 4, 0).as_bytes().to_vec();
    let request = udp::Header::new(546, 547, 4, 0).as_bytes().to_vec();
    let advertised = Err(Drop::RouterAdvertisement);
    for (next, behind, expected) in [
        (icmp, ROUTER_ADVERTISEMENT.to_vec(), advertised),
        (icmp, ROUTER_ADVERTISEMENT[..1].to_vec(), advertised),
        (icmp, redirect, Err(Drop::Redirect)),
        (icmp, vec![128, 0, 0, 0, 0, 1, 0, 1], Ok(())),
        (icmp, vec![143, 0, 0, 0, 0, 0, 0, 0], Ok(())),
        (icmp, vec![133, 0, 0, 0, 0, 0, 0, 0], Ok(())),
        (icmp, vec![], Err(Drop::HiddenHeaders)),
        (udp, reply, Err(Drop::Dhcp6Server)),
        (udp, odd_reply, Err(Drop::Dhcp6Server)),
        (udp, request, Ok(())),
        (udp, vec![2, 35], Err(Drop::HiddenHeaders)),
        (Protocol::TCP, vec![], Ok(())),
        (Protocol(50), vec![1; 8], Ok(())),
    ] {
        assert_eq!(judged(next, &behind), expected, "{next:?} {behind:?}");
    }
}

#[test]
fn nothing_hides_behind_headers_or_in_fragments() {
    let icmp = Protocol::ICMPV6;
    let (dst, frag) = (Protocol::DESTINATION_OPTIONS, Protocol::FRAGMENT);
    let ra = ROUTER_ADVERTISEMENT.to_vec();
    let (advertised, hidden) = (Err(Drop::RouterAdvertisement), Err(Drop::HiddenHeaders));
    let beyond = [&[icmp.0, 200][..], &[0; 20]].concat();
    let solicitation = vec![135; 24];
    let long = [options(dst).repeat(20), options(icmp), ra.clone()].concat();
    for (next, behind, expected) in [
        (dst, [options(icmp), ra.clone()].concat(), advertised),
        (
            Protocol::HOP_BY_HOP,
            [options(dst), options(icmp), ra.clone()].concat(),
            advertised,
        ),
        (
            Protocol::HIP,
            [options(icmp), ra.clone()].concat(),
            advertised,
        ),
        (
            Protocol::AUTHENTICATION,
            [vec![icmp.0, 0, 0, 0, 0, 0, 0, 0], ra.clone()].concat(),
            advertised,
        ),
        (
            frag,
            [fragment(icmp, 0, false), ra.clone()].concat(),
            advertised,
        ),
        (
            frag,
            [fragment(icmp, 0, true), ra.clone()].concat(),
            advertised,
        ),
        (
            frag,
            [fragment(dst, 0, true), options(icmp), ra.clone()].concat(),
            advertised,
        ),
        // The header is in the next fragment.
        (
            frag,
            [fragment(dst, 0, true), options(icmp)].concat(),
            hidden,
        ),
        (
            frag,
            [fragment(dst, 0, true), beyond.clone()].concat(),
            hidden,
        ),
        (frag, [fragment(icmp, 0, true), vec![]].concat(), hidden),
        (dst, beyond, hidden),
        (dst, long, hidden),
        // Neighbour discovery is never cut (RFC 6980).
        (
            frag,
            [fragment(icmp, 0, true), solicitation].concat(),
            Err(Drop::NeighbourDiscovery),
        ),
        // Without a first fragment the others are nothing.
        (frag, [fragment(icmp, 8, false), ra].concat(), Ok(())),
    ] {
        assert_eq!(judged(next, &behind), expected, "{next:?} {behind:?}");
    }
}

#[test]
fn nobody_speaks_in_the_gateways_name() {
    let gateway = gateway();
    let [own, link_local] = [gateway.v6().unwrap(), gateway.link_local().unwrap()];
    for source in [own, link_local] {
        let spoofed = packet(&source.to_string(), Protocol::TCP, &[0; 20]);
        assert_eq!(refuse(&gateway, &spoofed), Err(Drop::Spoofed));
    }
    let guest: Ipv6Addr = "fd00:0:0:64::9".parse().unwrap();
    let mac = Mac([4; 6]);
    let told = |target, named| ndp::Neighbour::advertisement(0, target, named);
    let asked = |named| ndp::Neighbour::solicitation(guest, named);
    for (message, expected) in [
        (told(guest, mac), Ok(())),
        (told(own, mac), Err(Drop::Spoofed)),
        (told(link_local, mac), Err(Drop::Spoofed)),
        (told(guest, gateway.mac), Err(Drop::Spoofed)),
        (asked(mac), Ok(())),
        (asked(gateway.mac), Err(Drop::Spoofed)),
    ] {
        assert_eq!(judged(Protocol::ICMPV6, message.as_bytes()), expected);
    }
    // One that goes on where nobody looks could say anything.
    let mut long = told(own, mac).as_bytes().to_vec();
    long[25] = 200;
    let refused = Err(Drop::NeighbourDiscovery);
    assert_eq!(judged(Protocol::ICMPV6, &long), refused);
}

proptest! {
    /// Whatever stands before it, a router advertisement that a receiver would find does not pass.
    #[test]
    fn no_chain_carries_an_advertisement(
        chain in proptest::collection::vec((prop::sample::select(vec![43u8, 60, 135, 139, 140, 44]), any::<[u8; 6]>()), 0..12),
    ) {
        let mut behind = ROUTER_ADVERTISEMENT.to_vec();
        let mut next = Protocol::ICMPV6;
        for (kind, bytes) in chain {
            let header = if kind == 44 {
                fragment(next, 0, bytes[0] & 1 == 1)
            } else {
                [&[next.0, 0][..], &bytes].concat()
            };
            behind.splice(0..0, header);
            next = Protocol(kind);
        }
        prop_assert!(judged(next, &behind).is_err());
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let _ = refuse(&gateway(), &bytes);
    }
}
