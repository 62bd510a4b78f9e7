//! What the sender of a frame left to others: the virtio-net header (virtio 1.2 §5.1.6).
//!
//! It is the one description of a frame's state from port to port; a tap and a ring carry it as
//! it stands, and [`crate::segment`] does the work for ports that take neither.

use crate::ethernet;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// The state of a frame's transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// In the frame; nobody has looked.
    #[default]
    Unverified,
    /// Known to be right.
    Valid,
    /// Known to be wrong.
    Wrong,
    /// Only the pseudo header's sum is in the frame.
    Partial {
        /// Where summing starts, in bytes from the start of the frame.
        start: u16,
        /// Where the sum belongs, in bytes from `start`.
        offset: u16,
    },
}

/// What a large frame is to be cut into.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// TCP segments over IPv4.
    Tcp4,
    /// TCP segments over IPv6.
    Tcp6,
    /// UDP datagrams.
    Udp,
}

/// How a large frame is to be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segmentation {
    /// Into what.
    pub kind: Kind,
    /// Payload bytes of each piece but the last.
    pub size: u16,
    /// The first segment carries CWR, which the others must not (RFC 3168).
    pub ecn: bool,
}

/// What the sender of a frame left to others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// The transport checksum.
    pub checksum: Checksum,
    /// The frame stands for several.
    pub segmentation: Option<Segmentation>,
}

/// The header was of a kind that nobody negotiated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnknownSegmentation(pub u8);

impl Offload {
    /// Nothing was left to others.
    pub const NONE: Self = Self {
        checksum: Checksum::Unverified,
        segmentation: None,
    };

    /// Everything is known to be right.
    pub const VALID: Self = Self {
        checksum: Checksum::Valid,
        segmentation: None,
    };

    /// Bytes of the header with its count of buffers (`VIRTIO_F_VERSION_1`).
    pub const HEADER_LEN: usize = 12;

    /// Reads a header of [`Self::HEADER_LEN`] bytes, little-endian.
    ///
    /// # Errors
    /// The kind of segmentation is not one of ours.
    #[inline]
    pub fn read(header: &[u8; Self::HEADER_LEN]) -> Result<Self, UnknownSegmentation> {
        let [
            flags,
            kind,
            _,
            _,
            size_low,
            size_high,
            start_low,
            start_high,
            offset_low,
            offset_high,
            _,
            _,
        ] = *header;
        let checksum = if flags & NEEDS_CSUM != 0 {
            Checksum::Partial {
                start: u16::from_le_bytes([start_low, start_high]),
                offset: u16::from_le_bytes([offset_low, offset_high]),
            }
        } else if flags & DATA_VALID != 0 {
            Checksum::Valid
        } else {
            Checksum::Unverified
        };
        let kind_of = match kind & !GSO_ECN {
            0 => None,
            GSO_TCPV4 => Some(Kind::Tcp4),
            GSO_TCPV6 => Some(Kind::Tcp6),
            GSO_UDP_L4 => Some(Kind::Udp),
            other => return Err(UnknownSegmentation(other)),
        };
        let size = u16::from_le_bytes([size_low, size_high]);
        let segmentation = match kind_of {
            Some(_) if size == 0 => return Err(UnknownSegmentation(kind)),
            Some(kind_of) => Some(Segmentation {
                kind: kind_of,
                size,
                ecn: kind & GSO_ECN != 0,
            }),
            None => None,
        };
        Ok(Self {
            checksum,
            segmentation,
        })
    }

    /// The header for a frame whose Ethernet, IP and transport headers have `headers` bytes.
    #[must_use]
    pub fn write(&self, headers: usize) -> [u8; Self::HEADER_LEN] {
        let mut bytes = [0; Self::HEADER_LEN];
        let [
            flags,
            kind,
            len_low,
            len_high,
            size_low,
            size_high,
            start_low,
            start_high,
            offset_low,
            offset_high,
            buffers,
            _,
        ] = &mut bytes;
        *buffers = 1;
        match self.checksum {
            Checksum::Partial { start, offset } => {
                *flags = NEEDS_CSUM;
                [*start_low, *start_high] = start.to_le_bytes();
                [*offset_low, *offset_high] = offset.to_le_bytes();
            }
            Checksum::Valid => *flags = DATA_VALID,
            Checksum::Unverified | Checksum::Wrong => {}
        }
        if let Some(segmentation) = self.segmentation {
            *kind = match segmentation.kind {
                Kind::Tcp4 => GSO_TCPV4,
                Kind::Tcp6 => GSO_TCPV6,
                Kind::Udp => GSO_UDP_L4,
            };
            if segmentation.ecn {
                *kind |= GSO_ECN;
            }
            [*size_low, *size_high] = segmentation.size.to_le_bytes();
            [*len_low, *len_high] = u16::try_from(headers).unwrap_or(0).to_le_bytes();
        }
        bytes
    }

    /// A partial checksum of a transport header that starts `transport` bytes into the frame.
    #[must_use]
    pub fn partial(transport: usize, offset: u16) -> Checksum {
        let start = u16::try_from(transport).unwrap_or(0);
        debug_assert!(
            usize::from(start) >= ethernet::Header::LEN,
            "behind Ethernet"
        );
        Checksum::Partial { start, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let segmentation = |kind| {
            Some(Segmentation {
                kind,
                size: 1460,
                ecn: kind == Kind::Tcp4,
            })
        };
        for checksum in [
            Checksum::Unverified,
            Checksum::Valid,
            Checksum::Partial {
                start: 34,
                offset: 16,
            },
        ] {
            for segmentation in [
                None,
                segmentation(Kind::Tcp4),
                segmentation(Kind::Tcp6),
                segmentation(Kind::Udp),
            ] {
                let offload = Offload {
                    checksum,
                    segmentation,
                };
                assert_eq!(Offload::read(&offload.write(54)), Ok(offload));
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: [u8; 12]) {
            if let Ok(offload) = Offload::read(&bytes) {
                prop_assert_eq!(Offload::read(&offload.write(54)), Ok(offload));
            }
        }
    }
}
