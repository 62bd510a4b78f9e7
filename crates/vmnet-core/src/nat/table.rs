//! All flows of a network. Guests fill this table, so it has a limit: when it is full, a flow of the guest that has
//! most makes room, the one that was idle longest of a sample. A guest that has less than that one gets room even if
//! none is idle, so nobody can shut others out; the one that has most itself only if it has an idle one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use vmnet_wire::ethernet::Mac;

use slotmap::SlotMap;

use crate::link::Link;
use crate::nat::echo::Echo;
use crate::nat::flow::{Index, Key};
use crate::nat::tcp::Tcp;
use crate::nat::udp::Mapping;
use crate::outbox::{Action, PortId, SocketId};

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

/// Whose a flow is: that of the guest behind a port, however many MACs and addresses it uses. Flows of rules, and of
/// guests whose port is not known, are nobody's.
type Owner = Option<PortId>;

#[derive(Debug)]
struct Place {
    key: Key,
    owner: Owner,
    flow: Flow,
}

/// All flows, found by socket or by key.
#[derive(Debug)]
pub(crate) struct Table {
    flows: SlotMap<SocketId, Place>,
    index: Index,
    /// How many each owner has.
    owned: HashMap<Owner, usize>,
    max: usize,
    /// Where the search for an idle flow goes on.
    sampled: usize,
}

impl Table {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            flows: SlotMap::with_key(),
            index: Index::default(),
            owned: HashMap::new(),
            max,
            sampled: 0,
        }
    }

    pub(crate) fn set_max(&mut self, max: usize) {
        self.max = max;
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
        self.flows.get_mut(id).map(|place| &mut place.flow)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (SocketId, &mut Flow)> {
        self.flows
            .iter_mut()
            .map(|(id, place)| (id, &mut place.flow))
    }

    /// A number that nobody outside can foresee.
    pub(crate) fn secret_of(&self, key: &Key) -> u64 {
        self.index.secret_of(key)
    }

    /// Makes room for one more flow of the guest at `mac` if it must.
    pub(crate) fn has_room(&mut self, link: &mut Link<'_>, mac: Mac) -> bool {
        if self.flows.len() < self.max {
            return true;
        }
        let asking = owner(link, mac);
        let has = self.owned.get(&asking).copied().unwrap_or(0);
        let guests = self.owned.iter().filter(|(owner, _)| owner.is_some());
        let richest = guests.max_by_key(|(_, count)| **count);
        let (from, most) = richest.map_or((asking, has), |(owner, count)| (*owner, *count));
        // Of equals nobody takes from the other what is in use.
        let fair = has + 1 < most;
        let from = if fair { from } else { asking };
        let Some((id, seen)) = self.oldest_of(from) else {
            return false;
        };
        if !fair && link.now.saturating_duration_since(seen) < IN_USE {
            return false;
        }
        match self.get_mut(id) {
            Some(Flow::Tcp(flow)) => flow.evict(link),
            _ => link.out.push(Action::Close { socket: id }),
        }
        self.remove(id);
        true
    }

    /// The flow that was idle longest of some that an owner has.
    fn oldest_of(&mut self, owner: Owner) -> Option<(SocketId, Instant)> {
        let from = self.sampled % self.flows.len().max(1);
        self.sampled = from + SAMPLE;
        let all = self.flows.iter();
        all.clone()
            .skip(from)
            .chain(all.take(from))
            .filter(|(_, place)| place.owner == owner && place.flow.is_evictable())
            .take(SAMPLE)
            .map(|(id, place)| (id, place.flow.seen()))
            .min_by_key(|(_, seen)| *seen)
    }

    /// A flow of the guest at `mac`.
    pub(crate) fn insert(
        &mut self,
        link: &mut Link<'_>,
        mac: Mac,
        key: Key,
        flow: impl FnOnce(&mut Link<'_>, SocketId) -> Flow,
    ) -> SocketId {
        let at = owner(link, mac);
        let id = self.flows.insert_with_key(|id| {
            let flow = flow(link, id);
            let owner = at.filter(|_| flow.is_evictable());
            Place { key, owner, flow }
        });
        if let Some(place) = self.flows.get(id) {
            *self.owned.entry(place.owner).or_default() += 1;
        }
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
        let Some(place) = self.flows.get_mut(id) else {
            return;
        };
        let before = core::mem::replace(&mut place.key, key);
        if self.index.look_up(&before) == Some(id) {
            self.index.remove(&before);
        }
        self.enter(key, id);
    }

    pub(crate) fn remove(&mut self, id: SocketId) {
        if let Some(Place { key, owner, .. }) = self.flows.remove(id) {
            if let Some(count) = self.owned.get_mut(&owner) {
                *count -= 1;
                if *count == 0 {
                    self.owned.remove(&owner);
                }
            }
            // Another rule's mapping may have its place in the index.
            if self.index.look_up(&key) == Some(id) {
                self.index.remove(&key);
            }
        }
    }
}

fn owner(link: &Link<'_>, mac: Mac) -> Owner {
    link.port_of(mac).map(|(port, _)| port)
}
