//! The datapath of an interface: two rings in memory that is shared with the service. No system call while both sides are
//! busy, one copy in each direction.
//!
//! Each direction has a lock of its own, so that none waits for the other. There is no thread: whoever reads and writes does
//! the work.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vmnet_virtio::driver::{DeviceError, Receive, SendError, Transmit};
use vmnet_virtio::frontend::{Frontend, FrontendError, Pair, Plan, Queue};
use vmnet_virtio::memory::GuestSlice;
use vmnet_virtio::net::Features;

use super::Statistics;
use super::arriving::Arriving;
use super::drain::Drain;
use super::finish::{Agreed, HEAD, HEADER, header_of};
use super::look::Look;
use super::packet::{PacketBuffers, WritePacket};
use super::parameters::MAX_PACKETS;
use crate::membership::lock;

/// Buffers that a receive ring has: what the interface keeps for a program that does not read.
const RECEIVE: u16 = 4096;
/// The same of an interface with larger frames. They are used in turns, so these are all that a processor's cache has room for;
/// what finds none waits in the service.
const RECEIVE_LARGE: u16 = 256;
/// Buffers to send from, of small and of large frames.
const TRANSMIT: u16 = 1024;
const TRANSMIT_LARGE: u16 = 512;
/// A buffer takes a frame of the usual MTU, with its header. An odd number of cache lines: else all headers would be in the
/// same few sets of the cache.
const BUFFER: u32 = 25 * 64;
/// A buffer of an interface with larger frames, which take several.
const BUFFER_LARGE: u32 = 65 * 64;
/// Bytes that were written and are not taken yet. They were just written and will soon be read: more than this would be in no
/// cache by then.
const UNTAKEN: usize = 384 << 10;
/// How long to sleep for the call at half of them.
const HALF_IN: Duration = Duration::from_millis(5);
/// How long a write waits for room, before it drops as a switch does. The service may have to wait for a processor.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// Rings that the service serves.
#[derive(Debug)]
pub(super) struct Rings {
    /// Readable while there are frames, if it is watched.
    ready: OwnedFd,
    /// Somebody may wait for `ready` at any time.
    watched: AtomicBool,
    /// Threads that wait for it right now.
    waiting: AtomicUsize,
    /// When it is worth to look for packets once more.
    look: Mutex<Look>,
    receiving: Mutex<Receiving>,
    transmitting: Mutex<Transmitting>,
    front: Mutex<Option<Frontend>>,
}

#[derive(Debug)]
struct Receiving {
    /// None: the interface is stopped.
    queue: Option<Queue<Receive>>,
    scratch: Vec<u8>,
    /// How often there was a read.
    reads: u64,
}

#[derive(Debug)]
struct Transmitting {
    queue: Option<Queue<Transmit>>,
    /// The service takes frames, as far as is known: it is worth to wait.
    moves: bool,
    look: Look,
}

/// What of the receive ring tells an event from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// Frames that wait.
    pub(super) waiting: usize,
    /// Where the device stands.
    pub(super) arrived: u16,
    /// How often there was a read.
    pub(super) reads: u64,
}

fn plan(agreed: &Agreed) -> Plan {
    let mut features = Features::VERSION_1
        | Features::EVENT_IDX
        | Features::MRG_RXBUF
        | Features::CSUM
        | Features::HOST_TSO4
        | Features::HOST_TSO6
        | Features::HOST_ECN;
    if agreed.header || agreed.tso || agreed.checksum {
        features = features | Features::GUEST_CSUM;
    }
    if agreed.tso {
        features = features | Features::GUEST_TSO4 | Features::GUEST_TSO6 | Features::GUEST_ECN;
    }
    let largest = agreed.max + HEADER;
    let small = largest <= usize::try_from(BUFFER).unwrap_or(usize::MAX);
    let lines = u32::try_from(largest.div_ceil(64)).unwrap_or(u32::MAX) | 1;
    Plan {
        features,
        queue_pairs: 1,
        ring_size: if small { RECEIVE } else { RECEIVE_LARGE },
        transmit_ring_size: Some(if small { TRANSMIT } else { TRANSMIT_LARGE }),
        transmit_buffer: lines.saturating_mul(64),
        receive_buffer: if small { BUFFER } else { BUFFER_LARGE },
    }
}

