//! Power lost at thousands of moments: what was acknowledged is there, and nothing that was not asked for.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::disk::Disk;
use super::{Call, Model, Rng, id, lease_changes};
use crate::store::{Opened, Store};

/// Calls that were made, the state before and after each, and how many are known to be durable.
struct History {
    states: Vec<Model>,
    durable: usize,
}

impl History {
    fn after(model: Model) -> Self {
        Self {
            states: vec![model],
            durable: 0,
        }
    }

    /// A call that changes nothing but is refused (a MAC that is taken) has no state of its own.
    fn add(&mut self, call: &Call) -> bool {
        let mut next = self.states.last().unwrap().clone();
        let changes = next.apply(call).is_ok();
        if changes {
            self.states.push(next);
        }
        changes
    }
}

/// Writes until the power is gone.
fn write_until_dark(store: &Store, history: &mut History, rng: &mut Rng) {
    for _ in 0..1000 {
        if rng.below(4) == 0 {
            // Several changes of leases under way at once.
            let (done, committed) = mpsc::channel();
            let calls = rng.below(6) + 2;
            for _ in 0..calls {
                let (network, changes) = (rng.byte(6), vec![(rng.byte(200), Some(rng.byte(255)))]);
                history.add(&Call::KeepLeases(network, changes.clone()));
                let (at, done) = (history.states.len() - 1, done.clone());
                store.keep_leases(id(network), lease_changes(&changes), move |result| {
                    done.send((at, result.is_ok())).unwrap();
                });
            }
            drop(done);
            let answers: Vec<_> = committed.iter().collect();
            assert_eq!(answers.len(), calls);
            for (at, _) in answers.iter().filter(|(_, committed)| *committed) {
                history.durable = history.durable.max(*at);
            }
            if answers.iter().any(|(_, committed)| !committed) {
                return;
            }
        } else {
            let call = Call::random(rng);
            let changes = history.add(&call);
            match call.make(store) {
                Ok(()) => history.durable = history.states.len() - 1,
                Err(_) if changes => return,
                Err(_) => {}
            }
        }
    }
    panic!("1000 calls took no power: nothing was written");
}

#[test]
fn what_was_acknowledged_survives_any_crash() {
    let seed = std::env::var("VMNET_SEED")
        .ok()
        .map_or(1, |seed| seed.parse().unwrap());
    let began = Instant::now();
    let (mut crashes, mut worlds, mut acknowledged) = (0, 0, 0);
    while crashes < 4000 && (began.elapsed() < Duration::from_secs(10) || crashes < 100) {
        let mut rng = Rng(seed * 1_000_000 + worlds);
        worlds += 1;
        let disk = Arc::new(Disk::default());
        disk.trouble().power = Some(rng.below(30));
        let mut model = Model::default();
        for round in 0..20 {
            let mut history = History::after(model);
            let before = disk.has_file();
            if let Ok((store, opened)) = Store::on(disk.clone()) {
                assert!(
                    opened
                        == if before {
                            Opened::Existing
                        } else {
                            Opened::Fresh
                        },
                    "{opened:?}"
                );
                assert_eq!(Model::of(&store), history.states[0]);
                write_until_dark(&store, &mut history, &mut rng);
            }
            disk.crash(&mut rng);
            crashes += 1;
            acknowledged += history.durable;

            let (store, opened) = Store::on(disk.clone()).unwrap();
            let found = Model::of(&store);
            let context = format!("world {worlds}, round {round}, seed {seed}");
            assert!(
                !matches!(opened, Opened::SetAside { .. }),
                "{opened:?}: {context}"
            );
            let known = history.states[history.durable..].contains(&found);
            assert!(
                known,
                "{context}: of {} calls, {} acknowledged",
                history.states.len() - 1,
                history.durable
            );
            drop(store);
            model = found;
            disk.trouble().power = Some(rng.below(90));
        }
    }
    assert!(
        acknowledged > crashes,
        "{acknowledged} acknowledged in {crashes} crashes: power goes too early"
    );
    println!(
        "{crashes} crashes, {acknowledged} acknowledged calls, {:?}",
        began.elapsed()
    );
}
