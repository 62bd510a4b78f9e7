//! What is offered to a driver, and what its choice means (virtio 1.2 §5.1.3, §6).

use std::ops::BitOr;

use virtio_bindings::bindings::{virtio_config as config, virtio_net as net, virtio_ring as ring};
use vmnet_wire::offload::Kind;

use super::HEADER_MAX;

/// A set of feature bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Features(pub u64);

/// The VMM accepted what was not offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the VMM accepted features that were not offered: {0:#x}")]
pub struct NotOffered(pub u64);

impl Features {
    /// `VIRTIO_F_VERSION_1`.
    pub const VERSION_1: Self = Self::bit(config::VIRTIO_F_VERSION_1);
    /// `VIRTIO_F_ANY_LAYOUT`: the header may be in one buffer with the frame. Implied by version 1.
    pub const ANY_LAYOUT: Self = Self::bit(config::VIRTIO_F_ANY_LAYOUT);
    /// `VIRTIO_F_RING_PACKED`.
    pub const RING_PACKED: Self = Self::bit(config::VIRTIO_F_RING_PACKED);
    /// `VIRTIO_F_IN_ORDER`.
    pub const IN_ORDER: Self = Self::bit(config::VIRTIO_F_IN_ORDER);
    /// `VIRTIO_F_EVENT_IDX`.
    pub const EVENT_IDX: Self = Self::bit(ring::VIRTIO_RING_F_EVENT_IDX);
    /// `VIRTIO_F_INDIRECT_DESC`.
    pub const INDIRECT_DESC: Self = Self::bit(ring::VIRTIO_RING_F_INDIRECT_DESC);
    /// The driver may leave a checksum to us.
    pub const CSUM: Self = Self::bit(net::VIRTIO_NET_F_CSUM);
    /// We may leave a checksum to the driver.
    pub const GUEST_CSUM: Self = Self::bit(net::VIRTIO_NET_F_GUEST_CSUM);
    /// The driver may send large TCP segments over IPv4.
    pub const HOST_TSO4: Self = Self::bit(net::VIRTIO_NET_F_HOST_TSO4);
    /// The same over IPv6.
    pub const HOST_TSO6: Self = Self::bit(net::VIRTIO_NET_F_HOST_TSO6);
    /// The same with ECN.
    pub const HOST_ECN: Self = Self::bit(net::VIRTIO_NET_F_HOST_ECN);
    /// The driver may send UDP datagrams joined.
    pub const HOST_USO: Self = Self::bit(net::VIRTIO_NET_F_HOST_USO);
    /// The driver takes large TCP segments over IPv4.
    pub const GUEST_TSO4: Self = Self::bit(net::VIRTIO_NET_F_GUEST_TSO4);
    /// The same over IPv6.
    pub const GUEST_TSO6: Self = Self::bit(net::VIRTIO_NET_F_GUEST_TSO6);
    /// The same with ECN.
    pub const GUEST_ECN: Self = Self::bit(net::VIRTIO_NET_F_GUEST_ECN);
    /// The driver takes UDP datagrams over IPv4 joined.
    pub const GUEST_USO4: Self = Self::bit(net::VIRTIO_NET_F_GUEST_USO4);
    /// The same over IPv6.
    pub const GUEST_USO6: Self = Self::bit(net::VIRTIO_NET_F_GUEST_USO6);
    /// A received frame may be in several buffers.
    pub const MRG_RXBUF: Self = Self::bit(net::VIRTIO_NET_F_MRG_RXBUF);
    /// The configuration space, which the VMM has, tells an MTU.
    pub const MTU: Self = Self::bit(net::VIRTIO_NET_F_MTU);
    /// It tells a MAC address.
    pub const MAC: Self = Self::bit(net::VIRTIO_NET_F_MAC);
    /// There may be several pairs of rings.
    pub const MQ: Self = Self::bit(net::VIRTIO_NET_F_MQ);
    /// There is a control queue, served by the VMM: a driver needs it to use several pairs.
    pub const CTRL_VQ: Self = Self::bit(net::VIRTIO_NET_F_CTRL_VQ);

