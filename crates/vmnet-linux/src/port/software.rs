//! Offloads done by us, for each port as far as it takes none: large frames are cut, checksums made, datagrams that are
//! larger than the MTU fragmented. What one port cannot take costs the others nothing.

use vmnet_core::Drop;
use vmnet_wire::ethernet;
use vmnet_wire::offload::{Checksum, Kind, Offload};
use vmnet_wire::segment::{self, Cut, Fragments, HEADERS_MAX, Layout};
use vmnet_wire::unfinished;

use crate::lane::PortOffload;
use crate::port::body::Body;
use crate::port::{Outgoing, Pieces};

/// Takes a whole frame.
pub(crate) type Push<'a> = dyn FnMut(Pieces<'_>) -> Result<(), Drop> + 'a;

/// The largest frame that is given whole to whoever takes large segments, without virtio-net header.
const LARGE_MAX: usize = 65_550;

/// Hands the whole frames that `frame` stands for, to a port that takes so much, to `push`. A frame in a guest's memory
/// of which more than the head is to be looked at is copied to `scratch` before.
///
/// # Errors
/// The frame was dropped, or `push` dropped one of them.
pub(crate) fn send(
    frame: &Outgoing<'_>,
    mtu: usize,
    takes: PortOffload,
    scratch: &mut Vec<u8>,
    push: &mut Push<'_>,
) -> Result<(), Drop> {
    let way = Way { takes, mtu };
    if frame.body.as_plain().is_none() && way.looks_at_bodies(frame) {
        scratch.clear();
        scratch.extend_from_slice(frame.head);
        frame.body.append_to(scratch);
        let frame = Outgoing {
            head: scratch,
            body: Body::EMPTY,
            offload: frame.offload,
        };
        return way.give(&frame, push);
    }
    way.give(frame, push)
}

/// Whoever relies on us for checksums is not given a frame whose own is wrong; others look for themselves.
fn is_wrong(frame: &Outgoing<'_>) -> bool {
    match frame.offload.checksum {
        Checksum::Wrong => true,
        Checksum::Unverified => frame.body.is_empty() && !segment::verify(frame.head),
        Checksum::Valid | Checksum::Partial { .. } => false,
    }
}

/// The way to one port.
#[derive(Clone, Copy)]
struct Way {
    takes: PortOffload,
    mtu: usize,
}

impl Way {
    /// Something is to be summed or cut, so that all bytes have to lie in one place that nobody changes.
    fn looks_at_bodies(self, frame: &Outgoing<'_>) -> bool {
        let partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
        let unseen = frame.offload.checksum == Checksum::Unverified;
        (self.takes.checksum && unseen)
            || match frame.offload.segmentation {
                Some(_) => !(self.goes_large(frame) && self.takes.virtio_header),
                None => frame.is_too_long(self.mtu) || (partial && !self.takes.virtio_header),
            }
    }

    /// The port takes this large frame as it is.
    fn goes_large(self, frame: &Outgoing<'_>) -> bool {
        let is_tcp = frame
            .offload
            .segmentation
            .is_some_and(|how| matches!(how.kind, Kind::Tcp4 | Kind::Tcp6));
        self.takes.tso && is_tcp && frame.len() <= LARGE_MAX
    }

    fn give(self, frame: &Outgoing<'_>, push: &mut Push<'_>) -> Result<(), Drop> {
        if self.takes.checksum && is_wrong(frame) {
            return Err(Drop::Checksum);
        }
        let Some(segmentation) = frame.offload.segmentation else {
            return self.small(frame, push);
        };
        if self.goes_large(frame) {
            return self.large(frame, push);
        }
        let mut cut = Cut::new(frame.head, frame.len(), segmentation).ok_or(Drop::Malformed)?;
        // Of our own frames the payload is the body; of others' it follows the headers.
        let payload = if frame.body.is_empty() {
            frame.head.get(cut.headers()..).ok_or(Drop::Malformed)?
        } else {
            frame.body.near()
        };
        while let Some((head, range)) = cut.next(payload) {
            let body = Body::plain(payload.get(range).unwrap_or(&[]));
            self.whole(head.bytes(), body, push)?;
        }
        Ok(())
    }

    /// A frame whose sums are right.
    fn whole(self, head: &[u8], body: Body<'_>, push: &mut Push<'_>) -> Result<(), Drop> {
        self.with_header(&Offload::VALID, 0, (head, body), push)
    }

    fn with_header(
        self,
        offload: &Offload,
        headers: usize,
        (head, body): (&[u8], Body<'_>),
        push: &mut Push<'_>,
    ) -> Result<(), Drop> {
        let written = offload.write(headers);
        let header = if self.takes.virtio_header {
            &written[..]
        } else {
            &[]
        };
        push(Pieces { header, head, body })
    }

    /// A large frame, as it is.
    fn large(self, frame: &Outgoing<'_>, push: &mut Push<'_>) -> Result<(), Drop> {
        if !self.takes.virtio_header {
            return self.completed(frame, push);
        }
        let headers = Layout::find(frame.head, frame.len())
            .map_or(ethernet::Header::LEN, |layout| layout.payload);
        self.with_header(&frame.offload, headers, (frame.head, frame.body), push)
    }

    /// A frame that stands for itself.
    fn small(self, frame: &Outgoing<'_>, push: &mut Push<'_>) -> Result<(), Drop> {
        let partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
        if frame.is_too_long(self.mtu) {
            let mut whole = [frame.head, frame.body.near()].concat();
            segment::complete(&mut whole, &[], frame.offload.checksum);
            return self.fragments(&whole, push);
        }
        if partial && !self.takes.virtio_header {
            return self.completed(frame, push);
        }
        self.with_header(&frame.offload, 0, (frame.head, frame.body), push)
    }

    /// A frame whose checksum is made now.
    fn completed(self, frame: &Outgoing<'_>, push: &mut Push<'_>) -> Result<(), Drop> {
        let split = frame.head.len().min(HEADERS_MAX);
        let (changed, kept) = frame.head.split_at(split);
        let body = frame.body.near();
        if !kept.is_empty() && !body.is_empty() {
            // Neither ours nor contiguous: no caller makes such a frame.
            let whole = [frame.head, body].concat();
            let frame = Outgoing {
                head: &whole,
                body: Body::EMPTY,
                offload: frame.offload,
            };
            return self.completed(&frame, push);
        }
        let mut head = [0; HEADERS_MAX];
        let head = &mut head[..split];
        head.copy_from_slice(changed);
        let rest = if kept.is_empty() { body } else { kept };
        let checksum = if frame.offload.segmentation.is_some() {
            // Senders disagree on the length that the sum of a large frame's pseudo header has.
            unfinished::set_pseudo_sum(head, frame.len()).ok_or(Drop::Malformed)?
        } else {
            frame.offload.checksum
        };
        segment::complete(head, rest, checksum);
        self.whole(head, Body::plain(rest), push)
    }

    fn fragments(self, whole: &[u8], push: &mut Push<'_>) -> Result<(), Drop> {
        for (head, range) in Fragments::new(whole, self.mtu).ok_or(Drop::TooLong)? {
            let body = Body::plain(whole.get(range).unwrap_or(&[]));
            // Nobody can tell the checksum of a datagram by one fragment.
            self.with_header(&Offload::NONE, 0, (head.bytes(), body), push)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
