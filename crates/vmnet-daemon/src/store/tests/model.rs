//! Any calls in any order, with restarts: the store is what a plain model is.

use std::sync::Arc;

use proptest::prelude::*;

use super::disk::Disk;
use super::{Call, Model};
use crate::store::{Opened, Store};

#[derive(Debug, Clone)]
enum Step {
    Call(Call),
    Reopen,
}

fn call() -> impl Strategy<Value = Call> {
    let (n, m) = (0..4_u8, 0..12_u8);
    let changes = prop::collection::vec((any::<u8>(), any::<Option<u8>>()), 0..5);
    prop_oneof![
        4 => (m.clone(), 0..16_u8).prop_map(|(n, m)| Call::Adopt(n, m)),
        1 => m.clone().prop_map(Call::ForgetIdentity),
        1 => (n.clone(), any::<u8>()).prop_map(|(n, v)| Call::PutNetwork(n, v)),
        1 => n.clone().prop_map(Call::DeleteNetwork),
        2 => (n.clone(), m.clone(), any::<u8>()).prop_map(|(n, k, v)| Call::PutReservation(n, k, v)),
        1 => (n.clone(), m.clone()).prop_map(|(n, k)| Call::RemoveReservation(n, k)),
        2 => (n.clone(), m.clone(), any::<u8>()).prop_map(|(n, k, v)| Call::PutForward(n, k, v)),
        1 => (n.clone(), m).prop_map(|(n, k)| Call::RemoveForward(n, k)),
        3 => (n.clone(), changes).prop_map(|(n, changes)| Call::KeepLeases(n, changes)),
        1 => n.prop_map(Call::ForgetLeases),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![12 => call().prop_map(Step::Call), 1 => Just(Step::Reopen)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn the_store_is_its_model(steps in prop::collection::vec(step(), 1..50)) {
        let disk = Arc::new(Disk::default());
        let (mut store, opened) = Store::on(disk.clone()).unwrap();
        prop_assert_eq!(opened, Opened::Fresh);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Call(call) => {
                    let expected = model.apply(&call);
                    prop_assert_eq!(call.make(&store).map_err(drop), expected, "{:?}", call);
                }
                Step::Reopen => {
                    drop(store);
                    let opened;
                    (store, opened) = Store::on(disk.clone()).unwrap();
                    prop_assert_eq!(opened, Opened::Existing);
                }
            }
            prop_assert_eq!(&Model::of(&store), &model);
        }
        drop(store);
        let (store, _) = Store::on(disk).unwrap();
        prop_assert_eq!(&Model::of(&store), &model);
    }
}
