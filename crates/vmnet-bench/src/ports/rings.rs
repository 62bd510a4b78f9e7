//! Frames from one vhost-user port of a network to another. The driver's side of both is one thread of ours; the network's
//! thread moves the frames. Beside it, a plain copy of as many bytes between as many buffers.

use super::{Driver, Failure, NAME, NAP, attach, network};
use crate::measure::Values;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use vmnet_lab::sim::packets::{self, Ends};
use vmnet_linux::lane::Handle;
use vmnet_virtio::frontend::{Frontend, Pair, Plan};
use vmnet_virtio::memory::OwnMemory;
use vmnet_virtio::net::Features;
use vmnet_wire::ethernet::Mac;
use vmnet_wire::tcp::{Fields, Flags, Seq};

const RING: u16 = 256;
const BURST: usize = 64;

/// What has been counted.
#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    frames: u64,
    /// Kicks and calls.
    wakes: u64,
}

/// Both guests: one sends, the other receives.
struct Guests<'p> {
    from: &'p mut Pair,
    to: &'p mut Pair,
    header: [u8; 12],
    frame: Vec<u8>,
    tally: Tally,
}

impl<'p> Guests<'p> {
    /// The first sends frames of this length, the second receives.
    fn of([from, to]: &'p mut [Frontend; 2], len: usize) -> Result<Self, Failure> {
        let [from] = from.pairs.as_mut_slice() else {
            return Err("one pair of rings".into());
        };
        let [to] = to.pairs.as_mut_slice() else {
            return Err("one pair of rings".into());
        };
        let (header, frame) = frame(len);
        Ok(Self {
            from,
            to,
            header,
            frame,
            tally: Tally::default(),
        })
    }
}

impl Driver for Guests<'_> {
    fn step(&mut self) -> Result<bool, Failure> {
        let mut worked = 0;
        let transmit = &mut self.from.transmit.driver;
        for _ in 0..BURST {
            let (header, frame) = (&self.header, &self.frame);
            let head = frame.len().min(64);
            // As if a program's bytes were there already.
            let sent = transmit.send_with(frame.len() + header.len(), |buffer| {
                let (to_header, rest) = buffer.split_at(header.len());
                to_header.copy_from(header);
                rest.copy_from(&frame[..head]);
            });
            if sent.is_err() {
                break;
            }
            worked += 1;
        }
        if transmit.flush() {
            self.tally.wakes += 1;
            self.from.transmit.kick()?;
        }
        for _ in 0..BURST {
            match self.to.receive.driver.receive()? {
                Some(got) if got.len == self.frame.len() => self.tally.frames += 1,
                Some(got) => return Err(format!("a frame of {} bytes", got.len).into()),
                None => break,
            }
            worked += 1;
        }
        if self.to.receive.driver.flush() {
            self.tally.wakes += 1;
            self.to.receive.kick()?;
        }
        worked += self.from.transmit.driver.reclaim()?;
        Ok(worked > 0)
    }

    fn sleep(&mut self) -> Result<(), Failure> {
        let (transmit, receive) = (&mut self.from.transmit, &mut self.to.receive);
        let ready = transmit.driver.enable_calls() | receive.driver.enable_calls();
        // When buffers come back, frames have come too.
        if !ready && receive.wait(NAP)? {
            self.tally.wakes += 1;
        }
        transmit.driver.disable_calls();
        receive.driver.disable_calls();
        Ok(())
    }
}

/// A frame of `len` bytes from the first guest to the second, and what is left to do with it.
fn frame(len: usize) -> ([u8; 12], Vec<u8>) {
    let ends = Ends {
        macs: (Mac([2, 0, 0, 0, 0, 10]), Mac([2, 0, 0, 0, 0, 11])),
        ips: ([192, 168, 77, 10].into(), [192, 168, 77, 11].into()),
    };
    if len < 2000 {
        let payload = vec![7; len - 42];
        return ([0; 12], packets::udp(ends, (1, 2), 64, &payload));
    }
    let fields = Fields {
        source_port: 1000,
        destination_port: 2000,
        sequence: Seq(1),
        acknowledgement: Seq(1),
        flags: Flags::ACK,
        window: 1000,
    };
    // TCP over IPv4 in segments of 1460 bytes behind 54, with the sum at byte 16 behind byte 34 left to others.
    let header = [1, 1, 54, 0, 0xb4, 0x05, 34, 0, 16, 0, 0, 0];
    let payload = vec![7; len - 54];
    (header, packets::tcp(ends, &fields, &[], &payload))
}

fn plan(len: usize, packed: bool) -> Result<Plan, Failure> {
    let features = if packed {
        Features::ALL
    } else {
        Features::ALL.without(Features::RING_PACKED)
    };
    let bytes = u32::try_from((len + 12).next_multiple_of(64))?;
    Ok(Plan {
        features,
        ring_size: RING,
        transmit_buffer: bytes,
        receive_buffer: bytes.max(2048),
        ..Plan::new()
    })
}

