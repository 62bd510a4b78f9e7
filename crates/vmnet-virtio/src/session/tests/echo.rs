//! A device that sends every frame back on the pair of rings by which it came, as a port would serve them: it waits for
//! kicks, and calls.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::TryRecvError;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};

use super::*;
use crate::memory::MemoryMap;
use crate::net::{Burst, BurstLimits, Delivery, FromGuest, ToGuest};
use crate::ring::RingError;

/// The device, in a thread, and its session.
pub(crate) struct Echo {
    thread: Option<JoinHandle<Option<RingError>>>,
    stop: Sender,
    /// Frames that were thrown away because their ring was off.
    pub(crate) discarded: Arc<AtomicUsize>,
}

enum Event {
    Change(Change),
    Die,
}

#[derive(Clone)]
struct Sender(std::sync::mpsc::Sender<Event>, Arc<OwnedFd>);

impl Sender {
    fn send(&self, event: Event) {
        let _ = self.0.send(event);
        let _ = rustix::io::write(&*self.1, &1_u64.to_ne_bytes());
    }
}

enum Kind {
    Receive(Box<FromGuest>),
    Deliver(Box<ToGuest>),
}

struct Served {
    kind: Kind,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    on: bool,
    /// It was on at some time: what is sent while it is off is thrown away from then on.
    begun: bool,
}

impl Served {
    fn call(&self) {
        if let Some(call) = &self.call {
            let _ = rustix::io::write(call, &1_u64.to_ne_bytes());
        }
    }
}

