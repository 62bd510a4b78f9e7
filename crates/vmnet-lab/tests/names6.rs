//! DHCPv6 and names of both families, as guests on the wire see them.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use vmnet_core::gateway::dhcp::Reservee;
use vmnet_core::{Dhcp6, Drop, Port, PortId};
use vmnet_lab::sim::{Guest, Lan, packets, packets6};
use vmnet_wire::ethernet::{EtherType, Mac};
use vmnet_wire::ip::{Protocol, pseudo_header};
use vmnet_wire::{ipv6, udp};
use zerocopy::IntoBytes;

const SECOND: Duration = Duration::from_secs(1);
const ALL_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;

fn ip(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0, 0, 0, last)
}

fn lan() -> Lan {
    Lan::new(1500, |config| {
        config.ipv6 = Some("fd12:3456:789a:1::/64".parse().unwrap());
        config.dhcp6 = Some(Dhcp6 {
            lease_time: Duration::from_secs(3600),
        });
    })
}

/// A UDP datagram in a frame.
fn datagram(
    macs: (Mac, Mac),
    ips: (Ipv6Addr, Ipv6Addr),
    ports: (u16, u16),
    body: &[u8],
) -> Vec<u8> {
    let len = 8 + body.len();
    let sum = pseudo_header(IpAddr::V6(ips.0), IpAddr::V6(ips.1), Protocol::UDP, len)
        .with(udp::Header::new(ports.0, ports.1, body.len(), 0).as_bytes())
        .with(body)
        .finish_udp();
    let udp = udp::Header::new(ports.0, ports.1, body.len(), sum);
    let ip = ipv6::Header::new(ips.0, ips.1, Protocol::UDP, 64, len);
    let packet = [ip.as_bytes(), udp.as_bytes(), body].concat();
    packets::frame(macs, EtherType::IPV6, &packet)
}

/// The source, the ports and the body of a UDP datagram in an IPv6 packet in a frame.
fn read(frame: &[u8]) -> Option<(Ipv6Addr, (u16, u16), Vec<u8>)> {
    if frame.get(12..14)? != [0x86, 0xdd] || frame[20] != 17 {
        return None;
    }
    let source: [u8; 16] = frame[22..38].try_into().unwrap();
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    Some((source.into(), (port(54), port(56)), frame[62..].to_vec()))
}

/// What a guest asks by DHCPv6.
struct Asks<'a> {
    iaid: u8,
    name: Option<&'a str>,
}

/// A guest takes an address at once, and answers which.
fn solicit(lan: &mut Lan, port: PortId, number: u8, asks: &Asks<'_>) -> Option<Ipv6Addr> {
    let mac = lan.guest(port).mac;
    let mut body = vec![1, 9, 9, number, 0, 1, 0, 10, 0, 3, 0, 1];
    body.extend(mac.0);
    body.extend([0, 14, 0, 0, 0, 3, 0, 12, 0, 0, 0, asks.iaid]);
    body.extend([0; 8]);
    if let Some(name) = asks.name {
        let len = u8::try_from(name.len()).unwrap();
        body.extend([0, 39, 0, len + 2, 1, len]);
        body.extend(name.bytes());
    }
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number.into());
    let group = Mac([0x33, 0x33, 0, 1, 0, 2]);
    lan.heard(port);
    lan.inject(
        port,
        datagram((mac, group), (source, ALL_SERVERS), (546, 547), &body),
    );
    lan.run_for(SECOND / 10);
    let heard = lan.heard(port);
    let iaid = Some(asks.iaid.into());
    let mut leases = lan.network.leases6();
    let lease = leases.find(|lease| lease.mac == mac && lease.iaid == iaid)?;
    // A machine with a stack of its own keeps what it hears to itself.
    if let Some((from, ports, body)) = heard.iter().find_map(|frame| read(frame)) {
        assert!(from.is_unicast_link_local(), "{from}");
        assert_eq!((ports, body[0]), ((547, 546), 7));
        let mut places = body.windows(16);
        assert!(places.any(|octets| octets == lease.address.octets()));
    }
    Some(lease.address)
}

