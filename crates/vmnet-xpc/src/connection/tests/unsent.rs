//! Messages that cannot be sent, on connections that go on.

use super::*;
use crate::array::Array;
use crate::failure::Unsent;
use crate::wire::{MOST_BYTES, MOST_DESCRIPTORS, WriteError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

fn holding(object: Object) -> Dictionary {
    let letter = message(1);
    drop(letter.set(c"what", Some(object)));
    letter
}

fn too_long() -> Dictionary {
    holding(Object::new(Body::Data(vec![7; MOST_BYTES].into())))
}

fn descriptors(count: usize) -> Dictionary {
    let (one, _) = UnixStream::pair().unwrap();
    let one = OwnedFd::from(one);
    let copies = (0..count).map(|_| Object::new(Body::Fd(one.try_clone().unwrap())));
    holding(Object::new(Body::Array(copies.collect())))
}

fn too_deep() -> Dictionary {
    let mut inner = Object::new(Body::Null);
    for _ in 0..100 {
        let around: Array = std::iter::once(inner).collect();
        inner = Object::new(Body::Array(around));
    }
    holding(inner)
}

fn is_unsent(object: &Object, why: WriteError) -> bool {
    is(object, Failure::Unsent(Unsent::Unwritable(why)))
}

/// What cannot be sent to this listener, and why.
fn unsendable(listener: &Object) -> [(Dictionary, WriteError); 4] {
    [
        (too_long(), WriteError::TooLong),
        (
            descriptors(MOST_DESCRIPTORS + 1),
            WriteError::TooManyDescriptors,
        ),
        (too_deep(), WriteError::TooDeep),
        (holding(listener.clone()), WriteError::NotSendable),
    ]
}

#[test]
fn a_question_that_cannot_be_sent_fails_alone() {
    let (listener, _said) = doubling(Role::Anonymous);
    let client = client_of(&listener);
    let told = events(&client);
    for (letter, why) in unsendable(&listener) {
        let answer = core(&client).ask_and_wait(&letter);
        assert!(is_unsent(&answer, why), "{answer:?}");
        assert_eq!(number(&core(&client).ask_and_wait(&message(21))), 42);
    }
    // Who asked knows it; the handler need not.
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
}

#[test]
fn of_a_message_that_cannot_be_sent_the_handler_is_told() {
    let (listener, said) = doubling(Role::Anonymous);
    let client = client_of(&listener);
    let told = events(&client);
    for (letter, why) in unsendable(&listener) {
        core(&client).send(&letter);
        let event = told.recv_timeout(LONG).unwrap();
        assert!(is_unsent(&event, why), "{event:?}");
        core(&client).send(&message(5));
        assert_eq!(number(&said.recv_timeout(LONG).unwrap()), 5);
    }
    assert!(!core(&client).is_dead());
}

#[test]
fn of_an_answer_that_cannot_be_sent_both_are_told() {
    let (listener, told) = answering(Role::Anonymous, |number| match number {
        0 => too_long(),
        number => message(number * 2),
    });
    let client = client_of(&listener);
    for _ in 0..2 {
        let answer = core(&client).ask_and_wait(&message(0));
        assert!(is(&answer, Failure::Unanswered), "{answer:?}");
        let event = told.recv_timeout(LONG).unwrap();
        assert!(is_unsent(&event, WriteError::TooLong), "{event:?}");
        assert_eq!(number(&core(&client).ask_and_wait(&message(21))), 42);
    }
}

/// A client, and the other end of its socket, which nobody reads.
fn unread() -> (Object, OwnedFd) {
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let client = new(Role::EndpointClient(theirs));
    core(&client).resume();
    core(&client).send(&message(0));
    let (_, mut sockets) = link::receive(ours.as_fd(), &mut [0; 8]).unwrap();
    (client, sockets.pop().unwrap())
}

#[test]
fn a_line_that_is_full_takes_no_more_and_goes_on() {
    let (client, socket) = unread();
    let told = events(&client);
    let letter = holding(Object::new(Body::Data(vec![7; 10 << 20].into())));
    for _ in 0..20 {
        core(&client).send(&letter);
    }
    for _ in 6..20 {
        let event = told.recv_timeout(LONG).unwrap();
        assert!(is(&event, Failure::Unsent(Unsent::LineFull)), "{event:?}");
    }
    drop(socket);
    let event = told.recv_timeout(LONG).unwrap();
    assert!(is(&event, Failure::Invalid), "{event:?}");
}

#[test]
fn descriptors_that_the_kernel_refuses_end_nothing() {
    // Without rights a user may have as many on their way as a process may have open.
    let limit = getrlimit(Resource::Nofile);
    let (few, maximum) = (Some(256), limit.maximum);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: few,
            maximum,
        },
    )
    .unwrap();
    let mut own = capabilities(None).unwrap();
    own.effective -= CapabilitySet::SYS_RESOURCE | CapabilitySet::SYS_ADMIN;
    set_capabilities(None, own).unwrap();

    let (client, socket) = unread();
    let told = events(&client);
    let letter = descriptors(MOST_DESCRIPTORS);
    for _ in 0..10 {
        core(&client).send(&letter);
    }
    let event = told.recv_timeout(LONG).unwrap();
    assert!(is(&event, Failure::Unsent(Unsent::Refused)), "{event:?}");
    let answer = core(&client).ask_and_wait(&letter);
    assert!(is(&answer, Failure::Unsent(Unsent::Refused)), "{answer:?}");
    // Those that went are whole, and so is what comes behind them.
    core(&client).send(&message(77));
    let mut stream = crate::wire::Stream::default();
    let mut numbers = Vec::new();
    while numbers.last() != Some(&77) {
        let mut bytes = [0; 4096];
        let (count, descriptors) = link::receive(socket.as_fd(), &mut bytes).unwrap();
        stream.push(&bytes[..count], descriptors);
        while let Some(frame) = stream.next_frame().unwrap() {
            numbers.push(number(&Object::new(Body::Dictionary(frame.message))));
        }
    }
    assert!(numbers.len() > 2, "{numbers:?}");
    assert!(!core(&client).is_dead());
}
