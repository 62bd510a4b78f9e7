//! The raw system calls of the bench: namespaces, the set-up of a child before its `exec`, signals, and
//! datagrams by the batch. Everything unsafe is here.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

/// Datagrams that one system call sends or receives at most.
pub(crate) const BATCH: usize = 64;

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes a network namespace without a name. It lives as long as the descriptor or a process in it.
pub(crate) fn new_network_namespace() -> io::Result<OwnedFd> {
    // A thread of its own: `unshare` moves the calling thread and there is no need to move it back.
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                // SAFETY: no memory is involved; only this thread changes its network namespace.
                checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
                Ok(File::open("/proc/thread-self/ns/net")?.into())
            })
            .join()
            .unwrap_or_else(|_| {
                Err(io::Error::other(
                    "the thread that makes a namespace panicked",
                ))
            })
    })
}

/// Moves the calling thread into a network namespace.
pub(crate) fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call.
    checked(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Lets `command` start in `namespace`, as `user` if given (and its group of the same number), with the
/// default signal mask, and killed when the bench dies. The descriptor must stay open until the spawn.
pub(crate) fn place(command: &mut Command, namespace: RawFd, user: Option<u32>) {
    let prepare = move || {
        // SAFETY: plain system calls on integers, all async-signal-safe; the descriptor is the caller's promise.
        unsafe {
            checked(libc::setns(namespace, libc::CLONE_NEWNET))?;
            if let Some(id) = user {
                checked(libc::setgroups(0, ptr::null()))?;
                checked(libc::setresgid(id, id, id))?;
                checked(libc::setresuid(id, id, id))?;
            }
            // After the change of user, which would clear it.
            checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            let mut none: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut none);
            checked(libc::sigprocmask(
                libc::SIG_SETMASK,
                &raw const none,
                ptr::null_mut(),
            ))
        }
    };
    // SAFETY: the closure makes only async-signal-safe calls and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// Lets `command` be killed when this process dies.
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: the closure makes one async-signal-safe call and allocates nothing.
    unsafe {
        command.pre_exec(|| checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)));
    }
}

fn interrupts() -> libc::sigset_t {
    // SAFETY: an all-zero set is valid memory for `sigemptyset` to fill.
    unsafe {
        let mut set: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Blocks Ctrl-C and its kin in this thread and the threads it starts; [`wait_for_interrupt`] then sees them.
pub(crate) fn block_interrupts() -> io::Result<()> {
    let set = interrupts();
    // SAFETY: `set` is initialised and outlives the call.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Sleeps until one of the blocked signals arrives and says which.
pub(crate) fn wait_for_interrupt() -> libc::c_int {
    let set = interrupts();
    let mut signal = 0;
    // SAFETY: both pointers are to locals that outlive the call.
    unsafe { libc::sigwait(&raw const set, &raw mut signal) };
    signal
}

/// Sends a signal to one process that the bench started.
pub(crate) fn signal(pid: u32, signal: libc::c_int) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        // SAFETY: no memory is involved. The child is not yet reaped, so the number is still its own.
        unsafe { libc::kill(pid, signal) };
    }
}

/// Raises the number of files this process may open to what the system allows it.
pub(crate) fn raise_open_files() {
    // SAFETY: the structure is a local that both calls only read or fill.
    unsafe {
        let mut limit: libc::rlimit = mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Asks for a socket buffer of this size; the system clips it to `rmem_max` or `wmem_max`.
pub(crate) fn ask_buffers(socket: BorrowedFd<'_>, bytes: libc::c_int) {
    for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        // SAFETY: the option value is a local `c_int` of the stated size. A refusal leaves the default, which is fine.
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const bytes).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
        }
    }
}

/// Lets sleeps of this thread end within a microsecond of their time, so that pacing is even.
pub(crate) fn sleep_exactly() {
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

/// Sends `count` copies of one datagram on a connected socket; answers how many were taken.
pub(crate) fn send_batch(
    socket: BorrowedFd<'_>,
    payload: &[u8],
    count: usize,
) -> io::Result<usize> {
    let mut span = libc::iovec {
        iov_base: payload.as_ptr().cast_mut().cast(),
        iov_len: payload.len(),
    };
    // SAFETY: an all-zero header is a valid one without name, spans or control data.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    for message in &mut messages {
        message.msg_hdr.msg_iov = &raw mut span;
        message.msg_hdr.msg_iovlen = 1;
    }
    let count = count.min(BATCH) as libc::c_uint;
    // SAFETY: the headers and the span outlive the call, which only reads the payload.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Frames of one size, and what one system call needs to send or receive all of them.
pub(crate) struct Batch {
    space: Vec<u8>,
    spans: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
    len: usize,
}

impl Batch {
    pub(crate) fn new(count: usize, len: usize) -> Self {
        let mut space = vec![0_u8; count * len];
        let mut spans: Vec<libc::iovec> = space
            .chunks_mut(len)
            .map(|chunk| libc::iovec {
                iov_base: chunk.as_mut_ptr().cast(),
                iov_len: len,
            })
            .collect();
        let messages = spans
            .iter_mut()
            .map(|span| {
                // SAFETY: an all-zero header is a valid one without name, spans or control data.
                let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
                message.msg_hdr.msg_iov = span;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Self {
            space,
            spans,
            messages,
            len,
        }
    }

    /// Sends all, waiting for room: how many went.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        debug_assert_eq!(self.space.len(), self.spans.len() * self.len);
        let count = self.messages.len() as libc::c_uint;
        let messages = self.messages.as_mut_ptr();
        let flags = libc::MSG_NOSIGNAL;
        // SAFETY: headers, spans and the space behind them are in `self`, and none of the lists has grown.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages, count, flags) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Receives what is there, waiting for the first: how many came.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let count = self.messages.len() as libc::c_uint;
        let messages = self.messages.as_mut_ptr();
        let flags = libc::MSG_WAITFORONE;
        // SAFETY: as above; the lengths are those of the space.
        let got =
            unsafe { libc::recvmmsg(socket.as_raw_fd(), messages, count, flags, ptr::null_mut()) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }
}

/// Receives what is there, waiting for the first datagram only; calls `each` with every one.
pub(crate) fn receive_batch(
    socket: BorrowedFd<'_>,
    space: &mut [[u8; 2048]; BATCH],
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut spans = space.each_mut().map(|one| libc::iovec {
        iov_base: one.as_mut_ptr().cast(),
        iov_len: one.len(),
    });
    // SAFETY: an all-zero header is a valid one without name, spans or control data.
    let mut messages: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    for (message, span) in messages.iter_mut().zip(&mut spans) {
        message.msg_hdr.msg_iov = span;
        message.msg_hdr.msg_iovlen = 1;
    }
    let flags = libc::MSG_WAITFORONE;
    // SAFETY: headers, spans and the space behind them outlive the call; the lengths are those of the space.
    let got = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            BATCH as libc::c_uint,
            flags,
            ptr::null_mut(),
        )
    };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    for (message, bytes) in messages.iter().zip(space.iter()).take(got) {
        each(bytes.get(..message.msg_len as usize).unwrap_or_default());
    }
    Ok(())
}
