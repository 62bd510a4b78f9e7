//! redb: opened, written, and opened again after an error.
//!
//! After a failed commit redb refuses to go on, and the file may or may not have the commit. What is done depends on the cause:
//!
//! - The disk was full: nothing on it was lost. The file is opened again, and brought to what is in memory.
//! - Any other error: after a failed sync, the pages that the kernel shows may not be those on the disk, and the place where they
//!   lie may be bad. A new file is written from memory, and takes the place of the old one when it is complete.
//! - redb found damage, or panicked: the same, and the old file is kept aside.

use std::io;
use std::mem;
use std::sync::Arc;

use redb::{Builder, Database, WriteTransaction};

use super::contents::{Change, Contents};
use super::fault::{Fault, close, contained, with};
use super::medium::Medium;
use super::{Opened, StoreError, schema};

/// Pages that redb may keep in memory. The contents are there anyway.
const CACHE: usize = 4 << 20;

/// Commits what `write` does, all of it or nothing.
pub(super) fn transact(
    database: &Database,
    write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), Fault> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    write(&transaction)?;
    transaction
        .commit()
        .map_err(|error| redb::Error::from(error).into())
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .set_cache_size(CACHE)
        .set_check_integrity_on_open(true);
    builder
}

/// Reads the file that is there, every page of it.
fn read(medium: &dyn Medium) -> Result<(Database, Contents), Fault> {
    let database = contained(|| Ok(medium.open(&builder())?))?;
    with(database, |database| {
        schema::settle(database)?;
        schema::load(database)
    })
}

/// Writes a new file, which takes the place of the one that is there when it is complete.
fn create(medium: &dyn Medium, contents: &Contents) -> Result<Database, Fault> {
    let database = contained(|| Ok(medium.create(&builder())?))?;
    let written = with(database, |database| {
        transact(database, |transaction| schema::found(transaction, contents))?;
        Ok(medium.publish()?)
    });
    written.map(|(database, ())| database)
}

/// The file of a store, while it can be written and while it cannot.
pub(super) struct Keeper {
    medium: Arc<dyn Medium>,
    state: State,
}

enum State {
    Open(Database),
    /// The disk was full. The file may have a commit more than memory.
    Reopen,
    /// The file is not to be trusted.
    Rewrite {
        damaged: bool,
    },
}

impl Keeper {
    /// Opens the file, or makes one.
    pub(super) fn open(medium: Arc<dyn Medium>) -> Result<(Self, Contents, Opened), Fault> {
        let there = medium.exists()?;
        let read = if there { Some(read(&*medium)) } else { None };
        let (database, contents, opened) = match read {
            Some(Ok((database, contents))) => (database, contents, Opened::Existing),
            Some(Err(Fault::Damaged(reason))) => {
                let path = medium.set_aside()?;
                (
                    create(&*medium, &Contents::default())?,
                    Contents::default(),
                    Opened::SetAside { path, reason },
                )
            }
            Some(Err(fault)) => return Err(fault),
            None => (
                create(&*medium, &Contents::default())?,
                Contents::default(),
                Opened::Fresh,
            ),
        };
        Ok((
            Self {
                medium,
                state: State::Open(database),
            },
            contents,
            opened,
        ))
    }

    pub(super) fn medium(&self) -> &dyn Medium {
        &*self.medium
    }

    /// Makes changes durable. `before` is what is stored without them.
    pub(super) fn commit(
        &mut self,
        changes: &[Change],
        before: &Contents,
    ) -> Result<(), StoreError> {
        self.try_commit(changes, before).map_err(|fault| {
            let cause = fault.into_io();
            tracing::error!(path = %self.medium.path().display(), %cause, "changes were refused: they could not be stored");
            StoreError::write(self.medium.path(), cause)
        })
    }

    fn try_commit(&mut self, changes: &[Change], before: &Contents) -> Result<(), Fault> {
        let database = self.database(before)?;
        let result =
            contained(|| transact(database, |transaction| schema::write(transaction, changes)));
        if let Err(fault) = &result {
            let next = match fault {
                fault if fault.is_full_disk() => State::Reopen,
                Fault::Damaged(_) => State::Rewrite { damaged: true },
                _ => State::Rewrite { damaged: false },
            };
            self.leave(next);
        }
        result
    }

    /// The open file; after an error, the one that comes after it.
    fn database(&mut self, contents: &Contents) -> Result<&Database, Fault> {
        let opened = match self.state {
            State::Open(_) => None,
            State::Reopen => self.reopen(contents)?,
            State::Rewrite { damaged: false } => None,
            State::Rewrite { damaged: true } => {
                let aside = self.medium.set_aside()?;
                tracing::error!(aside = %aside.display(), "the stored state was damaged: it was set aside, and is written anew");
                self.state = State::Rewrite { damaged: false };
                None
            }
        };
        if let Some(database) = opened {
            self.state = State::Open(database);
        }
        if matches!(self.state, State::Rewrite { .. }) {
            self.state = State::Open(create(&*self.medium, contents)?);
        }
        match &self.state {
            State::Open(database) => Ok(database),
            State::Reopen | State::Rewrite { .. } => {
                Err(Fault::Io(io::Error::other("it could not be opened again")))
            }
        }
    }

    /// Opens the file again and brings it to `contents`; `None` when it is to be written anew.
    fn reopen(&mut self, contents: &Contents) -> Result<Option<Database>, Fault> {
        let changed = read(&*self.medium).and_then(|(database, found)| {
            let changes = contents.since(&found);
            with(database, |database| match changes.as_slice() {
                [] => Ok(()),
                changes => transact(database, |transaction| schema::write(transaction, changes)),
            })
        });
        match changed {
            Ok((database, ())) => Ok(Some(database)),
            Err(fault) if fault.is_full_disk() => Err(fault),
            Err(fault) => {
                tracing::warn!(
                    ?fault,
                    "the stored state could not be opened again, and is written anew"
                );
                self.state = State::Rewrite { damaged: false };
                Ok(None)
            }
        }
    }

    /// Closes the file.
    fn leave(&mut self, next: State) {
        close(mem::replace(&mut self.state, next));
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.leave(State::Rewrite { damaged: false });
    }
}
