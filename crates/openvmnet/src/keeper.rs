//! The thread that sees when the service goes, and looks for it until all networks and interfaces of this process are back.
//!
//! There is one as long as this process holds something, and it sleeps as long as the service lives. Frames do not pass here.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::interface;
use crate::membership::{Membership, lock};

/// The thread of this process, if there is one.
static KEEPER: Mutex<Option<Keeper>> = Mutex::new(None);

struct Keeper {
    /// Whose thread it is: a child that was forked has none.
    pid: rustix::process::Pid,
    wake: Arc<OwnedFd>,
    kept: Vec<Weak<Membership>>,
}

/// Looks after a network, from now on.
///
/// # Errors
/// There is no thread to be had.
pub(crate) fn keep(membership: &Arc<Membership>) -> io::Result<()> {
    let mut keeper = lock(&KEEPER);
    let pid = rustix::process::getpid();
    if let Some(keeper) = keeper.as_mut().filter(|keeper| keeper.pid == pid) {
        keeper.kept.push(Arc::downgrade(membership));
        wake(&keeper.wake);
        return Ok(());
    }
    let ours = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let woken = Arc::clone(&ours);
    thread::Builder::new()
        .name("vmnet-keeper".to_owned())
        .stack_size(256 << 10)
        .spawn(move || stay(&woken))?;
    *keeper = Some(Keeper {
        pid,
        wake: ours,
        kept: vec![Arc::downgrade(membership)],
    });
    Ok(())
}

/// What there is to be looked after has changed.
pub(crate) fn look_again() {
    if let Some(keeper) = &*lock(&KEEPER) {
        wake(&keeper.wake);
    }
}

fn wake(fd: &OwnedFd) {
    // It is as full as it gets, or done.
    let _woken = rustix::io::write(fd, &1_u64.to_ne_bytes());
}

/// Something that hangs up.
struct Watched {
    stream: Arc<dyn AsFd + Send + Sync>,
    membership: Weak<Membership>,
    /// Of an interface; else it is the connection.
    interface: Option<Weak<interface::Shared>>,
}

fn stay(woken: &OwnedFd) {
    vmnet_virtio::signals::block_all();
    while let Some(kept) = kept() {
        let (watched, until) = collect(&kept);
        let gone = wait(woken, &watched, until);
        // The connection first: if that is gone, so is everything else.
        for watched in &gone {
            if let (None, Some(membership)) = (&watched.interface, watched.membership.upgrade()) {
                membership.lost();
            }
        }
        for watched in &gone {
            if let Some(interface) = watched.interface.as_ref().and_then(Weak::upgrade)
                && let Some(membership) = watched.membership.upgrade()
                && membership.stream().is_some()
            {
                interface.hung_up();
            }
        }
        let now = Instant::now();
        for membership in kept.iter().filter_map(Weak::upgrade) {
            if membership.retry_at().is_some_and(|at| at <= now) {
                membership.try_again();
            }
        }
    }
}

/// What is to be looked after; none: the thread is not needed any more.
fn kept() -> Option<Vec<Weak<Membership>>> {
    let mut keeper = lock(&KEEPER);
    let ours = keeper.as_mut()?;
    ours.kept.retain(|one| one.strong_count() > 0);
    if ours.kept.is_empty() {
        *keeper = None;
        return None;
    }
    Some(ours.kept.clone())
}

/// What may hang up, and when something is to be tried again.
fn collect(kept: &[Weak<Membership>]) -> (Vec<Watched>, Option<Instant>) {
    let mut watched = Vec::new();
    let mut until: Option<Instant> = None;
    for weak in kept {
        let Some(membership) = weak.upgrade() else {
            continue;
        };
        if let Some(at) = membership.retry_at() {
            until = Some(until.map_or(at, |until| until.min(at)));
        }
        let Some(stream) = membership.stream() else {
            continue;
        };
        watched.push(Watched {
            stream,
            membership: weak.clone(),
            interface: None,
        });
        for interface in membership.interfaces() {
            if let Some(stream) = interface.line() {
                watched.push(Watched {
                    stream,
                    membership: weak.clone(),
                    interface: Some(Arc::downgrade(&interface)),
                });
            }
        }
    }
    (watched, until)
}

/// Waits until something hangs up, or is to be done: what did.
fn wait(woken: &OwnedFd, watched: &[Watched], until: Option<Instant>) -> Vec<Watched> {
    let timeout = until.map(|until| {
        let left = until.saturating_duration_since(Instant::now());
        Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        }
    });
    let mut polled = vec![PollFd::new(woken, PollFlags::IN)];
    // Answers to calls are their callers' business.
    polled.extend(
        watched
            .iter()
            .map(|one| PollFd::from_borrowed_fd(one.stream.as_fd(), PollFlags::RDHUP)),
    );
    // Interrupted or not: who called looks again.
    let _ready = poll(&mut polled, timeout.as_ref());
    let _taken = rustix::io::read(woken, &mut [0_u8; 8]);
    let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    let gone = polled.iter().skip(1).zip(watched);
    gone.filter(|(polled, _)| polled.revents().intersects(ends))
        .map(|(_, one)| Watched {
            stream: Arc::clone(&one.stream),
            membership: one.membership.clone(),
            interface: one.interface.clone(),
        })
        .collect()
}
