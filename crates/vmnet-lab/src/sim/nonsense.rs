//! Any sequence of events, read from bytes: frames, what happened to sockets that are or are not, time, ports and rules.
//! Whatever it is, the core must not panic, must keep its promises, and must come to rest.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use vmnet_core::gateway::dns::QueryId;
use vmnet_core::outbox::HOLDS;
use vmnet_core::{
    Action, Config, Event, Forward, ForwardGuest, ForwardId, ForwardProtocol, Frame, HostError,
    IcmpError, Network, Outbox, Port, PortId, SocketId, Span,
};
use vmnet_wire::ethernet::{EtherType, Mac};
use vmnet_wire::ip::Protocol;
use vmnet_wire::offload::{Checksum, Kind, Offload, Segmentation};
use vmnet_wire::tcp::{Fields, Flags, Seq};

use crate::sim::contract::Contract;
use crate::sim::packets::{self, Ends};

const FLOWS_MAX: usize = 24;
const RULES_MAX: usize = 4;

/// Lets the core suffer what the bytes say.
///
/// # Panics
/// If the core breaks a promise.
pub fn run(bytes: &[u8]) {
    let mut nonsense = Nonsense::new(Bytes(bytes));
    while !nonsense.bytes.0.is_empty() {
        nonsense.step();
        nonsense.settle();
    }
    nonsense.end();
}

/// The bytes that decide; zeros when they are used up.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn number(&mut self) -> u32 {
        match self.below(4) {
            0 => 0,
            1 => u32::from(self.byte()),
            2 => u32::from(self.word()),
            _ => u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()]),
        }
    }

    fn some(&mut self) -> Vec<u8> {
        let len = self.below(64).min(self.0.len());
        let (some, rest) = self.0.split_at(len);
        self.0 = rest;
        some.to_vec()
    }

    fn chance(&mut self, of: u8) -> bool {
        self.byte().is_multiple_of(of)
    }
}

/// A guest's address and port, and its peer's.
type Pair = (Ipv4Addr, u16, Ipv4Addr, u16);

struct Nonsense<'a> {
    bytes: Bytes<'a>,
    now: Instant,
    network: Network,
    out: Outbox,
    contract: Contract,
    ports: Vec<PortId>,
    sockets: Vec<SocketId>,
    queries: Vec<QueryId>,
    rules: Vec<ForwardId>,
    whole: Vec<(PortId, Vec<u8>)>,
    hand: Vec<u8>,
    /// What the core expects next of a guest's connection, and has sent.
    seen: HashMap<Pair, (u32, u32)>,
    actions: usize,
}

impl<'a> Nonsense<'a> {
    fn new(mut bytes: Bytes<'a>) -> Self {
        let now = Instant::now();
        let config = Config {
            subnet: "192.168.64.0/28".parse().expect("a subnet"),
            gateway_mac: Mac([0x52, 0x55, 0, 0, 0, 1]),
            mtu: [1500, 576, 65_520][bytes.below(3)],
            domain: "vmnet.internal".to_owned(),
            lease_time: Duration::from_secs(600),
            host_loopback: bytes.chance(2),
            flows_max: FLOWS_MAX,
            seed: [1; 16],
        };
        let mut network = Network::new(now, &config).expect("a network");
        network.set_outside(Some(IpAddr::V4([10, 0, 0, 99].into())));
        network.set_resolvers(now, &["10.0.0.53:53".parse().expect("an address")]);
        let mut nonsense = Self {
            bytes,
            now,
            network,
            out: Outbox::new(),
            contract: Contract::default(),
            ports: Vec::new(),
            sockets: vec![SocketId::default()],
            queries: vec![QueryId::from(0)],
            rules: Vec::new(),
            whole: Vec::new(),
            hand: Vec::new(),
            seen: HashMap::new(),
            actions: 0,
        };
        for large in [false, true] {
            nonsense.add_port(large);
        }
        nonsense
    }

