//! Signals as something to read (signalfd(2)), and the mask that makes them so.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

macro_rules! numbers {
    ($($name:ident $number:ident $what:literal)*) => {
        $(#[doc = $what] pub const $name: i32 = libc::$number;)*
    };
}

numbers! {
    HUP SIGHUP "The terminal is gone."
    INT SIGINT "Interrupt, Ctrl-C."
    QUIT SIGQUIT "Quit with a core, Ctrl-\\\\."
    KILL SIGKILL "The end, without appeal."
    USR1 SIGUSR1 "The program's own."
    USR2 SIGUSR2 "The program's own."
    TERM SIGTERM "Please end."
    CHLD SIGCHLD "A child changed."
    CONT SIGCONT "Go on."
    TSTP SIGTSTP "Stop, Ctrl-Z."
    TTIN SIGTTIN "Stop: a read from the terminal in the background."
    TTOU SIGTTOU "Stop: a write to the terminal in the background."
    WINCH SIGWINCH "The terminal's size changed."
}

/// The signal mask a process had before [`Signals::open`]; a command that is started gets it back.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

impl Mask {
    /// Sets the mask of the calling thread.
    pub fn restore(&self) {
        // SAFETY: the set was filled by the kernel; no old set is asked for.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut())
        };
    }
}

/// Lets all signals in again that the calling thread has blocked. A mask is inherited through exec, so a process that was
/// started by a thread with blocked signals would never hear of them.
pub fn unblock_all() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given, and no old set is asked for.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// Whether this process ignores a signal, as one that nohup(1) started ignores [`HUP`].
#[must_use]
pub fn is_ignored(number: i32) -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action this asks only; what it succeeds to answer is initialised.
    unsafe {
        libc::sigaction(number, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// One signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Its number.
    pub number: i32,
    /// A process sent it (kill, sigqueue, tgkill); otherwise the kernel did, as a terminal does for its keys.
    pub from_process: bool,
}

/// Blocked signals, readable as a descriptor.
pub struct Signals {
    descriptor: OwnedFd,
}

impl Signals {
    /// Blocks the signals of `numbers` for the calling thread and those it starts later; answers the mask from before.
    ///
    /// # Errors
    ///
    /// What `signalfd` says.
    pub fn open(numbers: &[i32]) -> io::Result<(Self, Mask)> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set it is given, sigaddset changes one that is initialised.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &number in numbers {
                libc::sigaddset(set.as_mut_ptr(), number);
            }
            set.assume_init()
        };
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: both sets are valid; the kernel fills `before`.
        let before = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, before.as_mut_ptr());
            before.assume_init()
        };
        // SAFETY: the set is initialised and outlives the call.
        let fd =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just made and nobody else owns it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok((Self { descriptor }, Mask(before)))
    }

    /// The next signal that waits, if any.
    #[must_use]
    pub fn next(&self) -> Option<Arrived> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer has room for the one record asked for.
        let length =
            unsafe { libc::read(self.descriptor.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if usize::try_from(length) != Ok(size) {
            return None;
        }
        // SAFETY: a whole record was read.
        let info = unsafe { info.assume_init() };
        Some(Arrived {
            number: info.ssi_signo as i32,
            from_process: info.ssi_code <= 0,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the calling thread has this signal blocked.
    fn is_blocked(number: i32) -> bool {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: no new set is given; the kernel fills `set` before it is read.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), set.as_mut_ptr());
            libc::sigismember(set.as_ptr(), number) == 1
        }
    }

    #[test]
    fn what_was_blocked_is_let_in_again() {
        // A thread of its own: the mask is a thread's.
        std::thread::spawn(|| {
            let signals = Signals::open(&[TERM, USR1]).unwrap();
            assert!(is_blocked(TERM) && is_blocked(USR1));
            unblock_all();
            assert!(!is_blocked(TERM) && !is_blocked(USR1));
            drop(signals);
        })
        .join()
        .unwrap();
    }
}
