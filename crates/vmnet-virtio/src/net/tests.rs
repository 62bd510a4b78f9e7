//! Frames between the driver's side and the device's, and into hostile memory.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::driver::{Receive, Shape, Transmit};
use crate::memory::{GuestSlice, MemoryMap, OwnMemory};
use crate::ring::{Fault, RingError};

mod hostile;

const LIMITS: BurstLimits = BurstLimits {
    frames: 8,
    bytes: 1 << 20,
    head: 100,
};

fn features(mergeable: bool) -> Features {
    if mergeable {
        Features::VERSION_1 | Features::MRG_RXBUF
    } else {
        Features::VERSION_1
    }
}

/// A guest that sends, one that receives, and what is between them.
struct Pair {
    transmit: Transmit,
    from: FromGuest,
    receive: Receive,
    to: ToGuest,
    burst: Burst,
    /// Frames are given by the short way, where that is possible.
    in_runs: bool,
}

impl Pair {
    fn new(shape: Shape, send_buffer: u32, receive_buffer: u32, mergeable: bool) -> Self {
        let mut first = OwnMemory::of_heap(32 << 20);
        let mut second = OwnMemory::of_heap(32 << 20);
        let transmit = Transmit::new(&mut first, shape, send_buffer).unwrap();
        let mut receive = Receive::new(&mut second, shape, receive_buffer).unwrap();
        let features = features(mergeable);
        let map = Arc::clone(first.map());
        let from = FromGuest::start(map, transmit.config(), features).unwrap();
        let map = Arc::clone(second.map());
        let to = ToGuest::start(map, receive.config(), features).unwrap();
        let _ = receive.flush();
        Self {
            transmit,
            from,
            receive,
            to,
            burst: Burst::new(LIMITS),
            in_runs: false,
        }
    }

    /// Forwards what is there: how many frames were delivered.
    fn forward(&mut self) -> usize {
        let mut count = 0;
        self.from.receive(&mut self.burst).unwrap();
        while let Some(frame) = self.burst.get(count) {
            let frame = frame.unwrap();
            if self.in_runs {
                let alike = |next: &Frame<'_>| next.header == frame.header;
                let frames = self.burst.from(count).map(Result::unwrap);
                let most = frames.take_while(alike).count();
                let run = self.to.deliver_run(frame.header, &self.burst, count, most);
                assert!(run.frames <= most);
                let passed = self.burst.from(count).map(Result::unwrap);
                let bytes: usize = passed.take(run.frames).map(|frame| frame.len).sum();
                assert_eq!(run.bytes, bytes);
                if run.frames > 0 {
                    count += run.frames;
                    continue;
                }
            }
            match self
                .to
                .deliver(frame.header, frame.head, frame.rest)
                .unwrap()
            {
                Delivery::Done => count += 1,
                Delivery::NoBuffers | Delivery::TooLong => break,
            }
        }
        self.from.complete(count);
        self.from.rewind(self.burst.len() - count);
        let _ = (self.to.publish(), self.from.publish());
        count
    }

    fn next(&mut self) -> Option<(Header, Vec<u8>)> {
        let frame = self.receive.receive().unwrap()?;
        let bytes = gather(frame.parts);
        assert_eq!(bytes.len(), frame.len);
        Some((frame.header, bytes))
    }
}

