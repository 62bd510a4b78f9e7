//! A guest's rings in its own memory (vhost-user): frames come and go without a copy of ours.
//!
//! | file | what |
//! | --- | --- |
//! | `passing` | the short way of frames that only pass |
//! | `rings` | rings that begin and end, as the VMM says |
//! | [`spread`] | which pair of rings a flow has |
//! | [`credit`] | how long others wait for a guest without free buffers |
//! | [`backlog`] | frames that wait instead |
//!
//! The port stays when its VMM goes: frames for it are dropped until one comes again. The conversation with the VMM is a
//! thread of its own ([`vmnet_virtio::session`]); here is what moves frames. Nothing here waits.

mod backlog;
mod credit;
mod passing;
mod rings;
mod spread;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use vmnet_core::{Drop, ReadTo};
use vmnet_virtio::memory::GuestWriter;
use vmnet_virtio::net::{Delivery, Features, FromGuest, Header, ToGuest};
use vmnet_virtio::ring::RingError;
use vmnet_wire::ethernet;
use vmnet_wire::offload::{Checksum, Kind, Offload};
use vmnet_wire::segment::Layout;

use crate::lane::PortOffload;
use crate::port::body::Body;
use crate::port::{Flushed, Outgoing, Pieces, software};
use crate::sys::places::Room;
use crate::sys::signal_eventfd;

use backlog::Backlog;
use credit::Credit;
use spread::{Flow, Spread};

pub(crate) use rings::{EndedRings, Signal};
pub(crate) use spread::HEAD;

/// Pairs of rings that a VMM may have.
pub(crate) const QUEUE_PAIRS: u8 = 16;

/// How often a guest that makes buffers available all the time is given more of what waits, in one turn.
const ROUNDS: usize = 8;

const NOTHING_LOST: [(Drop, u32); 2] = [(Drop::TooLong, 0), (Drop::PortAway, 0)];

/// A guest that shares its memory.
#[derive(Debug)]
pub(crate) struct VhostUser {
    /// By their number: even ones lead to the guest.
    rings: Vec<Option<Ring>>,
    /// Pairs whose ring to the guest runs and is switched on.
    open: Vec<u8>,
    features: Features,
    spread: Spread,
    backlog: Backlog,
    /// Large frames wait as they are, if the guest will have room for them.
    keeps_whole: bool,
    credit: Credit,
    /// A pair in which room for a read is reserved, behind so many bytes of headers.
    landing: Option<(u8, usize)>,
    /// Frames that waited and were lost since somebody asked: too long for the guest's buffers, or of a pair that is gone.
    lost: [(Drop, u32); 2],
    /// What ended a ring.
    broken: Option<RingError>,
}

#[derive(Debug)]
struct Ring {
    side: Side,
    kick: Option<OwnedFd>,
    call: Option<OwnedFd>,
    error: Option<OwnedFd>,
    on: bool,
    /// It is or was on. Until then it is left alone.
    was_on: bool,
    /// Something is to be published.
    dirty: bool,
    /// It had no buffers when some were needed.
    starved: bool,
}

#[derive(Debug)]
enum Side {
    To(ToGuest),
    From(FromGuest),
}

/// A frame was not given to the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// It is lost.
    Dropped(Drop),
    /// The guest has no buffers now; the frame may be sent again soon.
    NoRoom,
}

/// What came of the wish to receive into the guest's buffers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Landing {
    /// There is room for a frame with so many bytes of payload.
    Ready(usize),
    /// There will be some when the guest makes buffers available.
    NoRoom,
    /// This guest takes no such frames as they are.
    Unfit,
}

impl VhostUser {
    /// A port whose VMM has not come, or a program's.
    pub(crate) fn new(is_program: bool) -> Self {
        Self {
            rings: Vec::new(),
            open: Vec::new(),
            features: Features::default(),
            spread: Spread::new(),
            backlog: Backlog::of(is_program),
            keeps_whole: is_program,
            credit: Credit::new(),
            landing: None,
            lost: NOTHING_LOST,
            broken: None,
        }
    }

    // ---- to the guest ----------------------------------------------------------------------

