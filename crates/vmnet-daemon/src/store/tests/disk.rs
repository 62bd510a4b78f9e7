//! A disk that loses power, fails and fills up.
//!
//! Writes go to a cache, as in a kernel. `sync` makes them durable. When power is lost, any part of what was not synced is on the
//! disk: all, nothing, the first few, any few, each whole or torn at any byte or sector.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Builder, Database, StorageBackend};

use super::Rng;
use crate::store::medium::Medium;

#[derive(Debug, Clone)]
enum Unsynced {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl Unsynced {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::SetLen(length) => bytes.resize(*length, 0),
            Self::Write(offset, data) => {
                // A file does not become longer by a write alone: redb sets its length before.
                let end = (offset + data.len()).min(bytes.len());
                if *offset < end {
                    bytes[*offset..end].copy_from_slice(&data[..end - offset]);
                }
            }
        }
    }
}

/// One file.
#[derive(Debug, Default, Clone)]
struct Platter {
    durable: Vec<u8>,
    cached: Vec<u8>,
    unsynced: Vec<Unsynced>,
    /// Takes no writes any more.
    worn: bool,
}

/// What a disk does wrong.
#[derive(Debug, Default, Clone)]
pub(super) struct Trouble {
    /// After so many writes, changes of length and syncs, nothing is answered but an I/O error.
    pub(super) power: Option<usize>,
    /// What each write and change of length is answered.
    pub(super) writes: Option<ErrorKind>,
    /// What each sync is answered; and what was to be synced will never be, though it can be read.
    /// After so many that are made.
    pub(super) syncs: Option<(usize, ErrorKind)>,
    /// Writes panic, as redb may when its file is damaged.
    pub(super) panics: bool,
    /// One read panics, after so many.
    pub(super) reads: Option<usize>,
}

/// A disk with a place for a file, and for the one that takes its place.
#[derive(Debug, Default)]
pub(super) struct Disk {
    file: Mutex<Option<Arc<Mutex<Platter>>>>,
    next: Mutex<Option<Arc<Mutex<Platter>>>>,
    trouble: Arc<Mutex<Trouble>>,
    aside: Mutex<Vec<Vec<u8>>>,
}

impl Disk {
    /// With a file that is there.
    pub(super) fn holding(bytes: Vec<u8>) -> Self {
        let platter = Platter {
            durable: bytes.clone(),
            cached: bytes,
            unsynced: Vec::new(),
            worn: false,
        };
        Self {
            file: Mutex::new(Some(Arc::new(Mutex::new(platter)))),
            ..Self::default()
        }
    }

    pub(super) fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap()
    }

    /// Nobody is answered until this is dropped.
    pub(super) fn stall(&self) -> MutexGuard<'_, Trouble> {
        self.trouble()
    }

    /// The bytes of the file, as a program reads them.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.file
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .lock()
            .unwrap()
            .cached
            .clone()
    }

    /// The place where the file is takes no writes any more; others do.
    pub(super) fn wear_out(&self) {
        self.file
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .lock()
            .unwrap()
            .worn = true;
    }

    pub(super) fn has_file(&self) -> bool {
        self.file.lock().unwrap().is_some()
    }

    pub(super) fn set_aside_count(&self) -> usize {
        self.aside.lock().unwrap().len()
    }

    /// Power is lost, and comes back.
    pub(super) fn crash(&self, rng: &mut Rng) {
        *self.trouble() = Trouble::default();
        *self.next.lock().unwrap() = None;
        let Some(file) = &mut *self.file.lock().unwrap() else {
            return;
        };
        let mut platter = file.lock().unwrap().clone();
        let count = platter.unsynced.len();
        let mode = rng.below(5);
        let first = rng.below(count + 1);
        for (index, change) in platter.unsynced.drain(..).enumerate() {
            let kept = match mode {
                0 => false,
                1 => true,
                2 | 3 => index < first,
                _ => rng.below(2) == 0,
            };
            if kept {
                change.apply(&mut platter.durable);
            } else if mode >= 3 && (index == first || mode == 4) {
                for piece in torn(&change, rng) {
                    piece.apply(&mut platter.durable);
                }
            }
        }
        platter.cached.clone_from(&platter.durable);
        *file = Arc::new(Mutex::new(platter));
    }
}

