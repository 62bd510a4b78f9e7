//! The namespaces of a command: user, network, mount, pid and host name (namespaces(7), `user_namespaces(7)`).
//!
//! [`enter`] forks; the child is process 1 of its namespaces and has every capability there and none on the host. It has no
//! ids until the parent called [`map_ids`]. When process 1 ends the kernel ends all others of its pid namespace.

use super::sysctl;
use crate::sys::process::{self, Side};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

/// A namespace could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The kernel refuses.
    #[error("a user namespace could not be made ({source}): {remedy}")]
    Refused {
        /// What the kernel said.
        source: io::Error,
        /// What may open them.
        remedy: String,
    },
    /// The ids could not be mapped.
    #[error("{path} could not be written ({source}): {remedy}")]
    Map {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
        /// What may help.
        remedy: String,
    },
    /// `/proc` does not tell our own ids.
    #[error("/proc/self/{file} could not be read: {source}")]
    OwnMap {
        /// The file.
        file: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Who the caller seems to be inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appearance {
    /// The same user and group as outside.
    Same,
    /// User 0 and group 0.
    Root,
}

/// Forks; the child is process 1 of new namespaces.
///
/// # Errors
///
/// [`NamespaceError::Refused`] with the setting that closes user namespaces, where one is known.
pub fn enter() -> Result<Side, NamespaceError> {
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWUTS;
    process::fork(flags).map_err(|source| NamespaceError::Refused {
        remedy: if source.raw_os_error() == Some(libc::EAGAIN) {
            // fork(2), not what it makes.
            "this user, or its control group, has as many processes as it may: `ulimit -u`, or pids.max".into()
        } else {
            sysctl::user_namespace_remedy()
        },
        source,
    })
}

/// Namespaces cannot be made.
#[derive(Debug)]
pub struct Closed {
    /// What the kernel said.
    pub source: io::Error,
    /// What may open them.
    pub remedy: String,
}

/// Whether this process may make the namespaces of a command. Nothing is left of the trial.
///
/// # Errors
///
/// It may not.
pub fn probe() -> Result<(), Closed> {
    match enter() {
        Ok(Side::Child) => process::exit_now(0),
        Ok(Side::Parent(pid)) => {
            process::wait(pid);
            Ok(())
        }
        Err(NamespaceError::Refused { source, remedy }) => Err(Closed { source, remedy }),
        Err(other) => Err(Closed {
            source: io::Error::other(other),
            remedy: sysctl::user_namespace_remedy(),
        }),
    }
}

/// Gives the process `pid`, which is in a new user namespace, its ids. Called by its parent, outside.
///
/// The superuser gives it all ids there are, so that files keep their owners; anybody else only has one to give.
///
/// # Errors
///
/// [`NamespaceError::Map`] if the kernel refuses.
pub fn map_ids(pid: i32, appearance: Appearance) -> Result<(), NamespaceError> {
    let uid = rustix::process::geteuid();
    let gid = rustix::process::getegid();
    if uid.is_root() && map_all(pid).is_ok() {
        return Ok(());
    }
    let folder = format!("/proc/{pid}");
    // The gid map of an ordinary user is accepted only where setgroups is closed (user_namespaces(7)).
    write_map(&folder, "setgroups", "deny")?;
    let (inner_uid, inner_gid) = match appearance {
        Appearance::Same => (uid.as_raw(), gid.as_raw()),
        Appearance::Root => (0, 0),
    };
    write_map(
        &folder,
        "gid_map",
        &format!("{inner_gid} {} 1", gid.as_raw()),
    )?;
    write_map(
        &folder,
        "uid_map",
        &format!("{inner_uid} {} 1", uid.as_raw()),
    )
}

/// Maps every id we have to itself.
fn map_all(pid: i32) -> Result<(), NamespaceError> {
    for file in ["gid_map", "uid_map"] {
        let own = std::fs::read_to_string(format!("/proc/self/{file}"))
            .map_err(|source| NamespaceError::OwnMap { file, source })?;
        write_map(&format!("/proc/{pid}"), file, &identity(&own))?;
    }
    Ok(())
}

/// The map that leaves each id of the map `own` as it is.
fn identity(own: &str) -> String {
    let mut map = String::new();
    for line in own.lines() {
        let mut words = line.split_whitespace();
        if let (Some(first), Some(_), Some(count)) = (words.next(), words.next(), words.next()) {
            let _ = writeln!(map, "{first} {first} {count}");
        }
    }
    map
}

fn write_map(folder: &str, file: &str, text: &str) -> Result<(), NamespaceError> {
    let path = format!("{folder}/{file}");
    std::fs::write(&path, text).map_err(|source| NamespaceError::Map {
        remedy: sysctl::user_namespace_remedy(),
        path,
        source,
    })
}

/// Lets everybody inside use ping sockets and low ports. Called inside, with `gid` as it appears there.
pub fn open_sockets(gid: u32) {
    let everybody = "0 2147483647";
    let setting = "net.ipv4.ping_group_range";
    // Where only one group is mapped the kernel takes a range of that one alone.
    if let Err(error) = sysctl::write(setting, everybody)
        .or_else(|_| sysctl::write(setting, &format!("{gid} {gid}")))
    {
        tracing::debug!(%error, "ping sockets stay closed in the namespace");
    }
    if let Err(error) = sysctl::write("net.ipv4.ip_unprivileged_port_start", "0") {
        tracing::debug!(%error, "ports below 1024 stay closed in the namespace");
    }
}

/// Whether the process `pid` is in the same network namespace as this one.
#[must_use]
pub fn shares_network(pid: i32) -> bool {
    let of = |who: &str| std::fs::read_link(Path::new("/proc").join(who).join("ns/net")).ok();
    of("self").is_some_and(|ours| of(&pid.to_string()) == Some(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_a_map_keeps_the_inner_ids() {
        let own = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(identity(own), "0 0 1\n1 1 65536\n");
        assert_eq!(identity("0 0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(identity("rubbish"), "");
    }
}
