//! How fast rings move frames: a driver in one thread sends by one ring and receives by another, and a device
//! in this thread moves the frames between them, beside a plain copy of the same bytes.
//!
//! ```text
//! cargo run --release -p vmnet-virtio --example rings -- [--seconds S] [--head BYTES] [--only split|packed] [--frame LEN]
//! ```
//!
//! Both sides look for 50 µs before they sleep; a notification is a write to an eventfd. Per frame are printed: the time, the
//! processor time of the device's thread (looking included), that of the device when both sides take
//! turns in one thread, that of a plain copy of as many bytes between the same memories, and notifications.
//! On a machine with other work to do, only the processor times mean anything.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use vmnet_virtio::driver::{Receive, Shape, Transmit};
use vmnet_virtio::memory::{MemoryMap, OwnMemory};
use vmnet_virtio::net::{Burst, BurstLimits, Delivery, Features, FromGuest, ToGuest};

type AnyResult<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const RING: u16 = 256;
const BURST: usize = 64;
const LOOK: Duration = Duration::from_micros(50);

/// One run.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    frame: usize,
    receive_buffer: u32,
}

const CASES: [Case; 4] = [
    Case {
        name: "64 B",
        frame: 64,
        receive_buffer: 2048,
    },
    Case {
        name: "1500 B",
        frame: 1500,
        receive_buffer: 2048,
    },
    Case {
        name: "65550 B, buffers of 4 KiB",
        frame: 65_550,
        receive_buffer: 4096,
    },
    Case {
        name: "65550 B, one buffer",
        frame: 65_550,
        receive_buffer: 65_562,
    },
];

/// An eventfd, and how often it was written.
struct Bell {
    file: OwnedFd,
    rung: AtomicU64,
}

impl Bell {
    fn new() -> AnyResult<Self> {
        Ok(Self {
            file: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            rung: AtomicU64::new(0),
        })
    }

    fn ring(&self) {
        self.rung.fetch_add(1, Ordering::Relaxed);
        let _ = rustix::io::write(&self.file, &1_u64.to_ne_bytes());
    }

    fn wait(&self) {
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        let _ = poll(&mut [PollFd::new(&self.file, PollFlags::IN)], Some(&second));
        let _ = rustix::io::read(&self.file, &mut [0; 8]);
    }
}

/// When to stop looking and sleep.
struct Patience(Option<Instant>);

impl Patience {
    /// Nothing was done: is it time to sleep?
    fn ends(&mut self) -> bool {
        std::hint::spin_loop();
        let since = *self.0.get_or_insert_with(Instant::now);
        if since.elapsed() < LOOK {
            return false;
        }
        self.0 = None;
        true
    }
}

/// The guests: one end of both rings.
struct Guest {
    transmit: Transmit,
    receive: Receive,
    frame: usize,
    received: u64,
}

/// What a step came to: frames that went on, and whether the other side wants to be woken.
type Step = (u64, bool);

impl Guest {
    fn step(&mut self) -> AnyResult<Step> {
        let mut worked = 0;
        for _ in 0..BURST {
            let sent = self.transmit.send_with(self.frame + 12, |buffer| {
                buffer.copy_from(&[0; 12]);
            });
            if sent.is_err() {
                break;
            }
            worked += 1;
        }
        let mut wants = self.transmit.flush();
        for _ in 0..BURST {
            match self.receive.receive()? {
                Some(got) if got.len == self.frame => self.received += 1,
                Some(got) => return Err(format!("a frame of {} bytes", got.len).into()),
                None => break,
            }
            worked += 1;
        }
        wants |= self.receive.flush();
        worked += u64::try_from(self.transmit.reclaim()?)?;
        Ok((worked, wants))
    }

    /// Steps until told to stop.
    fn run(mut self, (kick, call): (&Bell, &Bell), stop: &AtomicBool) -> AnyResult<u64> {
        let mut patience = Patience(None);
        while !stop.load(Ordering::Relaxed) {
            let (worked, wants) = self.step()?;
            if wants {
                kick.ring();
            }
            if worked > 0 {
                patience.0 = None;
            } else if patience.ends() {
                if !self.transmit.enable_calls() && !self.receive.enable_calls() {
                    call.wait();
                }
                self.transmit.disable_calls();
                self.receive.disable_calls();
            }
        }
        kick.ring();
        Ok(self.received)
    }
}