fn gather(slices: &[GuestSlice<'_>]) -> Vec<u8> {
    let mut all = Vec::new();
    for slice in slices {
        let start = all.len();
        all.resize(start + slice.len(), 0);
        slice.copy_to(&mut all[start..]);
    }
    all
}

fn shape(packed: bool, size: u16) -> Shape {
    Shape {
        size,
        packed,
        event_idx: true,
        indirect: 0,
    }
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|byte| (byte as u8).wrapping_mul(7) ^ seed)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 60 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Frames of any length, in any bursts, arrive once, in order, with their bytes and header.
    #[test]
    fn frames_arrive(
        packed: bool,
        in_runs: bool,
        bits in 4_u32..7,
        buffer in 1100_u32..5000,
        lens in prop::collection::vec(prop_oneof![1_usize..200, 1_usize..10_000], 1..60),
        rhythm in prop::collection::vec(0_usize..6, 1..20),
    ) {
        let mut pair = Pair::new(shape(packed, 1 << bits), 10_012, buffer, true);
        pair.in_runs = in_runs;
        // Each of the three things happens now and then.
        let mut rhythm = rhythm.iter().chain(&[2; 4]).cycle();
        let (mut sent, mut received) = (0, 0);
        let mut idle = 0;
        while received < lens.len() {
            idle += 1;
            prop_assert!(idle < 1000, "stuck at {} of {}", received, lens.len());
            for _ in 0..*rhythm.next().unwrap() {
                let Some(len) = lens.get(sent) else { break };
                let header = Header([sent as u8; 12]);
                let bytes = frame(*len, sent as u8);
                let (first, second) = bytes.split_at(len / 3);
                if pair.transmit.send(&header.0, &[first, second]).is_err() {
                    break;
                }
                sent += 1;
            }
            let _ = pair.transmit.flush();
            if *rhythm.next().unwrap() > 0 {
                pair.forward();
            }
            for _ in 0..*rhythm.next().unwrap() {
                let Some((header, bytes)) = pair.next() else { break };
                let expected = Header([received as u8; 12]);
                prop_assert_eq!(&header.0[..10], &expected.0[..10]);
                prop_assert_eq!(bytes.len(), lens[received]);
                prop_assert_eq!(&bytes, &frame(lens[received], received as u8));
                let buffers = (bytes.len() + HEADER_MAX).div_ceil(buffer as usize);
                prop_assert_eq!(usize::from(header.buffers()), buffers);
                received += 1;
                idle = 0;
            }
            let _ = pair.receive.flush();
            pair.transmit.reclaim().unwrap();
        }
        prop_assert!(pair.next().is_none());
    }
}

#[test]
fn the_head_is_a_copy_and_the_rest_is_not() {
    for packed in [false, true] {
        let mut pair = Pair::new(shape(packed, 8), 4096, 4096, true);
        let bytes = frame(300, 1);
        let mut place = None;
        pair.transmit
            .send_with(312, |buffer| {
                buffer.copy_from(&[9; 12]);
                buffer.split_at(12).1.copy_from(&bytes);
                place = Some(buffer.as_ptr() as usize);
            })
            .unwrap();
        let _ = pair.transmit.flush();
        assert_eq!(pair.from.receive(&mut pair.burst), Ok(1));
        // The guest changes its mind.
        pair.transmit.send_with(312, |_| {}).unwrap();
        let frame = pair.burst.get(0).unwrap().unwrap();
        let start = place.unwrap();
        assert_eq!(frame.rest[0].as_ptr() as usize, start + 12 + LIMITS.head);
        frame.rest[0].copy_from(b"changed");
        assert_eq!((frame.header, frame.len), (Header([9; 12]), 300));
        assert_eq!(frame.head, &bytes[..LIMITS.head]);
        assert_eq!(frame.rest.len(), 1);
        assert_eq!(&gather(frame.rest)[..7], b"changed");
    }
}

#[test]
fn a_short_header_is_the_old_drivers() {
    let mut memory = OwnMemory::of_heap(1 << 20);
    let mut transmit = Transmit::new(&mut memory, shape(false, 8), 4096).unwrap();
    let map = || Arc::clone(memory.map());
    let mut from = FromGuest::start(map(), transmit.config(), Features(0)).unwrap();
    transmit.send(&[1; 10], &[b"frame"]).unwrap();
    let _ = transmit.flush();
    let mut burst = Burst::new(LIMITS);
    assert_eq!(from.receive(&mut burst), Ok(1));
    let frame = burst.get(0).unwrap().unwrap();
    assert_eq!((frame.head, frame.len), (&b"frame"[..], 5));
    assert_eq!(frame.header.0[..10], [1; 10]);
    assert_eq!(frame.header.buffers(), 0);
}

