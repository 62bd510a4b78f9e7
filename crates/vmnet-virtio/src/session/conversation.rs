//! What each message means (vhost-user, "Front-end message types"), and what it changes for whoever moves frames.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::Offer;
use super::change::{Answer, Change};
use super::error::{MessageFault, Request, SessionError};
use super::eventfd;
use super::message::Message;
use super::protocol::{
    CONFIGURE_MEM_SLOTS, MQ, NET_MTU, PROTOCOL_FEATURES, REPLY_ACK, RESET_DEVICE,
};
use super::rings::Setup;
use super::socket::joined;
use crate::memory::{MapError, MemoryMap};
use crate::net::Features;
use crate::ring::SIZE_MAX;

/// The least MTU of IPv4.
const MTU_MIN: u64 = 68;

/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a session that waits looks if it is to end.
const LOOK: Duration = Duration::from_millis(10);

/// What an answer to a message is.
enum Done {
    /// The message asks for this.
    Value(u64),
    /// It was done. The VMM hears so if it asked.
    Well,
    /// It was not done, and the VMM hears so if it asked. The session goes on.
    Refused,
}

/// One session, from its first message to its last.
pub(super) struct Conversation<C> {
    stream: UnixStream,
    offer: Offer,
    changes: C,
    /// Somebody wants this to end.
    ending: Arc<AtomicBool>,
    /// What the VMM accepted; none: it has not yet.
    features: Option<Features>,
    /// It accepted that the protocol has features too, and that rings are switched on.
    switched: bool,
    /// The same of the protocol's.
    protocol: u64,
    memory: Arc<MemoryMap>,
    rings: Box<[Setup]>,
}

impl<C: FnMut(Change)> Conversation<C> {
    pub(super) fn new(
        stream: UnixStream,
        offer: Offer,
        ending: Arc<AtomicBool>,
        changes: C,
    ) -> Self {
        let rings = offer.rings();
        Self {
            stream,
            changes,
            ending,
            features: None,
            switched: false,
            protocol: 0,
            memory: Arc::default(),
            rings: (0..rings).map(|_| Setup::default()).collect(),
            offer,
        }
    }

    /// Speaks until the VMM has enough, or there is no going on with it.
    pub(super) fn run(mut self) {
        let end = self.listen();
        // The VMM is to know at once, not when somebody drops the session.
        let _ = self.stream.shutdown(Shutdown::Both);
        if !self.ending.load(Ordering::Relaxed) {
            (self.changes)(Change::Ended(end));
        }
    }

    fn listen(&mut self) -> Result<(), SessionError> {
        while let Some(mut message) = Message::read(&self.stream)? {
            let done = self.hear(&mut message);
            let wants_reply = message.need_reply && self.protocol & REPLY_ACK != 0;
            match &done {
                Ok(Done::Value(value)) => message.reply(&self.stream, &[*value])?,
                Ok(Done::Well) if wants_reply => message.reply(&self.stream, &[0])?,
                Ok(Done::Refused) if wants_reply => message.reply(&self.stream, &[1])?,
                // That it failed is known; that the VMM cannot be told says nothing more.
                Err(_) if wants_reply => message.reply(&self.stream, &[1]).unwrap_or_default(),
                Ok(Done::Well | Done::Refused) | Err(_) => {}
            }
            done?;
        }
        Ok(())
    }

