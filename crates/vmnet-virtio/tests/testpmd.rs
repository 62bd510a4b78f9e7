//! DPDK's virtio-user as a VMM that we did not write: two of its ports on a wire between two sessions.
//!
//! `dpdk-testpmd` (Debian: dpdk-dev) sends whatever comes in at one port out of the other, so a handful of frames runs round
//! and round. At the end its counts and the wire's must tell the same story. Without huge pages, and without root.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use vmnet_virtio::memory::Unsealed;
use vmnet_virtio::net::{Burst, BurstLimits, Delivery, Features, FromGuest, ToGuest};
use vmnet_virtio::ring::StartError;
use vmnet_virtio::session::{Change, Offer, RingStart, Session, SessionError};

/// Frames that testpmd begins with, at each port.
const BEGIN: u64 = 32;
const SOON: Duration = Duration::from_secs(30);

/// One end of the wire.
#[derive(Default)]
struct Port {
    from: BTreeMap<u16, FromGuest>,
    to: BTreeMap<u16, (ToGuest, Option<OwnedFd>)>,
    features: Features,
    /// Frames taken from the guest, and given to it.
    taken: u64,
    given: u64,
    /// How the session ended.
    end: Option<Result<(), SessionError>>,
}

impl Port {
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
fn forward(from: &mut Port, to: &mut Port, burst: &mut Burst) {
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
    ports: [Port; 2],
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
            ports: Default::default(),
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
            self.ports[port].change(change);
        }
        let [a, b] = &mut self.ports;
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
            let now = self.ports.iter().map(|port| port.taken).sum();
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

/// testpmd with two virtio-user ports, and its command line.
struct Testpmd {
    child: Child,
    input: ChildStdin,
    log: PathBuf,
}

impl Testpmd {
    fn start(folder: &Path, more: &str) -> Option<Self> {
        let log = folder.join("log");
        let output = std::fs::File::create(&log).expect("a file");
        let device = |number: usize| {
            let path = folder.join(number.to_string());
            format!(
                "net_virtio_user{number},path={},queue_size=256{more}",
                path.display()
            )
        };
        let mut command = Command::new("dpdk-testpmd");
        command.args([
            "-l",
            "0,1",
            "--no-huge",
            "-m",
            "256",
            "--no-pci",
            "--no-telemetry",
        ]);
        command.arg(format!("--file-prefix=vmnet{}", std::process::id()));
        command.args(["--vdev", &device(0), "--vdev", &device(1)]);
        command.args(["--", "-i", "--total-num-mbufs=4096", "--no-flush-rx"]);
        // Its socket and its locks are to be nowhere else.
        command
            .env("XDG_RUNTIME_DIR", folder)
            .env("RUNTIME_DIRECTORY", folder);
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("a descriptor"))
            .stderr(output)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => panic!("dpdk-testpmd: {error}"),
        };
        let input = child.stdin.take().expect("a pipe");
        Some(Self { child, input, log })
    }

    fn say(&mut self, command: &str) {
        writeln!(self.input, "{command}").expect("testpmd listens");
    }

    /// Panics with what it said if it has ended.
    fn lives(&mut self) {
        let ended = self.child.try_wait().expect("a child");
        assert!(ended.is_none(), "testpmd ended:\n{}", self.said());
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).expect("a log")
    }

    /// The numbers behind `name` in the summary, of port 0 and port 1.
    fn counts(&self, name: &str) -> [u64; 2] {
        let said = self.said();
        let summary = said.split("Forward statistics for port ");
        let numbers: Vec<u64> = summary
            .skip(1)
            .map(|port| {
                let (_, rest) = port.split_once(name).expect(name);
                let number = rest.split_whitespace().next().expect(name);
                number.parse().expect(name)
            })
            .collect();
        numbers.try_into().expect("two ports")
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    println!("skipped: {reason}");
}

/// Lets frames run round, with DPDK choosing what `more` says, and compares all counts.
fn run(more: &str, expected: Features) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wire = Wire::new(folder.path());
    let Some(mut testpmd) = Testpmd::start(folder.path(), more) else {
        return skip("there is no dpdk-testpmd; the package dpdk-dev has it");
    };
    wire.turns_until("rings at both ports", |wire| {
        testpmd.lives();
        wire.ports
            .iter()
            .all(|port| !port.from.is_empty() && !port.to.is_empty())
    });
    for port in &wire.ports {
        assert!(port.features.contains(expected), "{:x?}", port.features);
    }
    testpmd.say("set fwd io");
    testpmd.say("start tx_first 1");
    wire.turns_until("frames in both directions", |wire| {
        wire.ports.iter().all(|port| port.taken > 20_000)
    });
    testpmd.say("stop");
    wire.turns_until_still();
    testpmd.say("quit");
    wire.turns_until("the end of both sessions", |wire| {
        wire.ports.iter().all(|port| port.end.is_some())
    });
    for port in &wire.ports {
        assert!(matches!(port.end, Some(Ok(()))), "{:?}", port.end);
    }
    // It writes the summary when it ends.
    testpmd.child.wait().expect("a child");
    let [received, sent, dropped] =
        ["RX-packets: ", "TX-packets: ", "TX-dropped: "].map(|name| testpmd.counts(name));
    let taken = wire.ports.each_ref().map(|port| port.taken);
    let given = wire.ports.each_ref().map(|port| port.given);
    println!("{more}: sent {sent:?}, received {received:?}, taken {taken:?}, given {given:?}");
    assert_eq!(dropped, [0, 0], "testpmd had room");
    assert_eq!(taken, sent, "all that was sent was taken");
    assert_eq!(given, [taken[1], taken[0]], "and given to the other");
    let on_their_way: u64 = given
        .iter()
        .zip(received)
        .map(|(given, got)| given - got)
        .sum();
    assert_eq!(on_their_way, 2 * BEGIN, "none was lost, none came twice");
}

#[test]
fn frames_run_round_through_split_rings() {
    run(
        ",mrg_rxbuf=1,in_order=0",
        Features::VERSION_1 | Features::MRG_RXBUF,
    );
}

#[test]
fn frames_run_round_in_order() {
    run(
        ",mrg_rxbuf=1,in_order=1",
        Features::VERSION_1 | Features::IN_ORDER,
    );
}

#[test]
fn frames_run_round_through_packed_rings() {
    run(
        ",packed_vq=1,in_order=0",
        Features::VERSION_1 | Features::RING_PACKED,
    );
}
