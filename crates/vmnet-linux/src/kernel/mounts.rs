//! The `/proc` and `/etc/resolv.conf` of a mount namespace.
//!
//! The namespace gets a resolver file of its own without the host's being touched. If `/etc/resolv.conf` leads into a folder
//! of its own under `/run` (systemd-resolved, NetworkManager, resolvconf), a small file system covers that folder: the host
//! may then replace its file as it likes. Otherwise the file itself is covered; a host that replaces it uncovers it (Linux
//! drops mounts from replaced files), which [`ResolvConf::moved`] tells and [`ResolvConf::cover`] mends.
//! The sockets through which libc would ask the host's resolver (nscd, systemd-resolved) are covered too.

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Folders whose sockets answer names past `/etc/resolv.conf`.
const RESOLVER_FOLDERS: [&str; 2] = ["/run/nscd", "/run/systemd/resolve"];

/// What no file system of ours is for.
const SMALL: MountFlags = MountFlags::NOSUID
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// A mount was refused.
#[derive(Debug, thiserror::Error)]
#[error("mounting {what} in the namespace: {source}")]
pub struct MountError {
    what: String,
    source: io::Error,
}

/// Names what was being mounted.
fn at(what: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> MountError {
    let what = what.into();
    move |error| MountError {
        what,
        source: error.into(),
    }
}

/// Lets mounts of the host come in, and none of ours go out. First of all.
///
/// # Errors
///
/// What mount(2) says.
pub fn separate() -> Result<(), MountError> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).map_err(at("/"))
}

/// Covers a folder with an empty one (mode 0555) that cannot be written to by whoever cannot mount here.
///
/// # Errors
///
/// What mount(2) says.
pub fn hide(folder: &Path) -> Result<(), MountError> {
    let flags = SMALL.union(MountFlags::RDONLY);
    rustix::mount::mount("vmnet", folder, "tmpfs", flags, Some(c"size=64k,mode=555"))
        .map_err(at(folder.display().to_string()))
}

/// The resolver file of a namespace.
pub struct ResolvConf {
    target: PathBuf,
    file: File,
    /// A file that must be mounted over the target, and stays within reach for doing so again.
    source: Option<OwnedFd>,
    mount_table: Option<File>,
}

/// Gives the namespace a `/proc` and a resolver file with `text`.
///
/// `None` instead of the file if the host has no `/etc/resolv.conf` that could be covered: the command's libc then asks
/// 127.0.0.1.
///
/// # Errors
///
/// What mount(2) says, except for a refused `/proc`: containers that hide parts of theirs cannot have a fresh one, and the
/// old one stays.
pub fn prepare(text: &str) -> Result<Option<ResolvConf>, MountError> {
    let target = std::fs::canonicalize("/etc/resolv.conf").ok();
    let own_folder = target
        .as_deref()
        .and_then(folder_under_run)
        .map(Path::to_owned);
    cover_resolver_folders(own_folder.as_deref())?;

    // The stage holds our file below the fresh /proc, where nobody sees it and a bind mount still reaches it.
    mount_small("/proc")?;
    let stage = open_folder("/proc")?;
    let fresh = rustix::mount::mount(
        "proc",
        "/proc",
        "proc",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        None,
    );
    if let Err(error) = fresh {
        tracing::debug!(%error, "the host refuses a fresh /proc; the command sees the host's process ids there");
    }
    let has_fresh = fresh.is_ok();
    let resolv = match (target, own_folder) {
        (None, _) => {
            tracing::warn!("the host has no /etc/resolv.conf to cover; names will not resolve");
            None
        }
        (Some(target), Some(folder)) => Some(in_folder(&folder, target, text)?),
        (Some(target), None) => Some(over_file(&stage, target, text, has_fresh)?),
    };
    if !has_fresh {
        rustix::mount::unmount("/proc", UnmountFlags::DETACH).map_err(at("/proc"))?;
    }
    Ok(resolv)
}

impl ResolvConf {
    /// Replaces the text.
    ///
    /// # Errors
    ///
    /// What the write says.
    pub fn write(&self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(text.as_bytes(), 0)
    }