/// Asks the gateway by IPv6; answers the code, how many records came, and the end of the message.
fn ask(lan: &mut Lan, port: PortId, kind: u16, name: &str) -> (u8, u16, Vec<u8>) {
    let mut question = packets::dns_question(77, name);
    let end = question.len();
    question[end - 4..end - 2].copy_from_slice(&kind.to_be_bytes());
    let macs = (lan.guest(port).mac, lan.network.gateway_mac());
    lan.heard(port);
    lan.inject(
        port,
        datagram(macs, (ip(0x99), ip(1)), (5353, 53), &question),
    );
    // At once: nobody was asked.
    let heard = lan.heard(port);
    let answer = heard.iter().find_map(|frame| read(frame));
    let (from, _, body) = answer.unwrap_or_else(|| panic!("no answer about {name}"));
    assert_eq!(from, ip(1));
    let count = u16::from_be_bytes([body[6], body[7]]);
    (body[3] & 15, count, body)
}

fn address_of(lan: &mut Lan, port: PortId, name: &str) -> Option<Ipv6Addr> {
    let (code, count, body) = ask(lan, port, AAAA, &format!("{name}.vmnet.internal"));
    assert!(code == 0 && count <= 1, "{name}: {code}, {count}");
    let octets: [u8; 16] = body[body.len() - 16..].try_into().unwrap();
    (count == 1).then(|| octets.into())
}

fn name_of(lan: &mut Lan, port: PortId, address: Ipv6Addr) -> Option<String> {
    let digits = address
        .octets()
        .map(|byte| format!("{:x}.{:x}", byte & 15, byte >> 4));
    let mut digits = digits.to_vec();
    digits.reverse();
    let (code, count, body) = ask(lan, port, PTR, &format!("{}.ip6.arpa", digits.join(".")));
    if count == 0 {
        assert_eq!(code, 3, "no such name");
        return None;
    }
    let text = String::from_utf8_lossy(&body).into_owned();
    let end = text.rfind("\u{5}vmnet\u{8}internal")?;
    let labels: Vec<_> = text[..end].chars().rev().take_while(|c| *c > ' ').collect();
    Some(labels.into_iter().rev().collect())
}

/// A guest behind a port with a name, with an IPv4 lease; and one that asks.
fn with_web() -> (Lan, PortId, PortId) {
    let mut lan = lan();
    let mut guest = Guest::new(2, lan.start, 1500);
    guest.start_dhcp();
    let mut port = Port::new(256);
    port.name = Some("web".to_owned());
    let web = lan.plug_into(guest, port);
    assert!(lan.run_until(5 * SECOND, |lan| lan.guest(web).lease.is_some()));
    let raw = lan.add_raw(9);
    (lan, web, raw)
}

/// A guest speaks from an address of its own making.
fn speaks(lan: &mut Lan, port: PortId, address: Ipv6Addr) {
    let macs = (lan.guest(port).mac, lan.network.gateway_mac());
    let question = packets::dns_question(1, "gateway");
    lan.inject(port, datagram(macs, (address, ip(1)), (99, 53), &question));
    let now = lan.now;
    let mut out = vmnet_core::Outbox::new();
    lan.network.flush(now, false, &mut out);
}

#[test]
fn the_gateway_has_names_in_both_families() {
    let (mut lan, _, raw) = with_web();
    assert_eq!(address_of(&mut lan, raw, "gateway"), Some(ip(1)));
    assert_eq!(name_of(&mut lan, raw, ip(1)).as_deref(), Some("gateway"));
    let (code, count, _) = ask(&mut lan, raw, A, "gateway");
    assert_eq!((code, count), (0, 1));
}

/// `AAAA` of a guest without IPv6 is answered at once: it exists, and has none.
#[test]
fn a_guest_without_ipv6_costs_nobody_time() {
    let (mut lan, _, raw) = with_web();
    let (code, count, _) = ask(&mut lan, raw, AAAA, "web.vmnet.internal");
    assert_eq!((code, count), (0, 0));
    let (code, count, _) = ask(&mut lan, raw, AAAA, "nobody.vmnet.internal");
    assert_eq!((code, count), (3, 0));
    assert_eq!(lan.network.dns_counters().asked, 0);
}

