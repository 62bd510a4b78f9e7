use super::*;
use proptest::prelude::*;
use uuid::Uuid;
use vmnet_linux::kernel::nft::{Inet, Inet6, PortForward};
use vmnet_linux::kernel::nics::NicKind;

/// A kernel that has these links and addresses.
struct Has(Vec<Link>, Vec<Address>);

impl Kernel for Has {
    fn link(&self, name: &str) -> Result<Option<Link>, Refusal> {
        Ok(self.0.iter().find(|link| link.name == name).cloned())
    }

    fn nic(&self, name: &str) -> Result<Option<Nic>, Refusal> {
        Ok((name == "eth0").then(card))
    }

    fn addresses(&self) -> Result<Vec<Address>, Refusal> {
        Ok(self.1.clone())
    }

    fn links(&self) -> Result<Vec<Link>, Refusal> {
        Ok(self.0.clone())
    }
}

fn link(index: u32, name: &str, alias: Option<String>, kind: Option<&str>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        alias,
        kind: kind.map(str::to_owned),
        master: None,
        lower: None,
        mac: None,
        mtu: 1500,
        up: false,
        loopback: false,
        isolated: false,
        bridged_pass: false,
    }
}

fn card() -> Nic {
    Nic {
        index: 5,
        name: "eth0".to_owned(),
        kind: NicKind::Ethernet,
        mac: [2, 0, 0, 0, 0, 5],
        mtu: 1500,
        up: true,
        bridge: None,
        member_of: None,
    }
}

fn mark() -> Mark {
    Mark {
        network: Uuid::from_u128(7),
        role: "bridge".parse().unwrap(),
    }
}

/// Ours: 1 is a bridge, 2 a tap. Others': 3 is called as ours are, 4 says of itself almost what ours do, 5 is a card.
fn host() -> Has {
    let own = || Some(mark().to_string());
    let links = vec![
        link(1, "vmnet0", own(), Some("bridge")),
        link(2, "vmnet0-gw", own(), Some("tun")),
        link(3, "vmnet8", None, Some("tun")),
        link(
            4,
            "vmnet9",
            Some("openvmnet of mine".to_owned()),
            Some("tun"),
        ),
        link(5, "eth0", None, None),
    ];
    let addresses = [
        (1, "192.168.64.1", 24),
        (1, "fd00:0:0:64::1", 64),
        (1, "fe80::1", 64),
        (3, "172.16.8.1", 24),
        (5, "10.0.0.7", 24),
        (5, "fd77::7", 64),
        (5, "fe80::7", 64),
    ];
    let addresses = addresses.map(|(link, address, prefix_len)| Address {
        link,
        address: address.parse().unwrap(),
        prefix_len,
    });
    Has(links, addresses.into())
}

fn why(request: Request) -> Option<Why> {
    check(request, &host()).err().map(|refusal| refusal.why)
}

#[test]
fn only_what_is_ours_is_deleted() {
    let delete = |name: &str| {
        let name = name.parse().unwrap();
        check(Request::LinkDelete { name }, &host())
    };
    assert_eq!(delete("vmnet0"), Ok(Permitted::LinkDelete(Some(1))));
    assert_eq!(delete("vmnet1"), Ok(Permitted::LinkDelete(None)));
    for foreign in ["vmnet8", "vmnet9"] {
        assert_eq!(
            delete(foreign).unwrap_err().why,
            Why::Forbidden,
            "{foreign}"
        );
    }
}

#[test]
fn taps_are_opened_if_they_are_ours_and_made_under_free_names() {
    let open = |name: &str| {
        let name = name.parse().unwrap();
        why(Request::TapOpen { name })
    };
    assert_eq!(open("vmnet0-gw"), None);
    assert_eq!(open("vmnet0"), Some(Why::Forbidden), "a bridge");
    assert_eq!(open("vmnet8"), Some(Why::Forbidden));
    assert_eq!(open("vmnet1"), Some(Why::Missing));
    let create = |name: &str| {
        why(Request::TapCreate {
            name: name.parse().unwrap(),
            mark: mark(),
            stays: true,
        })
    };
    assert_eq!(create("vmnet1"), None);
    for taken in ["vmnet0", "vmnet8"] {
        assert_eq!(create(taken), Some(Why::InUse), "{taken}");
    }
}

