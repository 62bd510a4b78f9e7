//! The thread that waits for sockets. It runs nothing of the program's.

use super::core::Core;
use super::link::{Link, Use};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmnet_queue::fork;

/// What is waited for.
#[derive(Debug)]
pub(super) struct Reactor {
    epoll: OwnedFd,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    tokens: AtomicU64,
    /// Whose it is: a child of `fork` has another, since the thread is its parent's.
    generation: u64,
}

/// The one of this process, and its thread; none if the system has no descriptors or threads left.
pub(super) fn get() -> Option<&'static Reactor> {
    static CURRENT: AtomicPtr<Reactor> = AtomicPtr::new(ptr::null_mut());
    let generation = fork::generation();
    let there = CURRENT.load(Ordering::Acquire);
    // SAFETY: What was put there stays for ever.
    let current = unsafe { there.as_ref() };
    if let Some(reactor) = current.filter(|reactor| reactor.generation == generation) {
        return Some(reactor);
    }
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).ok()?;
    let new = Box::into_raw(Box::new(Reactor {
        epoll,
        links: Mutex::default(),
        tokens: AtomicU64::new(0),
        generation,
    }));
    // No lock: somebody could hold it while the process forks.
    if CURRENT
        .compare_exchange(there, new, Ordering::AcqRel, Ordering::Acquire)
        .is_err()
    {
        // SAFETY: Nobody else has seen it.
        drop(unsafe { Box::from_raw(new) });
        return get();
    }
    // SAFETY: It is never freed from here on.
    let reactor: &'static Reactor = unsafe { &*new };
    let spawned = std::thread::Builder::new()
        .name("vmnet-xpc".to_owned())
        .spawn(|| reactor.run());
    if spawned.is_err() {
        let _another_is_there =
            CURRENT.compare_exchange(new, ptr::null_mut(), Ordering::AcqRel, Ordering::Acquire);
        return None;
    }
    Some(reactor)
}

/// That the peer is gone is told always: who does not read yet is told once, and again when it does.
fn interest(read: bool, write: bool) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::ET, !read);
    flags.set(EventFlags::IN | EventFlags::RDHUP, read);
    flags.set(EventFlags::OUT, write);
    flags
}

impl Reactor {
    /// Waits for a socket; it can be read at first.
    pub(super) fn add(
        &self,
        socket: OwnedFd,
        purpose: Use,
        core: &Arc<Core>,
    ) -> Result<Arc<Link>, Errno> {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let (core, stream) = (Arc::clone(core), Mutex::default());
        let link = Arc::new(Link {
            token,
            socket,
            purpose,
            core,
            stream,
        });
        self.lock().insert(token, Arc::clone(&link));
        let flags = interest(true, false);
        if let Err(error) = epoll::add(&self.epoll, &link.socket, EventData::new_u64(token), flags)
        {
            self.lock().remove(&token);
            return Err(error);
        }
        Ok(link)
    }

    /// Changes what is waited for.
    pub(super) fn wait_for(&self, link: &Link, read: bool, write: bool) {
        let data = EventData::new_u64(link.token);
        // It fails for a socket that has just been removed.
        let _removed = epoll::modify(&self.epoll, &link.socket, data, interest(read, write));
    }

    /// Waits no more. The socket is closed with the last reference of the link.
    pub(super) fn remove(&self, link: &Link) {
        let _removed_before = epoll::delete(&self.epoll, &link.socket);
        let link = self.lock().remove(&link.token);
        drop(link);
    }

    fn run(&self) {
        let mut ready = [MaybeUninit::uninit(); 32];
        loop {
            let events: Vec<_> = match epoll::wait(&self.epoll, &mut ready, None) {
                Ok((events, _)) => events
                    .iter()
                    .map(|event| (event.data.u64(), event.flags))
                    .collect(),
                Err(_) => continue,
            };
            for (token, flags) in events {
                let link = self.lock().get(&token).map(Arc::clone);
                if let Some(link) = link {
                    let ended = flags.intersects(EventFlags::HUP | EventFlags::ERR);
                    let readable = flags.intersects(EventFlags::IN | EventFlags::RDHUP);
                    let writable = flags.contains(EventFlags::OUT);
                    link.core.ready(&link, readable || ended, writable || ended);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
