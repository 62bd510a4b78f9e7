use super::*;
use crate::gateway::dhcp6::guest::{SOLICIT, Wire};
use proptest::prelude::*;

fn of(wire: &Wire) -> Result<Message, Drop> {
    read(&wire.bytes)
}

#[test]
fn what_a_client_says() {
    let a = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
    let wire = Wire::bare(9, SOLICIT)
        .option(1, b"\0\x01client")
        .option(1, b"\0\x01another")
        .option(2, b"\0\x02server")
        .address(7, &[a, Ipv6Addr::UNSPECIFIED])
        .option(4, &[0, 0, 0, 8])
        .option(25, &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0])
        .option(8, &[0, 0])
        .option(14, &[])
        .wants(&[23, 24])
        .named(1, "web.example");
    let association = |iaid, of| Association { iaid, of };
    let expected = Message {
        kind: Kind::Solicit,
        transaction: [0xab, 0xcd, 9],
        client: Some(b"\0\x01client".to_vec()),
        server: Some(b"\0\x02server".to_vec()),
        associations: vec![
            association(7, Of::Address(vec![a])),
            association(8, Of::Temporary),
            association(9, Of::Prefixes),
        ],
        wanted: Some(vec![23, 24]),
        rapid_commit: true,
        fqdn: Some((1, b"\x03web\x07example".to_vec())),
    };
    assert_eq!(of(&wire), Ok(expected));
}

#[test]
fn kinds() {
    let dropped = |cause| Err(cause);
    for (kind, expected) in [
        (0, dropped(Drop::UnknownMessage)),
        (1, Ok(Kind::Solicit)),
        (2, dropped(Drop::NotARequest)),
        (3, Ok(Kind::Request)),
        (4, Ok(Kind::Confirm)),
        (5, Ok(Kind::Renew)),
        (6, Ok(Kind::Rebind)),
        (7, dropped(Drop::NotARequest)),
        (8, Ok(Kind::Release)),
        (9, Ok(Kind::Decline)),
        (10, dropped(Drop::NotARequest)),
        (11, Ok(Kind::InformationRequest)),
        (12, dropped(Drop::Relayed)),
        (13, dropped(Drop::Relayed)),
        (14, dropped(Drop::UnknownMessage)),
        (255, dropped(Drop::UnknownMessage)),
    ] {
        let read = of(&Wire::bare(1, kind)).map(|message| message.kind);
        assert_eq!(read, expected, "{kind}");
    }
}

#[test]
fn what_cannot_be_read() {
    let malformed: &[&[u8]] = &[
        &[],
        &[1, 2, 3],
        &[1, 0, 0, 0, 0],
        &[1, 0, 0, 0, 0, 14, 0],
        &[1, 0, 0, 0, 0, 14, 0, 1],
        // An association shorter than its numbers, and one that ends inside an address.
        &[1, 0, 0, 0, 0, 3, 0, 4, 0, 0, 0, 1],
        &[1, 0, 0, 0, 0, 25, 0, 3, 0, 0, 1],
        &[
            1, 0, 0, 0, 0, 3, 0, 17, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 1, 9,
        ],
        // Half a code, and a name without flags.
        &[1, 0, 0, 0, 0, 6, 0, 1, 0],
        &[1, 0, 0, 0, 0, 39, 0, 0],
    ];
    for bytes in malformed {
        assert_eq!(read(bytes), Err(Drop::Malformed), "{bytes:?}");
    }
    let long = vec![0; MAX_CLIENT_ID + 1];
    for bad in [&[][..], &[0, 3], &long] {
        for code in [1, 2] {
            let wire = Wire::bare(1, SOLICIT).option(code, bad);
            assert_eq!(of(&wire), Err(Drop::BadDuid));
        }
    }
}

#[test]
fn lists_have_an_end() {
    let many: Vec<Ipv6Addr> = (1..100)
        .map(|n| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n))
        .collect();
    let mut wire = Wire::new(1, SOLICIT).wants(&[7; 1000]);
    for iaid in 0..100 {
        wire = wire.address(iaid, &many);
    }
    let message = of(&wire).unwrap();
    assert_eq!(message.associations.len(), MAX_ASSOCIATIONS);
    assert_eq!(message.wanted.unwrap().len(), MAX_WANTED);
    for association in message.associations {
        assert_eq!(association.of, Of::Address(many[..MAX_ADDRESSES].to_vec()));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, kind in 0_u8..14) {
        let _ = read(&bytes);
        let headed = [&[kind, 0, 0, 0][..], &bytes].concat();
        let _ = read(&headed);
    }
}
