//! | file | what |
//! | --- | --- |
//! | `echo` | a device that sends every frame back |
//! | `orders` | messages in any order: what may be told of rings, and what VMMs hear |
//! | `bytes` | any bytes, any descriptors |
//! | `peer` | the same conversation with another implementation at the other end |
//! | here | one rule each |

mod bytes;
pub(crate) mod echo;
mod orders;
mod peer;

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::protocol::{CONFIGURE_MEM_SLOTS, PROTOCOL_FEATURES, REPLY_ACK};
use super::socket::{Got, HEADER, NEED_REPLY, joined, read_full, write_message};
use super::*;
use crate::memory::{MapError, OwnMemory};
use crate::ring::StartError;

/// How long something may take that is to happen at once.
const SOON: Duration = Duration::from_secs(10);

/// A VMM that says what it is told to.
pub(crate) struct Vmm {
    pub(crate) stream: UnixStream,
    pub(crate) memory: OwnMemory,
}

impl Vmm {
    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            memory: OwnMemory::new(1 << 20).unwrap(),
        }
    }

    fn say(&self, request: Request, payload: &[u64], fds: &[BorrowedFd<'_>]) {
        write_message(&self.stream, request, NEED_REPLY, payload, fds).unwrap();
    }

    /// The number that answers.
    fn hear(&self) -> Option<u64> {
        let mut fds = Vec::new();
        let (mut header, mut value) = ([0; HEADER], [0; 8]);
        for part in [header.as_mut_slice(), value.as_mut_slice()] {
            match read_full(&self.stream, part, &mut fds).unwrap() {
                Got::All => {}
                Got::Bytes(_) => return None,
                Got::TooManyFds => panic!("descriptors from a device"),
            }
        }
        Some(u64::from_ne_bytes(value))
    }

    /// What the device says to a message.
    fn tell(&self, request: Request, payload: &[u64], fds: &[BorrowedFd<'_>]) -> Option<u64> {
        self.say(request, payload, fds);
        self.hear()
    }

    fn negotiate(&self, features: Features) {
        let features = features.0 | PROTOCOL_FEATURES;
        // Nobody has accepted yet that there are answers.
        self.say(Request::SET_FEATURES, &[features], &[]);
        let protocol = REPLY_ACK | CONFIGURE_MEM_SLOTS;
        assert_eq!(
            self.tell(Request::SET_PROTOCOL_FEATURES, &[protocol], &[]),
            Some(0)
        );
    }

    fn table(&self, request: Request, first: u64, memory: &OwnMemory) -> Option<u64> {
        let region = memory.region().unwrap();
        let (guest, user) = (region.guest_addr, region.user_addr);
        let payload = [first, guest, region.size, user, region.offset];
        self.tell(request, &payload, &[region.file.as_fd()])
    }

    /// All about a ring but its kick.
    fn prepare(&mut self, index: u32, size: u16) {
        let mut take = |len: u64| self.memory.take(len, 128).unwrap();
        let size_64 = u64::from(size);
        let (descriptors, driver, device) = (
            take(size_64 * 16),
            take(size_64 * 2 + 6),
            take(size_64 * 8 + 6),
        );
        let addresses = [joined(index, 0), descriptors, device, driver, 0];
        for (request, payload) in [
            (Request::SET_VRING_NUM, &[joined(index, size.into())][..]),
            (Request::SET_VRING_BASE, &[joined(index, 0)]),
            (Request::SET_VRING_ADDR, &addresses),
        ] {
            assert_eq!(self.tell(request, payload, &[]), Some(0), "{request}");
        }
    }
}

/// A session whose changes are answered well at once, and the VMM at its other end.
fn session(offer: Offer) -> (Session, Vmm, Receiver<String>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (sender, receiver) = channel();
    let session = Session::start(ours, offer, move |change| {
        let _ = sender.send(answer(change));
    });
    (session.unwrap(), Vmm::new(theirs), receiver)
}

/// Answers a change well, and says in words what it was.
fn answer(change: Change) -> String {
    match change {
        Change::Negotiated { features, done } => {
            done.give(());
            format!("negotiated {:#x}", features.0)
        }
        Change::Start { ring, done } => {
            let started = crate::ring::Ring::start(&ring.memory, ring.config).map(|_| ());
            let said = format!(
                "start {} at {} {}{}{}",
                ring.index,
                ring.config.base,
                if ring.enabled { "on" } else { "off" },
                if ring.kick.is_some() { " kick" } else { "" },
                if ring.call.is_some() { " call" } else { "" },
            );
            done.give(started);
            said
        }
        Change::Enable { index, on, done } => {
            done.give(());
            format!("enable {index} {on}")
        }
        Change::Kick { index, fd, done } => {
            done.give(());
            format!("kick {index} {}", fd.is_some())
        }
        Change::Call { index, fd, done } => {
            done.give(());
            format!("call {index} {}", fd.is_some())
        }
        Change::Error { index, fd, done } => {
            done.give(());
            format!("error {index} {}", fd.is_some())
        }
        Change::Memory { map, done } => {
            done.give(Ok(()));
            format!("memory {}", map.len())
        }
        Change::Stop { index, base } => {
            base.give(7 + u32::from(index));
            format!("stop {index}")
        }
        Change::Reset { done } => {
            done.give(());
            "reset".into()
        }
        Change::Ended(end) => match end {
            Ok(()) => "ended".into(),
            Err(error) => format!("ended: {error}"),
        },
    }
}

fn all(changes: &Receiver<String>) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(change) = changes.recv_timeout(SOON) {
        let last = change.starts_with("ended");
        all.push(change);
        if last {
            return all;
        }
    }
    panic!("no end after {all:?}");
}

