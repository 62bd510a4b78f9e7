//! Each call, and the files in the folder.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use redb::{Database, ReadableTable, TableDefinition};
use serde_json::json;
use uuid::{Uuid, Variant};

use super::{Model, address, id, keep_leases, lease, mac};
use crate::store::fault::Fault;
use crate::store::schema::{self, Step};
use crate::store::{LeaseChange, LeaseRecord, LeaseState, OpenError, Opened, Store, StoreError};
use vmnet_wire::ethernet::Mac;

#[test]
fn an_unknown_id_is_adopted_and_a_known_one_keeps_its_mac() {
    let store = Store::memory().unwrap();
    assert_eq!(store.identity(id(1)), None);
    assert_eq!(store.adopt(id(1), mac(1)).unwrap(), mac(1));
    assert_eq!(store.adopt(id(1), mac(2)).unwrap(), mac(1));
    assert_eq!(store.adopt(id(2), mac(2)).unwrap(), mac(2));
    let error = store.adopt(id(3), mac(1)).unwrap_err();
    assert!(
        matches!(error, StoreError::MacTaken { owner, .. } if owner == id(1)),
        "{error}"
    );
    assert!(error.to_string().contains(&id(1).to_string()), "{error}");
    for wanted in [Mac::ZERO, Mac::BROADCAST, Mac([0x01, 0, 0x5e, 0, 0, 1])] {
        let error = store.adopt(id(3), wanted).unwrap_err();
        assert!(matches!(error, StoreError::NotUnicast { .. }), "{error}");
    }
    assert_eq!(store.identities().len(), 2);
}

#[test]
fn a_forgotten_interface_gives_its_mac_free() {
    let store = Store::memory().unwrap();
    store.adopt(id(1), mac(1)).unwrap();
    assert!(store.forget_identity(id(1)).unwrap());
    assert!(!store.forget_identity(id(1)).unwrap());
    assert_eq!(store.identity(id(1)), None);
    assert_eq!(store.adopt(id(2), mac(1)).unwrap(), mac(1));
}

#[test]
fn fresh_interfaces_have_random_ids_and_local_unicast_macs_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = Store::open(folder.path()).unwrap();
    let fresh: BTreeSet<(Uuid, Mac)> = (0..50).map(|_| store.fresh().unwrap()).collect();
    assert_eq!(
        fresh
            .iter()
            .map(|(id, _)| id)
            .collect::<BTreeSet<_>>()
            .len(),
        50
    );
    assert_eq!(
        fresh
            .iter()
            .map(|(_, mac)| mac)
            .collect::<BTreeSet<_>>()
            .len(),
        50
    );
    for (id, mac) in &fresh {
        assert_eq!(
            (id.get_version_num(), id.get_variant()),
            (4, Variant::RFC4122)
        );
        assert_eq!(
            mac.0[0] & 0b11,
            0b10,
            "{mac} is no locally administered unicast address"
        );
    }
    drop(store);
    let (store, _) = Store::open(folder.path()).unwrap();
    let found: BTreeSet<_> = store
        .identities()
        .into_iter()
        .map(|(id, identity)| (id, identity.mac))
        .collect();
    assert_eq!(found, fresh);
    let identity = store.identities()[0].1;
    assert!(identity.created > 1_700_000_000 && identity.last_used == identity.created);
}

#[test]
fn a_network_goes_with_all_that_is_its_own_and_nothing_else() {
    let store = Store::memory().unwrap();
    for network in [id(1), id(2)] {
        store
            .put_network(network, &json!({ "name": "blue" }))
            .unwrap();
        store
            .put_reservation(network, "web", &json!("192.168.64.9"))
            .unwrap();
        store
            .put_forward(network, "tcp:8080", &json!({ "to": 80 }))
            .unwrap();
        keep_leases(&store, network, vec![LeaseChange::Put(lease(5, 6))]).unwrap();
    }
    let before = Model::of(&store);
    assert!(store.delete_network(id(1)).unwrap());
    assert!(!store.delete_network(id(1)).unwrap());
    let after = Model::of(&store);
    assert_eq!(after.networks.len(), 1);
    assert_eq!(store.leases(id(2)), [lease(5, 6)]);
    assert_eq!(
        store.reservations(id(2)),
        [("web".to_owned(), json!("192.168.64.9"))]
    );
    assert_eq!(
        store.forwards(id(2)),
        [("tcp:8080".to_owned(), json!({ "to": 80 }))]
    );
    assert_eq!(
        before.leases.len() + before.reservations.len() + before.forwards.len(),
        6
    );
    assert_eq!(
        after.leases.len() + after.reservations.len() + after.forwards.len(),
        3
    );
}