    fn add_port(&mut self, large: bool) {
        let mut port = Port::new([256, 1, 0, 4096][self.bytes.below(4)]);
        port.large_segments = large;
        self.ports.push(self.network.add_port(port));
    }

    fn step(&mut self) {
        match self.bytes.below(16) {
            0..=4 => self.tcp(),
            5 => self.datagram(),
            6 => self.other_frame(),
            7 => self.fragment(),
            8 | 9 => self.time(),
            10..=13 => self.socket_event(),
            14 => self.ports_change(),
            _ => self.rules_change(),
        }
    }

    // ---- frames ----------------------------------------------------------------------------

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

    fn tcp(&mut self) {
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

    fn datagram(&mut self) {
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

    fn other_frame(&mut self) {
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

    fn fragment(&mut self) {
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

    fn receive(&mut self, port: PortId, frame: Vec<u8>) {
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

    fn receive_with(&mut self, port: PortId, frame: Vec<u8>, offload: Offload) {
        let head = frame
            .get(..vmnet_core::frame::HEAD_MAX)
            .unwrap_or(&frame)
            .to_vec();
        self.hand = frame;
        let frame = Frame {
            head: &head,
            len: self.hand.len(),
            offload,
        };
        self.network.receive(self.now, port, &frame, &mut self.out);
        self.carry_out_all();
        while let Some((port, frame)) = self.whole.pop() {
            self.receive_with(port, frame, Offload::VALID);
        }
    }

    // ---- the rest --------------------------------------------------------------------------

    fn time(&mut self) {
        let jump = [0, 1, 11, 200, 1000, 61_000, 301_000, 7_500_000][self.bytes.below(8)];
        self.now += Duration::from_millis(jump);
        self.timeout();
    }

    fn timeout(&mut self) {
        self.network.timeout(self.now, &mut self.out);
        self.carry_out_all();
        let next = self.network.next_deadline();
        assert!(
            next.is_none_or(|at| at > self.now),
            "a timeout left its deadline behind"
        );
    }

    fn address(&mut self) -> SocketAddr {
        let ip: IpAddr = match self.bytes.below(5) {
            0 => IpAddr::V4([10, 0, 0, 1].into()),
            1 => IpAddr::V4(Ipv4Addr::LOCALHOST),
            2 => IpAddr::V4([192, 168, 64, 2].into()),
            3 => "2001:db8::1".parse().expect("an address"),
            _ => IpAddr::V4([10, 0, 0, self.bytes.byte()].into()),
        };
        SocketAddr::new(ip, self.bytes.word() % 8)
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each event")]
    fn socket_event(&mut self) {
        // Mostly one of the latest.
        let back = self.bytes.below(if self.bytes.0.len().is_multiple_of(3) {
            256
        } else {
            4
        });
        let socket = self.sockets[self.sockets.len() - 1 - back.min(self.sockets.len() - 1)];
        let query = self.queries[self.bytes.below(self.queries.len())];
        let number = self.bytes.number() as usize;
        let room = number % 300_000;
        let flag = self.bytes.chance(4);
        let bytes = self.bytes.some();
        let address = self.address();
        let error = [
            HostError::Refused,
            HostError::NetworkUnreachable,
            HostError::TimedOut,
            HostError::Forbidden,
            HostError::Exhausted,
            HostError::Reset,
        ][self.bytes.below(6)];
        self.hand = vec![9; 70_000];
        let event = match self.bytes.below(13) {
            0 | 1 => Event::Connected { socket, room },
            2 => Event::Failed { socket, error },
            3 => Event::Sent {
                socket,
                taken: number,
                room,
            },
            4 => Event::Writable { socket, room },
            5 | 6 => Event::Readable {
                socket,
                ended: flag,
            },
            7 => Event::Peeked {
                socket,
                len: number % 65_000,
                ended: flag,
                more: !flag,
            },
            8 => {
                let segment = flag.then_some(u16::try_from(room % 1500).expect("small"));
                let len = number % 65_000;
                Event::Datagram {
                    socket,
                    from: address,
                    head: &bytes,
                    len,
                    segment,
                    ttl: 3,
                }
            }
            9 => {
                let (kind, code) = (self.bytes.byte(), self.bytes.byte());
                let error = IcmpError {
                    to: address,
                    from: address.ip(),
                    kind,
                    code,
                    mtu: number as u32,
                };
                Event::Error {
                    socket,
                    error,
                    original: &bytes,
                }
            }
            10 => Event::TooLarge {
                socket,
                to: address,
                mtu: number as u32,
            },
            11 => Event::Answer {
                query,
                message: &bytes,
            },
            _ if flag => Event::QueryFailed { query },
            _ => Event::StreamQuery {
                socket,
                message: &bytes,
            },
        };
        if let Event::Failed { socket, .. } = event {
            self.contract.failed(socket);
        }
        self.network.event(self.now, &event, &mut self.out);
        self.carry_out_all();
    }

    fn ports_change(&mut self) {
        let index = self.bytes.below(self.ports.len());
        match self.bytes.below(4) {
            0 if self.ports.len() > 1 => {
                let port = self.ports.remove(index);
                self.network.remove_port(self.now, port);
            }
            1 if self.ports.len() < 5 => {
                let large = self.bytes.chance(2);
                self.add_port(large);
            }
            what => self.network.set_port_ready(self.ports[index], what == 2),
        }
    }

    fn rules_change(&mut self) {
        let protocol = if self.bytes.chance(2) {
            ForwardProtocol::Tcp
        } else {
            ForwardProtocol::Udp
        };
        let index = self.bytes.below(self.rules.len());
        match (self.bytes.below(4), self.rules.get(index).copied()) {
            (0, _) if self.rules.len() < RULES_MAX => {
                let guest = if self.bytes.chance(2) {
                    ForwardGuest::Port(self.ports[0])
                } else {
                    ForwardGuest::Address([192, 168, 64, 2 + self.bytes.byte() % 4].into())
                };
                let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);
                let rule = Forward {
                    protocol,
                    listen,
                    guest,
                    guest_port: 5000,
                };
                self.rules.push(self.network.add_forward(rule));
            }
            (1, Some(rule)) => {
                self.rules.remove(index);
                self.network.remove_forward(rule, &mut self.out);
            }
            (2, Some(rule)) => {
                let client = self.address();
                if let Some(socket) =
                    self.network
                        .accepted(self.now, rule, client, 9000, &mut self.out)
                {
                    self.contract.open(socket);
                    self.sockets.push(socket);
                }
            }
            (_, Some(rule)) => {
                if let Some(socket) = self.network.forward_socket(self.now, rule, &mut self.out)
                    && !self.sockets.contains(&socket)
                {
                    self.contract.open(socket);
                    self.sockets.push(socket);
                }
            }
            _ => {}
        }
        self.carry_out_all();
    }

    // ---- what the core wants ---------------------------------------------------------------

    fn carry_out_all(&mut self) {
        while let Some(action) = self.out.take() {
            self.actions += 1;
            assert!(self.actions < 2_000_000, "actions without end");
            self.carry_out(&action);
        }
        assert!(self.out.is_empty());
        assert!(
            self.network.flows() <= FLOWS_MAX + RULES_MAX,
            "the table has a limit"
        );
    }

    fn in_hand(&self, span: Span) {
        assert!(
            span.of(&self.hand).is_some(),
            "{span:?} outside {}",
            self.hand.len()
        );
    }

    fn carry_out(&mut self, action: &Action) {
        match action {
            Action::Forward { .. } | Action::Ask { .. } | Action::Forget { .. } => {
                if let Action::Ask { query, .. } = action {
                    self.queries.push(*query);
                }
            }
            Action::Reply { frame, .. } => {
                let frame = self.out.bytes(frame).to_vec();
                assert!(
                    vmnet_wire::segment::verify(&frame),
                    "checksums of what the core made"
                );
                self.learn(&frame, 0);
            }
            Action::Deliver { headers, body, .. } => {
                self.in_hand(*body);
                let headers = self.out.bytes(headers).to_vec();
                assert!(headers.len() >= 34);
                self.learn(&headers, u32::try_from(body.len).expect("a frame"));
            }
            Action::Open { socket, .. } => {
                self.contract.open(*socket);
                self.sockets.push(*socket);
            }
            Action::Send { socket, span } => {
                self.contract.write(*socket);
                self.in_hand(*span);
                let taken = if self.bytes.chance(3) {
                    self.bytes.below(span.len + 1)
                } else {
                    span.len
                };
                let room = self.bytes.number() as usize % 100_000;
                let event = Event::Sent {
                    socket: *socket,
                    taken,
                    room,
                };
                self.network.event(self.now, &event, &mut self.out);
            }
            Action::SendTo { socket, span, .. } => {
                self.contract.name(*socket);
                self.in_hand(*span);
            }
            Action::ShutWrite { socket } => self.contract.shut(*socket),
            Action::Discard { socket, .. }
            | Action::NotifyWritable { socket }
            | Action::StreamAnswer { socket, .. } => self.contract.name(*socket),
            Action::Close { socket } | Action::Reset { socket } => self.contract.end(*socket),
            Action::Hold { buffer, at, span } => {
                self.in_hand(*span);
                assert!(*buffer < HOLDS && at + span.len <= 65_535);
            }
            Action::Reassemble {
                port, headers, len, ..
            } => {
                let mut frame = self.out.bytes(headers).to_vec();
                frame.resize(frame.len() + len, 3);
                self.whole.push((*port, frame));
            }
        }
    }

    fn learn(&mut self, frame: &[u8], body: u32) {
        let Some((peer, guest, fields, _)) = packets::read_tcp_head(frame) else {
            return;
        };
        let ends =
            u32::from(fields.flags.has(Flags::SYN)) + u32::from(fields.flags.has(Flags::FIN));
        let pair = (guest, fields.destination_port, peer, fields.source_port);
        let next = fields.sequence.advance(body + ends).0;
        self.seen.insert(pair, (fields.acknowledgement.0, next));
    }

    /// A burst ends: reads, then acknowledgements.
    fn settle(&mut self) {
        let mut reads = 0;
        while let Some(read) = self.network.next_read(self.now, &mut self.out) {
            reads += 1;
            assert!(reads < 10_000, "reads without end");
            self.carry_out_all();
            self.contract.name(read.socket);
            let there = [0, 1, 2000, 100_000][self.bytes.below(4)];
            let len = read.max.min(there);
            let event = Event::Peeked {
                socket: read.socket,
                len,
                ended: self.bytes.chance(8),
                more: len == read.max && self.bytes.chance(2),
            };
            self.hand = vec![9; len];
            self.network.event(self.now, &event, &mut self.out);
            self.carry_out_all();
        }
        self.network.flush(self.now, &mut self.out);
        self.carry_out_all();
        if self
            .network
            .next_deadline()
            .is_some_and(|at| at <= self.now)
        {
            self.timeout();
        }
    }

    /// After a day of silence nothing is left but what rules hold.
    fn end(&mut self) {
        let ports = self.ports.clone();
        for port in ports {
            self.network.set_port_ready(port, true);
        }
        for rule in std::mem::take(&mut self.rules) {
            self.network.remove_forward(rule, &mut self.out);
        }
        self.carry_out_all();
        let end = self.now + Duration::from_secs(86_400);
        let mut calls = 0;
        while let Some(next) = self.network.next_deadline()
            && next < end
        {
            calls += 1;
            assert!(calls < 100_000, "deadlines without end");
            self.now = next;
            self.timeout();
            self.settle();
        }
        assert_eq!(self.network.flows(), 0, "flows that never end");
        assert_eq!(self.contract.living(), 0, "sockets that were never closed");
    }
}
