//! The VMM's side of vhost-user: rings in memory of our own, and a device behind a socket that serves them.
//!
//! | file | what |
//! | --- | --- |
//! | `control` | messages to the device, and its answers |
//! | [`queue`] | one ring with the eventfds to wake each other by |
//!
//! [`Frontend::connect`] negotiates, shares one sealed memfd with the device, and starts the rings; then
//! [`Frontend::pairs`] send and receive frames, each pair in a thread of its own if need be. When the device has closed
//! the connection, [`Frontend::reconnect`] lets the next one go on where that one stopped: nothing that was
//! offered and not given back is lost.
//!
//! Not here: memory of somebody else (a guest's), more than one region, migration, and a configuration space: the MAC
//! address and the MTU are agreed upon elsewhere.

mod control;
pub mod queue;

pub use queue::{Pair, Queue};

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use self::control::Control;
use crate::driver::{MakeError, Receive, Shape, Transmit};
use crate::memory::{MapError, OwnMemory, RegionSource};
use crate::net::Features;
use crate::ring::RingConfig;
use crate::session::Request;
use crate::session::protocol::{MQ, PROTOCOL_FEATURES, REPLY_ACK};

/// What to ask of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What to accept, if it is offered. [`Features::VERSION_1`] must be.
    pub features: Features,
    /// Pairs of rings.
    pub queue_pairs: u8,
    /// Descriptors of each ring that receives, which are as many buffers.
    pub ring_size: u16,
    /// The same of each ring that transmits; none: as many.
    pub transmit_ring_size: Option<u16>,
    /// Bytes of a buffer to send from, header included: what a frame can have at most.
    pub transmit_buffer: u32,
    /// Bytes of a buffer to receive into, likewise. With [`Features::MRG_RXBUF`] a frame may take several.
    pub receive_buffer: u32,
}

