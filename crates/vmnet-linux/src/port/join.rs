//! TCP segments joined to a large frame, for those who take such from a sender that makes none ("generic receive
//! offload"): what [`segment::Cut`] does, backwards.
//!
//! Segments are joined only if cutting the large frame gives them back: one flow, gapless, all but the last of one
//! size, headers alike in everything else. What a segment says beyond that passes alone and in its place.

use vmnet_wire::ip::{self, Protocol};
use vmnet_wire::offload::{Checksum, Kind, Offload, Segmentation};
use vmnet_wire::segment::{self, Layout};
use vmnet_wire::{ipv4, ipv6, tcp};
use zerocopy::FromBytes;

/// The largest packet that a header can tell.
const PACKET_MAX: usize = 65_535;

/// What became of a frame that was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Offered {
    /// It is part of the large frame.
    Taken,
    /// It may be part of the next one: [`Joining::take`] this one, and offer it again.
    Later,
    /// It is none to join. It belongs behind what was taken: [`Joining::take`] that first.
    Not,
}

/// Segments on their way to be one frame. Its memory is used again for the next.
#[derive(Debug, Default)]
pub(crate) struct Joining {
    frame: Vec<u8>,
    pieces: u16,
    /// Where the headers stand; payload bytes of each piece but the last; what comes next.
    layout: Option<Layout>,
    size: usize,
    next: tcp::Seq,
    /// What the first one's sum is.
    checksum: Checksum,
    /// Nothing more belongs to it: the last was short, or was to be pushed.
    ended: bool,
}

/// A segment that may be joined to others.
struct Piece<'a> {
    layout: Layout,
    headers: &'a [u8],
    payload: &'a [u8],
    fields: tcp::Fields,
    checksum: Checksum,
}

impl Joining {
    /// Offers the next frame of a sender, and what is known of it.
    pub(crate) fn offer(&mut self, frame: &[u8], offload: Offload) -> Offered {
        let Some(piece) = Piece::read(frame, offload) else {
            return Offered::Not;
        };
        match self.layout {
            None => {
                self.frame.clear();
                self.frame.extend_from_slice(piece.headers);
                self.layout = Some(piece.layout);
                self.size = piece.payload.len();
                self.pieces = 0;
                self.checksum = piece.checksum;
            }
            Some(layout) if !self.continues(&layout, &piece) => return Offered::Later,
            Some(_) => {}
        }
        self.frame.extend_from_slice(piece.payload);
        self.pieces = self.pieces.saturating_add(1);
        let len = u32::try_from(piece.payload.len()).unwrap_or(0);
        self.next = piece.fields.sequence.advance(len);
        let pushed = piece.fields.flags.has(tcp::Flags::PSH);
        self.ended = pushed || piece.payload.len() < self.size;
        if pushed
            && self.pieces > 1
            && let Some(transport) = self.frame.get_mut(piece.layout.transport..)
        {
            set_flags(transport, piece.fields.flags);
        }
        Offered::Taken
    }

    /// Cutting the large frame would give this segment next.
    fn continues(&self, layout: &Layout, piece: &Piece<'_>) -> bool {
        let packet = self.frame.len().saturating_sub(layout.network);
        !self.ended
            && piece.fields.sequence == self.next
            && piece.payload.len() <= self.size
            && packet.saturating_add(piece.payload.len()) <= PACKET_MAX
            && piece.layout.network == layout.network
            && piece.layout.payload == layout.payload
            && piece.layout.transport == layout.transport
            && self.is_alike(layout, piece).unwrap_or(false)
    }

    /// The headers differ in nothing but lengths, sums and numbers that follow from their order.
    fn is_alike(&self, layout: &Layout, piece: &Piece<'_>) -> Option<bool> {
        let first = self.frame.get(..layout.payload)?;
        let before = layout.network;
        if first.get(..before)? != piece.headers.get(..before)? {
            return Some(false);
        }
        let (ours, theirs) = (first.get(before..)?, piece.headers.get(before..)?);
        let ip_alike = if layout.source.is_ipv4() {
            let (ours, _) = ipv4::Header::ref_from_prefix(ours).ok()?;
            let (theirs, _) = ipv4::Header::ref_from_prefix(theirs).ok()?;
            // Whoever forbids to cut need not number packets (RFC 6864 §4.1).
            let numbered =
                ours.dont_fragment() || theirs.id() == ours.id().wrapping_add(self.pieces);
            (ours.traffic_class, ours.ttl, ours.dont_fragment())
                == (theirs.traffic_class, theirs.ttl, theirs.dont_fragment())
                && (layout.source, layout.destination)
                    == (piece.layout.source, piece.layout.destination)
                && numbered
        } else {
            // All but the payload's length: class, label, hop limit and both addresses.
            ours.get(..4)? == theirs.get(..4)? && ours.get(6..40)? == theirs.get(6..40)?
        };
        let (ours, theirs) = (
            first.get(layout.transport..)?,
            piece.headers.get(layout.transport..)?,
        );
        let segment = tcp::Segment::read(ours)?;
        let begun = segment.fields;
        let options_alike = ours.get(tcp::Header::LEN..)? == theirs.get(tcp::Header::LEN..)?;
        Some(
            ip_alike
                && options_alike
                && (
                    begun.source_port,
                    begun.destination_port,
                    begun.acknowledgement,
                    begun.window,
                ) == (
                    piece.fields.source_port,
                    piece.fields.destination_port,
                    piece.fields.acknowledgement,
                    piece.fields.window,
                ),
        )
    }

