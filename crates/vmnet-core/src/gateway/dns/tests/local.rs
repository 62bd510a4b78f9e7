use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::{RData, Record};

use super::*;
use crate::gateway::dns::NameError;

const A: u16 = 1;
const NS: u16 = 2;
const SOA: u16 = 6;
const PTR: u16 = 12;
const TXT: u16 = 16;
const AAAA: u16 = 28;
const DS: u16 = 43;
const HTTPS: u16 = 65;
const ANY: u16 = 255;

fn named() -> Bench {
    let mut bench = Bench::new(1);
    for (name, address) in [
        ("web", "192.168.64.5"),
        ("Db", "192.168.64.6"),
        ("db", "fd00:64::6"),
        ("www", "192.168.64.5"),
        ("elsewhere", "10.9.9.9"),
    ] {
        bench
            .proxy
            .set_name(name, address.parse().unwrap())
            .unwrap();
    }
    bench
}

#[test]
fn of_localhost_nobody_is_asked_anything() {
    let mut bench = named();
    for kind in [TXT, DS, NS, SOA, HTTPS] {
        let reply = ask(&mut bench, "x.localhost", kind);
        let code = reply.metadata.response_code;
        assert_eq!((code, reply.answers.len()), (ResponseCode::NoError, 0));
    }
}

fn ask_over(bench: &mut Bench, transport: Transport, message: &[u8]) -> Message {
    bench.query_from(1, 1, transport, message).unwrap();
    assert_eq!(bench.asked, [], "a local name leaked");
    let reply = bench.only_reply();
    let decoded = Message::from_vec(&reply).unwrap();
    assert_eq!(decoded.metadata.message_type, MessageType::Response);
    assert_eq!(
        decoded.metadata.id,
        u16::from_be_bytes([message[0], message[1]])
    );
    decoded
}

fn ask(bench: &mut Bench, name: &str, kind: u16) -> Message {
    ask_over(bench, Transport::Udp, &query(0x1234, name, kind))
}

fn show(records: &[Record]) -> Vec<String> {
    let mut lines: Vec<String> = records
        .iter()
        .map(|record| {
            let data = match &record.data {
                RData::A(address) => address.to_string(),
                RData::AAAA(address) => address.to_string(),
                RData::PTR(name) => name.to_string(),
                RData::NS(name) => name.to_string(),
                RData::SOA(soa) => format!("{} {}", soa.mname, soa.minimum),
                other => panic!("unexpected {other:?}"),
            };
            format!("{} {} {data}", record.name, record.record_type())
        })
        .collect();
    lines.sort();
    lines
}

const NIBBLES: &str = "6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.6.0.0.0.0.d.f.ip6.arpa";

/// Name, type, and how each record of the answer reads at its end.
const NAMES: [(&str, u16, &[&str]); 21] = [
    ("localhost", A, &["localhost. A 127.0.0.1"]),
    ("LocalHost", AAAA, &["LocalHost. AAAA ::1"]),
    ("a.b.localhost", A, &["a.b.localhost. A 127.0.0.1"]),
    (
        "web.vmnet.internal",
        A,
        &["web.vmnet.internal. A 192.168.64.5"],
    ),
    (
        "WEB.VmNet.internal",
        A,
        &["WEB.VmNet.internal. A 192.168.64.5"],
    ),
    ("web", A, &["web. A 192.168.64.5"]),
    (
        "db.vmnet.internal",
        AAAA,
        &["db.vmnet.internal. AAAA fd00:64::6"],
    ),
    (
        "db.vmnet.internal",
        ANY,
        &[
            "db.vmnet.internal. A 192.168.64.6",
            "db.vmnet.internal. AAAA fd00:64::6",
        ],
    ),
    (
        "gateway.vmnet.internal",
        A,
        &["gateway.vmnet.internal. A 192.168.64.1"],
    ),
    (
        "gateway.vmnet.internal",
        AAAA,
        &["gateway.vmnet.internal. AAAA fd00:64::1"],
    ),
    (
        "host.vmnet.internal",
        A,
        &["host.vmnet.internal. A 192.168.64.1"],
    ),
    ("gateway", A, &["gateway. A 192.168.64.1"]),
    (
        "vmnet.internal",
        SOA,
        &["vmnet.internal. SOA gateway.vmnet.internal. 5"],
    ),
    (
        "vmnet.internal",
        NS,
        &["vmnet.internal. NS gateway.vmnet.internal."],
    ),
    (
        "5.64.168.192.in-addr.arpa",
        PTR,
        &[
            "5.64.168.192.in-addr.arpa. PTR web.vmnet.internal.",
            "5.64.168.192.in-addr.arpa. PTR www.vmnet.internal.",
        ],
    ),
    (
        "1.64.168.192.IN-ADDR.ARPA",
        PTR,
        &["1.64.168.192.IN-ADDR.ARPA. PTR gateway.vmnet.internal."],
    ),
    (
        "9.9.9.10.in-addr.arpa",
        PTR,
        &["9.9.9.10.in-addr.arpa. PTR elsewhere.vmnet.internal."],
    ),
    (
        "64.168.192.in-addr.arpa",
        SOA,
        &["64.168.192.in-addr.arpa. SOA gateway.vmnet.internal. 5"],
    ),
    (
        "64.168.192.in-addr.arpa",
        NS,
        &["64.168.192.in-addr.arpa. NS gateway.vmnet.internal."],
    ),
    (NIBBLES, PTR, &["PTR db.vmnet.internal."]),
    (
        "elsewhere.vmnet.internal",
        A,
        &["elsewhere.vmnet.internal. A 10.9.9.9"],
    ),
];