/// What is between the guests.
struct Switch {
    from: FromGuest,
    to: ToGuest,
    burst: Burst,
    /// Frames that found no buffers wait in the ring.
    short: bool,
}

impl Switch {
    fn step(&mut self) -> AnyResult<Step> {
        let count = self.from.receive(&mut self.burst)?;
        let mut done = 0;
        for frame in self.burst.iter() {
            let frame = frame?;
            if self.to.deliver(frame.header, frame.head, frame.rest)? != Delivery::Done {
                break;
            }
            done += 1;
        }
        self.from.complete(done);
        self.from.rewind(count - done);
        self.short = count > 0;
        let wants = self.to.publish() | self.from.publish();
        Ok((u64::try_from(done)?, wants))
    }

    /// Steps until told to stop; how much time of a processor it took.
    fn run(mut self, (kick, call): (&Bell, &Bell), stop: &AtomicBool) -> AnyResult<Duration> {
        let mut patience = Patience(None);
        let begin = processor_time();
        while !stop.load(Ordering::Relaxed) {
            let (done, wants) = self.step()?;
            if wants {
                call.ring();
            }
            if done > 0 {
                patience.0 = None;
            } else if patience.ends() {
                let more = if self.short {
                    self.to.enable_kicks()
                } else {
                    self.from.enable_kicks()
                };
                if !more {
                    kick.wait();
                }
                self.from.disable_kicks();
                self.to.disable_kicks();
            }
        }
        call.ring();
        Ok(processor_time() - begin)
    }
}

/// How long this thread had a processor.
fn processor_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

/// Bytes of a buffer to send from.
fn send_buffer(case: Case) -> AnyResult<u32> {
    Ok(u32::try_from((case.frame + 12).next_multiple_of(64))?)
}

/// Receive rings have room for many large frames.
fn receive_ring(case: Case) -> u16 {
    if case.receive_buffer == 4096 {
        1024
    } else {
        RING
    }
}

/// Two guests and a switch between them.
fn pair(case: Case, packed: bool, head: usize) -> AnyResult<(Guest, Switch, [OwnMemory; 2])> {
    let shape = Shape {
        size: RING,
        packed,
        event_idx: true,
        indirect: 0,
    };
    let mut sender = OwnMemory::new(64 << 20)?;
    let mut receiver = OwnMemory::new(64 << 20)?;
    let transmit = Transmit::new(&mut sender, shape, send_buffer(case)?)?;
    let large = Shape {
        size: receive_ring(case),
        ..shape
    };
    let mut receive = Receive::new(&mut receiver, large, case.receive_buffer)?;
    let _ = receive.flush();
    // The device maps the memory for itself, as it would that of another process.
    let mapped =
        |memory: &OwnMemory| -> AnyResult<_> { Ok(Arc::new(MemoryMap::new([memory.region()?])?)) };
    let features = Features::VERSION_1 | Features::MRG_RXBUF;
    let mut switch = Switch {
        from: FromGuest::start(mapped(&sender)?, transmit.config(), features)?,
        to: ToGuest::start(mapped(&receiver)?, receive.config(), features)?,
        burst: Burst::new(BurstLimits {
            frames: BURST,
            bytes: 1 << 20,
            head,
        }),
        short: false,
    };
    switch.from.disable_kicks();
    switch.to.disable_kicks();
    let guest = Guest {
        transmit,
        receive,
        frame: case.frame,
        received: 0,
    };
    Ok((guest, switch, [sender, receiver]))
}

/// A plain copy of frames, from and to where rings have their buffers.
struct Plain<'m> {
    case: Case,
    memory: &'m [OwnMemory; 2],
    count: u64,
}