    /// Nothing more can be joined to what was taken.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended && self.layout.is_some()
    }

    /// The frame that was taken, whole or as one that is to be cut, and what is left to do of it. The next one begins.
    pub(crate) fn take(&mut self) -> Option<(&[u8], Offload)> {
        let layout = self.layout.take()?;
        if self.pieces == 1 {
            let offload = Offload {
                checksum: self.checksum,
                segmentation: None,
            };
            return Some((&self.frame, offload));
        }
        let checksum = finish(&mut self.frame, &layout)?;
        let kind = if layout.source.is_ipv4() {
            Kind::Tcp4
        } else {
            Kind::Tcp6
        };
        let segmentation = Some(Segmentation {
            kind,
            size: u16::try_from(self.size).unwrap_or(u16::MAX),
            ecn: false,
        });
        Some((
            &self.frame,
            Offload {
                checksum,
                segmentation,
            },
        ))
    }
}

/// Makes the headers right for what is behind them now; TCP's checksum is left with its pseudo header's sum.
fn finish(frame: &mut [u8], layout: &Layout) -> Option<Checksum> {
    let packet = frame.get_mut(layout.network..)?;
    let transport_len = packet.len() - (layout.transport - layout.network);
    if layout.source.is_ipv4() {
        let (header, _) = ipv4::Header::ref_from_prefix(packet).ok()?;
        let (id, total) = (header.id(), packet.len());
        ipv4::rewrite(packet, total, id, ipv4::Fragment::default());
    } else {
        let (header, _) = ipv6::Header::mut_from_prefix(packet).ok()?;
        header.set_payload_len(transport_len);
    }
    let pseudo = ip::pseudo_header(
        layout.source,
        layout.destination,
        Protocol::TCP,
        transport_len,
    );
    let transport = frame.get_mut(layout.transport..)?;
    let (header, _) = tcp::Header::mut_from_prefix(transport).ok()?;
    header.set(header.sequence(), header.flags(), pseudo.folded());
    Some(Offload::partial(
        layout.transport,
        tcp::Header::CHECKSUM_OFFSET,
    ))
}

fn set_flags(transport: &mut [u8], flags: tcp::Flags) {
    if let Ok((header, _)) = tcp::Header::mut_from_prefix(transport) {
        header.set(header.sequence(), flags, 0);
    }
}

impl<'a> Piece<'a> {
    /// The segment in a frame, if it carries nothing but bytes: acknowledging, and at most pushing, with a right sum.
    fn read(frame: &'a [u8], offload: Offload) -> Option<Self> {
        if offload.segmentation.is_some() || offload.checksum == Checksum::Wrong {
            return None;
        }
        let layout = Layout::find(frame, frame.len())?;
        let ip = layout.transport - layout.network;
        let plain_ip = match layout.source.is_ipv4() {
            true => ip == ipv4::Header::LEN,
            false => ip == ipv6::Header::LEN,
        };
        if layout.protocol != Protocol::TCP || !plain_ip || layout.payload == layout.end {
            return None;
        }
        let segment = tcp::Segment::read(frame.get(layout.transport..)?)?;
        let flags = segment.fields.flags;
        if flags.without(tcp::Flags::PSH) != tcp::Flags::ACK {
            return None;
        }
        let checksum = match offload.checksum {
            Checksum::Unverified if segment::verify(frame) => Checksum::Valid,
            known => known,
        };
        let right = match checksum {
            Checksum::Valid => true,
            Checksum::Partial { start, offset } => {
                usize::from(start) == layout.transport && offset == tcp::Header::CHECKSUM_OFFSET
            }
            Checksum::Unverified | Checksum::Wrong => false,
        };
        right.then_some(Self {
            checksum,
            layout,
            headers: frame.get(..layout.payload)?,
            payload: frame.get(layout.payload..layout.end)?,
            fields: segment.fields,
        })
    }
}

#[cfg(test)]
mod tests;