#[test]
fn names_that_exist() {
    let mut bench = named();
    for (name, kind, expected) in NAMES {
        let reply = ask(&mut bench, name, kind);
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::NoError,
            "{name} {kind}"
        );
        assert!(
            reply.metadata.authoritative && reply.metadata.recursion_available,
            "{name}"
        );
        assert!(
            reply.metadata.recursion_desired && !reply.metadata.truncation,
            "{name}"
        );
        assert!(
            reply.authorities.is_empty() && reply.edns.is_none(),
            "{name}"
        );
        let shown = show(&reply.answers);
        assert_eq!(shown.len(), expected.len(), "{name} {kind}: {shown:?}");
        for (line, expected) in shown.iter().zip(expected) {
            assert!(line.ends_with(expected), "{name} {kind}: {line}");
        }
        assert!(reply.answers.iter().all(|record| record.ttl == 10));
    }
    assert_eq!(bench.proxy.counters().local, NAMES.len() as u64);
}

#[test]
fn names_without_such_a_record() {
    let table = [
        ("web.vmnet.internal", AAAA, "vmnet.internal."),
        ("web.vmnet.internal", TXT, "vmnet.internal."),
        ("web.vmnet.internal", PTR, "vmnet.internal."),
        ("web", AAAA, "web."),
        ("web", HTTPS, "web."),
        ("vmnet.internal", A, "vmnet.internal."),
        ("5.64.168.192.in-addr.arpa", A, "64.168.192.in-addr.arpa."),
        ("64.168.192.in-addr.arpa", PTR, "64.168.192.in-addr.arpa."),
        (
            "0.0.0.0.0.0.0.0.0.0.0.0.4.6.0.0.0.0.d.f.ip6.arpa",
            PTR,
            "0.0.0.0.0.0.0.0.4.6.0.0.0.0.d.f.ip6.arpa.",
        ),
    ];
    let mut bench = named();
    for (name, kind, zone) in table {
        let reply = ask(&mut bench, name, kind);
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::NoError,
            "{name} {kind}"
        );
        assert!(reply.answers.is_empty(), "{name} {kind}");
        assert_eq!(
            show(&reply.authorities),
            [format!("{zone} SOA gateway.vmnet.internal. 5")],
            "{name} {kind}"
        );
        assert_eq!(reply.authorities[0].ttl, 5);
    }
}

#[test]
fn names_that_do_not_exist_stay_here() {
    let table = [
        ("nobody.vmnet.internal", A, "vmnet.internal."),
        ("a.web.vmnet.internal", A, "vmnet.internal."),
        ("www.example.com.vmnet.internal", AAAA, "vmnet.internal."),
        ("7.64.168.192.in-addr.arpa", PTR, "64.168.192.in-addr.arpa."),
        (
            "lb._dns-sd._udp.64.168.192.in-addr.arpa",
            PTR,
            "64.168.192.in-addr.arpa.",
        ),
        (
            "x.5.64.168.192.in-addr.arpa",
            PTR,
            "64.168.192.in-addr.arpa.",
        ),
    ];
    let mut bench = named();
    for (name, kind, zone) in table {
        let reply = ask(&mut bench, name, kind);
        assert_eq!(
            reply.metadata.response_code,
            ResponseCode::NXDomain,
            "{name} {kind}"
        );
        assert!(
            reply.answers.is_empty() && reply.metadata.authoritative,
            "{name}"
        );
        assert_eq!(
            show(&reply.authorities),
            [format!("{zone} SOA gateway.vmnet.internal. 5")],
            "{name}"
        );
    }
}

