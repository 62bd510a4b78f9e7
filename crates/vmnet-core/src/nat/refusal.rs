//! What guests, or firewalls in them, say by ICMP of what we sent them (RFC 792, RFC 4443 §3).
//!
//! The outside hears of it by what becomes of the connection: sockets of the host say nothing by ICMP. So a refused client
//! of a forwarded port is reset at once, as by a guest's RST, and a connection whose segments are too large for a link
//! behind its guest goes on with smaller ones.
//!
//! Of datagrams nothing follows. The kernel says "port unreachable" for us only where no socket is: that of a forwarded port
//! is there for all its clients, and to close that of a mapping because its guest refused one datagram would let any
//! stranger end it. A guest's socket that is connected to one peer refuses those of all others, which endpoint-independent
//! filtering lets in (RFC 4787 §5).

use core::net::{IpAddr, SocketAddr};

use vmnet_wire::ip::Protocol;
use vmnet_wire::tcp::Seq;
use vmnet_wire::{icmpv4, icmpv6, ipv4, ipv6};

use crate::drop::Drop;
use crate::link::Link;
use crate::nat::Nat;
use crate::nat::flow::Key;
use crate::nat::outward::Outward;
use crate::nat::table::Flow;
use crate::nat::tcp::Fate;

/// What is wrong with a segment of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    /// It does not arrive.
    Unreachable,
    /// It is larger than this many bytes, its IP header included, which the way takes.
    TooLarge(u32),
}

/// The first bytes of a segment of ours, as the error quotes them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Quoted {
    peer: SocketAddr,
    guest: SocketAddr,
    sequence: Seq,
}

impl Nat {
    /// An ICMP message of a guest that asks for nothing.
    pub(super) fn refused_by_guest(&mut self, link: &mut Link<'_>, packet: &Outward<'_>) {
        let found = read(packet.source, packet.head);
        let Some((refusal, quoted)) = found else {
            return link.drop(Drop::Protocol);
        };
        let key = Key::new(Protocol::TCP, quoted.guest, quoted.peer);
        let id = self.table.look_up(&key);
        let flow = id.and_then(|id| self.table.get_mut(id).map(|flow| (id, flow)));
        let Some((id, Flow::Tcp(flow))) = flow else {
            return link.drop(Drop::NoConnection);
        };
        // Nobody speaks of another guest's connection.
        if flow.mac != packet.mac {
            return link.drop(Drop::Spoofed);
        }
        match refusal {
            Refusal::Unreachable => {
                if flow.refused(link, quoted.sequence) == Fate::Ended {
                    self.table.remove(id);
                }
            }
            Refusal::TooLarge(mtu) => flow.narrow(link, &mut self.agenda, quoted.sequence, mtu),
        }
    }
}

/// What a message of a guest of this family says, if it is about a TCP segment.
fn read(family: IpAddr, message: &[u8]) -> Option<(Refusal, Quoted)> {
    if family.is_ipv4() {
        let header = icmpv4::Header::read(message)?;
        let refusal = match (header.kind, header.code) {
            (icmpv4::UNREACHABLE, icmpv4::unreachable::FRAGMENTATION_NEEDED) => {
                Refusal::TooLarge(header.sequence.get().into())
            }
            (icmpv4::UNREACHABLE, _) => Refusal::Unreachable,
            _ => return None,
        };
        let packet = ipv4::Packet::read(message.get(icmpv4::Header::LEN..)?, usize::MAX).ok()?;
        let (from, to) = (packet.header.source(), packet.header.destination());
        let is_tcp =
            packet.header.protocol() == Protocol::TCP && packet.header.fragment_offset() == 0;
        let quoted = Quoted::read((from.into(), to.into()), packet.payload);
        return quoted.filter(|_| is_tcp).map(|quoted| (refusal, quoted));
    }
    let header = icmpv6::Header::read(message)?;
    let refusal = match header.kind {
        icmpv6::PACKET_TOO_BIG => Refusal::TooLarge(header.word.get()),
        icmpv6::UNREACHABLE => Refusal::Unreachable,
        _ => return None,
    };
    // What we send to guests has no extension headers.
    let packet = message.get(icmpv6::Header::LEN..)?;
    let header = ipv6::Header::read(packet)?;
    let ends = (header.source().into(), header.destination().into());
    let quoted = Quoted::read(ends, packet.get(ipv6::Header::LEN..)?);
    let is_tcp = header.next_header() == Protocol::TCP;
    quoted.filter(|_| is_tcp).map(|quoted| (refusal, quoted))
}

