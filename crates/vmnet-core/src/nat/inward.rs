//! What happened to the host's sockets, and what guests hear of it.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use vmnet_wire::ethernet::Mac;
use vmnet_wire::icmpv4::{self, unreachable};
use vmnet_wire::ip::Protocol;
use vmnet_wire::{ipv4, udp};
use zerocopy::IntoBytes;

use crate::drop::Drop;
use crate::event::{Event, HostError, IcmpError};
use crate::gateway::icmp::{self, Error};
use crate::link::{Link, TTL};
use crate::nat::Nat;
use crate::nat::flow::Key;
use crate::nat::port_forward::seen_by_guest;
use crate::nat::table::Flow;
use crate::nat::tcp::{Ends, Failure, Peek, Tcp, UNREACHABLE};
use crate::nat::udp::Mapping;
use crate::outbox::{Action, ForwardId, Outbox, SocketId};

impl Nat {
    /// Something happened to a flow's socket.
    pub(crate) fn event(&mut self, link: &mut Link<'_>, event: &Event<'_>) {
        match *event {
            Event::Connected { socket, room } => {
                if let Some(Flow::Tcp(flow)) = self.table.get_mut(socket) {
                    flow.connected(link, &mut self.agenda, room);
                }
            }
            Event::Failed { socket, error } => self.failed(link, socket, error),
            Event::Sent {
                socket,
                taken,
                room,
            } => {
                if let Some(Flow::Tcp(flow)) = self.table.get_mut(socket) {
                    flow.sent(link, &mut self.agenda, taken, room);
                }
            }
            Event::Writable { socket, room } => {
                if let Some(Flow::Tcp(flow)) = self.table.get_mut(socket) {
                    flow.writable(link, room);
                }
            }
            Event::Readable { socket, ended } => {
                if let Some(Flow::Tcp(flow)) = self.table.get_mut(socket) {
                    flow.readable(&mut self.agenda, ended);
                }
            }
            Event::Peeked {
                socket,
                len,
                ended,
                more,
            } => {
                if let Some(Flow::Tcp(flow)) = self.table.get_mut(socket) {
                    flow.peeked(link, &mut self.agenda, Peek { len, ended, more });
                }
            }
            Event::Datagram {
                socket,
                from,
                head,
                len,
                segment,
                ttl,
            } => {
                self.meet_client(socket, from, &link.gateway);
                match self.table.get_mut(socket) {
                    Some(Flow::Udp(mapping)) => mapping.deliver(link, from, len, segment, ttl),
                    Some(Flow::Echo(echo)) => echo.deliver(link, from.ip(), head, len, ttl),
                    Some(Flow::Tcp(_)) | None => link.drop(Drop::NoConnection),
                }
            }
            Event::Error {
                socket,
                error,
                original,
            } => self.error(link, socket, &error, original),
            Event::TooLarge { socket, to, mtu } => {
                let error = IcmpError {
                    to,
                    from: IpAddr::V4(link.gateway.address()),
                    kind: icmpv4::UNREACHABLE,
                    code: unreachable::FRAGMENTATION_NEEDED,
                    mtu,
                };
                self.error(link, socket, &error, &[]);
            }
            Event::Answer { .. } | Event::QueryFailed { .. } | Event::StreamQuery { .. } => {}
        }
    }

    fn failed(&mut self, link: &mut Link<'_>, socket: SocketId, error: HostError) {
        match self.table.get_mut(socket) {
            Some(Flow::Tcp(flow)) => {
                let failure = flow.failed(link, error);
                let (mac, guest, peer, quoted) =
                    (flow.mac, flow.guest, flow.peer, flow.quoted_syn());
                match failure {
                    Failure::Retried => return,
                    Failure::Reset => {}
                    Failure::Unreachable(code) => {
                        let about = Quoted {
                            guest,
                            peer,
                            protocol: Protocol::TCP,
                            head: &quoted,
                        };
                        let from = IpAddr::V4(link.gateway.address());
                        self.quote(link, mac, about, (from, UNREACHABLE, code, 0));
                    }
                }
            }
            Some(Flow::Udp(mapping)) if mapping.forward.is_some() => return,
            Some(Flow::Udp(_) | Flow::Echo(_)) => {
                link.drop(if error == HostError::Forbidden {
                    Drop::Forbidden
                } else {
                    Drop::HostRefused
                });
            }
            None => return,
        }
        link.out.push(Action::Close { socket });
        self.table.remove(socket);
    }