#[test]
fn addresses_of_ones_own_making_have_the_name_of_their_guest() {
    let (mut lan, web, raw) = with_web();
    speaks(&mut lan, web, ip(0x501));
    assert_eq!(address_of(&mut lan, raw, "web"), Some(ip(0x501)));
    // Another one, for today: the name keeps its address, and both have the name.
    speaks(&mut lan, web, ip(0x502));
    assert_eq!(address_of(&mut lan, raw, "web"), Some(ip(0x501)));
    for address in [ip(0x501), ip(0x502)] {
        assert_eq!(name_of(&mut lan, raw, address).as_deref(), Some("web"));
    }
    assert_eq!(name_of(&mut lan, raw, ip(0x503)), None);
    // What DHCPv6 gave is better.
    let asks = Asks {
        iaid: 1,
        name: None,
    };
    let leased = solicit(&mut lan, web, 2, &asks).unwrap();
    assert_eq!(address_of(&mut lan, raw, "web"), Some(leased));
    for address in [ip(0x501), ip(0x502), leased] {
        assert_eq!(name_of(&mut lan, raw, address).as_deref(), Some("web"));
    }
    // The guest that took over an address takes it with its own name, or none.
    speaks(&mut lan, raw, ip(0x501));
    assert_eq!(name_of(&mut lan, raw, ip(0x501)), None);
}

/// The name that a guest calls itself by DHCPv6 is its own in both families, and nobody else's.
#[test]
fn a_name_is_one_guests_in_both_families() {
    let (mut lan, web, raw) = with_web();
    let thief = Asks {
        iaid: 1,
        name: Some("web"),
    };
    let stolen = solicit(&mut lan, raw, 9, &thief).unwrap();
    assert_eq!(address_of(&mut lan, raw, "web"), None);
    assert_eq!(name_of(&mut lan, raw, stolen), None);
    let own = Asks {
        iaid: 2,
        name: Some("Raw.example"),
    };
    let own = solicit(&mut lan, raw, 9, &own);
    let named = name_of(&mut lan, raw, own.unwrap());
    assert_eq!(named.as_deref(), Some("raw"));
    let asks = Asks {
        iaid: 1,
        name: Some("else"),
    };
    let leased = solicit(&mut lan, web, 2, &asks).unwrap();
    assert_eq!(
        name_of(&mut lan, raw, leased).as_deref(),
        Some("web"),
        "the port's name"
    );
}

#[test]
fn names_end_with_their_leases() {
    let (mut lan, web, raw) = with_web();
    let asks = Asks {
        iaid: 1,
        name: None,
    };
    let leased = solicit(&mut lan, web, 2, &asks).unwrap();
    assert_eq!(address_of(&mut lan, raw, "web"), Some(leased));
    let mut out = vmnet_core::Outbox::new();
    let now = lan.now;
    assert!(lan.network.release_lease(now, leased.into(), &mut out));
    lan.network.flush(now, false, &mut out);
    assert_eq!(address_of(&mut lan, raw, "web"), None);
    assert_eq!(name_of(&mut lan, raw, leased), None);
    assert!(!lan.network.release_lease(now, leased.into(), &mut out));
}

#[test]
fn relays_and_nonsense_are_counted() {
    let (mut lan, _, raw) = with_web();
    let mac = lan.guest(raw).mac;
    let group = Mac([0x33, 0x33, 0, 1, 0, 2]);
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    for (number, body) in [&[12, 0, 0, 0][..], &[1], &[200, 0, 0, 0, 0]]
        .into_iter()
        .enumerate()
    {
        let frame = datagram((mac, group), (source, ALL_SERVERS), (546, 547), body);
        lan.inject(raw, frame);
        let counted = lan.network.drops().of(Drop::Dhcp6);
        assert_eq!(counted, u64::try_from(number).unwrap() + 1);
    }
}

