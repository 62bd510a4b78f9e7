//! What the daemon remembers when it ends: identities of interfaces, networks, reservations, forwards, leases.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod.rs` | [`Store`]: opening, and the two ways of changing it |
//! | `identity.rs` | which MAC belongs to which interface id |
//! | `network.rs` | networks, and what is kept with one: reservations and forwards |
//! | `lease.rs` | DHCP leases |
//! | `contents.rs` | everything in memory, and changes to it |
//! | `writer.rs` | the one thread that writes; what waits is committed together |
//! | `database.rs` | redb: open, commit, and go on after an error |
//! | `fault.rs` | errors and panics of redb, contained |
//! | `schema.rs` | tables, the version of the format, its migrations |
//! | `medium.rs` | where the file is: in memory, or (`folder.rs`) in a folder, with those set aside |
//! | `error.rs` | what can fail, and what to do about it |
//!
//! **Reads come from memory.** The file is read once, at open, page by page with its checksums. So a disk that rots later
//! cannot give a wrong answer or a panic, and a file that cannot be written any more is written anew from memory.
//!
//! **A change is there when its call returns, or it never was.** It is seen by readers after it is on the disk, and what failed is
//! taken back from the file before the next change. (Only a crash between the two can leave it there.)
//!
//! **Commits are in two phases** (two syncs). With one phase, redb takes a damaged newest commit for a torn one, and silently goes
//! back to the commit before it: an identity that was acknowledged would be gone. And guests choose some of the bytes that are
//! stored (client ids, host names), which redb's design warns of with one phase. One bit is left that nothing
//! protects: the one in the header of an open file that says which of two commits is the newest.
//!
//! Not here: what the values of networks, reservations and forwards mean, and whether a lease is still good.

mod contents;
mod database;
mod error;
mod fault;
mod folder;
pub(crate) use folder::LOCK;
mod identity;
mod lease;
mod medium;
mod network;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::contents::Draft;
use self::database::Keeper;
use self::fault::Fault;
use self::folder::Folder;
use self::medium::{Medium, Memory};
use self::writer::{Job, Queue};

pub use self::error::{OpenError, StoreError};
pub use self::folder::set_aside;
pub use self::identity::Identity;
pub use self::lease::{LeaseChange, LeaseRecord, LeaseState};

/// What was found when a store was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// There was none; it was made.
    Fresh,
    /// The store of an earlier run.
    Existing,
    /// It could not be read. It was kept under another name, and an empty one was made.
    SetAside {
        /// Where the unreadable file is now.
        path: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
}

/// The daemon's memory. Clones are handles to the same store; the last one to go ends it, after everything that waits is written.
///
/// Calls that change something block until the disk has it: milliseconds usually, longer on a busy disk. Calls that only look
/// never wait for the disk.
#[derive(Clone, Debug)]
pub struct Store {
    queue: Arc<Queue>,
}

impl Store {
    /// Opens the store in `folder`, which is made if it is not there (mode 0700).
    ///
    /// # Errors
    ///
    /// When another process has it open, when it was written by a later version, and when the folder cannot be read or written.
    /// A damaged file is no error: see [`Opened::SetAside`].
    pub fn open(folder: &Path) -> Result<(Self, Opened), OpenError> {
        Self::on(Arc::new(Folder::lock(folder)?))
    }

    /// A store that is gone with the last handle, for a daemon that keeps no state.
    ///
    /// # Errors
    ///
    /// When no thread can be started.
    pub fn memory() -> Result<Self, OpenError> {
        Self::on(Arc::new(Memory::new())).map(|(store, _)| store)
    }

    fn on(medium: Arc<dyn Medium>) -> Result<(Self, Opened), OpenError> {
        let path = medium.path().to_owned();
        let (keeper, contents, opened) = Keeper::open(medium).map_err(|fault| match fault {
            Fault::InUse => OpenError::InUse { path: path.clone() },
            Fault::Newer { found } => OpenError::Newer {
                path: path.clone(),
                found,
                known: schema::VERSION,
            },
            Fault::Io(source) => OpenError::io("open", &path, source),
            Fault::Damaged(reason) => OpenError::io("open", &path, std::io::Error::other(reason)),
        })?;
        if let Opened::SetAside {
            path: aside,
            reason,
        } = &opened
        {
            tracing::error!(
                path = %path.display(), aside = %aside.display(), reason,
                "the stored state cannot be read: it was set aside, and the daemon starts without it"
            );
        }
        let queue = Queue::start(keeper, contents)
            .map_err(|source| OpenError::io("start the thread of", &path, source))?;
        Ok((
            Self {
                queue: Arc::new(queue),
            },
            opened,
        ))
    }

    /// Lets `decide` change a draft, in its turn, and waits until the disk has what it changed.
    fn change<T, F>(&self, decide: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Draft) -> Result<T, StoreError> + Send + 'static,
    {
        let (answer, answered) = std::sync::mpsc::channel();
        let (done, committed) = std::sync::mpsc::channel();
        self.queue.send(Job::new(
            move |draft| _ = answer.send(decide(draft)),
            move |result| _ = done.send(result),
        ))?;
        committed.recv().unwrap_or(Err(StoreError::Ended))?;
        answered.recv().unwrap_or(Err(StoreError::Ended))
    }

    /// The same without waiting: `done` is told by the thread of the store, or at once if it cannot take more.
    fn change_later<F, D>(&self, decide: F, done: D)
    where
        F: FnOnce(&mut Draft) + Send + 'static,
        D: FnOnce(Result<(), StoreError>) + Send + 'static,
    {
        self.queue.offer(Job::new(decide, done));
    }
}
