//! The machine's service: what it needs, who may use it, and as whom it runs.
//!
//! It is started by root, or by systemd as an ordinary user with the capabilities that it needs. What takes privileges is
//! forked off first ([`crate::privileged`]); then the socket is made and the state folder given away, and all that is
//! left is dropped before anybody is listened to.

use crate::connection::Admission;
use crate::file::Configuration;
use openvmnet::account::{self, Group};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chownat, openat};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use vmnet_linux::sys::privilege::{self, CapabilitySet, Identity, Kept};

use crate::privileged::process::RIGHTS;
use crate::store::LOCK;

/// The user and the group that a machine may have for it.
const OWN: &str = "vmnet";
/// Who it is where there is no such user.
const NOBODY: &str = "nobody";

/// The machine's service cannot be.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// It may not do what it is for.
    #[error(
        "the service of the machine needs CAP_NET_ADMIN and CAP_NET_RAW: start it as root (`sudo vmnet daemon --system`) or by systemd (contrib/systemd); without them `vmnet daemon` serves this user"
    )]
    NotPrivileged,
    /// There is no such group.
    #[error(
        "there is no group {0}: make it with `groupadd --system {0}` (as root), or give another's name or number"
    )]
    NoGroup(String),
    /// There is no such user.
    #[error(
        "there is no user {0}: make it with `useradd --system {0}` (as root), or give another's name or number"
    )]
    NoUser(String),
    /// Only the superuser can become another user.
    #[error("only root can become the user {0}: leave the user out, or start the service as root")]
    NotRoot(String),
    /// In this user namespace nobody can become that user.
    #[error(
        "nobody can become the user {0} in this user namespace, which has too few users: start the service outside of it, or make one that has them (`unshare --map-auto`, by /etc/subuid)"
    )]
    NotMapped(String),
    /// The folder of what must stay.
    #[error("{0}: {1}")]
    State(PathBuf, #[source] io::Error),
    /// That folder is somebody else's.
    #[error(
        "{} belongs to the user {owner}, and is where that one may put anything: name another folder by --state, or give it over with `chown -R {wanted} {}` (as root)",
        .folder.display(), .folder.display()
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who the service is to be.
        wanted: u32,
    },
    /// Privileges cannot be dropped.
    #[error("privileges cannot be given up: {0}")]
    Reduce(#[source] io::Error),
    /// The helper cannot be.
    #[error("the privileged helper cannot start: {0}")]
    Helper(#[source] io::Error),
}

/// Who may use the service, and as whom it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) group: Option<Group>,
    /// None if it stays who it is.
    pub(crate) identity: Option<Identity>,
}

impl Access {
    /// Decides by what was asked for, else by the configuration file, else by what the machine has.
    pub(crate) fn decide(
        group: Option<&str>,
        user: Option<&str>,
        configuration: &Configuration,
    ) -> Result<Self, SystemError> {
        let effective = privilege::effective().map_err(SystemError::Reduce)?;
        if !effective.contains(RIGHTS) {
            return Err(SystemError::NotPrivileged);
        }
        let group = match group.or(configuration.group.as_deref()) {
            Some(asked) => {
                let found = account::group(asked);
                Some(found.ok_or_else(|| SystemError::NoGroup(asked.to_owned()))?)
            }
            None => account::group(OWN),
        };
        let asked = user.or(configuration.user.as_deref());
        let identity = identity(asked)?;
        Ok(Self { group, identity })
    }

    pub(crate) fn admission(&self) -> Admission {
        match &self.group {
            Some(group) => Admission::Group(group.clone()),
            None => Admission::Superuser,
        }
    }

    /// Gives up everything but what forwarding low ports needs, for good.
    pub(crate) fn drop_privileges(&self) -> Result<(), SystemError> {
        let kept = Kept {
            own: CapabilitySet::NET_BIND_SERVICE,
            programs: CapabilitySet::empty(),
        };
        privilege::reduce(self.identity.as_ref(), kept).map_err(SystemError::Reduce)
    }
}

