//! Where the file of a store is.

use std::io;
use std::path::{Path, PathBuf};

use redb::backends::InMemoryBackend;
use redb::{Builder, Database};

/// A place for one file, for the one that will take its place, and for those set aside.
///
/// There are two of them in the product, a [folder](super::folder::Folder) and [`Memory`]; tests have disks that fail.
pub(super) trait Medium: Send + Sync {
    /// Its name in messages.
    fn path(&self) -> &Path;
    /// Is there a file?
    fn exists(&self) -> io::Result<bool>;
    /// Opens the file that is there.
    fn open(&self, builder: &Builder) -> Result<Database, redb::Error>;
    /// Makes a new one beside it.
    fn create(&self, builder: &Builder) -> Result<Database, redb::Error>;
    /// Lets the new one take its place, in one step and durably.
    fn publish(&self) -> io::Result<()>;
    /// Keeps the file that is there under another name. (It may still be there under its own, until the next `publish`.)
    fn set_aside(&self) -> io::Result<PathBuf>;
}

/// No file: gone with the process.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            path: PathBuf::from("memory"),
        }
    }
}

impl Medium for Memory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn exists(&self) -> io::Result<bool> {
        Ok(false)
    }

    fn open(&self, _: &Builder) -> Result<Database, redb::Error> {
        Err(redb::Error::Io(io::ErrorKind::NotFound.into()))
    }

    fn create(&self, builder: &Builder) -> Result<Database, redb::Error> {
        Ok(builder.create_with_backend(InMemoryBackend::new())?)
    }

    fn publish(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        Ok(self.path.clone())
    }
}
