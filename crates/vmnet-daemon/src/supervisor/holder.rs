//! Connections, and what ends with them.

use super::Supervisor;
use std::collections::BTreeSet;
use uuid::Uuid;

/// A client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(u64);

/// What a connection holds, besides its interfaces.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) pid: i32,
    pub(super) opened: BTreeSet<Uuid>,
}

impl Supervisor {
    /// A client has come.
    pub(crate) fn connected(&mut self, pid: i32) -> ConnectionId {
        let id = ConnectionId(self.number());
        let opened = BTreeSet::new();
        self.holders.insert(id, Holder { pid, opened });
        id
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
