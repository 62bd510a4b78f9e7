//! Devices that err, and frames that do not fit.

use std::sync::Arc;

use super::*;
use crate::net::{Delivery, FRAME_MAX, Features, Header, ToGuest};
use crate::ring::Ring;
use crate::ring::layout::{self, PackedAreas, SplitAreas};
use std::sync::atomic::Ordering;

fn shape(packed: bool) -> Shape {
    Shape {
        size: 8,
        packed,
        event_idx: false,
        indirect: 0,
    }
}

fn ring(packed: bool) -> (OwnMemory, DriverRing) {
    let mut memory = OwnMemory::of_heap(1 << 16);
    let ring = DriverRing::new(&mut memory, shape(packed)).unwrap();
    (memory, ring)
}

fn part(addr: u64) -> Part {
    Part {
        addr,
        len: 8,
        write: true,
    }
}

#[test]
fn what_was_not_offered_is_not_taken_back() {
    let (memory, mut split) = ring(false);
    let areas = SplitAreas::find(memory.map(), &split.config()).unwrap();
    assert!(split.offer(&[part(1)], 7));
    split.publish();
    for id in [3, 8, u32::MAX] {
        areas.used_ring[0][0].store(id, Ordering::Relaxed);
        areas.used.index.store(1, Ordering::Relaxed);
        assert_eq!(split.collect(), Err(DeviceError::NotOffered { id }));
    }
    areas.used.index.store(9, Ordering::Relaxed);
    let jumped = DeviceError::Jumped { ahead: 9, size: 8 };
    assert_eq!(split.collect(), Err(jumped));
    areas.used_ring[0][0].store(0, Ordering::Relaxed);
    areas.used.index.store(1, Ordering::Relaxed);
    assert_eq!(split.collect().unwrap().map(|it| it.token), Some(7));
    // Twice is once too often.
    areas.used_ring[1][0].store(0, Ordering::Relaxed);
    areas.used.index.store(2, Ordering::Relaxed);
    assert_eq!(split.collect(), Err(DeviceError::NotOffered { id: 0 }));

    let (memory, mut packed) = ring(true);
    let areas = PackedAreas::find(memory.map(), &packed.config()).unwrap();
    assert!(packed.offer(&[part(1)], 7));
    packed.publish();
    for id in [3_u16, 8, u16::MAX] {
        let used = meta(0, id, layout::AVAIL | layout::USED);
        areas.descriptors[0][1].store(used, Ordering::Relaxed);
        let id = u32::from(id);
        assert_eq!(packed.collect(), Err(DeviceError::NotOffered { id }));
    }
}

#[test]
fn a_full_ring_takes_no_more_and_a_chain_that_never_fits_neither() {
    for packed in [false, true] {
        let (_memory, mut ring) = ring(packed);
        assert!(!ring.offer(&[], 0));
        assert!(!ring.offer(&[part(1); 9], 0));
        assert!(!ring.offer_indirect(&[part(1)], 0), "there are no tables");
        assert!(ring.offer(&[part(1); 8], 0));
        assert!(!ring.offer(&[part(1)], 1));
    }
}

/// A device may give buffers back in another order than ours does.
#[test]
fn buffers_come_back_in_any_order() {
    let (memory, mut split) = ring(false);
    let areas = SplitAreas::find(memory.map(), &split.config()).unwrap();
    for token in 0..4 {
        assert!(split.offer(&[part(1), part(2)], token));
    }
    split.publish();
    let heads: Vec<u16> = (0..4)
        .map(|slot: usize| areas.avail_ring[slot].load(Ordering::Relaxed))
        .collect();
    for (slot, which) in [2_usize, 0, 3, 1].into_iter().enumerate() {
        areas.used_ring[slot][0].store(heads[which].into(), Ordering::Relaxed);
    }
    areas.used.index.store(4, Ordering::Relaxed);
    let tokens: Vec<u16> = (0..4)
        .map(|_| split.collect().unwrap().unwrap().token)
        .collect();
    assert_eq!(tokens, [2, 0, 3, 1]);
    assert!(
        split.offer(&[part(1); 8], 9),
        "all descriptors are free again"
    );
    split.publish();
    let mut device = Ring::start(memory.map(), split.config()).unwrap();
    let mut slices = crate::memory::Slices::new(Arc::clone(memory.map()));
    let chain = device.take(&mut slices).unwrap().unwrap();
    assert_eq!(
        chain.fault,
        Some(crate::ring::Fault::Outside),
        "as the addresses are none"
    );
}

