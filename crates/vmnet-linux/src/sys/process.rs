//! Processes: fork into new namespaces, exec, wait, and end as another process ended.

use super::signal::Mask;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Which side of a fork the caller is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that forked, with the id of the new process.
    Parent(i32),
    /// The new process.
    Child,
}

/// How a process changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It returned this status.
    Exited(i32),
    /// This signal ended it.
    Killed(i32),
    /// This signal stopped it.
    Stopped(i32),
}

/// Forks; the child lives in new namespaces given by `CLONE_NEW*` flags (0 for a plain fork).
///
/// # Errors
///
/// What clone(2) says; and `Deadlock` if this process has more than one thread, because locks held by the others would
/// stay locked for ever in the child.
pub fn fork(namespaces: libc::c_int) -> io::Result<Side> {
    if threads()? != 1 {
        return Err(io::Error::new(
            io::ErrorKind::Deadlock,
            "a process with several threads cannot fork",
        ));
    }
    let answer = if namespaces == 0 {
        // SAFETY: this is the only thread, so no lock is held by another one; the child may do all the parent could.
        unsafe { libc::fork() }
    } else {
        let flags = libc::c_long::from(namespaces | libc::SIGCHLD);
        // SAFETY: without CLONE_VM and with a null stack the call is a fork: the child continues here on a copy of this
        // stack. This is the only thread, so no lock of libc is held.
        unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) as i32 }
    };
    match answer {
        0 => Ok(Side::Child),
        pid if pid > 0 => Ok(Side::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Goes on as a process of its own, whose parent and terminal are nobody's: the first process ends with success. Its
/// standard input and output become nothing; what it says on the standard error is still heard.
///
/// # Errors
///
/// See [`fork`], and what setsid(2) says.
pub fn go_into_background() -> io::Result<()> {
    if let Side::Parent(_) = fork(0)? {
        exit_now(0);
    }
    rustix::process::setsid()?;
    mute_standard_streams()
}

/// How many threads this process has.
fn threads() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Replaces this process by `program`, looked for in `PATH`; returns only if that failed. `mask` becomes its signal mask.
#[must_use]
pub fn execute(program: &CString, arguments: &[CString], mask: &Mask) -> io::Error {
    let mut pointers: Vec<*const libc::c_char> = arguments.iter().map(|a| a.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: setting a default disposition installs no code of ours. Rust's start-up had set SIGPIPE to ignore.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    mask.restore();
    // SAFETY: both are C strings, the list ends with null, and all outlive the call.
    unsafe { libc::execvp(program.as_ptr(), pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// One change among the children of this process; `pid` -1 asks for any. `None` if nothing changed yet.
///
/// # Errors
///
/// `ECHILD` if there is no such child.
pub fn changed(pid: i32) -> io::Result<Option<(i32, Change)>> {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one int, which outlives the call.
        let answer =
            unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
        if answer < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        if answer == 0 {
            return Ok(None);
        }
        let change = if libc::WIFEXITED(status) {
            Change::Exited(libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            Change::Killed(libc::WTERMSIG(status))
        } else if libc::WIFSTOPPED(status) {
            Change::Stopped(libc::WSTOPSIG(status))
        } else {
            continue;
        };
        return Ok(Some((answer, change)));
    }
}

/// Waits until this child has ended.
pub fn wait(pid: i32) {
    let mut status = 0;
    loop {
        // SAFETY: the kernel writes one int, which outlives the call.
        let answer = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if answer >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// Sends a signal to a process; one that is gone already is no mistake.
pub fn kill(pid: i32, signal: i32) {
    if pid > 0 {
        // SAFETY: no memory is passed.
        unsafe { libc::kill(pid, signal) };
    }
}

/// Stops this process until somebody continues it.
pub fn stop_self() {
    // SAFETY: no memory is passed.
    unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) };
}

/// Ends this process by the signal that ended another one, so that our parent sees the same; leaves no core of its own.
pub fn die_by(signal: i32) -> ! {
    // SAFETY: plain values and a set made here; the limit is lowered, which is always allowed.
    unsafe {
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        libc::signal(signal, libc::SIG_DFL);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::kill(libc::getpid(), signal);
    }
    std::process::exit(128 + signal)
}

/// Asks the kernel to send `signal` to this process when the thread that made it ends.
///
/// It is asked for after the fork, so a parent that ended before is missed: check afterwards that it still lives.
pub fn die_with_parent(signal: i32) {
    // SAFETY: no memory is passed.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0, 0, 0) };
}

/// Gives up every capability, also those an exec as uid 0 would bring back.
///
/// The bounding set stays: it is that of our own user namespace, and a file with capabilities (`ping`) could not be
/// executed at all without it (execve(2), `EPERM`).
///
/// # Errors
///
/// What prctl(2) and capset(2) say; the process must not go on then.
pub fn drop_capabilities() -> io::Result<()> {
    use rustix::thread::{CapabilitiesSecureBits, CapabilitySet, CapabilitySets};
    rustix::thread::set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED,
    )?;
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Lets the next program inherit this descriptor.
///
/// # Errors
///
/// What fcntl(2) says.
pub fn keep_over_exec(descriptor: &OwnedFd) -> io::Result<()> {
    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::empty())?;
    tracing::trace!(fd = descriptor.as_raw_fd(), "inherited by the command");
    Ok(())
}

/// Closes every descriptor but the first three and this one; what is inherited beside it is nobody's business here.
///
/// Whoever owned one of them in this process must not use or drop it any more: this is for a forked child that never
/// returns to where they are.
///
/// # Errors
///
/// What close_range(2) says: before Linux 5.9 it is not there.
pub fn close_all_but(kept: &OwnedFd) -> io::Result<()> {
    let kept = u32::try_from(kept.as_raw_fd()).unwrap_or(0);
    let close = |first: u32, last: u32| {
        if first > last {
            return Ok(());
        }
        // SAFETY: no memory is passed. Owners of these descriptors are never run again, as the caller promises.
        match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    close(3, kept.saturating_sub(1))?;
    close(kept.saturating_add(1).max(3), u32::MAX)
}

/// Lets nothing be read from standard input, and standard output be lost.
///
/// # Errors
///
/// `/dev/null` cannot be opened.
pub fn mute_standard_streams() -> io::Result<()> {
    let nothing = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    Ok(())
}

/// Ends this process at once, without what was registered for its end; for a forked child.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process; no memory is passed.
    unsafe { libc::_exit(status) }
}

/// A copy of a descriptor that this process was started with.
///
/// # Errors
///
/// `EBADF` if it is not open.
pub fn inherited(descriptor: i32) -> io::Result<OwnedFd> {
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: fcntl checks the number, and answers a new descriptor that nobody else owns.
    let copy = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