#[test]
fn what_is_no_frame_is_told_and_completed() {
    let mut pair = Pair::new(shape(false, 16), 70_000, 4096, true);
    let (from, transmit) = (&mut pair.from, &mut pair.transmit);
    for len in [0, 11, 12, 13, FRAME_MAX + 12, FRAME_MAX + 13] {
        transmit.send_with(len, |_| {}).unwrap();
    }
    let _ = transmit.flush();
    from.receive(&mut pair.burst).unwrap();
    let found: Vec<_> = pair
        .burst
        .iter()
        .map(|frame| frame.map(|frame| frame.len))
        .collect();
    let (short, long) = (Err(FrameFault::Short), Err(FrameFault::Long));
    assert_eq!(found, [short, short, short, Ok(1), Ok(FRAME_MAX), long]);
    assert_eq!(from.pending(), 6);
    from.complete(6);
    let _ = from.publish();
    assert_eq!(transmit.reclaim(), Ok(6));
}

#[test]
fn a_frame_for_the_other_direction_is_none() {
    let mut memory = OwnMemory::of_heap(1 << 20);
    let mut receive = Receive::new(&mut memory, shape(false, 2), 4096).unwrap();
    let config = receive.config();
    let _ = receive.flush();
    let map = Arc::clone(memory.map());
    let mut from = FromGuest::start(map, config, features(true)).unwrap();
    let mut burst = Burst::new(LIMITS);
    assert_eq!(from.receive(&mut burst), Ok(2));
    let found = burst.get(0).unwrap().map(|frame| frame.len);
    assert_eq!(found, Err(FrameFault::Chain(Fault::Direction)));

    let mut transmit = Transmit::new(&mut memory, shape(false, 2), 4096).unwrap();
    transmit.send(&[0; 12], &[b"x"]).unwrap();
    let _ = transmit.flush();
    let map = Arc::clone(memory.map());
    let mut to = ToGuest::start(map, transmit.config(), features(true)).unwrap();
    let end = RingError::Buffer(Fault::Direction);
    assert_eq!(to.deliver(Header::default(), b"x", &[]), Err(end));
    assert_eq!(to.deliver(Header::default(), b"x", &[]), Err(end));
    assert_eq!(to.ring().taken(), 0);
}

#[test]
fn too_few_buffers_and_too_small_ones_are_told_apart() {
    let deliver = |to: &mut ToGuest, len| {
        let delivery = to.deliver(Header::default(), &frame(len, 0), &[]).unwrap();
        let _ = to.publish();
        delivery
    };
    let mut pair = Pair::new(shape(false, 4), 4096, 1000, true);
    assert_eq!(deliver(&mut pair.to, 4 * 1000 - 11), Delivery::NoBuffers);
    assert!(!pair.to.enable_kicks(), "all four are known");
    assert!(pair.next().is_none());
    assert_eq!(deliver(&mut pair.to, 4 * 1000 - 12), Delivery::Done);
    assert_eq!(pair.next().unwrap().1.len(), 3988);
    assert_eq!(deliver(&mut pair.to, FRAME_MAX + 1), Delivery::TooLong);

    let mut pair = Pair::new(shape(true, 4), 4096, 1000, false);
    assert_eq!(deliver(&mut pair.to, 989), Delivery::TooLong);
    for _ in 0..4 {
        assert_eq!(deliver(&mut pair.to, 988), Delivery::Done);
    }
    assert_eq!(deliver(&mut pair.to, 1), Delivery::NoBuffers);
    (0..4).for_each(|_| assert_eq!(pair.next().unwrap().1.len(), 988));
}