    /// A router or the peer reported an error about a datagram: the guest hears of it as if the report had
    /// been sent to it (RFC 5508 §4).
    fn error(&mut self, link: &mut Link<'_>, socket: SocketId, error: &IcmpError, original: &[u8]) {
        let mtu = u16::try_from(error.mtu).unwrap_or(u16::MAX);
        let gateway = link.gateway;
        match self.table.get_mut(socket) {
            Some(Flow::Udp(mapping)) if mapping.is_lost() => {}
            Some(Flow::Udp(mapping)) => {
                let peer = mapping.seen_as(error.to, &gateway);
                let from = if error.from == error.to.ip() {
                    peer.ip()
                } else {
                    error.from
                };
                let (mac, guest) = (mapping.mac, mapping.guest);
                let header = udp::Header::new(guest.port(), peer.port(), original.len(), 0);
                let about = Quoted {
                    guest,
                    peer,
                    protocol: Protocol::UDP,
                    head: header.as_bytes(),
                };
                self.quote(link, mac, about, (from, error.kind, error.code, mtu));
            }
            Some(Flow::Echo(echo)) => {
                let (mac, guest) = (echo.mac, echo.guest);
                let sequence =
                    icmpv4::Header::read(original).map_or(0, |header| header.sequence.get());
                let header = icmpv4::Header::new(icmpv4::ECHO_REQUEST, 0, guest.port(), sequence);
                let about = Quoted {
                    guest,
                    peer: error.to,
                    protocol: Protocol::ICMPV4,
                    head: header.as_bytes(),
                };
                self.quote(link, mac, about, (error.from, error.kind, error.code, mtu));
            }
            Some(Flow::Tcp(_)) | None => {}
        }
    }

    fn quote(
        &mut self,
        link: &mut Link<'_>,
        mac: Mac,
        about: Quoted<'_>,
        report: (IpAddr, u8, u8, u16),
    ) {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (about.guest.ip(), about.peer.ip())
        else {
            return link.drop(Drop::Protocol);
        };
        let fields = ipv4::Fields {
            source,
            destination,
            protocol: about.protocol,
            ttl: TTL,
            id: 0,
            dont_fragment: true,
        };
        let mut packet = [0; ipv4::Header::LEN + 8];
        let header = ipv4::Header::new(&fields, about.head.len());
        for (to, from) in packet
            .iter_mut()
            .zip(header.as_bytes().iter().chain(about.head))
        {
            *to = *from;
        }
        let (from, kind, code, mtu) = report;
        let from = if from.is_ipv4() {
            from
        } else {
            IpAddr::V4(link.gateway.address())
        };
        let error = Error {
            from,
            kind,
            code,
            mtu,
            packet: &packet,
        };
        icmp::send_error(link, &mut self.limiter, mac, about.guest.ip(), &error);
    }

    /// A rule is gone, and its mapping with it.
    pub(crate) fn remove_forward(&mut self, rule: ForwardId, out: &mut Outbox) {
        let Some(socket) = self.forwards.remove(rule) else {
            return;
        };
        let guest = match self.table.get_mut(socket) {
            Some(Flow::Udp(mapping)) => Some(mapping.guest),
            _ => None,
        };
        out.push(Action::Close { socket });
        self.table.remove(socket);
        let Some(guest) = guest else { return };
        self.forwards.lead_away(socket, guest);
        // Another rule may lead to the same port of the guest: what the guest sends leaves by that one now.
        if let Some(other) = self.forwards.sockets_to(guest).next() {
            self.table.rekey(other, Key::mapping(Protocol::UDP, guest));
        }
    }

