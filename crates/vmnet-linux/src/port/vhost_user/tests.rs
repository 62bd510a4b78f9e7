use std::sync::Arc;

use super::*;
use vmnet_virtio::driver::{Receive, Shape, Transmit};
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

#[test]
fn frames_that_waited_and_never_fit_are_counted() {
    let mut memory = OwnMemory::new(1 << 20).unwrap();
    let mut receive = Receive::new(&mut memory, SHAPE, 100).unwrap();
    let mut port = VhostUser::new();
    let start = RingStart {
        enabled: true,
        features: Features::VERSION_1,
        ..start(0, receive.config(), &memory)
    };
    port.start(start).unwrap();
    for len in [60, 400, 60] {
        let frame = Outgoing {
            head: &vec![0; len],
            body: Body::EMPTY,
            offload: Offload::NONE,
        };
        let sent = port.send(&frame, 1500, &mut Vec::new(), false);
        assert_eq!(sent, Ok(()), "it waits");
    }
    assert_ne!(port.flush().unwrap(), Flushed::Empty);
    assert_eq!(port.take_lost(), NOTHING_LOST);
    let _ = receive.flush();
    assert_eq!(port.flush().unwrap(), Flushed::Empty);
    assert_eq!(port.take_lost()[0], (Drop::TooLong, 1));
    assert_eq!(port.take_lost(), NOTHING_LOST);
}