impl Echo {
    pub(crate) fn start(stream: UnixStream, offer: Offer) -> Self {
        let (sender, events) = channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let stop = Sender(sender, Arc::clone(&wake));
        let to_thread = stop.clone();
        let session = Session::start(stream, offer, move |change| {
            to_thread.send(Event::Change(change));
        });
        let session = session.unwrap();
        let discarded = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&discarded);
        let thread = thread::spawn(move || {
            let mut device = Device {
                rings: BTreeMap::new(),
                burst: Burst::new(BurstLimits {
                    frames: 32,
                    bytes: 1 << 18,
                    head: 64,
                }),
                discarded: count,
                broken: None,
            };
            device.run(&events, &wake);
            drop(session);
            device.broken
        });
        Self {
            thread: Some(thread),
            stop,
            discarded,
        }
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends at once, between two bursts, without a word to anybody. Says what broke a ring, if one broke.
    pub(crate) fn die(mut self) -> Option<RingError> {
        self.stop.send(Event::Die);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.send(Event::Die);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Device {
    rings: BTreeMap<u16, Served>,
    burst: Burst,
    discarded: Arc<AtomicUsize>,
    broken: Option<RingError>,
}

impl Device {
    fn run(&mut self, events: &Receiver<Event>, wake: &OwnedFd) {
        loop {
            loop {
                match events.try_recv() {
                    Ok(Event::Change(change)) => self.change(change),
                    Ok(Event::Die) | Err(TryRecvError::Disconnected) => return,
                    Err(TryRecvError::Empty) => break,
                }
            }
            let mut again = false;
            let pairs: Vec<u16> = self.rings.keys().copied().filter(|i| i % 2 == 1).collect();
            for transmit in pairs {
                again |= self.echo(transmit);
            }
            if self.broken.is_some() {
                return;
            }
            if !again {
                self.sleep(wake);
            }
        }
    }

    fn sleep(&mut self, wake: &OwnedFd) {
        for ring in self.rings.values_mut() {
            let there_is_more = match &mut ring.kind {
                Kind::Receive(queue) => queue.enable_kicks() && ring.begun,
                Kind::Deliver(_) => false,
            };
            if there_is_more {
                return;
            }
        }
        let kicks = self.rings.values().filter_map(|ring| ring.kick.as_ref());
        let all: Vec<&OwnedFd> = kicks.chain([wake]).collect();
        let mut polled: Vec<PollFd<'_>> = all
            .iter()
            .map(|fd| PollFd::new(*fd, PollFlags::IN))
            .collect();
        poll(&mut polled, None).unwrap();
        for fd in all {
            let _ = rustix::io::read(fd, &mut [0; 8]);
        }
    }

    /// Sends a burst back. True: there may be more.
    fn echo(&mut self, transmit: u16) -> bool {
        let Some(mut from) = self.rings.remove(&transmit) else {
            return false;
        };
        let mut to = self.rings.remove(&(transmit - 1));
        let again = self.between(&mut from, to.as_mut().filter(|to| to.on));
        self.rings.insert(transmit, from);
        if let Some(to) = to {
            self.rings.insert(transmit - 1, to);
        }
        again.unwrap_or_else(|error| {
            self.broken = Some(error);
            false
        })
    }

    fn between(&mut self, from: &mut Served, to: Option<&mut Served>) -> Result<bool, RingError> {
        let Kind::Receive(queue) = &mut from.kind else {
            panic!("an odd ring");
        };
        if !from.begun {
            return Ok(false);
        }
        let received = queue.receive(&mut self.burst)?;
        let mut done = 0;
        if let Some(to) = to
            && from.on
        {
            let Kind::Deliver(out) = &mut to.kind else {
                panic!("an even ring");
            };
            for frame in self.burst.iter() {
                let frame = frame.expect("a good frame");
                match out.deliver(frame.header, frame.head, frame.rest)? {
                    Delivery::NoBuffers => break,
                    Delivery::Done | Delivery::TooLong => done += 1,
                }
            }
            if out.publish() {
                to.call();
            }
        } else {
            self.discarded.fetch_add(received, Ordering::Relaxed);
            done = received;
        }
        queue.complete(done);
        queue.rewind(received - done);
        if queue.publish() {
            from.call();
        }
        Ok(done > 0)
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Negotiated { done, .. } => done.give(()),
            Change::Start { ring, done } => done.give(self.begin(ring)),
            Change::Enable { index, on, done } => {
                let ring = self.rings.get_mut(&index).expect("a ring");
                ring.on = on;
                ring.begun |= on;
                done.give(());
            }
            Change::Kick { index, fd, done } => {
                self.rings.get_mut(&index).expect("a ring").kick = fd;
                done.give(());
            }
            Change::Call { index, fd, done } => {
                let ring = self.rings.get_mut(&index).expect("a ring");
                ring.call = fd;
                ring.call();
                done.give(());
            }
            Change::Error { done, .. } => done.give(()),
            Change::Memory { map, done } => done.give(self.remap(&map)),
            Change::Stop { index, base } => base.give(self.end(index)),
            Change::Reset { done } => {
                self.rings.clear();
                done.give(());
            }
            Change::Ended(_) => self.rings.clear(),
        }
    }

    fn begin(&mut self, ring: RingStart) -> Result<(), StartError> {
        let (memory, config, features) = (ring.memory, ring.config, ring.features);
        let kind = if ring.index % 2 == 1 {
            Kind::Receive(Box::new(FromGuest::start(memory, config, features)?))
        } else {
            Kind::Deliver(Box::new(ToGuest::start(memory, config, features)?))
        };
        let served = Served {
            kind,
            kick: ring.kick,
            call: ring.call,
            on: ring.enabled,
            begun: ring.enabled,
        };
        served.call();
        self.rings.insert(ring.index, served);
        Ok(())
    }

    fn remap(&mut self, map: &Arc<MemoryMap>) -> Result<(), StartError> {
        for ring in self.rings.values_mut() {
            match &mut ring.kind {
                Kind::Receive(queue) => queue.remap(Arc::clone(map))?,
                Kind::Deliver(queue) => queue.remap(Arc::clone(map))?,
            }
        }
        Ok(())
    }

    fn end(&mut self, index: u16) -> u32 {
        let mut ring = self.rings.remove(&index).expect("a ring");
        match &mut ring.kind {
            Kind::Receive(queue) => queue.base(),
            Kind::Deliver(queue) => queue.base(),
        }
    }
}