    /// A UDP rule's socket is the mapping of the guest that it leads to: what the guest sends from that port
    /// leaves by it, and what comes to it goes to the guest. The rule keeps its socket when the guest is
    /// elsewhere.
    pub(crate) fn forward_socket(
        &mut self,
        link: &mut Link<'_>,
        rule: ForwardId,
        guest: SocketAddr,
    ) -> SocketId {
        let known = self.forwards.socket(rule);
        let flow = known.and_then(|id| self.table.get_mut(id).map(|flow| (id, flow)));
        if let Some((id, Flow::Udp(mapping))) = flow
            && mapping.guest == guest
        {
            return id;
        }
        let key = Key::mapping(Protocol::UDP, guest);
        // Rules whose guests have no address share a key that no packet has.
        self.make_way(link, &key);
        let mac = link
            .neighbours
            .look_up(link.now, guest.ip())
            .unwrap_or(Mac::BROADCAST);
        if let Some(id) = known
            && let Some(Flow::Udp(mapping)) = self.table.get_mut(id)
        {
            let before = core::mem::replace(&mut mapping.guest, guest);
            mapping.mac = mac;
            self.table.rekey(id, key);
            self.forwards.lead(rule, id, guest, Some(before));
            // What is left of those that led there is found there again.
            if let Some(other) = self.forwards.sockets_to(before).next() {
                self.table.rekey(other, Key::mapping(Protocol::UDP, before));
            }
            return id;
        }
        let id = self.table.insert(link, mac, key, |link, _| {
            Flow::Udp(Mapping::new(link.now, guest, mac, Some(rule)))
        });
        self.forwards.lead(rule, id, guest, None);
        id
    }

    /// A mapping that the guest made by itself gives way to that of a rule.
    fn make_way(&mut self, link: &mut Link<'_>, key: &Key) {
        if let Some(id) = self.table.look_up(key)
            && let Some(Flow::Udp(Mapping { forward: None, .. })) = self.table.get_mut(id)
        {
            link.out.push(Action::Close { socket: id });
            self.table.remove(id);
        }
    }

    /// A client of a forwarded port was accepted; the answer names its socket, unless it cannot be served.
    pub(crate) fn accepted(
        &mut self,
        link: &mut Link<'_>,
        guest: (Ipv4Addr, u16),
        client: SocketAddr,
        room: usize,
    ) -> Option<SocketId> {
        let guest = SocketAddr::new(IpAddr::V4(guest.0), guest.1);
        let mut peer = seen_by_guest(client, &link.gateway);
        let mut key = Key::new(Protocol::TCP, guest, peer);
        let mut tries = 0;
        while self.table.look_up(&key).is_some() {
            tries += 1;
            if tries > 64 {
                link.drop(Drop::FlowsFull);
                return None;
            }
            peer.set_port(peer.port().checked_add(1).unwrap_or(1024));
            key = Key::new(Protocol::TCP, guest, peer);
        }
        let mac = link
            .neighbours
            .look_up(link.now, guest.ip())
            .unwrap_or(Mac::BROADCAST);
        if !self.table.has_room(link, mac) {
            link.drop(Drop::FlowsFull);
            return None;
        }
        let isn = self.isn(link, &key);
        let ends = Ends { guest, peer, mac };
        let agenda = &mut self.agenda;
        Some(self.table.insert(link, mac, key, |link, id| {
            Flow::Tcp(Box::new(Tcp::call(link, agenda, id, ends, room, isn)))
        }))
    }
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy)]
struct Quoted<'a> {
    guest: SocketAddr,
    peer: SocketAddr,
    protocol: Protocol,
    head: &'a [u8],
}
