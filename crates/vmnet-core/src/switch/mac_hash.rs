//! A hash of MAC addresses: short, as every frame asks for two of them, and with a secret, as guests choose addresses.
//!
//! Two products of 128 bits folded to 64, like those of wyhash: after one alone, neighbouring addresses fall together under some
//! factors. Who does not know the secrets cannot choose addresses that fall together, and the table is limited besides.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers with the secrets of one table.
#[derive(Clone, Debug)]
pub(super) struct MacHash {
    start: u64,
    factor: u64,
    last: u64,
}

/// The hash of one address.
#[derive(Debug)]
pub(super) struct MacHasher {
    state: u64,
    factor: u64,
    last: u64,
}

/// The product's two halves, each over the other.
#[inline]
fn folded(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    let [low, high] = [product, product >> 64].map(|half| half & u128::from(u64::MAX));
    u64::try_from(low ^ high).unwrap_or(0)
}

impl Default for MacHash {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            start: random.hash_one(0),
            factor: random.hash_one(1) | 1,
            last: random.hash_one(2) | 1,
        }
    }
}

impl BuildHasher for MacHash {
    type Hasher = MacHasher;

    #[inline]
    fn build_hasher(&self) -> MacHasher {
        MacHasher {
            state: self.start,
            factor: self.factor,
            last: self.last,
        }
    }
}

impl Hasher for MacHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(6) {
            let mut word = [0; 8];
            if let Some(place) = word.get_mut(..chunk.len()) {
                place.copy_from_slice(chunk);
            }
            self.state = folded(self.state ^ u64::from_le_bytes(word), self.factor);
        }
    }

    #[inline]
    fn write_usize(&mut self, _length: usize) {
        // Addresses are all of one length.
    }

    #[inline]
    fn finish(&self) -> u64 {
        folded(self.state, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use vmnet_wire::ethernet::Mac;

    /// A table of 4,096 places, chosen by the lowest bits, where 4,096 addresses fall at random: 0.63 of the places, 2,589, are
    /// taken, give or take 25.
    const FEWEST: usize = 2400;

    fn neighbours() -> impl Iterator<Item = Mac> + Clone {
        (0..4096_u16).map(|number| {
            let [high, low] = number.to_be_bytes();
            Mac([2, 0, 0, 0, high, low])
        })
    }

    #[test]
    fn neighbouring_addresses_fall_apart_in_every_table() {
        for _ in 0..200 {
            let table = MacHash::default();
            let hashes: HashSet<u64> = neighbours().map(|mac| table.hash_one(mac)).collect();
            assert_eq!(hashes.len(), 4096, "{table:?}");
            let places: HashSet<u64> = hashes.iter().map(|hash| hash & 4095).collect();
            assert!(places.len() > FEWEST, "{} of {table:?}", places.len());
            // By the highest seven bits entries of one place are told apart.
            let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert_eq!(tags.len(), 128, "{table:?}");
        }
    }

    #[test]
    fn tables_differ() {
        let [one, other] = [MacHash::default(), MacHash::default()];
        assert!(neighbours().all(|mac| one.hash_one(mac) != other.hash_one(mac)));
    }
}
