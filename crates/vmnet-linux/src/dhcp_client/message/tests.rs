//! Questions as a server reads them; answers of every shape.

use super::*;
use dhcproto::v4::DhcpOptions;
use vmnet_wire::ethernet::Mac;

pub(crate) const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 1);
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 64, 7);

pub(crate) fn identity() -> Identity {
    Identity {
        mac: MAC,
        host_name: Some("web".into()),
    }
}

/// A question as a server decodes it.
pub(crate) fn decode(bytes: &[u8]) -> Message {
    Message::decode(&mut Decoder::new(bytes)).unwrap()
}

/// An answer to the question with this xid.
pub(crate) fn answer(xid: u32, kind: MessageType, options: Vec<DhcpOption>) -> Vec<u8> {
    let nowhere = Ipv4Addr::UNSPECIFIED;
    let given = if kind == MessageType::Nak {
        nowhere
    } else {
        GUEST
    };
    let mut message = Message::new_with_id(xid, nowhere, given, nowhere, nowhere, &MAC.0);
    message.set_opcode(Opcode::BootReply);
    let mut all = DhcpOptions::new();
    all.insert(DhcpOption::MessageType(kind));
    all.insert(DhcpOption::ServerIdentifier(SERVER));
    for option in options {
        all.insert(option);
    }
    message.set_opts(all);
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

/// What every acknowledgement of these tests holds.
pub(crate) fn usual(seconds: u32) -> Vec<DhcpOption> {
    vec![
        DhcpOption::AddressLeaseTime(seconds),
        DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
        DhcpOption::Router(vec![SERVER]),
        DhcpOption::DomainNameServer(vec![SERVER]),
    ]
}

fn acknowledged(options: Vec<DhcpOption>) -> Option<Lease> {
    match read(&answer(9, MessageType::Ack, options), &identity(), 9) {
        Some(Answer::Ack(lease)) => Some(lease),
        None => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_discover_says_who_and_what() {
    let bytes = write(Ask::Discover, &identity(), 0x1234, 3).unwrap();
    assert_eq!(bytes.len(), 300);
    let message = decode(&bytes);
    assert_eq!(
        (message.xid(), message.secs(), message.opcode()),
        (0x1234, 3, Opcode::BootRequest)
    );
    assert_eq!(message.chaddr(), MAC.0);
    assert!(message.ciaddr().is_unspecified());
    let options = message.opts();
    assert_eq!(options.msg_type(), Some(MessageType::Discover));
    let Some(DhcpOption::ClientIdentifier(id)) = options.get(OptionCode::ClientIdentifier) else {
        panic!("no client identifier")
    };
    assert_eq!(id[..], [1, 2, 0, 0, 0, 0, 7]);
    assert_eq!(
        options.get(OptionCode::Hostname),
        Some(&DhcpOption::Hostname("web".into()))
    );
    let Some(DhcpOption::ParameterRequestList(list)) =
        options.get(OptionCode::ParameterRequestList)
    else {
        panic!("no parameter list")
    };
    for code in [
        OptionCode::InterfaceMtu,
        OptionCode::DomainSearch,
        OptionCode::ClasslessStaticRoute,
    ] {
        assert!(list.contains(&code), "{code:?}");
    }
}

/// RFC 2131 §4.3.2, table 4: which fields each kind of request has.
#[test]
fn requests_carry_what_their_state_demands() {
    for (ask, current, requested, server) in [
        (
            Ask::Request {
                address: GUEST,
                server: SERVER,
            },
            false,
            true,
            true,
        ),
        (Ask::Extend { address: GUEST }, true, false, false),
        (
            Ask::Release {
                address: GUEST,
                server: SERVER,
            },
            true,
            false,
            true,
        ),
    ] {
        let message = decode(&write(ask, &identity(), 1, 0).unwrap());
        assert_eq!(message.ciaddr() == GUEST, current, "{ask:?}");
        assert_eq!(
            message.opts().contains(OptionCode::RequestedIpAddress),
            requested,
            "{ask:?}"
        );
        assert_eq!(
            message.opts().contains(OptionCode::ServerIdentifier),
            server,
            "{ask:?}"
        );
    }
}

#[test]
fn a_full_lease_is_read() {
    let mut options = usual(3600);
    options.extend([
        DhcpOption::InterfaceMtu(9000),
        DhcpOption::DomainName("vmnet.internal".into()),
        DhcpOption::DomainSearch(vec![
            "a.example.".parse().unwrap(),
            "b.example.".parse().unwrap(),
        ]),
        DhcpOption::Renewal(100),
        DhcpOption::Rebinding(200),
    ]);
    let lease = acknowledged(options).unwrap();
    let default = Route {
        network: Ipv4Addr::UNSPECIFIED,
        prefix_len: 0,
        gateway: Some(SERVER),
    };
    assert_eq!(
        lease,
        Lease {
            address: GUEST,
            prefix_len: 24,
            server: SERVER,
            duration: Duration::from_secs(3600),
            renew_after: Duration::from_secs(100),
            rebind_after: Duration::from_secs(200),
            routes: vec![default],
            resolvers: vec![SERVER],
            domain: Some("vmnet.internal".into()),
            search: vec!["a.example".into(), "b.example".into()],
            mtu: Some(9000),
        }
    );
}

#[test]
fn times_without_sense_are_replaced() {
    let seconds = Duration::from_secs;
    for (t1, t2, expected) in [
        (None, None, (1800, 3150)),
        (Some(4000), Some(5000), (1800, 3150)),
        (Some(200), Some(100), (100, 100)),
        (Some(3300), None, (1800, 3150)),
    ] {
        let mut options = usual(3600);
        options.extend(t1.map(DhcpOption::Renewal));
        options.extend(t2.map(DhcpOption::Rebinding));
        let lease = acknowledged(options).unwrap();
        let times = (lease.renew_after, lease.rebind_after);
        assert_eq!(
            times,
            (seconds(expected.0), seconds(expected.1)),
            "{t1:?} {t2:?}"
        );
    }
    let endless = acknowledged(usual(u32::MAX)).unwrap();
    assert_eq!(endless.duration, seconds(MAX_DURATION.into()));
    assert_eq!(acknowledged(usual(0)).unwrap().duration, seconds(1));
}

/// RFC 3442: with option 121 the router option does not count; what is on the link comes first.
#[test]
fn classless_routes_replace_the_router() {
    let far = Ipv4Addr::new(10, 9, 9, 9);
    let mut options = usual(60);
    options.push(DhcpOption::ClasslessStaticRoute(vec![
        ("0.0.0.0/0".parse().unwrap(), far),
        ("10.1.2.3/16".parse().unwrap(), SERVER),
        ("10.8.0.0/16".parse().unwrap(), Ipv4Addr::UNSPECIFIED),
    ]));
    let route = |text: &str, gateway| {
        let (network, length) = text.split_once('/').unwrap();
        Route {
            network: network.parse().unwrap(),
            prefix_len: length.parse().unwrap(),
            gateway,
        }
    };
    assert_eq!(
        acknowledged(options).unwrap().routes,
        [
            route("10.8.0.0/16", None),
            route("10.9.9.9/32", None),
            route("0.0.0.0/0", Some(far)),
            route("10.1.0.0/16", Some(SERVER)),
        ]
    );
}

#[test]
fn what_could_end_a_line_of_the_resolver_file_is_left_out() {
    let mut options = usual(60);
    options.push(DhcpOption::DomainName("evil\nnameserver 6.6.6.6".into()));
    assert_eq!(acknowledged(options).unwrap().domain, None);
    assert_eq!(domain("good.example."), Some("good.example".into()));
    assert_eq!(domain("two words"), None);
    assert_eq!(domain("."), None);
}

#[test]
fn answers_to_others_are_left_alone() {
    let ack = answer(9, MessageType::Ack, usual(60));
    assert!(read(&ack, &identity(), 9).is_some());
    assert_eq!(read(&ack, &identity(), 8), None, "another exchange");
    let other = Identity {
        mac: Mac([2, 0, 0, 0, 0, 8]),
        host_name: None,
    };
    assert_eq!(read(&ack, &other, 9), None, "another station");
    let mut options = usual(60);
    options.push(DhcpOption::ClientIdentifier(vec![1, 9, 9, 9, 9, 9, 9]));
    assert_eq!(acknowledged(options), None, "another client identifier");
    assert_eq!(acknowledged(vec![]), None, "no lease time");
    let question = write(Ask::Discover, &identity(), 9, 0).unwrap();
    assert_eq!(read(&question, &identity(), 9), None, "a question");
}

#[test]
fn cut_and_changed_answers_never_panic() {
    let whole = answer(9, MessageType::Ack, usual(60));
    for length in 0..whole.len() {
        let _ = read(&whole[..length], &identity(), 9);
    }
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut changed = whole.clone();
            changed[at] ^= 1 << bit;
            let _ = read(&changed, &identity(), 9);
        }
    }
}
