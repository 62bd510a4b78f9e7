//! The bytes of a frame behind its head: some of ours, then some in a guest's memory.
//!
//! A guest may change its memory at any time, so those bytes are copied or named to the kernel, each once, and never
//! looked at in place. What is decided about a frame is decided by its head, which is a copy.

use vmnet_virtio::memory::GuestSlice;

use crate::sys::places::Places;

/// Bytes behind a head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Body<'a> {
    near: &'a [u8],
    far: &'a [GuestSlice<'a>],
    /// Bytes at the beginning of `far` that are not meant, and how many behind them are.
    skip: usize,
    far_len: usize,
}

impl<'a> Body<'a> {
    /// No bytes.
    pub(crate) const EMPTY: Body<'static> = Body {
        near: &[],
        far: &[],
        skip: 0,
        far_len: 0,
    };

    /// Bytes of ours alone.
    pub(crate) fn plain(near: &'a [u8]) -> Self {
        Self {
            near,
            ..Self::EMPTY
        }
    }

    /// `near`, and behind it all of `far`.
    #[cfg(test)]
    pub(crate) fn new(near: &'a [u8], far: &'a [GuestSlice<'a>]) -> Self {
        Self {
            near,
            far,
            skip: 0,
            far_len: far.iter().map(GuestSlice::len).sum(),
        }
    }

    /// The first `len` bytes of `far`, which has as many.
    pub(crate) fn guest(far: &'a [GuestSlice<'a>], len: usize) -> Self {
        Self {
            far,
            far_len: len,
            ..Self::EMPTY
        }
    }

    /// These bytes, all of them a guest's, behind some of ours.
    pub(crate) fn behind(self, near: &'a [u8]) -> Self {
        debug_assert!(self.near.is_empty(), "bytes of ours come first");
        Self { near, ..self }
    }

    /// `len` bytes from `start` on; none if there are not as many.
    pub(crate) fn span(self, start: usize, len: usize) -> Self {
        let Some(end) = start.checked_add(len).filter(|end| *end <= self.len()) else {
            return Body::EMPTY;
        };
        let split = self.near.len();
        let near = self.near.get(start.min(split)..end.min(split));
        let far_start = start.saturating_sub(split);
        let far_len = end.saturating_sub(split).saturating_sub(far_start);
        Self {
            near: near.unwrap_or(&[]),
            far: if far_len > 0 { self.far } else { &[] },
            skip: self.skip + far_start,
            far_len,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.near.len() + self.far_len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if all of them are ours.
    pub(crate) fn as_plain(&self) -> Option<&'a [u8]> {
        (self.far_len == 0).then_some(self.near)
    }

    /// Those of ours, which come first.
    pub(crate) fn near(&self) -> &'a [u8] {
        self.near
    }

    /// Those in the guest's memory.
    pub(crate) fn far(&self) -> impl Iterator<Item = GuestSlice<'a>> + use<'a> {
        let (mut skip, mut left) = (self.skip, self.far_len);
        self.far.iter().map_while(move |slice| {
            if left == 0 {
                return None;
            }
            let (skipped, rest) = slice.split_at(skip);
            skip -= skipped.len();
            let (meant, _) = rest.split_at(left);
            left -= meant.len();
            Some(meant)
        })
    }

    /// Copies all bytes behind those of `to`.
    pub(crate) fn append_to(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.near);
        let mut at = to.len();
        to.resize(at + self.far_len, 0);
        for slice in self.far() {
            at += to.get_mut(at..).map_or(0, |room| slice.copy_to(room));
        }
    }

    /// The bytes in one piece: where they are, or else copied to `scratch`, whose contents are lost.
    pub(crate) fn gathered<'b>(self, scratch: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        match self.as_plain() {
            Some(plain) => plain,
            None => {
                scratch.clear();
                self.append_to(scratch);
                scratch
            }
        }
    }

    /// Names all bytes to a system call.
    pub(crate) fn name_to(&self, places: &mut Places<'a>) {
        places.push(self.near);
        for slice in self.far() {
            places.push_guest(slice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vmnet_virtio::memory::OwnMemory;

    #[test]
    fn every_span_is_the_same_bytes_near_and_far() {
        let mut own = OwnMemory::new(8192).unwrap();
        let at: Vec<u64> = (0..3).map(|_| own.take(16, 1).unwrap()).collect();
        let map = Arc::clone(own.map());
        let lens = [5, 0, 7];
        let far: Vec<GuestSlice<'_>> = at
            .iter()
            .zip(lens)
            .map(|(at, len)| map.guest(*at, len).unwrap())
            .collect();
        far[0].copy_from(b"fghij");
        far[2].copy_from(b"klmnopq");
        let all = b"abcdefghijklmnopq";
        let body = Body::new(&all[..5], &far);
        let mut scratch = Vec::new();
        for start in 0..=all.len() {
            for end in start..=all.len() {
                let span = body.span(start, end - start);
                assert_eq!(span.len(), end - start);
                assert_eq!(span.gathered(&mut scratch), &all[start..end]);
                let part = (end - start) / 2;
                let again = span.span(part, end - start - part);
                assert_eq!(again.gathered(&mut scratch), &all[start + part..end]);
            }
        }
        assert!(body.span(3, all.len()).is_empty(), "beyond the end");
        assert!(body.span(usize::MAX, 2).is_empty());
    }
}
