//! Descriptors to wake somebody by. Whoever moves frames reads and writes them, and must never wait for one.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, fstat, readlink};

/// What the kernel calls an eventfd.
const NAME: &[u8] = b"anon_inode:[eventfd]";
/// The part of a mode that tells a file's kind. Eventfds and their like have none.
const KIND: u32 = 0o170_000;

/// Makes sure that `fd` is an eventfd, and that reading and writing it does not block. False: it is something else.
pub(super) fn make_nonblocking(fd: &OwnedFd) -> bool {
    is_eventfd(fd)
        && fcntl_getfl(fd).is_ok_and(|flags| {
            flags.contains(OFlags::NONBLOCK) || fcntl_setfl(fd, flags | OFlags::NONBLOCK).is_ok()
        })
}

fn is_eventfd(fd: &OwnedFd) -> bool {
    let has_kind = fstat(fd).map_or(true, |stat| stat.st_mode & KIND != 0);
    if has_kind {
        return false;
    }
    // Where /proc is out of sight, what has no kind must do: neither a file, a pipe nor a socket.
    match readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new()) {
        Ok(name) => name.to_bytes() == NAME,
        Err(_) => true,
    }
}
