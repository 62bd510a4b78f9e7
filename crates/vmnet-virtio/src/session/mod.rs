//! The device's side of vhost-user: the conversation with one VMM, on a socket that is connected.
//!
//! | file | what |
//! | --- | --- |
//! | `conversation` | what each message means, and in which order they may come |
//! | [`change`] | what the thread that moves frames is told, and how it answers |
//! | `rings` | what was said about each ring so far |
//! | `message` | messages of a VMM, taken apart |
//! | `socket`, `protocol` | bytes and descriptors on the socket, and names of bits, for either side |
//! | `eventfd` | descriptors to wake somebody by |
//! | [`error`] | why a session ended |
//!
//! A VMM shares the guest's memory, tells where its rings are, and gives eventfds to wake each other by. The
//! session hears all that in a small thread of its own, because a VMM that stops in the middle of a message keeps
//! its hearer waiting, and gives whoever moves frames plain values, the [`Change`]s. Frames never pass here.
//!
//! **Resuming.** Our rings give buffers back in the order in which they were taken, so the used index of a split
//! ring, which is in the guest's memory, says exactly where to go on, whatever happened to the process that served
//! it. So there is no table of buffers in flight (`INFLIGHT_SHMFD`): for a network device it would say the same. In
//! a packed ring nobody can see the place from outside; a VMM that reconnects tells the last one that
//! `GET_VRING_BASE` gave.
//!
//! **Not offered**, and so refused when it comes: logs of written pages (`LOG_SHMFD`, for live migration), `RARP`,
//! messages in place of eventfds, messages from us to the VMM, a configuration space (VMMs have that of a
//! network device themselves), IOTLB, post-copy, endianness of old machines.

pub mod change;
mod conversation;
pub mod error;
mod eventfd;
mod message;
pub(crate) mod protocol;
mod rings;
pub(crate) mod socket;

pub use change::{Answer, Change, RingStart};
pub use error::{MessageFault, Request, SessionError};

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::memory::Unsealed;
use crate::net::Features;

/// Most pairs of rings: messages tell a ring's number in 8 bits.
pub const QUEUE_PAIRS_MAX: u8 = 128;

/// What a VMM may choose from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// What the device can do.
    pub features: Features,
    /// Most pairs of rings, from 1 to [`QUEUE_PAIRS_MAX`]. A VMM that asks for the number of queues hears that of rings, as
    /// the specification has it. Some, QEMU among them, take it for the number of pairs; one that then asks
    /// for more pairs than these is refused at the first ring too many.
    pub queue_pairs: u8,
    /// The network's MTU. A VMM that means to tell its guest a larger one hears that this cannot be. None: it is not
    /// asked.
    pub mtu: Option<u16>,
    /// What to do with memory that may shrink. QEMU's `memory-backend-memfd` is sealed, and so is Firecracker's and
    /// crosvm's memory; Cloud Hypervisor's, DPDK's and files on hugetlbfs or tmpfs are not, and need
    /// [`Unsealed::Guard`], which a service that nobody else's code runs in can afford.
    pub unsealed: Unsealed,
}

impl Offer {
    /// All that rings here can do, for one pair of them, in sealed memory.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            features: Features::ALL,
            queue_pairs: 1,
            mtu: None,
            unsealed: Unsealed::Refuse,
        }
    }

    /// How many rings there may be.
    fn rings(&self) -> u16 {
        let pairs = self.queue_pairs.clamp(1, QUEUE_PAIRS_MAX);
        u16::from(pairs).saturating_mul(2)
    }
}

impl Default for Offer {
    fn default() -> Self {
        Self::new()
    }
}

/// A conversation with one VMM. It ends when this is dropped.
#[derive(Debug)]
pub struct Session {
    stream: UnixStream,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Begins to listen to the VMM at the other end of `stream`, whoever of the two connected.
    ///
    /// `changes` is called in the session's thread, and only passes on: it sends to a channel, and wakes the
    /// reader. There is never more than one change to be answered, and [`Change::Ended`], so the channel stays short. That one
    /// is the last, and does not come if the session was dropped.
    ///
    /// # Errors
    /// There are too many threads or open files.
    pub fn start(
        stream: UnixStream,
        offer: Offer,
        changes: impl FnMut(Change) + Send + 'static,
    ) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        let ending = Arc::new(AtomicBool::new(false));
        let conversation = conversation::Conversation::new(
            stream.try_clone()?,
            offer,
            Arc::clone(&ending),
            changes,
        );
        let thread = thread::Builder::new()
            .name("vhost-user".into())
            .stack_size(256 * 1024)
            .spawn(move || conversation.run())?;
        Ok(Self {
            stream,
            ending,
            thread: Some(thread),
        })
    }
}

impl Drop for Session {
    /// Closes the connection, and waits until nothing more is said. Rings that run are the business of whoever
    /// serves them.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // It is shut down already if the VMM was faster.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

// Sockets and threads of a kernel: not for Miri, nor for loom.
#[cfg(all(test, not(miri), not(loom)))]
pub(crate) mod tests;
