use std::sync::Arc;

use super::*;
use vmnet_virtio::driver::{Shape, Transmit};
use vmnet_virtio::memory::OwnMemory;
use vmnet_virtio::net::{Burst, BurstLimits};
use vmnet_virtio::session::RingStart;

const SHAPE: Shape = Shape {
    size: 8,
    packed: false,
    event_idx: false,
    indirect: 0,
};

fn start(index: u16, config: vmnet_virtio::ring::RingConfig, memory: &OwnMemory) -> RingStart {
    RingStart {
        index,
        config,
        memory: Arc::clone(memory.map()),
        features: Features::VERSION_1 | Features::MRG_RXBUF,
        kick: None,
        call: None,
        error: None,
        enabled: false,
    }
}

#[test]
fn what_a_guest_sends_before_its_ring_is_on_is_sent_when_it_is() {
    let mut memory = OwnMemory::new(1 << 20).unwrap();
    let mut transmit = Transmit::new(&mut memory, SHAPE, 2048).unwrap();
    let mut port = VhostUser::new();
    port.start(start(1, transmit.config(), &memory)).unwrap();
    transmit.send(&[0; 12], &[&[7; 60]]).unwrap();
    let _ = transmit.flush();
    assert!(!port.kicked(1), "it is left alone");
    assert!(port.sending(1).is_none());
    port.enable(1, false);
    assert!(port.sending(1).is_none());
    port.enable(1, true);
    assert!(port.kicked(1));
    let (from_guest, on) = port.sending(1).unwrap();
    assert!(on);
    let mut burst = Burst::new(BurstLimits {
        frames: 8,
        bytes: 1 << 16,
        head: 64,
    });
    assert_eq!(from_guest.receive(&mut burst), Ok(1));
    port.enable(1, false);
    let (_, on) = port.sending(1).unwrap();
    assert!(!on, "now its frames are thrown away");
}