    /// Copies a frame into the guest's buffers. If there are none, it waits in a queue; or, if it `may_wait` where it is,
    /// it is refused by [`Refused::NoRoom`] for as long as the guest deserves it.
    ///
    /// # Errors
    /// The frame was not taken.
    pub(crate) fn send(
        &mut self,
        frame: &Outgoing<'_>,
        mtu: usize,
        scratch: &mut Vec<u8>,
        may_wait: bool,
    ) -> Result<(), Refused> {
        if self.open.is_empty() {
            return Err(Refused::Dropped(Drop::PortAway));
        }
        let pair = self.pair_of(frame.head);
        if self.passes(frame, mtu) {
            let header = self.header(frame);
            let pieces = Pieces {
                header: &[],
                head: frame.head,
                body: frame.body,
            };
            let given = self.give(pair, header, &pieces);
            // What does not fit may never do so: large frames wait in pieces.
            let is_large = frame.offload.segmentation.is_some() && !self.will_take_any(pair);
            match given {
                Ok(Delivery::Done) => return Ok(()),
                Ok(Delivery::NoBuffers) if may_wait && self.credit.left().is_some() => {
                    return Err(Refused::NoRoom);
                }
                Ok(_) if is_large => {}
                Ok(Delivery::NoBuffers) => return self.queue(pair, header, &pieces),
                Ok(Delivery::TooLong) => return Err(Refused::Dropped(Drop::TooLong)),
                Err(cause) => return Err(Refused::Dropped(cause)),
            }
        }
        let takes = PortOffload {
            virtio_header: self.features.takes_partial_checksums(),
            ..PortOffload::default()
        };
        software::send(frame, mtu, takes, scratch, &mut |pieces| {
            let header = pieces.header.try_into().map(Header).unwrap_or_default();
            match self.give(pair, header, &pieces)? {
                Delivery::Done => Ok(()),
                Delivery::NoBuffers => self.backlog.push(pair, header, &pieces),
                Delivery::TooLong => Err(Drop::TooLong),
            }
        })
        .map_err(Refused::Dropped)
    }

    fn queue(&mut self, pair: u8, header: Header, pieces: &Pieces<'_>) -> Result<(), Refused> {
        let queued = self.backlog.push(pair, header, pieces);
        queued.map_err(Refused::Dropped)
    }

    /// The guest takes the frame as it is.
    #[inline]
    fn passes(&self, frame: &Outgoing<'_>, mtu: usize) -> bool {
        match frame.offload.segmentation {
            Some(how) => self.features.takes_large(how.kind, how.ecn),
            None => {
                let partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
                !frame.is_too_long(mtu) && (!partial || self.features.takes_partial_checksums())
            }
        }
    }

    #[inline]
    fn header(&self, frame: &Outgoing<'_>) -> Header {
        let headers = match frame.offload.segmentation {
            Some(_) => Layout::find(frame.head, frame.len())
                .map_or(ethernet::Header::LEN, |layout| layout.payload),
            None => 0,
        };
        self.header_for(&frame.offload, headers)
    }

    #[inline]
    fn header_for(&self, offload: &Offload, headers: usize) -> Header {
        let mut header = offload.write(headers);
        if !self.features.takes_partial_checksums() {
            // Then nothing may be said of checksums (virtio 1.2 §5.1.6.4).
            header[0] = 0;
        }
        Header(header)
    }

    #[inline]
    fn pair_of(&self, head: &[u8]) -> u8 {
        match self.open.as_slice() {
            [only] => *only,
            open => self.spread.pair(Flow::of(head), open).unwrap_or(0),
        }
    }

    /// Gives the guest a frame, unless others wait already.
    #[inline]
    fn give(&mut self, pair: u8, header: Header, pieces: &Pieces<'_>) -> Result<Delivery, Drop> {
        if !self.backlog.is_empty() {
            return Ok(Delivery::NoBuffers);
        }
        let (head, body) = (pieces.head, pieces.body);
        let delivery = self.put(pair, header, head.len() + body.len(), |writer| {
            writer.write(head);
            body.write_to(writer);
        });
        match self.broken {
            Some(_) => Err(Drop::PortAway),
            None => Ok(delivery),
        }
    }

