//! Nobody speaks in the gateway's name: every frame of a guest is looked at before it goes anywhere. IPv6 has its own
//! guard.

use core::net::Ipv4Addr;

use vmnet_wire::ethernet::{self, EtherType};
use vmnet_wire::{arp, ipv4};

use crate::drop::Drop;
use crate::link::Gateway;
use crate::switch::guard;

/// Tags and LLC headers that are looked behind.
const TAGS_MAX: usize = 4;
/// Below it the field of the type is a length, and LLC follows (IEEE 802.3 §3.2.6).
const TYPES: u16 = 0x0600;

/// Refuses what claims the gateway's address, behind tags (802.1Q, 802.1ad) too: a Linux guest takes a frame with the tag
/// of no VLAN as its own. What SNAP carries is judged by its type: there are systems that take it (RFC 1042).
///
/// # Errors
/// Why the frame must not go on.
pub(crate) fn refuse(
    gateway: &Gateway,
    mut ether_type: EtherType,
    mut payload: &[u8],
) -> Result<(), Drop> {
    for _ in 0..TAGS_MAX {
        let (inner, rest) = match (ether_type, payload) {
            (EtherType::VLAN | EtherType::SERVICE_VLAN, [_, _, high, low, rest @ ..])
            | (EtherType(..TYPES), [0xaa | 0xab, 0xaa | 0xab, _, _, _, _, high, low, rest @ ..]) => {
                ([*high, *low], rest)
            }
            (EtherType::VLAN | EtherType::SERVICE_VLAN, _) => return Err(Drop::Malformed),
            _ => break,
        };
        ether_type = EtherType(u16::from_be_bytes(inner));
        payload = rest;
    }
    let spoofed = match ether_type {
        EtherType::ARP => arp::Packet::read(payload).is_some_and(|packet| {
            gateway.v4() == Some(packet.sender()) || gateway.is_mac(packet.sender_mac())
        }),
        EtherType::IPV4 => ipv4::Packet::read(payload, usize::MAX)
            .is_ok_and(|packet| gateway.v4() == Some(packet.header.source())),
        EtherType::IPV6 if gateway.serves_guests() => return guard::refuse(gateway, payload),
        // So many tags have no honest meaning here.
        EtherType::VLAN | EtherType::SERVICE_VLAN => true,
        EtherType(..TYPES) => matches!(payload, [0xaa | 0xab, 0xaa | 0xab, _, _, _, _, _, _, ..]),
        _ => false,
    };
    if spoofed { Err(Drop::Spoofed) } else { Ok(()) }
}

/// Certainly nothing that [`refuse`] refuses, however the packet goes on: IPv4, TCP or UDP by IPv6, from an address that is
/// not the gateway's. It is what nearly all frames between guests are, and found out by a few bytes.
#[inline]
pub(crate) fn is_harmless(gateway: &Gateway, ether_type: EtherType, payload: &[u8]) -> bool {
    match ether_type {
        EtherType::IPV4 => {
            ipv4::source_of(payload).is_some_and(|source| gateway.v4() != Some(source))
        }
        EtherType::IPV6 => guard::is_harmless(gateway, payload),
        _ => false,
    }
}

