//! Peeking behind the front of a receive queue where the kernel has no `SO_PEEK_OFF` for it.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes that one entry of the list below swallows.
const PIECE: usize = 64 << 10;
/// Entries, and so at most 32 MiB in front.
const PIECES: usize = 512;

thread_local! {
    /// Where bytes go that nobody wants: written to, never read.
    static TRASH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Peeks at bytes that stand `offset` bytes behind the front.
///
/// # Errors
/// As the kernel says; `InvalidInput` if so many bytes cannot be skipped.
pub fn behind(fd: impl AsFd, offset: usize, into: &mut [u8]) -> io::Result<usize> {
    if offset.div_ceil(PIECE) > PIECES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    TRASH.with_borrow_mut(|trash| {
        trash.resize(PIECE, 0);
        peek_past(&fd, offset, trash, into)
    })
}

/// The same, with a place for the bytes in front.
fn peek_past(fd: impl AsFd, offset: usize, trash: &mut [u8], into: &mut [u8]) -> io::Result<usize> {
    let mut list = Vec::with_capacity(offset.div_ceil(PIECE) + 1);
    let mut rest = offset;
    while rest > 0 {
        let len = rest.min(PIECE);
        list.push(libc::iovec {
            iov_base: trash.as_mut_ptr().cast(),
            iov_len: len,
        });
        rest -= len;
    }
    list.push(libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    });
    // SAFETY: an all-zero msghdr is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = list.as_mut_ptr();
    message.msg_iovlen = list.len();
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: every entry of the list lies in `trash` or `into`, which live through the call; that the kernel writes
    // to `trash` many times harms nobody.
    let len = unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut message, flags) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    // Fewer than `offset` are no news, unless there is nothing at all: the end.
    match len.checked_sub(offset) {
        Some(0) if !ended(fd) => Err(io::ErrorKind::WouldBlock.into()),
        Some(found) => Ok(found),
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// The peer has closed its side.
fn ended(fd: impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut poll_fd = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::RDHUP)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut poll_fd, Some(&now)).is_ok()
        && poll_fd[0]
            .revents()
            .intersects(PollFlags::RDHUP | PollFlags::HUP)
}
