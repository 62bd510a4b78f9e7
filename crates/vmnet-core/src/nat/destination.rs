//! Where a guest's packet to the outside really goes, and which destinations never leave.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use vmnet_wire::ip::Protocol;

use crate::drop::Drop;
use crate::gateway::{dhcp, dhcp6};
use crate::link::Gateway;
use crate::nat::port_forward::Forwards;

/// The port of DNS.
pub(crate) const DNS: u16 = 53;

/// What the gateway's address means to guests.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostAccess {
    /// An address of the host that the outside can reach: services that listen on it are the gateway's.
    pub(crate) outside: Option<IpAddr>,
    /// The same by IPv6.
    pub(crate) outside6: Option<Ipv6Addr>,
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
    if gateway.is_own(to.ip()) {
        return at_gateway(to, protocol, host, forwards);
    }
    let has_ports = !matches!(protocol, Protocol::ICMPV4 | Protocol::ICMPV6);
    if never_leaves(to.ip(), gateway) || (to.port() == 0 && has_ports) {
        return Err(Drop::Destination);
    }
    if !gateway.has_way_out(to.ip()) {
        return Err(Drop::NoWayOut);
    }
    Ok(Destination {
        address: to,
        otherwise: None,
    })
}

fn at_gateway(
    to: SocketAddr,
    protocol: Protocol,
    host: &HostAccess,
    forwards: &Forwards,
) -> Result<Destination, Drop> {
    let (v6, port) = (to.is_ipv6(), to.port());
    let at = |address| SocketAddr::new(address, port);
    let outside = match (v6, host.outside6, host.outside) {
        (true, Some(address), _) => Some(at(IpAddr::V6(address))),
        // A connection may be of another family than the guest's; a mapping's socket is of the guest's.
        (true, None, outside) if protocol == Protocol::TCP => outside.map(at),
        (true, None, _) => None,
        (false, _, outside) => outside.map(at),
    };
    let loopback = at(loopback(v6));
    // A forwarded port is reached by way of its own listener (RFC 4787 §6, hairpin).
    if let Some(listener) = forwards.listener(protocol, port, v6) {
        return Ok(Destination {
            address: listener,
            otherwise: None,
        });
    }
    // What the gateway does not do for guests, the host does not do in its place.
    let dhcp = if v6 {
        dhcp6::SERVER_PORT
    } else {
        dhcp::SERVER_PORT
    };
    if port == DNS || (port == dhcp && protocol == Protocol::UDP) {
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

/// The host's loopback address of a family.
pub(crate) fn loopback(v6: bool) -> IpAddr {
    if v6 {
        IpAddr::V6(Ipv6Addr::LOCALHOST)
    } else {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
}

/// Loopback, multicast, broadcast, zero, reserved, and our own subnet, whose guests the switch
/// reaches without us.
pub(crate) fn never_leaves(address: IpAddr, gateway: &Gateway) -> bool {
    match address {
        IpAddr::V4(address) => {
            address.is_loopback()
                || address.is_multicast()
                || address.is_broadcast()
                || address.octets()[0] == 0
                || address.octets()[0] >= 240
                || gateway.is_here(IpAddr::V4(address))
        }
        // What begins with 16 bits of zero is zero, loopback, or an IPv4 address in disguise (RFC 4291 §2.5, RFC 6890).
        IpAddr::V6(address) => {
            matches!(address.segments(), [0, ..])
                || address.is_multicast()
                || address.is_unicast_link_local()
                || gateway.is_here(IpAddr::V6(address))
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
            "::7f00:1",
            "::ffff:0:0",
            "fe80::1",
            "fd00:0:0:64::7",
            "fd00:0:0:64::",
        ] {
            let to = SocketAddr::new(address.parse().unwrap(), 80);
            let host = HostAccess {
                loopback: true,
                ..HostAccess::default()
            };
            let found = resolve(to, Protocol::TCP, &gateway(), &host, &Forwards::default());
            assert_eq!(found, Err(Drop::Destination), "{address}");
        }
    }

    #[test]
    fn without_a_way_out_the_gateway_alone_is_reached() {
        let gateway = Gateway {
            nat44: false,
            nat66: false,
            ..gateway()
        };
        let host = HostAccess {
            outside: Some([10, 0, 0, 5].into()),
            outside6: Some("2001:db8::5".parse().unwrap()),
            loopback: false,
        };
        for (to, found) in [
            ("10.0.0.1:80", Err(Drop::NoWayOut)),
            ("10.0.0.5:80", Err(Drop::NoWayOut)),
            ("10.0.0.1:0", Err(Drop::Destination)),
            ("192.168.64.7:80", Err(Drop::Destination)),
            ("224.0.0.1:80", Err(Drop::Destination)),
            ("192.168.64.1:80", Ok("10.0.0.5:80".to_owned())),
            ("[2001:db8::1]:80", Err(Drop::NoWayOut)),
            ("[2001:db8::1]:0", Err(Drop::Destination)),
            ("[fd00:0:0:64::7]:80", Err(Drop::Destination)),
            ("[fd00:0:0:64::1]:80", Ok("[2001:db8::5]:80".to_owned())),
            (
                "[fe80::2:2ff:fe02:202]:80",
                Ok("[2001:db8::5]:80".to_owned()),
            ),
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
            outside6: Some("2001:db8::5".parse().unwrap()),
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
            for own in ["192.168.64.1", "fd00:0:0:64::1"] {
                // DHCPv6 has another port.
                let port = match (own.contains(':'), port) {
                    (true, 67) => 547,
                    (_, port) => port,
                };
                let to = SocketAddr::new(own.parse().unwrap(), port);
                let way = resolve(to, protocol, &gateway(), &host, &Forwards::default());
                assert_eq!(way == Err(Drop::NoService), closed, "{protocol:?} {to}");
            }
        }
    }

    #[test]
    fn what_the_gateway_stands_for() {
        let (v4, v6) = ("192.168.64.1:80", "[fd00:0:0:64::1]:80");
        let (out4, out6) = (Some("10.0.0.5"), Some("2001:db8::5"));
        let (tcp, udp) = (Protocol::TCP, Protocol::UDP);
        for (to, protocol, outside, outside6, loopback, found) in [
            (v4, tcp, None, out6, false, None),
            (v4, tcp, out4, None, false, Some(("10.0.0.5:80", None))),
            (
                v4,
                tcp,
                out4,
                out6,
                true,
                Some(("127.0.0.1:80", Some("10.0.0.5:80"))),
            ),
            (v6, tcp, None, None, false, None),
            (v6, tcp, out4, out6, false, Some(("[2001:db8::5]:80", None))),
            (v6, tcp, out4, None, false, Some(("10.0.0.5:80", None))),
            (v6, udp, out4, None, false, None),
            (v6, udp, out4, None, true, Some(("[::1]:80", None))),
            (
                v6,
                tcp,
                out4,
                out6,
                true,
                Some(("[::1]:80", Some("[2001:db8::5]:80"))),
            ),
        ] {
            let host = HostAccess {
                outside: outside.map(|a: &str| a.parse().unwrap()),
                outside6: outside6.map(|a: &str| a.parse().unwrap()),
                loopback,
            };
            let way = resolve(
                to.parse().unwrap(),
                protocol,
                &gateway(),
                &host,
                &Forwards::default(),
            );
            let way = way.map(|d| (d.address.to_string(), d.otherwise.map(|o| o.to_string())));
            let found = found.map(|(at, or)| (at.to_owned(), or.map(str::to_owned)));
            assert_eq!(way.ok(), found, "{to} {protocol:?}");
        }
    }
}
