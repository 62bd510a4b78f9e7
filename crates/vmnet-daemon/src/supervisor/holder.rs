//! Connections, and what ends with them.

use super::Supervisor;
use std::collections::BTreeSet;
use std::rc::Rc;
use tokio::sync::Notify;
use uuid::Uuid;

/// A client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(u64);

/// What a connection holds, besides its interfaces.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) pid: i32,
    pub(super) opened: BTreeSet<Uuid>,
    /// Told when the connection is to be ended.
    hang_up: Rc<Notify>,
}

impl Supervisor {
    /// A client has come.
    pub(crate) fn connected(&mut self, pid: i32) -> ConnectionId {
        let id = ConnectionId(self.number());
        let opened = BTreeSet::new();
        let hang_up = Rc::default();
        let holder = Holder {
            pid,
            opened,
            hang_up,
        };
        self.holders.insert(id, holder);
        id
    }

    /// Told when this connection is to be ended.
    pub(crate) fn hang_up_of(&self, id: ConnectionId) -> Rc<Notify> {
        let holder = self.holders.get(&id);
        holder.map_or_else(Rc::default, |holder| Rc::clone(&holder.hang_up))
    }

    /// Hangs up on who asked for that, since another client ended their interface. Who ended it hears the answer.
    pub(super) fn hang_up_on(&self, owner: ConnectionId, but: ConnectionId) {
        if let Some(holder) = self.holders.get(&owner).filter(|_| owner != but) {
            holder.hang_up.notify_one();
        }
    }

    /// A client is gone: what it held is free at once.
    pub(crate) fn disconnected(&mut self, id: ConnectionId) {
        let Some(holder) = self.holders.remove(&id) else {
            return;
        };
        let own: Vec<u64> = self
            .interfaces
            .iter()
            .filter(|(_, member)| member.owner == id)
            .map(|(number, _)| *number)
            .collect();
        for interface in own {
            self.end_interface(interface);
        }
        for network in holder.opened {
            self.settle(network);
        }
    }

    /// The process of a connection.
    pub(super) fn pid_of(&self, id: ConnectionId) -> i32 {
        self.holders.get(&id).map_or(0, |holder| holder.pid)
    }

    /// Connections that have a network open.
    pub(super) fn holders_of(&self, network: Uuid) -> usize {
        self.holders
            .values()
            .filter(|holder| holder.opened.contains(&network))
            .count()
    }

    /// The same, but for one.
    pub(super) fn others_holding(&self, network: Uuid, but: ConnectionId) -> usize {
        let mut holders = self.holders.iter();
        let own = holders.any(|(id, holder)| *id == but && holder.opened.contains(&network));
        self.holders_of(network) - usize::from(own)
    }
}