impl Rings {
    /// Rings that are served by whoever is at the other end of `stream`.
    ///
    /// # Errors
    /// There is no memory, or the service does not want them.
    pub(super) fn connect(stream: UnixStream, agreed: &Agreed) -> Result<Self, FrontendError> {
        let mut front = Frontend::connect(stream, &plan(agreed))?;
        let Some(Pair {
            mut receive,
            transmit,
        }) = front.pairs.pop()
        else {
            return Err(FrontendError::Queues { wanted: 1, has: 0 });
        };
        // The service gets all buffers at once.
        receive.flush()?;
        Ok(Self {
            ready: receive.call_fd().try_clone_to_owned()?,
            watched: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            look: Mutex::new(Look::new()),
            receiving: Mutex::new(Receiving {
                queue: Some(receive),
                scratch: Vec::new(),
                reads: 0,
            }),
            transmitting: Mutex::new(Transmitting {
                queue: Some(transmit),
                moves: true,
                look: Look::new(),
            }),
            front: Mutex::new(Some(front)),
        })
    }

    /// What hangs up when the service lets go of them.
    pub(super) fn line(&self) -> Option<UnixStream> {
        let front = lock(&self.front);
        front
            .as_ref()
            .and_then(|front| front.stream().try_clone().ok())
    }

    /// Goes on where they stopped, with the service at the other end of `stream`. Meanwhile nothing comes, and what is
    /// written is dropped.
    ///
    /// # Errors
    /// The service does not want them.
    pub(super) fn reconnect(&self, stream: UnixStream) -> Result<(), FrontendError> {
        let mut front = lock(&self.front);
        let Some(front) = front.as_mut() else {
            return Ok(());
        };
        let receive = lock(&self.receiving).queue.take();
        let transmit = lock(&self.transmitting).queue.take();
        let (Some(receive), Some(transmit)) = (receive, transmit) else {
            return Ok(());
        };
        front.pairs.push(Pair { receive, transmit });
        let connected = front.reconnect(stream);
        if let Some(Pair { receive, transmit }) = front.pairs.pop() {
            lock(&self.receiving).queue = Some(receive);
            let mut transmitting = lock(&self.transmitting);
            transmitting.queue = Some(transmit);
            transmitting.moves = true;
        }
        connected
    }

    /// Waits until the service has taken what was written, or does not go on to.
    pub(super) fn drain(&self) {
        let Some(line) = self.line() else { return };
        let mut transmitting = lock(&self.transmitting);
        let Some(queue) = &mut transmitting.queue else {
            return;
        };
        let _told = queue.flush();
        let mut drain = Drain::begin();
        loop {
            match queue.driver.reclaim() {
                Ok(0) => {}
                Ok(_) => drain.moved(),
                Err(_) => return,
            }
            if queue.driver.pending() == 0 {
                return;
            }
            let _taken = queue.clear();
            // What comes back from now on is told.
            if !queue.driver.enable_calls() && !drain.wait(Some(queue.call_fd()), line.as_fd()) {
                return;
            }
        }
    }

    /// Ends them. Memory goes; the descriptor to wait for stays, and is readable.
    pub(super) fn end(&self) {
        let mut front = lock(&self.front);
        let receiving = lock(&self.receiving).queue.take();
        if let Some(queue) = receiving {
            let _woken = queue.call_ourselves();
        }
        lock(&self.transmitting).queue = None;
        *front = None;
    }

