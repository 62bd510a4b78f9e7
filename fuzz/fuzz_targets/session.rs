//! A VMM that says anything: bytes, whole messages in any order, and descriptors among them. The session must end
//! when its VMM has closed the connection, and rings that it starts are served meanwhile.
#![no_main]

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vmnet_virtio::memory::Unsealed;
use vmnet_virtio::net::{Burst, BurstLimits, Features, FromGuest, Header, ToGuest};
use vmnet_virtio::session::{Change, Offer, RingStart, Session};

/// Bytes of the memory that the VMM has.
const MEMORY: u64 = 0x1_0000;
/// Where it is, for the guest and for the VMM.
const PLACE: u64 = 0x10_0000;
/// How long a session may need to see that its VMM is gone.
const SOON: Duration = Duration::from_secs(8);

/// Serves what the session starts, once.
#[derive(Default)]
struct Rings(Vec<(u16, Served)>);

enum Served {
    From(FromGuest),
    To(ToGuest),
}

impl Rings {
    fn start(&mut self, ring: RingStart) -> Result<(), vmnet_virtio::ring::StartError> {
        let served = if ring.index % 2 == 1 {
            Served::From(FromGuest::start(ring.memory, ring.config, ring.features)?)
        } else {
            Served::To(ToGuest::start(ring.memory, ring.config, ring.features)?)
        };
        assert!(
            self.0.iter().all(|(index, _)| *index != ring.index),
            "started twice"
        );
        self.0.push((ring.index, served));
        self.serve();
        Ok(())
    }

    fn serve(&mut self) {
        let mut burst = Burst::new(BurstLimits {
            frames: 8,
            bytes: 1 << 16,
            head: 64,
        });
        for (_, ring) in &mut self.0 {
            match ring {
                Served::From(ring) => {
                    let count = ring.receive(&mut burst).unwrap_or(0);
                    ring.complete(count);
                    let _ = ring.publish();
                }
                Served::To(ring) => {
                    let _ = ring.deliver(Header([0; 12]), &[1; 60], &[]);
                    let _ = ring.publish();
                }
            }
        }
    }

    fn stop(&mut self, index: u16) -> u32 {
        let at = self.0.iter().position(|(at, _)| *at == index);
        match self.0.swap_remove(at.expect("a ring that runs")).1 {
            Served::From(mut ring) => ring.base(),
            Served::To(mut ring) => ring.base(),
        }
    }

    fn change(&mut self, change: Change) -> bool {
        match change {
            Change::Negotiated { done, .. } => done.give(()),
            Change::Start { ring, done } => done.give(self.start(ring)),
            Change::Enable { done, .. }
            | Change::Kick { done, .. }
            | Change::Call { done, .. }
            | Change::Error { done, .. } => {
                self.serve();
                done.give(());
            }
            Change::Memory { map, done } => {
                let remapped = self.0.iter_mut().try_for_each(|(_, ring)| match ring {
                    Served::From(ring) => ring.remap(map.clone()),
                    Served::To(ring) => ring.remap(map.clone()),
                });
                done.give(remapped);
            }
            Change::Stop { index, base } => base.give(self.stop(index)),
            Change::Reset { done } => {
                self.0.clear();
                done.give(());
            }
            Change::Ended(_) => return true,
        }
        false
    }
}

/// Takes bytes off the input.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// A number of which most are such that something happens.
    fn word(&mut self) -> u64 {
        let byte = u64::from(self.byte());
        match byte % 8 {
            0 => byte >> 3,
            1 => (byte >> 3) << 32 | 1,
            2 => PLACE + (byte >> 3) * 0x400,
            3 => MEMORY,
            4 => 1 << 8 | byte >> 6,
            5 => 16 << 32 | byte >> 6,
            6 => u64::MAX - byte,
            _ => {
                let mut bytes = [0; 8];
                bytes.fill_with(|| self.byte());
                u64::from_le_bytes(bytes)
            }
        }
    }
}

fn descriptor(kind: u8) -> OwnedFd {
    let memory = |flags| {
        let file = memfd_create("fuzz", flags).unwrap();
        ftruncate(&file, MEMORY).unwrap();
        file
    };
    match kind % 4 {
        0 => eventfd(0, EventfdFlags::empty()).unwrap(),
        1 => memory(MemfdFlags::ALLOW_SEALING),
        2 => memory(MemfdFlags::empty()),
        _ => std::fs::File::open("/dev/null").unwrap().into(),
    }
}

/// False: the session has ended.
fn send(stream: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) -> bool {
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
    }
    sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).is_ok()
}

fn message(request: u8, words: &[u64]) -> Vec<u8> {
    let len = u32::try_from(words.len() * 8).unwrap();
    let mut bytes = [u32::from(request), 9, len].map(u32::to_ne_bytes).concat();
    bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
    bytes
}

/// All that starts ring `index`, in the order in which VMMs say it.
fn set_up(stream: &UnixStream, index: u64, features: u64) -> bool {
    let at = PLACE + index * 0x1000;
    let memory = [descriptor(1)];
    let kick = [descriptor(0)];
    send(stream, &message(2, &[features | 1 << 30]), &[])
        && send(stream, &message(16, &[0x8 | 1 << 13 | 1 << 15]), &[])
        && send(stream, &message(5, &[1, PLACE, MEMORY, PLACE, 0]), &memory)
        && send(stream, &message(8, &[16 << 32 | index]), &[])
        && send(stream, &message(9, &[index, at, at + 0x800, at + 0x400, 0]), &[])
        && send(stream, &message(12, &[index]), &kick)
        && send(stream, &message(18, &[1 << 32 | index]), &[])
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (ours, stream) = UnixStream::pair().unwrap();
    let first = input.byte();
    let offer = Offer {
        features: Features::ALL,
        queue_pairs: 2,
        mtu: Some(1500),
        unsealed: if first & 1 == 0 {
            Unsealed::Refuse
        } else {
            Unsealed::Guard
        },
    };
    let (sender, ended) = channel();
    let mut rings = Rings::default();
    let session = Session::start(ours, offer, move |change| {
        if rings.change(change) {
            let _ = sender.send(());
        }
    });
    let session = session.unwrap();
    let mut reading = stream.try_clone().unwrap();
    let reader = thread::spawn(move || reading.read_to_end(&mut Vec::new()));
    let mut goes_on = first & 2 == 0
        || set_up(&stream, u64::from(first >> 2 & 3), 1 << 32 | u64::from(first >> 7) << 34);
    while goes_on && !input.0.is_empty() {
        let kind = input.byte();
        let fds: Vec<OwnedFd> = match kind >> 5 {
            0..=2 => vec![],
            3..=5 => vec![descriptor(input.byte())],
            6 => vec![descriptor(1), descriptor(0)],
            _ => (0..34).map(|_| descriptor(0)).collect(),
        };
        let request = input.byte();
        goes_on = match kind % 8 {
            0 => {
                let len = usize::from(request).min(input.0.len());
                let (bytes, rest) = input.0.split_at(len);
                input.0 = rest;
                bytes.is_empty() || send(&stream, bytes, &fds)
            }
            1 => set_up(&stream, u64::from(request & 3), 1 << 32),
            words => {
                let words: Vec<u64> = (2..words).map(|_| input.word()).collect();
                send(&stream, &message(request % 48, &words), &fds)
            }
        };
    }
    let _ = stream.shutdown(Shutdown::Write);
    ended.recv_timeout(SOON).expect("the session ends");
    drop(session);
    let _ = reader.join().unwrap();
});