    /// Puts a frame into buffers of a ring. After an error, which is noted, there are none.
    #[inline]
    fn put(
        &mut self,
        pair: u8,
        header: Header,
        len: usize,
        write: impl FnOnce(&mut GuestWriter<'_>),
    ) -> Delivery {
        let Some(Ring {
            side,
            dirty,
            starved,
            ..
        }) = ring(&mut self.rings, pair, To)
        else {
            // The pair has gone since the frame was queued.
            return Delivery::TooLong;
        };
        let Side::To(to_guest) = side else {
            return Delivery::TooLong;
        };
        match to_guest.deliver_by(header, len, write) {
            Ok(delivery) => {
                match delivery {
                    Delivery::Done => {
                        *dirty = true;
                        self.credit.earn(1, len);
                    }
                    Delivery::NoBuffers => *starved = true,
                    Delivery::TooLong => {}
                }
                delivery
            }
            Err(error) => {
                self.broken.get_or_insert(error);
                Delivery::NoBuffers
            }
        }
    }

    /// Lets the guest see what it was given, and gives it what waits.
    ///
    /// # Errors
    /// The guest has broken a ring.
    pub(crate) fn flush(&mut self) -> io::Result<Flushed> {
        let mut is_armed = false;
        for _ in 0..ROUNDS {
            self.drain();
            self.publish();
            // Buffers that came meanwhile are told by no kick.
            if !self.arm() {
                is_armed = true;
                break;
            }
        }
        if let Some(error) = self.broken {
            return Err(io::Error::other(error));
        }
        let mut starved = self.rings.iter().flatten().filter(|ring| ring.starved);
        let is_kicked = is_armed && starved.all(|ring| ring.kick.is_some());
        Ok(match !self.backlog.is_empty() || self.is_starved() {
            true if is_kicked => Flushed::Full,
            true => Flushed::Retry,
            false => Flushed::Empty,
        })
    }

    fn drain(&mut self) {
        let mut backlog = std::mem::take(&mut self.backlog);
        while let Some(first) = backlog.first() {
            let put = self.put(first.pair, first.header, first.bytes.len(), |writer| {
                writer.write(first.bytes);
            });
            match put {
                Delivery::Done => {}
                Delivery::NoBuffers => break,
                Delivery::TooLong => {
                    let is_there = ring(&mut self.rings, first.pair, To).is_some();
                    let [(_, too_long), (_, away)] = &mut self.lost;
                    *(if is_there { too_long } else { away }) += 1;
                }
            }
            backlog.done();
        }
        self.backlog = backlog;
    }

    /// How many frames were lost that had waited, by cause, since this was asked last.
    pub(crate) fn take_lost(&mut self) -> [(Drop, u32); 2] {
        std::mem::replace(&mut self.lost, NOTHING_LOST)
    }

    fn publish(&mut self) {
        for ring in self.rings.iter_mut().flatten() {
            if std::mem::take(&mut ring.dirty) {
                let wants_call = match &mut ring.side {
                    Side::To(to_guest) => to_guest.publish(),
                    Side::From(from_guest) => from_guest.publish(),
                };
                if wants_call {
                    notify(ring.call.as_ref());
                }
            }
        }
    }

    /// Asks for a kick when there are buffers again. True: there are some already.
    fn arm(&mut self) -> bool {
        let mut more = false;
        for ring in self.rings.iter_mut().flatten() {
            if let Ring {
                side: Side::To(to_guest),
                starved,
                ..
            } = ring
                && *starved
                && to_guest.enable_kicks()
            {
                to_guest.disable_kicks();
                *starved = false;
                more = true;
            }
        }
        more
    }

    /// The guest has no buffers where some were needed.
    pub(crate) fn is_starved(&self) -> bool {
        let mut rings = self.rings.iter().flatten();
        rings.any(|ring| ring.starved)
    }

    /// How long a frame may wait for this guest.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.credit.left()
    }