#[test]
fn bridges_get_private_addresses_that_nobody_else_is_at() {
    let establish = |name: &str, addresses: &[(&str, u8)]| {
        let addresses = addresses.iter();
        why(Request::BridgeEstablish {
            name: name.parse().unwrap(),
            mark: mark(),
            bridge: Bridge {
                mac: [2, 0, 0, 0, 0, 1],
                mtu: 1500,
                addresses: addresses
                    .map(|(address, length)| (address.parse().unwrap(), *length))
                    .collect(),
                forwards: true,
            },
        })
    };
    for good in [
        &[][..],
        &[
            ("192.168.70.1", 24),
            ("fd00:0:0:70::1", 64),
            ("fe80::70", 64),
        ],
        &[("10.200.0.1", 16)],
        &[("172.31.0.1", 30)],
        &[("100.64.0.1", 24)],
    ] {
        assert_eq!(establish("vmnet1", good), None, "{good:?}");
    }
    for bad in [
        ("8.8.8.1", 24),
        ("8.0.0.1", 8),
        ("10.0.0.1", 8),
        ("172.32.0.1", 24),
        ("192.168.0.1", 15),
        ("100.128.0.1", 24),
        ("127.0.0.1", 24),
        ("169.254.0.1", 16),
        ("224.0.0.1", 24),
        ("192.168.70.1", 31),
        ("192.168.70.1", 0),
        ("2001:db8::1", 64),
        ("fd00:0:0:70::1", 48),
        ("::1", 64),
    ] {
        assert_eq!(establish("vmnet1", &[bad]), Some(Why::Forbidden), "{bad:?}");
    }
    let two = [("192.168.70.1", 24), ("192.168.71.1", 24)];
    assert_eq!(establish("vmnet1", &two), Some(Why::Forbidden));
    // A card's network, one that holds it, one in it; and somebody else's that is called as ours are.
    for taken in [
        ("10.0.0.1", 24),
        ("10.0.7.1", 16),
        ("10.0.0.5", 30),
        ("172.16.8.9", 24),
        ("fd77::1", 64),
    ] {
        assert_eq!(establish("vmnet1", &[taken]), Some(Why::InUse), "{taken:?}");
    }
    // What it has it keeps, whatever came since.
    assert_eq!(establish("vmnet0", &[("192.168.64.1", 24)]), None);
    let mut host = host();
    host.1.push(Address {
        link: 5,
        address: "192.168.64.9".parse().unwrap(),
        prefix_len: 24,
    });
    let again = |name: &str| {
        let (name, mark) = (name.parse().unwrap(), mark());
        let bridge = Bridge {
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            addresses: vec![("192.168.64.1".parse().unwrap(), 24)],
            forwards: true,
        };
        check(Request::BridgeEstablish { name, mark, bridge }, &host).is_ok()
    };
    assert!(again("vmnet0") && !again("vmnet1"));
}

#[test]
fn rules_are_about_the_addresses_that_the_bridge_has() {
    let set = |change: &dyn Fn(&mut Rules)| {
        let mut rules = rules("vmnet0", "vmnet0-gw");
        rules.ipv4 = Some(Inet {
            network: [192, 168, 64, 0].into(),
            prefix_len: 24,
            gateway: [192, 168, 64, 1].into(),
            nat: true,
        });
        rules.ipv6 = Some(Inet6 {
            network: "fd00:0:0:64::".parse().unwrap(),
            gateway: "fd00:0:0:64::1".parse().unwrap(),
            link_local: "fe80::1".parse().unwrap(),
            nat: true,
        });
        change(&mut rules);
        let rules = Box::new(rules);
        why(Request::RulesSet { rules })
    };
    let to = |guest: &str| PortForward {
        tcp: false,
        address: Some([8, 8, 8, 8].into()),
        port: 53,
        guest: guest.parse().unwrap(),
        guest_port: 53,
    };
    assert_eq!(set(&|_| {}), None);
    assert_eq!(set(&|it| (it.ipv4, it.ipv6) = (None, None)), None);
    for guest in ["192.168.64.9", "fd00:0:0:64::9"] {
        assert_eq!(set(&|it| it.forwards.push(to(guest))), None, "{guest}");
    }
    assert_eq!(set(&|it| it.others.push("vmnet0".to_owned())), None);
    let strange: [&dyn Fn(&mut Rules); 12] = [
        &|it| it.others.push("eth0".to_owned()),
        &|it| it.others.push("vmnet8".to_owned()),
        &|it| it.others.push("vmnet*".to_owned()),
        &|it| it.ipv4.as_mut().unwrap().prefix_len = 0,
        &|it| it.ipv4.as_mut().unwrap().prefix_len = 25,
        &|it| it.ipv4.as_mut().unwrap().network = [10, 0, 0, 0].into(),
        // Somebody else's.
        &|it| {
            let net = it.ipv4.as_mut().unwrap();
            (net.network, net.gateway) = ([10, 0, 0, 0].into(), [10, 0, 0, 7].into());
        },
        &|it| it.ipv6.as_mut().unwrap().network = "2001:db8::".parse().unwrap(),
        &|it| it.ipv6.as_mut().unwrap().gateway = "fd77::7".parse().unwrap(),
        &|it| it.ipv6.as_mut().unwrap().link_local = "fe80::7".parse().unwrap(),
        &|it| it.forwards.push(to("203.0.113.9")),
        &|it| it.forwards.push(to("fd77::9")),
    ];
    for (at, change) in strange.iter().enumerate() {
        assert_eq!(set(change), Some(Why::Forbidden), "{at}");
    }
    let everything = |it: &mut Rules| {
        let net = it.ipv4.as_mut().unwrap();
        (net.network, net.prefix_len) = ([0; 4].into(), 0);
        it.forwards.push(to("203.0.113.9"));
    };
    assert_eq!(set(&everything), Some(Why::Forbidden));
}

