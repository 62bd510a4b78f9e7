//! Frames from rings in guests' memory.
//!
//! A ring that has frames is looked at in every turn, without being told to, until it is empty; only then its guest is
//! asked for kicks. A frame whose destination has no room now stays in its ring for a moment, with all behind it.

use std::time::{Duration, Instant};

use vmnet_core::{Drop, Frame, HEAD_MIN, PortId, head_wanted};
use vmnet_virtio::net::{Burst, BurstLimits, Frame as GuestFrame, FrameFault, Header};
use vmnet_virtio::ring::RingError;
use vmnet_wire::ethernet::{self, Mac};
use vmnet_wire::offload::{Checksum, Offload};
use vmnet_wire::{segment, unfinished};

use crate::lane::datapath::Lane;
use crate::lane::execute::{Hand, Place};
use crate::lane::following::Following;
use crate::port::body::Body;
use crate::port::{Outgoing, Port, vhost_user};
use crate::slots::Slot;

/// Bytes of each frame that are copied to be looked at: as many as tell where one goes that only passes, and as the headers of TCP
/// by IPv6 have.
const HEAD: usize = 80;
const _: () = assert!(HEAD >= vhost_user::HEAD, "a flow is told by as many");
/// Frames of one ring in its turn, and bytes of them. Of each frame the first lines are fetched before the first is copied, and with more frames, or more of
/// each, those are gone from the processor's nearest cache when their turn comes.
const LIMITS: BurstLimits = BurstLimits {
    frames: 32,
    bytes: 256 << 10,
    head: HEAD,
};
/// A ring that is never kicked is looked at as often.
const UNKICKED: Duration = Duration::from_micros(500);

/// The rings that are looked at.
#[derive(Debug)]
pub(super) struct Rings {
    /// Frames of one ring; made for the first.
    burst: Option<Burst>,
    looked_at: Vec<LookedAt>,
}

/// A ring that is looked at without a kick.
#[derive(Clone, Copy, Debug)]
struct LookedAt {
    port: PortId,
    ring: u8,
    /// Its first frame waits for room at another port.
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    by: PortId,
    since: Instant,
    until: Instant,
}

/// What a look at a ring found.
pub(super) enum Found {
    Nothing,
    Frames,
    /// The next frame waits for this port.
    Stuck(PortId),
}

impl Rings {
    pub(super) fn new() -> Self {
        Self {
            burst: None,
            looked_at: Vec::new(),
        }
    }

    /// From now on, the ring is looked at.
    pub(super) fn look_at(&mut self, port: PortId, ring: u8) {
        let known = |at: &LookedAt| at.port == port && at.ring == ring;
        if !self.looked_at.iter().any(known) {
            self.looked_at.push(LookedAt {
                port,
                ring,
                held: None,
            });
        }
    }

    /// A ring is gone.
    pub(super) fn forget(&mut self, port: PortId, ring: u8) {
        self.looked_at
            .retain(|at| at.port != port || at.ring != ring);
    }

    /// All rings of a port are gone.
    pub(super) fn forget_all(&mut self, port: PortId) {
        self.looked_at.retain(|at| at.port != port);
    }

    /// When a held ring is to be looked at again at the latest.
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        let looks = self.looked_at.iter();
        looks
            .map(|at| at.held.map_or(now + UNKICKED, |held| held.until))
            .min()
    }

    /// Some ring is looked at, and not held.
    pub(super) fn are_looked_at(&self) -> bool {
        self.looked_at.iter().any(|at| at.held.is_none())
    }
}

impl Lane {
    /// A guest has kicked a ring.
    pub(super) fn kick_event(&mut self, slot: Slot, ring: u8) {
        let Some(id) = self.ports.find(slot) else {
            return;
        };
        if let Some(Port::VhostUser(port)) = self.ports.get_mut(id) {
            if port.kicked(ring) {
                self.rings.look_at(id, ring);
            } else {
                // What waits for buffers goes out at the end of the turn.
                self.touch(id);
            }
        }
    }

    /// Takes frames from all rings that are looked at. Answers whether there were any.
    pub(super) fn serve_rings(&mut self) -> bool {
        let mut any = false;
        let mut index = 0;
        while let Some(at) = self.rings.looked_at.get(index).copied() {
            index += 1;
            if at.held.is_some_and(|held| self.still_held(&held)) {
                continue;
            }
            let found = self.receive_from_ring(at.port, at.ring);
            let mut now = LookedAt { held: None, ..at };
            match found {
                Ok(Found::Nothing) => {}
                Ok(Found::Frames) => any = true,
                Ok(Found::Stuck(by)) => {
                    any = true;
                    now.held = self.wait_for(by);
                }
                Err(error) => {
                    self.break_off(at.port, &error);
                    index -= 1;
                    continue;
                }
            }
            if let Some(place) = self.rings.looked_at.get_mut(index - 1) {
                *place = now;
            }
        }
        any
    }

    /// The port has no room yet, and may still be waited for. What was waited is written down when that ends.
    fn still_held(&mut self, held: &Held) -> bool {
        let Some(Port::VhostUser(port)) = self.ports.get_mut(held.by) else {
            return false;
        };
        let waits = port.is_starved() && self.now < held.until;
        if !waits {
            port.waited(self.now.saturating_duration_since(held.since));
        }
        waits
    }

