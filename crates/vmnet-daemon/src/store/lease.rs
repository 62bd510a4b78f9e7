//! DHCP leases, as they are kept.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vmnet_wire::ethernet::Mac;

use super::contents::Draft;
use super::identity::mac_text;
use super::schema::Table;
use super::{Store, StoreError};

/// What a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseState {
    /// The client has it.
    Bound,
    /// The client had it, and did not renew it.
    Expired,
    /// The client gave it back.
    Released,
}

/// One address, and who has or had it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The address.
    pub address: IpAddr,
    /// The hardware address of the client.
    #[serde(with = "mac_text")]
    pub mac: Mac,
    /// Its client identifier, if it sent one; its DUID if the address is IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Vec<u8>>,
    /// Which of its IPv6 addresses this is (IAID).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iaid: Option<u32>,
    /// Its name, if it sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// What the lease is.
    pub state: LeaseState,
    /// When it ends or ended, in seconds since 1970.
    pub expires: u64,
}

/// A change of the leases of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseChange {
    /// This is what is known of its address now.
    Put(LeaseRecord),
    /// Nothing is known of this address any more.
    Remove(IpAddr),
}

/// The network and lease in a row.
pub(super) fn of_row(key: &[u8], value: &[u8]) -> Option<(Uuid, LeaseRecord)> {
    let (network, address) = key.split_at_checked(16)?;
    let lease: LeaseRecord = serde_json::from_slice(value).ok()?;
    (octets(lease.address) == address).then_some((Uuid::from_slice(network).ok()?, lease))
}

impl Store {
    /// The leases of a network, by address.
    #[must_use]
    pub fn leases(&self, network: Uuid) -> Vec<LeaseRecord> {
        let contents = self.queue.contents();
        let rows = contents.under(Table::Lease, network.as_bytes());
        rows.filter_map(|(_, value)| serde_json::from_slice(value).ok())
            .collect()
    }

    /// Keeps changes of leases, and tells `done` when the disk has them all, or none of them. Does not wait.
    ///
    /// Changes are kept in the order of these calls, and of all others that return before or begin after them. `done` is called exactly
    /// once, by the thread of the store, which can write nothing meanwhile: it should only pass the word on. When too much waits
    /// already it is called before this returns, with [`StoreError::Busy`].
    pub fn keep_leases(
        &self,
        network: Uuid,
        changes: Vec<LeaseChange>,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) {
        let rows = changes.iter().map(|change| match change {
            LeaseChange::Put(lease) => Ok((
                lease_key(network, lease.address),
                Some(serde_json::to_vec(lease)?),
            )),
            LeaseChange::Remove(address) => Ok((lease_key(network, *address), None)),
        });
        let rows: Vec<_> = match rows.collect::<serde_json::Result<_>>() {
            Ok(rows) => rows,
            Err(error) => return done(Err(StoreError::write(self.queue.path(), error.into()))),
        };
        let decide = move |draft: &mut Draft| {
            for (key, value) in rows {
                match value {
                    Some(value) => draft.put(Table::Lease, key, value),
                    None => _ = draft.remove(Table::Lease, &key),
                }
            }
        };
        self.change_later(decide, done);
    }

    /// Forgets all leases of a network.
    ///
    /// # Errors
    ///
    /// When this cannot be stored.
    pub fn forget_leases(&self, network: Uuid) -> Result<(), StoreError> {
        self.change(move |draft| {
            draft.remove_under(Table::Lease, network.as_bytes());
            Ok(())
        })
    }
}

fn lease_key(network: Uuid, address: IpAddr) -> Vec<u8> {
    [network.as_bytes().as_slice(), &octets(address)].concat()
}

/// Four bytes or sixteen: so IPv4 addresses are where they always were.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
