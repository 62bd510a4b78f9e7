//! The bytes that decide what happens.

/// The bytes that decide; zeros when they are used up.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Bytes<'_> {
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    pub(super) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(super) fn number(&mut self) -> u32 {
        match self.below(4) {
            0 => 0,
            1 => u32::from(self.byte()),
            2 => u32::from(self.word()),
            _ => u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()]),
        }
    }

    pub(super) fn some(&mut self) -> Vec<u8> {
        let len = self.below(64).min(self.0.len());
        let (some, rest) = self.0.split_at(len);
        self.0 = rest;
        some.to_vec()
    }

    pub(super) fn chance(&mut self, of: u8) -> bool {
        self.byte().is_multiple_of(of)
    }
}
