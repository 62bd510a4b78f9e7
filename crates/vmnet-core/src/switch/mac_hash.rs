//! A hash of MAC addresses: short, as every frame asks for two of them, and with a secret, as guests choose addresses.
//!
//! A product of 128 bits folded to 64, like those of wyhash. Who does not know the secrets cannot choose addresses that fall
//! together, and the table is limited besides.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers with the secrets of one table.
#[derive(Clone, Debug)]
pub(super) struct MacHash {
    start: u64,
    factor: u64,
}

/// The hash of one address.
#[derive(Debug)]
pub(super) struct MacHasher {
    state: u64,
    factor: u64,
}

impl Default for MacHash {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            start: random.hash_one(0),
            factor: random.hash_one(1) | 1,
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
            let word = u64::from_le_bytes(word);
            let product = u128::from(self.state ^ word) * u128::from(self.factor);
            let [low, high] = [product, product >> 64].map(|half| half & u128::from(u64::MAX));
            self.state = u64::try_from(low ^ high).unwrap_or(0);
        }
    }

    #[inline]
    fn write_usize(&mut self, _length: usize) {
        // Addresses are all of one length.
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use vmnet_wire::ethernet::Mac;

    #[test]
    fn neighbouring_addresses_fall_apart_and_tables_differ() {
        let [one, other] = [MacHash::default(), MacHash::default()];
        let macs = (0..4096_u16).map(|number| {
            let [high, low] = number.to_be_bytes();
            Mac([2, 0, 0, 0, high, low])
        });
        let hashes: Vec<u64> = macs.clone().map(|mac| one.hash_one(mac)).collect();
        assert_eq!(HashSet::<_>::from_iter(&hashes).len(), 4096);
        // The bits by which a table of 4,096 places chooses: random ones leave 0.37 of the places empty.
        let places: HashSet<u64> = hashes.iter().map(|hash| hash & 4095).collect();
        assert!(places.len() > 2048, "{}", places.len());
        let again: Vec<u64> = macs.map(|mac| other.hash_one(mac)).collect();
        assert_ne!(hashes, again);
    }
}
