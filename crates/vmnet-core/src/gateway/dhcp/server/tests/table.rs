//! Every message in every state a client can be in.

use super::*;

/// What the server knows of guest 1 (and of guest 2, whose lease is 11) before the message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Offered,
    Bound,
    Released,
    Expired,
    Declined,
}

/// What guest 1 sends about an address.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Sent {
    Discover,
    Select,
    SelectOther,
    Reboot,
    Renew,
    Rebind,
    Decline,
    Release,
}

/// What must come back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Reply(u8),
    Noted,
    Dropped(Drop),
}

fn wire(sent: Sent, address: Ipv4Addr) -> Wire {
    match sent {
        Sent::Discover => discover(1).requested(address),
        Sent::Select => select(1, address),
        Sent::SelectOther => Wire::new(mac(1), REQUEST)
            .requested(address)
            .server(OTHER_SERVER),
        Sent::Reboot => Wire::new(mac(1), REQUEST).requested(address),
        Sent::Renew => renew(1, address).unicast(),
        Sent::Rebind => renew(1, address),
        Sent::Decline => Wire::new(mac(1), DECLINE)
            .requested(address)
            .server(GATEWAY),
        Sent::Release => release(1, address),
    }
}

/// A server in which 10 is, or was, guest 1's, and 11 is guest 2's; three addresses in all.
fn prepare(before: Before) -> (Server, Instant) {
    let (mut server, start) = server(10, 12);
    let mut now = start;
    if before != Before::Nothing {
        assert_eq!(
            discover(1).requested(ip(10)).ask(&mut server, now).yiaddr(),
            ip(10)
        );
    }
    if !matches!(before, Before::Nothing | Before::Offered) {
        assert_eq!(select(1, ip(10)).ask(&mut server, now).kind(), ACK);
    }
    match before {
        Before::Nothing | Before::Offered | Before::Bound => {}
        Before::Released => assert_eq!(
            release(1, ip(10)).send(&mut server, now).outcome,
            Outcome::Noted
        ),
        Before::Expired => now += LEASE + secs(1),
        Before::Declined => {
            let decline = wire(Sent::Decline, ip(10)).send(&mut server, now);
            assert_eq!(decline.outcome, Outcome::Noted);
        }
    }
    assert_eq!(
        discover(2).requested(ip(11)).ask(&mut server, now).yiaddr(),
        ip(11)
    );
    assert_eq!(select(2, ip(11)).ask(&mut server, now).kind(), ACK);
    (server, now)
}

fn check(before: Before, sent: Sent, address: Ipv4Addr, then: Then) -> (Server, Vec<LeaseChange>) {
    let (mut server, now) = prepare(before);
    let answer = wire(sent, address).send(&mut server, now);
    let seen = match answer.outcome {
        Outcome::Reply(reply) => {
            let read = Read::new(reply);
            if read.kind() == ACK {
                assert_eq!(read.yiaddr(), address);
            }
            Then::Reply(read.kind())
        }
        Outcome::Noted => Then::Noted,
        Outcome::Dropped(cause) => Then::Dropped(cause),
    };
    assert_eq!(seen, then, "{before:?}, {sent:?} {address}");
    assert_eq!(
        state(&server, ip(11)),
        Some(State::Bound),
        "{before:?}, {sent:?}: guest 2 is untouched"
    );
    (server, answer.changes)
}

