use super::*;
use crate::kernel::nft::PortForward;

/// A shared network with everything on.
fn shared() -> Rules {
    Rules {
        bridge: "vmnet0".to_owned(),
        trunk: "vmnet0-gw".to_owned(),
        host: [0x5a, 0x94, 192, 168, 64, 1],
        services: [0x5e, 0x94, 192, 168, 64, 1],
        ipv4: Some(Inet {
            network: [192, 168, 64, 0].into(),
            prefix_len: 24,
            gateway: [192, 168, 64, 1].into(),
            nat: true,
        }),
        ipv6: Some(Inet6 {
            network: "fd00:0:0:64::".parse().unwrap(),
            gateway: "fd00:0:0:64::1".parse().unwrap(),
            link_local: "fe80::5894:c0ff:fea8:4001".parse().unwrap(),
            nat: true,
        }),
        serves: true,
        dns: true,
        isolation: false,
        external: None,
        others: vec!["vmnet1".to_owned(), "vmnet12".to_owned()],
        members: vec!["vmnet0-gw".to_owned(), "vmnet0-7".to_owned()],
        isolated: vec!["vmnet0-3".to_owned(), "vmnet0-7".to_owned()],
        isolated_behind: false,
        bridged_pass: false,
        loopback_open: false,
        fixed: vec![("vmnet0-7".to_owned(), [0x52, 0x54, 0, 0, 0, 7])],
        forwards: vec![
            forward(true, None, 8080, "192.168.64.5", 80),
            forward(true, None, 8081, "192.168.64.5", 81),
            forward(false, Some("10.0.0.1"), 53, "192.168.64.5", 53),
            forward(true, None, 8080, "fd00:0:0:64::5", 80),
            // It would lead nowhere.
            forward(true, Some("10.0.0.1"), 9, "fd00:0:0:64::5", 9),
        ],
    }
}

fn forward(tcp: bool, address: Option<&str>, port: u16, guest: &str, to: u16) -> PortForward {
    PortForward {
        tcp,
        address: address.map(|address| address.parse().unwrap()),
        port,
        guest: guest.parse().unwrap(),
        guest_port: to,
    }
}

#[test]
fn a_shared_network_with_ports() {
    insta::assert_snapshot!(network(&shared()).unwrap());
}

#[test]
fn a_host_network_without_dns_and_ipv6_whose_guests_are_apart() {
    let mut rules = shared();
    (rules.ipv6, rules.dns, rules.isolation) = (None, false, true);
    rules.ipv4.as_mut().unwrap().nat = false;
    (rules.fixed, rules.forwards) = (Vec::new(), Vec::new());
    rules.others.clear();
    rules.isolated.clear();
    insta::assert_snapshot!(network(&rules).unwrap());
}

#[test]
fn rules_alone_keep_members_apart_where_the_bridge_would_keep_forwarded_ports_from_them() {
    let mut rules = shared();
    let apart = |rules: &Rules| {
        let isolates = |it: &&String| rules.isolates(it);
        rules.members.iter().filter(isolates).count()
    };
    let line = "iifname { \"vmnet0-7\" } oifname { \"vmnet0-7\" } drop";
    for (all, bridged_pass, by_bridge, by_rules) in [
        (false, false, 1, false),
        (false, true, 0, false),
        (true, false, 1, false),
        (true, true, 0, true),
    ] {
        (rules.isolation, rules.bridged_pass) = (all, bridged_pass);
        rules.isolated = if all {
            vec![]
        } else {
            vec!["vmnet0-7".to_owned()]
        };
        assert_eq!(apart(&rules), by_bridge, "{all} {bridged_pass}");
        let text = network(&rules).unwrap();
        assert_eq!(text.contains(line), by_rules, "{text}");
    }
    rules.forwards.clear();
    assert_eq!(apart(&rules), 1, "nothing is led back");
}

#[test]
fn usual_frames_go_the_short_way_if_their_member_is_to_have_their_mac_and_is_not_isolated() {
    let mut rules = shared();
    let ways = |rules: &Rules| -> Vec<String> {
        let text = network(rules).unwrap();
        let ways = text.lines().filter(|line| line.contains(" jump usual"));
        ways.map(|line| line.trim().to_owned()).collect()
    };
    assert_eq!(ways(&rules), [""; 0], "an isolated one");
    rules.isolated.clear();
    assert_eq!(ways(&rules), ["iifname \"vmnet0-7\" jump usual-0"]);
    insta::assert_snapshot!(network(&rules).unwrap());
    let member = |number: u8| (format!("vmnet0-{number}"), [0x52, 0x54, 0, 0, 0, number]);
    rules.fixed = (7..11).map(member).collect();
    assert_eq!(ways(&rules), ["iifname . ether saddr @usual jump usual"]);
    let text = network(&rules).unwrap();
    assert!(text.contains("\"vmnet0-10\" . 52:54:00:00:00:0a"), "{text}");
    // One that would speak as the gateway has no short way.
    rules.fixed = vec![("vmnet0-7".to_owned(), rules.host)];
    assert_eq!(ways(&rules), [""; 0]);
}

#[test]
fn names_that_mean_more_are_refused() {
    for name in [
        "",
        "eth*",
        "a\" drop",
        "a b",
        "a\nb",
        "a;b",
        "0123456789abcdef",
        "ä",
    ] {
        let mut rules = shared();
        rules.external = Some(name.to_owned());
        assert!(matches!(network(&rules), Err(NftError::Name(_))), "{name}");
        let mut rules = shared();
        rules.fixed[0].0 = name.to_owned();
        assert!(network(&rules).is_err(), "{name}");
        let mut rules = shared();
        rules.members[0] = name.to_owned();
        assert!(network(&rules).is_err(), "{name}");
        let mut rules = shared();
        rules.others[0] = name.to_owned();
        assert!(network(&rules).is_err(), "{name}");
        let mut rules = shared();
        rules.isolated[0] = name.to_owned();
        assert!(network(&rules).is_err(), "{name}");
        assert!(removal(name).is_err(), "{name}");
    }
    let mut rules = shared();
    rules.external = Some("eth0.7".to_owned());
    assert!(network(&rules).unwrap().contains("oifname != \"eth0.7\""));
}