#[test]
fn leases_are_replaced_removed_and_forgotten() {
    let store = Store::memory().unwrap();
    let changes = (1..=9).map(|n| LeaseChange::Put(lease(n, n))).collect();
    keep_leases(&store, id(1), changes).unwrap();
    let changes = vec![
        LeaseChange::Put(lease(3, 33)),
        LeaseChange::Remove(address(4)),
        LeaseChange::Remove(address(99)),
    ];
    keep_leases(&store, id(1), changes).unwrap();
    let leases = store.leases(id(1));
    assert_eq!(leases.len(), 8);
    assert!(leases.contains(&lease(3, 33)) && leases.is_sorted_by_key(|lease| lease.address));
    store.forget_leases(id(1)).unwrap();
    assert_eq!(store.leases(id(1)), []);
}

#[test]
fn too_long_is_refused() {
    let store = Store::memory().unwrap();
    let error = store
        .put_network(id(1), &json!("x".repeat(2 << 20)))
        .unwrap_err();
    assert!(matches!(error, StoreError::TooLong { .. }), "{error}");
    let error = store
        .put_forward(id(1), &"k".repeat(2000), &json!(1))
        .unwrap_err();
    assert!(error.to_string().contains("2000"), "{error}");
    store
        .put_network(id(1), &json!("x".repeat(900_000)))
        .unwrap();
}

#[test]
fn only_the_owner_may_read_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("a/b");
    let (_store, opened) = Store::open(&state).unwrap();
    assert_eq!(opened, Opened::Fresh);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    for entry in state.read_dir().unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert!(state.join("store.redb").exists() && !state.join("store.redb.next").exists());
}

#[test]
fn three_files_that_were_set_aside_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.redb");
    for n in 1..=5_u8 {
        fs::write(&file, vec![n; 5000]).unwrap();
        let (store, opened) = Store::open(folder.path()).unwrap();
        let Opened::SetAside { path, reason } = opened else {
            panic!("{opened:?}")
        };
        assert_eq!(fs::read(&path).unwrap(), vec![n; 5000]);
        assert!(
            !reason.is_empty() && path.to_str().unwrap().ends_with(&format!("-{n}")),
            "{}",
            path.display()
        );
        store.adopt(id(n), mac(n)).unwrap();
    }
    let names = folder
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut aside: Vec<_> = names
        .filter_map(|name| Some(name.split_once("corrupt-")?.1.to_owned()))
        .collect();
    aside.sort();
    assert!(
        matches!(&aside[..], [a, b, c] if a.ends_with("-3") && b.ends_with("-4") && c.ends_with("-5")),
        "{aside:?}"
    );
    let (store, opened) = Store::open(folder.path()).unwrap();
    assert_eq!((opened, store.identities().len()), (Opened::Existing, 1));
}

#[test]
fn what_cannot_be_a_store_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let taken = folder.path().join("taken");
    fs::write(&taken, "").unwrap();
    for path in [taken.clone(), taken.join("deeper")] {
        let error = Store::open(&path).map(drop).unwrap_err().to_string();
        assert!(
            error.contains("taken") && error.contains("move away"),
            "{error}"
        );
    }
    fs::create_dir(folder.path().join("store.redb")).unwrap();
    let error = Store::open(folder.path())
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("store.redb") && error.contains("move away"),
        "{error}"
    );
}

#[test]
fn a_left_over_next_file_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("store.redb.next"), "half").unwrap();
    let (_store, opened) = Store::open(folder.path()).unwrap();
    assert_eq!(opened, Opened::Fresh);
}

const SCHEMA: TableDefinition<'_, &str, u64> = TableDefinition::new("schema");

fn set_version(file: &Path, version: Option<u64>) {
    let database = Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    match version {
        Some(version) => {
            _ = transaction
                .open_table(SCHEMA)
                .unwrap()
                .insert("version", version)
                .unwrap()
        }
        None => _ = transaction.delete_table(SCHEMA).unwrap(),
    }
    transaction.commit().unwrap();
}

