//! What can fail when the store is opened and changed, and what to do about it.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;
use vmnet_wire::ethernet::Mac;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open: there is a daemon already.
    #[error("{} is in use by another vmnet daemon; stop that one, or give this one another state folder", path.display())]
    InUse {
        /// The file of the store.
        path: PathBuf,
    },
    /// A later version wrote it. It was not changed.
    #[error(
        "{} was written by a later version of vmnet (format {found}, this one knows {known}); \
         use that version, or move the file away to start without it", path.display()
    )]
    Newer {
        /// The file of the store.
        path: PathBuf,
        /// The version of its format.
        found: u64,
        /// The latest version that this program reads.
        known: u64,
    },
    /// The folder or the file cannot be made, read or written.
    #[error("cannot {doing} {}: {source}; {}", path.display(), remedy(source.kind()))]
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// Why a change was not made. Nothing of it is in the store then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk did not take it. The store goes on, and later changes may succeed.
    #[error("cannot write {}: {cause}; {}", path.display(), remedy(*kind))]
    Write {
        /// The file of the store.
        path: PathBuf,
        /// What kind of error it was.
        kind: ErrorKind,
        /// What the system answered.
        #[source]
        cause: Arc<dyn Error + Send + Sync>,
    },
    /// The address belongs to another interface.
    #[error(
        "{mac} belongs to the interface {owner}; choose another address, or forget that interface \
         (vmnet interface list shows them)"
    )]
    MacTaken {
        /// The address that was wanted.
        mac: Mac,
        /// Whose it is.
        owner: Uuid,
    },
    /// The address is not one that an interface can have.
    #[error(
        "{mac} is no address of one station; the lowest bit of its first byte must be 0, and not all of it zero"
    )]
    NotUnicast {
        /// The address that was wanted.
        mac: Mac,
    },
    /// Longer than the store keeps.
    #[error("{what} is {length} bytes long, and at most {limit} are kept")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// More waits to be written than the store keeps waiting. Try again later.
    #[error("the disk is slower than the changes to {}; try again", path.display())]
    Busy {
        /// The file of the store.
        path: PathBuf,
    },
    /// The store has ended.
    #[error("the store has ended")]
    Ended,
    /// A call that waits for the store's thread, made by that thread. Make it from another one.
    #[error("the store cannot wait for itself; make this change outside of the callback")]
    Itself,
    /// The system gave no random numbers.
    #[error("no random numbers for a new identity: {0}")]
    NoRandom(Arc<io::Error>),
}

impl StoreError {
    pub(super) fn write(path: &Path, cause: io::Error) -> Self {
        Self::Write {
            path: path.to_owned(),
            kind: cause.kind(),
            cause: Arc::new(cause),
        }
    }
}

/// What the owner of the machine can do about an error of a disk.
fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull => "make room on that disk",
        ErrorKind::QuotaExceeded => "make room in the quota of that user",
        ErrorKind::ReadOnlyFilesystem => "mount it writable, or choose another state folder",
        ErrorKind::PermissionDenied => {
            "let the user of the daemon read and write it, or choose another state folder"
        }
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists | ErrorKind::IsADirectory => {
            "move away what is in its place"
        }
        _ => "look for the cause in the kernel's log, or choose another state folder",
    }
}