#[test]
fn a_device_that_says_too_much_is_not_believed() {
    let mut memory = OwnMemory::of_heap(1 << 20);
    let mut receive = Receive::new(&mut memory, shape(false), 2048).unwrap();
    let _ = receive.flush();
    let config = receive.config();
    let areas = SplitAreas::find(memory.map(), &config).unwrap();
    areas.used_ring[0][1].store(2049, Ordering::Relaxed);
    areas.used.index.store(1, Ordering::Relaxed);
    let written = DeviceError::Length {
        written: 2049,
        room: 2048,
    };
    assert_eq!(receive.receive().err(), Some(written));

    let mut memory = OwnMemory::of_heap(1 << 20);
    let mut receive = Receive::new(&mut memory, shape(true), 2048).unwrap();
    let _ = receive.flush();
    let mut device = Ring::start(memory.map(), receive.config()).unwrap();
    let mut slices = crate::memory::Slices::new(Arc::clone(memory.map()));
    let chain = device.take(&mut slices).unwrap().unwrap();
    let header = Header::default().with_buffers(3);
    slices.get(chain.to_write())[0].copy_from(&header.0);
    device.give(100);
    device.publish();
    let missing = DeviceError::NotOffered { id: u32::MAX };
    assert_eq!(
        receive.receive().err(),
        Some(missing),
        "two buffers are missing"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut memory = OwnMemory::of_heap(1 << 16);
    let mut transmit = Transmit::new(&mut memory, shape(false), 1024).unwrap();
    let too_long = SendError::TooLong {
        len: 1025,
        room: 1024,
    };
    assert_eq!(transmit.send(&[0; 12], &[&[0; 1013]]), Err(too_long));
    for _ in 0..8 {
        assert_eq!(transmit.send(&[0; 12], &[&[0; 1012]]), Ok(()));
    }
    assert_eq!(transmit.room(), 0);
    assert_eq!(transmit.send(&[0; 12], &[b"x"]), Err(SendError::Full));
    let small = Receive::new(&mut memory, shape(false), 8192).map(|_| ());
    assert_eq!(small, Err(MakeError::NoRoom));
}

#[test]
fn the_longest_frame_arrives() {
    let mut memory = OwnMemory::of_heap(4 << 20);
    let large = Shape {
        size: 64,
        ..shape(true)
    };
    let mut receive = Receive::new(&mut memory, large, 2048).unwrap();
    let _ = receive.flush();
    let map = Arc::clone(memory.map());
    let features = Features::VERSION_1 | Features::MRG_RXBUF;
    let mut to = ToGuest::start(map, receive.config(), features).unwrap();
    let frame: Vec<u8> = (0..FRAME_MAX).map(|byte| byte as u8).collect();
    assert_eq!(
        to.deliver(Header::default(), &frame, &[]),
        Ok(Delivery::Done)
    );
    let _ = to.publish();
    let got = receive.receive().unwrap().unwrap();
    assert_eq!((got.len, got.header.buffers()), (FRAME_MAX, 33));
    let mut seen = Vec::new();
    for part in got.parts {
        let start = seen.len();
        seen.resize(start + part.len(), 0);
        part.copy_to(&mut seen[start..]);
    }
    assert!(seen == frame);
}

/// Whoever waits for room is called when half has come back, and not before.
#[test]
fn a_call_comes_at_half() {
    for packed in [false, true] {
        let mut memory = OwnMemory::of_heap(1 << 16);
        let wakes = Shape {
            event_idx: true,
            ..shape(packed)
        };
        let mut transmit = Transmit::new(&mut memory, wakes, 1024).unwrap();
        assert!(transmit.enable_calls_at_half(), "nothing is awaited");
        let mut device = Ring::start(memory.map(), transmit.config()).unwrap();
        let mut slices = crate::memory::Slices::new(Arc::clone(memory.map()));
        // Round and round, so that all places are passed.
        for pending in [1_usize, 2, 7, 8, 3, 8, 8] {
            for _ in 0..pending {
                transmit.send(&[0; 12], &[&[7; 88]]).unwrap();
            }
            let _ = transmit.flush();
            assert_eq!(transmit.pending_bytes(), 100 * pending);
            assert!(!transmit.enable_calls_at_half());
            let half = pending.div_ceil(2);
            for given in 1..=half {
                device.take(&mut slices).unwrap().unwrap();
                device.give(0);
                device.publish();
                // The first question of a ring is always answered by yes.
                let first = pending == 1;
                assert_eq!(
                    device.wants_call(),
                    given == half || first,
                    "{given} of {pending}"
                );
            }
            assert!(transmit.enable_calls_at_half(), "it has");
            for _ in half..pending {
                device.take(&mut slices).unwrap().unwrap();
                device.give(0);
            }
            device.publish();
            assert_eq!(transmit.reclaim(), Ok(pending));
            assert_eq!(transmit.pending_bytes(), 0);
            let _passed = device.wants_call();
        }
    }
}
