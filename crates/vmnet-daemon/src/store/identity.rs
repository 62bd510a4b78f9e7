//! Which MAC belongs to which interface id, for ever.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vmnet_wire::ethernet::Mac;

use super::contents::{Contents, Draft};
use super::schema::Table;
use super::{Store, StoreError};

/// How far `last_used` may lag behind, in seconds: a start of an interface should not cost a write.
const STALE: u64 = 3600;

/// What is known of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its address.
    #[serde(with = "mac_text")]
    pub mac: Mac,
    /// When it was first seen, in seconds since 1970.
    pub created: u64,
    /// When it was last started, in seconds since 1970, to the hour.
    pub last_used: u64,
}

impl Identity {
    fn new(mac: Mac) -> Self {
        let now = unix_seconds();
        Self {
            mac,
            created: now,
            last_used: now,
        }
    }

    /// The identity in a row, if it is one.
    pub(super) fn of_row(table: Table, key: &[u8], value: &[u8]) -> Option<(Uuid, Self)> {
        if table != Table::Identity {
            return None;
        }
        Some((
            Uuid::from_slice(key).ok()?,
            serde_json::from_slice(value).ok()?,
        ))
    }

    fn of(contents: &Contents, id: Uuid) -> Option<Self> {
        let value = contents.get(Table::Identity, id.as_bytes())?;
        Self::of_row(Table::Identity, id.as_bytes(), value).map(|(_, identity)| identity)
    }

    fn write(&self, id: Uuid, draft: &mut Draft) {
        let value = serde_json::json!({
            "mac": self.mac.to_string(), "created": self.created, "last_used": self.last_used,
        });
        draft.put(
            Table::Identity,
            id.as_bytes().to_vec(),
            value.to_string().into_bytes(),
        );
    }
}

impl Store {
    /// What is known of the interface `id`.
    #[must_use]
    pub fn identity(&self, id: Uuid) -> Option<Identity> {
        Identity::of(&self.queue.contents(), id)
    }

    /// All interfaces, by id.
    #[must_use]
    pub fn identities(&self) -> Vec<(Uuid, Identity)> {
        let contents = self.queue.contents();
        let rows = contents.under(Table::Identity, &[]);
        rows.filter_map(|(key, value)| Identity::of_row(Table::Identity, key, value))
            .collect()
    }

    /// The MAC that belongs to `id`. If nothing is known of it, `wanted` belongs to it from now on.
    ///
    /// A known interface gets its MAC also while the disk is full.
    ///
    /// # Errors
    ///
    /// When `id` is unknown, and `wanted` belongs to another interface, is no unicast address, or cannot be stored.
    pub fn adopt(&self, id: Uuid, wanted: Mac) -> Result<Mac, StoreError> {
        if let Some(identity) = self.identity(id) {
            self.touch(id, identity);
            return Ok(identity.mac);
        }
        if !wanted.is_unicast() {
            return Err(StoreError::NotUnicast { mac: wanted });
        }
        self.change(move |draft| {
            if let Some(identity) = Identity::of(draft.contents(), id) {
                return Ok(identity.mac);
            }
            if let Some(owner) = draft.contents().owner(wanted) {
                return Err(StoreError::MacTaken { mac: wanted, owner });
            }
            Identity::new(wanted).write(id, draft);
            Ok(wanted)
        })
    }

    /// The MAC that belongs to `id`. If nothing is known of it, a locally administered address that no other interface
    /// has belongs to it from now on.
    ///
    /// # Errors
    ///
    /// When `id` is unknown and cannot be stored, or the system has no random numbers.
    pub fn adopt_fresh(&self, id: Uuid) -> Result<Mac, StoreError> {
        if let Some(identity) = self.identity(id) {
            self.touch(id, identity);
            return Ok(identity.mac);
        }
        self.change(move |draft| {
            if let Some(identity) = Identity::of(draft.contents(), id) {
                return Ok(identity.mac);
            }
            let mac = free_mac(draft)?;
            Identity::new(mac).write(id, draft);
            Ok(mac)
        })
    }

    /// A new interface: a random id, and a locally administered address that no other interface has.
    ///
    /// # Errors
    ///
    /// When it cannot be stored, or the system has no random numbers.
    pub fn fresh(&self) -> Result<(Uuid, Mac), StoreError> {
        self.change(|draft| {
            let id = uuid::Builder::from_random_bytes(random()?).into_uuid();
            let mac = free_mac(draft)?;
            Identity::new(mac).write(id, draft);
            Ok((id, mac))
        })
    }

    /// Forgets an interface; its address may be given to another then. Was it known?
    ///
    /// # Errors
    ///
    /// When this cannot be stored.
    pub fn forget_identity(&self, id: Uuid) -> Result<bool, StoreError> {
        self.change(move |draft| Ok(draft.remove(Table::Identity, id.as_bytes())))
    }

    /// Remembers that the interface was used, when there is time. Nobody waits for it, so its failure is only in the log.
    fn touch(&self, id: Uuid, known: Identity) {
        let now = unix_seconds();
        if now.abs_diff(known.last_used) < STALE {
            return;
        }
        let decide = move |draft: &mut Draft| {
            if let Some(identity) = Identity::of(draft.contents(), id) {
                Identity {
                    last_used: now,
                    ..identity
                }
                .write(id, draft);
            }
        };
        self.change_later(decide, |_| {});
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    let mut rest = &mut bytes[..];
    while !rest.is_empty() {
        let got = rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| StoreError::NoRandom(Arc::new(error.into())))?;
        rest = rest
            .split_at_mut_checked(got)
            .map_or(&mut [], |(_, rest)| rest);
    }
    Ok(bytes)
}

/// Unicast and locally administered: the two lowest bits of the first byte (IEEE 802 §8.4).
fn random_mac() -> Result<Mac, StoreError> {
    let [first, rest @ ..] = random::<6>()?;
    let [b, c, d, e, f] = rest;
    Ok(Mac([first & !0b01 | 0b10, b, c, d, e, f]))
}

/// A MAC that no interface has.
fn free_mac(draft: &Draft) -> Result<Mac, StoreError> {
    loop {
        let mac = random_mac()?;
        if draft.contents().owner(mac).is_none() {
            return Ok(mac);
        }
    }
}

/// A MAC as text.
pub(super) mod mac_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use vmnet_wire::ethernet::Mac;

    pub(in crate::store) fn serialize<S: Serializer>(
        mac: &Mac,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(in crate::store) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Mac, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}
