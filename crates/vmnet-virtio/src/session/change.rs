//! What a session tells the thread that moves frames: plain values, one after the other.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::SessionError;
use crate::memory::MemoryMap;
use crate::net::Features;
use crate::ring::{RingConfig, StartError};

/// What the VMM wants to be different from now on.
///
/// A session waits for the answer to each change before it reads the next message: so the VMM hears that
/// something was done when it was done, and a VMM that talks without end fills no queue. An answer that is
/// dropped without having been given ends the session.
///
/// Rings are numbered as vhost-user numbers them: the guest receives by the even ones and sends by the odd ones.
#[derive(Debug)]
pub enum Change {
    /// The guest has chosen. Comes before the first ring starts, and again when it chose differently while
    /// none ran.
    Negotiated {
        /// A part of what was offered.
        features: Features,
        /// When it is known.
        done: Answer<()>,
    },
    /// A ring is complete: serve it. Call its guest once, if it can be called: whoever served the ring before may have
    /// ended between giving something back and saying so.
    Start {
        /// All about it.
        ring: RingStart,
        /// What came of it. An error ends the session.
        done: Answer<Result<(), StartError>>,
    },
    /// A running ring is switched on or off. While it is off, nothing is given to the guest, and what the
    /// guest sends is taken and thrown away. One that begins off and has not been on yet is best left alone until
    /// then: VMMs start rings before they switch them on, also when they come back to a new device.
    Enable {
        /// Which one.
        index: u16,
        /// Is it on?
        on: bool,
        /// When it is so.
        done: Answer<()>,
    },
    /// The guest kicks a running ring by another descriptor from now on.
    Kick {
        /// Which one.
        index: u16,
        /// None: it does not kick, and the ring is to be looked at all the time.
        fd: Option<OwnedFd>,
        /// When the old one is not used any more.
        done: Answer<()>,
    },
    /// The guest wants to be called about a running ring by another descriptor from now on. Call it once by this one: a
    /// call by the old one may have gone nowhere.
    Call {
        /// Which one.
        index: u16,
        /// None: it does not want to be called.
        fd: Option<OwnedFd>,
        /// When the old one is not used any more.
        done: Answer<()>,
    },
    /// The VMM wants to hear by this descriptor that a running ring is broken.
    Error {
        /// Which one.
        index: u16,
        /// None: it does not want to hear it.
        fd: Option<OwnedFd>,
        /// When the old one is not used any more.
        done: Answer<()>,
    },
    /// The guest's memory is another. Rings that run go on in it, at the addresses that they have.
    Memory {
        /// Where it is now.
        map: Arc<MemoryMap>,
        /// When nobody reads or writes the old one any more. An error is that a ring is not in it, and
        /// ends the session.
        done: Answer<Result<(), StartError>>,
    },
    /// A ring ends, and its guest wants all buffers back.
    Stop {
        /// Which one.
        index: u16,
        /// [`crate::ring::Ring::base`], when everything that was taken from it has been given back or
        /// put back, and nothing will touch it again.
        base: Answer<u32>,
    },
    /// All rings end at once, as if they had never been.
    Reset {
        /// When nothing will touch them again.
        done: Answer<()>,
    },
    /// The session has ended, and its rings with it: nothing comes after this. Without an error the VMM has closed the
    /// connection.
    Ended(Result<(), SessionError>),
}

/// A ring that begins.
#[derive(Debug)]
pub struct RingStart {
    /// Its number.
    pub index: u16,
    /// Where it is, and how it was negotiated.
    pub config: RingConfig,
    /// The guest's memory.
    pub memory: Arc<MemoryMap>,
    /// What was negotiated.
    pub features: Features,
    /// An eventfd that the guest writes to when it made buffers available; none: it does not, and the ring is to be
    /// looked at all the time.
    pub kick: Option<OwnedFd>,
    /// An eventfd to write to when the guest wants to be called.
    pub call: Option<OwnedFd>,
    /// An eventfd to write to when the ring is broken.
    pub error: Option<OwnedFd>,
    /// As in [`Change::Enable`].
    pub enabled: bool,
}

/// Where to say what came of a [`Change`].
#[derive(Debug)]
pub struct Answer<T>(pub(super) SyncSender<T>);

impl<T> Answer<T> {
    /// Says it. The session may have ended meanwhile; then nobody hears it.
    pub fn give(self, value: T) {
        // There is room for one, and this is the one.
        let _ = self.0.try_send(value);
    }
}