    /// All that rings and headers here support.
    pub const ALL: Self = Self(
        Self::VERSION_1.0
            | Self::ANY_LAYOUT.0
            | Self::RING_PACKED.0
            | Self::IN_ORDER.0
            | Self::EVENT_IDX.0
            | Self::INDIRECT_DESC.0
            | Self::CSUM.0
            | Self::GUEST_CSUM.0
            | Self::HOST_TSO4.0
            | Self::HOST_TSO6.0
            | Self::HOST_ECN.0
            | Self::HOST_USO.0
            | Self::GUEST_TSO4.0
            | Self::GUEST_TSO6.0
            | Self::GUEST_ECN.0
            | Self::GUEST_USO4.0
            | Self::GUEST_USO6.0
            | Self::MRG_RXBUF.0
            | Self::MTU.0
            | Self::MAC.0
            | Self::MQ.0
            | Self::CTRL_VQ.0,
    );

    const fn bit(number: u32) -> Self {
        Self(1 << number)
    }

    /// All of `other` are here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What was negotiated, when `self` was offered and the driver accepted `bits`.
    ///
    /// # Errors
    /// It accepted more than that.
    pub const fn accept(self, bits: u64) -> Result<Self, NotOffered> {
        match bits & !self.0 {
            0 => Ok(Self(bits)),
            more => Err(NotOffered(more)),
        }
    }

    /// Bytes of the header in front of each frame.
    #[must_use]
    pub const fn header_len(self) -> usize {
        if self.contains(Self::VERSION_1) || self.contains(Self::MRG_RXBUF) {
            HEADER_MAX
        } else {
            HEADER_MAX - 2
        }
    }

    /// The guest takes frames whose checksum is left to it.
    #[must_use]
    pub const fn takes_partial_checksums(self) -> bool {
        self.contains(Self::GUEST_CSUM)
    }

    /// The guest takes frames that stand for several of this kind. Not without [`Self::GUEST_CSUM`], whatever it
    /// said: such frames have partial checksums.
    #[must_use]
    pub const fn takes_large(self, kind: Kind, ecn: bool) -> bool {
        let kind_taken = match kind {
            Kind::Tcp4 => self.contains(Self::GUEST_TSO4),
            Kind::Tcp6 => self.contains(Self::GUEST_TSO6),
            // The header does not tell the family of a datagram.
            Kind::Udp => self.contains(Self::GUEST_USO4) && self.contains(Self::GUEST_USO6),
        };
        kind_taken && self.takes_partial_checksums() && (!ecn || self.contains(Self::GUEST_ECN))
    }
}

impl BitOr for Features {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_offered_is_accepted() {
        let offered = Features::ALL.without(Features::RING_PACKED);
        assert_eq!(offered.accept(offered.0), Ok(offered));
        assert_eq!(offered.accept(0), Ok(Features(0)));
        assert_eq!(offered.accept(1 << 34 | 1), Err(NotOffered(1 << 34)));
    }

    #[test]
    fn an_old_driver_has_a_short_header() {
        assert_eq!(Features(0).header_len(), 10);
        assert_eq!(Features::MRG_RXBUF.header_len(), 12);
        assert_eq!(Features::VERSION_1.header_len(), 12);
    }

    #[test]
    fn large_frames_need_partial_checksums() {
        let without = Features::GUEST_TSO4 | Features::GUEST_USO4;
        assert!(!without.takes_large(Kind::Tcp4, false));
        let with = without | Features::GUEST_CSUM;
        assert!(with.takes_large(Kind::Tcp4, false));
        assert!(!with.takes_large(Kind::Tcp4, true));
        assert!((with | Features::GUEST_ECN).takes_large(Kind::Tcp4, true));
        assert!(!with.takes_large(Kind::Tcp6, false));
        assert!(!with.takes_large(Kind::Udp, false), "of both families");
        assert!((with | Features::GUEST_USO6).takes_large(Kind::Udp, false));
    }
}
