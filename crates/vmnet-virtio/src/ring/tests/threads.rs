//! Driver and device in threads of their own, which sleep when there is nothing to do.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::*;

const FRAMES: u32 = if cfg!(miri) { 60 } else { 30_000 };
const PATIENCE: Duration = Duration::from_secs(60);

/// Sleeps until the other side rings; panics if it never does.
fn sleep(bell: &Receiver<()>) {
    match bell.recv_timeout(PATIENCE) {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => while bell.try_recv().is_ok() {},
        Err(RecvTimeoutError::Timeout) => panic!("a wake-up was lost"),
    }
}

/// Offers numbers, and expects them back in order, changed by the device.
fn drive(mut driver: DriverRing, memory: &mut OwnMemory, kick: &Sender<()>, call: &Receiver<()>) {
    let buffers: Vec<u64> = (0..driver.config().size)
        .map(|_| memory.take(8, 8).unwrap())
        .collect();
    let mut free: Vec<u16> = (0..driver.config().size).collect();
    let map = Arc::clone(memory.map());
    let (mut sent, mut received) = (0_u32, 0_u32);
    while received < FRAMES {
        let mut worked = false;
        while sent < FRAMES && free.len() > 1 {
            let which = free.pop().unwrap();
            let addr = buffers[usize::from(which)];
            map.guest(addr, 4).unwrap().copy_from(&sent.to_le_bytes());
            let parts = [(addr, false), (addr + 4, true)].map(|(addr, write)| Part {
                addr,
                len: 4,
                write,
            });
            if !driver.offer(&parts, which) {
                free.push(which);
                break;
            }
            sent += 1;
            worked = true;
            if sent.is_multiple_of(7) {
                break;
            }
        }
        driver.publish();
        if driver.wants_kick() {
            let _ = kick.send(());
        }
        while let Some(collected) = driver.collect().unwrap() {
            let addr = buffers[usize::from(collected.token)] + 4;
            let mut bytes = [0; 4];
            map.guest(addr, 4).unwrap().copy_to(&mut bytes);
            assert_eq!(u32::from_le_bytes(bytes), !received);
            assert_eq!(collected.written, 4);
            received += 1;
            free.push(collected.token);
            worked = true;
        }
        if !worked && !driver.enable_calls() {
            sleep(call);
            driver.disable_calls();
        }
    }
}

fn serve(mut device: Ring, memory: &OwnMemory, call: &Sender<()>, kick: &Receiver<()>) {
    let mut slices = Slices::new(Arc::clone(memory.map()));
    let mut served = 0;
    while served < FRAMES {
        slices.clear();
        let mut count = 0;
        while count < 5
            && let Some(chain) = device.take(&mut slices).unwrap()
        {
            let mut bytes = [0; 4];
            slices.read(&mut chain.to_read(), &mut bytes);
            assert_eq!(u32::from_le_bytes(bytes), served);
            let answer = (!served).to_le_bytes();
            GuestWriter::new(slices.get(chain.to_write())).write(&answer);
            device.give(4);
            served += 1;
            count += 1;
        }
        device.publish();
        if device.wants_call() {
            let _ = call.send(());
        }
        if count == 0 && !device.enable_kicks() {
            sleep(kick);
            device.disable_kicks();
        }
    }
}

#[test]
fn nothing_is_lost_between_threads_and_nobody_sleeps_for_ever() {
    for (packed, event_idx, size) in [
        (false, false, 8),
        (false, true, 4),
        (true, false, 6),
        (true, true, 9),
        (false, true, 256),
        (true, true, 256),
    ] {
        let mut memory = OwnMemory::of_heap(1 << 16);
        let shape = Shape {
            size,
            packed,
            event_idx,
            indirect: 0,
        };
        let driver = DriverRing::new(&mut memory, shape).unwrap();
        let device = Ring::start(memory.map(), driver.config()).unwrap();
        let (kick, kicked) = channel();
        let (call, called) = channel();
        let mut other = OwnMemory::of_map(&memory);
        std::thread::scope(|scope| {
            scope.spawn(move || drive(driver, &mut other, &kick, &called));
            serve(device, &memory, &call, &kicked);
            drop(call);
        });
    }
}
