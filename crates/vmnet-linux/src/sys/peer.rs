//! Who is at the other end of a unix socket.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _};

/// `SO_PEERGROUPS` (Linux 4.13) and `SO_NETNS_COOKIE` (Linux 5.14), which `libc` lacks on some targets.
const SO_PEERGROUPS: libc::c_int = 59;
const SO_NETNS_COOKIE: libc::c_int = 71;
/// `NGROUPS_MAX` of the kernel.
const GROUPS_MAX: usize = 65_536;

/// The process that connected, as it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    /// Its id.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// Who connected.
///
/// # Errors
/// Not a connected unix socket.
pub fn credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    Ok(Credentials {
        pid: peer.pid.as_raw_nonzero().get(),
        uid: peer.uid.as_raw(),
        gid: peer.gid.as_raw(),
    })
}

/// The supplementary groups of who connected.
///
/// # Errors
/// Not a connected unix socket, or more groups than there can be.
pub fn groups(socket: impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        match option(&socket, SO_PEERGROUPS, &mut groups) {
            Ok(bytes) => {
                groups.truncate(bytes / size_of::<u32>());
                return Ok(groups);
            }
            Err(error)
                if error.raw_os_error() == Some(libc::ERANGE) && groups.len() < GROUPS_MAX =>
            {
                groups.resize(groups.len() * 8, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// A number for the network namespace that a socket was made in; of an accepted unix socket, the one that its client's
/// was made in.
///
/// # Errors
/// Before Linux 5.14.
pub fn namespace(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = [0_u64];
    option(&socket, SO_NETNS_COOKIE, &mut cookie)?;
    Ok(cookie[0])
}

/// Reads an option of `SOL_SOCKET` into integers; answers how many bytes it has.
fn option<T: Copy>(socket: impl AsFd, name: libc::c_int, value: &mut [T]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(size_of_val(value)).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the kernel writes at most `length` bytes, which is what `value` has, and any bytes are integers.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(length).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_other_end_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = credentials(&one).unwrap();
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        let known = rustix::process::getgroups().unwrap();
        let mut known: Vec<u32> = known.into_iter().map(|group| group.as_raw()).collect();
        let mut told = groups(&one).unwrap();
        known.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, known);
    }

    #[test]
    fn sockets_of_one_namespace_have_one_number() {
        let (one, other) = UnixStream::pair().unwrap();
        match (namespace(&one), namespace(&other)) {
            (Ok(one), Ok(other)) => assert!(one == other && one != 0),
            (Err(error), _) | (_, Err(error)) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT));
            }
        }
    }
}