    /// A frame has waited for this guest.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.credit.spend(time);
    }

    // ---- received into the guest's buffers -------------------------------------------------

    /// Makes room for a frame with up to `max` bytes of payload behind headers of `to`.
    pub(crate) fn make_room(&mut self, to: &ReadTo, max: usize) -> Landing {
        self.landing = None;
        let [guest, _] = to.flow;
        let kind = if guest.is_ipv4() {
            Kind::Tcp4
        } else {
            Kind::Tcp6
        };
        if !self.features.takes_large(kind, false) || !self.backlog.is_empty() {
            return Landing::Unfit;
        }
        let pair = match self.open.as_slice() {
            [only] => Some(*only),
            open => self.spread.pair(Flow::between(to.flow), open),
        };
        let Some(pair) = pair else {
            return Landing::Unfit;
        };
        let Some(Ring {
            side: Side::To(to_guest),
            starved,
            ..
        }) = ring(&mut self.rings, pair, To)
        else {
            return Landing::Unfit;
        };
        // A guest may have little room, or never as much as this.
        for payload in [max, max / 4, max.min(1400)] {
            match to_guest.reserve(to.headers + payload) {
                Ok(Delivery::Done) => {
                    self.landing = Some((pair, to.headers));
                    return Landing::Ready(payload);
                }
                Ok(Delivery::NoBuffers) => {}
                Ok(Delivery::TooLong) => return Landing::Unfit,
                Err(error) => {
                    self.broken.get_or_insert(error);
                    return Landing::Unfit;
                }
            }
        }
        *starved = true;
        Landing::NoRoom
    }

    /// The places for `max` bytes of the payload for which room was made.
    pub(crate) fn room(&mut self, max: usize) -> Option<Room<'_>> {
        let (pair, headers) = self.landing?;
        let Some(Ring {
            side: Side::To(to_guest),
            ..
        }) = ring(&mut self.rings, pair, To)
        else {
            return None;
        };
        let mut room = Room::new();
        let mut left = max;
        for slice in to_guest.space(headers) {
            let (meant, _) = slice.split_at(left);
            left -= meant.len();
            room.push(meant);
        }
        (room.is_whole() && left == 0).then_some(room)
    }

    /// The guest gets what was received into its buffers: `len` bytes behind `headers`.
    pub(crate) fn commit(&mut self, headers: &[u8], len: usize, offload: &Offload) {
        let header = self.header_for(offload, headers.len());
        let Some((pair, expected)) = self.landing.take() else {
            return;
        };
        if let Some(Ring {
            side: Side::To(to_guest),
            dirty,
            call,
            ..
        }) = ring(&mut self.rings, pair, To)
        {
            if headers.len() != expected {
                // The payload lies elsewhere than the headers end. It will be sent again.
                return to_guest.cancel();
            }
            to_guest.commit(header, headers, headers.len() + len);
            *dirty = true;
            self.credit.earn(1, len);
            // Not only when the turn ends: the guest works while the other half is filled.
            if to_guest.has_given_half() {
                *dirty = false;
                if to_guest.publish() {
                    notify(call.as_ref());
                }
            }
        }
    }

    /// Room that was made is not needed.
    pub(crate) fn give_up_room(&mut self) {
        if let Some((pair, _)) = self.landing.take()
            && let Some(Ring {
                side: Side::To(to_guest),
                ..
            }) = ring(&mut self.rings, pair, To)
        {
            to_guest.cancel();
        }
    }

    // ---- from the guest --------------------------------------------------------------------

    /// The ring of this number by which the guest sends, and whether it is switched on. None: it never was.
    pub(crate) fn sending(&mut self, index: u8) -> Option<(&mut FromGuest, bool)> {
        match self.rings.get_mut(usize::from(index)) {
            Some(Some(Ring {
                side: Side::From(from_guest),
                on,
                was_on: true,
                ..
            })) => Some((from_guest, *on)),
            _ => None,
        }
    }

    /// Frames of a ring were completed or put back: the guest may see it.
    pub(crate) fn publish_sent(&mut self, index: u8) {
        if let Some(Some(ring)) = self.rings.get_mut(usize::from(index))
            && let Side::From(from_guest) = &mut ring.side
            && from_guest.publish()
        {
            notify(ring.call.as_ref());
        }
    }

    /// There are pairs to choose from.
    pub(crate) fn is_spread(&self) -> bool {
        self.open.len() > 1
    }

    /// A frame that begins so came by a ring: answers take the same pair.
    pub(crate) fn learn(&mut self, index: u8, head: &[u8]) {
        self.spread.learn(Flow::of(head), index / 2);
    }
}

/// Which ring of a pair.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    To,
    From,
}
use Direction::To;

#[inline(always)]
fn ring(rings: &mut [Option<Ring>], pair: u8, direction: Direction) -> Option<&mut Ring> {
    let odd = usize::from(direction == Direction::From);
    rings.get_mut(usize::from(pair) * 2 + odd)?.as_mut()
}

/// Wakes whoever waits for this eventfd, and never waits itself, whatever the VMM does with the descriptor.
fn notify(fd: Option<&OwnedFd>) {
    if let Some(fd) = fd
        && let Err(error) = signal_eventfd::signal(fd.as_fd())
    {
        tracing::debug!(%error, "a guest cannot be called");
    }
}

impl Body<'_> {
    /// Writes all bytes into a guest's buffers.
    fn write_to(&self, writer: &mut GuestWriter<'_>) {
        if self.is_empty() {
            return;
        }
        writer.write(self.near());
        for slice in self.far() {
            writer.write_guest(slice);
        }
    }
}
