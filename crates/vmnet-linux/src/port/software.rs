//! Offloads done by us, for ports that take none: large frames are cut, checksums made, datagrams that are larger
//! than the MTU fragmented.

use vmnet_core::Drop;
use vmnet_wire::ethernet;
use vmnet_wire::offload::Checksum;
use vmnet_wire::segment::{self, Cut, Fragments};

use crate::port::Outgoing;

/// Takes a whole frame in two pieces: head and body.
pub(crate) type Push<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), Drop> + 'a;

/// Bytes of headers that may have to be changed: Ethernet, IP and transport, with all options.
const HEADERS_MAX: usize = 134;

/// Hands the whole frames that `frame` stands for to `push`, each as head and body.
///
/// # Errors
/// The frame was dropped, or `push` dropped one of them.
pub(crate) fn send(frame: &Outgoing<'_>, mtu: usize, push: &mut Push<'_>) -> Result<(), Drop> {
    if let Some(segmentation) = frame.offload.segmentation {
        let mut cut = Cut::new(frame.head, frame.len(), segmentation).ok_or(Drop::Malformed)?;
        // Of our own frames the payload is the body; of others' it follows the headers.
        let payload = if frame.body.is_empty() {
            frame.head.get(cut.headers()..).ok_or(Drop::Malformed)?
        } else {
            frame.body
        };
        while let Some((head, range)) = cut.next(payload) {
            push(head.bytes(), payload.get(range).unwrap_or(&[]))?;
        }
        return Ok(());
    }
    let too_long = frame.len() > mtu + ethernet::Header::LEN;
    let Checksum::Partial { .. } = frame.offload.checksum else {
        return if too_long {
            fragment(&[frame.head, frame.body].concat(), mtu, push)
        } else {
            push(frame.head, frame.body)
        };
    };
    if too_long {
        let mut whole = [frame.head, frame.body].concat();
        segment::complete(&mut whole, &[], frame.offload.checksum);
        return fragment(&whole, mtu, push);
    }
    let split = frame.head.len().min(HEADERS_MAX);
    let (changed, kept) = frame.head.split_at(split);
    let mut head = [0; HEADERS_MAX];
    let head = &mut head[..split];
    head.copy_from_slice(changed);
    let rest = if frame.body.is_empty() {
        kept
    } else {
        frame.body
    };
    if !kept.is_empty() && !frame.body.is_empty() {
        // Neither ours nor contiguous: no caller makes such a frame.
        let mut whole = [frame.head, frame.body].concat();
        segment::complete(&mut whole, &[], frame.offload.checksum);
        return push(&whole, &[]);
    }
    segment::complete(head, rest, frame.offload.checksum);
    push(head, rest)
}

fn fragment(whole: &[u8], mtu: usize, push: &mut Push<'_>) -> Result<(), Drop> {
    for (head, range) in Fragments::new(whole, mtu).ok_or(Drop::TooLong)? {
        push(head.bytes(), whole.get(range).unwrap_or(&[]))?;
    }
    Ok(())
}
