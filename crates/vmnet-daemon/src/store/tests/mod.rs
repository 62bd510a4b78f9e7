//! Tests of the whole store.
//!
//! | file | what is tested |
//! | --- | --- |
//! | `mod.rs` | a plain model of a store, and random numbers with a seed |
//! | `disk.rs` | a disk that loses power, fails and fills up |
//! | `calls.rs` | each call, and the files in the folder |
//! | `queue.rs` | callbacks, order, a full queue, the end |
//! | `model.rs` | any calls in any order, with restarts |
//! | `crash.rs` | power lost at thousands of moments |
//! | `process.rs` | `kill -9` of a process that writes; two processes |
//! | `full.rs` | full disks and I/O errors |
//! | `damage.rs` | truncated files and flipped bits |
//! | `latency.rs` | how long a commit takes |

mod calls;
mod crash;
mod damage;
mod disk;
mod full;
mod latency;
mod model;
mod process;
mod queue;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::mpsc;

use serde_json::{Value, json};
use uuid::Uuid;
use vmnet_wire::ethernet::Mac;

use super::{LeaseChange, LeaseRecord, LeaseState, Store, StoreError};

/// What a store should hold.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    identities: BTreeMap<Uuid, Mac>,
    networks: BTreeMap<Uuid, Value>,
    reservations: BTreeMap<(Uuid, String), Value>,
    forwards: BTreeMap<(Uuid, String), Value>,
    leases: BTreeMap<(Uuid, IpAddr), LeaseRecord>,
}

/// One call that changes a store. Small numbers, so that calls meet.
#[derive(Debug, Clone)]
enum Call {
    Adopt(u8, u8),
    ForgetIdentity(u8),
    PutNetwork(u8, u8),
    DeleteNetwork(u8),
    PutReservation(u8, u8, u8),
    RemoveReservation(u8, u8),
    PutForward(u8, u8, u8),
    RemoveForward(u8, u8),
    KeepLeases(u8, Vec<(u8, Option<u8>)>),
    ForgetLeases(u8),
}

fn id(n: u8) -> Uuid {
    Uuid::from_u128(0x5eed_0000_0000_4000_8000_0000_0000_0000 | u128::from(n))
}

fn mac(n: u8) -> Mac {
    Mac([0x02, 0, 0, 0, 0, n])
}

/// Of both families.
fn address(n: u8) -> IpAddr {
    if n.is_multiple_of(4) {
        return Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0xd, n.into()).into();
    }
    Ipv4Addr::new(192, 168, 64, n).into()
}

fn lease(n: u8, version: u8) -> LeaseRecord {
    LeaseRecord {
        address: address(n),
        mac: mac(version),
        client_id: version.is_multiple_of(2).then(|| vec![version; 7]),
        iaid: n.is_multiple_of(4).then(|| version.into()),
        host_name: version
            .is_multiple_of(3)
            .then(|| format!("guest-{version}")),
        state: [LeaseState::Bound, LeaseState::Expired, LeaseState::Released]
            [usize::from(version % 3)],
        expires: 1_800_000_000 + u64::from(version),
    }
}

/// Values of many lengths, so that pages are split and joined.
fn value(n: u8) -> Value {
    json!({ "n": n, "text": "x".repeat(usize::from(n) * usize::from(n) / 16) })
}

fn key(n: u8) -> String {
    format!("key-{n}")
}

fn lease_changes(changes: &[(u8, Option<u8>)]) -> Vec<LeaseChange> {
    let change = |&(n, version): &(u8, Option<u8>)| match version {
        Some(version) => LeaseChange::Put(lease(n, version)),
        None => LeaseChange::Remove(address(n)),
    };
    changes.iter().map(change).collect()
}

impl Call {
    fn random(rng: &mut Rng) -> Self {
        let (n, m, version) = (rng.byte(6), rng.byte(40), rng.byte(255));
        match rng.below(16) {
            0..4 => Self::Adopt(m, rng.byte(60)),
            4 => Self::ForgetIdentity(m),
            5 => Self::PutNetwork(n, version),
            6 => Self::DeleteNetwork(n),
            7..9 => Self::PutReservation(n, m, version),
            9 => Self::RemoveReservation(n, m),
            10 => Self::PutForward(n, m, version),
            11 => Self::RemoveForward(n, m),
            12 => Self::ForgetLeases(n),
            _ => {
                let count = rng.below(5) + 1;
                let changes =
                    (0..count).map(|_| (rng.byte(200), (rng.below(4) > 0).then(|| rng.byte(255))));
                Self::KeepLeases(n, changes.collect())
            }
        }
    }

