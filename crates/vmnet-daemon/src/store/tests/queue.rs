//! Callbacks, order, a full queue, the end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::disk::Disk;
use super::{address, id, keep_leases, lease, mac};
use crate::store::writer::WAITING;
use crate::store::{LeaseChange, Store, StoreError};

#[test]
fn changes_are_kept_in_the_order_of_their_calls() {
    let store = Store::memory().unwrap();
    let (done, answers) = mpsc::channel();
    for n in 0..200_u8 {
        let done = done.clone();
        let change = if n % 2 == 0 {
            LeaseChange::Put(lease(1, n))
        } else {
            LeaseChange::Remove(address(1))
        };
        store.keep_leases(id(1), vec![change], move |result| {
            done.send((n, result.is_ok())).unwrap()
        });
        if n % 50 == 49 {
            store.forget_leases(id(1)).unwrap();
            assert_eq!(store.leases(id(1)), [], "{n}");
        }
        if n % 50 == 20 {
            // A synchronous call has to see what was asked for before it.
            store.put_network(id(1), &json!({})).unwrap();
            assert_eq!(store.leases(id(1)), [lease(1, n)]);
        }
    }
    drop(done);
    assert_eq!(
        answers.iter().collect::<Vec<_>>(),
        (0..200).map(|n| (n, true)).collect::<Vec<_>>()
    );
}

#[test]
fn a_full_queue_refuses_and_answers_each_once() {
    let disk = Arc::new(Disk::default());
    let (store, _) = Store::on(disk.clone()).unwrap();
    let stalled = disk.stall();
    let (done, answers) = mpsc::channel();
    let calls = WAITING * 2 + 100;
    for n in 0..calls {
        let done = done.clone();
        let version = u8::try_from(n % 256).unwrap();
        store.keep_leases(
            id(1),
            vec![LeaseChange::Put(lease(1, version))],
            move |result| done.send((n, result)).unwrap(),
        );
    }
    drop((stalled, done));
    let answers: Vec<_> = answers.iter().collect();
    assert_eq!(answers.len(), calls);
    let busy = answers
        .iter()
        .filter(|(_, result)| matches!(result, Err(StoreError::Busy { .. })))
        .count();
    let kept: Vec<_> = answers
        .iter()
        .filter(|(_, result)| result.is_ok())
        .map(|(n, _)| *n)
        .collect();
    assert!(
        busy > 0 && kept.len() >= WAITING && busy + kept.len() == calls,
        "{busy} of {calls} refused"
    );
    assert!(kept.is_sorted());
    let last = u8::try_from(kept.last().unwrap() % 256).unwrap();
    assert_eq!(store.leases(id(1)), [lease(1, last)]);
    keep_leases(&store, id(1), vec![LeaseChange::Remove(address(1))]).unwrap();
}

#[test]
fn many_threads_get_one_mac_for_one_id_and_never_one_mac_twice() {
    let store = Store::memory().unwrap();
    let answers: Vec<_> = thread::scope(|scope| {
        let adopt = |n: u8| {
            let store = store.clone();
            scope.spawn(move || {
                (
                    n % 4,
                    store.adopt(id(n % 4), mac(n)),
                    store.adopt(id(100 + n), mac(200)),
                )
            })
        };
        let threads: Vec<_> = (0..16).map(adopt).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (n, adopted, _) in &answers {
        assert_eq!(
            *adopted.as_ref().unwrap(),
            store.identity(id(*n)).unwrap().mac
        );
    }
    assert_eq!(
        answers.iter().filter(|(_, _, rival)| rival.is_ok()).count(),
        1
    );
}

#[test]
fn callbacks_may_panic_and_may_not_wait_for_their_own_thread() {
    let store = Store::memory().unwrap();
    store.keep_leases(id(1), vec![LeaseChange::Put(lease(1, 1))], |_| {
        panic!("a callback panics")
    });
    let (done, answer) = mpsc::channel();
    let inner = store.clone();
    store.keep_leases(id(1), vec![LeaseChange::Put(lease(2, 2))], move |result| {
        result.unwrap();
        done.send((inner.fresh().map(drop), inner.leases(id(1)).len()))
            .unwrap();
    });
    let (refused, seen) = answer.recv().unwrap();
    assert!(matches!(refused, Err(StoreError::Itself)), "{refused:?}");
    assert_eq!(seen, 2);
    store.fresh().unwrap();
}

#[test]
fn the_last_handle_to_go_waits_for_what_was_asked_for() {
    let disk = Arc::new(Disk::default());
    let answered = Arc::new(AtomicUsize::new(0));
    let (store, _) = Store::on(disk.clone()).unwrap();
    for n in 0..100 {
        let answered = Arc::clone(&answered);
        store.keep_leases(id(1), vec![LeaseChange::Put(lease(n, n))], move |result| {
            result.unwrap();
            answered.fetch_add(1, Ordering::SeqCst);
        });
    }
    drop(store.clone());
    drop(store);
    assert_eq!(answered.load(Ordering::SeqCst), 100);
    assert_eq!(Store::on(disk).unwrap().0.leases(id(1)).len(), 100);
}

#[test]
fn a_callback_may_have_the_last_handle() {
    let disk = Arc::new(Disk::default());
    let (store, _) = Store::on(disk.clone()).unwrap();
    let stalled = disk.stall();
    let (done, answer) = mpsc::channel();
    let last = store.clone();
    store.keep_leases(id(1), vec![LeaseChange::Put(lease(1, 1))], move |result| {
        drop(last);
        done.send(result).unwrap();
    });
    let dropping = thread::spawn(move || drop(store));
    thread::sleep(Duration::from_millis(20));
    drop(stalled);
    dropping.join().unwrap();
    answer.recv().unwrap().unwrap();
}
