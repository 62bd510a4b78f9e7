//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

/// A running one's complement sum.
///
/// Every slice that is added, but for the last, must have an even length.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds bytes in the order of the wire; an odd last byte is padded with zero.
    #[must_use]
    pub fn with(mut self, bytes: &[u8]) -> Self {
        // Words are summed in the order of the machine, 32 bits at a time into 64-bit lanes,
        // and swapped once at the end (RFC 1071 §2 B). Eight lanes let the compiler use SIMD.
        let mut lanes = [0u64; 8];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum: u64 = lanes.iter().sum();
        let (words, rest) = rest.as_chunks::<2>();
        for word in words {
            sum += u64::from(u16::from_ne_bytes(*word));
        }
        if let [last] = rest {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        self.0 += u64::from(fold(sum).to_be());
        self
    }

    /// Adds one 16-bit number.
    #[must_use]
    pub fn with_u16(mut self, number: u16) -> Self {
        self.0 += u64::from(number);
        self
    }

    /// The sum folded into 16 bits, not complemented: the start value that
    /// `VIRTIO_NET_HDR_F_NEEDS_CSUM` wants in the checksum field.
    #[must_use]
    pub fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The checksum: the complement of the folded sum.
    #[must_use]
    pub fn finish(self) -> u16 {
        !fold(self.0)
    }

    /// The checksum for UDP, where zero means "none" and is sent as all ones (RFC 768).
    #[must_use]
    pub fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits above")]
    let folded = sum as u16;
    folded
}

/// The checksum after one 16-bit field changed from `old` to `new` (RFC 1624 §3, equation 3).
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 §1, word by word.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn equals_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(Sum::new().with(&bytes).finish(), by_the_book(&bytes));
        }

        #[test]
        fn slices_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..150) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let sum = Sum::new().with(&bytes[..cut]).with(&bytes[cut..]).finish();
            prop_assert_eq!(sum, by_the_book(&bytes));
        }

        #[test]
        fn update_equals_a_new_sum(mut bytes in proptest::collection::vec(any::<u8>(), 4..64), new: u16) {
            bytes.truncate(bytes.len() & !1);
            bytes[0] = 1; // an all-zero text has two representations of its sum
            let before = by_the_book(&bytes);
            let old = u16::from_be_bytes([bytes[2], bytes[3]]);
            bytes[2..4].copy_from_slice(&new.to_be_bytes());
            prop_assert_eq!(update(before, old, new), by_the_book(&bytes));
        }
    }

    #[test]
    fn a_text_with_its_checksum_sums_to_zero() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(Sum::new().with(&header).finish(), 0);
    }
}
