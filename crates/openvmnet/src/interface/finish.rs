//! What is done to packets on their way between a ring, whose frames have a virtio-net header, and a program, whose packets
//! may have none: sums that were left to others are made, sums that are wrong are found, large packets are told apart.

use vmnet_wire::checksum::Sum;
use vmnet_wire::ethernet::{self, EtherType};
use vmnet_wire::offload::{Checksum, Offload};
use vmnet_wire::segment;
use vmnet_wire::unfinished::{self, Leaves};

/// Bytes of the virtio-net header.
pub(super) const HEADER: usize = Offload::HEADER_LEN;
/// Bytes of an Ethernet header.
pub(super) const ETHERNET: usize = 14;
/// Headers of a frame are within its first bytes, or it is left alone.
pub(super) const HEAD: usize = 256;

/// What a program and the interface agreed upon.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreed {
    /// Packets have a virtio-net header.
    pub(super) header: bool,
    pub(super) tso: bool,
    pub(super) checksum: bool,
    pub(super) mtu: usize,
    /// The largest frame, without that header.
    pub(super) max: usize,
}

impl Agreed {
    /// The largest packet, with its header.
    pub(super) fn largest(&self) -> usize {
        self.max + if self.header { HEADER } else { 0 }
    }

    /// The smallest one.
    pub(super) fn smallest(&self) -> usize {
        ETHERNET + if self.header { HEADER } else { 0 }
    }

    /// Something may have to be made or looked at in packets that are read.
    pub(super) fn finishes(&self) -> bool {
        !self.header && (self.tso || self.checksum)
    }

    /// Something may be left to others in packets that are written.
    pub(super) fn leaves(&self) -> Option<Leaves> {
        self.finishes().then(|| Leaves {
            sums: self.checksum,
            cutting_to: self.tso.then_some(self.mtu),
        })
    }
}

/// What has to be done to a frame before a program without headers gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    None,
    /// Its sum is to be made.
    Complete(Checksum),
    /// The same of one that stands for several.
    CompleteLarge,
    /// Its sum is to be looked at.
    Verify,
}

impl Work {
    /// By the header of a frame. `None`: the header says what nobody agreed upon.
    pub(super) fn of(header: &[u8; HEADER], agreed: &Agreed) -> Option<Self> {
        if !agreed.finishes() {
            return Some(Self::None);
        }
        let said = Offload::read(header).ok()?;
        Some(match (said.checksum, said.segmentation) {
            (Checksum::Partial { .. }, Some(_)) => Self::CompleteLarge,
            (partial @ Checksum::Partial { .. }, None) => Self::Complete(partial),
            (Checksum::Valid, _) => Self::None,
            _ if agreed.checksum => Self::Verify,
            _ => Self::None,
        })
    }

    /// Does it. False: the frame is to be dropped.
    pub(super) fn do_to(self, frame: &mut [u8]) -> bool {
        match self {
            Self::None => true,
            Self::Complete(checksum) => {
                segment::complete(frame, &[], checksum);
                true
            }
            Self::CompleteLarge => {
                // Senders disagree on the length that the sum of a large frame's pseudo header has.
                let len = frame.len();
                match unfinished::set_pseudo_sum(frame, len) {
                    Some(checksum) => segment::complete(frame, &[], checksum),
                    None => return false,
                }
                true
            }
            Self::Verify => has_right_ipv4_header(frame) && segment::verify(frame),
        }
    }
}

/// The sum of the IPv4 header is right, or there is none (RFC 791 §3.1).
fn has_right_ipv4_header(frame: &[u8]) -> bool {
    let is_ipv4 = ethernet::Header::read(frame)
        .is_some_and(|(header, _)| header.ether_type() == EtherType::IPV4);
    if !is_ipv4 {
        return true;
    }
    let packet = frame.get(ETHERNET..).unwrap_or_default();
    let words = packet.first().map_or(0, |first| first & 0xf);
    let header = packet.get(..usize::from(words) * 4);
    header.is_some_and(|header| words >= 5 && Sum::new().with(header).finish() == 0)
}

/// The header of a frame that is written without one, and how many bytes of it go. `head` are its first bytes, at most
/// [`HEAD`]; sums that are left to others are begun in it.
pub(super) fn header_of(head: &mut [u8], len: usize, leaves: Leaves) -> ([u8; HEADER], usize) {
    match unfinished::leave_of(head, len, leaves) {
        Some((offload, end)) => {
            let headers = offload
                .segmentation
                .and_then(|_| segment::Layout::find(head, len))
                .map_or(0, |layout| layout.payload);
            (offload.write(headers), end)
        }
        None => (Offload::NONE.write(0), len),
    }
}
