use super::*;
use proptest::prelude::*;
use uuid::Uuid;
use vmnet_linux::kernel::nics::NicKind;

/// A kernel that has these links.
struct Has(Vec<Link>);

impl Kernel for Has {
    fn link(&self, name: &str) -> Result<Option<Link>, Refusal> {
        Ok(self.0.iter().find(|link| link.name == name).cloned())
    }

    fn nic(&self, name: &str) -> Result<Option<Nic>, Refusal> {
        Ok((name == "eth0").then(card))
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
    Has(vec![
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
    ])
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
        (names.clone(), names.clone()).prop_map(|(bridge, trunk)| Request::RulesSet {
            rules: Box::new(rules(bridge.as_str(), trunk.as_str())),
        }),
        names
            .clone()
            .prop_map(|bridge| Request::RulesRemove { bridge }),
        any::<bool>().prop_map(|open| Request::Forwarding {
            v4: vec!["eth0".to_owned()],
            v6: Vec::new(),
            open,
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
            Ok(Permitted::RulesSet(rules)) => prop_assert_eq!(&*rules.bridge, "vmnet0"),
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
                | Permitted::Forwarding { .. },
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