/// All of an IPv4 frame's head on which [`is_harmless`] and the way of the frame depend: addresses and type of Ethernet, and the
/// address of its sender. None: it is no such frame, or too short for the headers.
#[inline(always)]
pub(crate) fn origin(head: &[u8]) -> Option<([u8; ethernet::Header::LEN], Ipv4Addr)> {
    let ethernet = head.first_chunk()?;
    let (header, packet) = ethernet::Header::read(head)?;
    let source = ipv4::source_of(packet)?;
    (header.ether_type() == EtherType::IPV4).then_some((*ethernet, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vmnet_wire::ethernet::Mac;
    use zerocopy::IntoBytes;

    #[test]
    fn the_gateways_address_is_refused_behind_any_tags() {
        let gateway = Gateway::shared("192.168.64.0/24");
        let [guest, other] = [[192, 168, 64, 2].into(), [192, 168, 64, 3].into()];
        for tags in 0..=TAGS_MAX + 1 {
            for (sender, expected) in [(gateway.v4().unwrap(), false), (guest, tags <= TAGS_MAX)] {
                let mut ether_type = EtherType::ARP;
                let mut payload = arp::Packet::request(Mac([4; 6]), sender, other)
                    .as_bytes()
                    .to_vec();
                for _ in 0..tags {
                    let [high, low] = ether_type.0.to_be_bytes();
                    payload.splice(0..0, [0, 0, high, low]);
                    ether_type = EtherType::VLAN;
                }
                let passes = refuse(&gateway, ether_type, &payload).is_ok();
                assert_eq!(passes, expected, "{sender} behind {tags} tags");
            }
        }
        let cut = refuse(&gateway, EtherType::VLAN, &[0, 0, 8]);
        assert_eq!(cut, Err(Drop::Malformed));
    }

    /// Bytes that are now and then what the guard looks for.
    fn packets() -> impl Strategy<Value = (EtherType, Vec<u8>)> {
        let addresses = prop_oneof![
            Just(vec![192, 168, 64, 1]),
            Just(vec![192, 168, 64, 2]),
            proptest::collection::vec(any::<u8>(), 4),
        ];
        let v4 = (addresses, 0x43_u8..0x48, 0_usize..60, any::<bool>()).prop_map(
            |(source, version_len, len, sound)| {
                let mut packet = vec![0; 60];
                packet[0] = version_len;
                packet[3] = 60;
                packet[12..16].copy_from_slice(&source);
                if sound {
                    let header = usize::from(version_len & 15) * 4;
                    let sum = vmnet_wire::checksum::Sum::new().with(&packet[..header]);
                    packet[10..12].copy_from_slice(&sum.finish().to_be_bytes());
                }
                packet.truncate(len);
                (EtherType::IPV4, packet)
            },
        );
        let gateways = Gateway::shared("192.168.64.0/24")
            .ipv6
            .map(|net| net.gateway());
        let sources = prop_oneof![
            Just(gateways.map_or([0; 16], |address| address.octets())),
            Just([0xfe; 16]),
            any::<[u8; 16]>(),
        ];
        let next = prop_oneof![
            Just(6_u8),
            Just(17),
            Just(58),
            Just(0),
            Just(44),
            any::<u8>()
        ];
        let ports = prop_oneof![Just(546_u16), Just(547), any::<u16>()];
        let lens = (0_usize..80, 0_u8..60);
        let v6 = (sources, next, ports, lens, 0x5_u8..0x8).prop_map(
            |(source, next, port, (len, payload), version)| {
                let mut packet = vec![0; 80];
                packet[0] = version << 4;
                packet[5] = payload;
                packet[6] = next;
                packet[8..24].copy_from_slice(&source);
                packet[42..44].copy_from_slice(&port.to_be_bytes());
                packet.truncate(len);
                (EtherType::IPV6, packet)
            },
        );
        let any = (any::<u16>(), proptest::collection::vec(any::<u8>(), 0..80))
            .prop_map(|(kind, packet)| (EtherType(kind), packet));
        prop_oneof![v4, v6, any]
    }

    proptest! {
        #[test]
        fn what_is_harmless_is_not_refused_however_it_goes_on(
            (ether_type, packet) in packets(),
            more in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let gateway = Gateway::shared("192.168.64.0/24");
            if is_harmless(&gateway, ether_type, &packet) {
                prop_assert_eq!(refuse(&gateway, ether_type, &packet), Ok(()));
                let longer = [packet, more].concat();
                prop_assert_eq!(refuse(&gateway, ether_type, &longer), Ok(()));
            }
        }
    }

    #[test]
    fn ordinary_packets_are_harmless() {
        let gateway = Gateway::shared("192.168.64.0/24");
        let mut v4 = vec![0x45; 20];
        v4[12..16].copy_from_slice(&[192, 168, 64, 2]);
        assert!(is_harmless(&gateway, EtherType::IPV4, &v4));
        v4[15] = 1;
        assert!(!is_harmless(&gateway, EtherType::IPV4, &v4));
        let mut v6 = vec![0; 60];
        (v6[0], v6[6], v6[8]) = (0x60, 6, 0xfd);
        assert!(is_harmless(&gateway, EtherType::IPV6, &v6));
        v6[6] = 58;
        assert!(!is_harmless(&gateway, EtherType::IPV6, &v6));
    }
}
