//! Neighbour discovery for the gateway's addresses (RFC 4861 §7.2), and what it tells of guests.
//!
//! Whoever probes one of our addresses before taking it hears that it is taken (RFC 4862 §5.4). Probes among guests pass.
//! Nothing is answered in the name of others.

use core::net::{IpAddr, Ipv6Addr};

use vmnet_wire::ethernet::{EtherType, Mac};
use vmnet_wire::ip::Protocol;
use vmnet_wire::ipv6;
use vmnet_wire::ndp::{self, Message, Neighbour};
use zerocopy::IntoBytes;

use crate::drop::Drop;
use crate::link::Link;

/// Every node of the link.
pub(crate) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A message of the guest at `mac` between `ends`, which may be for anyone: the switch forwards it too if it is to many.
/// Answers whether it was for the gateway. `by_trunk`: who asks for the gateway's addresses hears from the host itself.
///
/// # Errors
/// It says what cannot be.
pub(crate) fn receive(
    link: &mut Link<'_>,
    (mac, by_trunk): (Mac, bool),
    (source, to): (Ipv6Addr, Ipv6Addr),
    message: &Message<'_>,
) -> Result<bool, Drop> {
    let named = match message {
        Message::NeighbourAdvertisement { options, .. } => options.target(),
        _ => message.options().source(),
    };
    // A proxy's word is not believed.
    let own_word = named.is_none_or(|named| named == mac);
    match *message {
        Message::NeighbourSolicitation { target, options } if source.is_unspecified() => {
            if to != ndp::solicited_node(target) || options.source().is_some() {
                return Err(Drop::NeighbourDiscovery);
            }
            Ok(probed(link, (mac, by_trunk), target))
        }
        Message::NeighbourSolicitation { target, .. } => {
            if own_word {
                link.learn(IpAddr::V6(source), mac);
            }
            let ours = link.gateway.is_own(IpAddr::V6(target));
            if ours && !by_trunk {
                let flags = ndp::ROUTER | ndp::SOLICITED | ndp::OVERRIDE;
                advertise(link, mac, (mac, source), target, flags);
            }
            Ok(ours)
        }
        Message::NeighbourAdvertisement { target, flags, .. } => {
            let to_many = to.is_multicast();
            if to_many && flags & ndp::SOLICITED != 0 {
                return Err(Drop::NeighbourDiscovery);
            }
            if own_word && link.gateway.is_guest(IpAddr::V6(target)) {
                link.learn(IpAddr::V6(target), mac);
            }
            Ok(!to_many)
        }
        Message::RouterSolicitation { options } => {
            if source.is_unspecified() && options.source().is_some() {
                return Err(Drop::NeighbourDiscovery);
            }
            if own_word && !source.is_unspecified() {
                link.learn(IpAddr::V6(source), mac);
            }
            Ok(true)
        }
        // The switch lets none of these come here.
        Message::RouterAdvertisement { .. } => Err(Drop::RouterAdvertisement),
    }
}

/// A guest asks whether anybody has an address that it wants. Answers whether we have.
fn probed(link: &mut Link<'_>, (mac, by_trunk): (Mac, bool), target: Ipv6Addr) -> bool {
    let address = IpAddr::V6(target);
    if link.gateway.is_own(address) {
        if by_trunk {
            return true;
        }
        let everybody = (ndp::group_mac(ALL_NODES), ALL_NODES);
        advertise(link, mac, everybody, target, ndp::ROUTER | ndp::OVERRIDE);
        return true;
    }
    if link.gateway.is_guest(address) {
        link.neighbours
            .suggest(link.now, address, (mac, link.port_at(mac)));
    }
    false
}

/// Tells the guest at `at` that `own` is ours, in a packet to `to`.
fn advertise(link: &mut Link<'_>, at: Mac, (mac, to): (Mac, Ipv6Addr), own: Ipv6Addr, flags: u32) {
    let message = Neighbour::advertisement(flags, own, link.gateway.at()).between(own, to);
    send(link, at, (mac, own, to), message.as_bytes());
}

/// Sends a message to the guest at `at` alone, even if it is addressed to all.
pub(crate) fn send(
    link: &mut Link<'_>,
    at: Mac,
    (mac, source, to): (Mac, Ipv6Addr, Ipv6Addr),
    message: &[u8],
) {
    let ethernet = link.ethernet(mac, EtherType::IPV6);
    let header = ipv6::Header::new(source, to, Protocol::ICMPV6, ndp::HOP_LIMIT, message.len());
    link.send_at(at, &[ethernet.as_bytes(), header.as_bytes(), message]);
}
