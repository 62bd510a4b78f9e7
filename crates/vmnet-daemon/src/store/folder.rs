//! The state folder: `store.redb`, its lock, the next one while it is written, and at most three that were set aside.
//!
//! The lock is a file of its own, because `store.redb` is replaced. It is held as long as the store is open, also while the file is
//! closed after an error. The kernel frees it when the process ends, however it ends; one that was killed may still be ending
//! when the next one starts, so the lock is waited for.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redb::backends::FileBackend;
use redb::{Builder, Database};

use super::OpenError;
use super::medium::Medium;

const FILE: &str = "store.redb";
const NEXT: &str = "store.redb.next";
/// What is in the folder of every service that has begun once.
pub(crate) const LOCK: &str = "store.lock";
const ASIDE: &str = "store.redb.corrupt-";
/// How many files that were set aside are kept.
const KEPT: usize = 3;
/// How long the lock may stay with a process that ends.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the lock is tried meanwhile.
const TRY_EVERY: Duration = Duration::from_millis(10);

/// A state folder that this process has locked.
#[derive(Debug)]
pub(super) struct Folder {
    folder: PathBuf,
    file: PathBuf,
    _lock: File,
}

impl Folder {
    pub(super) fn lock(folder: &Path) -> Result<Self, OpenError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| OpenError::io("make the state folder", folder, source))?;
        let path = folder.join(LOCK);
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let lock = lock.map_err(|source| OpenError::io("write", &path, source))?;
        let file = folder.join(FILE);
        let give_up = Instant::now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                    thread::sleep(TRY_EVERY);
                }
                Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: file }),
                Err(TryLockError::Error(source)) => {
                    return Err(OpenError::io("lock", &path, source));
                }
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            file,
            _lock: lock,
        })
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn aside(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        aside(&self.folder)
    }
}

/// The files that were set aside, the oldest first, with their numbers.
fn aside(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(ASIDE)?.rsplit_once('-')?.1.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The store of a state folder that was set aside last, since it was damaged, if somebody has left it there.
#[must_use]
pub fn set_aside(folder: &Path) -> Option<PathBuf> {
    Some(aside(folder).ok()?.pop()?.1)
}

impl Medium for Folder {
    fn path(&self) -> &Path {
        &self.file
    }

    fn exists(&self) -> io::Result<bool> {
        match self.file.symlink_metadata() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn open(&self, builder: &Builder) -> Result<Database, redb::Error> {
        let file = OpenOptions::new().read(true).write(true).open(&self.file)?;
        // redb would make a new database of it. We never leave a file empty, so something else did.
        if file.metadata()?.len() == 0 {
            return Err(redb::Error::Corrupted("it is empty".to_owned()));
        }
        Ok(builder.create_with_backend(FileBackend::new(file)?)?)
    }

    fn create(&self, builder: &Builder) -> Result<Database, redb::Error> {
        let path = self.folder.join(NEXT);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(builder.create_with_backend(FileBackend::new(file)?)?)
    }

    fn publish(&self) -> io::Result<()> {
        std::fs::rename(self.folder.join(NEXT), &self.file)?;
        self.sync()
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        let aside = self.aside()?;
        if let Some((_, last)) = aside.last()
            && same_file(&self.file, last)?
        {
            // By an earlier start, which could not make a new file then.
            return Ok(last.clone());
        }
        let number = aside.last().map_or(1, |(last, _)| last.saturating_add(1));
        let path = self.folder.join(format!("{ASIDE}{}-{number}", today()));
        // A second name, so that there is a store.redb at every moment. Not every file system has them.
        if std::fs::hard_link(&self.file, &path).is_err() {
            std::fs::rename(&self.file, &path)?;
        }
        let surplus = (aside.len() + 1).saturating_sub(KEPT);
        for (_, path) in aside.into_iter().take(surplus) {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an old file that was set aside stays");
            }
        }
        self.sync()?;
        Ok(path)
    }
}

/// Are these two names of one file?
fn same_file(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (a.symlink_metadata()?, b.symlink_metadata()?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// The date in UTC, like `2026-03-01`.
fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let (year, month, day) = date(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The date of a day that is counted from 1970-01-01. Years are counted from March, so that the leap day is their last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::{Folder, Medium, date};
    use std::time::{Duration, Instant};

    #[test]
    fn the_lock_of_one_that_ends_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let first = Folder::lock(folder.path()).unwrap();
        let held = Duration::from_millis(300);
        let ends = std::thread::spawn(move || {
            std::thread::sleep(held);
            drop(first);
        });
        let began = Instant::now();
        let _second = Folder::lock(folder.path()).unwrap();
        assert!(began.elapsed() >= held / 2, "{:?}", began.elapsed());
        ends.join().unwrap();
    }

    #[test]
    fn a_file_is_set_aside_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = Folder::lock(folder.path()).unwrap();
        std::fs::write(state.path(), "one").unwrap();
        let path = state.set_aside().unwrap();
        assert_eq!(state.set_aside().unwrap(), path);
        std::fs::remove_file(state.path()).unwrap();
        std::fs::write(state.path(), "two").unwrap();
        let next = state.set_aside().unwrap();
        assert_ne!(next, path);
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read(&next).unwrap(), b"two");
    }

    #[test]
    fn dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_453, (2025, 12, 31)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected, "day {days}");
        }
    }
}
