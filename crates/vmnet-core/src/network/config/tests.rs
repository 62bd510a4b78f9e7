use super::*;

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 64, last)
}

fn ipv4(subnet: &str, gateway: u8) -> Ipv4 {
    Ipv4::with_gateway(subnet.parse().unwrap(), ip(gateway)).unwrap()
}

fn private() -> Config {
    Config {
        ipv4: None,
        gateway_mac: Mac([2; 6]),
        mtu: 1500,
        dhcp: None,
        dns: Dns::Off,
        resolvers_offered: Vec::new(),
        nat44: false,
        ipv6: None,
        nat66: false,
        router_advertisement: false,
        dhcp6: None,
        isolation: false,
        store_leases: false,
        domain: "vmnet.internal".to_owned(),
        host: None,
        host_loopback: false,
        flows_max: 100,
        seed: [0; 16],
    }
}

#[test]
fn pools_beside_the_gateway() {
    let hour = Duration::from_secs(3600);
    for (subnet, gateway, first, last) in [
        ("192.168.64.0/24", 1, 2, 254),
        ("192.168.64.0/24", 254, 1, 253),
        ("192.168.64.0/24", 100, 1, 254),
        ("192.168.64.0/30", 1, 2, 2),
        ("192.168.64.0/30", 2, 1, 1),
    ] {
        let ipv4 = ipv4(subnet, gateway);
        let whole = Dhcp::whole(&ipv4, hour);
        assert_eq!((whole.first, whole.last), (ip(first), ip(last)), "{ipv4:?}");
        for dhcp in [whole, Dhcp::reserved_only(&ipv4, hour)] {
            let config = Config {
                ipv4: Some(ipv4),
                dhcp: Some(dhcp),
                ..private()
            };
            let server = dhcp::Server::new(config.dhcp().unwrap());
            assert!(server.is_ok(), "{ipv4:?} {dhcp:?}");
        }
    }
}

#[test]
fn what_dhcp_says_of_resolvers_and_the_router() {
    let gateway = ip(1);
    let outside = Ipv4Addr::new(9, 9, 9, 9);
    for (dns, nat44, resolvers, router) in [
        (Dns::Proxy, true, vec![gateway], Some(gateway)),
        (Dns::Local, false, vec![gateway], None),
        (Dns::Off, true, vec![outside], Some(gateway)),
        (Dns::Off, false, vec![outside], None),
    ] {
        let ipv4 = ipv4("192.168.64.0/24", 1);
        let config = Config {
            ipv4: Some(ipv4),
            dhcp: Some(Dhcp::whole(&ipv4, Duration::from_secs(3600))),
            dns,
            nat44,
            resolvers_offered: vec![outside],
            ..private()
        };
        let dhcp = config.dhcp().unwrap();
        assert_eq!((dhcp.resolvers, dhcp.router), (resolvers, router));
        assert_eq!(config.dns().asks_outside, dns == Dns::Proxy);
    }
}

#[test]
fn services_without_an_address_are_refused() {
    assert_eq!(private().check(), Ok(()));
    type Change = fn(&mut Config);
    let faults: [(Change, ConfigError); 5] = [
        (|c| c.nat44 = true, ConfigError::NoAddress("NAT")),
        (|c| c.dns = Dns::Local, ConfigError::NoAddress("DNS")),
        (
            |c| c.dhcp = Some(Dhcp::whole(&ipv4("192.168.64.0/24", 1), Duration::MAX)),
            ConfigError::NoAddress("DHCP"),
        ),
        (|c| c.mtu = MTU_MIN - 1, ConfigError::Mtu(MTU_MIN - 1)),
        (|c| c.mtu = MTU_MAX + 1, ConfigError::Mtu(MTU_MAX + 1)),
    ];
    for (change, fault) in faults {
        let mut config = private();
        change(&mut config);
        assert_eq!(config.check(), Err(fault));
    }
    for mtu in [MTU_MIN, MTU_MAX] {
        assert_eq!(Config { mtu, ..private() }.check(), Ok(()));
    }
}
