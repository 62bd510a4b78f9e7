use super::forwarding::used;
use super::*;
use vmnet_linux::kernel::route::Address;

fn link(name: &str) -> Link {
    Link {
        index: 1,
        name: name.to_owned(),
        mark: None,
        kind: None,
        master: None,
        lower: None,
        up: true,
        isolated: false,
    }
}

#[test]
fn packets_come_by_all_interfaces_with_an_address_but_ours() {
    let own = Link {
        index: 3,
        mark: Some(mark(Uuid::from_u128(7), BRIDGE)),
        ..link("vmnet0")
    };
    let at = |index, name| Link {
        index,
        ..link(name)
    };
    // Called as ours are, and somebody else's.
    let links = [
        at(1, "lo"),
        at(2, "eth0"),
        own,
        at(4, "vmnet8"),
        at(5, "wg0"),
    ];
    let addresses: Vec<Address> = [
        (1, "127.0.0.1", 8),
        (2, "10.0.0.7", 24),
        (2, "fe80::7", 64),
        (3, "192.168.64.1", 24),
        (4, "172.16.8.1", 24),
        (5, "2001:db8::5", 64),
        (9, "10.9.9.9", 24),
    ]
    .into_iter()
    .map(|(link, address, prefix_len)| Address {
        link,
        address: address.parse().unwrap(),
        prefix_len,
    })
    .collect();
    let used = used(&links, &addresses);
    let names = |set: BTreeSet<String>| set.into_iter().collect::<Vec<_>>();
    assert_eq!(names(used.v4), ["eth0", "vmnet8"]);
    assert_eq!(names(used.v6), ["wg0"]);
}

#[test]
fn a_bridge_gets_a_name_that_nobody_has() {
    let free = |names: &[&str]| {
        let links: Vec<Link> = names.iter().map(|name| link(name)).collect();
        free_name(&links).unwrap().to_string()
    };
    assert_eq!(free(&["lo", "eth0"]), "vmnet0");
    assert_eq!(free(&["vmnet0", "vmnet1-gw", "vmnet3"]), "vmnet2");
}
