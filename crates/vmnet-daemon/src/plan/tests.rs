//! What is decided, what is refused, and that a plan made of a plan's configuration is the same.

use super::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;
use vmnet_linux::kernel::route::Taken;
use vmnet_linux::lane::Subnet;

type Change = fn(&mut NetworkConfiguration);

fn asked(mode: Mode) -> NetworkConfiguration {
    NetworkConfiguration::new(mode)
}

fn with(change: impl FnOnce(&mut NetworkConfiguration)) -> NetworkConfiguration {
    let mut asked = asked(Mode::Shared);
    change(&mut asked);
    asked
}

fn make(asked: &NetworkConfiguration) -> Result<Plan, ServiceError> {
    Plan::make(asked, &Occupied::default())
}

#[track_caller]
fn refused(asked: &NetworkConfiguration, word: &str) {
    match make(asked) {
        Err(ServiceError::InvalidArgument { reason }) => {
            assert!(reason.contains(word), "{asked:?}: {reason}");
        }
        other => panic!("{asked:?}: {other:?}"),
    }
}

fn subnet(text: &str) -> Subnet {
    let (address, length) = text.split_once('/').unwrap();
    Subnet::new(address.parse().unwrap(), length.parse().unwrap()).unwrap()
}

fn taken(text: &str, interface: &str) -> Taken {
    let (network, prefix_len) = text.split_once('/').unwrap();
    Taken {
        network: network.parse().unwrap(),
        prefix_len: prefix_len.parse().unwrap(),
        interface: Some(interface.to_owned()),
        is_address: false,
    }
}

fn gateway(plan: &Plan) -> String {
    text::gateway_and_length(&plan.ipv4.unwrap())
}

#[test]
fn what_is_not_asked_for_has_a_default() {
    let shared = make(&asked(Mode::Shared)).unwrap();
    assert_eq!(gateway(&shared), "192.168.64.1/24");
    let pool = shared.dhcp.unwrap();
    assert_eq!(pool.first, Ipv4Addr::new(192, 168, 64, 2));
    assert_eq!(pool.last, Ipv4Addr::new(192, 168, 64, 254));
    assert_eq!((shared.mtu, shared.lease_seconds), (1500, 86_400));
    assert!(shared.dns_proxy && shared.nat44);
    assert!(!shared.isolation && !shared.host_loopback && !shared.private);
    assert_eq!(shared.domain, "vmnet.internal");
    let host = make(&asked(Mode::Host)).unwrap();
    assert_eq!(gateway(&host), "192.168.128.1/24");
    assert!(host.dns_proxy && host.dhcp.is_some() && !host.nat44);
    // A private switch has nothing, not even the host, unless a subnet is given.
    let mut private = asked(Mode::Host);
    private.private = Some(true);
    let switch = make(&private).unwrap();
    assert_eq!((switch.ipv4, switch.dhcp), (None, None));
    assert!(!switch.dns_proxy);
    private.subnet = Some("10.77.0.9/24".to_owned());
    let switch = make(&private).unwrap();
    assert_eq!(gateway(&switch), "10.77.0.9/24");
    assert_eq!(switch.dhcp, None);
}

#[test]
fn the_first_subnet_that_nobody_uses() {
    let mut occupied = Occupied {
        host: vec![
            taken("192.168.64.0/24", "eth0"),
            taken("192.168.66.128/25", "wg0"),
        ],
        networks: vec![("dev".to_owned(), subnet("192.168.65.0/24"))],
        ..Occupied::default()
    };
    let plan = Plan::make(&asked(Mode::Shared), &occupied).unwrap();
    assert_eq!(gateway(&plan), "192.168.67.1/24");
    occupied.host.push(taken("192.168.64.0/18", "tun0"));
    let error = Plan::make(&asked(Mode::Shared), &occupied).unwrap_err();
    assert!(matches!(error, ServiceError::InUse { .. }));
    for word in ["192.168.64.0", "192.168.127.0", "tun0", "10.77.0.0/24"] {
        assert!(error.reason().contains(word), "{error}");
    }
    let plan = Plan::make(&asked(Mode::Host), &occupied).unwrap();
    assert_eq!(gateway(&plan), "192.168.128.1/24");
}

