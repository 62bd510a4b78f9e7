use super::core::{Core, Role};
use super::handler::{Handler, Slot, Waiter, tests::Closure};
use super::{Connection, Endpoint, Origin, link};
use crate::dictionary::Dictionary;
use crate::failure::Failure;
use crate::object::{Body, Object};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vmnet_queue::Target;

mod unsent;

const LONG: Duration = Duration::from_secs(20);

fn core(object: &Object) -> &Arc<Core> {
    match object.body() {
        Body::Connection(Connection(core)) => core,
        other => panic!("{other:?}"),
    }
}

fn new(role: Role) -> Object {
    Core::object_of(role, None, Target::default())
}

fn handle(object: &Object, closure: impl Fn(&Object) + Send + 'static) {
    core(object).set_handler(Some(Handler::Rust(Closure(Box::new(closure)))));
}

/// What a connection tells, in order.
fn events(object: &Object) -> Receiver<Object> {
    let (sender, receiver) = mpsc::channel();
    handle(object, move |event| drop(sender.send(event.clone())));
    receiver
}

fn dictionary(object: &Object) -> &Dictionary {
    match object.body() {
        Body::Dictionary(dictionary) => dictionary,
        other => panic!("{other:?}"),
    }
}

fn message(number: i64) -> Dictionary {
    let message = Dictionary::default();
    drop(message.set(c"number", Some(Object::new(Body::Int64(number)))));
    message
}

fn number(message: &Object) -> i64 {
    match dictionary(message).get(c"number").unwrap().body() {
        Body::Int64(number) => *number,
        other => panic!("{other:?}"),
    }
}

fn is(object: &Object, failure: Failure) -> bool {
    matches!(object.body(), Body::Error(other) if *other == failure)
}

/// A listener whose peers answer questions with the number doubled, and keeps what else they say.
fn doubling(role: Role) -> (Object, Receiver<Object>) {
    answering(role, |number| message(number * 2))
}

/// The same with other answers.
fn answering(
    role: Role,
    answer: impl Fn(i64) -> Dictionary + Copy + Send + 'static,
) -> (Object, Receiver<Object>) {
    let listener = new(role);
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    handle(&listener, move |event| {
        let sender = sender.lock().unwrap().clone();
        if !matches!(event.body(), Body::Connection(_)) {
            sender.send(event.clone()).unwrap();
            return;
        }
        let peer = core(event);
        handle(event, move |event| {
            let asked = match event.body() {
                Body::Dictionary(dictionary) => dictionary.origin.get().and_then(Origin::answered),
                _ => None,
            };
            let Some(origin) = asked else {
                sender.send(event.clone()).unwrap();
                return;
            };
            let to = origin.connection.clone();
            let reply = answer(number(event));
            reply.origin.set(origin).unwrap();
            core(&to).send(&reply);
        });
        peer.resume();
    });
    core(&listener).resume();
    (listener, receiver)
}

fn client_of(listener: &Object) -> Object {
    let client = new(Role::EndpointClient(core(listener).endpoint().unwrap()));
    core(&client).resume();
    client
}

#[test]
fn questions_are_answered_through_an_endpoint() {
    let (listener, said) = doubling(Role::Anonymous);
    let client = client_of(&listener);
    for value in 0..50 {
        assert_eq!(
            number(&core(&client).ask_and_wait(&message(value))),
            value * 2
        );
    }
    for value in 0..100 {
        core(&client).send(&message(value));
    }
    for value in 0..100 {
        assert_eq!(number(&said.recv_timeout(LONG).unwrap()), value);
    }
    let pid = i32::try_from(std::process::id()).unwrap();
    assert_eq!(
        core(&client)
            .credentials()
            .unwrap()
            .pid
            .as_raw_nonzero()
            .get(),
        pid
    );
    drop(client);
    assert!(is(&said.recv_timeout(LONG).unwrap(), Failure::Invalid));
}