    /// Becomes readable when there are frames; from now on.
    pub(super) fn watch(&self) -> BorrowedFd<'_> {
        if !self.watched.load(Ordering::Relaxed) {
            let mut receiving = lock(&self.receiving);
            self.watched.store(true, Ordering::Relaxed);
            if let Some(queue) = &mut receiving.queue {
                begin_to_tell(queue);
            }
        }
        self.ready.as_fd()
    }

    /// Lets `sleep` wait until there are frames, for as long as it likes, with a descriptor that is readable then. Who does
    /// not [`Self::watch`] costs the service no calls while nobody sleeps.
    pub(super) fn sleep(&self, sleep: impl FnOnce(BorrowedFd<'_>)) {
        let look = self.look.try_lock();
        // Others look already.
        if let Ok(mut look) = look
            && look.look(|| Ok::<_, Infallible>(self.has_more())) == Ok(true)
        {
            return;
        }
        {
            let mut receiving = lock(&self.receiving);
            self.waiting.fetch_add(1, Ordering::Relaxed);
            if let Some(queue) = &mut receiving.queue {
                begin_to_tell(queue);
            }
        }
        sleep(self.ready.as_fd());
        let mut receiving = lock(&self.receiving);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(queue) = &mut receiving.queue
            && self.is_told()
        {
            settle(queue);
        }
    }

    fn has_more(&self) -> bool {
        let receiving = lock(&self.receiving);
        let queue = receiving.queue.as_ref();
        queue.is_some_and(|queue| queue.driver.has_more())
    }

    /// The descriptor has to say what there is. Asked with the lock on what is received, under which it changes.
    fn is_told(&self) -> bool {
        self.watched.load(Ordering::Relaxed) || self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(super) fn seen(&self) -> Seen {
        let receiving = lock(&self.receiving);
        let queue = receiving.queue.as_ref();
        queue.map_or_else(Seen::default, |queue| Seen {
            waiting: queue.driver.waiting(),
            arrived: queue.driver.device_base(),
            reads: receiving.reads,
        })
    }

    // ---- reading ---------------------------------------------------------------------------

    pub(super) fn read<P: PacketBuffers + ?Sized>(
        &self,
        packets: &mut P,
        agreed: &Agreed,
        statistics: &Statistics,
    ) -> Result<usize, DeviceError> {
        let mut receiving = lock(&self.receiving);
        let Receiving {
            queue,
            scratch,
            reads,
        } = &mut *receiving;
        let Some(queue) = queue else { return Ok(0) };
        *reads += 1;
        let most = packets.count().min(MAX_PACKETS);
        let mut count = 0;
        while count < most {
            let Some(frame) = queue.driver.receive()? else {
                break;
            };
            if Arriving::of(&frame, agreed, scratch).is_some_and(|arriving| {
                packets.fill(count, |room, to| arriving.put(room, to, statistics))
            }) {
                count += 1;
            } else {
                Statistics::add(&statistics.bad, 1);
            }
        }
        // What the caller sees does not depend on whether the service could be told of free buffers.
        let _told = queue.flush();
        if self.is_told() {
            settle(queue);
        }
        Ok(count)
    }

    // ---- writing ---------------------------------------------------------------------------

    /// Writes packets of which all are known to be right. What finds no room in time is dropped.
    pub(super) fn write<'a>(
        &self,
        packets: impl Iterator<Item = WritePacket<'a>>,
        agreed: &Agreed,
        statistics: &Statistics,
    ) -> Result<(), DeviceError> {
        let mut transmitting = lock(&self.transmitting);
        let Transmitting { queue, moves, look } = &mut *transmitting;
        let Some(queue) = queue else { return Ok(()) };
        let mut until = None;
        for packet in packets {
            loop {
                let sent = if queue.driver.pending_bytes() < UNTAKEN {
                    send(&mut queue.driver, &packet, agreed)
                } else {
                    Err(SendError::Full)
                };
                match sent {
                    Ok(()) => break,
                    Err(SendError::Full) => {
                        if queue.driver.reclaim()? > 0 {
                            *moves = true;
                            continue;
                        }
                        let _told = queue.flush();
                        let patience = if *moves { PATIENCE } else { Duration::ZERO };
                        let until = *until.get_or_insert_with(|| Instant::now() + patience);
                        if !wait_for_room(queue, look, until)? {
                            *moves = false;
                            Statistics::add(&statistics.dropped, 1);
                            break;
                        }
                    }
                    // It was looked at before.
                    Err(SendError::TooLong { .. }) => {
                        Statistics::add(&statistics.dropped, 1);
                        break;
                    }
                }
            }
        }
        let _told = queue.flush();
        // Buffers that were used last are the next: they are in the cache.
        if queue.driver.reclaim()? > 0 {
            *moves = true;
        }
        Ok(())
    }
}