impl Quoted {
    /// The first eight bytes of a TCP header are always there (RFC 792).
    fn read((from, to): (IpAddr, IpAddr), header: &[u8]) -> Option<Self> {
        let ([a, b, c, d, sequence @ ..], _) = header.split_first_chunk::<8>()?;
        Some(Self {
            peer: SocketAddr::new(from, u16::from_be_bytes([*a, *b])),
            guest: SocketAddr::new(to, u16::from_be_bytes([*c, *d])),
            sequence: Seq(u32::from_be_bytes(*sequence)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmnet_wire::ipv4::Fields;
    use zerocopy::IntoBytes;

    /// The first bytes of a segment from port 700 to port 80 with the number 0x01020304.
    const TCP: [u8; 8] = [2, 188, 0, 80, 1, 2, 3, 4];

    fn v4(protocol: Protocol) -> Vec<u8> {
        let fields = Fields {
            source: [10, 0, 0, 9].into(),
            destination: [192, 168, 64, 2].into(),
            protocol,
            ttl: 64,
            id: 1,
            dont_fragment: true,
        };
        [ipv4::Header::new(&fields, 1000).as_bytes(), &TCP].concat()
    }

    fn v6(protocol: Protocol) -> Vec<u8> {
        let (from, to) = ("2001:db8::7", "fd00:0:0:64::2");
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        [
            ipv6::Header::new(from, to, protocol, 64, 1000).as_bytes(),
            &TCP,
        ]
        .concat()
    }

    #[test]
    fn what_guests_say() {
        let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
        for (six, kind, word, packet, refusal) in [
            (false, (3, 3), 0, v4(tcp), Some(Refusal::Unreachable)),
            (false, (3, 13), 0, v4(tcp), Some(Refusal::Unreachable)),
            (false, (3, 4), 1400, v4(tcp), Some(Refusal::TooLarge(1400))),
            (false, (3, 3), 0, v4(udp), None),
            (false, (11, 0), 0, v4(tcp), None),
            (false, (0, 0), 0, v4(tcp), None),
            (false, (3, 3), 0, v4(tcp)[..27].to_vec(), None),
            (false, (3, 3), 0, v6(tcp), None),
            (true, (1, 4), 0, v6(tcp), Some(Refusal::Unreachable)),
            (true, (1, 1), 0, v6(tcp), Some(Refusal::Unreachable)),
            (true, (2, 0), 1400, v6(tcp), Some(Refusal::TooLarge(1400))),
            (true, (1, 4), 0, v6(udp), None),
            (true, (3, 0), 0, v6(tcp), None),
            (true, (4, 0), 0, v6(tcp), None),
            (true, (1, 4), 0, v6(tcp)[..47].to_vec(), None),
            (true, (1, 4), 0, vec![], None),
        ] {
            let header = icmpv6::Header::new(kind.0, kind.1, word);
            let message = [header.as_bytes(), &packet].concat();
            let (family, peer): (IpAddr, IpAddr) = if six {
                (
                    "fd00:0:0:64::2".parse().unwrap(),
                    "2001:db8::7".parse().unwrap(),
                )
            } else {
                ([192, 168, 64, 2].into(), [10, 0, 0, 9].into())
            };
            let found = read(family, &message);
            assert_eq!(
                found.map(|(refusal, _)| refusal),
                refusal,
                "{kind:?} {packet:?}"
            );
            if let Some((_, quoted)) = found {
                let expected = Quoted {
                    peer: SocketAddr::new(peer, 700),
                    guest: SocketAddr::new(family, 80),
                    sequence: Seq(0x0102_0304),
                };
                assert_eq!(quoted, expected);
            }
        }
    }
}
