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