    fn wait_for(&mut self, by: PortId) -> Option<Held> {
        let Some(Port::VhostUser(port)) = self.ports.get_mut(by) else {
            return None;
        };
        let patience = port.patience()?;
        Some(Held {
            by,
            since: self.now,
            until: self.now + patience,
        })
    }

    /// Asks the guests of empty rings for kicks. Answers whether one has frames all the same.
    pub(super) fn arm_rings(&mut self) -> bool {
        let mut more = false;
        let Self { rings, ports, .. } = self;
        rings.looked_at.retain_mut(|at| {
            let Some(Port::VhostUser(port)) = ports.get_mut(at.port) else {
                return false;
            };
            if at.held.is_some() {
                return true;
            }
            let is_kicked = port.kick_fd(at.ring).is_some();
            let Some((from_guest, _)) = port.sending(at.ring) else {
                return false;
            };
            if is_kicked && !from_guest.enable_kicks() {
                return false;
            }
            more |= is_kicked;
            true
        });
        more
    }

    /// A burst from one ring.
    pub(super) fn receive_from_ring(&mut self, id: PortId, index: u8) -> Result<Found, RingError> {
        let mut burst = (self.rings.burst.take()).unwrap_or_else(|| Burst::new(LIMITS));
        let taken = self.take_burst(id, index, &mut burst);
        let found = match taken {
            Ok((0, _)) | Err(_) => Found::Nothing,
            Ok((count, on)) => {
                let (done, stuck) = if on {
                    self.receive_burst(id, index, &burst)
                } else {
                    (count, None)
                };
                self.give_back(id, index, done, count);
                stuck.map_or(Found::Frames, Found::Stuck)
            }
        };
        // The guest may end at any time: its memory is not kept for the next one.
        burst.clear();
        self.rings.burst = Some(burst);
        taken.map(|_| found)
    }

    fn take_burst(
        &mut self,
        id: PortId,
        index: u8,
        burst: &mut Burst,
    ) -> Result<(usize, bool), RingError> {
        let Some(Port::VhostUser(port)) = self.ports.get_mut(id) else {
            return Ok((0, false));
        };
        match port.sending(index) {
            Some((from_guest, on)) => Ok((from_guest.receive(burst)?, on)),
            None => Ok((0, false)),
        }
    }

    /// Gives the network the frames of a burst. Answers how many are done with, and what the next waits for.
    fn receive_burst(&mut self, id: PortId, index: u8, burst: &Burst) -> (usize, Option<PortId>) {
        let mut buffer = std::mem::take(&mut self.frame);
        let gateways = self.network.gateway_macs();
        if let Some(Port::VhostUser(port)) = self.ports.get_mut(id)
            && port.is_spread()
        {
            let frames = burst.iter().flatten();
            frames.for_each(|frame| port.learn(index, frame.head));
        }
        let mut done = 0;
        while let Some(frame) = burst.get(done) {
            let mut behind = 0;
            match frame {
                Ok(frame) => {
                    let to = self.network.pass(self.now, id, frame.head);
                    match to.map_or(0, |to| self.pass_run(to, frame.head, burst, done)) {
                        0 => {
                            let place = (burst, done + 1);
                            behind =
                                self.receive_frame((id, to), &frame, place, &gateways, &mut buffer);
                        }
                        passed => {
                            done += passed;
                            continue;
                        }
                    }
                }
                Err(fault) => self.network.count_drop(cause(fault)),
            }
            // Only a frame that passes may wait, and that is received alone.
            if self.stuck.is_some() {
                break;
            }
            done += 1 + behind;
        }
        self.frame = buffer;
        (done, self.stuck.take())
    }

