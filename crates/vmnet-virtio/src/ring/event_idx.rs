//! Who is to be woken (virtio 1.2 §2.7.7, §2.7.10, §2.8.10): the two fences, and the arithmetic.
//!
//! One side publishes and then asks if the other wants to be woken. The other writes that it wants to be, and
//! then looks if something was published. Each writes one word and reads the other's; if neither
//! saw the other's write, the sleeper would sleep for ever. A full fence between write and read on both sides
//! excludes that. All accesses here are relaxed or acquire, which loom can model: `RUSTFLAGS="--cfg loom"
//! cargo test -p vmnet-virtio --release --lib loom_`.

#[cfg(loom)]
use loom::sync::atomic::fence;
use std::sync::atomic::Ordering;
#[cfg(not(loom))]
use std::sync::atomic::fence;

/// Reads by `wish` what the other side wants, after everything that was published.
#[inline]
pub(crate) fn after_publishing<T>(wish: impl FnOnce() -> T) -> T {
    fence(Ordering::SeqCst);
    wish()
}

/// Writes by `wish` that this side wants to be woken, and then asks `look` if it must look again instead.
#[inline]
pub(crate) fn before_sleeping(wish: impl FnOnce(), look: impl FnOnce() -> bool) -> bool {
    wish();
    fence(Ordering::SeqCst);
    look()
}

/// Has the index passed `event` on its way from `old` to `new`?
#[inline]
pub(crate) const fn passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::passed;

    #[test]
    fn an_event_is_passed_when_the_entry_behind_it_is_published() {
        for start in [0_u16, 7, u16::MAX - 2, u16::MAX] {
            let at = |n: u16| start.wrapping_add(n);
            assert!(passed(at(0), at(1), at(0)), "the very next");
            assert!(passed(at(3), at(5), at(2)));
            assert!(!passed(at(5), at(5), at(2)), "not yet");
            assert!(!passed(at(1), at(5), at(2)), "long ago");
            assert!(!passed(at(0), at(2), at(2)), "nothing was published");
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicU16};
    use loom::thread;

    struct Side {
        index: AtomicU16,
        event: AtomicU16,
        bell: AtomicBool,
    }

    /// One publishes twice, one entry each time; the other takes what it sees and then sleeps. Whoever sleeps
    /// with something unseen must have been woken.
    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let side = Arc::new(Side {
                index: AtomicU16::new(0),
                // Long ago: nobody is to be woken before it is asked for.
                event: AtomicU16::new(u16::MAX),
                bell: AtomicBool::new(false),
            });
            let publisher = {
                let side = Arc::clone(&side);
                thread::spawn(move || {
                    for new in 1..=2_u16 {
                        side.index.store(new, Ordering::Release);
                        let event = after_publishing(|| side.event.load(Ordering::Relaxed));
                        if passed(event, new, new - 1) {
                            side.bell.store(true, Ordering::Relaxed);
                        }
                    }
                })
            };
            let mut seen = 0;
            let slept = loop {
                seen = side.index.load(Ordering::Acquire).max(seen);
                let again = before_sleeping(
                    || side.event.store(seen, Ordering::Relaxed),
                    || side.index.load(Ordering::Acquire) != seen,
                );
                if !again {
                    break seen;
                }
            };
            publisher.join().unwrap();
            assert!(
                slept == 2 || side.bell.load(Ordering::Relaxed),
                "asleep at {slept} and not woken"
            );
        });
    }

    /// The same with a flag in place of an index: what rings without `EVENT_IDX` do.
    #[test]
    fn loom_no_wake_up_is_lost_with_flags() {
        loom::model(|| {
            let index = Arc::new(AtomicU16::new(0));
            let unwanted = Arc::new(AtomicU16::new(1));
            let bell = Arc::new(AtomicBool::new(false));
            let publisher = {
                let (index, unwanted, bell) =
                    (Arc::clone(&index), Arc::clone(&unwanted), Arc::clone(&bell));
                thread::spawn(move || {
                    index.store(1, Ordering::Release);
                    if after_publishing(|| unwanted.load(Ordering::Relaxed)) == 0 {
                        bell.store(true, Ordering::Relaxed);
                    }
                })
            };
            let again = before_sleeping(
                || unwanted.store(0, Ordering::Relaxed),
                || index.load(Ordering::Acquire) != 0,
            );
            publisher.join().unwrap();
            assert!(
                again || bell.load(Ordering::Relaxed),
                "asleep and not woken"
            );
        });
    }
}
