//! Networks that stay, and what is kept with one: reservations and forwards. What they say is JSON of their owner.

use serde_json::Value;
use uuid::Uuid;

use super::schema::Table;
use super::{Store, StoreError};

/// The longest description that is kept, in bytes of JSON: as long as a request may be.
const LONGEST: usize = 1 << 20;
/// The longest key of a reservation or a forward, in bytes.
const LONGEST_KEY: usize = 1024;

/// The network in a row.
pub(super) fn of_row(key: &[u8], value: &[u8]) -> Option<(Uuid, Value)> {
    Some((
        Uuid::from_slice(key).ok()?,
        serde_json::from_slice(value).ok()?,
    ))
}

/// The network, key and value in a row of reservations or forwards.
pub(super) fn part_of_row(key: &[u8], value: &[u8]) -> Option<(Uuid, String, Value)> {
    let (network, key) = key.split_at_checked(16)?;
    let key = str::from_utf8(key).ok()?.to_owned();
    Some((
        Uuid::from_slice(network).ok()?,
        key,
        serde_json::from_slice(value).ok()?,
    ))
}

impl Store {
    /// Keeps a network. What was kept of it before is replaced.
    ///
    /// # Errors
    ///
    /// When the description is longer than 1 MiB, or cannot be stored.
    pub fn put_network(&self, id: Uuid, description: &Value) -> Result<(), StoreError> {
        self.put(Table::Network, id.as_bytes().to_vec(), description)
    }

    /// All networks that are kept, by id.
    #[must_use]
    pub fn networks(&self) -> Vec<(Uuid, Value)> {
        let contents = self.queue.contents();
        contents
            .under(Table::Network, &[])
            .filter_map(|(key, value)| of_row(key, value))
            .collect()
    }

    /// Forgets a network with its leases, reservations and forwards, all at once. Was it known?
    ///
    /// # Errors
    ///
    /// When this cannot be stored.
    pub fn delete_network(&self, id: Uuid) -> Result<bool, StoreError> {
        self.change(move |draft| {
            for table in [Table::Lease, Table::Reservation, Table::Forward] {
                draft.remove_under(table, id.as_bytes());
            }
            Ok(draft.remove(Table::Network, id.as_bytes()))
        })
    }

    /// Keeps a reservation. One of the same key is replaced.
    ///
    /// # Errors
    ///
    /// When the key is longer than 1 KiB, the value than 1 MiB, or it cannot be stored.
    pub fn put_reservation(
        &self,
        network: Uuid,
        key: &str,
        value: &Value,
    ) -> Result<(), StoreError> {
        self.put_part(Table::Reservation, network, key, value)
    }

    /// Forgets a reservation. Was it known?
    ///
    /// # Errors
    ///
    /// When this cannot be stored.
    pub fn remove_reservation(&self, network: Uuid, key: &str) -> Result<bool, StoreError> {
        self.remove_part(Table::Reservation, network, key)
    }

    /// The reservations of a network, by key.
    #[must_use]
    pub fn reservations(&self, network: Uuid) -> Vec<(String, Value)> {
        self.parts(Table::Reservation, network)
    }

    /// Keeps a forward. One of the same key is replaced.
    ///
    /// # Errors
    ///
    /// When the key is longer than 1 KiB, the value than 1 MiB, or it cannot be stored.
    pub fn put_forward(&self, network: Uuid, key: &str, value: &Value) -> Result<(), StoreError> {
        self.put_part(Table::Forward, network, key, value)
    }

    /// Forgets a forward. Was it known?
    ///
    /// # Errors
    ///
    /// When this cannot be stored.
    pub fn remove_forward(&self, network: Uuid, key: &str) -> Result<bool, StoreError> {
        self.remove_part(Table::Forward, network, key)
    }

    /// The forwards of a network, by key.
    #[must_use]
    pub fn forwards(&self, network: Uuid) -> Vec<(String, Value)> {
        self.parts(Table::Forward, network)
    }

    fn put(&self, table: Table, key: Vec<u8>, value: &Value) -> Result<(), StoreError> {
        let value = value.to_string().into_bytes();
        fits("the description", value.len(), LONGEST)?;
        self.change(move |draft| {
            draft.put(table, key, value);
            Ok(())
        })
    }

    fn put_part(
        &self,
        table: Table,
        network: Uuid,
        key: &str,
        value: &Value,
    ) -> Result<(), StoreError> {
        fits("the key", key.len(), LONGEST_KEY)?;
        self.put(table, part_key(network, key), value)
    }

    fn remove_part(&self, table: Table, network: Uuid, key: &str) -> Result<bool, StoreError> {
        let key = part_key(network, key);
        self.change(move |draft| Ok(draft.remove(table, &key)))
    }

    fn parts(&self, table: Table, network: Uuid) -> Vec<(String, Value)> {
        let contents = self.queue.contents();
        let rows = contents.under(table, network.as_bytes());
        rows.filter_map(|(key, value)| {
            Some((
                str::from_utf8(key).ok()?.to_owned(),
                serde_json::from_slice(value).ok()?,
            ))
        })
        .collect()
    }
}

fn part_key(network: Uuid, key: &str) -> Vec<u8> {
    [network.as_bytes().as_slice(), key.as_bytes()].concat()
}

fn fits(what: &'static str, length: usize, limit: usize) -> Result<(), StoreError> {
    if length > limit {
        Err(StoreError::TooLong {
            what,
            length,
            limit,
        })
    } else {
        Ok(())
    }
}