    /// Gives another guest the frames of a burst that only pass, from number `from` on, which begins with `head`: for as long as
    /// they go the same way, their sender left nothing to others, and there are buffers for them. Answers how many.
    #[inline(always)]
    fn pass_run(&mut self, to: PortId, head: &[u8], burst: &Burst, from: usize) -> usize {
        let network = &self.network;
        let Some(Port::VhostUser(port)) = self.ports.get_mut(to) else {
            return 0;
        };
        let passing = |frame: &GuestFrame<'_>| {
            frame.header.leaves_nothing() && network.passes_too(head, frame.head)
        };
        let run = port.pass(head, burst, from, usize::from(network.mtu()), passing);
        if run.frames > 0 {
            self.moved += run.bytes;
            self.touch(to);
        }
        run.frames
    }

    /// Any frame, and where it goes if that is known. Answers how many of those behind it in the burst were received with it.
    fn receive_frame<'b>(
        &mut self,
        (id, to): (PortId, Option<PortId>),
        frame: &GuestFrame<'b>,
        behind: (&'b Burst, usize),
        gateways: &[Mac],
        buffer: &mut Vec<u8>,
    ) -> usize {
        let arrived = match Arrived::read(frame, to.is_some(), gateways, buffer) {
            Ok(arrived) => arrived,
            Err(cause) => {
                self.network.count_drop(cause);
                return 0;
            }
        };
        self.moved += frame.len;
        if let Some(to) = to {
            self.give(to, &arrived.outgoing(), true);
            return 0;
        }
        let following = self.following(&arrived, frame, behind);
        self.moved += following.bytes;
        self.receive_arrived(id, &arrived, following);
        following.count
    }

    /// The frames behind one in a burst that the NAT takes together with it. Nobody looks at all their bytes: so their sums are left
    /// to others, as the first one's is.
    fn following<'b>(
        &self,
        first: &Arrived<'_>,
        frame: &GuestFrame<'b>,
        behind: (&'b Burst, usize),
    ) -> Following<'b> {
        let (burst, from) = behind;
        if !is_partial(&first.offload) || from >= burst.len() {
            return Following::NONE;
        }
        match self.network.succession(first.head, frame.len) {
            Some(succession) => Following::find(frame, succession, behind, |frame| {
                said(&frame.header, frame.head, frame.len).is_ok_and(|said| is_partial(&said))
            }),
            None => Following::NONE,
        }
    }

    fn receive_arrived(&mut self, id: PortId, frame: &Arrived<'_>, following: Following<'_>) {
        let seen = Frame {
            head: frame.head,
            len: frame.head.len() + frame.rest.len(),
            offload: frame.offload,
            in_pieces: false,
            following: following.bytes,
        };
        self.network.receive(self.now, id, &seen, &mut self.out);
        self.carry_out(Hand {
            head: frame.head,
            rest: frame.rest,
            offload: frame.offload,
            place: Place::Ring,
            following,
        });
    }

    /// Lets a guest have the buffers of the first `done` of `count` frames; the others are received again.
    fn give_back(&mut self, id: PortId, index: u8, done: usize, count: usize) {
        if let Some(Port::VhostUser(port)) = self.ports.get_mut(id) {
            if let Some((from_guest, _)) = port.sending(index) {
                from_guest.complete(done);
                from_guest.rewind(count - done);
            }
            port.publish_sent(index);
        }
    }
}

/// A frame of a guest, as far as it is looked at.
struct Arrived<'a> {
    head: &'a [u8],
    rest: Body<'a>,
    offload: Offload,
}

/// What the guest left to others.
///
/// # Errors
/// Its header says what cannot be.
#[inline]
fn said(header: &Header, head: &[u8], len: usize) -> Result<Offload, Drop> {
    let said = Offload::read(&header.0).map_err(|_| Drop::Malformed)?;
    if (is_partial(&said) || said.segmentation.is_some())
        && !unfinished::is_sound_of(head, len, &said)
    {
        return Err(Drop::Malformed);
    }
    Ok(said)
}

/// The checksum is left to others.
fn is_partial(said: &Offload) -> bool {
    matches!(said.checksum, Checksum::Partial { .. })
}

impl<'a> Arrived<'a> {
    /// Copies to `buffer` what has to be looked at beyond the head: less of what `passes`.
    ///
    /// # Errors
    /// What its sender says of it cannot be.
    fn read<'b>(
        frame: &GuestFrame<'b>,
        passes: bool,
        gateways: &[Mac],
        buffer: &'a mut Vec<u8>,
    ) -> Result<Self, Drop>
    where
        'b: 'a,
    {
        let all = Body::guest(frame.rest, frame.len - frame.head.len());
        buffer.clear();
        // Each byte is read once: the guest may change it.
        let deepen = |buffer: &mut Vec<u8>, wanted: usize| {
            if buffer.is_empty() {
                buffer.extend_from_slice(frame.head);
            }
            let have = buffer.len();
            let more = wanted.saturating_sub(have);
            all.span(have - frame.head.len(), more).append_to(buffer);
        };
        deepen(buffer, frame.len.min(HEAD_MIN));
        let said = said(&frame.header, buffer, frame.len)?;
        let partial = is_partial(&said);
        let is_ours = ethernet::Header::read(buffer)
            .is_some_and(|(header, _)| gateways.contains(&header.destination));
        // A guest's word that its own checksum is right is nothing; of what is not for us it is its receiver's business.
        let is_checked = is_ours && !passes && !partial && said.segmentation.is_none();
        let wanted = if passes {
            0
        } else if is_checked {
            frame.len
        } else {
            head_wanted(buffer, frame.len)
        };
        deepen(buffer, wanted);
        let head = &buffer[..];
        let behind = head.len() - frame.head.len();
        let checksum = match said.checksum {
            Checksum::Partial { .. } => said.checksum,
            _ if !is_checked => Checksum::Unverified,
            _ if segment::verify(head) => Checksum::Valid,
            _ => Checksum::Wrong,
        };
        Ok(Self {
            head,
            rest: all.span(behind, all.len() - behind),
            offload: Offload { checksum, ..said },
        })
    }

    fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            head: self.head,
            body: self.rest,
            offload: self.offload,
        }
    }
}

fn cause(fault: FrameFault) -> Drop {
    match fault {
        FrameFault::Long => Drop::TooLong,
        FrameFault::Chain(_) | FrameFault::Short => Drop::Malformed,
    }
}
