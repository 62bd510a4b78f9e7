//! All flows of a network. Guests fill this table, so it has a limit: when it is full, the flow that was idle
//! longest makes room, looked for among a sample.

use std::time::{Duration, Instant};

use slotmap::SlotMap;

use crate::link::Link;
use crate::nat::echo::Echo;
use crate::nat::flow::{Index, Key};
use crate::nat::tcp::Tcp;
use crate::nat::udp::Mapping;
use crate::outbox::{Action, SocketId};

/// A flow that was used so lately is not evicted.
const IN_USE: Duration = Duration::from_secs(10);
/// Flows that are looked at to find one to evict.
const SAMPLE: usize = 64;

/// A flow of any kind.
#[derive(Debug)]
pub(crate) enum Flow {
    Tcp(Box<Tcp>),
    Udp(Mapping),
    Echo(Echo),
}

impl Flow {
    fn seen(&self) -> Instant {
        match self {
            Self::Tcp(flow) => flow.seen(),
            Self::Udp(mapping) => mapping.seen,
            Self::Echo(echo) => echo.seen,
        }
    }

    /// A forwarding rule's socket stays as long as its rule.
    fn is_evictable(&self) -> bool {
        !matches!(self, Self::Udp(mapping) if mapping.forward.is_some())
    }
}

/// All flows, found by socket or by key.
#[derive(Debug)]
pub(crate) struct Table {
    flows: SlotMap<SocketId, (Key, Flow)>,
    index: Index,
    max: usize,
    /// Where the search for an idle flow goes on.
    sampled: usize,
}

impl Table {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            flows: SlotMap::with_key(),
            index: Index::default(),
            max,
            sampled: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(crate) fn look_up(&self, key: &Key) -> Option<SocketId> {
        self.index.look_up(key)
    }

    pub(crate) fn contains(&self, id: SocketId) -> bool {
        self.flows.contains_key(id)
    }

    pub(crate) fn get_mut(&mut self, id: SocketId) -> Option<&mut Flow> {
        self.flows.get_mut(id).map(|(_, flow)| flow)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (SocketId, &mut Flow)> {
        self.flows.iter_mut().map(|(id, (_, flow))| (id, flow))
    }

    /// A number that nobody outside can foresee.
    pub(crate) fn secret_of(&self, key: &Key) -> u64 {
        self.index.secret_of(key)
    }

    /// Makes room for one more flow if it must.
    pub(crate) fn has_room(&mut self, link: &mut Link<'_>) -> bool {
        if self.flows.len() < self.max {
            return true;
        }
        let from = self.sampled % self.flows.len().max(1);
        self.sampled = from + SAMPLE;
        let sample = self.flows.iter().skip(from).take(SAMPLE);
        let oldest = sample
            .filter(|(_, (_, flow))| flow.is_evictable())
            .min_by_key(|(_, (_, flow))| flow.seen())
            .filter(|(_, (_, flow))| link.now.saturating_duration_since(flow.seen()) >= IN_USE)
            .map(|(id, _)| id);
        let Some(id) = oldest else { return false };
        match self.get_mut(id) {
            Some(Flow::Tcp(flow)) => flow.evict(link),
            _ => link.out.push(Action::Close { socket: id }),
        }
        self.remove(id);
        true
    }

    pub(crate) fn insert(&mut self, key: Key, flow: impl FnOnce(SocketId) -> Flow) -> SocketId {
        let id = self.flows.insert_with_key(|id| (key, flow(id)));
        self.enter(key, id);
        id
    }

    /// The first flow with a key is found by it; two forwarding rules may lead to one port of a guest.
    fn enter(&mut self, key: Key, id: SocketId) {
        if self.index.look_up(&key).is_none() {
            self.index.insert(key, id);
        }
    }

    /// A flow is known by another key from now on, or by its own again.
    pub(crate) fn rekey(&mut self, id: SocketId, key: Key) {
        let Some((place, _)) = self.flows.get_mut(id) else {
            return;
        };
        let before = core::mem::replace(place, key);
        if self.index.look_up(&before) == Some(id) {
            self.index.remove(&before);
        }
        self.enter(key, id);
    }

    pub(crate) fn remove(&mut self, id: SocketId) {
        if let Some((key, _)) = self.flows.remove(id) {
            // Another rule's mapping may have its place in the index.
            if self.index.look_up(&key) == Some(id) {
                self.index.remove(&key);
            }
        }
    }
}
