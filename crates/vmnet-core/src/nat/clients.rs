//! Clients of a guest's UDP port that several rules lead to: an answer must leave by the socket that its client came
//! by, or the client will not know whose answer it is.
//!
//! Strangers fill this table, so it has a limit; the oldest entry gives way. What is not in it leaves by the first
//! rule's socket. Ports that one rule leads to are not in it at all.

use core::net::SocketAddr;
use std::collections::{HashMap, VecDeque};

use crate::link::Gateway;
use crate::nat::Nat;
use crate::nat::table::{Flow, Table};
use crate::outbox::SocketId;

/// Clients that are remembered.
const MAX: usize = 4096;
/// Ports that are tried for a client whose own another has.
const TRIES: usize = 64;

/// A guest's address and port, and a client's as that guest knows it.
type Pair = (SocketAddr, SocketAddr);

/// By which socket a client came, and its own address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Client {
    pub(crate) socket: SocketId,
    pub(crate) real: SocketAddr,
}

/// Who came by which rule.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    entries: HashMap<Pair, Client>,
    /// Every key of `entries` once, oldest first.
    order: VecDeque<Pair>,
}

impl Clients {
    /// Who `seen` is to a guest. Its socket may be gone, or lead elsewhere by now.
    fn look_up(&self, guest: SocketAddr, seen: SocketAddr) -> Option<Client> {
        self.entries.get(&(guest, seen)).copied()
    }

    fn enter(&mut self, pair: Pair, client: Client) {
        if self.entries.insert(pair, client).is_some() {
            return;
        }
        self.order.push_back(pair);
        if self.order.len() > MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

impl Nat {
    /// A datagram of `real` came by the socket of a rule: if others lead to the same port of the guest, it is kept in
    /// mind, and the guest knows the client by an address that no other client has.
    pub(super) fn meet_client(&mut self, socket: SocketId, real: SocketAddr, gateway: &Gateway) {
        let Some(Flow::Udp(mapping)) = self.table.get_mut(socket) else {
            return;
        };
        let guest = mapping.guest;
        if mapping.forward.is_none()
            || mapping.is_lost()
            || self.forwards.sockets_to(guest).nth(1).is_none()
        {
            return;
        }
        let client = Client { socket, real };
        let mut seen = mapping.seen_as(real, gateway);
        for _ in 0..TRIES {
            match self.forwards.clients.look_up(guest, seen) {
                Some(known) if known == client => return,
                Some(other) if leads_to(&mut self.table, other.socket, guest) => {}
                _ if self.is_free(socket, seen, real) => break,
                _ => {}
            }
            seen.set_port(seen.port().checked_add(1).unwrap_or(1024));
        }
        if let Some(Flow::Udp(mapping)) = self.table.get_mut(socket) {
            mapping.set_alias(real, seen);
        }
        self.forwards.clients.enter((guest, seen), client);
    }

    /// Nobody else is `seen` at this socket.
    fn is_free(&mut self, socket: SocketId, seen: SocketAddr, real: SocketAddr) -> bool {
        match self.table.get_mut(socket) {
            Some(Flow::Udp(mapping)) => mapping.real(seen).is_none_or(|other| other == real),
            _ => true,
        }
    }

    /// The client that a guest means by `seen`, if it came to a port that several rules lead to.
    pub(super) fn client(&mut self, guest: SocketAddr, seen: SocketAddr) -> Option<Client> {
        let client = self.forwards.clients.look_up(guest, seen)?;
        leads_to(&mut self.table, client.socket, guest).then_some(client)
    }
}

fn leads_to(table: &mut Table, socket: SocketId, guest: SocketAddr) -> bool {
    matches!(table.get_mut(socket), Some(Flow::Udp(mapping)) if mapping.guest == guest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    #[test]
    fn strangers_fill_a_bounded_table() {
        let mut clients = Clients::default();
        let socket = SlotMap::with_key().insert(());
        let guest = "192.168.64.9:53".parse().unwrap();
        let seen = |n: u32| SocketAddr::new(std::net::Ipv4Addr::from(n).into(), 7);
        let count = u32::try_from(MAX).unwrap() + 100;
        for n in (0..count).chain(count - 50..count) {
            let real = seen(n);
            clients.enter((guest, real), Client { socket, real });
        }
        assert_eq!((clients.entries.len(), clients.order.len()), (MAX, MAX));
        assert_eq!(clients.look_up(guest, seen(99)), None);
        assert_eq!(clients.look_up(guest, seen(100)).unwrap().real, seen(100));
    }
}