impl Plan {
    /// One pair of 256 descriptors, large frames both ways.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            features: Features::ALL.without(Features::RING_PACKED),
            queue_pairs: 1,
            ring_size: 256,
            transmit_ring_size: None,
            transmit_buffer: 65_562,
            receive_buffer: 4096,
        }
    }

    fn shape(&self, features: Features, size: u16) -> Shape {
        Shape {
            size,
            packed: features.contains(Features::RING_PACKED),
            event_idx: features.contains(Features::EVENT_IDX),
            // Each frame is in one buffer, so a table would have one entry.
            indirect: 0,
        }
    }

    fn transmit_size(&self) -> u16 {
        self.transmit_ring_size.unwrap_or(self.ring_size)
    }

    /// Bytes of all rings and buffers.
    fn memory(&self) -> u64 {
        /// For the gaps that alignment leaves, in a pair.
        const GAPS: u64 = 4 * 4096;
        let (transmit, receive) = (
            u64::from(self.transmit_buffer),
            u64::from(self.receive_buffer),
        );
        // A descriptor has 16 bytes, and a split ring's entries for it 2 and 8.
        let ring = |buffer: u64, size: u16| buffer.saturating_add(26).saturating_mul(size.into());
        let pair = ring(receive, self.ring_size)
            .saturating_add(ring(transmit, self.transmit_size()))
            .saturating_add(GAPS);
        pair.saturating_mul(self.queue_pairs.into())
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

/// There is no connection to a device, or none any more.
#[derive(Debug, thiserror::Error)]
pub enum FrontendError {
    /// It has ended.
    #[error("the device closed the connection after {0}; its log says why")]
    Closed(Request),
    /// It says no.
    #[error("the device refused {0}; its log says why")]
    Refused(Request),
    /// It says what nobody asked.
    #[error("the device answered {0} with something else")]
    Answer(Request),
    /// It says nothing.
    #[error("the device did not answer {0} for {1} seconds")]
    Late(Request, u64),
    /// It is an old device, or none for a network.
    #[error("the device lacks features without which there is no going on: {0:#x}")]
    Features(u64),
    /// It has fewer queues.
    #[error("the device has {has} queues, and {wanted} are wanted")]
    Queues {
        /// Asked for.
        wanted: u64,
        /// There are.
        has: u64,
    },
    /// It returned with fewer features.
    #[error(
        "the device no longer offers what was accepted before: {0:#x}; connect to it as to a new one"
    )]
    Changed(u64),
    /// Memory for the rings could not be had.
    #[error("memory for the rings could not be made")]
    Memory(#[from] MapError),
    /// The rings could not be made.
    #[error(transparent)]
    Rings(#[from] MakeError),
    /// The socket or an eventfd failed.
    #[error("the connection to the device failed")]
    Socket(#[from] io::Error),
}

/// A connection to a device, and the rings that it serves.
#[derive(Debug)]
pub struct Frontend {
    /// The rings. They may be moved out to threads, and must be back for [`Self::reconnect`].
    pub pairs: Vec<Pair>,
    control: Control,
    features: Features,
    memory: OwnMemory,
}

impl Frontend {
    /// Makes rings, and lets the device at the other end of `stream` serve them.
    ///
    /// # Errors
    /// The device refuses, lacks something, or is none.
    pub fn connect(stream: UnixStream, plan: &Plan) -> Result<Self, FrontendError> {
        Self::connect_in(stream, plan, OwnMemory::new(plan.memory())?)
    }

    fn connect_in(
        stream: UnixStream,
        plan: &Plan,
        mut memory: OwnMemory,
    ) -> Result<Self, FrontendError> {
        let mut control = Control::new(stream)?;
        let offered = Self::negotiate_protocol(&mut control, plan.queue_pairs)?;
        let features = Features(offered & plan.features.0);
        if !features.contains(Features::VERSION_1) {
            return Err(FrontendError::Features(Features::VERSION_1.0));
        }
        let receiving = plan.shape(features, plan.ring_size);
        let transmitting = plan.shape(features, plan.transmit_size());
        let mut pairs = Vec::with_capacity(plan.queue_pairs.into());
        for _ in 0..plan.queue_pairs {
            let receive = Receive::new(&mut memory, receiving, plan.receive_buffer)?;
            let transmit = Transmit::new(&mut memory, transmitting, plan.transmit_buffer)?;
            pairs.push(Pair {
                receive: Queue::new(receive)?,
                transmit: Queue::new(transmit)?,
            });
        }
        let mut made = Self {
            pairs,
            control,
            features,
            memory,
        };
        made.start()?;
        Ok(made)
    }

    /// Goes on with another device, or the same one on a new connection. Frames that were on their way may
    /// come twice to the device, if the one before ended in the middle of a burst.
    ///
    /// # Errors
    /// As for [`Self::connect`]; and [`FrontendError::Changed`].
    pub fn reconnect(&mut self, stream: UnixStream) -> Result<(), FrontendError> {
        self.control = Control::new(stream)?;
        let pairs = u8::try_from(self.pairs.len()).unwrap_or(u8::MAX);
        let offered = Self::negotiate_protocol(&mut self.control, pairs)?;
        match self.features.0 & !offered {
            0 => self.start(),
            missing => Err(FrontendError::Changed(missing)),
        }
    }

    /// Negotiates about the conversation itself. Says what the device offers.
    fn negotiate_protocol(control: &mut Control, pairs: u8) -> Result<u64, FrontendError> {
        let offered = control.ask(Request::GET_FEATURES, &[])?;
        if offered & PROTOCOL_FEATURES == 0 {
            return Err(FrontendError::Features(PROTOCOL_FEATURES));
        }
        let protocol = control.ask(Request::GET_PROTOCOL_FEATURES, &[])?;
        let accepted = protocol & (MQ | REPLY_ACK);
        control.tell(Request::SET_PROTOCOL_FEATURES, &[accepted], &[])?;
        control.acknowledged = accepted & REPLY_ACK != 0;
        control.tell(Request::SET_OWNER, &[], &[])?;
        let wanted = u64::from(pairs);
        let has = if accepted & MQ == 0 {
            1
        } else {
            // Of pairs or of rings: devices disagree.
            control.ask(Request::GET_QUEUE_NUM, &[])?
        };
        if has < wanted {
            return Err(FrontendError::Queues { wanted, has });
        }
        Ok(offered)
    }

    /// Tells the device of memory and rings, from where on they are to be served.
    fn start(&mut self) -> Result<(), FrontendError> {
        let Self {
            pairs,
            control,
            features,
            memory,
        } = self;
        let features = features.0 | PROTOCOL_FEATURES;
        control.tell(Request::SET_FEATURES, &[features], &[])?;
        let RegionSource {
            guest_addr,
            user_addr,
            size,
            offset,
            file,
        } = memory.region()?;
        let table = [1, guest_addr, size, user_addr, offset];
        control.tell(Request::SET_MEM_TABLE, &table, &[file.as_fd()])?;
        for (index, pair) in (0..).step_by(2).zip(pairs.iter()) {
            let (receive, transmit) = (&pair.receive, &pair.transmit);
            let config = RingConfig {
                base: receive.driver.device_base(),
                ..receive.driver.config()
            };
            control.start_ring(index, config, receive.kick_fd(), receive.call_fd())?;
            let config = RingConfig {
                base: transmit.driver.device_base(),
                ..transmit.driver.config()
            };
            let index = index.saturating_add(1);
            control.start_ring(index, config, transmit.kick_fd(), transmit.call_fd())?;
        }
        for pair in pairs {
            // What was offered before there was a device, or to the one before; and what that one gave back and
            // did not say.
            pair.receive.wake_both()?;
            pair.transmit.wake_both()?;
        }
        Ok(())
    }

    /// Lets the device finish with all rings. Says where it stopped: `GET_VRING_BASE` of each ring in order.
    ///
    /// # Errors
    /// It does not answer.
    pub fn stop(&mut self) -> Result<Vec<u32>, FrontendError> {
        let rings = self.pairs.len().saturating_mul(2);
        let rings = u32::try_from(rings).unwrap_or(u32::MAX);
        (0..rings)
            .map(|index| self.control.stop_ring(index))
            .collect()
    }

    /// Starts the rings again after [`Self::stop`].
    ///
    /// # Errors
    /// The device refuses, or is gone.
    pub fn resume(&mut self) -> Result<(), FrontendError> {
        self.start()
    }

    /// Switches a ring on or off: the even ones receive, the odd ones transmit.
    ///
    /// # Errors
    /// The device refuses, or is gone.
    pub fn enable(&mut self, ring: u16, on: bool) -> Result<(), FrontendError> {
        self.control.enable(ring.into(), on)
    }

    /// The memory that it shares with the device.
    #[must_use]
    pub fn memory_map(&self) -> &std::sync::Arc<crate::memory::MemoryMap> {
        self.memory.map()
    }

    /// What was negotiated.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// The connection. It is readable when the device has closed it.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        self.control.stream()
    }
}

// Sockets and threads of a kernel: not for Miri, nor for loom.
#[cfg(all(test, not(miri), not(loom)))]
mod tests;