#[test]
fn forwarding_is_for_interfaces_of_others_by_their_names_alone() {
    let forward = |v4: &[&str], v6: &[&str]| {
        let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (v4, v6) = (all(v4), all(v6));
        check(
            Request::Forwarding {
                v4,
                v6,
                bridges: vec!["vmnet0".parse().unwrap()],
            },
            &host(),
        )
    };
    let permitted = |v4: &[&str]| match forward(v4, &[]) {
        Ok(Permitted::Forwarding { v4, .. }) => v4,
        other => panic!("{other:?}"),
    };
    assert_eq!(permitted(&["eth0", "vmnet8"]), ["eth0", "vmnet8"]);
    assert_eq!(permitted(&["eth9"]), [""; 0], "it is gone");
    for strange in [
        "all",
        "default",
        ".",
        "..",
        "vmnet0",
        "vmnet0-gw",
        "",
        "a/b",
        "a b",
    ] {
        for (v4, v6) in [(&[strange][..], &[][..]), (&["eth0"], &["eth0", strange])] {
            let why = forward(v4, v6).unwrap_err().why;
            assert_eq!(why, Why::Forbidden, "{strange}");
        }
    }
}

/// Requests as the daemon could make them, most about links that are there.
fn requests() -> impl Strategy<Value = Request> {
    let names = prop_oneof![
        Just("vmnet0"),
        Just("vmnet0-gw"),
        Just("vmnet8"),
        Just("vmnet9"),
        Just("vmnet1"),
    ];
    let names = names.prop_map(|name| name.parse::<LinkName>().unwrap());
    let nics = prop_oneof![Just("eth0"), Just("vmnet0"), Just("eth9")].prop_map(str::to_owned);
    let own = prop_oneof![
        Just(Request::LinkList),
        Just(Request::LinkSweep),
        Just(Request::RulesGeneration),
        Just(Request::RulesStanding),
        names.clone().prop_map(|name| Request::LinkDelete { name }),
        names.clone().prop_map(|name| Request::TapOpen { name }),
        (names.clone(), any::<bool>()).prop_map(|(name, stays)| Request::TapCreate {
            name,
            mark: mark(),
            stays
        }),
    ];
    let carried = prop_oneof![
        names.clone().prop_map(|name| Request::BridgeEstablish {
            name,
            mark: mark(),
            bridge: Bridge {
                mac: [2, 0, 0, 0, 0, 1],
                mtu: 1500,
                addresses: Vec::new(),
                forwards: true,
            },
        }),
        (names.clone(), names.clone(), any::<bool>()).prop_map(|(member, bridge, isolated)| {
            Request::BridgeJoin {
                member,
                bridge,
                isolated,
                station: None,
            }
        }),
        (names.clone(), prop::option::of(nics.clone()))
            .prop_map(|(bridge, external)| Request::RouteBy { bridge, external }),
        (names.clone(), names.clone()).prop_map(|(bridge, trunk)| Request::RulesSet {
            rules: Box::new(rules(bridge.as_str(), trunk.as_str())),
        }),
        names
            .clone()
            .prop_map(|bridge| Request::RulesRemove { bridge }),
        names.clone().prop_map(|bridge| Request::Forwarding {
            v4: vec!["eth0".to_owned()],
            v6: Vec::new(),
            bridges: vec![bridge],
        }),
    ];
    let bridged = prop_oneof![
        (names.clone(), nics.clone()).prop_map(|(name, nic)| Request::LanJoin {
            name,
            mark: mark(),
            nic,
        }),
        (names.clone(), nics.clone(), any::<[u8; 6]>()).prop_map(|(name, nic, mac)| {
            Request::MacvtapCreate {
                name,
                mark: mark(),
                nic,
                mac,
            }
        }),
        (nics.clone(), any::<bool>()).prop_map(|(nic, all)| Request::LanSocketOpen { nic, all }),
        (names, nics).prop_map(|(name, nic)| Request::HostwardOpen {
            name,
            mark: mark(),
            nic,
        }),
    ];
    prop_oneof![own, carried, bridged]
}

