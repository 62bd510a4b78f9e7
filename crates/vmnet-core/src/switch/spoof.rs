//! Nobody speaks in the gateway's name: every frame of a guest is looked at before it goes anywhere. IPv6 has its own
//! guard.

use vmnet_wire::ethernet::EtherType;
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

#[cfg(test)]
mod tests {
    use super::*;
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
}