    /// Readable with priority when a mount of the namespace came or went; `None` if that needs no watching.
    #[must_use]
    pub fn moved(&self) -> Option<BorrowedFd<'_>> {
        self.mount_table.as_ref().map(AsFd::as_fd)
    }

    /// Covers the file again if the host replaced it.
    ///
    /// # Errors
    ///
    /// What mount(2) says.
    pub fn cover(&self) -> Result<(), MountError> {
        let Some(source) = &self.source else {
            return Ok(());
        };
        if same_file(&self.target, &self.file) {
            return Ok(());
        }
        bind(source, &self.target)
    }
}

/// The folder of a path like `/run/NAME/.../FILE`.
fn folder_under_run(target: &Path) -> Option<&Path> {
    let folder = target.parent()?;
    let rest = folder
        .strip_prefix("/run")
        .or_else(|_| folder.strip_prefix("/var/run"))
        .ok()?;
    (rest.components().count() > 0).then_some(folder)
}

fn cover_resolver_folders(own: Option<&Path>) -> Result<(), MountError> {
    for folder in RESOLVER_FOLDERS {
        if Path::new(folder).is_dir() && own != Some(Path::new(folder)) {
            mount_small(folder)?;
        }
    }
    Ok(())
}

/// Covers the whole folder and puts the file there.
fn in_folder(folder: &Path, target: PathBuf, text: &str) -> Result<ResolvConf, MountError> {
    mount_small(folder)?;
    let name = target.display().to_string();
    let file = write_new(
        &open_folder(folder)?,
        target
            .file_name()
            .map_or_else(|| Path::new("resolv.conf"), Path::new),
        text,
    )
    .map_err(at(name))?;
    Ok(ResolvConf {
        target,
        file,
        source: None,
        mount_table: None,
    })
}

/// Covers the file alone.
fn over_file(
    stage: &OwnedFd,
    target: PathBuf,
    text: &str,
    stays: bool,
) -> Result<ResolvConf, MountError> {
    let name = target.display().to_string();
    let path = Path::new("resolv.conf");
    let file = write_new(stage, path, text).map_err(at(name.clone()))?;
    let source = rustix::fs::openat(stage, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(at(name.clone()))?;
    if stays {
        bind(&source, &target)?;
    } else {
        // The old /proc is hidden by the stage: the file has its plain path.
        rustix::mount::mount_bind("/proc/resolv.conf", &target).map_err(at(name))?;
    }
    Ok(ResolvConf {
        target,
        file,
        source: stays.then_some(source),
        mount_table: stays
            .then(|| File::open("/proc/self/mountinfo").ok())
            .flatten(),
    })
}

fn bind(source: &OwnedFd, target: &Path) -> Result<(), MountError> {
    let path = format!("/proc/self/fd/{}", source.as_raw_fd());
    rustix::mount::mount_bind(path, target).map_err(at(target.display().to_string()))
}

fn write_new(folder: &OwnedFd, name: &Path, text: &str) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(
        folder,
        name,
        flags,
        Mode::from_raw_mode(0o644),
    )?);
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(file)
}

fn mount_small(path: impl AsRef<Path>) -> Result<(), MountError> {
    let path = path.as_ref();
    rustix::mount::mount("vmnet", path, "tmpfs", SMALL, Some(c"size=64k,mode=755"))
        .map_err(at(path.display().to_string()))
}

fn open_folder(path: impl AsRef<Path>) -> Result<OwnedFd, MountError> {
    let path = path.as_ref();
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(at(path.display().to_string()))
}

fn same_file(path: &Path, file: &File) -> bool {
    let (Ok(there), Ok(ours)) = (rustix::fs::stat(path), rustix::fs::fstat(file)) else {
        return false;
    };
    (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_of_its_own_under_run_is_covered_whole() {
        for (target, folder) in [
            ("/etc/resolv.conf", None),
            ("/run/resolv.conf", None),
            (
                "/run/systemd/resolve/stub-resolv.conf",
                Some("/run/systemd/resolve"),
            ),
            (
                "/run/NetworkManager/resolv.conf",
                Some("/run/NetworkManager"),
            ),
            (
                "/var/run/resolvconf/resolv.conf",
                Some("/var/run/resolvconf"),
            ),
            ("/home/me/resolv.conf", None),
        ] {
            assert_eq!(
                folder_under_run(Path::new(target)),
                folder.map(Path::new),
                "{target}"
            );
        }
    }
}
