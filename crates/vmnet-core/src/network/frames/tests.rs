//! What only passes is judged in short, and as it would be at length.

use super::*;
use crate::network::{Config, Dns};
use crate::subnet::Ipv4;
use crate::switch::fdb::AGEING;
use crate::switch::port::{Port, Role};
use core::net::Ipv4Addr;
use core::time::Duration;
use proptest::prelude::*;
use vmnet_wire::arp::Packet;

const GATEWAY: Mac = Mac([0x5a, 0x94, 0, 0, 0, 1]);
const HOST: Mac = Mac([0x5a, 0x94, 0, 0, 0, 2]);
const GUESTS: u8 = 5;

/// What happens to a network.
#[derive(Clone, Debug)]
enum Step {
    /// A frame by the port of this number.
    Frame(usize, Vec<u8>),
    /// So many seconds pass.
    Wait(u64),
    Plug(Port),
    Unplug(usize),
}

/// With a gateway, the host may have its addresses.
fn config(gateway: bool, hosts: bool, isolation: bool) -> Config {
    let ipv4 = Ipv4::new("192.168.64.0/24".parse().unwrap());
    Config {
        ipv4: gateway.then_some(ipv4),
        gateway_mac: GATEWAY,
        host: (gateway && hosts).then_some(HOST),
        mtu: 1500,
        dhcp: None,
        dns: Dns::Off,
        resolvers_offered: Vec::new(),
        nat44: gateway,
        ipv6: gateway.then(|| "fd00:0:0:64::/64".parse().unwrap()),
        nat66: false,
        router_advertisement: false,
        dhcp6: None,
        isolation,
        store_leases: false,
        domain: "vmnet.internal".to_owned(),
        host_loopback: false,
        flows_max: 100,
        seed: [7; 16],
    }
}

fn mac(number: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, number])
}

fn macs() -> impl Strategy<Value = Mac> {
    prop_oneof![
        20 => (0..GUESTS).prop_map(mac),
        1 => Just(GATEWAY),
        3 => Just(HOST),
        1 => Just(Mac::BROADCAST),
        1 => Just(Mac::ZERO),
        1 => any::<[u8; 6]>().prop_map(Mac),
    ]
}

