//! Which addresses of the pool nobody has: a bit for each.

use super::Address;

/// The pool's addresses, each taken or free.
#[derive(Debug)]
pub(super) struct FreeMap<A> {
    first: A,
    size: u32,
    /// Set bits are taken; those behind the end of the pool always are.
    taken: Vec<u64>,
}

impl<A: Address> FreeMap<A> {
    /// A pool from `first` to `last`, both included, all free; an empty one if `last` comes before `first`.
    pub(super) fn new(first: A, last: A) -> Self {
        let size = size(first, last).unwrap_or(0);
        let mut taken = vec![0; usize::try_from(size.div_ceil(64)).unwrap_or(0)];
        if let (Some(end), 1..) = (taken.last_mut(), size % 64) {
            *end = u64::MAX << (size % 64);
        }
        Self { first, size, taken }
    }

    /// How many addresses the pool has.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Whether an address is of the pool.
    pub(super) fn contains(&self, address: A) -> bool {
        self.index(address).is_some()
    }

    /// Whether an address is of the pool and free.
    pub(super) fn is_free(&self, address: A) -> bool {
        let bit = self.index(address).map(split);
        bit.is_some_and(|(word, bit)| self.taken.get(word).is_some_and(|w| w & (1 << bit) == 0))
    }

    /// Marks an address; one outside of the pool has no mark.
    pub(super) fn mark(&mut self, address: A, taken: bool) {
        let Some((word, bit)) = self.index(address).map(split) else {
            return;
        };
        if let Some(word) = self.taken.get_mut(word) {
            *word = *word & !(1 << bit) | u64::from(taken) << bit;
        }
    }

    /// The first free address from the place that `hash` names, going up and around.
    pub(super) fn after(&self, hash: u64) -> Option<A> {
        let place = hash.checked_rem(u64::from(self.size))?;
        let start = u32::try_from(place).unwrap_or(0);
        let (word, bit) = split(start);
        let (before, from) = self.taken.split_at_checked(word)?;
        let below = (1_u64 << bit) - 1;
        let words = from
            .iter()
            .zip(word..)
            .map(|(taken, at)| (if at == word { taken | below } else { *taken }, at))
            .chain(before.iter().copied().zip(0..))
            .chain(from.first().map(|taken| (taken | !below, word)));
        let (taken, at) = words.into_iter().find(|(taken, _)| *taken != u64::MAX)?;
        let index = u32::try_from(at).ok()? * 64 + taken.trailing_ones();
        Some(A::from_bits(self.first.bits() + u128::from(index)))
    }

    fn index(&self, address: A) -> Option<u32> {
        let index = address.bits().checked_sub(self.first.bits())?;
        u32::try_from(index).ok().filter(|index| *index < self.size)
    }
}

/// How many addresses there are from `first` to `last`; `None` if that is no range, not even an empty one, or one of
/// more than can be counted.
pub(in crate::gateway) fn size<A: Address>(first: A, last: A) -> Option<u32> {
    let size = last.bits().checked_add(1)?.checked_sub(first.bits())?;
    u32::try_from(size).ok()
}

/// Word and bit of an index.
fn split(index: u32) -> (usize, u32) {
    (
        usize::try_from(index / 64).unwrap_or(usize::MAX),
        index % 64,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    #[test]
    fn an_empty_pool_has_nothing_free() {
        let first = Ipv4Addr::new(10, 0, 0, 7);
        let mut map = FreeMap::new(first, Ipv4Addr::new(10, 0, 0, 6));
        map.mark(first, true);
        assert_eq!((map.size(), map.after(5)), (0, None));
        assert!(!map.contains(first) && !map.is_free(first));
    }

    proptest! {
        #[test]
        fn finds_what_a_plain_search_finds(
            size in 1_u32..300,
            marks in prop::collection::vec((0_u32..300, any::<bool>()), 0..600),
            hash: u64,
        ) {
            let first = Ipv4Addr::new(10, 0, 0, 7);
            let at = |i: u32| Ipv4Addr::from(u32::from(first) + i);
            let mut map = FreeMap::new(first, at(size - 1));
            let mut free: BTreeSet<u32> = (0..size).collect();
            for (i, taken) in marks {
                map.mark(at(i), taken);
                if taken { free.remove(&i); } else if i < size { free.insert(i); }
            }
            for i in 0..300 {
                prop_assert_eq!(map.is_free(at(i)), free.contains(&i));
                prop_assert_eq!(map.contains(at(i)), i < size);
            }
            let start = u32::try_from(hash % u64::from(size)).unwrap();
            let plain = free.range(start..).chain(free.range(..start)).next();
            prop_assert_eq!(map.after(hash), plain.map(|i| at(*i)));
        }
    }
}
