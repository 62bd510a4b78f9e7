//! Both kinds of rings against the driver's side, and against drivers that err.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::layout::{self, INDIRECT, NEXT, WRITE};
use super::*;
use crate::driver::{DriverRing, Part, Shape};
use crate::memory::{GuestWriter, OwnMemory};

mod errors;
mod threads;

const MEMORY: u64 = 1 << 20;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 3 } else { cases },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// What is done to a ring, on one side or the other.
#[derive(Clone, Debug)]
enum Step {
    /// Lengths of what the device reads and writes.
    Offer {
        readable: Vec<u16>,
        writable: Vec<u16>,
        indirect: bool,
    },
    Publish,
    Take,
    Rewind(u16),
    Give,
    DevicePublish,
    Collect,
    EnableKicks,
    DisableKicks,
    EnableCalls,
    DisableCalls,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lens = || prop::collection::vec(0_u16..40, 0..4);
    let step = prop_oneof![
        4 => (lens(), lens(), any::<bool>()).prop_map(|(readable, writable, indirect)| Step::Offer {
            readable, writable, indirect
        }),
        3 => Just(Step::Publish),
        5 => Just(Step::Take),
        1 => (0_u16..4).prop_map(Step::Rewind),
        4 => Just(Step::Give),
        3 => Just(Step::DevicePublish),
        4 => Just(Step::Collect),
        1 => Just(Step::EnableKicks),
        1 => Just(Step::DisableKicks),
        1 => Just(Step::EnableCalls),
        1 => Just(Step::DisableCalls),
    ];
    prop::collection::vec(step, 1..if cfg!(miri) { 60 } else { 400 })
}

fn shapes() -> impl Strategy<Value = Shape> {
    (
        any::<bool>(),
        any::<bool>(),
        0_u32..5,
        1_u16..20,
        any::<bool>(),
    )
        .prop_map(|(packed, event_idx, bits, odd, indirect)| Shape {
            size: if packed { odd } else { 1 << bits },
            packed,
            event_idx,
            indirect: if indirect { 8 } else { 0 },
        })
}

/// A chain on its way.
#[derive(Clone, Debug)]
struct Expected {
    token: u16,
    readable: Vec<u8>,
    writable: Vec<Part>,
    written: u32,
}

/// Driver and device with a model between them.
struct World {
    memory: OwnMemory,
    driver: DriverRing,
    device: Ring,
    slices: Slices,
    token: u16,
    offered: VecDeque<Expected>,
    available: VecDeque<Expected>,
    taken: VecDeque<(Expected, Chain)>,
    given: VecDeque<Expected>,
    used: VecDeque<Expected>,
    /// The side sleeps until it is woken; then it was true that there was nothing to do.
    device_sleeps: bool,
    driver_sleeps: bool,
}

impl World {
    fn new(shape: Shape) -> Self {
        let mut memory = OwnMemory::of_heap(MEMORY);
        let driver = DriverRing::new(&mut memory, shape).unwrap();
        Self {
            device: Ring::start(memory.map(), driver.config()).unwrap(),
            slices: Slices::new(Arc::clone(memory.map())),
            memory,
            driver,
            token: 0,
            offered: VecDeque::new(),
            available: VecDeque::new(),
            taken: VecDeque::new(),
            given: VecDeque::new(),
            used: VecDeque::new(),
            device_sleeps: false,
            driver_sleeps: false,
        }
    }

    fn offer(&mut self, readable: &[u16], writable: &[u16], indirect: bool) {
        let mut bytes = Vec::new();
        let mut parts = Vec::new();
        for (lens, write) in [(readable, false), (writable, true)] {
            for &len in lens {
                let Some(addr) = self.memory.take(len.into(), 1) else {
                    return;
                };
                if !write {
                    let content: Vec<u8> = (0..len).map(|byte| (byte ^ self.token) as u8).collect();
                    let to = self.memory.map().guest(addr, len.into()).unwrap();
                    to.copy_from(&content);
                    bytes.extend(content);
                }
                parts.push(Part {
                    addr,
                    len: len.into(),
                    write,
                });
            }
        }
        let offered = if indirect {
            self.driver.offer_indirect(&parts, self.token)
        } else {
            self.driver.offer(&parts, self.token)
        };
        if offered {
            self.offered.push_back(Expected {
                token: self.token,
                readable: bytes,
                writable: parts.into_iter().filter(|part| part.write).collect(),
                written: 0,
            });
            self.token = self.token.wrapping_add(1);
        }
    }

