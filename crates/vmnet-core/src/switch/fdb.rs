//! The forwarding database: behind which port is a MAC address? (IEEE 802.1Q §8.8)

use std::collections::HashMap;
use std::time::{Duration, Instant};

use vmnet_wire::ethernet::Mac;

use crate::outbox::PortId;
use crate::switch::mac_hash::MacHash;

/// An address that was not seen for so long is forgotten (802.1Q table 8-6).
pub const AGEING: Duration = Duration::from_secs(300);
/// Addresses of all ports together.
const ENTRIES_MAX: usize = 8192;
/// Addresses behind one port: enough for a nested network, too few to push others out.
const ENTRIES_PER_PORT: usize = 512;

/// Aged addresses are looked for at most so often.
const SWEEP: Duration = Duration::from_secs(1);

/// Behind which port an address was seen, when, and until when that is remembered.
#[derive(Clone, Copy, Debug)]
struct Entry {
    port: PortId,
    seen: Instant,
    until: Instant,
}

impl Entry {
    fn new(now: Instant, port: PortId) -> Self {
        Self {
            port,
            seen: now,
            until: now + AGEING,
        }
    }

    /// A frame came from it.
    #[inline]
    fn heard(&mut self, now: Instant) {
        // Frames of one burst come at one time.
        if self.seen != now {
            *self = Self::new(now, self.port);
        }
    }

    /// It is still known.
    #[inline]
    fn is_young(&self, now: Instant) -> bool {
        now < self.until
    }
}

/// What learning an address came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Learned {
    /// Known before, behind the same port.
    Known,
    /// Known from now on.
    Fresh,
    /// It was behind this other port before.
    Moved(PortId),
    /// There is no room, and the frame's port has had its share.
    NoRoom,
}

/// The addresses that were learned.
#[derive(Debug, Default)]
pub struct Fdb {
    entries: HashMap<Mac, Entry, MacHash>,
    per_port: HashMap<PortId, usize>,
    /// When aged addresses were last looked for.
    swept: Option<Instant>,
}

impl Fdb {
    /// A frame from `mac` came by `port`. An address that turns up elsewhere has moved.
    pub fn learn(&mut self, now: Instant, mac: Mac, port: PortId) -> Learned {
        if let Some(entry) = self.entries.get_mut(&mac) {
            entry.heard(now);
            if entry.port != port {
                let from = entry.port;
                entry.port = port;
                self.uncount(from);
                *self.per_port.entry(port).or_default() += 1;
                return Learned::Moved(from);
            }
            return Learned::Known;
        }
        if !self.has_room(port) {
            self.forget_aged(now);
            if !self.has_room(port) {
                return Learned::NoRoom;
            }
        }
        self.entries.insert(mac, Entry::new(now, port));
        *self.per_port.entry(port).or_default() += 1;
        Learned::Fresh
    }

    /// The port behind which `mac` is, if it was seen lately.
    #[must_use]
    #[inline]
    pub fn look_up(&self, now: Instant, mac: Mac) -> Option<PortId> {
        let entry = self.entries.get(&mac)?;
        entry.is_young(now).then_some(entry.port)
    }

    /// What [`Self::learn`] does if it comes to [`Learned::Known`]; otherwise nothing, and the answer is false.
    #[must_use]
    #[inline]
    pub(crate) fn hear(&mut self, now: Instant, mac: Mac, port: PortId) -> bool {
        match self.entries.get_mut(&mac) {
            Some(entry) if entry.port == port => {
                entry.heard(now);
                true
            }
            _ => false,
        }
    }

    /// The port behind which `mac` was seen last, however long ago, as long as there was room to remember it. Where only
    /// guests are learned and what is unknown is not flooded, a guest that was silent for long is found still.
    #[must_use]
    pub fn seen_last(&self, mac: Mac) -> Option<PortId> {
        Some(self.entries.get(&mac)?.port)
    }

    /// A port is gone, and with it all addresses behind it.
    pub fn forget_port(&mut self, port: PortId) {
        self.entries.retain(|_, entry| entry.port != port);
        self.per_port.remove(&port);
    }

    /// When `mac` was last heard behind `port`.
    #[must_use]
    pub fn seen_behind(&self, port: PortId, mac: Mac) -> Option<Instant> {
        let entry = self.entries.get(&mac)?;
        (entry.port == port).then_some(entry.seen)
    }

    /// Every address that is known, with its port.
    pub fn entries(&self) -> impl Iterator<Item = (Mac, PortId)> + '_ {
        self.entries.iter().map(|(mac, entry)| (*mac, entry.port))
    }

    fn has_room(&self, port: PortId) -> bool {
        self.entries.len() < ENTRIES_MAX
            && self
                .per_port
                .get(&port)
                .is_none_or(|count| *count < ENTRIES_PER_PORT)
    }

    fn forget_aged(&mut self, now: Instant) {
        // A flood of addresses must not make us look at all of them for each of its frames.
        let lately = |swept| now.saturating_duration_since(swept) < SWEEP;
        if self.swept.is_some_and(lately) {
            return;
        }
        self.swept = Some(now);
        let per_port = &mut self.per_port;
        self.entries.retain(|_, entry| {
            let young = entry.is_young(now);
            if !young && let Some(count) = per_port.get_mut(&entry.port) {
                *count = count.saturating_sub(1);
            }
            young
        });
    }

    fn uncount(&mut self, port: PortId) {
        if let Some(count) = self.per_port.get_mut(&port) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    fn ports() -> (PortId, PortId) {
        let mut map = SlotMap::with_key();
        (map.insert(()), map.insert(()))
    }

    fn mac(number: usize) -> Mac {
        let [.., a, b] = number.to_be_bytes();
        Mac([2, 0, 0, 0, a, b])
    }

    #[test]
    fn an_address_is_learned_moves_and_ages() {
        let (a, b) = ports();
        let start = Instant::now();
        let mut fdb = Fdb::default();
        fdb.learn(start, mac(1), a);
        assert_eq!(fdb.look_up(start, mac(1)), Some(a));
        fdb.learn(start, mac(1), b);
        assert_eq!(fdb.look_up(start, mac(1)), Some(b));
        assert_eq!(fdb.look_up(start + AGEING, mac(1)), None);
        fdb.learn(start + AGEING, mac(1), b);
        assert_eq!(fdb.look_up(start + AGEING, mac(1)), Some(b));
        fdb.forget_port(b);
        assert_eq!(fdb.look_up(start + AGEING, mac(1)), None);
    }

    #[test]
    fn a_flood_of_addresses_hurts_only_its_own_port() {
        let (a, b) = ports();
        let start = Instant::now();
        let mut fdb = Fdb::default();
        for number in 0..ENTRIES_PER_PORT {
            assert_eq!(fdb.learn(start, mac(number), a), Learned::Fresh);
        }
        assert_eq!(fdb.learn(start, mac(60_000), a), Learned::NoRoom);
        assert_eq!(fdb.learn(start, mac(60_001), b), Learned::Fresh);
        // What has aged makes room again.
        assert_eq!(fdb.learn(start + AGEING, mac(60_000), a), Learned::Fresh);
        // What moves takes its share along.
        let mut moved = Fdb::default();
        for number in 0..ENTRIES_PER_PORT {
            moved.learn(start, mac(number), a);
            moved.learn(start, mac(number), b);
        }
        assert_eq!(moved.learn(start, mac(60_000), a), Learned::Fresh);
        assert_eq!(moved.learn(start, mac(60_001), b), Learned::NoRoom);
    }
}
