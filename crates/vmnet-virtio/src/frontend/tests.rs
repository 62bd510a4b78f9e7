use std::time::{Duration, Instant};

use super::*;
use crate::memory::Unsealed;
use crate::ring::RingError;
use crate::session::Offer;
use crate::session::tests::echo::Echo;

const SOON: Duration = Duration::from_secs(20);

fn offer() -> Offer {
    Offer {
        queue_pairs: 2,
        ..Offer::new()
    }
}

/// Every kind of ring, with one pair and with two.
fn plans() -> impl Iterator<Item = Plan> {
    let kinds = [
        Features::VERSION_1,
        Features::VERSION_1 | Features::EVENT_IDX | Features::MRG_RXBUF,
        Features::VERSION_1 | Features::RING_PACKED,
        Features::ALL,
    ];
    kinds.into_iter().flat_map(|features| {
        [1, 2].map(|queue_pairs| Plan {
            features,
            queue_pairs,
            ring_size: 16,
            transmit_ring_size: None,
            transmit_buffer: 256,
            receive_buffer: 256,
        })
    })
}

fn device() -> (Echo, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Echo::start(ours, offer()), theirs)
}

/// What is sent as number `number`: of different lengths.
fn frame(number: u32) -> Vec<u8> {
    let len = 60 + usize::try_from(number % 7).unwrap() * 20;
    let mut frame = number.to_le_bytes().to_vec();
    frame.resize(len, number.to_le_bytes()[0]);
    frame
}

/// Sends the frames of those numbers that fit now; says how many.
fn send(pair: &mut Pair, numbers: std::ops::Range<u32>) -> u32 {
    pair.transmit.driver.reclaim().unwrap();
    let mut sent = 0;
    for number in numbers {
        match pair.transmit.driver.send(&[0; 12], &[&frame(number)]) {
            Ok(()) => sent += 1,
            Err(_) => break,
        }
    }
    pair.transmit.flush().unwrap();
    sent
}

/// The frames that are there.
fn receive(pair: &mut Pair) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(received) = pair.receive.driver.receive().unwrap() {
        let mut bytes = Vec::new();
        for part in received.parts {
            let mut piece = vec![0; part.len()];
            part.copy_to(&mut piece);
            bytes.extend(piece);
        }
        let number = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(bytes, frame(number));
        numbers.push(number);
    }
    pair.receive.flush().unwrap();
    numbers
}

/// Sends frames `from..to` and waits for them to come back in order, sleeping in between.
fn exchange(pair: &mut Pair, from: u32, to: u32) {
    let (mut next, mut expected) = (from, from);
    let begun = Instant::now();
    while expected < to {
        assert!(begun.elapsed() < SOON, "stuck at {expected} of {to}");
        next += send(pair, next..to);
        for number in receive(pair) {
            assert_eq!(number, expected);
            expected += 1;
        }
        if !pair.receive.driver.enable_calls() && expected < next {
            assert!(pair.receive.wait(SOON).unwrap(), "no call for {expected}");
        }
    }
}

#[test]
fn frames_come_back_over_every_kind_of_ring() {
    for plan in plans() {
        let (echo, stream) = device();
        let mut frontend = Frontend::connect(stream, &plan).unwrap();
        assert_eq!(frontend.features(), plan.features);
        for pair in &mut frontend.pairs {
            exchange(pair, 0, 500);
        }
        assert_eq!(echo.die(), None);
    }
}

#[test]
fn pairs_work_in_threads_of_their_own() {
    let (_echo, stream) = device();
    let plan = plans().last().unwrap();
    let mut frontend = Frontend::connect(stream, &plan).unwrap();
    std::thread::scope(|scope| {
        for pair in &mut frontend.pairs {
            scope.spawn(move || exchange(pair, 0, 2000));
        }
    });
}

#[test]
fn the_next_device_goes_on_where_the_last_one_died() {
    for plan in plans() {
        let (mut echo, stream) = device();
        let mut frontend = Frontend::connect(stream, &plan).unwrap();
        let mut expected = [0, 0];
        let mut next = [0, 0];
        for round in 0..40_u32 {
            for (pair, (next, expected)) in frontend
                .pairs
                .iter_mut()
                .zip(next.iter_mut().zip(&mut expected))
            {
                *next += send(pair, *next..*next + 1 + round % 9);
                if round % 3 == 0 {
                    std::thread::sleep(Duration::from_micros(u64::from(round) * 10));
                }
                for number in receive(pair) {
                    assert_eq!(number, *expected, "round {round}");
                    *expected += 1;
                }
            }
            assert_eq!(echo.die(), None);
            let (next_echo, stream) = device();
            echo = next_echo;
            frontend.reconnect(stream).unwrap();
        }
        for (pair, (next, expected)) in frontend.pairs.iter_mut().zip(next.iter().zip(expected)) {
            let mut expected = expected;
            let begun = Instant::now();
            while expected < *next {
                assert!(begun.elapsed() < SOON, "stuck at {expected} of {next}");
                for number in receive(pair) {
                    assert_eq!(number, expected);
                    expected += 1;
                }
            }
            exchange(pair, *next, next + 100);
        }
    }
}

