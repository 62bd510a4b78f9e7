//! Calls to redb, contained: an error is sorted into a [`Fault`], and so is a panic, which redb may do on a damaged file.
//!
//! A panic prints its message to standard error as any other, and ends here. (So the program must not be built with `panic = "abort"`.)

use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

use redb::Database;

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
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Io(error) => error,
            Self::InUse => io::Error::new(ErrorKind::ResourceBusy, "another process has it open"),
            Self::Newer { found } => {
                io::Error::other(format!("it was replaced by a file of format {found}"))
            }
            Self::Damaged(reason) => io::Error::other(reason),
        }
    }

    pub(super) fn is_full_disk(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded))
    }
}

/// Runs what calls redb; its panic becomes a fault.
pub(super) fn contained<T>(call: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(Fault::Damaged(
            said.unwrap_or_else(|| "its reader gave up".to_owned()),
        ))
    })
}

/// Lets `call` work with an open database. When it fails the database is closed, and not while a panic unwinds: it may panic
/// once more then, which would end the process.
pub(super) fn with<T>(
    database: Database,
    call: impl FnOnce(&Database) -> Result<T, Fault>,
) -> Result<(Database, T), Fault> {
    match contained(|| call(&database)) {
        Ok(answer) => Ok((database, answer)),
        Err(fault) => {
            close(database);
            Err(fault)
        }
    }
}

/// Closes what holds a database; redb may panic there too.
pub(super) fn close<T>(holder: T) {
    _ = contained(|| {
        drop(holder);
        Ok(())
    });
}
