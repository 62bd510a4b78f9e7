//! Memory in which anything may stand, and change while it is looked at: no panic, no
//! slice outside of the regions, no endless work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::memory::MemoryMap;
use crate::ring::RingConfig;

const BASE: u64 = 0x1000;
const LEN: usize = 0x2000;
/// A second region, not next to the first.
const OTHER: u64 = 0x8000;

struct Prey {
    memory: Arc<MemoryMap>,
    bounds: [(usize, usize); 2],
    burst: Burst,
}

impl Prey {
    fn new() -> Self {
        let memory = MemoryMap::of_heap(&[(BASE, LEN), (OTHER, LEN)]);
        let bounds = [BASE, OTHER].map(|addr| {
            let start = memory.guest(addr, LEN as u64).unwrap().as_ptr() as usize;
            (start, start + LEN)
        });
        Self {
            memory: Arc::new(memory),
            bounds,
            burst: Burst::new(LIMITS),
        }
    }

    fn config(packed: bool, event_idx: bool, indirect: bool, size: u16, base: u16) -> RingConfig {
        RingConfig {
            size,
            descriptors: BASE,
            driver: BASE + 16 * u64::from(size),
            device: BASE + 16 * u64::from(size) + 256,
            packed,
            event_idx,
            indirect,
            base,
        }
    }

    fn write(&self, addr: u64, bytes: &[u8]) {
        for (offset, byte) in (0..).zip(bytes) {
            let at = BASE + (addr + offset) % LEN as u64;
            self.memory.guest(at, 1).unwrap().copy_from(&[*byte]);
        }
    }

    fn check(&self, slices: &[GuestSlice<'_>]) {
        for slice in slices {
            let start = slice.as_ptr() as usize;
            let inside = |&(from, to): &(usize, usize)| from <= start && start + slice.len() <= to;
            assert!(self.bounds.iter().any(inside), "outside of memory");
        }
    }

    /// Everything that a port does with its rings, once.
    fn use_rings(&mut self, from: &mut FromGuest, to: &mut ToGuest) {
        if let Ok(count) = from.receive(&mut self.burst) {
            assert!(count <= LIMITS.frames);
        }
        for frame in self.burst.iter().flatten() {
            self.check(frame.rest);
            let rest: usize = frame.rest.iter().map(GuestSlice::len).sum();
            assert_eq!(frame.head.len() + rest, frame.len);
        }
        let mut done = 0;
        while let Some(frame) = self.burst.get(done) {
            let run = to.deliver_run(Header::default(), &self.burst, done, usize::MAX);
            if run.frames == 0
                && let Ok(frame) = frame
            {
                let _ = to.deliver(frame.header, frame.head, frame.rest);
            }
            done += run.frames.max(1);
        }
        if to.reserve(700) == Ok(Delivery::Done) {
            let space: Vec<_> = to.space(3).collect();
            self.check(&space);
            assert!(space.iter().map(GuestSlice::len).sum::<usize>() >= 697);
            to.commit(Header::default(), b"abc", 5);
        }
        from.complete(self.burst.len() / 2);
        from.rewind(self.burst.len());
        let _ = (from.publish(), to.publish());
        let _ = (from.enable_kicks(), to.enable_kicks());
        from.disable_kicks();
        to.disable_kicks();
    }
}

/// Descriptors that are likely to be nearly right.
fn descriptors(packed: bool) -> impl Strategy<Value = Vec<u8>> {
    let addr = prop_oneof![
        6 => BASE..BASE + LEN as u64,
        2 => OTHER..OTHER + LEN as u64,
        1 => any::<u64>()
    ];
    let len =
        prop_oneof![6 => 0_u32..1600, 1 => (1_u32..5).prop_map(|n| n * 16), 1 => any::<u32>()];
    let flags = prop_oneof![5 => 0_u16..8, 1 => any::<u16>()];
    let third = prop_oneof![4 => 0_u16..9, 1 => any::<u16>()];
    let one = (addr, len, flags, third, any::<bool>()).prop_map(
        move |(addr, len, flags, third, available)| {
            let (second, third) = if packed {
                (third, flags | if available { 1 << 7 } else { 0 })
            } else {
                (flags, third)
            };
            let mut bytes = addr.to_le_bytes().to_vec();
            bytes.extend(len.to_le_bytes());
            bytes.extend(second.to_le_bytes());
            bytes.extend(third.to_le_bytes());
            bytes
        },
    );
    prop::collection::vec(one, 8).prop_map(|all| all.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 2000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_memory(
        (packed, table, more) in any::<bool>().prop_flat_map(|packed| {
            (Just(packed), descriptors(packed), descriptors(packed))
        }),
        (event_idx, indirect) in any::<(bool, bool)>(),
        base in prop_oneof![0_u16..8, 0x8000_u16..0x8008, any::<u16>()],
        avail in (any::<u16>(), prop_oneof![0_u16..9, any::<u16>()], prop::array::uniform8(0_u16..9)),
        writes in prop::collection::vec((0_u64..700, prop::collection::vec(any::<u8>(), 1..9)), 0..12),
    ) {
        let mut prey = Prey::new();
        prey.write(0, &table);
        // Tables for indirect descriptors, likely to be met.
        (1..8).for_each(|at| prey.write(1024 * at, &more));
        if !packed {
            let words = [&[avail.0, avail.1][..], &avail.2].concat();
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            prey.write(16 * 8, &bytes);
        }
        let config = Prey::config(packed, event_idx, indirect, 8, base);
        let memory = Arc::clone(&prey.memory);
        let Ok(mut from) = FromGuest::start(Arc::clone(&memory), config, features(true)) else {
            return Ok(());
        };
        let Ok(mut to) = ToGuest::start(memory, config, features(event_idx)) else {
            return Ok(());
        };
        prey.use_rings(&mut from, &mut to);
        for (addr, bytes) in writes {
            prey.write(addr, &bytes);
            prey.use_rings(&mut from, &mut to);
        }
    }
}

/// Another thread writes anything anywhere, all the time.
#[test]
#[cfg_attr(miri, ignore = "races on purpose")]
fn memory_that_changes_all_the_time() {
    let mut prey = Prey::new();
    let stop = AtomicBool::new(false);
    let memory = Arc::clone(&prey.memory);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let words = memory
                .user_words::<std::sync::atomic::AtomicU16>(BASE, LEN / 2)
                .unwrap();
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            while !stop.load(Ordering::Relaxed) {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let [a, b, c, d, e, ..] = state.to_be_bytes();
                // Mostly where the ring is, and mostly small values.
                let place = usize::from(u16::from_be_bytes([a, b]));
                let place = if c < 200 {
                    place % 256
                } else {
                    place % words.len()
                };
                let value = if d < 128 {
                    u16::from(e % 16)
                } else {
                    u16::from_be_bytes([d, e])
                };
                words[place].store(value, Ordering::Relaxed);
            }
        });
        let until = Instant::now() + Duration::from_millis(1500);
        let mut rounds = 0_u32;
        while Instant::now() < until {
            let packed = rounds.is_multiple_of(2);
            let config = Prey::config(packed, rounds & 2 != 0, true, 8, 1 << 15);
            let memory = || Arc::clone(&prey.memory);
            let mut from = FromGuest::start(memory(), config, features(true)).unwrap();
            let mut to = ToGuest::start(memory(), config, features(true)).unwrap();
            for _ in 0..20 {
                prey.use_rings(&mut from, &mut to);
            }
            rounds += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(rounds > 10);
    });
}
