//! What happened to the host's sockets, and what guests hear of it.

use core::net::{IpAddr, SocketAddr};

use vmnet_wire::ethernet::Mac;
use vmnet_wire::ip::Protocol;
use vmnet_wire::{icmpv4, icmpv6, ipv4, ipv6, udp};
use zerocopy::IntoBytes;

use crate::drop::Drop;
use crate::event::{Event, HostError, IcmpError};
use crate::gateway::icmp::{self, Cause, Error};
use crate::link::{Link, TTL};
use crate::nat::Nat;
use crate::nat::destination::never_leaves;
use crate::nat::flow::Key;
use crate::nat::port_forward::seen_by_guest;
use crate::nat::table::Flow;
use crate::nat::tcp::{Ends, Failure, Peek, Tcp};
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
            } => self.told(link, socket, error.to, Report::Heard(error), original),
            Event::TooLarge { socket, to, mtu } => {
                self.told(link, socket, to, Report::Cause(Cause::TooBig(mtu)), &[]);
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
                    Failure::Unreachable(cause) => {
                        let about = Quoted {
                            guest,
                            peer,
                            protocol: Protocol::TCP,
                            head: &quoted,
                            len: quoted.len(),
                        };
                        self.quote(link, mac, about, Report::Cause(cause));
                    }
                }
            }
            Some(Flow::Udp(mapping)) if mapping.forward.is_some() => return,
            Some(flow @ (Flow::Udp(_) | Flow::Echo(_))) => {
                let first = match flow {
                    Flow::Udp(mapping) => mapping.first,
                    Flow::Echo(echo) => Some(echo.first),
                    Flow::Tcp(_) => None,
                };
                // The host knows nothing of this family: other datagrams of the guest will find no way either.
                if let Some(to) = first.filter(|_| error == HostError::NetworkUnreachable) {
                    self.told(link, socket, to, Report::Cause(Cause::NoRoute), &[]);
                }
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

    /// Something is wrong with a datagram that was sent to `to`: the guest hears of it as if the report had been sent to
    /// it (RFC 5508 §4).
    fn told(
        &mut self,
        link: &mut Link<'_>,
        socket: SocketId,
        to: SocketAddr,
        report: Report,
        original: &[u8],
    ) {
        let gateway = link.gateway;
        match self.table.get_mut(socket) {
            Some(Flow::Udp(mapping)) if mapping.is_lost() => {}
            Some(Flow::Udp(mapping)) => {
                let peer = mapping.seen_as(to, &gateway);
                let report = report.seen_from(to.ip(), peer.ip());
                let (mac, guest) = (mapping.mac, mapping.guest);
                let header = udp::Header::new(guest.port(), peer.port(), original.len(), 0);
                let about = Quoted {
                    guest,
                    peer,
                    protocol: Protocol::UDP,
                    head: header.as_bytes(),
                    len: udp::Header::LEN + original.len(),
                };
                self.quote(link, mac, about, report);
            }
            Some(Flow::Echo(echo)) => {
                let (mac, guest) = (echo.mac, echo.guest);
                let mut about = Quoted {
                    guest,
                    peer: to,
                    protocol: Protocol::ICMPV4,
                    head: &[],
                    len: original.len().max(icmpv4::Header::LEN),
                };
                if guest.is_ipv4() {
                    let sequence = icmpv4::Header::read(original).map(|h| h.sequence.get());
                    let id = guest.port();
                    let request = icmpv4::ECHO_REQUEST;
                    let header = icmpv4::Header::new(request, 0, id, sequence.unwrap_or(0));
                    about.head = header.as_bytes();
                    self.quote(link, mac, about, report);
                } else {
                    let sequence = icmpv6::Header::read(original).map(icmpv6::Header::sequence);
                    let request = icmpv6::ECHO_REQUEST;
                    let header = icmpv6::Header::echo(request, guest.port(), sequence.unwrap_or(0));
                    (about.protocol, about.head) = (Protocol::ICMPV6, header.as_bytes());
                    self.quote(link, mac, about, report);
                }
            }
            Some(Flow::Tcp(_)) | None => {}
        }
    }

    fn quote(&mut self, link: &mut Link<'_>, mac: Mac, about: Quoted<'_>, report: Report) {
        let guest = about.guest.ip();
        let mut packet = [0; ipv6::Header::LEN + 8];
        let len = match (guest, about.peer.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let fields = ipv4::Fields {
                    source,
                    destination,
                    protocol: about.protocol,
                    ttl: TTL,
                    id: 0,
                    dont_fragment: true,
                };
                let header = ipv4::Header::new(&fields, about.head.len());
                fill(&mut packet, &[header.as_bytes(), about.head])
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = ipv6::Header::new(source, destination, about.protocol, TTL, about.len);
                fill(&mut packet, &[header.as_bytes(), about.head])
            }
            _ => return link.drop(Drop::Protocol),
        };
        let packet = packet.get(..len).unwrap_or(&[]);
        match report {
            Report::Cause(cause) => {
                icmp::report(link, &mut self.budgets, mac, guest, cause, packet);
            }
            Report::Heard(error) => {
                // Who reports by the other family speaks another language.
                if error.from.is_ipv4() != guest.is_ipv4() {
                    return link.drop(Drop::Protocol);
                }
                // A router at the host's link has an address that would be somebody else's at the guest's.
                let foreign =
                    never_leaves(error.from, &link.gateway) && !link.gateway.is_own(error.from);
                let ours = link.gateway.facing(guest).filter(|_| foreign);
                let error = Error {
                    from: ours.unwrap_or(error.from),
                    kind: error.kind,
                    code: error.code,
                    word: error.mtu,
                    packet,
                };
                icmp::send_error(link, &mut self.budgets, mac, guest, &error);
            }
        }
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
        guest: SocketAddr,
        client: SocketAddr,
        room: usize,
    ) -> Option<SocketId> {
        let mut peer = seen_by_guest(client, guest.ip(), &link.gateway)?;
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
    /// Bytes of what the packet carried, as far as they are known.
    len: usize,
}

/// What is told of it.
#[derive(Clone, Copy)]
enum Report {
    /// What we know ourselves.
    Cause(Cause),
    /// What a router or the peer has told the host.
    Heard(IcmpError),
}

impl Report {
    /// What the peer itself reports comes from it as the guest knows it.
    fn seen_from(mut self, real: IpAddr, seen: IpAddr) -> Self {
        if let Self::Heard(error) = &mut self
            && error.from == real
        {
            error.from = seen;
        }
        self
    }
}

/// Writes pieces one behind the other, and answers how many bytes there are.
fn fill(packet: &mut [u8], pieces: &[&[u8]]) -> usize {
    let bytes = pieces.iter().copied().flatten();
    packet
        .iter_mut()
        .zip(bytes)
        .map(|(to, from)| *to = *from)
        .count()
}
