//! ARP for the gateway's address (RFC 826), with RFC 5227 probes and announcements understood.

use core::net::IpAddr;
use vmnet_wire::arp::{Operation, Packet};
use vmnet_wire::ethernet::{EtherType, Mac};
use zerocopy::IntoBytes;

use crate::link::Link;

/// An ARP packet of a guest, which may be for anyone: the switch forwards it too. Answers whether it was for the gateway.
/// `by_trunk`: who asks hears from the host itself.
pub(crate) fn receive(
    link: &mut Link<'_>,
    ethernet_source: Mac,
    packet: &Packet,
    by_trunk: bool,
) -> bool {
    let gateway = link.gateway;
    let Some(own) = gateway.v4() else {
        return false;
    };
    // A probe (RFC 5227) has no sender address, and a proxy's answer is not believed.
    if gateway.is_guest(IpAddr::V4(packet.sender())) && packet.sender_mac() == ethernet_source {
        link.learn(IpAddr::V4(packet.sender()), ethernet_source);
    }
    let ours = packet.target() == own;
    // What the host asked for is for the host to hear.
    let ours = ours && (gateway.host.is_none() || packet.operation() == Operation::Request);
    if ours && !by_trunk && packet.operation() == Operation::Request {
        let ethernet = link.ethernet(ethernet_source, EtherType::ARP);
        let reply = Packet::reply(gateway.at(), own, packet.sender_mac(), packet.sender());
        link.send(ethernet_source, &[ethernet.as_bytes(), reply.as_bytes()]);
    }
    ours
}