    /// Does what the message says.
    fn hear(&mut self, message: &mut Message) -> Result<Done, SessionError> {
        match message.request {
            Request::GET_FEATURES => {
                message.nothing()?;
                return Ok(Done::Value(self.offer.features.0 | PROTOCOL_FEATURES));
            }
            Request::SET_FEATURES => self.set_features(message)?,
            Request::GET_PROTOCOL_FEATURES => {
                message.nothing()?;
                return Ok(Done::Value(self.protocol_offer()));
            }
            Request::SET_PROTOCOL_FEATURES => {
                let accepted = message.number()?;
                match accepted & !self.protocol_offer() {
                    0 => self.protocol = accepted,
                    more => return Err(SessionError::ProtocolFeatures(more)),
                }
            }
            // There is one VMM for one connection, so there is nothing to own.
            Request::SET_OWNER => message.nothing()?,
            // What is left of it in the specification: rings are switched off.
            Request::RESET_OWNER => {
                message.nothing()?;
                for index in 0..self.offer.rings() {
                    self.enable(index.into(), false)?;
                }
            }
            Request::RESET_DEVICE => {
                message.nothing()?;
                self.needs(message, RESET_DEVICE)?;
                self.reset()?;
            }
            Request::GET_QUEUE_NUM => {
                message.nothing()?;
                self.needs(message, MQ)?;
                return Ok(Done::Value(self.offer.rings().into()));
            }
            Request::NET_SET_MTU => {
                let mtu = message.number()?;
                self.needs(message, NET_MTU)?;
                let most = u64::from(self.offer.mtu.unwrap_or(0));
                if !(MTU_MIN..=most).contains(&mtu) {
                    return Ok(Done::Refused);
                }
            }
            Request::SET_MEM_TABLE => {
                let regions = message.regions()?;
                self.remap(MemoryMap::with_unsealed(regions, self.offer.unsealed)?)?;
            }
            Request::GET_MAX_MEM_SLOTS => {
                message.nothing()?;
                self.needs(message, CONFIGURE_MEM_SLOTS)?;
                let most = crate::memory::map::REGIONS_MAX;
                return Ok(Done::Value(u64::try_from(most).unwrap_or(0)));
            }
            Request::ADD_MEM_REG => {
                let source = message.added_region()?;
                self.needs(message, CONFIGURE_MEM_SLOTS)?;
                self.remap(self.memory.with(source)?)?;
            }
            Request::REM_MEM_REG => {
                let region = message.removed_region()?;
                self.needs(message, CONFIGURE_MEM_SLOTS)?;
                let (guest, user) = (region.guest_addr, region.user_addr);
                match self.memory.without(guest, user, region.size) {
                    Ok(map) => self.remap(map)?,
                    // QEMU 7 says each of these once for every pair of rings.
                    Err(MapError::Unknown { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            _ => return self.hear_of_ring(message),
        }
        Ok(Done::Well)
    }

    /// The same for messages about one ring.
    fn hear_of_ring(&mut self, message: &mut Message) -> Result<Done, SessionError> {
        match message.request {
            Request::SET_VRING_NUM => {
                let (index, size) = message.state()?;
                let Ok(size @ 1..=SIZE_MAX) = u16::try_from(size) else {
                    return Err(message.wrong(MessageFault::Size(size)));
                };
                let ring = self.ring(message, index)?;
                if ring.running && ring.size != Some(size) {
                    return Err(message.wrong(MessageFault::Running));
                }
                ring.size = Some(size);
            }
            Request::SET_VRING_ADDR => {
                let addresses = message.addresses()?;
                let ring = self.ring(message, addresses.index)?;
                if ring.running && ring.addresses != Some(addresses) {
                    return Err(message.wrong(MessageFault::Running));
                }
                ring.addresses = Some(addresses);
            }
            Request::SET_VRING_BASE => {
                let (index, base) = message.state()?;
                let ring = self.ring(message, index)?;
                if ring.running {
                    return Err(message.wrong(MessageFault::Running));
                }
                ring.base = base;
            }
            Request::GET_VRING_BASE => {
                let (index, _) = message.state()?;
                let base = self.stop(message, index)?;
                return Ok(Done::Value(joined(index, base)));
            }
            Request::SET_VRING_KICK => {
                let (index, fd) = self.ring_fd(message)?;
                if self.ring(message, index.into())?.running {
                    self.change(|done| Change::Kick { index, fd, done })?;
                } else {
                    self.ring(message, index.into())?.kick = Some(fd);
                }
            }
            Request::SET_VRING_CALL => {
                let (index, fd) = self.ring_fd(message)?;
                if self.ring(message, index.into())?.running {
                    self.change(|done| Change::Call { index, fd, done })?;
                } else {
                    self.ring(message, index.into())?.call = fd;
                }
            }
            Request::SET_VRING_ERR => {
                let (index, fd) = self.ring_fd(message)?;
                if self.ring(message, index.into())?.running {
                    self.change(|done| Change::Error { index, fd, done })?;
                } else {
                    self.ring(message, index.into())?.error = fd;
                }
            }
            Request::SET_VRING_ENABLE => {
                let (index, on) = message.state()?;
                self.ring(message, index)?;
                // QEMU says it before it says what was accepted, and some who did not accept it say it all the same.
                match on {
                    0 | 1 => self.enable(index, on == 1)?,
                    _ => return Err(message.wrong(MessageFault::Malformed)),
                }
            }
            // Never offered: logs of what is written, endianness of old machines, IOTLB, configuration (which
            // VMMs have themselves), other kinds of devices, device state, and calls by messages.
            _ => return Err(message.wrong(MessageFault::NotNegotiated)),
        }
        self.start_rings()?;
        Ok(Done::Well)
    }

    /// The ring of that number.
    fn ring(&mut self, message: &Message, index: u32) -> Result<&mut Setup, SessionError> {
        let rings = self.offer.rings();
        let found = usize::try_from(index)
            .ok()
            .and_then(|at| self.rings.get_mut(at));
        found.ok_or_else(|| message.wrong(MessageFault::NoSuchRing { index, rings }))
    }

    /// A message with a ring's number and its descriptor.
    fn ring_fd(&mut self, message: &mut Message) -> Result<(u16, Option<OwnedFd>), SessionError> {
        let (index, fd) = message.ring_fd()?;
        self.ring(message, index)?;
        if let Some(fd) = &fd
            && !eventfd::make_nonblocking(fd)
        {
            return Err(message.wrong(MessageFault::NotEventFd));
        }
        Ok((u16::try_from(index).unwrap_or(u16::MAX), fd))
    }

    fn protocol_offer(&self) -> u64 {
        let mtu = if self.offer.mtu.is_some() { NET_MTU } else { 0 };
        MQ | REPLY_ACK | RESET_DEVICE | CONFIGURE_MEM_SLOTS | mtu
    }

    fn needs(&self, message: &Message, feature: u64) -> Result<(), SessionError> {
        match self.protocol & feature {
            0 => Err(message.wrong(MessageFault::NotNegotiated)),
            _ => Ok(()),
        }
    }

    fn set_features(&mut self, message: &Message) -> Result<(), SessionError> {
        let accepted = message.number()?;
        let features = self.offer.features.accept(accepted & !PROTOCOL_FEATURES)?;
        let switched = accepted & PROTOCOL_FEATURES != 0;
        if self.features == Some(features) && self.switched == switched {
            return Ok(());
        }
        if self.rings.iter().any(|ring| ring.running) {
            return Err(message.wrong(MessageFault::Running));
        }
        self.switched = switched;
        if !switched {
            for ring in &mut self.rings {
                ring.enabled = true;
            }
        }
        self.features = Some(features);
        self.change(|done| Change::Negotiated { features, done })?;
        self.start_rings()
    }

    /// Starts the rings about which all is known now.
    fn start_rings(&mut self) -> Result<(), SessionError> {
        let Some(features) = self.features.filter(|_| !self.memory.is_empty()) else {
            return Ok(());
        };
        for index in 0..self.offer.rings() {
            let Some(setup) = self.rings.get_mut(usize::from(index)) else {
                continue;
            };
            if let Some(ring) = setup.start(index, &self.memory, features) {
                let started = self.change(|done| Change::Start { ring, done })?;
                started.map_err(|source| SessionError::Ring {
                    index: Some(index),
                    source,
                })?;
            }
        }
        Ok(())
    }

    fn enable(&mut self, index: u32, on: bool) -> Result<(), SessionError> {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let (Some(ring), Ok(index)) = (self.rings.get_mut(at), u16::try_from(index)) else {
            return Ok(());
        };
        let told = ring.running && ring.enabled != on;
        ring.enabled = on;
        if told {
            self.change(|done| Change::Enable { index, on, done })?;
        }
        Ok(())
    }

    /// Ends a ring, and says where the next one is to begin.
    fn stop(&mut self, message: &Message, index: u32) -> Result<u32, SessionError> {
        let ring = self.ring(message, index)?;
        let mut at = ring.base;
        if ring.running {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            at = self.change(|base| Change::Stop { index, base })?;
        }
        self.ring(message, index)?.stop(at);
        Ok(at)
    }

    fn reset(&mut self) -> Result<(), SessionError> {
        self.change(|done| Change::Reset { done })?;
        for ring in &mut self.rings {
            *ring = Setup {
                enabled: !self.switched,
                ..Setup::default()
            };
        }
        Ok(())
    }

    /// From now on the guest's memory is this.
    fn remap(&mut self, map: MemoryMap) -> Result<(), SessionError> {
        // Kept until nobody else has it: whoever moves frames is not to be the one who unmaps it, which takes long.
        let _old = std::mem::replace(&mut self.memory, Arc::new(map));
        if self.rings.iter().any(|ring| ring.running) {
            let map = Arc::clone(&self.memory);
            let remapped = self.change(|done| Change::Memory { map, done })?;
            remapped.map_err(|source| SessionError::Ring {
                index: None,
                source,
            })?;
        }
        self.start_rings()
    }

    /// Tells of a change, and waits until it is made.
    fn change<T>(&mut self, change: impl FnOnce(Answer<T>) -> Change) -> Result<T, SessionError> {
        let (sender, receiver) = sync_channel(1);
        (self.changes)(change(Answer(sender)));
        let mut waited = Duration::ZERO;
        while waited < PATIENCE && !self.ending.load(Ordering::Relaxed) {
            match receiver.recv_timeout(LOOK) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(SessionError::Gone),
                Err(RecvTimeoutError::Timeout) => waited = waited.saturating_add(LOOK),
            }
        }
        Err(SessionError::Late(waited.as_secs()))
    }
}
