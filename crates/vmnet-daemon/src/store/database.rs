//! redb: opened, written, and opened again after an error.
//!
//! Calls to redb are contained: an error is sorted into a [`Fault`], and so is a panic, which redb may do on a damaged file.
//!
//! After a failed commit redb refuses to go on, and the file may or may not have the commit. What is done depends on the cause:
//!
//! - The disk was full: nothing on it was lost. The file is opened again, and brought to what is in memory.
//! - Any other error: after a failed sync, the pages that the kernel shows may not be those on the disk. A new file is written from
//!   memory, and takes the place of the old one when it is complete.
//! - redb found damage, or panicked: the same, and the old file is kept aside.

use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use redb::{Builder, Database, WriteTransaction};

use super::contents::{Change, Contents};
use super::medium::Medium;
use super::{Opened, StoreError, schema};

/// Pages that redb may keep in memory. The contents are there anyway.
const CACHE: usize = 4 << 20;

/// Why a file could not be opened or written.
#[derive(Debug)]
pub(super) enum Fault {
    /// By another process.
    InUse,
    /// Of a later version.
    Newer { found: u64 },
    /// The system said no.
    Io(io::Error),
    /// It is not as redb and we wrote it.
    Damaged(String),
}

impl From<redb::Error> for Fault {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::InUse,
            // Of a file that is too short, is no database, or names pages that no file can have.
            redb::Error::Io(error)
                if matches!(
                    error.kind(),
                    ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput
                ) =>
            {
                Self::Damaged(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::PreviousIo => Self::Io(io::Error::other("an I/O error before this one")),
            other => Self::Damaged(other.to_string()),
        }
    }
}

macro_rules! fault_from {
    ($($error:ident)*) => {
        $(impl From<redb::$error> for Fault {
            fn from(error: redb::$error) -> Self {
                redb::Error::from(error).into()
            }
        })*
    };
}
fault_from! { DatabaseError TableError StorageError TransactionError }

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Fault {
    fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::InUse => io::Error::new(ErrorKind::ResourceBusy, "another process has it open"),
            Self::Newer { found } => {
                io::Error::other(format!("it was replaced by a file of format {found}"))
            }
            Self::Damaged(reason) => io::Error::other(reason),
        }
    }

    fn is_full_disk(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    }
}

/// Runs what calls redb; its panic becomes a fault.
fn contained<T>(call: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Fault::Damaged(
            said.unwrap_or_else(|| "its reader gave up".to_owned()),
        ))
    })
}

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
    contained(|| {
        let database = medium.open(&builder())?;
        schema::settle(&database)?;
        let contents = schema::load(&database)?;
        Ok((database, contents))
    })
}

/// Writes a new file, which takes the place of the one that is there when it is complete.
fn create(medium: &dyn Medium, contents: &Contents) -> Result<Database, Fault> {
    contained(|| {
        let database = medium.create(&builder())?;
        transact(&database, |transaction| {
            schema::found(transaction, contents)
        })?;
        medium.publish()?;
        Ok(database)
    })
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
            if !changes.is_empty() {
                contained(|| {
                    transact(&database, |transaction| {
                        schema::write(transaction, &changes)
                    })
                })?;
            }
            Ok(database)
        });
        match changed {
            Ok(database) => Ok(Some(database)),
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

    /// Closes the file; redb may panic there too.
    fn leave(&mut self, next: State) {
        let left = std::mem::replace(&mut self.state, next);
        _ = contained(|| {
            drop(left);
            Ok(())
        });
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.leave(State::Rewrite { damaged: false });
    }
}
