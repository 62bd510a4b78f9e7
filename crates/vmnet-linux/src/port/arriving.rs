//! What a frame is that a guest sent over a socket: with a virtio-net header, with sums to be made, or whole.

use vmnet_core::Drop;
use vmnet_wire::ethernet::{self, Mac};
use vmnet_wire::offload::{Checksum, Offload};
use vmnet_wire::segment;
use vmnet_wire::unfinished::{self, Leaves};

use crate::lane::PortOffload;

/// What is known of the network that frames come to.
#[derive(Clone, Copy)]
pub(crate) struct Here {
    pub(crate) mtu: usize,
    pub(crate) gateways: [Mac; 2],
}

/// Finds the frame in what came, and what its sender left to us. Sums that the sender does not make are begun.
///
/// # Errors
/// Its header says what cannot be.
pub(crate) fn read(
    came: &mut [u8],
    agreed: PortOffload,
    here: Here,
) -> Result<(&[u8], Offload), Drop> {
    if agreed.virtio_header {
        let (header, frame) = came
            .split_first_chunk::<{ Offload::HEADER_LEN }>()
            .ok_or(Drop::Malformed)?;
        let said = Offload::read(header).map_err(|_| Drop::Malformed)?;
        if !unfinished::is_sound(frame, &said) {
            return Err(Drop::Malformed);
        }
        return Ok((frame, trusted(frame, said, &here.gateways)));
    }
    let leaves = Leaves {
        sums: agreed.checksum,
        cutting_to: agreed.tso.then_some(here.mtu),
    };
    if let Some((offload, end)) = unfinished::leave(came, leaves) {
        return Ok((came.get(..end).ok_or(Drop::Malformed)?, offload));
    }
    Ok((came, seen(came, &here.gateways)))
}

/// A guest's word that its own checksum is right is nothing.
fn trusted(frame: &[u8], said: Offload, gateways: &[Mac]) -> Offload {
    match said.checksum {
        Checksum::Partial { .. } => said,
        _ if said.segmentation.is_some() => Offload {
            checksum: Checksum::Unverified,
            ..said
        },
        _ => seen(frame, gateways),
    }
}

/// What is known of a frame about which nothing was said: the checksum of what we take ourselves.
fn seen(frame: &[u8], gateways: &[Mac]) -> Offload {
    let ours = ethernet::Header::read(frame)
        .is_some_and(|(header, _)| gateways.contains(&header.destination));
    let checksum = match ours {
        true if segment::verify(frame) => Checksum::Valid,
        true => Checksum::Wrong,
        false => Checksum::Unverified,
    };
    Offload {
        checksum,
        segmentation: None,
    }
}