#[test]
fn reserved_space_is_filled_and_the_rest_of_it_given_back() {
    for packed in [false, true] {
        let mut pair = Pair::new(shape(packed, 8), 4096, 100, true);
        let to = &mut pair.to;
        assert_eq!(to.reserve(388), Ok(Delivery::Done));
        assert_eq!(to.ring().taken(), 4);
        let room: Vec<usize> = to.space(8).map(|slice| slice.len()).collect();
        assert_eq!(room, [80, 100, 100, 100]);
        let payload = frame(150, 3);
        let mut rest = &payload[..];
        for slice in to.space(8) {
            let copied = slice.copy_from(rest);
            rest = &rest[copied..];
        }
        to.commit(Header([5; 12]), b"heading:", 158);
        assert_eq!(to.ring().taken(), 0);
        assert_eq!(to.reserve(1), Ok(Delivery::Done));
        to.cancel();
        assert_eq!(to.space(0).count(), 0, "nothing is reserved");
        to.commit(Header::default(), b"x", 1);
        let done = to.deliver(Header::default(), b"next", &[]);
        assert_eq!(done, Ok(Delivery::Done));
        let _ = to.publish();
        let (header, bytes) = pair.next().unwrap();
        assert_eq!(header, Header([5; 12]).with_buffers(2));
        assert_eq!(bytes, [b"heading:", &payload[..]].concat());
        assert_eq!(pair.next().unwrap().1, b"next");
    }
}

#[test]
fn a_queue_goes_on_in_other_memory() {
    let mut memory = OwnMemory::of_heap(1 << 20);
    let mut transmit = Transmit::new(&mut memory, shape(true, 8), 4096).unwrap();
    let map = Arc::clone(memory.map());
    let mut from = FromGuest::start(map, transmit.config(), features(true)).unwrap();
    let mut burst = Burst::new(LIMITS);
    transmit.send(&[0; 12], &[b"first"]).unwrap();
    transmit.send(&[0; 12], &[&frame(500, 2)]).unwrap();
    let _ = transmit.flush();
    assert_eq!(from.receive(&mut burst), Ok(2));
    assert!(from.remap(Arc::default()).is_err(), "the ring is not in it");
    let other = memory.map().without(1, 2, 3).is_err();
    assert!(other);
    from.remap(Arc::clone(memory.map())).unwrap();
    from.complete(1);
    assert_eq!(
        gather(burst.get(1).unwrap().unwrap().rest),
        frame(500, 2)[100..]
    );
    from.rewind(1);
    assert_eq!(from.receive(&mut burst), Ok(1));
    assert_eq!(burst.get(0).unwrap().unwrap().len, 500);
}

#[test]
fn memory_is_let_go_by_what_is_done_with_it() {
    let mut memory = OwnMemory::new(1 << 20).unwrap();
    let mut transmit = Transmit::new(&mut memory, shape(true, 8), 4096).unwrap();
    let mut receive = Receive::new(&mut memory, shape(true, 8), 4096).unwrap();
    let _ = receive.flush();
    // Not the driver's own map, so that only ours are counted.
    let map = || Arc::new(MemoryMap::new([memory.region().unwrap()]).unwrap());
    let (old, new) = (map(), map());
    let mut from = FromGuest::start(Arc::clone(&old), transmit.config(), features(true)).unwrap();
    let mut to = ToGuest::start(Arc::clone(&old), receive.config(), features(true)).unwrap();
    transmit.send(&[0; 12], &[&frame(500, 2)]).unwrap();
    let _ = transmit.flush();
    let mut burst = Burst::new(LIMITS);
    assert_eq!(from.receive(&mut burst), Ok(1));
    assert_eq!(to.reserve(100), Ok(Delivery::Done));
    from.remap(Arc::clone(&new)).unwrap();
    to.remap(Arc::clone(&new)).unwrap();
    assert_eq!(Arc::strong_count(&old), 2, "the burst keeps it");
    assert_eq!(burst.get(0).unwrap().unwrap().len, 500);
    burst.clear();
    assert!(burst.is_empty() && burst.get(0).is_none());
    assert_eq!(Arc::strong_count(&old), 1);
}