#[test]
fn everything_else_is_asked_outside() {
    let table = [
        ("example.com", A),
        ("nobody", A),
        ("", NS),
        ("com", DS),
        ("web", DS),
        ("internal", SOA),
        ("notvmnet.internal", A),
        ("168.192.in-addr.arpa", PTR),
        ("1.65.168.192.in-addr.arpa", PTR),
        ("8.8.8.8.in-addr.arpa", PTR),
        ("in-addr.arpa", NS),
        ("8.b.d.0.1.0.0.2.ip6.arpa", PTR),
    ];
    let mut bench = named();
    for (n, (name, kind)) in table.into_iter().enumerate() {
        bench.query(&query(7, name, kind));
        assert_eq!(bench.asked.len(), n + 1, "{name} {kind} was not asked");
        assert_eq!(bench.replies, []);
    }
}

#[test]
fn a_subnet_inside_an_octet_keeps_only_its_own_part() {
    let mut settings = config();
    settings.subnets = vec![("192.168.64.64".parse().unwrap(), 26)];
    let mut bench = Bench::new(0);
    bench.proxy = Proxy::new(&settings).unwrap();
    bench.proxy.set_resolvers(bench.now, &[resolver(0)]);
    let reply = ask(&mut bench, "65.64.168.192.in-addr.arpa", PTR);
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(
        reply.authorities[0].name.to_string(),
        "64.168.192.in-addr.arpa."
    );
    for name in ["63.64.168.192.in-addr.arpa", "64.168.192.in-addr.arpa"] {
        let before = bench.asked.len();
        bench.query(&query(7, name, PTR));
        assert_eq!(bench.asked.len(), before + 1, "{name}");
    }
}

#[test]
fn edns_is_answered_in_kind() {
    let mut bench = named();
    let plain = query(3, "web.vmnet.internal", A);
    let reply = ask_over(
        &mut bench,
        Transport::Udp,
        &with_opt(plain.clone(), 4096, 0, true),
    );
    let edns = reply.edns.unwrap();
    assert_eq!(
        (edns.version(), edns.max_payload(), edns.flags().dnssec_ok),
        (0, 1232, true)
    );
    assert_eq!(reply.answers.len(), 1);

    let reply = ask_over(&mut bench, Transport::Udp, &with_opt(plain, 4096, 1, false));
    // BADVERS and BADSIG are the same number.
    assert_eq!(u16::from(reply.metadata.response_code), 16);
    assert!(reply.answers.is_empty());
    let edns = reply.edns.unwrap();
    assert_eq!((edns.version(), edns.flags().dnssec_ok), (0, false));
}

#[test]
fn an_answer_too_long_for_udp_is_truncated_there_only() {
    let mut bench = named();
    let address: IpAddr = "192.168.64.77".parse().unwrap();
    for n in 0..16 {
        bench.proxy.set_name(&format!("{n:0>60}"), address).unwrap();
    }
    let full = NameError::Full {
        name: "more".into(),
    };
    assert_eq!(bench.proxy.set_name("more", address), Err(full));

    let asked = query(9, "77.64.168.192.in-addr.arpa", PTR);
    let reply = ask_over(&mut bench, Transport::Udp, &asked);
    assert!(reply.metadata.truncation && reply.answers.is_empty());
    assert_eq!(reply.queries.len(), 1);
    let reply = ask_over(
        &mut bench,
        Transport::Udp,
        &with_opt(asked.clone(), 600, 0, false),
    );
    assert!(reply.metadata.truncation && reply.edns.is_some());
    let reply = ask_over(&mut bench, Transport::Tcp, &asked);
    assert!(!reply.metadata.truncation);
    assert_eq!(reply.answers.len(), 16);
}