/// A network and two guests on it, of which each knows where the other is.
fn two_ports(plan: &Plan, scratch: &Path) -> Result<(Handle, [Frontend; 2]), Failure> {
    let handle = network()?;
    let folder = tempfile::tempdir_in(scratch)?;
    let connect = |name: &str| -> Result<Frontend, Failure> {
        let socket = folder.path().join(name);
        attach(&handle, &socket)?;
        Ok(Frontend::connect(UnixStream::connect(socket)?, plan)?)
    };
    let (from, mut to) = (connect("from")?, connect("to")?);
    introduce(&mut to.pairs[0])?;
    Ok((handle, [from, to]))
}

/// Moves so many frames, and does nothing else.
pub(super) fn forward(len: usize, frames: u64, scratch: &Path) -> Result<(), Failure> {
    let (_handle, mut ends) = two_ports(&plan(len, false)?, scratch)?;
    let mut guests = Guests::of(&mut ends, len)?;
    while guests.tally.frames < frames {
        if !guests.step()? {
            std::thread::yield_now();
        }
    }
    Ok(())
}

/// Frames of this length from one port to the other.
pub(super) fn measure(
    len: usize,
    packed: bool,
    time: Duration,
    scratch: &Path,
) -> Result<Values, Failure> {
    let plan = plan(len, packed)?;
    let (_handle, mut ends) = two_ports(&plan, scratch)?;
    let mut guests = Guests::of(&mut ends, len)?;
    guests.run(time / 4)?;
    guests.tally = Tally::default();
    let (before, begun) = (busy()?, Instant::now());
    guests.run(time)?;
    let (elapsed, busy) = (begun.elapsed(), busy()?.saturating_sub(before));
    let tally = guests.tally;
    let frames = tally.frames as f64;
    let plain = plain_copy(len, plan.receive_buffer, time / 4)?;
    let rate = frames / elapsed.as_secs_f64();
    let id = super::rings_id(len, packed);
    let value = if len < 1000 {
        rate / 1e6
    } else {
        rate * len as f64 * 8e-9
    };
    let thread = busy.as_secs_f64() * 1e9 / frames;
    Ok(vec![
        (id.clone(), value),
        (format!("{id}_thread"), thread),
        (format!("{id}_of_copy"), plain * 1e9 / thread),
        (format!("{id}_wakes"), tally.wakes as f64 / frames),
    ])
}

/// Lets the network learn where the second guest is.
fn introduce(pair: &mut Pair) -> Result<(), Failure> {
    let mac = Mac([2, 0, 0, 0, 0, 11]);
    let own = (mac, [192, 168, 77, 11].into());
    let frame = packets::arp_request(mac, own, [192, 168, 77, 12].into());
    pair.transmit.driver.send(&[0; 12], &[&frame])?;
    pair.transmit.flush()?;
    std::thread::sleep(Duration::from_millis(100));
    Ok(())
}

/// For how long the network's thread had a processor.
fn busy() -> Result<Duration, Failure> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let name = std::fs::read_to_string(task.join("comm"))?;
        if name.contains(NAME) {
            return busy_of(&task);
        }
    }
    Err("the network has no thread".into())
}

/// The same of the thread with this folder in `/proc`.
fn busy_of(task: &Path) -> Result<Duration, Failure> {
    let times = std::fs::read_to_string(task.join("schedstat"))?;
    let nanos = times.split_whitespace().next().ok_or("no times")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

/// Seconds of a processor for a copy of `len` bytes from and to as many buffers as rings have.
fn plain_copy(len: usize, buffer: u32, time: Duration) -> Result<f64, Failure> {
    let step = u64::try_from((len + 12).next_multiple_of(64))?;
    let (sources, targets) = (step * u64::from(RING), u64::from(buffer) * u64::from(RING));
    let (mut from, mut to) = (OwnMemory::new(sources)?, OwnMemory::new(targets)?);
    let (Some(source), Some(target)) = (from.take(sources, 1), to.take(targets, 1)) else {
        return Err("no room".into());
    };
    let len = u64::try_from(len)?;
    let mut copies = 0;
    let this = Path::new("/proc/thread-self");
    let mut begun = Duration::ZERO;
    loop {
        for number in 0..u64::from(RING) {
            let piece = from.map().guest(source + number * step, len)?;
            let place = target + number * u64::from(buffer);
            to.map().guest(place, len)?.copy_from_guest(piece);
        }
        copies += u64::from(RING);
        if copies == u64::from(RING) {
            // The first round maps the pages.
            begun = busy_of(this)?;
        } else if copies % 4096 == 0 {
            let spent = busy_of(this)?.saturating_sub(begun);
            if spent >= time {
                let counted = copies - u64::from(RING);
                return Ok(spent.as_secs_f64() / counted as f64);
            }
        }
    }
}