#[test]
fn an_endpoint_can_be_sent() {
    let (doubler, _said) = doubling(Role::Anonymous);
    let (first, said) = doubling(Role::Anonymous);
    let client = client_of(&first);
    let letter = message(0);
    let endpoint = Object::new(Body::Endpoint(Endpoint::new(
        core(&doubler).endpoint().unwrap(),
    )));
    drop(letter.set(c"where", Some(endpoint)));
    core(&client).send(&letter);
    let received = said.recv_timeout(LONG).unwrap();
    let endpoint = dictionary(&received).get(c"where").unwrap();
    let Body::Endpoint(endpoint) = endpoint.body() else {
        panic!("an endpoint")
    };
    let copy = endpoint.descriptor().try_clone_to_owned().unwrap();
    let second = new(Role::EndpointClient(copy));
    core(&second).resume();
    assert_eq!(number(&core(&second).ask_and_wait(&message(21))), 42);
}

#[test]
fn large_messages_and_descriptors_arrive_in_order() {
    let (listener, said) = doubling(Role::Anonymous);
    let client = client_of(&listener);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    for value in 0..8 {
        let letter = message(value);
        drop(letter.set(
            c"data",
            Some(Object::new(Body::Data(vec![7; 3 << 20].into()))),
        ));
        let copy = theirs.try_clone().unwrap();
        drop(letter.set(c"fd", Some(Object::new(Body::Fd(copy)))));
        core(&client).send(&letter);
    }
    drop(theirs);
    for value in 0..8 {
        let received = said.recv_timeout(LONG).unwrap();
        assert_eq!(number(&received), value);
        let descriptor = dictionary(&received).get(c"fd").unwrap();
        let Body::Fd(descriptor) = descriptor.body() else {
            panic!("a descriptor")
        };
        std::fs::File::from(descriptor.try_clone().unwrap())
            .write_all(&[1])
            .unwrap();
    }
    let mut heard = [0; 8];
    ours.read_exact(&mut heard).unwrap();
}

#[test]
fn cancelling_tells_both_sides_and_fails_questions() {
    let (listener, _said) = doubling(Role::Anonymous);
    let silent = new(Role::Anonymous);
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    handle(&silent, move |event| {
        if matches!(event.body(), Body::Connection(_)) {
            core(event).resume();
            keep.lock().unwrap().push(event.clone());
        }
    });
    core(&silent).resume();
    let client = client_of(&silent);
    let told = events(&client);
    let slot = Arc::new(Slot::default());
    core(&client).ask(&message(1), Waiter::Thread(Arc::clone(&slot)));
    core(&client).die();
    assert!(is(&slot.wait(), Failure::Invalid));
    assert!(is(&told.recv_timeout(LONG).unwrap(), Failure::Invalid));
    assert!(is(
        &core(&client).ask_and_wait(&message(1)),
        Failure::Invalid
    ));
    assert!(told.recv_timeout(Duration::from_millis(50)).is_err());
    drop(listener);
}

#[test]
fn what_was_sent_before_a_cancel_arrives() {
    let (listener, said) = doubling(Role::Anonymous);
    let client = client_of(&listener);
    let letter = message(5);
    drop(letter.set(
        c"data",
        Some(Object::new(Body::Data(vec![7; 5 << 20].into()))),
    ));
    core(&client).send(&letter);
    core(&client).die();
    drop(client);
    assert_eq!(number(&said.recv_timeout(LONG).unwrap()), 5);
    assert!(is(&said.recv_timeout(LONG).unwrap(), Failure::Invalid));
}

#[test]
fn a_peer_that_sends_something_else_is_cut_off() {
    let (listener, said) = doubling(Role::Anonymous);
    let endpoint = core(&listener).endpoint().unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    link::send(endpoint.as_fd(), b"c", vec![theirs.as_fd()]).unwrap();
    drop(theirs);
    ours.write_all(&[0x55; 100]).unwrap();
    assert!(is(&said.recv_timeout(LONG).unwrap(), Failure::Invalid));
    let mut rest = Vec::new();
    let _reset_or_end = ours.read_to_end(&mut rest);
    assert!(rest.is_empty());
}

#[test]
fn a_peer_that_is_not_resumed_ends() {
    let listener = new(Role::Anonymous);
    core(&listener).resume();
    let client = client_of(&listener);
    let told = events(&client);
    core(&client).send(&message(1));
    assert!(is(&told.recv_timeout(LONG).unwrap(), Failure::Invalid));
}

