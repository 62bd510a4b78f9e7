//! Everything that is stored, in memory, and changes to it.
//!
//! Rows are kept as they are in the file: a key and a value of bytes. So one loop loads, compares and writes every table, and what
//! a row means is known to one file each ([`super::identity`], [`super::network`], [`super::lease`]).

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;
use vmnet_wire::ethernet::Mac;

use super::identity::Identity;
use super::schema::Table;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// One change to one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Write it, whether or not it was there.
    Put {
        table: Table,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    /// Remove it, whether or not it was there.
    Remove { table: Table, key: Vec<u8> },
}

/// All tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Contents {
    tables: BTreeMap<Table, Rows>,
    /// Whose a MAC is: the table of identities the other way round.
    owners: HashMap<Mac, Uuid>,
}

impl Contents {
    /// The value of one row.
    pub(super) fn get(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.tables.get(&table)?.get(key).map(Vec::as_slice)
    }

    /// The rows whose key begins with `prefix`, in order: the rest of the key, and the value.
    pub(super) fn under<'a>(
        &'a self,
        table: Table,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.tables
            .get(&table)
            .into_iter()
            .flat_map(move |rows| rows.range(prefix.to_vec()..))
            .map_while(move |(key, value)| Some((key.strip_prefix(prefix)?, value.as_slice())))
    }

    /// Every row.
    pub(super) fn rows(&self) -> impl Iterator<Item = (Table, &[u8], &[u8])> {
        self.tables.iter().flat_map(|(&table, rows)| {
            rows.iter()
                .map(move |(key, value)| (table, key.as_slice(), value.as_slice()))
        })
    }

    /// Whose `mac` is.
    pub(super) fn owner(&self, mac: Mac) -> Option<Uuid> {
        self.owners.get(&mac).copied()
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Put { table, key, value } => {
                self.disown(table, &key);
                if let Some((id, identity)) = Identity::of_row(table, &key, &value) {
                    self.owners.insert(identity.mac, id);
                }
                self.tables.entry(table).or_default().insert(key, value);
            }
            Change::Remove { table, key } => {
                self.disown(table, &key);
                if let Some(rows) = self.tables.get_mut(&table) {
                    rows.remove(&key);
                    if rows.is_empty() {
                        self.tables.remove(&table);
                    }
                }
            }
        }
    }

    /// Forgets whose MAC it was that the row `key` names.
    fn disown(&mut self, table: Table, key: &[u8]) {
        let Some(value) = self.get(table, key) else {
            return;
        };
        if let Some((_, identity)) = Identity::of_row(table, key, value) {
            self.owners.remove(&identity.mac);
        }
    }

    /// The changes that make `self` out of `other`.
    pub(super) fn since(&self, other: &Self) -> Vec<Change> {
        let gone = other
            .rows()
            .filter(|(table, key, _)| self.get(*table, key).is_none());
        let gone = gone.map(|(table, key, _)| Change::Remove {
            table,
            key: key.to_vec(),
        });
        let new = self
            .rows()
            .filter(|(table, key, value)| other.get(*table, key) != Some(value));
        let new = new.map(|(table, key, value)| Change::Put {
            table,
            key: key.to_vec(),
            value: value.to_vec(),
        });
        gone.chain(new).collect()
    }
}

/// The contents as they will be when the changes that were made to them are on the disk.
#[derive(Debug, Default)]
pub(super) struct Draft {
    contents: Contents,
    changes: Vec<Change>,
}

impl Draft {
    pub(super) fn of(contents: Contents) -> Self {
        Self {
            contents,
            changes: Vec::new(),
        }
    }

    pub(super) fn contents(&self) -> &Contents {
        &self.contents
    }

    pub(super) fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.make(Change::Put { table, key, value });
    }

    /// Removes a row. Was it there?
    pub(super) fn remove(&mut self, table: Table, key: &[u8]) -> bool {
        let there = self.contents.get(table, key).is_some();
        if there {
            self.make(Change::Remove {
                table,
                key: key.to_vec(),
            });
        }
        there
    }

    /// Removes all rows whose key begins with `prefix`.
    pub(super) fn remove_under(&mut self, table: Table, prefix: &[u8]) {
        let rests: Vec<_> = self
            .contents
            .under(table, prefix)
            .map(|(rest, _)| rest.to_vec())
            .collect();
        for rest in rests {
            self.make(Change::Remove {
                table,
                key: [prefix, rest.as_slice()].concat(),
            });
        }
    }

    fn make(&mut self, change: Change) {
        self.contents.apply(change.clone());
        self.changes.push(change);
    }

    pub(super) fn into_parts(self) -> (Contents, Vec<Change>) {
        (self.contents, self.changes)
    }
}
