//! Guests that go without a word, as a program does that is killed or exits: what lies in their rings by then goes out
//! first, as from a card that is unplugged behind it.
//!
//! Their memory is mapped until the port ends. It is looked at once and has a limit, since somebody else may hold it too, and
//! go on. Nobody waits for others' room meanwhile. Sockets need none of this: what is in them comes before their end.

use vmnet_core::PortId;

use crate::lane::datapath::Lane;
use crate::lane::rings::Found;
use crate::port::Port;
use crate::port::vhost_user::QUEUE_PAIRS;

/// Bursts of all rings of a port. A burst is 256 KiB, or 64 frames: more than fits into the rings of a program.
const BURSTS: usize = 64;

impl Lane {
    /// Detaches a port whose guest may have gone just now.
    pub(super) fn leave(&mut self, id: PortId) {
        self.take_what_is_left(id);
        self.detach(id);
    }

    /// Gives the network what a guest has put into its rings and nobody has taken yet.
    pub(super) fn take_what_is_left(&mut self, id: PortId) {
        if !matches!(self.ports.get_mut(id), Some(Port::VhostUser(_))) {
            return;
        }
        self.leaving = true;
        let mut left = BURSTS;
        // Odd ones lead from the guest.
        for ring in (1..QUEUE_PAIRS * 2).step_by(2) {
            while left > 0 && matches!(self.receive_from_ring(id, ring), Ok(Found::Frames)) {
                left -= 1;
            }
        }
        self.leaving = false;
    }
}
