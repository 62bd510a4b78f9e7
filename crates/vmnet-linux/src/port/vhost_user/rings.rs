//! Rings that begin and end, as the VMM says.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use vmnet_virtio::memory::MemoryMap;
use vmnet_virtio::net::{Features, FromGuest, ToGuest};
use vmnet_virtio::ring::StartError;
use vmnet_virtio::session::RingStart;

use super::{Ring, Side, VhostUser, notify};

/// A ring of as many buffers has room for any frame at once, if it is empty and frames may take several.
const ROOM_FOR_ANY: u16 = 256;

/// Which of a ring's descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    /// Calls the guest.
    Call,
    /// Tells the VMM that the ring is broken.
    Error,
}

/// Rings that have ended. They may be the last that keep a guest's memory mapped, and letting go of that takes long.
#[derive(Debug, Default)]
pub(crate) struct EndedRings(Vec<Option<Ring>>);

impl EndedRings {
    /// The descriptors that they were kicked by.
    pub(crate) fn kicks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().flatten().filter_map(Ring::kick_fd)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().flatten().next().is_none()
    }
}

impl VhostUser {
    /// What the guest takes from now on.
    pub(crate) fn negotiated(&mut self, features: Features) {
        self.features = features;
    }

    /// Serves a ring.
    ///
    /// # Errors
    /// It is not where the VMM said.
    pub(crate) fn start(&mut self, start: RingStart) -> Result<(), StartError> {
        let features = start.features;
        let side = if start.index.is_multiple_of(2) {
            let mut to_guest = ToGuest::start(start.memory, start.config, features)?;
            to_guest.disable_kicks();
            Side::To(to_guest)
        } else {
            Side::From(FromGuest::start(start.memory, start.config, features)?)
        };
        self.features = features;
        let index = usize::from(start.index);
        if self.rings.len() <= index {
            self.rings.resize_with(index + 1, || None);
        }
        let ring = Ring {
            side,
            kick: start.kick,
            call: start.call,
            error: start.error,
            on: start.enabled,
            was_on: start.enabled,
            // Whoever served it before may have published and not called.
            dirty: true,
            starved: false,
        };
        if let Some(place) = self.rings.get_mut(index) {
            *place = Some(ring);
        }
        self.count_open();
        Ok(())
    }

    pub(crate) fn enable(&mut self, index: u16, on: bool) {
        if let Some(ring) = self.ring(index) {
            ring.on = on;
            ring.was_on |= on;
            ring.starved = false;
        }
        self.count_open();
    }

    /// Another descriptor to call by, or to tell an end by.
    pub(crate) fn set_signal(&mut self, index: u16, which: Signal, fd: Option<OwnedFd>) {
        if let Some(ring) = self.ring(index) {
            match which {
                Signal::Call => {
                    ring.call = fd;
                    // A call by the old one may have gone nowhere.
                    notify(ring.call.as_ref());
                }
                Signal::Error => ring.error = fd,
            }
        }
    }

    /// Another descriptor to be kicked by; the old one is answered.
    pub(crate) fn set_kick(&mut self, index: u16, fd: Option<OwnedFd>) -> Option<OwnedFd> {
        let ring = self.ring(index)?;
        std::mem::replace(&mut ring.kick, fd)
    }

    /// What a ring is kicked by.
    pub(crate) fn kick_fd(&self, index: u8) -> Option<BorrowedFd<'_>> {
        self.rings.get(usize::from(index))?.as_ref()?.kick_fd()
    }

    /// The guest's memory is another.
    ///
    /// # Errors
    /// A ring is not in it.
    pub(crate) fn remap(&mut self, map: &Arc<MemoryMap>) -> Result<(), StartError> {
        self.give_up_room();
        for ring in self.rings.iter_mut().flatten() {
            match &mut ring.side {
                Side::To(to_guest) => to_guest.remap(Arc::clone(map))?,
                Side::From(from_guest) => from_guest.remap(Arc::clone(map))?,
            }
        }
        Ok(())
    }

    /// The guest has room for any frame when it has taken those before it.
    pub(super) fn will_take_any(&self, pair: u8) -> bool {
        let ring = self
            .rings
            .get(usize::from(pair) * 2)
            .and_then(Option::as_ref);
        self.keeps_whole
            && self.features.contains(Features::MRG_RXBUF)
            && ring.is_some_and(|ring| match &ring.side {
                Side::To(to_guest) => to_guest.ring().config().size >= ROOM_FOR_ANY,
                Side::From(_) => false,
            })
    }

    /// Ends a ring; where another device would go on, and the descriptor by which it was kicked.
    pub(crate) fn stop(&mut self, index: u16) -> (u32, Option<OwnedFd>) {
        self.give_up_room();
        let ring = self.rings.get_mut(usize::from(index));
        let Some(mut ring) = ring.and_then(Option::take) else {
            return (0, None);
        };
        let base = match &mut ring.side {
            Side::To(to_guest) => to_guest.base(),
            Side::From(from_guest) => from_guest.base(),
        };
        self.count_open();
        (base, ring.kick)
    }

    /// Ends all rings, and tells the VMM if that is because one is broken.
    pub(crate) fn clear(&mut self) -> EndedRings {
        self.landing = None;
        let broken = self.broken.take().is_some();
        let rings = std::mem::take(&mut self.rings);
        self.count_open();
        if broken {
            for ring in rings.iter().flatten() {
                notify(ring.error.as_ref());
            }
        }
        EndedRings(rings)
    }

    /// The guest made buffers available in a ring. True: it is one by which it sends, and may be looked at.
    pub(crate) fn kicked(&mut self, index: u8) -> bool {
        match self.ring(index.into()) {
            Some(Ring { was_on: false, .. }) => false,
            Some(Ring {
                side: Side::From(from_guest),
                ..
            }) => {
                from_guest.disable_kicks();
                true
            }
            Some(Ring {
                side: Side::To(to_guest),
                starved,
                ..
            }) => {
                to_guest.disable_kicks();
                *starved = false;
                false
            }
            None => false,
        }
    }

    fn ring(&mut self, index: u16) -> Option<&mut Ring> {
        self.rings.get_mut(usize::from(index))?.as_mut()
    }

    fn count_open(&mut self) {
        self.open.clear();
        for (index, ring) in (0..).zip(&self.rings) {
            if let Some(Ring {
                side: Side::To(_),
                on: true,
                ..
            }) = ring
            {
                self.open.push(index / 2);
            }
        }
        if self.open.is_empty() {
            self.backlog.clear();
        }
    }
}

impl Ring {
    fn kick_fd(&self) -> Option<BorrowedFd<'_>> {
        self.kick.as_ref().map(|fd| fd.as_fd())
    }
}