    fn publish(&mut self) {
        self.driver.publish();
        let news = !self.offered.is_empty();
        self.available.append(&mut self.offered);
        let wants = self.driver.wants_kick();
        if self.device_sleeps && news {
            assert!(wants, "the device sleeps and would not be woken");
            self.device_sleeps = false;
        }
    }

    fn take(&mut self) {
        let chain = self.device.take(&mut self.slices).unwrap();
        let Some(expected) = self.available.pop_front() else {
            assert_eq!(chain, None);
            return;
        };
        self.device_sleeps = false;
        let chain = chain.expect("one is available");
        assert_eq!(chain.fault, None);
        let mut bytes = vec![0; usize::try_from(chain.readable).unwrap()];
        let mut range = chain.to_read();
        let before = self.slices.len();
        assert_eq!(self.slices.read(&mut range, &mut bytes), bytes.len());
        assert_eq!(self.slices.len(), before);
        assert_eq!(bytes, expected.readable);
        let room: u32 = expected.writable.iter().map(|part| part.len).sum();
        assert_eq!(chain.writable, u64::from(room));
        self.taken.push_back((expected, chain));
    }

    fn rewind(&mut self, count: u16) {
        let count = count.min(self.device.taken());
        self.device.rewind(count);
        for _ in 0..count {
            let (expected, _) = self.taken.pop_back().unwrap();
            self.available.push_front(expected);
            self.device_sleeps = false;
        }
    }

    fn give(&mut self) {
        let Some((mut expected, chain)) = self.taken.pop_front() else {
            return;
        };
        let content = vec![expected.token as u8; usize::try_from(chain.writable).unwrap()];
        let slices = self.slices.get(chain.to_write());
        assert_eq!(GuestWriter::new(slices).write(&content), content.len());
        expected.written = u32::try_from(content.len()).unwrap();
        self.device.give(expected.written);
        self.given.push_back(expected);
    }

    fn device_publish(&mut self) {
        self.device.publish();
        let news = !self.given.is_empty();
        self.used.append(&mut self.given);
        let wants = self.device.wants_call();
        if self.driver_sleeps && news {
            assert!(wants, "the driver sleeps and would not be woken");
            self.driver_sleeps = false;
        }
    }

    fn collect(&mut self) {
        let collected = self.driver.collect().unwrap();
        let Some(expected) = self.used.pop_front() else {
            assert_eq!(collected, None);
            return;
        };
        self.driver_sleeps = false;
        let collected = collected.expect("one was given");
        assert_eq!(collected.token, expected.token);
        assert_eq!(collected.written, expected.written);
        for part in expected.writable {
            let slice = self.memory.map().guest(part.addr, part.len.into()).unwrap();
            let mut bytes = vec![0; slice.len()];
            slice.copy_to(&mut bytes);
            assert!(bytes.iter().all(|byte| *byte == expected.token as u8));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Offer {
                readable,
                writable,
                indirect,
            } => self.offer(readable, writable, *indirect),
            Step::Publish => self.publish(),
            Step::Take => self.take(),
            Step::Rewind(count) => self.rewind(*count),
            Step::Give => self.give(),
            Step::DevicePublish => self.device_publish(),
            Step::Collect => self.collect(),
            Step::EnableKicks => {
                let more = self.device.enable_kicks();
                assert_eq!(more, !self.available.is_empty());
                self.device_sleeps = !more;
            }
            Step::DisableKicks => {
                self.device.disable_kicks();
                self.device_sleeps = false;
            }
            Step::EnableCalls => {
                let more = self.driver.enable_calls();
                assert_eq!(more, !self.used.is_empty());
                self.driver_sleeps = !more;
            }
            Step::DisableCalls => {
                self.driver.disable_calls();
                self.driver_sleeps = false;
            }
        }
        assert_eq!(usize::from(self.device.taken()), self.taken.len());
    }

    /// Another device goes on where this one was, as after a crash.
    fn restart(&mut self) {
        let mut config = self.driver.config();
        if config.packed || self.token.is_multiple_of(2) {
            self.used.append(&mut self.given);
            self.driver_sleeps = false;
            config.base = self.device.base() as u16;
        }
        self.device = Ring::start(self.memory.map(), config).unwrap();
        self.slices.clear();
        // What was given and not published did not happen.
        for (expected, _) in self.taken.drain(..).rev() {
            self.available.push_front(expected);
        }
        for expected in self.given.drain(..).rev() {
            self.available.push_front(expected);
        }
        self.device_sleeps = false;
    }