#[test]
fn a_subnet_that_is_taken_is_refused_with_who_has_it() {
    let occupied = Occupied {
        host: vec![taken("10.0.0.0/9", "tun0")],
        networks: vec![("dev".to_owned(), subnet("172.30.4.0/22"))],
        ..Occupied::default()
    };
    for (subnet, word) in [
        ("10.77.0.0/24", "tun0"),
        ("10.77.0.5/30", "tun0"),
        ("172.30.7.0/24", "network dev"),
        ("172.30.0.0/16", "network dev"),
    ] {
        let asked = with(|asked| asked.subnet = Some(subnet.to_owned()));
        match Plan::make(&asked, &occupied) {
            Err(ServiceError::InUse { reason }) => assert!(reason.contains(word), "{reason}"),
            other => panic!("{subnet}: {other:?}"),
        }
    }
    let free = with(|asked| asked.subnet = Some("172.30.8.0/24".to_owned()));
    Plan::make(&free, &occupied).unwrap();
}

#[test]
fn both_forms_of_a_subnet() {
    for (text, expected) in [
        ("10.77.0.0/24", "10.77.0.1/24"),
        ("10.77.0.1/24", "10.77.0.1/24"),
        ("10.77.0.254/24", "10.77.0.254/24"),
        ("10.77.3.0/16", "10.77.3.0/16"),
        ("10.77.0.0/30", "10.77.0.1/30"),
        ("10.77.0.2/30", "10.77.0.2/30"),
    ] {
        let plan = make(&with(|asked| asked.subnet = Some(text.to_owned()))).unwrap();
        assert_eq!(gateway(&plan), expected, "{text}");
    }
    for (text, word) in [
        ("10.77.0.0", "ADDRESS/LENGTH"),
        ("10.77.0.0/", "ADDRESS/LENGTH"),
        ("10.77.0/24", "ADDRESS/LENGTH"),
        ("/24", "ADDRESS/LENGTH"),
        ("10.77.0.0/-1", "ADDRESS/LENGTH"),
        ("10.77.0.0/256", "ADDRESS/LENGTH"),
        ("10.77.0.0/33", "33"),
        ("10.77.0.0/31", "31"),
        ("0.0.0.0/0", "0"),
        ("10.77.0.255/24", "10.77.0.255"),
        ("fd00::/64", "ADDRESS/LENGTH"),
    ] {
        refused(&with(|asked| asked.subnet = Some(text.to_owned())), word);
    }
}

#[test]
fn what_cannot_be_together_is_refused() {
    let host = |change: fn(&mut NetworkConfiguration)| {
        let mut asked = asked(Mode::Host);
        change(&mut asked);
        asked
    };
    refused(&host(|asked| asked.nat44 = Some(true)), "NAT");
    refused(
        &host(|asked| asked.external_interface = Some("eth0".to_owned())),
        "external interface",
    );
    refused(&with(|asked| asked.private = Some(true)), "private");
    for change in [
        (|asked| asked.dhcp = Some(true)) as fn(&mut NetworkConfiguration),
        |asked| asked.dns_proxy = Some(true),
        |asked| asked.dhcp_first = Some("10.77.0.9".to_owned()),
    ] {
        let mut asked = host(|asked| {
            asked.private = Some(true);
            asked.subnet = Some("10.77.0.0/24".to_owned());
        });
        change(&mut asked);
        refused(&asked, "leave");
    }
    refused(
        &with(|asked| {
            asked.dhcp = Some(false);
            asked.dhcp_last = Some("192.168.64.9".to_owned());
        }),
        "DHCP",
    );
    for mtu in [0, 575, 65_521, u16::MAX] {
        refused(&with(|asked| asked.mtu = Some(mtu)), "576 to 65520");
    }
    for mtu in [576, 65_520] {
        make(&with(|asked| asked.mtu = Some(mtu))).unwrap();
    }
    refused(&with(|asked| asked.uuid = Some("x".to_owned())), "UUID");
    refused(
        &with(|asked| asked.dhcp_first = Some("x".to_owned())),
        "IPv4",
    );
    for resolver in ["x", "1.1.1.1:", "1.1.1.1:66000", "::1:53:x"] {
        refused(
            &with(|asked| asked.resolvers = Some(vec![resolver.to_owned()])),
            "resolver",
        );
    }
    let names = [
        "",
        "-a",
        ".a",
        "a b",
        "a/b",
        "ä",
        "2835e074-9892-4a79-affb-7e41d2605678",
    ];
    for name in names
        .map(str::to_owned)
        .into_iter()
        .chain([("a").repeat(33)])
    {
        refused(&with(|asked| asked.name = Some(name.clone())), &name);
    }
    for name in ["a", "A-b_c.d", "0", "x.y"].map(str::to_owned) {
        make(&with(|asked| asked.name = Some(name))).unwrap();
    }
}

