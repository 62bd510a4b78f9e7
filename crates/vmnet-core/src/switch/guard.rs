//! IPv6 packets that no guest may send to anybody: router advertisements and redirects (RFC 6105), what only a DHCPv6
//! server says (RFC 7610), and whatever is said in the gateway's name.
//!
//! Extension headers are walked, and what hides its upper header behind more of them than fit into the first fragment is
//! refused, as are fragments of neighbour discovery (RFC 7113, RFC 6980). Later fragments pass: without a first one they
//! are nothing, and no system takes overlapping ones (RFC 5722).

use core::net::IpAddr;

use vmnet_wire::ip::Protocol;
use vmnet_wire::ndp::{self, Message};
use vmnet_wire::{icmpv6, ipv6, udp};

use crate::drop::Drop;
use crate::gateway::dhcp6;
use crate::link::Gateway;

/// Refuses such a packet.
///
/// # Errors
/// Why it must not go on.
pub(crate) fn refuse(gateway: &Gateway, packet: &[u8]) -> Result<(), Drop> {
    let packet = match ipv6::Packet::read(packet, usize::MAX) {
        Ok(packet) => packet,
        Err(ipv6::Malformed::Chain) => return Err(Drop::HiddenHeaders),
        // No system takes it for a packet.
        Err(ipv6::Malformed::Short | ipv6::Malformed::Version) => return Err(Drop::Malformed),
    };
    if gateway.is_own(IpAddr::V6(packet.header.source())) {
        return Err(Drop::Spoofed);
    }
    if packet.fragment.is_some_and(|fragment| fragment.offset > 0) {
        return Ok(());
    }
    match packet.protocol {
        Protocol::ICMPV6 => match packet.payload.first() {
            Some(&icmpv6::ROUTER_ADVERTISEMENT) => Err(Drop::RouterAdvertisement),
            Some(&icmpv6::REDIRECT) => Err(Drop::Redirect),
            Some(kind) if ndp::is_ndp(*kind) => neighbours(gateway, &packet),
            Some(_) => Ok(()),
            None => Err(Drop::HiddenHeaders),
        },
        Protocol::UDP => match udp::Header::read(packet.payload) {
            Some((header, _)) if header.destination_port() == dhcp6::CLIENT_PORT => {
                Err(Drop::Dhcp6Server)
            }
            Some(_) => Ok(()),
            None => Err(Drop::HiddenHeaders),
        },
        _ => Ok(()),
    }
}

/// Certainly nothing that [`refuse`] refuses: TCP, or UDP that is for no DHCPv6 client, right behind the header.
#[inline]
pub(crate) fn is_harmless(gateway: &Gateway, packet: &[u8]) -> bool {
    let Some(header) = ipv6::Header::read(packet) else {
        return false;
    };
    if gateway.is_own(IpAddr::V6(header.source())) {
        return false;
    }
    match header.next_header() {
        Protocol::TCP => true,
        Protocol::UDP if header.payload_len() >= udp::Header::LEN => packet
            .get(ipv6::Header::LEN..)
            .and_then(udp::Header::read)
            .is_some_and(|(header, _)| header.destination_port() != dhcp6::CLIENT_PORT),
        _ => false,
    }
}

/// Nobody says that the gateway's address is elsewhere, or that another's is at the gateway's MAC.
fn neighbours(gateway: &Gateway, packet: &ipv6::Packet<'_>) -> Result<(), Drop> {
    if packet.fragment.is_some() {
        return Err(Drop::NeighbourDiscovery);
    }
    // Nobody takes what is malformed; and one that goes on beyond what is seen here could say anything.
    let message = Message::read(packet.payload).ok_or(Drop::NeighbourDiscovery)?;
    let claims = matches!(message, Message::NeighbourAdvertisement { target, .. }
        if gateway.is_own(IpAddr::V6(target)));
    let options = message.options();
    let named = |mac: Option<_>| mac.is_some_and(|mac| gateway.is_mac(mac));
    if claims || named(options.source()) || named(options.target()) {
        return Err(Drop::Spoofed);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
