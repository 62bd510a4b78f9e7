//! DHCPv6 (RFC 8415) at the gateway. Nothing answers yet.

use core::net::Ipv6Addr;

use vmnet_wire::ethernet::Mac;

use crate::gateway::services::Services;
use crate::link::Link;

/// The UDP port a server listens on (RFC 8415 §7.2).
pub(crate) const SERVER_PORT: u16 = 547;
/// The UDP port a client listens on.
pub(crate) const CLIENT_PORT: u16 = 546;
/// The group of servers and relay agents on a link (RFC 8415 §7.1).
pub(crate) const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A datagram that came to port 547.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "there is no server yet that reads them")]
pub(crate) struct Request<'a> {
    /// Who sent the frame.
    pub(crate) ethernet_source: Mac,
    /// Who sent the packet: an address of the link alone, or of the prefix.
    pub(crate) source: Ipv6Addr,
    /// From which port.
    pub(crate) port: u16,
    /// It was sent to an address of ours, and not to [`ALL_SERVERS`].
    pub(crate) to_one: bool,
    /// What UDP carried.
    pub(crate) payload: &'a [u8],
}

impl Services {
    /// A DHCPv6 message of a guest. Answers whether there is a server to take it.
    pub(crate) fn receive_dhcp6(&mut self, _link: &mut Link<'_>, _request: &Request<'_>) -> bool {
        false
    }
}
