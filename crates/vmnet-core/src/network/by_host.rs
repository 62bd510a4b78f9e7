//! What goes round by the host, from one guest to another: where that is the gateway itself, it is a router for whoever asks.
//!
//! To an isolated guest it must not be one, nor for it. Between which guests a packet goes is plain where it is the isolated
//! one's, on its way to the host or from there: by its other address. Forwarded ports are at others, also those that lead back.

use core::net::IpAddr;

use vmnet_wire::ethernet::EtherType;
use vmnet_wire::{ipv4, ipv6};
use zerocopy::FromBytes;

use crate::network::Network;
use crate::outbox::PortId;

impl Network {
    /// It would reach another guest by way of the host, and is an isolated guest's.
    pub(super) fn would_go_round(
        &self,
        from: PortId,
        ether_type: EtherType,
        packet: &[u8],
    ) -> bool {
        self.is_isolated(from)
            && ends(ether_type, packet).is_some_and(|(_, to)| self.is_other_guest(to))
    }

    /// It comes from another guest by way of the host, and is kept from isolated ones.
    pub(super) fn has_gone_round(&self, ether_type: EtherType, packet: &[u8]) -> bool {
        self.some_isolated
            && ends(ether_type, packet).is_some_and(|(from, _)| self.is_other_guest(from))
    }

    fn is_other_guest(&self, address: IpAddr) -> bool {
        self.gateway
            .is_some_and(|gateway| gateway.is_here(address) && !gateway.is_own(address))
    }
}

/// From whom a packet is, and for whom.
fn ends(ether_type: EtherType, packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match ether_type {
        EtherType::IPV4 => {
            let (header, _) = ipv4::Header::ref_from_prefix(packet).ok()?;
            Some((header.source().into(), header.destination().into()))
        }
        EtherType::IPV6 => {
            let (header, _) = ipv6::Header::ref_from_prefix(packet).ok()?;
            Some((header.source().into(), header.destination().into()))
        }
        _ => None,
    }
}
