//! Real processes: `kill -9` of one that writes, and two at once. The test program starts itself again, for one test, as the other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;
use vmnet_wire::ethernet::Mac;

use super::{Rng, id, lease};
use crate::store::{LeaseChange, OpenError, Opened, Store};

const FOLDER: &str = "VMNET_TEST_STORE";

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::tests::process::the_other_process",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Writes, and says on standard output what was acknowledged, one line each, after it was.
#[test]
#[ignore = "started by the other tests of this file"]
fn the_other_process() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let (store, _) = Store::open(Path::new(&folder)).unwrap();
    let say = |line: String| std::io::stdout().write_all(line.as_bytes()).unwrap();
    say("\nopen\n".to_owned());
    let began = u64::try_from(store.identities().len()).unwrap();
    let mut rng = Rng(began);
    for n in began.. {
        let (id_of, mac) = store.fresh().unwrap();
        say(format!("identity {id_of} {mac}\n"));
        let key = format!("key-{}", rng.below(100));
        store.put_reservation(id(1), &key, &json!(n)).unwrap();
        say(format!("reservation {key} {n}\n"));
        let (done, committed) = mpsc::channel();
        for _ in 0..rng.below(20) {
            let mut record = lease(rng.byte(250), 2);
            record.expires = n;
            let (done, line) = (done.clone(), format!("lease {} {n}\n", record.address));
            store.keep_leases(id(1), vec![LeaseChange::Put(record)], move |result| {
                result.unwrap();
                done.send(line).unwrap();
            });
        }
        drop(done);
        committed.iter().for_each(say);
    }
}

#[derive(Default)]
struct Acknowledged {
    identities: BTreeMap<Uuid, Mac>,
    reservations: BTreeMap<String, u64>,
    leases: BTreeMap<String, u64>,
}

impl Acknowledged {
    fn read(&mut self, line: &str) {
        let mut words = line.split(' ');
        let (Some(what), Some(key), Some(value)) = (words.next(), words.next(), words.next())
        else {
            return;
        };
        match what {
            "identity" => {
                _ = self
                    .identities
                    .insert(key.parse().unwrap(), value.parse().unwrap())
            }
            "reservation" => {
                _ = self
                    .reservations
                    .insert(key.to_owned(), value.parse().unwrap())
            }
            "lease" => _ = self.leases.insert(key.to_owned(), value.parse().unwrap()),
            _ => {}
        }
    }

    /// Everything is in `store`, or something newer in its place.
    fn assert_in(&self, store: &Store) {
        for (id, mac) in &self.identities {
            assert_eq!(store.identity(*id).map(|identity| identity.mac), Some(*mac));
        }
        let found: BTreeMap<_, _> = store.reservations(id(1)).into_iter().collect();
        for (key, n) in &self.reservations {
            assert!(
                found[key].as_u64().unwrap() >= *n,
                "{key} was {n}, and is {}",
                found[key]
            );
        }
        let found: BTreeMap<_, _> = store
            .leases(id(1))
            .into_iter()
            .map(|lease| (lease.address.to_string(), lease.expires))
            .collect();
        for (address, n) in &self.leases {
            assert!(
                found[address] >= *n,
                "{address} was {n}, and is {}",
                found[address]
            );
        }
    }
}

#[test]
fn kill_9_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng(9);
    let mut acknowledged = Acknowledged::default();
    let rounds = 30;
    for _ in 0..rounds {
        let mut child = start(folder.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line != "open\n" {
            line.clear();
            assert_ne!(
                lines.read_line(&mut line).unwrap(),
                0,
                "the process ended before it opened the store"
            );
        }
        // After so many lines, at any moment.
        for _ in 0..rng.below(40) {
            line.clear();
            lines.read_line(&mut line).unwrap();
            assert!(line.ends_with('\n'), "the process ended by itself");
            acknowledged.read(line.trim_end());
        }
        thread::sleep(Duration::from_micros(rng.next() % 3000));
        child.kill().unwrap();
        child.wait().unwrap();
        let said: Vec<_> = lines.split(b'\n').map(Result::unwrap).collect();
        // The last one may be torn.
        for line in said.iter().take(said.len().saturating_sub(1)) {
            acknowledged.read(str::from_utf8(line).unwrap());
        }
        let (store, opened) = Store::open(folder.path()).unwrap();
        assert_eq!(opened, Opened::Existing);
        acknowledged.assert_in(&store);
        // At most one that the process could not speak of any more, in each round.
        assert!(store.identities().len() <= acknowledged.identities.len() + rounds);
    }
    println!(
        "killed {rounds} times; acknowledged: {} identities, {} reservations, {} leases",
        acknowledged.identities.len(),
        acknowledged.reservations.len(),
        acknowledged.leases.len()
    );
    assert!(acknowledged.identities.len() > rounds);
}

#[test]
fn a_second_process_is_refused_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = start(folder.path());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "open"));
    let error = Store::open(folder.path()).map(drop).unwrap_err();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("in use by another"), "{error}");
    let (store, opened) = Store::open(folder.path()).unwrap();
    assert_eq!(opened, Opened::Existing);
    let again = Store::open(folder.path()).map(drop).unwrap_err();
    assert!(matches!(again, OpenError::InUse { .. }), "{again}");
    drop(store);
    Store::open(folder.path()).unwrap();
}