#[test]
fn a_later_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.redb");
    Store::open(folder.path())
        .unwrap()
        .0
        .adopt(id(1), mac(1))
        .unwrap();
    set_version(&file, Some(schema::VERSION + 1));
    for _ in 0..2 {
        let error = Store::open(folder.path()).map(drop).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::Newer {
                    found: 3,
                    known: 2,
                    ..
                }
            ),
            "{error:?}"
        );
        let error = error.to_string();
        assert!(
            error.contains("store.redb") && error.contains("later version"),
            "{error}"
        );
    }
    set_version(&file, Some(schema::VERSION));
    let (store, opened) = Store::open(folder.path()).unwrap();
    assert_eq!(
        (opened, store.adopt(id(1), mac(2)).unwrap()),
        (Opened::Existing, mac(1))
    );
    drop(store);

    for version in [Some(0), None] {
        set_version(&file, version);
        let (_, opened) = Store::open(folder.path()).unwrap();
        assert!(
            matches!(opened, Opened::SetAside { .. }),
            "{version:?}: {opened:?}"
        );
    }
}

#[test]
fn an_older_version_is_brought_up_step_by_step() {
    const NOTES: TableDefinition<'_, &str, &str> = TableDefinition::new("notes");
    let steps: [Step; 2] = [
        |transaction| {
            transaction.open_table(NOTES)?.insert("step", "one")?;
            Ok(())
        },
        |transaction| {
            let mut notes = transaction.open_table(NOTES)?;
            assert_eq!(notes.get("step")?.unwrap().value(), "one");
            notes.insert("step", "two")?;
            Ok(())
        },
    ];
    let folder = tempfile::tempdir().unwrap();
    Store::open(folder.path())
        .unwrap()
        .0
        .adopt(id(1), mac(1))
        .unwrap();
    let file = folder.path().join("store.redb");
    set_version(&file, Some(1));
    let failing: [Step; 2] = [steps[0], |_| Err(redb::Error::Corrupted("no".to_owned()))];
    {
        let database = Database::open(&file).unwrap();
        assert!(schema::settle_to(&database, 3, &failing).is_err());
        schema::settle_to(&database, 1, &[]).unwrap();
        schema::settle_to(&database, 3, &steps).unwrap();
        schema::settle_to(&database, 3, &steps).unwrap();
        assert!(matches!(
            schema::settle(&database),
            Err(Fault::Newer { found: 3 })
        ));
    }
    assert!(matches!(
        Store::open(folder.path()),
        Err(OpenError::Newer { found: 3, .. })
    ));
}

/// Leases as the first version wrote them, byte by byte.
#[test]
fn leases_of_the_first_version_are_read() {
    const LEASES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("lease");
    let folder = tempfile::tempdir().unwrap();
    drop(Store::open(folder.path()).unwrap());
    let file = folder.path().join("store.redb");
    {
        let database = Database::open(&file).unwrap();
        let transaction = database.begin_write().unwrap();
        let key = [id(1).as_bytes().as_slice(), &[192, 168, 64, 5]].concat();
        let row = br#"{"address":"192.168.64.5","mac":"02:00:00:00:00:05","client_id":[1,2],"state":"bound","expires":1800000000}"#;
        let mut leases = transaction.open_table(LEASES).unwrap();
        leases.insert(key.as_slice(), row.as_slice()).unwrap();
        drop(leases);
        transaction.commit().unwrap();
    }
    set_version(&file, Some(1));
    let (store, opened) = Store::open(folder.path()).unwrap();
    assert_eq!(opened, Opened::Existing);
    let known = LeaseRecord {
        address: [192, 168, 64, 5].into(),
        mac: mac(5),
        client_id: Some(vec![1, 2]),
        iaid: None,
        host_name: None,
        state: LeaseState::Bound,
        expires: 1_800_000_000,
    };
    assert_eq!(store.leases(id(1)), [known]);
    // Beside them those that it could not read.
    keep_leases(&store, id(1), vec![LeaseChange::Put(lease(4, 1))]).unwrap();
    drop(store);
    let (store, _) = Store::open(folder.path()).unwrap();
    let addresses: Vec<_> = store
        .leases(id(1))
        .iter()
        .map(|lease| lease.address)
        .collect();
    assert_eq!(addresses, [[192, 168, 64, 5].into(), address(4)]);
}