fn rules(bridge: &str, trunk: &str) -> Rules {
    Rules {
        bridge: bridge.to_owned(),
        trunk: trunk.to_owned(),
        host: [2, 0, 0, 0, 0, 1],
        services: [2, 0, 0, 0, 0, 2],
        ipv4: None,
        ipv6: None,
        serves: true,
        dns: true,
        isolation: false,
        external: None,
        others: Vec::new(),
        members: Vec::new(),
        isolated: Vec::new(),
        isolated_behind: false,
        bridged_pass: false,
        loopback_open: false,
        fixed: Vec::new(),
        forwards: Vec::new(),
    }
}

proptest! {
    #[test]
    fn nothing_of_others_is_touched(request in requests()) {
        match check(request, &host()) {
            Ok(Permitted::LinkDelete(Some(index))) => prop_assert!(index <= 2),
            Ok(Permitted::TapOpen(name)) => prop_assert_eq!(name.as_str(), "vmnet0-gw"),
            Ok(Permitted::TapCreate { name, .. }) => prop_assert_eq!(name.as_str(), "vmnet1"),
            Ok(Permitted::BridgeEstablish { name, .. } | Permitted::RulesRemove(name)) => {
                prop_assert!(["vmnet0", "vmnet1", "vmnet9"].contains(&name.as_str()));
            }
            Ok(Permitted::BridgeJoin { member, bridge, .. }) => {
                prop_assert_eq!((member.index, bridge.index), (2, 1));
            }
            Ok(Permitted::RouteBy(bridge, external)) => {
                // A rule of routing that is left by a bridge which is gone is ours by its table.
                prop_assert!(["vmnet0", "vmnet0-gw", "vmnet1", "vmnet9"].contains(&bridge.as_str()));
                prop_assert!(external.is_none_or(|it| bridge.as_str() == "vmnet0" && it.starts_with("eth")));
            }
            Ok(Permitted::RulesSet(rules)) => prop_assert_eq!(&*rules.bridge, "vmnet0"),
            Ok(Permitted::Forwarding { bridges, .. }) => {
                prop_assert_eq!(bridges[0].as_str(), "vmnet0");
            }
            Ok(Permitted::Bridging(nic, way)) => {
                prop_assert_eq!(nic.name, "eth0");
                match way {
                    Bridging::Join(name, _)
                    | Bridging::Macvtap(name, ..)
                    | Bridging::Hostward(name, _) => prop_assert_eq!(name.as_str(), "vmnet1"),
                    Bridging::Socket(_) => {}
                }
            }
            Ok(
                Permitted::LinkDelete(None)
                | Permitted::LinkList
                | Permitted::LinkSweep
                | Permitted::RulesGeneration
                | Permitted::RulesStanding,
            )
            | Err(_) => {}
        }
    }

    #[test]
    fn whatever_comes_is_a_request_with_names_of_ours_or_none(name in ".{0,20}", stays: bool) {
        let role = &name;
        let words = serde_json::json!({ "tap-create": {
            "name": name,
            "mark": { "network": Uuid::from_u128(1), "role": role },
            "stays": stays,
        }});
        if let Ok(Request::TapCreate { name, mark, .. }) = serde_json::from_value(words) {
            prop_assert!(name.as_str().starts_with("vmnet") && name.as_str().len() <= 15);
            prop_assert!(mark.to_string().parse::<Mark>() == Ok(mark));
        }
    }

    #[test]
    fn requests_come_back(request in requests()) {
        let bytes = serde_json::to_vec(&request).unwrap();
        prop_assert_eq!(crate::privileged::wire::parse::<Request>(&bytes).unwrap(), request);
    }
}
