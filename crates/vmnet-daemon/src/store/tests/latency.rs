//! How long a commit takes on this machine's disk. Printed; only what was written is asserted.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{address, id, lease, mac};
use crate::store::{LeaseChange, LeaseRecord, Store};

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() - 1) * percent / 100]
}

#[test]
fn commits_of_one_and_of_many() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();

    let mut single: Vec<_> = (0..200)
        .map(|n| {
            let began = Instant::now();
            store.adopt(id(n), mac(n)).unwrap();
            began.elapsed()
        })
        .collect();
    single.sort();

    let (done, committed) = mpsc::channel();
    let began = Instant::now();
    for n in 0..1000_u16 {
        let [_, low] = n.to_be_bytes();
        let record = LeaseRecord {
            expires: u64::from(n),
            ..lease(low, 1)
        };
        let (done, sent) = (done.clone(), Instant::now());
        store.keep_leases(id(0), vec![LeaseChange::Put(record)], move |result| {
            result.unwrap();
            done.send(sent.elapsed()).unwrap();
        });
    }
    drop(done);
    let mut grouped: Vec<_> = committed.iter().collect();
    let all = began.elapsed();
    grouped.sort();

    for (name, sorted) in [
        ("one at a time", &single),
        ("1000 leases at once", &grouped),
    ] {
        println!(
            "{name}: p50 {:?}, p99 {:?}",
            percentile(sorted, 50),
            percentile(sorted, 99)
        );
    }
    println!(
        "1000 leases at once: {all:?} in all; file {} bytes",
        folder.path().join("store.redb").metadata().unwrap().len()
    );
    assert_eq!(grouped.len(), 1000);
    assert_eq!(store.identities().len(), 200);
    let leases = store.leases(id(0));
    assert_eq!(leases.len(), 256);
    assert!(
        leases.iter().all(
            |lease| lease.expires >= 744 && lease.address != address(0) || lease.expires == 768
        )
    );
}
