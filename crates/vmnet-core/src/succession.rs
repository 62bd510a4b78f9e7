//! Segments of a guest's TCP connection of which each goes on where the one before ends. To the NAT they are one, so that a
//! burst of them is one call of the host's socket.

use core::net::IpAddr;

use vmnet_wire::ethernet;
use vmnet_wire::ip::Protocol;
use vmnet_wire::segment::Layout;
use vmnet_wire::tcp::{Flags, Segment, Seq};

/// What a segment says beside its payload, and where the next one goes on.
///
/// Only segments count that carry bytes and acknowledge, and do nothing else: no options are looked at, as those of an
/// established connection mean nothing to the NAT, which agrees on none that they could be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Succession {
    ethernet: [u8; ethernet::Header::LEN],
    ends: [(IpAddr, u16); 2],
    acknowledgement: Seq,
    window: u16,
    /// Bytes of all headers.
    headers: usize,
    next: Seq,
}

impl Succession {
    /// What a frame of `len` bytes that begins with `head` says, and the number of its first byte; `None` if it says more.
    fn read(head: &[u8], len: usize) -> Option<(Self, Seq)> {
        let layout = Layout::find(head, len)?;
        let untagged = layout.network == ethernet::Header::LEN;
        if !untagged || layout.protocol != Protocol::TCP || layout.end != len {
            return None;
        }
        let fields = Segment::read(head.get(layout.transport..)?)?.fields;
        let payload = u32::try_from(len.checked_sub(layout.payload)?).ok()?;
        if payload == 0 || fields.flags.without(Flags::PSH) != Flags::ACK {
            return None;
        }
        let said = Self {
            ethernet: *head.first_chunk()?,
            ends: [
                (layout.source, fields.source_port),
                (layout.destination, fields.destination_port),
            ],
            acknowledgement: fields.acknowledgement,
            window: fields.window,
            headers: layout.payload,
            next: fields.sequence.advance(payload),
        };
        Some((said, fields.sequence))
    }

    /// Begins with a frame of `len` bytes that begins with `head`.
    pub(crate) fn begin(head: &[u8], len: usize) -> Option<Self> {
        Self::read(head, len).map(|(said, _)| said)
    }

    /// Whether a frame goes on where those before it end, says the same, and has as long headers: then it is one of them.
    #[must_use]
    pub fn goes_on(&mut self, head: &[u8], len: usize) -> bool {
        let Some((said, sequence)) = Self::read(head, len) else {
            return false;
        };
        let follows = sequence == self.next
            && said
                == Self {
                    next: said.next,
                    ..*self
                };
        if follows {
            self.next = said.next;
        }
        follows
    }

    /// Bytes of all headers of each frame.
    #[must_use]
    pub fn headers(&self) -> usize {
        self.headers
    }
}

#[cfg(test)]
mod tests;