#[test]
fn other_classes_and_opcodes_get_nothing_of_ours() {
    let mut bench = named();
    let mut chaos = query(1, "web.vmnet.internal", A);
    let last = chaos.len() - 1;
    chaos[last] = 3;
    let reply = ask_over(&mut bench, Transport::Udp, &chaos);
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert!(reply.answers.is_empty() && !reply.metadata.authoritative);

    for name in ["vmnet.internal", "64.168.192.in-addr.arpa"] {
        let mut update = query(1, name, SOA);
        update[2] = 5 << 3;
        let reply = ask_over(&mut bench, Transport::Udp, &update);
        assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
        assert_eq!(reply.metadata.op_code, OpCode::Update);
    }
}

#[test]
fn names_come_and_go() {
    let mut bench = named();
    let serial = |bench: &mut Bench| match &ask(bench, "vmnet.internal", SOA).answers[0].data {
        RData::SOA(soa) => soa.serial,
        other => panic!("{other:?}"),
    };
    let before = serial(&mut bench);
    bench.proxy.remove_address("192.168.64.6".parse().unwrap());
    assert!(ask(&mut bench, "db.vmnet.internal", A).answers.is_empty());
    assert_eq!(ask(&mut bench, "db.vmnet.internal", AAAA).answers.len(), 1);
    bench.proxy.remove_name("DB.vmnet.internal.");
    let reply = ask(&mut bench, "db.vmnet.internal", AAAA);
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(
        ask(&mut bench, NIBBLES, PTR).metadata.response_code,
        ResponseCode::NXDomain
    );
    bench.proxy.remove_name("web");
    let reply = ask(&mut bench, "5.64.168.192.in-addr.arpa", PTR);
    assert_eq!(
        show(&reply.answers),
        ["5.64.168.192.in-addr.arpa. PTR www.vmnet.internal."]
    );
    assert!(serial(&mut bench) > before);
}

#[test]
fn names_are_checked() {
    let mut bench = named();
    let address: IpAddr = "192.168.64.9".parse().unwrap();
    for name in ["", ".", "-a", "a-", "a b", "ä", "a\0", &"x".repeat(64)] {
        let result = bench.proxy.set_name(name, address);
        assert_eq!(
            result,
            Err(NameError::Invalid { name: name.into() }),
            "{name:?}"
        );
    }
    for name in [
        "gateway",
        "HOST",
        "localhost",
        "wpad.vmnet.internal",
        "isatap",
    ] {
        let result = bench.proxy.set_name(name, address);
        assert!(
            matches!(result, Err(NameError::Reserved { .. })),
            "{name:?}: {result:?}"
        );
    }
    let holder = "192.168.64.5".parse().unwrap();
    assert_eq!(
        bench.proxy.set_name("WEB", address),
        Err(NameError::Taken {
            name: "web".into(),
            holder
        })
    );
    assert_eq!(bench.proxy.set_name("web", holder), Ok(()));
    assert_eq!(bench.proxy.set_name("vm-7.corp.example", address), Ok(()));
    assert_eq!(ask(&mut bench, "vm-7.vmnet.internal", A).answers.len(), 1);
}

#[test]
fn the_table_of_names_has_an_end() {
    let mut bench = Bench::new(0);
    let mut taken = 0_u32;
    for n in 0..5000_u32 {
        let address = IpAddr::from((0x0a00_0000 + n).to_be_bytes());
        match bench.proxy.set_name(&format!("vm{n}"), address) {
            Ok(()) => taken += 1,
            Err(NameError::Full { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(taken, 4096);
}

#[test]
fn domains_are_chosen_and_checked() {
    let with = |domain: &str| {
        Proxy::<u32>::new(&Config {
            domain: domain.into(),
            ..config()
        })
    };
    for domain in ["", ".", "a..b", "a b", "-a", &"x.".repeat(100)] {
        assert!(with(domain).is_err(), "{domain:?}");
    }
    let long = format!("{0}.{0}.{1}", "d".repeat(60), "e".repeat(58));
    for domain in ["lab", "Lab.Example.", long.as_str()] {
        let mut bench = Bench::new(0);
        bench.proxy = with(domain).unwrap();
        let name = "n".repeat(63);
        bench
            .proxy
            .set_name(&name, "192.168.64.9".parse().unwrap())
            .unwrap();
        let reply = ask(&mut bench, &format!("{name}.{domain}"), A);
        assert_eq!(reply.answers.len(), 1, "{domain}");
        let reply = ask(&mut bench, "9.64.168.192.in-addr.arpa", PTR);
        assert_eq!(reply.answers.len(), 1, "{domain}");
        let reply = ask(&mut bench, &format!("nobody.{domain}"), A);
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    }
}
