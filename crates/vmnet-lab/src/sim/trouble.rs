//! What goes wrong between a guest and its port, the same for the same seed.

use std::time::Duration;

/// A small generator of numbers that look random (xorshift64*).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same sequence for the same seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % (end.max(1) as u64)).unwrap_or(0)
    }

    /// True with a probability of `percent` in a hundred.
    pub fn chance(&mut self, percent: f64) -> bool {
        percent > 0.0 && ((self.roll() >> 11) as f64) < percent / 100.0 * (1u64 << 53) as f64
    }
}

/// How bad a way is. Percentages per frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trouble {
    /// Lost.
    pub loss: f64,
    /// Comes twice.
    pub duplicate: f64,
    /// Comes later than those behind it.
    pub reorder: f64,
    /// One bit behind the Ethernet header is wrong.
    pub flip: f64,
}

impl Trouble {
    /// What becomes of a frame: copies of it, and by how much each is late.
    pub fn suffer(&self, dice: &mut Dice, frame: Vec<u8>) -> Vec<(Duration, Vec<u8>)> {
        if dice.chance(self.loss) {
            return Vec::new();
        }
        let copies = if dice.chance(self.duplicate) { 2 } else { 1 };
        (0..copies)
            .map(|_| {
                let mut frame = frame.clone();
                if dice.chance(self.flip) && frame.len() > 14 && frame[12..14] == [8, 0] {
                    let at = 14 + dice.below(frame.len() - 14);
                    frame[at] ^= 1 << dice.below(8);
                }
                let late = if dice.chance(self.reorder) {
                    Duration::from_micros(200 + dice.below(2000) as u64)
                } else {
                    Duration::ZERO
                };
                (late, frame)
            })
            .collect()
    }
}
