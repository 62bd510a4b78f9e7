//! Leases on their way to the store and back: a guest is answered when its lease is there.

use crate::store::{self, Store};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;
use vmnet_linux::lane::{LeaseKeeper, LeaseRecord, LeaseState, LeaseWrite};

/// What the datapath of a network gives its leases to.
pub(super) fn keeper(store: &Store, network: Uuid) -> LeaseKeeper {
    let store = store.clone();
    LeaseKeeper::new(move |writes, receipt| {
        let changes = writes.into_iter().map(to_store).collect();
        store.keep_leases(network, changes, move |stored| {
            if let Err(error) = &stored {
                tracing::error!(%network, %error, "leases cannot be stored: guests get none");
            }
            receipt.done(stored.is_ok());
        });
    })
}

/// What the store has of a network.
pub(super) fn restored(store: &Store, network: Uuid) -> Vec<LeaseRecord> {
    store.leases(network).into_iter().map(from_store).collect()
}

/// Seconds since 1970; what was before is 0.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn to_store(write: LeaseWrite) -> store::LeaseChange {
    match write {
        LeaseWrite::Put(lease) => store::LeaseChange::Put(store::LeaseRecord {
            address: lease.address,
            mac: lease.mac,
            client_id: lease.client_id,
            iaid: lease.iaid,
            host_name: lease.host_name,
            state: match lease.state {
                LeaseState::Bound => store::LeaseState::Bound,
                LeaseState::Expired => store::LeaseState::Expired,
                LeaseState::Released => store::LeaseState::Released,
            },
            expires: seconds(lease.expires),
        }),
        LeaseWrite::Remove(address) => store::LeaseChange::Remove(address),
    }
}

fn from_store(lease: store::LeaseRecord) -> LeaseRecord {
    LeaseRecord {
        address: lease.address,
        mac: lease.mac,
        client_id: lease.client_id,
        iaid: lease.iaid,
        host_name: lease.host_name,
        state: match lease.state {
            store::LeaseState::Bound => LeaseState::Bound,
            store::LeaseState::Expired => LeaseState::Expired,
            store::LeaseState::Released => LeaseState::Released,
        },
        // A time that the clock cannot have is long over or never comes: over is the safe one.
        expires: UNIX_EPOCH
            .checked_add(Duration::from_secs(lease.expires))
            .unwrap_or(UNIX_EPOCH),
    }
}
