//! Every message in every state of the address it is about.

use super::*;

/// What the guest's address is before.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Offered,
    Bound,
    Expired,
    Released,
    /// The guest found it in use.
    Declined,
    /// Another guest has it.
    Anothers,
}

use Before::{Anothers, Bound, Declined, Expired, Nothing, Offered, Released};
const ALL: [Before; 7] = [
    Nothing, Offered, Bound, Expired, Released, Declined, Anothers,
];

/// A server in which the address of guest 1 is so, the address, and the time.
fn prepared(before: Before) -> (Server, Ipv6Addr, Instant) {
    let (mut server, now) = server();
    let address = solicit(1).ask(&mut server, now).only();
    let later = now + secs(60);
    let about = |kind| Wire::new(1, kind).ours().address(1, &[address]);
    match before {
        Offered => return (server, address, now),
        // An offer that is not taken is nothing again.
        Nothing | Anothers => assert_eq!(server.timeout(later), []),
        Bound | Expired | Released | Declined => {
            request(1, address).ask(&mut server, now);
        }
    }
    match before {
        Anothers => {
            let wire = Wire::new(2, SOLICIT).address(1, &[address]);
            let reply = wire.option(14, &[]).ask(&mut server, later);
            assert_eq!(reply.only(), address);
        }
        Expired => {
            server.timeout(now + LEASE);
            return (server, address, now + LEASE);
        }
        Released => drop(about(RELEASE).ask(&mut server, now)),
        Declined => drop(about(DECLINE).ask(&mut server, now)),
        Nothing | Offered | Bound => {}
    }
    (server, address, later)
}

/// What an answer says of the association.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Says {
    Same,
    Another,
    /// The told one is over, and here is another.
    Instead,
    Unbound,
    Nothing,
}

fn says(reply: &Read, address: Ipv6Addr) -> Says {
    let granted = reply.granted();
    let [one] = granted.as_slice() else {
        assert_eq!(granted, []);
        return Says::Nothing;
    };
    match (one.addresses.as_slice(), one.status) {
        ([(same, 1..)], None) if *same == address => Says::Same,
        ([(_, 1..)], None) => Says::Another,
        ([(_, 1..), (told, 0)], None) if *told == address => Says::Instead,
        ([], Some(NO_BINDING)) => Says::Unbound,
        _ => panic!("{one:?}"),
    }
}

#[test]
fn every_message_in_every_state() {
    for before in ALL {
        let (untouched, taken) = {
            let (server, address, _) = prepared(before);
            (
                state(&server, address),
                matches!(before, Declined | Anothers),
            )
        };
        let ends = if taken || before == Nothing {
            Says::Unbound
        } else {
            Says::Nothing
        };
        let if_mine = |then| if taken { untouched } else { Some(then) };
        let offered = if before == Bound {
            untouched
        } else {
            if_mine(State::Offered)
        };
        let released = if before == Bound {
            Some(State::Released)
        } else {
            untouched
        };
        let declined = if matches!(before, Bound | Offered) {
            Some(State::Declined)
        } else {
            untouched
        };
        let fresh = if taken { Says::Another } else { Says::Same };
        let longer = if taken { Says::Instead } else { Says::Same };
        for (kind, answer, expected, then) in [
            (SOLICIT, ADVERTISE, fresh, offered),
            (REQUEST, REPLY, fresh, if_mine(State::Bound)),
            (RENEW, REPLY, longer, if_mine(State::Bound)),
            (REBIND, REPLY, longer, if_mine(State::Bound)),
            (CONFIRM, REPLY, Says::Nothing, untouched),
            (RELEASE, REPLY, ends, released),
            (DECLINE, REPLY, ends, declined),
        ] {
            let (mut server, address, now) = prepared(before);
            let mut wire = Wire::new(1, kind);
            if [REQUEST, RENEW, RELEASE, DECLINE].contains(&kind) {
                wire = wire.ours();
            }
            let reply = wire.address(1, &[address]).ask(&mut server, now);
            assert_eq!(reply.kind, answer, "{kind} {before:?}");
            assert_eq!(says(&reply, address), expected, "{kind} {before:?}");
            assert_eq!(state(&server, address), then, "{kind} {before:?}");
            let whole = [CONFIRM, RELEASE, DECLINE].contains(&kind);
            let status = whole.then_some(SUCCESS);
            assert_eq!(reply.status(), status, "{kind} {before:?}");
            if before == Anothers {
                assert_eq!(server.lease(address).unwrap().mac, mac(2));
            }
        }
    }
}

#[test]
fn what_each_message_must_have() {
    let (mut server, now) = server();
    let stranger = b"\0\x03\0\x01strange";
    for (kind, needs_server) in [
        (SOLICIT, false),
        (REQUEST, true),
        (CONFIRM, false),
        (RENEW, true),
        (REBIND, false),
        (RELEASE, true),
        (DECLINE, true),
    ] {
        for client in [false, true] {
            for told in [None, Some(&SERVER[..]), Some(&stranger[..])] {
                let mut wire = Wire::bare(1, kind);
                if client {
                    wire = wire.option(1, &duid(1));
                }
                if let Some(id) = told {
                    wire = wire.option(2, id);
                }
                let wire = wire.address(1, &[ip(0x99)]);
                let valid = client && told.is_some() == needs_server;
                let ours = told.is_none_or(|id| id == SERVER);
                if !valid || !ours {
                    let cause = if valid { Drop::NotForUs } else { Drop::Invalid };
                    assert_eq!(wire.refused(&mut server, now), cause, "{kind}");
                    continue;
                }
                assert_eq!(wire.ask(&mut server, now).get(1), Some(&duid(1)[..]));
                // To the gateway alone.
                let unicast = wire.unicast();
                if needs_server {
                    let reply = unicast.ask(&mut server, now);
                    assert_eq!(reply.codes(), [2, 1, 13]);
                    assert_eq!(reply.status(), Some(USE_MULTICAST));
                } else {
                    assert_eq!(unicast.refused(&mut server, now), Drop::Unicast);
                }
            }
        }
    }
}

#[test]
fn which_addresses_are_of_this_link() {
    let (mut server, now) = server();
    let confirm = |addresses: &[Ipv6Addr]| Wire::new(1, CONFIRM).address(1, addresses);
    for (addresses, status) in [
        (&[ip(7)][..], SUCCESS),
        (&[ip(7), ip(8)], SUCCESS),
        (&[ip(7), FOREIGN], NOT_ON_LINK),
        (&[FOREIGN], NOT_ON_LINK),
    ] {
        let reply = confirm(addresses).ask(&mut server, now);
        assert_eq!(reply.status(), Some(status));
        assert_eq!(reply.codes(), [2, 1, 13]);
    }
    let empty = confirm(&[]).refused(&mut server, now);
    assert_eq!(empty, Drop::NothingToConfirm);
    let moved = request(1, FOREIGN).ask(&mut server, now);
    assert_eq!(moved.granted()[0].status, Some(NOT_ON_LINK));
}

#[test]
fn an_offer_of_which_another_server_profits() {
    let (mut server, now) = server();
    let offered = solicit(1).ask(&mut server, now).only();
    let other = Wire::new(1, REQUEST).option(2, b"\0\x03\0\x01strange");
    let other = other.address(1, &[offered]);
    assert_eq!(other.refused(&mut server, now), Drop::NotForUs);
    assert_eq!(state(&server, offered), None);
}