/// Makes the descriptor say what there is, and what comes from now on.
fn begin_to_tell(queue: &mut Queue<Receive>) {
    settle(queue);
    if queue.driver.has_more() {
        // Nobody asked to be told of these.
        let _signalled = queue.call_ourselves();
    }
}

/// Makes the descriptor say what there is: to be called whenever that may have changed, if it is watched.
fn settle(queue: &mut Queue<Receive>) {
    if queue.driver.has_more() {
        // The call that announced them is there, or on its way.
        return;
    }
    let _cleared = queue.clear();
    if queue.driver.enable_calls() {
        let _signalled = queue.call_ourselves();
    }
}

/// Waits until the service has given buffers back; false: not in time.
fn wait_for_room(
    queue: &mut Queue<Transmit>,
    look: &mut Look,
    until: Instant,
) -> Result<bool, DeviceError> {
    if Instant::now() < until && look.look(|| Ok(queue.driver.reclaim()? > 0))? {
        return Ok(true);
    }
    loop {
        if queue.driver.reclaim()? > 0 {
            return Ok(true);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let _taken = queue.clear();
        if queue.driver.enable_calls_at_half() {
            continue;
        }
        // A signal that interrupts is no reason to drop. The service may keep some for longer than the others.
        let _waited = queue.wait(left.min(HALF_IN));
    }
}

/// Copies a packet into a buffer of the ring.
#[inline]
fn send(ring: &mut Transmit, packet: &WritePacket<'_>, agreed: &Agreed) -> Result<(), SendError> {
    if let Some(leaves) = agreed.leaves() {
        let mut head = [0; HEAD];
        let known = gather(packet, &mut head);
        let head = head.get_mut(..known).unwrap_or_default();
        let (header, end) = header_of(head, packet.size, leaves);
        let known = known.min(end);
        return ring.send_with(HEADER + end, |buffer| {
            let (place, rest) = buffer.split_at(HEADER);
            place.copy_from(&header);
            let (place, rest) = rest.split_at(known);
            place.copy_from(head);
            put(rest, packet.buffers, known);
        });
    }
    if agreed.header {
        return ring.send_with(packet.size, |buffer| put(buffer, packet.buffers, 0));
    }
    ring.send_with(HEADER + packet.size, |buffer| {
        let (place, rest) = buffer.split_at(HEADER);
        place.copy_from(&NO_OFFLOAD);
        put(rest, packet.buffers, 0);
    })
}

/// The header of a frame of which nothing was left to others.
pub(super) const NO_OFFLOAD: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// Copies what is behind the first `skip` bytes, until `to` is full.
#[inline]
fn put(mut to: GuestSlice<'_>, from: &[IoSlice<'_>], mut skip: usize) {
    for piece in from {
        let Some(piece) = piece.get(skip..) else {
            skip -= piece.len();
            continue;
        };
        skip = 0;
        let copied = to.copy_from(piece);
        (_, to) = to.split_at(copied);
    }
}

/// Copies the first bytes of a packet: how many.
pub(super) fn gather(packet: &WritePacket<'_>, to: &mut [u8]) -> usize {
    let most = packet.size.min(to.len());
    let mut done = 0;
    for piece in packet.buffers {
        let room = to.get_mut(done..most).unwrap_or_default();
        let len = room.len().min(piece.len());
        if let (Some(room), Some(piece)) = (room.get_mut(..len), piece.get(..len)) {
            room.copy_from_slice(piece);
        }
        done += len;
    }
    done
}

/// A pair of connected sockets, one of them for the service.
pub(super) fn pair() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((ours, theirs.into()))
}
