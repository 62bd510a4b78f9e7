//! Full disks and I/O errors: what was acknowledged stays, what failed is not there, and the store goes on when the disk does.

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::json;

use super::disk::{Disk, Trouble};
use super::{Call, Model, Rng, id, mac};
use crate::store::{OpenError, Opened, Store, StoreError};

/// Makes random calls. In every second round the disk is in trouble; at the end power is lost, in or out of trouble.
fn live_with(trouble: &Trouble, rounds: usize) -> usize {
    let disk = Arc::new(Disk::default());
    let (store, _) = Store::on(disk.clone()).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(1));
    let mut refused = Vec::new();
    for round in 0..rounds {
        let troubled = round % 2 == 1;
        *disk.trouble() = if troubled {
            trouble.clone()
        } else {
            Trouble::default()
        };
        for _ in 0..6 {
            let call = Call::random(&mut rng);
            let mut next = model.clone();
            if next.apply(&call).is_err() || next == model {
                continue;
            }
            match call.make(&store) {
                Ok(()) => {
                    model = next;
                    refused.clear();
                }
                Err(StoreError::Write { path, .. }) if troubled => {
                    assert_eq!(path, Path::new("/simulated/store.redb"));
                    refused.push(next);
                }
                Err(error) => panic!("round {round}, {call:?}: {error}"),
            }
            assert_eq!(Model::of(&store), model, "round {round}, {call:?}");
        }
    }
    disk.crash(&mut rng);
    let (after, opened) = Store::on(disk).unwrap();
    assert_eq!(opened, Opened::Existing);
    let found = Model::of(&after);
    assert!(
        found == model || refused.contains(&found),
        "neither what was acknowledged nor a refused call more"
    );
    refused.len()
}

#[test]
fn a_disk_that_takes_no_writes() {
    for kind in [
        ErrorKind::StorageFull,
        ErrorKind::QuotaExceeded,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::Other,
    ] {
        let trouble = Trouble {
            writes: Some(kind),
            ..Trouble::default()
        };
        assert_eq!(live_with(&trouble, 21), 0);
        assert!(live_with(&trouble, 20) > 0, "{kind}: nothing was refused");
    }
}

#[test]
fn a_disk_whose_syncs_fail_and_forget() {
    for kind in [ErrorKind::Other, ErrorKind::StorageFull] {
        for after in 0..4 {
            let trouble = Trouble {
                syncs: Some((after, kind)),
                ..Trouble::default()
            };
            assert_eq!(live_with(&trouble, 21), 0);
            let refused: usize = (20..32)
                .step_by(2)
                .map(|rounds| live_with(&trouble, rounds))
                .sum();
            assert!(refused > 0, "{kind}: nothing was refused");
        }
    }
}

#[test]
fn a_bad_place_on_the_disk_is_left() {
    let disk = Arc::new(Disk::default());
    let (store, _) = Store::on(disk.clone()).unwrap();
    store.adopt(id(1), mac(1)).unwrap();
    disk.wear_out();
    let error = store.adopt(id(2), mac(2)).unwrap_err().to_string();
    assert!(error.contains("kernel's log"), "{error}");
    store.adopt(id(3), mac(3)).unwrap();
    drop(store);
    let (store, opened) = Store::on(disk).unwrap();
    assert_eq!((opened, store.identities().len()), (Opened::Existing, 2));
}

#[test]
fn a_store_whose_database_panics_is_written_anew() {
    let disk = Arc::new(Disk::default());
    let (store, _) = Store::on(disk.clone()).unwrap();
    store.adopt(id(1), mac(1)).unwrap();
    disk.trouble().panics = true;
    let error = store.adopt(id(2), mac(2)).unwrap_err().to_string();
    assert!(error.contains("the disk panics"), "{error}");
    assert_eq!(disk.set_aside_count(), 0);
    disk.trouble().panics = false;
    store.adopt(id(3), mac(3)).unwrap();
    assert_eq!(disk.set_aside_count(), 1);
    drop(store);
    let (store, opened) = Store::on(disk).unwrap();
    assert_eq!(opened, Opened::Existing);
    let macs: Vec<_> = store
        .identities()
        .into_iter()
        .map(|(_, identity)| identity.mac)
        .collect();
    assert_eq!(macs, [mac(1), mac(3)]);
}

