//! Where a guest's packet to the outside really goes, and which destinations never leave.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use vmnet_wire::ip::Protocol;

use crate::drop::Drop;
use crate::gateway::dhcp;
use crate::link::Gateway;
use crate::nat::port_forward::Forwards;

/// The port of DNS.
pub(crate) const DNS: u16 = 53;

/// What the gateway's address means to guests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostAccess {
    /// An address of the host that the outside can reach: services that listen on it are the gateway's.
    pub(crate) outside: Option<IpAddr>,
    /// Services on the host's loopback are the gateway's too.
    pub(crate) loopback: bool,
}

/// Where a packet really goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Destination {
    pub(crate) address: SocketAddr,
    /// To be tried when nobody listens there.
    pub(crate) otherwise: Option<SocketAddr>,
}

/// Finds where a packet for `to` goes.
///
/// # Errors
/// It must not leave, or nothing answers there.
pub(crate) fn resolve(
    to: SocketAddr,
    protocol: Protocol,
    gateway: &Gateway,
    host: &HostAccess,
    forwards: &Forwards,
) -> Result<Destination, Drop> {
    if to.ip() == IpAddr::V4(gateway.address()) {
        return at_gateway(to.port(), protocol, host, forwards);
    }
    if never_leaves(to.ip(), gateway) || (to.port() == 0 && protocol != Protocol::ICMPV4) {
        return Err(Drop::Destination);
    }
    if !gateway.nat44 {
        return Err(Drop::NoWayOut);
    }
    Ok(Destination {
        address: to,
        otherwise: None,
    })
}

fn at_gateway(
    port: u16,
    protocol: Protocol,
    host: &HostAccess,
    forwards: &Forwards,
) -> Result<Destination, Drop> {
    let outside = host.outside.map(|address| SocketAddr::new(address, port));
    let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    // A forwarded port is reached by way of its own listener (RFC 4787 §6, hairpin).
    if let Some(listener) = forwards.listener(protocol, port) {
        return Ok(Destination {
            address: listener,
            otherwise: None,
        });
    }
    // What the gateway does not do for guests, the host does not do in its place.
    if port == DNS || (port == dhcp::SERVER_PORT && protocol == Protocol::UDP) {
        return Err(Drop::NoService);
    }
    if host.loopback {
        return Ok(Destination {
            address: loopback,
            otherwise: outside,
        });
    }
    outside
        .map(|address| Destination {
            address,
            otherwise: None,
        })
        .ok_or(Drop::NoService)
}

/// Loopback, multicast, broadcast, zero, reserved, and our own subnet, whose guests the switch
/// reaches without us.
fn never_leaves(address: IpAddr, gateway: &Gateway) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_multicast()
                || address.is_broadcast()
                || address.octets()[0] == 0
                || address.octets()[0] >= 240
                || gateway.ipv4.subnet().contains(address)
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_multicast()
                || address.is_unspecified()
                || address.is_unicast_link_local()
                || address.to_ipv4_mapped().is_some()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> Gateway {
        Gateway::shared("192.168.64.0/24")
    }

    #[test]
    fn what_never_leaves() {
        for address in [
            "127.0.0.1",
            "127.5.5.5",
            "224.0.0.251",
            "255.255.255.255",
            "192.168.64.255",
            "192.168.64.7",
            "0.0.0.0",
            "0.1.2.3",
            "240.0.0.1",
            "::1",
            "ff02::1",
            "::",
            "::ffff:127.0.0.1",
            "fe80::1",
        ] {
            let to = SocketAddr::new(address.parse().unwrap(), 80);
            let host = HostAccess {
                outside: None,
                loopback: true,
            };
            let found = resolve(to, Protocol::TCP, &gateway(), &host, &Forwards::default());
            assert_eq!(found, Err(Drop::Destination), "{address}");
        }
    }

    #[test]
    fn without_a_way_out_the_gateway_alone_is_reached() {
        let gateway = Gateway {
            nat44: false,
            ..gateway()
        };
        let host = HostAccess {
            outside: Some([10, 0, 0, 5].into()),
            loopback: false,
        };
        for (to, found) in [
            ("10.0.0.1:80", Err(Drop::NoWayOut)),
            ("10.0.0.5:80", Err(Drop::NoWayOut)),
            ("10.0.0.1:0", Err(Drop::Destination)),
            ("192.168.64.7:80", Err(Drop::Destination)),
            ("224.0.0.1:80", Err(Drop::Destination)),
            ("192.168.64.1:80", Ok("10.0.0.5:80".to_owned())),
        ] {
            let to = to.parse().unwrap();
            let forwards = Forwards::default();
            let way = resolve(to, Protocol::TCP, &gateway, &host, &forwards);
            assert_eq!(way.map(|way| way.address.to_string()), found, "{to}");
        }
    }

    #[test]
    fn services_of_the_gateway_are_not_the_hosts() {
        let host = HostAccess {
            outside: Some([10, 0, 0, 5].into()),
            loopback: true,
        };
        let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
        for (protocol, port, closed) in [
            (tcp, 53, true),
            (udp, 53, true),
            (udp, 67, true),
            (tcp, 67, false),
            (udp, 54, false),
        ] {
            let to = SocketAddr::new([192, 168, 64, 1].into(), port);
            let way = resolve(to, protocol, &gateway(), &host, &Forwards::default());
            assert_eq!(way == Err(Drop::NoService), closed, "{protocol:?} {port}");
        }
    }

    #[test]
    fn what_the_gateway_stands_for() {
        let to = "192.168.64.1:80".parse().unwrap();
        let at = |outside: Option<&str>, loopback| {
            let host = HostAccess {
                outside: outside.map(|a| a.parse().unwrap()),
                loopback,
            };
            resolve(to, Protocol::TCP, &gateway(), &host, &Forwards::default())
                .map(|d| (d.address.to_string(), d.otherwise.map(|o| o.to_string())))
        };
        assert_eq!(at(None, false), Err(Drop::NoService));
        assert_eq!(
            at(Some("10.0.0.5"), false),
            Ok(("10.0.0.5:80".into(), None))
        );
        assert_eq!(
            at(Some("10.0.0.5"), true),
            Ok(("127.0.0.1:80".into(), Some("10.0.0.5:80".into())))
        );
    }
}