/// Parts of a change: the beginning of a write, or some of its sectors.
fn torn(change: &Unsynced, rng: &mut Rng) -> Vec<Unsynced> {
    let Unsynced::Write(offset, data) = change else {
        return Vec::new();
    };
    match rng.below(3) {
        0 => Vec::new(),
        1 => vec![Unsynced::Write(
            *offset,
            data[..rng.below(data.len() + 1)].to_vec(),
        )],
        _ => {
            let sectors = data.chunks(512).enumerate().filter(|_| rng.below(2) == 0);
            sectors
                .map(|(n, sector)| Unsynced::Write(offset + n * 512, sector.to_vec()))
                .collect()
        }
    }
}

impl Medium for Disk {
    fn path(&self) -> &Path {
        Path::new("/simulated/store.redb")
    }

    fn exists(&self) -> io::Result<bool> {
        Ok(self.file.lock().unwrap().is_some())
    }

    fn open(&self, builder: &Builder) -> Result<Database, redb::Error> {
        let platter = self
            .file
            .lock()
            .unwrap()
            .clone()
            .ok_or_else(|| io::Error::from(ErrorKind::NotFound))?;
        if platter.lock().unwrap().cached.is_empty() {
            return Err(redb::Error::Corrupted("it is empty".to_owned()));
        }
        Ok(builder.create_with_backend(Head {
            platter,
            trouble: Arc::clone(&self.trouble),
        })?)
    }

    fn create(&self, builder: &Builder) -> Result<Database, redb::Error> {
        let platter = Arc::new(Mutex::new(Platter::default()));
        *self.next.lock().unwrap() = Some(Arc::clone(&platter));
        Ok(builder.create_with_backend(Head {
            platter,
            trouble: Arc::clone(&self.trouble),
        })?)
    }

    fn publish(&self) -> io::Result<()> {
        self.trouble().spend()?;
        *self.file.lock().unwrap() = self.next.lock().unwrap().take();
        Ok(())
    }

    fn set_aside(&self) -> io::Result<PathBuf> {
        let bytes = self.bytes();
        self.aside.lock().unwrap().push(bytes);
        Ok(PathBuf::from("/simulated/aside"))
    }
}

impl Trouble {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.power {
            Some(0) => Err(io::Error::from_raw_os_error(
                rustix::io::Errno::IO.raw_os_error(),
            )),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// An open file.
#[derive(Debug)]
struct Head {
    platter: Arc<Mutex<Platter>>,
    trouble: Arc<Mutex<Trouble>>,
}

impl Head {
    fn change(&self, change: Unsynced) -> io::Result<()> {
        let mut trouble = self.trouble.lock().unwrap();
        if trouble.panics {
            drop(trouble);
            panic!("the disk panics");
        }
        if let Some(kind) = trouble.writes {
            return Err(kind.into());
        }
        let mut platter = self.platter.lock().unwrap();
        if platter.worn {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::IO.raw_os_error(),
            ));
        }
        let spent = trouble.spend();
        // Without power the change may still be on its way to the disk, but nobody hears of it.
        if spent.is_ok() {
            change.apply(&mut platter.cached);
            platter.unsynced.push(change);
        }
        spent
    }
}

impl StorageBackend for Head {
    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(self.platter.lock().unwrap().cached.len()).unwrap())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut trouble = self.trouble.lock().unwrap();
        match &mut trouble.reads {
            Some(0) => {
                trouble.reads = None;
                drop(trouble);
                panic!("the disk panics");
            }
            Some(left) => *left -= 1,
            None => {}
        }
        drop(trouble);
        let platter = self.platter.lock().unwrap();
        let start = usize::try_from(offset).map_err(|_| ErrorKind::InvalidInput)?;
        let end = start
            .checked_add(out.len())
            .ok_or(ErrorKind::InvalidInput)?;
        out.copy_from_slice(
            platter
                .cached
                .get(start..end)
                .ok_or(ErrorKind::UnexpectedEof)?,
        );
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Unsynced::SetLen(usize::try_from(length).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut trouble = self.trouble.lock().unwrap();
        let mut platter = self.platter.lock().unwrap();
        match &mut trouble.syncs {
            Some((0, kind)) => {
                // The length of a file is in the journal of its file system, which is not forgotten.
                platter
                    .unsynced
                    .retain(|change| matches!(change, Unsynced::SetLen(_)));
                return Err((*kind).into());
            }
            Some((left, _)) => *left -= 1,
            None => {}
        }
        trouble.spend()?;
        let Platter {
            durable, unsynced, ..
        } = &mut *platter;
        unsynced.drain(..).for_each(|change| change.apply(durable));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Unsynced::Write(
            usize::try_from(offset).unwrap(),
            data.to_vec(),
        ))
    }
}
