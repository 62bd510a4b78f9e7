//! Values beside the keys of a slot map of the core, found by key or by what epoll keeps of one.

use slotmap::Key;

/// What epoll keeps of a key: the index and the lower half of the version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    index: u32,
    version: u32,
}

const VERSION_BITS: u32 = 24;

impl Slot {
    #[inline]
    pub(crate) fn of(key: impl Key) -> Self {
        Self::from_bits(key.data().as_ffi())
    }

    /// As 56 bits.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.version) << 32 | u64::from(self.index)
    }

    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Self {
        let version = (bits >> 32) as u32 & ((1 << VERSION_BITS) - 1);
        Self {
            index: bits as u32,
            version,
        }
    }
}

/// The values.
#[derive(Debug)]
pub(crate) struct Slots<K, V> {
    values: Vec<Option<(K, V)>>,
}

impl<K, V> Default for Slots<K, V> {
    fn default() -> Self {
        Self { values: Vec::new() }
    }
}

impl<K: Key, V> Slots<K, V> {
    /// Puts a value beside `key`; what stood in its place, under an older key, is answered.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let index = Slot::of(key).index as usize;
        if self.values.len() <= index {
            self.values.resize_with(index + 1, || None);
        }
        self.values[index].replace((key, value)).map(|(_, old)| old)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        match self.values.get_mut(Slot::of(key).index as usize) {
            Some(Some((other, value))) if *other == key => Some(value),
            _ => None,
        }
    }

    /// The key that epoll meant.
    pub(crate) fn find(&self, slot: Slot) -> Option<K> {
        match self.values.get(slot.index as usize) {
            Some(Some((key, _))) if Slot::of(*key) == slot => Some(*key),
            _ => None,
        }
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let place = self.values.get_mut(Slot::of(key).index as usize)?;
        place
            .take_if(|(other, _)| *other == key)
            .map(|(_, value)| value)
    }

    /// How many values there are.
    pub(crate) fn count(&self) -> usize {
        self.values.iter().flatten().count()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.values
            .iter_mut()
            .flatten()
            .map(|(key, value)| (*key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::{KeyData, SlotMap};
    use vmnet_core::SocketId;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut keys = SlotMap::<SocketId, ()>::with_key();
        let mut slots = Slots::default();
        let first = keys.insert(());
        slots.insert(first, "first");
        let stale = Slot::from_bits(Slot::of(first).to_bits());
        assert_eq!(slots.find(stale), Some(first));
        keys.remove(first);
        assert_eq!(slots.remove(first), Some("first"));
        let second = keys.insert(());
        slots.insert(second, "second");
        assert_eq!((slots.find(stale), slots.get_mut(first)), (None, None));
        assert_eq!(slots.get_mut(second), Some(&mut "second"));
    }

    #[test]
    fn a_slot_used_billions_of_times_is_still_found() {
        let key = SocketId::from(KeyData::from_ffi(0xfeed_beef << 32 | 5));
        let mut slots = Slots::default();
        slots.insert(key, ());
        assert_eq!(
            slots.find(Slot::from_bits(Slot::of(key).to_bits())),
            Some(key)
        );
    }
}
