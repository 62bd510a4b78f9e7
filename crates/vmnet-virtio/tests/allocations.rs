//! Frames cost no allocation: after a first round, none is made by either side of the rings.
//!
//! Also the only test here in which the device maps the memory for itself, as that of another process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use vmnet_virtio::driver::{Receive, Shape, Transmit};
use vmnet_virtio::memory::{MemoryMap, OwnMemory};
use vmnet_virtio::net::{Burst, BurstLimits, Delivery, Features, FromGuest, ToGuest};

/// Counts what the thread allocates.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn mapped(memory: &OwnMemory) -> Arc<MemoryMap> {
    Arc::new(MemoryMap::new([memory.region().unwrap()]).unwrap())
}

/// Sends a burst of frames through, and looks at each byte.
fn round(
    transmit: &mut Transmit,
    receive: &mut Receive,
    (from, to, burst): (&mut FromGuest, &mut ToGuest, &mut Burst),
    seed: u8,
) {
    const LEN: usize = 9000;
    let bytes = [seed; LEN];
    for _ in 0..10 {
        transmit
            .send(&[0; 12], &[&bytes[..14], &bytes[14..]])
            .unwrap();
    }
    let _ = transmit.flush();
    assert_eq!(from.receive(burst), Ok(10));
    for frame in burst.iter() {
        let frame = frame.unwrap();
        let done = to.deliver(frame.header, frame.head, frame.rest);
        assert_eq!(done, Ok(Delivery::Done));
    }
    from.complete(10);
    let _ = (from.publish(), to.publish());
    assert_eq!(transmit.reclaim(), Ok(10));
    for _ in 0..10 {
        let frame = receive.receive().unwrap().expect("a frame");
        assert_eq!((frame.len, frame.header.buffers()), (LEN, 3));
        let mut seen = [0; 4096];
        for part in frame.parts {
            let len = part.copy_to(&mut seen);
            assert!(seen[..len].iter().all(|byte| *byte == seed));
        }
    }
    assert!(receive.receive().unwrap().is_none());
    let _ = receive.flush();
}

#[test]
fn frames_cost_no_allocation() {
    for packed in [false, true] {
        let shape = Shape {
            size: 64,
            packed,
            event_idx: true,
            indirect: 0,
        };
        let mut sender = OwnMemory::new(2 << 20).unwrap();
        let mut receiver = OwnMemory::new(2 << 20).unwrap();
        let mut transmit = Transmit::new(&mut sender, shape, 16_384).unwrap();
        let mut receive = Receive::new(&mut receiver, shape, 4096).unwrap();
        let _ = receive.flush();
        let features = Features::VERSION_1 | Features::MRG_RXBUF;
        let mut from = FromGuest::start(mapped(&sender), transmit.config(), features).unwrap();
        let mut to = ToGuest::start(mapped(&receiver), receive.config(), features).unwrap();
        let mut burst = Burst::new(BurstLimits {
            frames: 64,
            bytes: 1 << 20,
            head: 256,
        });
        round(
            &mut transmit,
            &mut receive,
            (&mut from, &mut to, &mut burst),
            1,
        );
        let before = COUNT.get();
        for seed in 2..100 {
            round(
                &mut transmit,
                &mut receive,
                (&mut from, &mut to, &mut burst),
                seed,
            );
        }
        assert_eq!(COUNT.get(), before, "allocations");
    }
}
