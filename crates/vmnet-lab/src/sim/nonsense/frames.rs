//! Frames of guests: sensible ones, nearly sensible ones, and rubbish.

use vmnet_core::{Frame, PortId};
use vmnet_wire::ethernet::{EtherType, Mac};
use vmnet_wire::ip::Protocol;
use vmnet_wire::offload::{Checksum, Kind, Offload, Segmentation};
use vmnet_wire::tcp::{Fields, Flags, Seq};

use crate::sim::nonsense::Nonsense;
use crate::sim::packets::{self, Ends};

impl Nonsense<'_> {
    fn ends(&mut self) -> (PortId, Ends) {
        let guest = self.bytes.below(self.ports.len().min(3));
        let number = 2 + u8::try_from(guest).expect("few");
        let to: [u8; 4] = match self.bytes.below(8) {
            0..=3 => [10, 0, 0, 1],
            4 => [192, 168, 64, 1],
            5 => [192, 168, 64, 3],
            6 => [224, 0, 0, 1],
            _ => [10, 0, self.bytes.byte(), self.bytes.byte()],
        };
        let mac = Mac([0x52, 0x54, 0, 0, 0, number]);
        let ends = Ends {
            macs: (mac, self.network.gateway_mac()),
            ips: ([192, 168, 64, number].into(), to.into()),
        };
        (self.ports[guest], ends)
    }

    fn near(&mut self, number: u32) -> u32 {
        match self.bytes.below(8) {
            0..=4 => number,
            5 => number.wrapping_add(u32::from(self.bytes.byte())),
            6 => number.wrapping_sub(u32::from(self.bytes.byte())),
            _ => self.bytes.number(),
        }
    }

    pub(super) fn tcp(&mut self) {
        let (port, ends) = self.ends();
        let source = 5000 + u16::from(self.bytes.byte() % 4);
        let to = [80, 53, 8080, 0][self.bytes.below(4)];
        let known = self
            .seen
            .get(&(ends.ips.0, source, ends.ips.1, to))
            .copied()
            .unwrap_or_default();
        let flags = [
            Flags::ACK,
            Flags::ACK,
            Flags::SYN,
            Flags::ACK | Flags::FIN,
            Flags::RST,
            Flags::SYN | Flags::ACK,
            Flags(self.bytes.byte()),
        ][self.bytes.below(7)];
        let fields = Fields {
            source_port: source,
            destination_port: to,
            sequence: Seq(self.near(known.0)),
            acknowledgement: Seq(self.near(known.1)),
            flags,
            window: if self.bytes.chance(3) {
                self.bytes.word()
            } else {
                60_000
            },
        };
        let options: &[u8] = [
            &[][..],
            &[2, 4, 5, 0xb4, 1, 3, 3, 7],
            &[2, 4, 0, 1],
            &[3, 3, 255, 0],
        ][self.bytes.below(4)];
        let len = [0, 0, 1, 100, 1400, 4000][self.bytes.below(6)];
        let mut frame = packets::tcp(ends, &fields, options, &vec![0x55; len]);
        if self.bytes.chance(16) {
            frame.truncate(14 + self.bytes.below(120));
        }
        self.receive(port, frame);
    }

    pub(super) fn datagram(&mut self) {
        let (port, ends) = self.ends();
        let ports = (
            5000 + u16::from(self.bytes.byte() % 4),
            [7, 53, 67, 8080, 0][self.bytes.below(5)],
        );
        let ttl = [64, 1, 0, 255][self.bytes.below(4)];
        let payload = match self.bytes.below(4) {
            0 => packets::dns_question(self.bytes.word(), "example.com"),
            1 => vec![1; 3000],
            _ => self.bytes.some(),
        };
        let frame = if self.bytes.chance(4) {
            packets::echo(ends, ttl, self.bytes.word() % 3, 1, &payload)
        } else {
            packets::udp(ends, ports, ttl, &payload)
        };
        self.receive(port, frame);
    }

    pub(super) fn other_frame(&mut self) {
        let (port, ends) = self.ends();
        let payload = self.bytes.some();
        let frame = match self.bytes.below(5) {
            0 => payload,
            1 => packets::frame(
                (ends.macs.0, Mac::BROADCAST),
                EtherType(self.bytes.word()),
                &payload,
            ),
            2 => packets::arp_request(ends.macs.0, (ends.macs.0, ends.ips.0), ends.ips.1),
            3 => packets::ip(ends, Protocol(self.bytes.byte()), 64, &payload),
            _ => {
                let macs = (
                    Mac([2, 0, 0, 0, self.bytes.byte(), self.bytes.byte()]),
                    ends.macs.0,
                );
                packets::frame(macs, EtherType::IPV4, &payload)
            }
        };
        self.receive(port, frame);
    }

    pub(super) fn fragment(&mut self) {
        let (port, ends) = self.ends();
        let len = [8, 100, 1480, 60_000][self.bytes.below(4)];
        let datagram = packets::udp_packet(ends, (5000, 7), &vec![3; len]);
        let id = self.bytes.word() % 32;
        let mtu = [28, 576, 1500][self.bytes.below(3)];
        let mut frames = packets::fragments(ends, Protocol::UDP, id, &datagram, mtu.max(len / 100));
        if self.bytes.chance(2) {
            frames.reverse();
        }
        if self.bytes.chance(3) {
            frames.remove(self.bytes.below(frames.len()));
        }
        for frame in frames {
            self.receive(port, frame);
        }
    }

    pub(super) fn receive(&mut self, port: PortId, frame: Vec<u8>) {
        let checksum = match self.bytes.below(8) {
            0 => Checksum::Wrong,
            1 => Checksum::Partial {
                start: self.bytes.word(),
                offset: self.bytes.word(),
            },
            _ => Checksum::Valid,
        };
        let kind = [Kind::Tcp4, Kind::Tcp6, Kind::Udp][self.bytes.below(3)];
        let size = self.bytes.word().max(1);
        let segmentation = self.bytes.chance(4).then_some(Segmentation {
            kind,
            size,
            ecn: false,
        });
        self.receive_with(
            port,
            frame,
            Offload {
                checksum,
                segmentation,
            },
        );
    }

    pub(super) fn receive_with(&mut self, port: PortId, frame: Vec<u8>, offload: Offload) {
        let head = frame
            .get(..vmnet_core::frame::HEAD_MAX)
            .unwrap_or(&frame)
            .to_vec();
        self.hand = frame;
        let frame = Frame {
            head: &head,
            len: self.hand.len(),
            offload,
            in_pieces: false,
            following: 0,
        };
        self.network.receive(self.now, port, &frame, &mut self.out);
        self.carry_out_all();
        while let Some((port, frame)) = self.whole.pop() {
            self.receive_with(port, frame, Offload::VALID);
        }
    }
}