#[test]
fn about_its_own_address() {
    use Before::{Bound, Declined, Expired, Nothing, Offered, Released};
    use Then::{Dropped, Noted, Reply};
    let unknown = Dropped(Drop::UnknownClient);
    let no_lease = Dropped(Drop::NoSuchLease);
    let not_ours = Dropped(Drop::NotForUs);
    let states = [Nothing, Offered, Bound, Released, Expired, Declined];
    let (a, n) = (Reply(ACK), Reply(NAK));
    for (sent, answers) in [
        (Sent::Discover, [Reply(OFFER); 6]),
        (Sent::Select, [a, a, a, a, a, n]),
        (Sent::SelectOther, [not_ours; 6]),
        (Sent::Reboot, [unknown, a, a, a, a, unknown]),
        (Sent::Renew, [a, a, a, a, a, n]),
        (Sent::Rebind, [a, a, a, a, a, n]),
        (
            Sent::Decline,
            [no_lease, Noted, Noted, no_lease, no_lease, no_lease],
        ),
        (
            Sent::Release,
            [no_lease, no_lease, Noted, no_lease, no_lease, no_lease],
        ),
    ] {
        for (before, then) in states.into_iter().zip(answers) {
            let (server, changes) = check(before, sent, ip(10), then);
            let bound = changes
                .iter()
                .any(|change| matches!(change, LeaseChange::Bound(_)));
            assert_eq!(bound, then == a, "{before:?}, {sent:?}: said once");
            let after = match (sent, before) {
                (Sent::SelectOther, Offered | Nothing) => None,
                (Sent::Discover, Nothing | Released | Expired) => Some(State::Offered),
                (Sent::Decline, Offered | Bound) => Some(State::Declined),
                (Sent::Release, Bound) => Some(State::Released),
                _ if then == a => Some(State::Bound),
                _ => state(&prepare(before).0, ip(10)).filter(|_| before != Nothing),
            };
            assert_eq!(
                state(&server, ip(10)),
                after,
                "{before:?}, {sent:?}: state after"
            );
        }
    }
}

#[test]
fn about_another_guests_address() {
    use Before::{Bound, Declined, Expired, Nothing, Offered, Released};
    for before in [Nothing, Offered, Bound, Released, Expired, Declined] {
        let unknown = matches!(before, Nothing | Declined);
        let reboot = if unknown {
            Then::Dropped(Drop::UnknownClient)
        } else {
            Then::Reply(NAK)
        };
        for (sent, then) in [
            (Sent::Discover, Then::Reply(OFFER)),
            (Sent::Select, Then::Reply(NAK)),
            (Sent::Reboot, reboot),
            (Sent::Renew, Then::Reply(NAK)),
            (Sent::Rebind, Then::Reply(NAK)),
            (Sent::Decline, Then::Dropped(Drop::NoSuchLease)),
            (Sent::Release, Then::Dropped(Drop::NoSuchLease)),
        ] {
            check(before, sent, ip(11), then);
        }
    }
}

#[test]
fn about_an_address_of_another_network() {
    let far = Ipv4Addr::new(10, 0, 0, 9);
    for before in [
        Before::Nothing,
        Before::Offered,
        Before::Bound,
        Before::Released,
    ] {
        for sent in [Sent::Select, Sent::Reboot, Sent::Renew, Sent::Rebind] {
            check(before, sent, far, Then::Reply(NAK));
        }
        check(before, Sent::Discover, far, Then::Reply(OFFER));
        check(before, Sent::Release, far, Then::Dropped(Drop::NoSuchLease));
    }
}

#[test]
fn messages_without_the_address_they_are_about() {
    let (mut server, now) = prepare(Before::Bound);
    for kind in [REQUEST, DECLINE, RELEASE, INFORM] {
        assert_eq!(
            Wire::new(mac(1), kind).refused(&mut server, now),
            Drop::Malformed,
            "{kind}"
        );
    }
    let selecting = Wire::new(mac(1), REQUEST).server(GATEWAY);
    assert_eq!(selecting.refused(&mut server, now), Drop::Malformed);
}

#[test]
fn messages_for_another_server() {
    for kind in [DISCOVER, DECLINE, RELEASE] {
        let (mut server, now) = prepare(Before::Bound);
        let wire = Wire::new(mac(1), kind)
            .ciaddr(ip(10))
            .requested(ip(10))
            .server(OTHER_SERVER);
        assert_eq!(wire.refused(&mut server, now), Drop::NotForUs);
        assert_eq!(state(&server, ip(10)), Some(State::Bound));
    }
}