#[test]
fn a_known_interface_starts_while_the_disk_is_full() {
    let disk = Arc::new(Disk::default());
    let (store, _) = Store::on(disk.clone()).unwrap();
    store.adopt(id(1), mac(1)).unwrap();
    disk.trouble().writes = Some(ErrorKind::StorageFull);
    assert_eq!(store.adopt(id(1), mac(9)).unwrap(), mac(1));
    let error = store.fresh().unwrap_err().to_string();
    assert!(
        error.contains("/simulated/store.redb") && error.contains("make room"),
        "{error}"
    );
    assert!(store.forget_identity(id(1)).is_err());
    assert_eq!(store.adopt(id(1), mac(9)).unwrap(), mac(1));
    assert_eq!(store.identities().len(), 1);
    disk.trouble().writes = None;
    store.fresh().unwrap();
}

#[test]
fn a_full_disk_at_the_first_start_is_said() {
    let disk = Arc::new(Disk::default());
    disk.trouble().writes = Some(ErrorKind::StorageFull);
    let error = Store::on(disk).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
    let error = error.to_string();
    assert!(
        error.contains("/simulated/store.redb") && error.contains("make room"),
        "{error}"
    );
}

/// A real file system of 16 MiB that is unmounted in the end.
struct Mount(tempfile::TempDir);

impl Mount {
    /// `None`, with the reason printed, where nobody may mount.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=16m", "vmnet-store-test"])
            .arg(folder.path());
        let mounted = mount.output();
        match mounted {
            Ok(output) if output.status.success() => return Some(Self(folder)),
            answer if std::env::var("CI").is_ok_and(|ci| ci == "true") => {
                panic!("a tmpfs is needed: {answer:?}")
            }
            answer => println!("skipped: a tmpfs cannot be mounted here: {answer:?}"),
        }
        None
    }

    fn remount(&self, option: &str) {
        let mut mount = Command::new("mount");
        mount
            .args(["-o", &format!("remount,{option}")])
            .arg(self.0.path());
        assert!(mount.status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_real_disk_fills_up_and_is_emptied() {
    let Some(mount) = Mount::new() else { return };
    let folder = mount.0.path().join("state");
    let (store, _) = Store::open(&folder).unwrap();
    let ballast = mount.0.path().join("ballast");
    let mut kept = Vec::new();
    let mut refused = 0;
    for round in 0..4_u8 {
        for n in 0..20 {
            let (key, value) = (format!("{round}+{n}"), json!("z".repeat(4000)));
            store.put_reservation(id(0), &key, &value).unwrap();
            kept.push((key, value));
        }
        let filled = std::fs::write(&ballast, vec![1; 20 << 20]).unwrap_err();
        assert_eq!(filled.kind(), ErrorKind::StorageFull);
        for n in 0..200_u8 {
            let value = json!({ "round": round, "text": "y".repeat(8000) });
            match store.put_reservation(id(0), &format!("{round}-{n}"), &value) {
                Ok(()) => kept.push((format!("{round}-{n}"), value)),
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        text.contains("store.redb") && text.contains("make room"),
                        "{text}"
                    );
                    refused += 1;
                    break;
                }
            }
        }
        // A little room; more is taken up by what the store writes.
        std::fs::remove_file(&ballast).unwrap();
        let (id, mac) = store.fresh().unwrap();
        assert_eq!(store.identity(id).unwrap().mac, mac);
    }
    assert!(refused >= 3, "the disk was never full");
    kept.sort_by(|(a, _), (b, _)| a.cmp(b));
    assert_eq!(store.reservations(id(0)), kept);
    drop(store);

    let (store, opened) = Store::open(&folder).unwrap();
    assert_eq!(opened, Opened::Existing);
    assert_eq!(store.reservations(id(0)), kept);
    assert_eq!(store.identities().len(), 4);
    println!(
        "{} values kept, {refused} refused by a full disk",
        kept.len()
    );
    drop(store);

    mount.remount("ro");
    let error = Store::open(&folder).map(drop).unwrap_err().to_string();
    assert!(
        error.contains("store.") && error.contains("mount it writable"),
        "{error}"
    );
    mount.remount("rw");
    assert_eq!(Store::open(&folder).unwrap().0.reservations(id(0)), kept);
}
