//! A driver that writes anything anywhere, between any calls of a port: no panic, no slice outside of its memory,
//! no more frames than asked for.
#![no_main]

use std::sync::Arc;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use vmnet_virtio::memory::{GuestSlice, MemoryMap, OwnMemory};
use vmnet_virtio::net::{Burst, BurstLimits, Delivery, Features, FromGuest, Header, ToGuest};
use vmnet_virtio::ring::RingConfig;

const BASE: u64 = 0x1_0000_0000;
const LEN: u64 = 0x4000;
const SIZE: u16 = 8;
const LIMITS: BurstLimits = BurstLimits {
    frames: 16,
    bytes: 100_000,
    head: 64,
};

/// One memory for all runs, zeroed for each.
fn memory() -> &'static OwnMemory {
    static MEMORY: OnceLock<OwnMemory> = OnceLock::new();
    MEMORY.get_or_init(|| OwnMemory::new(LEN).expect("memory"))
}

fn config(flags: u8, base: u16, descriptors: u64) -> RingConfig {
    RingConfig {
        size: SIZE,
        descriptors,
        driver: descriptors + 0x80,
        device: descriptors + 0x100,
        packed: flags & 1 != 0,
        event_idx: flags & 2 != 0,
        indirect: flags & 4 != 0,
        base,
    }
}

fn check(map: &MemoryMap, slices: &[GuestSlice<'_>]) {
    let all = map.guest(BASE, LEN).expect("the region").as_ptr() as usize;
    for slice in slices {
        let start = slice.as_ptr() as usize;
        assert!(all <= start && start + slice.len() <= all + LEN as usize);
    }
}

/// The input, piece by piece; zeros behind its end.
struct Input<'i>(&'i [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }
}

/// Everything a port does with its rings.
struct Port {
    map: Arc<MemoryMap>,
    from: FromGuest,
    to: ToGuest,
    burst: Burst,
}

impl Port {
    fn receive(&mut self) {
        if let Ok(count) = self.from.receive(&mut self.burst) {
            assert!(count <= LIMITS.frames);
        }
        for frame in self.burst.iter().flatten() {
            check(&self.map, frame.rest);
            let rest: usize = frame.rest.iter().map(GuestSlice::len).sum();
            assert_eq!(frame.head.len() + rest, frame.len);
        }
        let mut done = 0;
        while let Some(frame) = self.burst.get(done) {
            let run = (self.to).deliver_run(Header::default(), &self.burst, done, usize::MAX);
            if run.frames == 0
                && let Ok(frame) = frame
            {
                let _ = self.to.deliver(frame.header, frame.head, frame.rest);
            }
            done += run.frames.max(1);
        }
    }

    fn reserve(&mut self, len: usize) {
        if self.to.reserve(len) == Ok(Delivery::Done) {
            let space: Vec<_> = self.to.space(0).collect();
            check(&self.map, &space);
            assert!(space.iter().map(GuestSlice::len).sum::<usize>() >= len);
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let operation = input.byte();
        match operation % 8 {
            0..=2 => {
                // A few bytes of driver, at a place of a ring or anywhere.
                let at = u64::from(input.word());
                let at = if operation & 8 == 0 { at % 0x400 } else { at % LEN };
                let bytes: Vec<u8> = (0..=input.byte() % 32).map(|_| input.byte()).collect();
                let len = (LEN - at).min(bytes.len() as u64);
                if let Ok(slice) = self.map.guest(BASE + at, len) {
                    slice.copy_from(&bytes);
                }
            }
            3 => self.receive(),
            4 => self.reserve(usize::from(input.word())),
            5 => self.to.commit(Header::default(), b"head", usize::from(input.byte())),
            6 => {
                self.from.complete(usize::from(input.byte() % 8));
                let _ = (self.from.publish(), self.to.publish());
            }
            _ => {
                if operation & 8 == 0 {
                    self.from.rewind(usize::from(input.byte()));
                    self.to.cancel();
                } else if operation & 16 == 0 {
                    let _ = (self.from.enable_kicks(), self.to.enable_kicks());
                } else {
                    self.from.disable_kicks();
                    self.to.disable_kicks();
                    let _ = self.from.remap(Arc::clone(&self.map));
                    let _ = self.to.remap(Arc::clone(&self.map));
                }
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let map = Arc::clone(memory().map());
    map.guest(BASE, LEN).expect("the region").zero();
    let (flags, base) = (input.byte(), input.word());
    let features = if flags & 8 == 0 {
        Features::VERSION_1
    } else {
        Features::VERSION_1 | Features::MRG_RXBUF
    };
    let from = FromGuest::start(Arc::clone(&map), config(flags, base, BASE), features);
    let to = ToGuest::start(Arc::clone(&map), config(flags, base, BASE + 0x200), features);
    let (Ok(from), Ok(to)) = (from, to) else {
        return;
    };
    let mut port = Port {
        map,
        from,
        to,
        burst: Burst::new(LIMITS),
    };
    while !input.0.is_empty() {
        port.step(&mut input);
    }
});
