//! By which pair of rings a flow's frames go to the guest: the one by which the guest last sent for that flow, as Linux
//! does it for taps; by the flow's hash until it has.

use std::net::{IpAddr, SocketAddr};

use vmnet_wire::ethernet::{self, EtherType};
use vmnet_wire::ip::Protocol;
use vmnet_wire::{ipv4, ipv6};

/// As many bytes of a frame are looked at: of one that only passes, a lane knows no more.
pub(crate) const HEAD: usize = 64;

/// Flows that are told apart.
const PLACES: usize = 256;

/// Which pair of rings each flow of a guest has.
#[derive(Debug)]
pub(super) struct Spread {
    /// One more than the pair; 0: the guest has not chosen.
    chosen: [u8; PLACES],
}

/// What a flow is known by, the same in both directions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Flow(u8);

impl Spread {
    pub(super) fn new() -> Self {
        Self {
            chosen: [0; PLACES],
        }
    }

    /// The guest has sent for a flow by this pair.
    pub(super) fn learn(&mut self, flow: Flow, pair: u8) {
        if let Some(place) = self.chosen.get_mut(usize::from(flow.0)) {
            *place = pair.saturating_add(1);
        }
    }

    /// Which of the `open` pairs is the flow's.
    pub(super) fn pair(&self, flow: Flow, open: &[u8]) -> Option<u8> {
        let chosen = self.chosen.get(usize::from(flow.0)).copied().unwrap_or(0);
        let chosen = chosen.checked_sub(1).filter(|pair| open.contains(pair));
        chosen.or_else(|| open.get(usize::from(flow.0) % open.len().max(1)).copied())
    }
}

impl Flow {
    /// That of a frame which begins so. No more of it counts than is known of every frame, so that all of a flow have the same.
    pub(super) fn of(head: &[u8]) -> Self {
        let known = head.get(..HEAD).unwrap_or(head);
        Self::find(known).unwrap_or(Self(0))
    }

    fn find(head: &[u8]) -> Option<Self> {
        let (header, packet) = ethernet::Header::read(head)?;
        let (addresses, protocol, behind) = match header.ether_type() {
            EtherType::IPV4 => {
                let words = packet.get(..ipv4::Header::LEN)?;
                let len = usize::from(words.first()? & 15) * 4;
                let protocol = Protocol(*words.get(9)?);
                (fold(words.get(12..20)?), protocol, packet.get(len..)?)
            }
            EtherType::IPV6 => {
                let header = ipv6::Header::read(packet)?;
                let addresses = packet.get(8..ipv6::Header::LEN)?;
                let behind = packet.get(ipv6::Header::LEN..)?;
                (fold(addresses), header.next_header(), behind)
            }
            _ => return None,
        };
        let ports = match (protocol, behind) {
            (Protocol::TCP | Protocol::UDP, [a, b, c, d, ..]) => {
                u16::from_be_bytes([*a, *b]) ^ u16::from_be_bytes([*c, *d])
            }
            _ => 0,
        };
        Some(Self::mix(addresses, ports))
    }

    /// That of a flow between these two.
    pub(super) fn between([one, other]: [SocketAddr; 2]) -> Self {
        let ports = one.port() ^ other.port();
        let addresses = match (one.ip(), other.ip()) {
            (IpAddr::V4(one), IpAddr::V4(other)) => fold(&one.octets()) ^ fold(&other.octets()),
            (IpAddr::V6(one), IpAddr::V6(other)) => fold(&one.octets()) ^ fold(&other.octets()),
            _ => 0,
        };
        Self::mix(addresses, ports)
    }

    fn mix(addresses: u32, ports: u16) -> Self {
        let mixed =
            (addresses ^ u32::from(ports).wrapping_mul(0x85eb_ca6b)).wrapping_mul(0x9e37_79b9);
        let [high, ..] = mixed.to_be_bytes();
        Self(high)
    }
}

/// All four-byte words together, whatever their order.
fn fold(bytes: &[u8]) -> u32 {
    let words = bytes.chunks_exact(4);
    words.fold(0, |sum, word| match word {
        [a, b, c, d] => sum ^ u32::from_be_bytes([*a, *b, *c, *d]),
        _ => sum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn frame(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else {
            panic!("IPv4 only");
        };
        let fields = ipv4::Fields {
            source,
            destination,
            protocol: Protocol::TCP,
            ttl: 64,
            id: 7,
            dont_fragment: true,
        };
        let mut bytes = vec![0; 12];
        bytes.extend([8, 0]);
        bytes.extend(ipv4::Header::new(&fields, 20).as_bytes());
        bytes.extend(from.port().to_be_bytes());
        bytes.extend(to.port().to_be_bytes());
        bytes.resize(54, 0);
        bytes
    }

    #[test]
    fn both_directions_are_one_flow_and_many_flows_are_spread() {
        let server: SocketAddr = "10.0.0.1:80".parse().unwrap();
        let open = [0, 1, 2, 3];
        let mut met = [0; 4];
        let mut spread = Spread::new();
        for port in 40_000..40_400 {
            let client = SocketAddr::new("192.168.64.2".parse().unwrap(), port);
            let flow = Flow::of(&frame(client, server));
            assert_eq!(flow, Flow::of(&frame(server, client)));
            assert_eq!(flow, Flow::between([client, server]));
            met[usize::from(spread.pair(flow, &open).unwrap())] += 1;
        }
        assert!(met.iter().all(|count| *count > 50), "{met:?}");
        let flow = Flow::of(&frame(server, "192.168.64.2:1".parse().unwrap()));
        spread.learn(flow, 3);
        assert_eq!(spread.pair(flow, &open), Some(3));
        assert!(spread.pair(flow, &[0, 1]).is_some_and(|pair| pair < 2));
        assert_eq!(spread.pair(flow, &[]), None);
    }

    #[test]
    fn anything_has_some_flow() {
        let whole = frame(
            "10.0.0.1:80".parse().unwrap(),
            "10.0.0.2:81".parse().unwrap(),
        );
        for len in 0..whole.len() {
            let _some = Flow::of(&whole[..len]);
        }
    }
}