fn identity(asked: Option<&str>) -> Result<Option<Identity>, SystemError> {
    if !rustix::process::geteuid().is_root() {
        return match asked {
            Some(asked) => Err(SystemError::NotRoot(asked.to_owned())),
            None => Ok(None),
        };
    }
    let user = match asked {
        Some(asked) => account::user(asked).ok_or_else(|| SystemError::NoUser(asked.to_owned()))?,
        None => account::user(OWN)
            .or_else(|| account::user(NOBODY))
            .ok_or_else(|| SystemError::NoUser(OWN.to_owned()))?,
    };
    if user.name == NOBODY {
        tracing::info!(
            "the service runs as {NOBODY}, since this machine has no user {OWN}: `useradd --system {OWN}` makes one"
        );
    }
    if !can_be(user.uid, user.gid) {
        return Err(SystemError::NotMapped(user.name));
    }
    Ok(Some(Identity {
        uid: user.uid,
        gid: user.gid,
    }))
}

/// Whether root of this user namespace may become this user: it has both ids, and lets groups be given up.
fn can_be(uid: u32, gid: u32) -> bool {
    let about = |file: &str| fs::read_to_string(format!("/proc/self/{file}"));
    // Where nothing is known, it is tried.
    let has = |file: &str, id: u32| about(file).map_or(true, |map| is_mapped(&map, id));
    let closed = about("setgroups").is_ok_and(|how| how.trim() == "deny");
    !closed && has("uid_map", uid) && has("gid_map", gid)
}

/// Whether an id is among those of a map: lines of the first inside, the first outside, and how many.
fn is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        matches!(numbers.as_slice(), &[first, _, count] if (first..first + count).contains(&id.into()))
    })
}

/// Makes the folder of what must stay, and gives it to whom the service will be, with the files of who had it before: root, or
/// the user whom the service was until now. Only root can have put the folder where it is, and a service's store is in it, else
/// it is somebody's own, and nothing is touched. Nor are files of others in it, since its owner may have put anything there.
pub(crate) fn give_state(folder: &Path, identity: Option<&Identity>) -> Result<(), SystemError> {
    let at = |error| SystemError::State(folder.to_owned(), error);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(at)?;
    let Some(identity) = identity else {
        return Ok(());
    };
    let opened = fs::File::open(folder).map_err(at)?;
    let owner = opened.metadata().map_err(at)?.uid();
    if owner == identity.uid || identity.uid == 0 {
        return Ok(());
    }
    let was_a_services = || folder.join(LOCK).symlink_metadata().is_ok();
    if owner != 0 && !(is_roots_place(&opened).map_err(at)? && was_a_services()) {
        return Err(SystemError::Foreign {
            folder: folder.to_owned(),
            owner,
            wanted: identity.uid,
        });
    }
    for entry in fs::read_dir(folder).map_err(at)? {
        let entry = entry.map_err(at)?;
        // What was looked at is what is given, whatever takes its name meanwhile.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&opened, entry.file_name(), flags, Mode::empty());
        let file = fs::File::from(file.map_err(|error| at(error.into()))?);
        let about = file.metadata().map_err(at)?;
        if about.is_file() && about.nlink() == 1 && about.uid() == owner {
            give(&file, identity).map_err(at)?;
        }
    }
    give(&opened, identity).map_err(at)
}

/// Whether nobody but root can put something in this folder's place.
fn is_roots_place(folder: &fs::File) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = fs::File::from(openat(folder, "..", flags, Mode::empty())?);
    let about = above.metadata()?;
    Ok(about.uid() == 0 && about.mode() & 0o022 == 0)
}

fn give(file: &fs::File, identity: &Identity) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    Ok(chownat(
        file,
        "",
        Some(uid),
        Some(gid),
        AtFlags::EMPTY_PATH,
    )?)
}

#[cfg(test)]
mod tests {
    use super::is_mapped;

    #[test]
    fn ids_of_a_user_namespace() {
        let all = "         0          0 4294967295\n";
        let few = "0 1000 1\n1 100000 65536\n";
        for (map, id, there) in [
            (all, 0, true),
            (all, 65534, true),
            (few, 0, true),
            (few, 65534, true),
            (few, 65537, false),
            ("0 0 1\n", 65534, false),
            ("", 0, false),
        ] {
            assert_eq!(is_mapped(map, id), there, "{map:?} {id}");
        }
    }
}
