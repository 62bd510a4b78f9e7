//! DPDK's virtio-user as a VMM that we did not write: two of its ports on a wire between two sessions.
//!
//! `dpdk-testpmd` (Debian: dpdk-dev) sends whatever comes in at one port out of the other, so a handful of frames runs round
//! and round. At the end its counts and the wire's must tell the same story. Without huge pages, and without root.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use vmnet_lab::prerequisite::{Prerequisite, all_present};
use vmnet_lab::testpmd::{self, Port, Testpmd};
use vmnet_virtio::memory::Unsealed;
use vmnet_virtio::net::{Burst, BurstLimits, Delivery, Features, FromGuest, ToGuest};
use vmnet_virtio::ring::StartError;
use vmnet_virtio::session::{Change, Offer, RingStart, Session, SessionError};

/// Frames that testpmd begins with, at each port.
const BEGIN: u64 = 32;
const SOON: Duration = Duration::from_secs(30);

/// One end of the wire.
#[derive(Default)]
struct End {
    from: BTreeMap<u16, FromGuest>,
    to: BTreeMap<u16, (ToGuest, Option<OwnedFd>)>,
    features: Features,
    /// Frames taken from the guest, and given to it.
    taken: u64,
    given: u64,
    /// How the session ended.
    end: Option<Result<(), SessionError>>,
}

impl End {
    fn change(&mut self, change: Change) {
        match change {
            Change::Negotiated { features, done } => {
                self.features = features;
                done.give(());
            }
            Change::Start { ring, done } => done.give(self.start(ring)),
            Change::Enable { done, .. } | Change::Error { done, .. } => done.give(()),
            // The wire looks all the time.
            Change::Kick { done, .. } => done.give(()),
            Change::Call { index, fd, done } => {
                if let Some((_, call)) = self.to.get_mut(&index) {
                    *call = fd;
                }
                done.give(());
            }
            Change::Memory { map, done } => {
                let from = self
                    .from
                    .values_mut()
                    .try_for_each(|r| r.remap(map.clone()));
                let to = self
                    .to
                    .values_mut()
                    .try_for_each(|(r, _)| r.remap(map.clone()));
                done.give(from.and(to));
            }
            Change::Stop { index, base } => base.give(match self.from.remove(&index) {
                Some(mut ring) => ring.base(),
                None => self.to.remove(&index).expect("a ring").0.base(),
            }),
            Change::Reset { done } => {
                self.from.clear();
                self.to.clear();
                done.give(());
            }
            Change::Ended(end) => {
                self.from.clear();
                self.to.clear();
                self.end = Some(end);
            }
        }
    }

    fn start(&mut self, ring: RingStart) -> Result<(), StartError> {
        let (memory, config, features) = (ring.memory, ring.config, ring.features);
        if ring.index % 2 == 1 {
            let queue = FromGuest::start(memory, config, features)?;
            self.from.insert(ring.index, queue);
        } else {
            let queue = ToGuest::start(memory, config, features)?;
            self.to.insert(ring.index, (queue, ring.call));
        }
        Ok(())
    }
}

/// Moves what `from` has sent to `to`: from pair to pair.
fn forward(from: &mut End, to: &mut End, burst: &mut Burst) {
    for (index, queue) in &mut from.from {
        let Some((out, call)) = to.to.get_mut(&(index - 1)) else {
            continue;
        };
        let received = queue.receive(burst).expect("a good ring");
        let mut done = 0;
        for frame in burst.iter() {
            let frame = frame.expect("a good frame");
            match out.deliver(frame.header, frame.head, frame.rest) {
                Ok(Delivery::Done) => done += 1,
                Ok(Delivery::NoBuffers) => break,
                other => panic!("{other:?}"),
            }
        }
        queue.complete(done);
        queue.rewind(received - done);
        let _ = queue.publish();
        if out.publish()
            && let Some(call) = call
        {
            let _ = rustix::io::write(call, &1_u64.to_ne_bytes());
        }
        from.taken += done as u64;
        to.given += done as u64;
    }
}

/// Two ports, and what their sessions say.
struct Wire {
    listeners: [UnixListener; 2],
    ends: [End; 2],
    sender: Sender<(usize, Change)>,
    changes: Receiver<(usize, Change)>,
    sessions: Vec<Session>,
    burst: Burst,
}