    fn finish(&mut self) {
        self.publish();
        while !self.available.is_empty() {
            self.take();
        }
        while !self.taken.is_empty() {
            self.give();
        }
        self.device_publish();
        while !self.used.is_empty() {
            self.collect();
        }
        assert_eq!(self.driver.collect(), Ok(None));
        assert_eq!(self.device.take(&mut self.slices), Ok(None));
    }
}

proptest! {
    #![proptest_config(config(400))]

    /// Whatever the two sides do and when: every chain arrives once, in order, with its bytes; and nobody
    /// sleeps while there is something to do.
    #[test]
    fn both_sides_agree(shape in shapes(), steps in steps()) {
        let mut world = World::new(shape);
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }

    /// A device that dies and one that goes on at the used index lose and repeat nothing.
    #[test]
    fn a_ring_is_resumed(shape in shapes(), rounds in prop::collection::vec(steps(), 1..4)) {
        let mut world = World::new(shape);
        for steps in &rounds {
            for step in steps {
                world.step(step);
            }
            world.restart();
        }
        world.finish();
    }
}

/// Indices go round several times.
#[test]
fn indices_wrap() {
    for packed in [false, true] {
        for event_idx in [false, true] {
            let size = if packed { 7 } else { 8 };
            let mut world = World::new(Shape {
                size,
                packed,
                event_idx,
                indirect: 0,
            });
            let rounds = if cfg!(miri) { 40 } else { 20_000 };
            for round in 0..rounds {
                for _ in 0..(round % 3) + 1 {
                    world.offer(&[1], &[], false);
                }
                world.finish();
                world.memory = {
                    // The buffers are free again: the pieces that were taken are not taken back.
                    let mut memory = world.memory;
                    memory.rewind_to(1 << 16);
                    memory
                };
            }
        }
    }
}

#[test]
fn nothing_is_seen_before_it_is_published() {
    for packed in [false, true] {
        let mut world = World::new(Shape {
            size: 8,
            packed,
            event_idx: false,
            indirect: 0,
        });
        for _ in 0..3 {
            world.offer(&[], &[4], false);
        }
        assert_eq!(world.device.take(&mut world.slices), Ok(None));
        world.publish();
        (0..3).for_each(|_| world.take());
        (0..3).for_each(|_| world.give());
        assert_eq!(world.driver.collect(), Ok(None), "several heads, one step");
        world.device_publish();
        (0..3).for_each(|_| world.collect());
    }
}

#[test]
fn kicks_for_more_are_for_chains_behind_the_known_ones() {
    for packed in [false, true] {
        for event_idx in [false, true] {
            let mut world = World::new(Shape {
                size: 8,
                packed,
                event_idx,
                indirect: 0,
            });
            world.offer(&[], &[4], false);
            world.publish();
            world.take();
            world.device.rewind_for_more(1);
            let (expected, _) = world.taken.pop_back().unwrap();
            world.available.push_front(expected);
            assert!(
                !world.device.enable_kicks(),
                "the one that is there is known"
            );
            world.offer(&[], &[4], false);
            world.device_sleeps = true;
            world.publish();
            assert!(world.device.enable_kicks(), "there are more now");
            world.finish();
        }
    }
}

#[test]
fn impossible_rings_are_refused() {
    let mut memory = OwnMemory::of_heap(MEMORY);
    let shape = Shape {
        size: 8,
        packed: false,
        event_idx: true,
        indirect: 0,
    };
    let good = DriverRing::new(&mut memory, shape).unwrap().config();
    let start = |config: RingConfig| Ring::start(memory.map(), config).err();
    for size in [0, 3, 32_769] {
        assert_eq!(
            start(RingConfig { size, ..good }),
            Some(StartError::Size(size))
        );
    }
    let packed = RingConfig {
        packed: true,
        base: 1 << 15,
        ..good
    };
    assert_eq!(start(RingConfig { size: 3, ..packed }), None);
    assert_eq!(
        start(RingConfig { size: 0, ..packed }),
        Some(StartError::Size(0))
    );
    let late = RingConfig { base: 8, ..packed };
    assert_eq!(start(late), Some(StartError::Base { size: 8, base: 8 }));
    let end = 0x1_0000_0000 + MEMORY;
    for addr in [0, end, end - 8, u64::MAX - 3, good.descriptors + 1] {
        for config in [
            RingConfig {
                descriptors: addr,
                ..good
            },
            RingConfig {
                driver: addr,
                ..good
            },
            RingConfig {
                device: addr,
                ..good
            },
            RingConfig {
                descriptors: addr,
                ..packed
            },
        ] {
            let error = start(config);
            assert!(matches!(error, Some(StartError::Outside(_))), "{config:?}");
        }
    }
}
