//! Eventfds of others, signalled without ever waiting.
//!
//! A `write(2)` to an eventfd waits while its counter is full, unless the descriptor is non-blocking; but that flag belongs
//! to everybody who has the descriptor, and a VMM may take it away in the moment before we write. What the kernel
//! signals itself at the end of an asynchronous operation (`io_submit(2)`, `IOCB_FLAG_RESFD`) never waits: a full
//! counter stays full. So a read of nothing is submitted, and the eventfd is told of its end.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Operations whose end was not looked at; then all are at once.
const AT_ONCE: usize = 64;
const PREAD: u16 = 0;
/// `IOCB_FLAG_RESFD`.
const TELL: u32 = 1;

/// `struct iocb` of `linux/aio_abi.h`, little-endian.
#[repr(C)]
#[derive(Default)]
struct Operation {
    data: u64,
    key: u32,
    rw_flags: i32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    tell: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Ended {
    data: u64,
    operation: u64,
    result: i64,
    result2: i64,
}

/// A context for operations of one thread.
#[derive(Debug)]
struct Context {
    id: libc::c_ulong,
    /// `/dev/null`, from which nothing can be read at once.
    nothing: OwnedFd,
    submitted: usize,
}

thread_local! {
    /// Of this thread; none until it is needed, or if the kernel gives none.
    static CONTEXT: RefCell<Option<Context>> = const { RefCell::new(None) };
}

/// Adds one to an eventfd's counter, or leaves it as full as it is. Never waits.
///
/// # Errors
/// It is no eventfd, or the kernel has no means for this.
pub(crate) fn signal(eventfd: BorrowedFd<'_>) -> io::Result<()> {
    CONTEXT.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            none => none.insert(Context::new()?),
        };
        context.signal(eventfd)
    })
}

impl Context {
    fn new() -> io::Result<Self> {
        let nothing = std::fs::File::open("/dev/null")?.into();
        let mut id: libc::c_ulong = 0;
        // SAFETY: the kernel writes the new context's id to a local.
        check(unsafe { libc::syscall(libc::SYS_io_setup, AT_ONCE, &raw mut id) })?;
        Ok(Self {
            id,
            nothing,
            submitted: 0,
        })
    }

    fn signal(&mut self, eventfd: BorrowedFd<'_>) -> io::Result<()> {
        if self.submitted >= AT_ONCE / 2 {
            self.look_at_ends()?;
        }
        let number = |fd: i32| u32::try_from(fd).unwrap_or(u32::MAX);
        let mut operation = Operation {
            opcode: PREAD,
            fd: number(self.nothing.as_raw_fd()),
            flags: TELL,
            tell: number(eventfd.as_raw_fd()),
            ..Operation::default()
        };
        let mut list = [&raw mut operation];
        // SAFETY: the list and what it leads to are locals that live through the call, after which the kernel does not look
        // at them; the operation reads zero bytes.
        let submitted =
            check(unsafe { libc::syscall(libc::SYS_io_submit, self.id, 1, list.as_mut_ptr()) })?;
        self.submitted += usize::try_from(submitted).unwrap_or(0);
        Ok(())
    }

    /// Makes room for more operations.
    fn look_at_ends(&mut self) -> io::Result<()> {
        let mut ended = [Ended::default(); AT_ONCE];
        // SAFETY: the kernel writes at most as many entries as there are; without a time it does not wait, as none is wanted.
        let count = check(unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.id,
                0,
                AT_ONCE,
                ended.as_mut_ptr(),
                std::ptr::null_mut::<libc::timespec>(),
            )
        })?;
        self.submitted -= usize::try_from(count).unwrap_or(0).min(self.submitted);
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is ours, and ends here.
        let _gone = unsafe { libc::syscall(libc::SYS_io_destroy, self.id) };
    }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};
    use std::os::fd::AsFd;

    fn count(fd: &OwnedFd) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(fd, &mut bytes).unwrap();
        u64::from_ne_bytes(bytes)
    }

    #[test]
    fn each_signal_counts() {
        let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        for _ in 0..1000 {
            signal(fd.as_fd()).unwrap();
        }
        assert_eq!(count(&fd), 1000);
        signal(fd.as_fd()).unwrap();
        assert_eq!(count(&fd), 1);
    }

    #[test]
    fn a_full_one_that_blocks_is_not_waited_for() {
        let fd = eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        for _ in 0..200 {
            signal(fd.as_fd()).unwrap();
        }
        assert_eq!(count(&fd), u64::MAX, "as full as it gets");
    }

    #[test]
    fn what_is_no_eventfd_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(signal(file.as_fd()).is_err());
    }

    #[test]
    fn threads_have_their_own() {
        let fd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..100).for_each(|_| signal(fd.as_fd()).unwrap()));
            }
        });
        assert_eq!(count(&fd), 800);
    }
}