#[test]
fn a_ring_starts_when_all_is_known_and_stops_when_its_base_is_asked_for() {
    let (_session, mut vmm, changes) = session(Offer::new());
    vmm.negotiate(Features::VERSION_1);
    assert_eq!(vmm.table(Request::SET_MEM_TABLE, 1, &vmm.memory), Some(0));
    vmm.prepare(1, 8);
    let fd = eventfd(0, EventfdFlags::empty()).unwrap();
    let fds = [fd.as_fd()];
    assert_eq!(vmm.tell(Request::SET_VRING_CALL, &[1], &fds), Some(0));
    assert_eq!(vmm.tell(Request::SET_VRING_KICK, &[1], &fds), Some(0));
    assert_eq!(
        vmm.tell(Request::SET_VRING_ENABLE, &[joined(1, 1)], &[]),
        Some(0)
    );
    assert_eq!(
        vmm.tell(Request::SET_VRING_CALL, &[1 | 1 << 8], &[]),
        Some(0)
    );
    let base = vmm.tell(Request::GET_VRING_BASE, &[joined(1, 0)], &[]);
    assert_eq!(base, Some(joined(1, 8)));
    // It is stopped: its base is remembered, its descriptors are not.
    let base = vmm.tell(Request::GET_VRING_BASE, &[joined(1, 0)], &[]);
    assert_eq!(base, Some(joined(1, 8)));
    assert_eq!(
        vmm.tell(Request::SET_VRING_KICK, &[1 | 1 << 8], &[]),
        Some(0)
    );
    drop(vmm);
    let version = Features::VERSION_1.0;
    let negotiated = format!("negotiated {version:#x}");
    assert_eq!(
        all(&changes),
        [
            negotiated.as_str(),
            "start 1 at 0 off kick call",
            "enable 1 true",
            "call 1 false",
            "stop 1",
            "start 1 at 8 on",
            "ended",
        ]
    );
}

#[test]
fn without_protocol_features_rings_begin_switched_on() {
    let (_session, vmm, changes) = session(Offer::new());
    // There are no answers then, so the order is all there is.
    vmm.say(Request::SET_FEATURES, &[0], &[]);
    let region = vmm.memory.region().unwrap();
    let table = [1, region.guest_addr, region.size, region.user_addr, 0];
    vmm.say(Request::SET_VRING_KICK, &[1 << 8], &[]);
    vmm.say(Request::SET_VRING_NUM, &[joined(0, 8)], &[]);
    vmm.say(Request::SET_MEM_TABLE, &table, &[region.file.as_fd()]);
    let at = region.user_addr;
    let addresses = [0, at, at + 0x1000, at + 0x2000, 0];
    vmm.say(Request::SET_VRING_ADDR, &addresses, &[]);
    vmm.say(Request::SET_VRING_ENABLE, &[0], &[]);
    drop(vmm);
    assert_eq!(
        all(&changes),
        [
            "negotiated 0x0",
            "start 0 at 0 on",
            "enable 0 false",
            "ended",
        ]
    );
}