/// Leases of both families go to the store in batches of their own, and are answered when they are there.
#[test]
fn answers_wait_for_the_store() {
    use vmnet_core::Action;
    use vmnet_core::gateway::register::LeaseWrite;
    let mut lan = Lan::new(1500, |config| {
        config.ipv6 = Some("fd12:3456:789a:1::/64".parse().unwrap());
        config.dhcp6 = Some(Dhcp6 {
            lease_time: Duration::from_secs(3600),
        });
        config.store_leases = true;
    });
    let raw = lan.add_raw(9);
    let mac = lan.guest(raw).mac;
    let mut body = vec![1, 9, 9, 9, 0, 1, 0, 10, 0, 3, 0, 1];
    body.extend(mac.0);
    body.extend([0, 14, 0, 0, 0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    let group = Mac([0x33, 0x33, 0, 1, 0, 2]);
    let frame = datagram((mac, group), (source, ALL_SERVERS), (546, 547), &body);
    let mut out = vmnet_core::Outbox::new();
    let frame = vmnet_core::Frame::whole(&frame, vmnet_wire::offload::Offload::VALID);
    let now = lan.now;
    lan.network.receive(now, raw, &frame, &mut out);
    let actions: Vec<Action> = std::iter::from_fn(|| out.take()).collect();
    let [Action::StoreLeases { ticket, writes }] = actions.as_slice() else {
        panic!("answered before it is stored: {actions:?}")
    };
    let [LeaseWrite::Put(lease)] = writes.as_slice() else {
        panic!("{writes:?}")
    };
    assert!(lease.address.is_ipv6() && lease.iaid == Some(1) && lease.mac == mac);
    lan.network.leases_stored(now, *ticket, true, &mut out);
    let actions: Vec<Action> = std::iter::from_fn(|| out.take()).collect();
    assert!(
        matches!(actions.as_slice(), [Action::Reply { .. }]),
        "{actions:?}"
    );
}

/// The probe of one who wants an address.
fn probe(lan: &mut Lan, port: PortId, target: Ipv6Addr) {
    let mac = lan.guest(port).mac;
    lan.inject(port, packets6::probe(mac, target));
}

/// Sends a datagram from an address to the outside; answers whether it went.
fn leaves(lan: &mut Lan, port: PortId, source: Ipv6Addr) -> bool {
    let macs = (lan.guest(port).mac, lan.network.gateway_mac());
    let before = lan.internet.sent.len();
    let ips = (source, "2001:db8::1".parse().unwrap());
    lan.inject(port, datagram(macs, ips, (5000, 7), b"mine"));
    lan.internet.sent.len() > before
}

#[test]
fn an_isolated_guest_does_not_take_a_lease_by_a_probe() {
    let mut lan = Lan::new(1500, |config| {
        config.ipv6 = Some("fd12:3456:789a:1::/64".parse().unwrap());
        config.dhcp6 = Some(Dhcp6 {
            lease_time: Duration::from_secs(3600),
        });
        (config.nat66, config.isolation) = (true, true);
    });
    let [holder, thief] = [2, 9].map(|number| lan.plug(Guest::raw(number, lan.start, 1500)));
    let asks = Asks {
        iaid: 1,
        name: None,
    };
    let leased = solicit(&mut lan, holder, 2, &asks).unwrap();
    let spoofed = |lan: &Lan| lan.network.drops().of(Drop::Spoofed);
    probe(&mut lan, thief, leased);
    assert_eq!(spoofed(&lan), 1);
    assert_eq!(lan.network.address6_of(lan.now, thief), None);
    assert!(!leaves(&mut lan, thief, leased));
    assert!(leaves(&mut lan, holder, leased));
    // Nor when it is quicker: who leases an address has it, whoever wanted it before.
    let other = lan.plug(Guest::raw(3, lan.start, 1500));
    let mac = lan.guest(other).mac;
    let wanted = ip(0x6666);
    probe(&mut lan, thief, wanted);
    assert_eq!(lan.network.address6_of(lan.now, thief), Some(wanted));
    let reserved = lan.network.reserve(Reservee::Mac(mac), wanted.into());
    reserved.unwrap();
    assert_eq!(solicit(&mut lan, other, 3, &asks), Some(wanted));
    assert_eq!(lan.network.address6_of(lan.now, other), Some(wanted));
    probe(&mut lan, other, wanted);
    assert!(leaves(&mut lan, other, wanted));
    assert!(!leaves(&mut lan, thief, wanted));
    // What is kept for a guest is nobody else's before it comes.
    let kept = ip(0x7777);
    let mac = Guest::raw(4, lan.start, 1500).mac;
    let reserved = lan.network.reserve(Reservee::Mac(mac), kept.into());
    reserved.unwrap();
    let before = spoofed(&lan);
    probe(&mut lan, thief, kept);
    assert_eq!(spoofed(&lan), before + 1);
    let comes = lan.plug(Guest::raw(4, lan.start, 1500));
    assert!(leaves(&mut lan, comes, kept));
}
