//! Any sequence of events leaves the core alive, its promises kept, and in the end nothing behind.

use proptest::prelude::*;
use vmnet_lab::sim::nonsense;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_events(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        nonsense::run(&bytes);
    }
}

#[test]
fn what_once_broke_does_not_break_again() {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fuzz/regressions/core_events"
    );
    let files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert!(!files.is_empty());
    for file in files {
        nonsense::run(&std::fs::read(&file).unwrap());
    }
}