impl Wire {
    fn new(folder: &Path) -> Self {
        let (sender, changes) = channel();
        let listeners = [0, 1].map(|number: usize| {
            let listener = UnixListener::bind(folder.join(number.to_string()));
            let listener = listener.expect("a socket");
            listener.set_nonblocking(true).expect("a socket");
            listener
        });
        Self {
            listeners,
            ends: Default::default(),
            sender,
            changes,
            sessions: Vec::new(),
            burst: Burst::new(BurstLimits {
                frames: 64,
                bytes: 1 << 18,
                head: 64,
            }),
        }
    }

    /// Begins a session with whoever has connected. testpmd connects one port after the other.
    fn accept(&mut self) {
        let port = self.sessions.len();
        let Some(listener) = self.listeners.get(port) else {
            return;
        };
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        };
        let offer = Offer {
            features: Features::ALL,
            queue_pairs: 2,
            // DPDK does not allow seals on its memory.
            unsealed: Unsealed::Guard,
            ..Offer::new()
        };
        let sender = self.sender.clone();
        let session = Session::start(stream, offer, move |change| {
            let _ = sender.send((port, change));
        });
        self.sessions.push(session.expect("a session"));
    }

    fn turn(&mut self) {
        self.accept();
        while let Ok((port, change)) = self.changes.try_recv() {
            self.ends[port].change(change);
        }
        let [a, b] = &mut self.ends;
        forward(a, b, &mut self.burst);
        forward(b, a, &mut self.burst);
        std::thread::yield_now();
    }

    /// Until nothing has moved for a while.
    fn turns_until_still(&mut self) {
        let (mut before, mut since, begun) = (0, Instant::now(), Instant::now());
        while since.elapsed() < Duration::from_millis(300) {
            assert!(begun.elapsed() < SOON, "frames still move");
            self.turn();
            let now = self.ends.iter().map(|end| end.taken).sum();
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
    }

    fn turns_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < SOON, "not within {SOON:?}: {what}");
            self.turn();
        }
    }
}

/// Lets frames run round, with DPDK choosing what `more` says, and compares all counts.
fn run(more: &str, expected: Features) {
    if !all_present(&[Prerequisite::Program(testpmd::PROGRAM)]) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut wire = Wire::new(folder.path());
    let sockets = [0, 1].map(|number: usize| folder.path().join(number.to_string()));
    let port = |number: usize, mac| Port {
        socket: &sockets[number],
        mac,
        more,
    };
    let ports = [port(0, "02:00:00:00:00:0a"), port(1, "02:00:00:00:00:0b")];
    let mut testpmd = Testpmd::start(folder.path(), &ports);
    wire.turns_until("rings at both ports", |wire| {
        assert!(testpmd.is_running(), "testpmd ended");
        let mut ends = wire.ends.iter();
        ends.all(|end| !end.from.is_empty() && !end.to.is_empty())
    });
    for end in &wire.ends {
        assert!(end.features.contains(expected), "{:x?}", end.features);
    }
    testpmd.say("set fwd io");
    testpmd.say("start tx_first 1");
    wire.turns_until("frames in both directions", |wire| {
        wire.ends.iter().all(|end| end.taken > 20_000)
    });
    testpmd.say("stop");
    wire.turns_until_still();
    testpmd.say("quit");
    wire.turns_until("the end of both sessions", |wire| {
        wire.ends.iter().all(|end| end.end.is_some())
    });
    for end in &wire.ends {
        assert!(matches!(end.end, Some(Ok(()))), "{:?}", end.end);
    }
    let runs = testpmd.counts(SOON);
    let [counts] = runs.as_slice() else {
        panic!("{runs:?}");
    };
    let taken = wire.ends.each_ref().map(|end| end.taken);
    let given = wire.ends.each_ref().map(|end| end.given);
    println!("{more}: {counts:?}, taken {taken:?}, given {given:?}");
    assert_eq!(counts.dropped, [0, 0], "testpmd had room");
    assert_eq!(counts.sent, taken, "all that was sent was taken");
    assert_eq!(given, [taken[1], taken[0]], "and given to the other");
    let got: u64 = counts.received.iter().sum();
    let on_their_way = given.iter().sum::<u64>() - got;
    assert_eq!(on_their_way, 2 * BEGIN, "none was lost, none came twice");
}

#[test]
fn frames_run_round_through_split_rings() {
    run(
        "mrg_rxbuf=1,in_order=0",
        Features::VERSION_1 | Features::MRG_RXBUF,
    );
}

#[test]
fn frames_run_round_in_order() {
    run(
        "mrg_rxbuf=1,in_order=1",
        Features::VERSION_1 | Features::IN_ORDER,
    );
}

#[test]
fn frames_run_round_through_packed_rings() {
    run(
        "packed_vq=1,in_order=0",
        Features::VERSION_1 | Features::RING_PACKED,
    );
}