    /// Makes the call and waits for it.
    fn make(&self, store: &Store) -> Result<(), StoreError> {
        match self {
            Self::Adopt(n, m) => store.adopt(id(*n), mac(*m)).map(drop),
            Self::ForgetIdentity(n) => store.forget_identity(id(*n)).map(drop),
            Self::PutNetwork(n, v) => store.put_network(id(*n), &value(*v)),
            Self::DeleteNetwork(n) => store.delete_network(id(*n)).map(drop),
            Self::PutReservation(n, k, v) => store.put_reservation(id(*n), &key(*k), &value(*v)),
            Self::RemoveReservation(n, k) => store.remove_reservation(id(*n), &key(*k)).map(drop),
            Self::PutForward(n, k, v) => store.put_forward(id(*n), &key(*k), &value(*v)),
            Self::RemoveForward(n, k) => store.remove_forward(id(*n), &key(*k)).map(drop),
            Self::KeepLeases(n, changes) => keep_leases(store, id(*n), lease_changes(changes)),
            Self::ForgetLeases(n) => store.forget_leases(id(*n)),
        }
    }
}

fn keep_leases(store: &Store, network: Uuid, changes: Vec<LeaseChange>) -> Result<(), StoreError> {
    let (done, committed) = mpsc::channel();
    store.keep_leases(network, changes, move |result| done.send(result).unwrap());
    committed.recv().unwrap()
}

impl Model {
    /// What `store` holds.
    fn of(store: &Store) -> Self {
        let mut model = Self {
            identities: store
                .identities()
                .into_iter()
                .map(|(id, identity)| (id, identity.mac))
                .collect(),
            networks: store.networks().into_iter().collect(),
            ..Self::default()
        };
        for network in (0..8).map(id) {
            let keyed = |(key, value)| ((network, key), value);
            model
                .reservations
                .extend(store.reservations(network).into_iter().map(keyed));
            model
                .forwards
                .extend(store.forwards(network).into_iter().map(keyed));
            model.leases.extend(
                store
                    .leases(network)
                    .into_iter()
                    .map(|lease| ((network, lease.address), lease)),
            );
        }
        model
    }

    /// What `call` should answer, and do.
    fn apply(&mut self, call: &Call) -> Result<(), ()> {
        match call {
            Call::Adopt(n, m) => {
                let known = self.identities.contains_key(&id(*n));
                if !known && self.identities.values().any(|theirs| *theirs == mac(*m)) {
                    return Err(());
                }
                self.identities.entry(id(*n)).or_insert_with(|| mac(*m));
            }
            Call::ForgetIdentity(n) => _ = self.identities.remove(&id(*n)),
            Call::PutNetwork(n, v) => _ = self.networks.insert(id(*n), value(*v)),
            Call::DeleteNetwork(n) => {
                self.networks.remove(&id(*n));
                self.reservations
                    .retain(|(network, _), _| *network != id(*n));
                self.forwards.retain(|(network, _), _| *network != id(*n));
                self.leases.retain(|(network, _), _| *network != id(*n));
            }
            Call::PutReservation(n, k, v) => {
                _ = self.reservations.insert((id(*n), key(*k)), value(*v))
            }
            Call::RemoveReservation(n, k) => _ = self.reservations.remove(&(id(*n), key(*k))),
            Call::PutForward(n, k, v) => _ = self.forwards.insert((id(*n), key(*k)), value(*v)),
            Call::RemoveForward(n, k) => _ = self.forwards.remove(&(id(*n), key(*k))),
            Call::KeepLeases(n, changes) => {
                for (at, version) in changes {
                    match version {
                        Some(version) => {
                            _ = self
                                .leases
                                .insert((id(*n), address(*at)), lease(*at, *version))
                        }
                        None => _ = self.leases.remove(&(id(*n), address(*at))),
                    }
                }
            }
            Call::ForgetLeases(n) => self.leases.retain(|(network, _), _| *network != id(*n)),
        }
        Ok(())
    }
}

/// Random numbers that a seed decides (SplitMix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn byte(&mut self, end: u8) -> u8 {
        u8::try_from(self.below(usize::from(end))).unwrap()
    }
}