#[test]
fn a_stopped_device_touches_nothing_and_goes_on_when_started() {
    for plan in plans() {
        let (_echo, stream) = device();
        let mut frontend = Frontend::connect(stream, &plan).unwrap();
        exchange(&mut frontend.pairs[0], 0, 21);
        let bases = frontend.stop().unwrap();
        let [receive_base, transmit_base, ..] = bases[..] else {
            panic!("{bases:?}");
        };
        let expected = match plan.features.contains(Features::RING_PACKED) {
            // 21 of 16: in the second round, which has the other wrap counter.
            true => 5 | 5 << 16,
            false => 21,
        };
        assert_eq!((receive_base, transmit_base), (expected, expected));
        assert_eq!(send(&mut frontend.pairs[0], 21..24), 3);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(receive(&mut frontend.pairs[0]), [0_u32; 0]);
        frontend.resume().unwrap();
        let begun = Instant::now();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            assert!(begun.elapsed() < SOON);
            seen.extend(receive(&mut frontend.pairs[0]));
        }
        assert_eq!(seen, [21, 22, 23]);
        exchange(&mut frontend.pairs[0], 24, 100);
    }
}

#[test]
fn what_is_sent_by_a_ring_that_is_off_is_thrown_away() {
    let (echo, stream) = device();
    let plan = plans().next().unwrap();
    let mut frontend = Frontend::connect(stream, &plan).unwrap();
    frontend.enable(1, false).unwrap();
    assert_eq!(send(&mut frontend.pairs[0], 0..5), 5);
    let begun = Instant::now();
    while echo.discarded.load(std::sync::atomic::Ordering::Relaxed) < 5 {
        assert!(begun.elapsed() < SOON);
        std::thread::yield_now();
    }
    frontend.enable(1, true).unwrap();
    exchange(&mut frontend.pairs[0], 5, 50);
}

#[test]
fn a_device_that_refuses_or_lacks_something_is_named() {
    let plan = plans().next().unwrap();
    let (_echo, stream) = device();
    let many = Plan {
        queue_pairs: 5,
        ..plan
    };
    let error = Frontend::connect(stream, &many).unwrap_err();
    assert!(
        matches!(error, FrontendError::Queues { wanted: 5, has: 4 }),
        "{error}"
    );

    let (ours, stream) = UnixStream::pair().unwrap();
    drop(ours);
    let error = Frontend::connect(stream, &plan).unwrap_err();
    assert!(matches!(error, FrontendError::Closed(_)), "{error}");

    let (ours, stream) = UnixStream::pair().unwrap();
    let old = Offer {
        features: Features::CSUM,
        ..offer()
    };
    let _echo = Echo::start(ours, old);
    let error = Frontend::connect(stream, &plan).unwrap_err();
    assert!(matches!(error, FrontendError::Features(_)), "{error}");

    let (_echo, stream) = device();
    let all = Plan {
        features: Features::ALL,
        ..plan
    };
    let mut frontend = Frontend::connect(stream, &all).unwrap();
    let (ours, stream) = UnixStream::pair().unwrap();
    let less = Offer {
        features: Features::VERSION_1,
        ..offer()
    };
    let _echo = Echo::start(ours, less);
    let error = frontend.reconnect(stream).unwrap_err();
    assert!(matches!(error, FrontendError::Changed(_)), "{error}");
}

/// A VMM that takes its memory away ends its own rings: not the process that serves it.
#[test]
fn memory_that_shrinks_ends_the_rings_in_it() {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
    use std::os::fd::OwnedFd;

    let plan = plans().next().unwrap();
    let (ours, stream) = UnixStream::pair().unwrap();
    let guarded = Offer {
        unsealed: Unsealed::Guard,
        ..offer()
    };
    let echo = Echo::start(ours, guarded);
    let file: OwnedFd = memfd_create("open", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, plan.memory()).unwrap();
    let shrink = file.try_clone().unwrap();
    let memory = OwnMemory::of_file(file, plan.memory()).unwrap();
    let mut frontend = Frontend::connect_in(stream, &plan, memory).unwrap();
    exchange(&mut frontend.pairs[0], 0, 50);
    let kick = frontend.pairs[0]
        .transmit
        .kick_fd()
        .try_clone_to_owned()
        .unwrap();
    // Its own mapping must not be touched from here on.
    ftruncate(&shrink, 0).unwrap();
    rustix::io::write(&kick, &1_u64.to_ne_bytes()).unwrap();
    let begun = Instant::now();
    while !echo.is_broken() {
        assert!(begun.elapsed() < SOON, "the ring goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
    // It may look at the zeros in the place of what is gone before it hears that it is.
    let end = echo.die();
    assert!(
        matches!(end, Some(RingError::MemoryLost | RingError::Jumped { .. })),
        "{end:?}"
    );
}