#[test]
fn a_question_before_the_beginning_fails_at_once() {
    let client = new(Role::Client(c"no.such.service".to_owned()));
    assert!(is(
        &core(&client).ask_and_wait(&message(1)),
        Failure::Invalid
    ));
}

/// What the thread that waits for sockets has spent.
fn spent() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let folders = tasks.map(|task| task.unwrap().path());
    let own = folders.filter(|task| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "vmnet-xpc")
    });
    let spent = own.map(|task| {
        let stat = std::fs::read_to_string(task.join("schedstat")).unwrap();
        Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
    });
    spent.max().expect("a thread")
}

/// A peer that has gone while its messages wait for their handler costs nothing until they are read.
#[test]
fn who_has_gone_is_not_asked_for_again_and_again() {
    const COUNT: i64 = 1500;
    let listener = new(Role::Anonymous);
    let (gate, held) = mpsc::channel::<()>();
    let (sender, receiver) = mpsc::channel();
    let peers = Mutex::new(Some((Mutex::new(held), sender)));
    handle(&listener, move |event| {
        let Body::Connection(_) = event.body() else {
            return;
        };
        let (held, sender) = peers.lock().unwrap().take().unwrap();
        handle(event, move |event| {
            let _go_on = held.lock().unwrap().recv();
            sender.send(event.clone()).unwrap();
        });
        core(event).resume();
    });
    core(&listener).resume();
    let client = client_of(&listener);
    for value in 0..COUNT {
        core(&client).send(&message(value));
    }
    core(&client).die();
    std::thread::sleep(Duration::from_millis(200));
    let before = spent();
    std::thread::sleep(Duration::from_millis(400));
    let more = spent() - before;
    assert!(more < Duration::from_millis(100), "{more:?}");
    drop(gate);
    for value in 0..COUNT {
        assert_eq!(number(&receiver.recv_timeout(LONG).unwrap()), value);
    }
    assert!(is(&receiver.recv_timeout(LONG).unwrap(), Failure::Invalid));
}

/// Reading goes on behind a question, for the answer to come; not for ever.
#[test]
fn a_peer_that_answers_by_floods_is_given_up() {
    let listener = new(Role::Anonymous);
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    handle(&listener, move |event| {
        if let Body::Connection(_) = event.body() {
            handle(event, |_| {});
            core(event).resume();
            sender.lock().unwrap().send(event.clone()).unwrap();
        }
    });
    core(&listener).resume();
    let client = client_of(&listener);
    let (gate, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    handle(&client, move |_| {
        let _go_on = held.lock().unwrap().recv();
    });
    let (asked, answer) = mpsc::channel();
    let asker = client.clone();
    std::thread::spawn(move || asked.send(core(&asker).ask_and_wait(&message(0))));
    let peer = receiver.recv_timeout(LONG).unwrap();
    for value in 0..50_000 {
        core(&peer).send(&message(value));
    }
    let answer = answer.recv_timeout(LONG).unwrap();
    assert!(matches!(answer.body(), Body::Error(_)), "{answer:?}");
    drop(gate);
}

#[test]
fn a_flood_waits_at_its_source() {
    let listener = new(Role::Anonymous);
    let (gate, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (sender, receiver) = mpsc::channel();
    let peers = Mutex::new(Some((held, sender)));
    handle(&listener, move |event| {
        let Body::Connection(_) = event.body() else {
            return;
        };
        let (held, sender) = peers.lock().unwrap().take().unwrap();
        handle(event, move |event| {
            if matches!(event.body(), Body::Dictionary(_)) {
                let _go_on = held.lock().unwrap().recv();
                sender.send(number(event)).unwrap();
            }
        });
        core(event).resume();
    });
    core(&listener).resume();
    let client = client_of(&listener);
    for value in 0..20_000 {
        core(&client).send(&message(value));
    }
    std::thread::sleep(Duration::from_millis(100));
    drop(gate);
    for value in 0..20_000 {
        assert_eq!(receiver.recv_timeout(LONG).unwrap(), value);
    }
}