/// What a frame carries: now and then what the guard is there for.
fn contents() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let v4 = (0..4_u8, any::<u8>()).prop_map(|(last, protocol)| {
        let fields = ipv4::Fields {
            source: Ipv4Addr::new(192, 168, 64, last),
            destination: Ipv4Addr::new(192, 168, 64, 9),
            protocol: Protocol(protocol),
            ttl: 64,
            id: 7,
            dont_fragment: true,
        };
        let mut packet = ipv4::Header::new(&fields, 8).as_bytes().to_vec();
        packet.extend([0, 67, 0, 68, 0, 8, 0, 0]);
        (0x0800, packet)
    });
    let next = prop_oneof![Just(6), Just(17), Just(58), Just(0), Just(44), any::<u8>()];
    let v6 = (next, 544..548_u16, any::<bool>(), 130..138_u8).prop_map(
        |(next, port, gateways, kind)| {
            let mut packet = vec![0; 72];
            (packet[0], packet[5], packet[6], packet[7]) = (0x60, 32, next, 255);
            packet[8..16].copy_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0x64]);
            packet[23] = if gateways { 1 } else { 9 };
            packet[42..44].copy_from_slice(&port.to_be_bytes());
            if next == 58 {
                packet[40] = kind;
            }
            (0x86dd, packet)
        },
    );
    let arp = (1..4_u8).prop_map(|last| {
        let sender = Ipv4Addr::new(192, 168, 64, last);
        let packet = Packet::request(mac(1), sender, Ipv4Addr::new(192, 168, 64, 1));
        (0x0806, packet.as_bytes().to_vec())
    });
    let any = (any::<u16>(), proptest::collection::vec(any::<u8>(), 0..60));
    let tagged = (prop_oneof![v4, v6, arp, any], 0..8_u8, 0..150_usize);
    tagged.prop_map(|((kind, packet), tag, len)| {
        let mut packet = packet;
        let kind = if tag == 0 {
            let [high, low] = kind.to_be_bytes();
            packet.splice(0..0, [0, 0, high, low]);
            0x8100
        } else {
            kind
        };
        packet.truncate(len);
        (kind, packet)
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let frame = (0..4_usize, macs(), macs(), contents()).prop_map(|(port, to, from, contents)| {
        let (kind, packet) = contents;
        let header = ethernet::Header::new(to, from, EtherType(kind));
        Step::Frame(port, [header.as_bytes(), &packet[..]].concat())
    });
    let port = (0..3 * GUESTS, 0..4_u8, 0..3_u8).prop_map(|(fixed, isolated, leads)| {
        let mut port = Port::new(100);
        port.mac = (fixed < GUESTS).then(|| mac(fixed));
        port.isolated = isolated == 0;
        port.role = if leads == 0 { Role::Trunk } else { Role::Guest };
        Step::Plug(port)
    });
    let wait = prop_oneof![1..20_u64, Just(AGEING.as_secs())].prop_map(Step::Wait);
    let step = prop_oneof![
        40 => frame,
        1 => wait,
        1 => port,
        1 => (0..6_usize).prop_map(Step::Unplug),
    ];
    proptest::collection::vec(step, 0..200)
}

/// Everything that can be told of a network from outside.
fn told(network: &Network) -> impl PartialEq + core::fmt::Debug {
    let drops: Vec<_> = network.drops().met().collect();
    let mut macs: Vec<_> = network.macs().collect();
    macs.sort_unstable();
    let seen = |(mac, port): &(Mac, PortId)| network.seen_behind(*port, *mac);
    let seen: Vec<_> = macs.iter().map(seen).collect();
    (drops, macs, seen, network.follow)
}

proptest! {
    #[test]
    fn the_short_way_and_the_long_one_are_one(
        steps in steps(),
        (gateway, hosts) in any::<(bool, bool)>(),
        isolation in (0..8_u8).prop_map(|number| number == 0),
    ) {
        let mut now = Instant::now();
        let config = config(gateway, hosts, isolation);
        let [mut short, mut long] = [(), ()].map(|()| Network::new(now, &config).unwrap());
        let mut ports = Vec::new();
        let (mut out, mut out_long) = (Outbox::new(), Outbox::new());
        let plugs = (0..3).map(|_| Step::Plug(Port::new(100)));
        for step in plugs.chain(steps) {
            match step {
                Step::Frame(number, bytes) => {
                    let Some(&port) = ports.get(number) else { continue };
                    let frame = Frame::whole(&bytes, Offload::NONE);
                    short.receive(now, port, &frame, &mut out);
                    if let Err(cause) = long.switch(now, port, &frame, &mut out_long) {
                        long.count_drop(cause);
                    }
                    short.flush(now, false, &mut out);
                    long.flush(now, false, &mut out_long);
                    prop_assert_eq!(format!("{:?}", out), format!("{:?}", out_long));
                    while out.take().is_some() {}
                    while out_long.take().is_some() {}
                }
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::Plug(port) => {
                    ports.push(short.add_port(port.clone()));
                    long.add_port(port);
                }
                Step::Unplug(number) if number < ports.len() => {
                    let port = ports.swap_remove(number);
                    short.remove_port(now, port);
                    long.remove_port(now, port);
                }
                Step::Unplug(_) => {}
            }
            prop_assert_eq!(told(&short), told(&long));
        }
    }
}

#[test]
fn ordinary_frames_take_the_short_way() {
    let now = Instant::now();
    let mut network = Network::new(now, &config(true, false, false)).unwrap();
    let [one, other] = [(), ()].map(|()| network.add_port(Port::new(100)));
    let mut packet = [0x45; 40];
    packet[12..16].copy_from_slice(&[192, 168, 64, 2]);
    let frame = |to: u8, from: u8| {
        let header = ethernet::Header::new(mac(to), mac(from), EtherType::IPV4);
        [header.as_bytes(), &packet[..]].concat()
    };
    let mut out = Outbox::new();
    for (port, to, from) in [(one, 2, 1), (other, 1, 2)] {
        let bytes = frame(to, from);
        assert_eq!(network.pass(now, port, &bytes), None, "nobody is known");
        let whole = Frame::whole(&bytes, Offload::NONE);
        network.receive(now, port, &whole, &mut out);
    }
    assert_eq!(network.pass(now, one, &frame(2, 1)), Some(other));
    assert_eq!(network.pass(now, other, &frame(1, 2)), Some(one));
    let passed = frame(2, 1);
    assert!(network.passes_too(&passed, &frame(2, 1)));
    assert!(!network.passes_too(&passed, &frame(3, 1)), "to another");
    assert!(!network.passes_too(&passed, &frame(2, 3)), "from another");
    let mut gateways = frame(2, 1);
    gateways[ethernet::Header::LEN + 12..][..4].copy_from_slice(&[192, 168, 64, 1]);
    assert!(!network.passes_too(&passed, &gateways), "the gateway's");
    let mut others = passed.clone();
    others[ethernet::Header::LEN + 15] = 9;
    assert!(network.passes_too(&passed, &others), "another sender's");
    let mut of_arp = passed.clone();
    of_arp[13] = 6;
    assert!(!network.passes_too(&passed, &of_arp), "another type");
    assert!(!network.passes_too(&of_arp, &of_arp), "not that type");
    assert!(!network.passes_too(&passed, &passed[..13]), "no frame");
    assert_eq!(
        network.pass(now, other, &frame(2, 1)),
        None,
        "another's address"
    );
    assert_eq!(
        network.pass(now + AGEING, one, &frame(2, 1)),
        None,
        "not heard for long"
    );
}
