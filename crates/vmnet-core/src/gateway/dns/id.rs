//! Ids of queries to resolvers: unpredictable without the seed, and the same for the same seed.
//!
//! SipHash-2-4 (Aumasson and Bernstein, 2012) of a counter under a random key is a pseudo-random function, which is what
//! RFC 5452 §9.2 asks of the id. It uses no source of randomness of its own, so tests repeat exactly.

/// The sequence of ids of one proxy.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    key: (u64, u64),
    counter: u64,
}

impl Ids {
    pub(super) fn new(seed: [u8; 16]) -> Self {
        let both = u128::from_le_bytes(seed).to_le_bytes();
        let [a, b, c, d, e, f, g, h, rest @ ..] = both;
        Self {
            key: (
                u64::from_le_bytes([a, b, c, d, e, f, g, h]),
                u64::from_le_bytes(rest),
            ),
            counter: 0,
        }
    }

    /// The id for the next query.
    pub(super) fn next(&mut self) -> u16 {
        self.counter = self.counter.wrapping_add(1);
        let [low, high, ..] = siphash(self.key, self.counter).to_le_bytes();
        u16::from_le_bytes([low, high])
    }
}

/// SipHash-2-4 of the eight bytes of `word`, least significant first.
fn siphash(key: (u64, u64), word: u64) -> u64 {
    let mut state = [
        key.0 ^ 0x736f_6d65_7073_6575,
        key.1 ^ 0x646f_7261_6e64_6f6d,
        key.0 ^ 0x6c79_6765_6e65_7261,
        key.1 ^ 0x7465_6462_7974_6573,
    ];
    // The last block of a message holds its length, eight, in its highest byte.
    for block in [word, 8 << 56] {
        let [_, _, _, v3] = &mut state;
        *v3 ^= block;
        state = round(round(state));
        let [v0, ..] = &mut state;
        *v0 ^= block;
    }
    let [_, _, v2, _] = &mut state;
    *v2 ^= 0xff;
    let [v0, v1, v2, v3] = round(round(round(round(state))));
    v0 ^ v1 ^ v2 ^ v3
}

fn round([mut v0, mut v1, mut v2, mut v3]: [u64; 4]) -> [u64; 4] {
    v0 = v0.wrapping_add(v1);
    v2 = v2.wrapping_add(v3);
    v1 = v1.rotate_left(13) ^ v0;
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.rotate_left(32);
    v2 = v2.wrapping_add(v1);
    v0 = v0.wrapping_add(v3);
    v1 = v1.rotate_left(17) ^ v2;
    v3 = v3.rotate_left(21) ^ v0;
    v2 = v2.rotate_left(32);
    [v0, v1, v2, v3]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn agrees_with_the_vector_of_the_paper() {
        // Key 00..0f, message 00..07.
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(siphash(key, 0x0706_0504_0302_0100), 0x93f5_f579_9a93_2462);
    }

    #[test]
    #[allow(deprecated)]
    fn agrees_with_the_standard_library() {
        use std::hash::{Hasher, SipHasher};
        for n in 0..1000_u64 {
            let key = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15), !n);
            let mut oracle = SipHasher::new_with_keys(key.0, key.1);
            oracle.write(&n.to_le_bytes());
            assert_eq!(siphash(key, n), oracle.finish());
        }
    }

    #[test]
    fn ids_depend_on_the_whole_seed_and_spread() {
        let sequence = |seed| {
            let mut ids = Ids::new(seed);
            (0..2000).map(|_| ids.next()).collect::<Vec<_>>()
        };
        let plain = sequence([7; 16]);
        assert_eq!(plain, sequence([7; 16]));
        for place in 0..16 {
            let mut seed = [7; 16];
            seed[place] ^= 1;
            assert_ne!(
                plain,
                sequence(seed),
                "byte {place} of the seed has no effect"
            );
        }
        // 2000 draws of 65,536 repeat about 30 times.
        assert!(plain.iter().collect::<HashSet<_>>().len() > 1900);
    }
}
