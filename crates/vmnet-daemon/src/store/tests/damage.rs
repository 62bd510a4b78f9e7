//! Truncated files and flipped bits: the right content, or set aside. Never a panic, never a wrong MAC.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::disk::Disk;
use super::{Call, Model, Rng, id, mac};
use crate::store::{Opened, Store};

/// The header of the file, in which every bit is flipped: what redb's design says of the first page.
const HEADER: usize = 320;
/// The bit that says which of two commits is the newest: byte and bit. While a file is open, it is the one bit that nothing
/// protects: with it flipped, a file looks as if power was lost just before its last commit.
const NEWEST: (usize, usize) = (9, 0);

/// A store with some of everything, as its bytes after a clean close and as they are while it is open, and what it holds.
///
/// The last call adopted the interface 250.
fn images() -> (Vec<u8>, Vec<u8>, Model) {
    let disk = Arc::new(Disk::default());
    let (store, _) = Store::on(disk.clone()).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(4));
    for _ in 0..300 {
        let call = Call::random(&mut rng);
        if model.apply(&call).is_ok() {
            call.make(&store).unwrap();
        }
    }
    // The last is one that would be missed.
    let last = Call::Adopt(250, 250);
    model.apply(&last).unwrap();
    last.make(&store).unwrap();
    assert_eq!(Model::of(&store), model);
    let open = disk.bytes();
    drop(store);
    (disk.bytes(), open, model)
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Right,
    SetAside,
    /// What it held before the last call.
    Before,
}

/// Opens a damaged file, which must have the right content or be set aside.
fn open(bytes: Vec<u8>, expected: &Model, what: &str) -> Outcome {
    let outcome = open_any(bytes, expected, what);
    assert!(
        outcome != Outcome::Before,
        "{what}: the last call is gone, and nothing was said"
    );
    outcome
}

fn open_any(bytes: Vec<u8>, expected: &Model, what: &str) -> Outcome {
    let disk = Arc::new(Disk::holding(bytes));
    let (store, opened) = Store::on(disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
    match opened {
        Opened::Existing => {
            let mut found = Model::of(&store);
            if found == *expected {
                return Outcome::Right;
            }
            found.apply(&Call::Adopt(250, 250)).unwrap();
            assert!(
                found == *expected,
                "{what}: wrong content, and nothing was said"
            );
            Outcome::Before
        }
        Opened::SetAside { reason, .. } => {
            assert!(!reason.is_empty());
            assert_eq!(disk.set_aside_count(), 1);
            assert_eq!(Model::of(&store), Model::default(), "{what}");
            assert_eq!(store.adopt(id(1), mac(1)).unwrap(), mac(1), "{what}");
            Outcome::SetAside
        }
        Opened::Fresh => panic!("{what}: the file was not seen"),
    }
}

#[test]
fn undamaged_files_are_read() {
    let (closed, opened, model) = images();
    assert_eq!(open(closed, &model, "closed"), Outcome::Right);
    assert_eq!(open(opened, &model, "left open"), Outcome::Right);
}

#[test]
fn truncated_files_are_set_aside() {
    let (closed, opened, model) = images();
    for (bytes, name) in [(closed, "closed"), (opened, "left open")] {
        let mut rng = Rng(7);
        let page_ends = (0..bytes.len())
            .step_by(4096)
            .flat_map(|at| [at.saturating_sub(1), at, at + 1]);
        let header = (0..HEADER).step_by(7);
        let random = (0..50).map(|_| rng.below(bytes.len()));
        let (mut read, mut aside) = (0, 0);
        for length in header
            .chain(page_ends)
            .chain(random)
            .filter(|length| *length < bytes.len())
        {
            match open(
                bytes[..length].to_vec(),
                &model,
                &format!("{name}, truncated to {length}"),
            ) {
                Outcome::Right => read += 1,
                _ => aside += 1,
            }
        }
        println!(
            "{name}: {aside} truncated files set aside, {read} read, of {} bytes",
            bytes.len()
        );
        assert!(aside > 100);
    }
}

#[test]
fn longer_files_and_foreign_files_are_set_aside_or_read() {
    let (closed, _, model) = images();
    for extra in [1, 511, 4096, 1 << 20] {
        let mut bytes = closed.clone();
        bytes.resize(closed.len() + extra, 0);
        open(bytes, &model, &format!("{extra} bytes longer"));
    }
    assert_eq!(open(Vec::new(), &model, "empty"), Outcome::SetAside);
    assert_eq!(
        open(vec![0; closed.len()], &model, "all zero"),
        Outcome::SetAside
    );
    let foreign = b"SQLite format 3\0".repeat(1000);
    assert_eq!(open(foreign, &model, "another format"), Outcome::SetAside);
}

#[test]
fn a_flipped_bit_anywhere_is_harmless_or_seen() {
    let (closed, opened, model) = images();
    for (bytes, name) in [(closed, "closed"), (opened, "left open")] {
        let mut rng = Rng(11);
        let header = (0..HEADER).flat_map(|at| (0..8).map(move |bit| (at, bit)));
        // Most of a file is free pages: flip where something is written.
        let written: Vec<_> = (HEADER..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let random: Vec<_> = (0..600)
            .map(|_| (written[rng.below(written.len())], rng.below(8)))
            .collect();
        let (mut read, mut aside) = (0, 0);
        for (at, bit) in header.chain(random) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            if (at, bit, name) == (NEWEST.0, NEWEST.1, "left open") {
                assert_eq!(
                    open_any(flipped, &model, "the bit of the newest commit"),
                    Outcome::Before
                );
                continue;
            }
            match open(flipped, &model, &format!("{name}, bit {bit} of byte {at}")) {
                Outcome::Right => read += 1,
                _ => aside += 1,
            }
        }
        println!("{name}: {aside} flipped bits set aside, {read} harmless");
        assert!(aside > 100);
    }
}

#[test]
fn pages_that_are_lost_or_exchanged_are_seen() {
    let (closed, opened, model) = images();
    for (bytes, name) in [(closed, "closed"), (opened, "left open")] {
        let mut rng = Rng(13);
        let pages = bytes.len() / 4096;
        let mut outcomes = BTreeMap::<Outcome, usize>::new();
        for _ in 0..200 {
            let (a, b) = (rng.below(pages) * 4096, rng.below(pages) * 4096);
            let mut damaged = bytes.clone();
            match rng.below(3) {
                0 => damaged[a..a + 4096].fill(0),
                1 => damaged[a..a + 4096].fill_with(|| rng.byte(255)),
                _ => damaged.copy_within(a..a + 4096, b),
            }
            *outcomes
                .entry(open(
                    damaged,
                    &model,
                    &format!("{name}, pages at {a} and {b}"),
                ))
                .or_default() += 1;
        }
        println!("{name}: {outcomes:?}");
    }
}

#[test]
fn a_panic_at_any_read_of_an_open_is_contained() {
    let (closed, _, model) = images();
    let mut aside = 0;
    for after in 0.. {
        let disk = Arc::new(Disk::holding(closed.clone()));
        disk.trouble().reads = Some(after);
        let (store, opened) = Store::on(disk.clone()).unwrap();
        if opened == Opened::Existing {
            assert!(Model::of(&store) == model);
            break;
        }
        let Opened::SetAside { reason, .. } = opened else {
            panic!("{opened:?}")
        };
        assert_eq!(reason, "the disk panics");
        store.adopt(id(1), mac(1)).unwrap();
        aside += 1;
    }
    println!("{aside} reads of an open");
    assert!(aside > 10);
}