#[test]
fn a_name_gives_the_same_uuid_each_time() {
    let dev = |_| {
        make(&with(|asked| asked.name = Some("dev".to_owned())))
            .unwrap()
            .uuid
    };
    assert_eq!(dev(1), dev(2));
    let other = make(&with(|asked| asked.name = Some("other".to_owned()))).unwrap();
    assert_ne!(other.uuid, dev(3));
    let nameless = |_| make(&asked(Mode::Shared)).unwrap().uuid;
    assert_ne!(nameless(1), nameless(2));
}

#[test]
fn a_network_fits_what_it_is_and_nothing_else() {
    let plan = make(&with(|asked| {
        asked.name = Some("dev".to_owned());
        asked.subnet = Some("10.77.0.0/24".to_owned());
        asked.resolvers = Some(vec!["1.1.1.1".to_owned()]);
    }))
    .unwrap();
    plan.fits(&asked(Mode::Shared)).unwrap();
    plan.fits(&plan.configuration()).unwrap();
    for change in [
        (|asked| asked.subnet = Some("10.77.0.1/24".to_owned())) as fn(&mut NetworkConfiguration),
        |asked| asked.resolvers = Some(vec!["1.1.1.1:53".to_owned()]),
        |asked| asked.uuid = asked.uuid.as_deref().map(str::to_uppercase),
    ] {
        let mut asked = plan.configuration();
        change(&mut asked);
        plan.fits(&asked).unwrap();
    }
    let different: [(&str, Change); 19] = [
        ("mode", |asked| asked.mode = Mode::Host),
        ("name", |asked| asked.name = Some("other".to_owned())),
        ("UUID", |asked| asked.uuid = Some(Uuid::nil().to_string())),
        ("subnet", |asked| {
            asked.subnet = Some("10.77.0.2/24".to_owned())
        }),
        ("DHCP range", |asked| {
            asked.dhcp_first = Some("10.77.0.9".to_owned())
        }),
        ("DHCP range", |asked| {
            asked.dhcp_last = Some("10.77.0.9".to_owned())
        }),
        ("MTU", |asked| asked.mtu = Some(9000)),
        ("DHCP", |asked| asked.dhcp = Some(false)),
        ("DNS proxy", |asked| asked.dns_proxy = Some(false)),
        ("NAT of IPv4", |asked| asked.nat44 = Some(false)),
        ("IPv6", |asked| asked.ipv6 = Some(false)),
        ("IPv6 prefix", |asked| {
            asked.ipv6_prefix = Some("fd00::/64".to_owned());
        }),
        ("NAT of IPv6", |asked| asked.nat66 = Some(false)),
        ("router advertisements", |asked| {
            asked.router_advertisement = Some(false);
        }),
        ("DHCPv6", |asked| asked.dhcp6 = Some(false)),
        ("domain", |asked| asked.domain = Some("other".to_owned())),
        ("resolvers", |asked| asked.resolvers = Some(Vec::new())),
        ("lease time", |asked| asked.lease_seconds = Some(61)),
        ("isolation", |asked| asked.isolation = Some(true)),
    ];
    for (what, change) in different {
        let mut asked = asked(Mode::Shared);
        change(&mut asked);
        match plan.fits(&asked) {
            Err(ServiceError::Exists { reason }) => {
                assert!(reason.contains(&format!("differs in: {what};")), "{reason}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn a_pool_asked_of_a_network_without_dhcp_is_another_network() {
    let plan = make(&with(|asked| asked.dhcp = Some(false))).unwrap();
    let asked = with(|asked| asked.dhcp_first = Some("192.168.64.9".to_owned()));
    assert!(
        plan.fits(&asked)
            .unwrap_err()
            .reason()
            .contains("DHCP range")
    );
}

#[test]
fn ipv6_is_on_with_a_prefix_that_stays() {
    let named = |name: &str| with(|asked| asked.name = Some(name.to_owned()));
    let shared = make(&named("dev")).unwrap();
    let prefix = shared.ipv6.unwrap();
    assert_eq!(prefix, make(&named("dev")).unwrap().ipv6.unwrap());
    assert_ne!(prefix, make(&named("other")).unwrap().ipv6.unwrap());
    assert!(shared.nat66 && shared.router_advertisement && shared.dhcp6);
    // Written down and read again it is the same, also by a service that knows another machine.
    assert_eq!(shared.configuration().ipv6_prefix, Some(prefix.to_string()));
    let host = make(&asked(Mode::Host)).unwrap();
    assert!(host.ipv6.is_some() && !host.nat66 && host.router_advertisement && host.dhcp6);
    let off = make(&with(|asked| asked.ipv6 = Some(false))).unwrap();
    assert_eq!(off.ipv6, None);
    assert!(!off.nat66 && !off.router_advertisement && !off.dhcp6);
    // A private switch has what it is given, and serves nothing.
    let mut private = asked(Mode::Host);
    private.private = Some(true);
    assert_eq!(make(&private).unwrap().ipv6, None);
    private.ipv6_prefix = Some("fd12::1".to_owned());
    let private = make(&private).unwrap();
    assert_eq!(private.ipv6.unwrap().to_string(), "fd12::/64");
    assert!(!private.nat66 && !private.router_advertisement && !private.dhcp6);
}

#[test]
fn which_prefixes_can_be() {
    let prefix = |text: &str| with(|asked| asked.ipv6_prefix = Some(text.to_owned()));
    // Clients of vmnet give the first host's address, too.
    for text in [
        "fd12:0:0:1::",
        "fd12:0:0:1::/64",
        "fd12:0:0:1::1",
        "fd12:0:0:1::1/64",
    ] {
        let plan = make(&prefix(text)).unwrap();
        assert_eq!(plan.ipv6.unwrap().to_string(), "fd12:0:0:1::/64", "{text}");
        plan.fits(&prefix(text)).unwrap();
    }
    for (text, word) in [
        ("fd12::/48", "length is 48"),
        ("fd12::/65", "length is 65"),
        ("fc00::/64", "fd00::/8"),
        ("2001:db8::/64", "fd00::/8"),
        ("fe80::/64", "fd00::/8"),
        ("::", "fd00::/8"),
        ("10.77.0.0/24", "ADDRESS/64"),
        ("fd12::/x", "ADDRESS/64"),
        ("fd12", "ADDRESS/64"),
    ] {
        refused(&prefix(text), word);
    }
}

#[test]
fn ipv6_that_cannot_be_is_refused() {
    refused(
        &with(|asked| {
            asked.ipv6 = Some(false);
            asked.ipv6_prefix = Some("fd12::/64".to_owned());
        }),
        "prefix",
    );
    for change in [
        (|asked| asked.nat66 = Some(true)) as Change,
        |asked| asked.router_advertisement = Some(true),
        |asked| asked.dhcp6 = Some(true),
    ] {
        let mut without = with(|asked| asked.ipv6 = Some(false));
        change(&mut without);
        refused(&without, "IPv6");
        let mut private = asked(Mode::Host);
        (private.private, private.ipv6_prefix) = (Some(true), Some("fd12::/64".to_owned()));
        change(&mut private);
        match make(&private) {
            Err(ServiceError::InvalidArgument { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let mut private = asked(Mode::Host);
    (private.private, private.ipv6) = (Some(true), Some(true));
    refused(&private, "prefix");
    // RFC 8200 §5.
    for change in [
        (|asked| asked.ipv6 = Some(true)) as Change,
        |asked| asked.ipv6_prefix = Some("fd12::/64".to_owned()),
        |asked| asked.nat66 = Some(true),
    ] {
        let mut small = with(|asked| asked.mtu = Some(1279));
        assert_eq!(make(&small).unwrap().ipv6, None);
        change(&mut small);
        refused(&small, "IPv6");
        small.mtu = Some(1280);
        assert!(make(&small).unwrap().ipv6.is_some());
    }
}

#[test]
fn a_prefix_of_the_host_or_of_another_network_is_passed_over() {
    let asked = with(|asked| asked.name = Some("dev".to_owned()));
    let own = make(&asked).unwrap().ipv6.unwrap();
    let mut occupied = Occupied {
        prefixes: vec![("other".to_owned(), own)],
        ..Occupied::default()
    };
    let second = Plan::make(&asked, &occupied).unwrap().ipv6.unwrap();
    assert_ne!(second, own);
    occupied.host = vec![taken(&second.to_string(), "wg0")];
    let third = Plan::make(&asked, &occupied).unwrap().ipv6.unwrap();
    assert!(third != own && third != second);
    for (prefix, user) in [(own, "network other"), (second, "wg0")] {
        let asked = with(|asked| asked.ipv6_prefix = Some(prefix.to_string()));
        match Plan::make(&asked, &occupied) {
            Err(ServiceError::InUse { reason }) => assert!(reason.contains(user), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_was_written_down_before_there_was_ipv6_is_still_read() {
    let old = r#"{"mode":"shared","name":"dev","uuid":"2f1f4c83-5a0c-4a3b-8d5c-6a1b6f7c2d11",
        "subnet":"10.77.0.1/24","dhcp_first":"10.77.0.2","dhcp_last":"10.77.0.254","mtu":1500,"dhcp":true,
        "dns_proxy":true,"nat44":true,"domain":"vmnet.internal","lease_seconds":86400,"isolation":false,
        "host_loopback":false,"private":false}"#;
    let old: NetworkConfiguration = serde_json::from_str(old).unwrap();
    let plan = make(&old).unwrap();
    assert!(plan.nat66 && plan.ipv6.is_some());
    plan.fits(&old).unwrap();
    assert_eq!(make(&old).unwrap(), plan);
}

prop_compose! {
    fn any_configuration()(
        shared in any::<bool>(),
        name in proptest::option::of("[a-zA-Z0-9][a-zA-Z0-9._-]{0,31}"),
        subnet in proptest::option::of((any::<u32>(), 8_u8..=30)),
        mtu in proptest::option::of(576_u16..=65_520),
        prefix in proptest::option::of((any::<[u8; 7]>(), any::<u64>())),
        switches in proptest::array::uniform10(proptest::option::of(any::<bool>())),
        resolvers in proptest::option::of(proptest::collection::vec((any::<std::net::IpAddr>(), 1_u16..), 0..3)),
        lease_seconds in proptest::option::of(60_u32..=100_000),
    ) -> NetworkConfiguration {
        let [dhcp, dns_proxy, nat44, isolation, host_loopback, private, ipv6, nat66, ra, dhcp6] = switches;
        let mut asked = NetworkConfiguration::new(if shared { Mode::Shared } else { Mode::Host });
        asked.name = name;
        asked.subnet = subnet.map(|(address, length)| format!("{}/{length}", Ipv4Addr::from_bits(address)));
        asked.resolvers = resolvers.map(|all| {
            all.into_iter().map(|(address, port)| SocketAddr::new(address, port).to_string()).collect()
        });
        (asked.mtu, asked.lease_seconds) = (mtu, lease_seconds);
        (asked.dhcp, asked.dns_proxy, asked.nat44) = (dhcp, dns_proxy, nat44);
        (asked.ipv6, asked.nat66, asked.router_advertisement, asked.dhcp6) = (ipv6, nat66, ra, dhcp6);
        asked.ipv6_prefix = prefix.map(|(bits, host)| Prefix::random(bits).host(host).to_string());
        (asked.isolation, asked.host_loopback, asked.private) = (isolation, host_loopback, private);
        asked
    }
}

proptest! {
    #[test]
    fn the_configuration_of_a_plan_makes_it_again(asked in any_configuration()) {
        if let Ok(plan) = make(&asked) {
            let again = make(&plan.configuration()).unwrap();
            prop_assert_eq!(&again, &plan);
            prop_assert!(plan.fits(&plan.configuration()).is_ok());
            prop_assert!(plan.fits(&asked).is_ok());
            let text = serde_json::to_string(&plan.configuration()).unwrap();
            let read: NetworkConfiguration = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read, plan.configuration());
        }
    }
}

#[test]
fn the_host_is_on_private_subnets_alone() {
    let kernel = Occupied {
        kernel: true,
        ..Occupied::default()
    };
    let at = |subnet: &str, change: Change| {
        let mut asked = with(|asked| asked.subnet = Some(subnet.to_owned()));
        change(&mut asked);
        asked
    };
    let public = [
        "8.8.8.0/24",
        "172.32.0.0/16",
        "203.0.113.1/24",
        "192.0.0.0/16",
    ];
    for subnet in public {
        match Plan::make(&at(subnet, |_| {}), &kernel) {
            Err(ServiceError::InvalidArgument { reason }) => {
                assert!(reason.contains("no private subnet"), "{reason}");
            }
            other => panic!("{subnet}: {other:?}"),
        }
        refused(
            &at(subnet, |it| it.datapath = Some(Datapath::Kernel)),
            "private",
        );
        // Where the host has no address there, nothing is lost.
        let user = at(subnet, |it| it.datapath = Some(Datapath::User));
        assert!(Plan::make(&user, &kernel).is_ok(), "{subnet}");
        make(&at(subnet, |_| {})).unwrap();
    }
    for subnet in [
        "10.77.0.0/16",
        "172.31.255.0/24",
        "192.168.7.9/24",
        "100.64.0.0/24",
    ] {
        let plan = Plan::make(&at(subnet, |_| {}), &kernel).unwrap();
        assert_eq!(plan.datapath, Datapath::Kernel, "{subnet}");
    }
}
