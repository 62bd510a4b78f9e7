//! What the VMM has said about each ring so far, and when that is enough to serve it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::change::RingStart;
use super::message::Addresses;
use crate::memory::MemoryMap;
use crate::net::Features;
use crate::ring::RingConfig;

/// A ring, running or being set up.
#[derive(Debug, Default)]
pub(super) struct Setup {
    pub(super) size: Option<u16>,
    pub(super) addresses: Option<Addresses>,
    /// As `SET_VRING_BASE` and `GET_VRING_BASE` have it.
    pub(super) base: u32,
    /// Was told: by a descriptor, or by looking. That is what starts a ring.
    pub(super) kick: Option<Option<OwnedFd>>,
    pub(super) call: Option<OwnedFd>,
    pub(super) error: Option<OwnedFd>,
    pub(super) enabled: bool,
    /// Whoever serves it has its descriptors.
    pub(super) running: bool,
}

impl Setup {
    /// All about the ring, once all has been said; it runs from then on.
    pub(super) fn start(
        &mut self,
        index: u16,
        memory: &Arc<MemoryMap>,
        features: Features,
    ) -> Option<RingStart> {
        if self.running || self.kick.is_none() {
            return None;
        }
        let (size, addresses) = (self.size?, self.addresses?);
        let [low, high, ..] = self.base.to_le_bytes();
        let config = RingConfig {
            size,
            descriptors: addresses.descriptors,
            driver: addresses.driver,
            device: addresses.device,
            packed: features.contains(Features::RING_PACKED),
            event_idx: features.contains(Features::EVENT_IDX),
            indirect: features.contains(Features::INDIRECT_DESC),
            base: u16::from_le_bytes([low, high]),
        };
        self.running = true;
        Some(RingStart {
            index,
            config,
            memory: Arc::clone(memory),
            features,
            kick: self.kick.take()?,
            call: self.call.take(),
            error: self.error.take(),
            enabled: self.enabled,
        })
    }

    /// The ring has ended at `base`. Its descriptors are to be told anew.
    pub(super) fn stop(&mut self, base: u32) {
        self.base = base;
        self.running = false;
        self.kick = None;
        self.call = None;
        self.error = None;
    }
}
