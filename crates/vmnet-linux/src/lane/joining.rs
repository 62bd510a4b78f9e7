//! Small segments of a guest on their way to somebody who takes large ones: joined, as far as they came in one turn.

use vmnet_core::PortId;
use vmnet_wire::ethernet;
use vmnet_wire::offload::Offload;

use crate::lane::datapath::Lane;
use crate::port::join::Offered;

impl Lane {
    /// Gives the network a frame of a port that makes no large ones, or keeps it for those that follow.
    /// [`Self::receive_joined`] is to be called when no more come.
    pub(super) fn receive_small(&mut self, port: PortId, frame: &[u8], offload: Offload) {
        if self.joining_of != Some(port) {
            self.receive_joined();
        }
        let large = ethernet::Header::read(frame)
            .is_some_and(|(header, _)| self.network.takes_large(self.now, header.destination));
        if !large {
            return self.receive(port, frame, offload);
        }
        self.joining_of = Some(port);
        loop {
            match self.joining.offer(frame, offload) {
                Offered::Taken => break,
                Offered::Later => self.receive_joined_of(port),
                Offered::Not => {
                    self.receive_joined_of(port);
                    return self.receive(port, frame, offload);
                }
            }
        }
        if self.joining.is_ended() {
            self.receive_joined_of(port);
        }
    }

    /// Gives the network what was joined.
    pub(super) fn receive_joined(&mut self) {
        if let Some(port) = self.joining_of.take() {
            self.receive_joined_of(port);
        }
    }

    fn receive_joined_of(&mut self, port: PortId) {
        let mut joining = std::mem::take(&mut self.joining);
        if let Some((frame, offload)) = joining.take() {
            self.receive(port, frame, offload);
        }
        self.joining = joining;
    }
}
