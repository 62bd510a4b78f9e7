//! What happens on the host's side: to sockets that are or are not, to ports, and to rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use vmnet_core::{Event, Forward, ForwardGuest, ForwardProtocol, HostError, IcmpError};

use vmnet_wire::ethernet::Mac;

use crate::sim::nonsense::Nonsense;

impl Nonsense<'_> {
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
    pub(super) fn socket_event(&mut self) {
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

    pub(super) fn ports_change(&mut self) {
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

    pub(super) fn rules_change(&mut self) {
        let protocol = if self.bytes.chance(2) {
            ForwardProtocol::Tcp
        } else {
            ForwardProtocol::Udp
        };
        let index = self.bytes.below(self.rules.len());
        match (self.bytes.below(4), self.rules.get(index).copied()) {
            (0, _) if self.rules.len() < super::RULES_MAX => {
                let guest = match (self.bytes.chance(2), self.mode.roaming) {
                    (true, false) => ForwardGuest::Port(self.ports[0]),
                    (true, true) => ForwardGuest::Name("web".parse().expect("a name")),
                    (false, roaming) => {
                        let number = 2 + self.bytes.byte() % 4;
                        if roaming {
                            ForwardGuest::Mac(Mac([0x52, 0x54, 0, 0, 0, number]))
                        } else if self.mode.v6 {
                            ForwardGuest::Address(super::frames6::at(number).into())
                        } else {
                            ForwardGuest::Address([192, 168, 64, number].into())
                        }
                    }
                };
                let any = if self.mode.v6 {
                    IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                } else {
                    IpAddr::V4(Ipv4Addr::UNSPECIFIED)
                };
                let listen = SocketAddr::new(any, 8080);
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
}
