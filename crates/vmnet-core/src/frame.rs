//! What the core sees of a frame: its head, its length, what its sender left undone.

use vmnet_wire::offload::Offload;

/// Bytes of a frame that the core may want to see: all headers, and a whole DHCP or DNS message.
pub const HEAD_MAX: usize = 2048;

/// A frame in the hand of the caller.
///
/// The body stays with the caller; actions name places in it by [`Span`]. `head` must not
/// change while the core looks at it: a port in guest memory hands a copy.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The first bytes: all of them, or at least [`HEAD_MAX`].
    pub head: &'a [u8],
    /// Bytes of the whole frame, Ethernet header included.
    pub len: usize,
    /// What its sender left to others.
    pub offload: Offload,
}

impl<'a> Frame<'a> {
    /// A frame that is all there.
    #[must_use]
    pub fn whole(bytes: &'a [u8], offload: Offload) -> Self {
        Self {
            head: bytes,
            len: bytes.len(),
            offload,
        }
    }
}

/// A place in what the caller holds in its hand: the frame or the payload that it gave last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// Bytes.
    pub len: usize,
}

impl Span {
    /// From the first byte on.
    #[must_use]
    pub fn first(len: usize) -> Self {
        Self { start: 0, len }
    }

    /// The bytes of `of` that this names; `None` if it reaches outside.
    #[must_use]
    pub fn of<'b>(&self, of: &'b [u8]) -> Option<&'b [u8]> {
        of.get(self.start..self.start.checked_add(self.len)?)
    }
}
