//! IPv6 frames of guests: sensible ones, nearly sensible ones, and rubbish.

use std::net::Ipv6Addr;

use vmnet_core::PortId;
use vmnet_wire::ethernet::{EtherType, Mac};
use vmnet_wire::ip::Protocol;
use vmnet_wire::ipv6::FragmentHeader;
use vmnet_wire::ndp::{self, Neighbour};
use vmnet_wire::tcp::{Fields, Flags, Seq};
use zerocopy::IntoBytes;

use crate::sim::nonsense::Nonsense;
use crate::sim::packets;
use crate::sim::packets6::{self, Ends6, v6};

/// The address of a guest.
pub(super) fn at(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 0x64, 0, 0, 0, number.into())
}

impl Nonsense<'_> {
    fn ends6(&mut self) -> (PortId, Ends6) {
        let guest = self.bytes.below(self.ports.len().min(3));
        let number = 2 + u8::try_from(guest).expect("few");
        let mac = Mac([0x52, 0x54, 0, 0, 0, number]);
        let source = match self.bytes.below(8) {
            0 => ndp::link_local(mac),
            1 => Ipv6Addr::UNSPECIFIED,
            2 => at(self.bytes.byte()),
            _ => at(number),
        };
        let to = match self.bytes.below(8) {
            0..=2 => v6("2001:db8::1"),
            3 => at(1),
            4 => at(3),
            5 => v6("ff02::1:2"),
            6 => ndp::solicited_node(at(1)),
            _ => ndp::link_local(self.network.gateway_mac()),
        };
        let ends = if to.is_multicast() {
            Ends6::to_group(mac, source, to)
        } else {
            Ends6 {
                macs: (mac, self.network.gateway_mac()),
                ips: (source, to),
            }
        };
        (self.ports[guest], ends)
    }

    pub(super) fn frame6(&mut self) {
        let (port, ends) = self.ends6();
        let mac = ends.macs.0;
        let rest = self.bytes.some();
        let frame = match self.bytes.below(12) {
            0 => packets6::probe(mac, at(self.bytes.byte())),
            1 => packets6::solicitation(mac, ends.ips.0, at(self.bytes.byte() % 8)),
            2 => packets6::advertisement(mac, at(self.bytes.byte() % 8), mac),
            3 => packets6::router_solicitation(mac, ends.ips.0),
            4 => {
                let kind = 133 + self.bytes.byte() % 5;
                let message = [&[kind, 0, 0, 0][..], &rest].concat();
                packets6::icmp(ends, 255, message)
            }
            5 => {
                let message = Neighbour::solicitation(ends.ips.1, mac).as_bytes().to_vec();
                packets6::icmp(ends, 255, [message, rest].concat())
            }
            6 => packets6::echo(ends, 64, self.bytes.word() % 3, 1, &rest),
            7 => {
                let port = [7, 53, 547, 8080, 0][self.bytes.below(5)];
                packets6::udp(ends, (5000 + u16::from(self.bytes.byte() % 4), port), &rest)
            }
            8 => self.segment6(ends),
            9 => {
                let id = u32::from(self.bytes.byte() % 8);
                let offset = 8 * self.bytes.below(40);
                let head = FragmentHeader::new(Protocol::UDP, id, offset, self.bytes.chance(2));
                let piece = [head.as_bytes(), &vec![3; 8 * self.bytes.below(100)]].concat();
                packets6::ip(ends, Protocol::FRAGMENT, 64, &piece)
            }
            10 => {
                let next = [0, 43, 44, 51, 60, 58, 135][self.bytes.below(7)];
                packets6::ip(ends, Protocol(next), 255, &rest)
            }
            _ => packets::frame(ends.macs, EtherType::IPV6, &rest),
        };
        self.receive(port, frame);
    }

    fn segment6(&mut self, ends: Ends6) -> Vec<u8> {
        let fields = Fields {
            source_port: 5000 + u16::from(self.bytes.byte() % 4),
            destination_port: [80, 53, 8080, 0][self.bytes.below(4)],
            sequence: Seq(self.bytes.number()),
            acknowledgement: Seq(self.bytes.number()),
            flags: [Flags::SYN, Flags::ACK, Flags(self.bytes.byte())][self.bytes.below(3)],
            window: self.bytes.word(),
        };
        packets6::tcp(ends, &fields, &vec![5; self.bytes.below(2000)])
    }
}