impl Plain<'_> {
    fn step(&mut self, frames: u64) -> AnyResult<()> {
        const HEADER: u64 = 12;
        // The rings come first, and buffers begin with a page.
        const START: u64 = 0x1_0000_0000 + (1 << 20);
        let [from, to] = self.memory;
        let len = u64::try_from(self.case.frame)?;
        let source_step = u64::from(send_buffer(self.case)?);
        let buffer = u64::from(self.case.receive_buffer);
        let target_step = (len + HEADER).next_multiple_of(buffer);
        let targets = u64::from(receive_ring(self.case)) * buffer / target_step;
        for _ in 0..frames {
            let source = START + HEADER + self.count % u64::from(RING) * source_step;
            let target = START + HEADER + self.count % targets * target_step;
            let piece = from.map().guest(source, len)?;
            to.map().guest(target, len)?.copy_from_guest(piece);
            self.count += 1;
        }
        Ok(())
    }
}

/// Guests and switch take turns in one thread, with as many plain copies in between: what a frame costs the
/// switch alone, and what a plain copy of it costs, in seconds.
fn alternate(case: Case, packed: bool, head: usize, time: Duration) -> AnyResult<(f64, f64)> {
    let (mut guest, mut switch, _memory) = pair(case, packed, head)?;
    // Like the first, and never a frame in it that a copy could disturb.
    let (_, _, memory) = pair(case, packed, head)?;
    let mut plain = Plain {
        case,
        memory: &memory,
        count: 0,
    };
    let (mut spent, mut copied, mut frames) = (Duration::ZERO, Duration::ZERO, 0);
    let mut warm = 0;
    while spent < time {
        guest.step()?;
        let begin = processor_time();
        let (mut done, _) = switch.step()?;
        // Reading the clock is a system call: as many frames at once as there are.
        if case.frame < 4096 {
            for _ in 0..3 {
                done += switch.step()?.0;
            }
        }
        let between = processor_time();
        plain.step(done)?;
        let end = processor_time();
        warm += done;
        if warm > 2048 {
            spent += between - begin;
            copied += end - between;
            frames += done;
        }
    }
    let frames = frames as f64;
    Ok((spent.as_secs_f64() / frames, copied.as_secs_f64() / frames))
}

fn run(case: Case, packed: bool, head: usize, time: Duration) -> AnyResult<()> {
    let (guest, switch, _memory) = pair(case, packed, head)?;
    let (kick, call) = (Bell::new()?, Bell::new()?);
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let (received, busy) = std::thread::scope(|scope| {
        let driver = scope.spawn(|| {
            let received = guest.run((&kick, &call), &stop);
            stop.store(true, Ordering::Relaxed);
            received
        });
        let timer = scope.spawn(|| {
            while begin.elapsed() < time && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            stop.store(true, Ordering::Relaxed);
            call.ring();
        });
        let busy = switch.run((&kick, &call), &stop)?;
        timer.join().map_err(|_| "the timer panicked")?;
        let received = driver.join().map_err(|_| "the driver panicked")??;
        AnyResult::Ok((received, busy))
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let frames = received as f64;
    let frame_bits = case.frame as f64 * 8.0;
    let (alone, plain) = alternate(case, packed, head, time / 2)?;
    let rung = kick.rung.load(Ordering::Relaxed) + call.rung.load(Ordering::Relaxed);
    println!(
        "{:6} {:25} {:6.3} Mpps {:7.2} Gbit/s {:7.0} ns  processor {:6.0} ns  alone {:6.0} ns  plain copy {:6.0} ns ({:.2})  {:.5} notifications",
        if packed { "packed" } else { "split" },
        case.name,
        frames / seconds / 1e6,
        frame_bits * frames / seconds / 1e9,
        seconds * 1e9 / frames,
        busy.as_secs_f64() * 1e9 / frames,
        alone * 1e9,
        plain * 1e9,
        plain / alone,
        rung as f64 / frames,
    );
    Ok(())
}

fn main() -> AnyResult<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut seconds, mut head, mut only, mut frame) = (2.0, 2048, None, None);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or("each option has a value")?;
        match argument.as_str() {
            "--seconds" => seconds = value.parse()?,
            "--head" => head = value.parse()?,
            "--only" => only = Some(value),
            "--frame" => frame = Some(value.parse::<usize>()?),
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    for packed in [false, true] {
        if only
            .as_deref()
            .is_some_and(|only| (only == "packed") != packed)
        {
            continue;
        }
        for case in CASES {
            if frame.is_some_and(|frame| frame != case.frame) {
                continue;
            }
            run(case, packed, head, Duration::from_secs_f64(seconds))?;
        }
    }
    Ok(())
}