/// A message that ends a session at once, and what is said about it.
fn wrong(request: Request, payload: &[u64], fds: &[BorrowedFd<'_>], expected: &str) {
    let (_session, vmm, changes) = session(Offer::new());
    vmm.say(request, payload, fds);
    let all = all(&changes);
    let [last] = all.as_slice() else {
        panic!("{request}: {all:?}");
    };
    assert!(last.contains(expected), "{last} for {expected}");
    assert_eq!(vmm.hear(), None, "the connection is closed");
}

#[test]
fn what_is_wrong_about_a_ring_is_named() {
    let file = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
    let file = [file.as_fd()];
    let socket = UnixStream::pair().unwrap().0;
    let socket = [socket.as_fd()];
    let num = Request::SET_VRING_NUM;
    wrong(num, &[joined(2, 8)], &[], "NUM for ring 2 of 2: give it 1 ");
    wrong(num, &[joined(0, 0)], &[], "a size of 0 descriptors");
    wrong(num, &[joined(0, 65_536)], &[], "a size of 65536 ");
    wrong(num, &[], &[], "SET_VRING_NUM with flags, a length");
    let kick = Request::SET_VRING_KICK;
    wrong(kick, &[0], &[], "KICK with a wrong number of descriptors");
    wrong(kick, &[1 << 8], &file, "KICK with a wrong number of desc");
    wrong(
        kick,
        &[0],
        &file,
        "KICK with a descriptor that is not an eventfd",
    );
    let call = Request::SET_VRING_CALL;
    wrong(
        call,
        &[0],
        &socket,
        "CALL with a descriptor that is not an ev",
    );
    let error = Request::SET_VRING_ERR;
    wrong(
        error,
        &[200],
        &[],
        "SET_VRING_ERR with a wrong number of desc",
    );
    let log = [joined(0, 1), 0, 0, 0, 0];
    let addr = Request::SET_VRING_ADDR;
    wrong(addr, &log, &[], "SET_VRING_ADDR which was not negotiated");
    wrong(Request::VRING_KICK, &[0], &[], "which was not negotiated");
}

#[test]
fn what_is_wrong_about_a_device_is_named() {
    let file = memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
    let file = [file.as_fd()];
    let features = Request::SET_FEATURES;
    wrong(
        features,
        &[1 << 26],
        &[],
        "that were not offered: 0x4000000",
    );
    let protocol = Request::SET_PROTOCOL_FEATURES;
    wrong(
        protocol,
        &[2],
        &[],
        "protocol features that were not offered: 0x2",
    );
    let unasked = "which was not negotiated";
    wrong(Request::GET_QUEUE_NUM, &[], &[], unasked);
    wrong(Request::RESET_DEVICE, &[], &[], unasked);
    wrong(Request::SET_LOG_BASE, &[0, 0], &file, unasked);
    wrong(Request::NET_SET_MTU, &[1500], &[], unasked);
    wrong(Request::REM_MEM_REG, &[0, 1, 2, 3, 4], &[], unasked);
    wrong(
        Request::GET_CONFIG,
        &[0, 0],
        &[],
        "GET_CONFIG which was not",
    );
    wrong(
        Request(99),
        &[],
        &[],
        "unknown kind 99 which was not negotiated",
    );
    wrong(
        Request::SET_OWNER,
        &[],
        &file,
        "SET_OWNER with a wrong number",
    );
    let table = Request::SET_MEM_TABLE;
    let one = [1, 0, 4096, 0, 0];
    wrong(
        table,
        &one,
        &[],
        "SET_MEM_TABLE with a wrong number of desc",
    );
    wrong(
        table,
        &[2, 0, 4096, 0, 0],
        &file,
        "SET_MEM_TABLE with flags, a",
    );
    wrong(table, &one, &file, "its seals are closed");
}

#[test]
fn a_message_cut_short_is_named_and_none_at_all_is_an_end() {
    for (len, end) in [
        (0, "ended"),
        (3, "ended: the VMM sent a message of unknown kind"),
        (
            11,
            "ended: the VMM sent SET_VRING_NUM and closed the connection in the middle of it",
        ),
        (
            19,
            "ended: the VMM sent SET_VRING_NUM and closed the connection in the middle of it",
        ),
    ] {
        let (_session, mut vmm, changes) = session(Offer::new());
        let message = [8_u32, 1, 8, 0, 8].map(u32::to_ne_bytes).concat();
        vmm.stream.write_all(&message[..len]).unwrap();
        drop(vmm);
        let all = all(&changes);
        assert!(all[0].starts_with(end), "{all:?} for {len}");
    }
}

#[test]
fn what_runs_does_not_change() {
    for (request, payload) in [
        (Request::SET_VRING_NUM, &[joined(0, 16)][..]),
        (Request::SET_VRING_BASE, &[joined(0, 0)]),
        (Request::SET_VRING_ADDR, &[0, 16, 16, 16, 0]),
        (Request::SET_FEATURES, &[0]),
    ] {
        let (_session, mut vmm, changes) = session(Offer::new());
        vmm.negotiate(Features::VERSION_1);
        assert_eq!(vmm.table(Request::SET_MEM_TABLE, 1, &vmm.memory), Some(0));
        vmm.prepare(0, 8);
        assert_eq!(vmm.tell(Request::SET_VRING_KICK, &[1 << 8], &[]), Some(0));
        // The same again changes nothing.
        assert_eq!(
            vmm.tell(Request::SET_VRING_NUM, &[joined(0, 8)], &[]),
            Some(0)
        );
        let features = Features::VERSION_1.0 | PROTOCOL_FEATURES;
        assert_eq!(vmm.tell(Request::SET_FEATURES, &[features], &[]), Some(0));
        assert_eq!(vmm.tell(request, payload, &[]), Some(1), "{request}");
        let all = all(&changes);
        let last = all.last().unwrap();
        assert!(last.contains("cannot change while a ring runs"), "{last}");
    }
}

#[test]
fn memory_comes_and_goes_and_running_rings_stay_in_it() {
    let (_session, mut vmm, changes) = session(Offer::new());
    vmm.negotiate(Features::VERSION_1);
    assert_eq!(vmm.table(Request::ADD_MEM_REG, 0, &vmm.memory), Some(0));
    vmm.prepare(0, 8);
    assert_eq!(vmm.tell(Request::SET_VRING_KICK, &[1 << 8], &[]), Some(0));
    let more = memfd_create("more", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&more, 0x4000).unwrap();
    let region = [0, 0x1000, 0x4000, 0x7000_0000, 0];
    assert_eq!(
        vmm.tell(Request::ADD_MEM_REG, &region, &[more.as_fd()]),
        Some(0)
    );
    // QEMU 7 says each once for every pair of rings.
    assert_eq!(
        vmm.tell(Request::ADD_MEM_REG, &region, &[more.as_fd()]),
        Some(0)
    );
    for _ in 0..2 {
        assert_eq!(vmm.tell(Request::REM_MEM_REG, &region, &[]), Some(0));
    }
    let overlapping = [0, 0x2000, 0x2000, 0x7000_0000, 0];
    for (region, answer) in [(region, 0), (overlapping, 1)] {
        let told = vmm.tell(Request::ADD_MEM_REG, &region, &[more.as_fd()]);
        assert_eq!(told, Some(answer));
    }
    let all = all(&changes);
    let tail: Vec<&str> = all.iter().map(String::as_str).skip(1).collect();
    assert_eq!(
        tail,
        [
            "start 0 at 0 off",
            "memory 2",
            "memory 2",
            "memory 1",
            "memory 2",
            "ended: the VMM sent memory regions that overlap, at address 0x2000",
        ]
    );
}

#[test]
fn a_reset_device_begins_anew() {
    let (_session, mut vmm, changes) = session(Offer::new());
    vmm.negotiate(Features::VERSION_1);
    let protocol = REPLY_ACK | protocol::RESET_DEVICE;
    let accepted = vmm.tell(Request::SET_PROTOCOL_FEATURES, &[protocol], &[]);
    assert_eq!(accepted, Some(0));
    assert_eq!(vmm.table(Request::SET_MEM_TABLE, 1, &vmm.memory), Some(0));
    vmm.prepare(0, 8);
    assert_eq!(vmm.tell(Request::SET_VRING_KICK, &[1 << 8], &[]), Some(0));
    assert_eq!(
        vmm.tell(Request::SET_VRING_ENABLE, &[joined(0, 1)], &[]),
        Some(0)
    );
    assert_eq!(vmm.tell(Request::RESET_OWNER, &[], &[]), Some(0));
    assert_eq!(vmm.tell(Request::RESET_DEVICE, &[], &[]), Some(0));
    // Only the kick is not enough any more.
    assert_eq!(vmm.tell(Request::SET_VRING_KICK, &[1 << 8], &[]), Some(0));
    drop(vmm);
    let all = all(&changes);
    let tail: Vec<&str> = all.iter().map(String::as_str).skip(1).collect();
    assert_eq!(
        tail,
        [
            "start 0 at 0 off",
            "enable 0 true",
            "enable 0 false",
            "reset",
            "ended"
        ]
    );
}

#[test]
fn a_ring_outside_of_memory_ends_the_session_with_the_reason() {
    let (_session, vmm, changes) = session(Offer::new());
    vmm.negotiate(Features::VERSION_1);
    assert_eq!(vmm.table(Request::SET_MEM_TABLE, 1, &vmm.memory), Some(0));
    vmm.say(Request::SET_VRING_NUM, &[joined(0, 8)], &[]);
    vmm.say(Request::SET_VRING_ADDR, &[0, 0x10, 0x20, 0x30, 0], &[]);
    vmm.say(Request::SET_VRING_KICK, &[1 << 8], &[]);
    let all = all(&changes);
    let last = all.last().unwrap();
    assert!(
        last.contains("ring 0: the VMM set up a ring outside of its memory"),
        "{last}"
    );
}

#[test]
fn an_mtu_is_judged_and_the_session_goes_on() {
    let offer = Offer {
        mtu: Some(9000),
        ..Offer::new()
    };
    let (_session, vmm, changes) = session(offer);
    vmm.negotiate(Features::VERSION_1);
    let protocol = REPLY_ACK | protocol::NET_MTU;
    let accepted = vmm.tell(Request::SET_PROTOCOL_FEATURES, &[protocol], &[]);
    assert_eq!(accepted, Some(0));
    for (mtu, heard) in [
        (1500, 0),
        (9000, 0),
        (9001, 1),
        (67, 1),
        (u64::MAX, 1),
        (68, 0),
    ] {
        assert_eq!(
            vmm.tell(Request::NET_SET_MTU, &[mtu], &[]),
            Some(heard),
            "{mtu}"
        );
    }
    drop(vmm);
    assert_eq!(all(&changes).last().unwrap(), "ended");
}

#[test]
fn dropping_a_session_ends_it_at_once_whatever_it_waits_for() {
    // For the rest of a message, and for an answer that nobody gives.
    for stuck in [false, true] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (sender, receiver) = channel();
        let session = Session::start(ours, Offer::new(), move |change| {
            let _ = sender.send(change);
        });
        let mut vmm = Vmm::new(theirs);
        let held = if stuck {
            vmm.say(Request::SET_FEATURES, &[0], &[]);
            Some(receiver.recv_timeout(SOON).unwrap())
        } else {
            vmm.stream.write_all(&[1, 2, 3]).unwrap();
            None
        };
        let before = std::time::Instant::now();
        drop(session.unwrap());
        assert!(before.elapsed() < Duration::from_secs(2));
        drop(held);
        assert!(receiver.try_recv().is_err(), "nothing is said after that");
    }
}

#[test]
fn a_dropped_answer_ends_the_session() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (sender, receiver) = channel();
    let _session = Session::start(ours, Offer::new(), move |change| {
        if let Change::Ended(end) = change {
            let _ = sender.send(end);
        }
    });
    let vmm = Vmm::new(theirs);
    vmm.say(Request::SET_FEATURES, &[0], &[]);
    let end = receiver.recv_timeout(SOON).unwrap();
    assert!(matches!(end, Err(SessionError::Gone)), "{end:?}");
}

/// The value of the public error is what callers match on.
#[test]
fn errors_keep_their_reasons() {
    let outside = crate::memory::Outside { addr: 1, len: 2 };
    let error = SessionError::Ring {
        index: Some(3),
        source: StartError::Outside(outside),
    };
    assert!(error.to_string().starts_with("ring 3: "));
    let error = SessionError::from(MapError::NotSealable);
    assert!(error.to_string().contains("memory-backend-memfd"));
}
