//! What happens when mapped memory vanishes: the thread that touches it goes on, and the memory is marked as lost.
//!
//! A file that was shrunk, or a page of a file of huge pages when there are none left, gives `SIGBUS` to whoever
//! touches it. The handler here puts empty private memory in the place of the whole mapping, so
//! that the access and all later ones succeed, and says so by a flag, which rings look at once per burst. System calls need no
//! such care: the kernel returns `EFAULT`.
//!
//! The handler is one of the whole process, and passes what is not about a mapping of ours on to the one before it. So it
//! is installed when it is first asked for ([`super::Unsealed::Guard`]), by a service; not by a
//! library in somebody else's process.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Mappings of all guests.
const PLACES: usize = 4096;

static GUARDED: [Place; PLACES] = [const { Place::empty() }; PLACES];
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A mapping that may vanish.
struct Place {
    /// The first byte; 0: there is none; 1: it is being filled in.
    start: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
}

impl Place {
    const fn empty() -> Self {
        Self {
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }

    fn has(&self, addr: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        start > 1
            && addr
                .checked_sub(start)
                .is_some_and(|at| at < self.len.load(Ordering::Relaxed))
    }
}

/// Keeps a mapping in the list for as long as it lives. Drop it before the mapping is unmapped.
#[derive(Debug)]
pub(super) struct Guard(usize);

impl Guard {
    /// Guards `len` bytes of pages from `start` on, mapped by the caller.
    ///
    /// # Errors
    /// There are too many mappings, or the handler could not be installed.
    pub(super) fn new(start: *mut c_void, len: usize) -> io::Result<Self> {
        install()?;
        for (index, place) in GUARDED.iter().enumerate() {
            let free = place
                .start
                .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
            if free.is_ok() {
                place.len.store(len, Ordering::Relaxed);
                place.lost.store(false, Ordering::Relaxed);
                place.start.store(start.addr(), Ordering::Release);
                return Ok(Self(index));
            }
        }
        Err(io::Error::other(
            "more mappings of guest memory than can be guarded",
        ))
    }

    /// The memory has vanished, and what is read there now is nothing of the guest's.
    pub(super) fn lost(&self) -> bool {
        GUARDED
            .get(self.0)
            .is_some_and(|place| place.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(place) = GUARDED.get(self.0) {
            place.start.store(0, Ordering::Release);
        }
    }
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    static DONE: OnceLock<Result<(), i32>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        let mut before = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: `before` is written by the call if it succeeds, which is looked at first.
        let before = unsafe {
            if libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
            }
            before.assume_init()
        };
        let _ = BEFORE.set(before);
        // SAFETY: all of its fields are integers, an empty set, or an optional function that is absent.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the action is complete, and its handler does only what a signal handler may.
        if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
        }
        Ok(())
    });
    done.map_err(io::Error::from_raw_os_error)
}

/// Runs in the thread that touched memory that is not there. It may use atomics and system calls, and nothing that
/// takes a lock or allocates.
extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a valid structure, and for this signal it has an address.
    let addr = unsafe { (*info).si_addr() }.addr();
    for place in &GUARDED {
        if place.has(addr) && replace(place) {
            return;
        }
    }
    pass_on(signal, info, context);
}

/// Puts empty memory in the place of what has vanished.
fn replace(place: &Place) -> bool {
    let start = place.start.load(Ordering::Relaxed);
    // SAFETY: errno belongs to this thread; the interrupted code may be about to read it.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: these are pages that `Guard::new` was given, whole and still mapped, as somebody has just
    // accessed them through the mapping that owns the guard. All such accesses are raw copies or atomics, to which
    // zeros are as good as any other bytes.
    let mapped = unsafe {
        libc::mmap(
            ptr::without_provenance_mut(start),
            place.len.load(Ordering::Relaxed),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    if mapped == libc::MAP_FAILED {
        return false;
    }
    place.lost.store(true, Ordering::Relaxed);
    true
}

/// This was not about guest memory.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let before = BEFORE
        .get()
        .map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    let with_info = BEFORE
        .get()
        .is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0);
    if before == libc::SIG_DFL || before == libc::SIG_IGN || !with_info {
        // SAFETY: the default action ends the process when the access is tried again.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // SAFETY: with `SA_SIGINFO` and neither of the two special values it is a function of this kind.
    let before: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
        unsafe { std::mem::transmute(before) };
    before(signal, info, context);
}

#[cfg(all(test, not(miri)))]
mod tests;
