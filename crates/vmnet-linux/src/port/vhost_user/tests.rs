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
    let mut port = VhostUser::new(false);
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
    let mut port = VhostUser::new(false);
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

/// A program's ring is small, but it is promised that many packets wait for it, also large ones, and as they were written.
#[test]
fn large_frames_wait_whole_for_a_program() {
    const COUNT: u8 = 200;
    let mut memory = OwnMemory::new(2 << 20).unwrap();
    let shape = Shape { size: 256, ..SHAPE };
    let mut receive = Receive::new(&mut memory, shape, 4160).unwrap();
    let _ = receive.flush();
    let mut port = VhostUser::new(true);
    let features = [
        Features::MRG_RXBUF,
        Features::GUEST_CSUM,
        Features::GUEST_TSO4,
    ];
    let features = features
        .into_iter()
        .fold(Features::VERSION_1, |all, one| all | one);
    port.start(RingStart {
        enabled: true,
        features,
        ..start(0, receive.config(), &memory)
    })
    .unwrap();
    let offload = Offload {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        segmentation: Some(vmnet_wire::offload::Segmentation {
            kind: Kind::Tcp4,
            size: 1460,
            ecn: false,
        }),
    };
    let send = |port: &mut VhostUser, number: u8| {
        let frame = Outgoing {
            head: &[number; 60_000],
            body: Body::EMPTY,
            offload,
        };
        port.send(&frame, 1500, &mut Vec::new(), false)
    };
    for number in 0..COUNT {
        assert_eq!(send(&mut port, number), Ok(()), "{number}");
    }
    let mut seen = 0;
    while seen < COUNT {
        let _waits = port.flush().unwrap();
        let before = seen;
        while let Some(frame) = receive.receive().unwrap() {
            let mut first = [0];
            frame.parts[0].copy_to(&mut first);
            assert_eq!((frame.len, first), (60_000, [seen]));
            assert_eq!(frame.header.0[1], 1, "not cut");
            seen += 1;
        }
        let _ = receive.flush();
        assert!(seen > before, "{seen} of {COUNT}");
    }
    let taken = (0..=u8::MAX).take_while(|number| send(&mut port, *number).is_ok());
    assert!(taken.count() == 256, "a second time as many");
}

/// The guest empties one half of its ring while the other is filled.
#[test]
fn what_is_received_into_half_of_the_buffers_is_seen_before_the_turn_ends() {
    let mut memory = OwnMemory::new(1 << 20).unwrap();
    let mut receive = Receive::new(&mut memory, SHAPE, 4096).unwrap();
    let _ = receive.flush();
    let mut port = VhostUser::new(false);
    let offloads = Features::GUEST_CSUM | Features::GUEST_TSO4;
    port.start(RingStart {
        enabled: true,
        features: Features::VERSION_1 | Features::MRG_RXBUF | offloads,
        ..start(0, receive.config(), &memory)
    })
    .unwrap();
    let ends = ["192.168.64.2:80", "10.0.0.1:5000"].map(|end| end.parse().unwrap());
    let to = ReadTo {
        port: vmnet_core::PortId::default(),
        headers: 54,
        flow: ends,
    };
    // Of eight buffers, each frame takes two.
    for (count, is_seen) in [(1, false), (2, true), (3, false), (4, true)] {
        assert_eq!(port.make_room(&to, 5000), Landing::Ready(5000));
        port.commit(&[count; 54], 5000, &Offload::NONE);
        let seen = std::iter::from_fn(|| receive.receive().unwrap().map(|frame| frame.len));
        let expected: &[usize] = if is_seen { &[5054, 5054] } else { &[] };
        assert_eq!(seen.collect::<Vec<_>>(), expected, "after {count}");
    }
}
