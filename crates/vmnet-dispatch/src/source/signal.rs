//! Signals, noted where they arrive.
//!
//! Programs ignore a signal and then make a source for it: where dispatch comes from, the kernel reports signals to sources
//! whatever their action is. Here the action is replaced while a source waits for the signal, and comes back afterwards.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// One more than the highest signal.
pub(super) const SIGNALS: usize = 65;

/// How many have come and have not been reported.
static COUNTS: [AtomicU32; SIGNALS] = [const { AtomicU32::new(0) }; SIGNALS];

/// The eventfd that wakes the thread.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// How many sources wait for each signal, and its action before the first did.
static FORMER: Mutex<Vec<(i32, usize, libc::sigaction)>> = Mutex::new(Vec::new());

/// Whether a program can have a handler for it.
pub(super) fn can_be_caught(number: i32) -> bool {
    let exists = usize::try_from(number).is_ok_and(|number| (1..SIGNALS).contains(&number));
    exists && !matches!(number, libc::SIGKILL | libc::SIGSTOP | 32 | 33)
}

/// Names the eventfd to write to. It stays open for ever.
pub(super) fn wake_by(eventfd: i32) {
    WAKE.store(eventfd, Ordering::Release);
}

/// The action: counts, and wakes.
extern "C" fn arrived(number: libc::c_int) {
    if let Ok(index) = usize::try_from(number)
        && let Some(count) = COUNTS.get(index)
    {
        count.fetch_add(1, Ordering::Relaxed);
        let one = 1u64;
        // SAFETY: `write` and `errno` may be used in a signal's action; the eventfd is open for ever.
        unsafe {
            let error = *libc::__errno_location();
            libc::write(WAKE.load(Ordering::Acquire), (&raw const one).cast(), 8);
            *libc::__errno_location() = error;
        }
    }
}

/// Lets a signal be counted.
pub(super) fn catch(number: i32) {
    let mut former = FORMER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, sources, _)) = former.iter_mut().find(|(known, ..)| *known == number) {
        *sources += 1;
        return;
    }
    // SAFETY: A `sigaction` of zeros is one: no flags, nothing masked.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = arrived as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    let mut before = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: Both live here, and the action does only what an action may.
    if unsafe { libc::sigaction(number, &raw const action, before.as_mut_ptr()) } == 0 {
        // SAFETY: The call has filled it in.
        former.push((number, 1, unsafe { before.assume_init() }));
    }
}

/// One source less waits for a signal.
pub(super) fn release(number: i32) {
    let mut former = FORMER.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(at) = former.iter().position(|(known, ..)| *known == number) else {
        return;
    };
    if let Some((_, sources, before)) = former.get_mut(at) {
        *sources -= 1;
        if *sources == 0 {
            // SAFETY: This is the action that the system gave.
            unsafe { libc::sigaction(number, before, ptr::null_mut()) };
            former.swap_remove(at);
        }
    }
}

/// What has come since the last time: each signal, and how often.
pub(super) fn take() -> impl Iterator<Item = (i32, u32)> {
    (0i32..).zip(&COUNTS).filter_map(|(number, count)| {
        let count = count.swap(0, Ordering::Acquire);
        (count > 0).then_some((number, count))
    })
}
