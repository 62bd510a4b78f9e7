//! Frames of a burst that go on where the one before ends, on their way to one socket of the host: they leave by one call.

use vmnet_core::Succession;
use vmnet_virtio::net::{Burst, Frame};

use crate::port::body::Body;
use crate::sys::places::PLACES_MAX;

/// Most bytes of frames that leave by one call: more would only wait in the socket.
const BYTES: usize = 256 << 10;

/// Frames behind one of a burst, whose headers say nothing new.
#[derive(Clone, Copy, Debug)]
pub(super) struct Following<'b> {
    /// The burst, and the number of the first of them.
    burst: Option<(&'b Burst, usize)>,
    /// How many.
    pub(super) count: usize,
    /// Bytes of the headers of each.
    headers: usize,
    /// Bytes of payload of all.
    pub(super) bytes: usize,
}

impl<'b> Following<'b> {
    pub(super) const NONE: Following<'static> = Following {
        burst: None,
        count: 0,
        headers: 0,
        bytes: 0,
    };

    /// The frames of a burst from number `from` on that go on where `first` ends, for as long as one system call takes them.
    /// `is_taken`: what else has to be true of each.
    pub(super) fn find(
        first: &Frame<'b>,
        mut succession: Succession,
        (burst, from): (&'b Burst, usize),
        is_taken: impl Fn(&Frame<'b>) -> bool,
    ) -> Self {
        // What is copied of a frame is one place, and the rest has its own.
        let places_of = |frame: &Frame<'_>| 1 + frame.rest.len();
        let headers = succession.headers();
        let (mut count, mut bytes, mut places) = (0, 0, places_of(first));
        for frame in burst.from(from).map_while(Result::ok) {
            places += places_of(&frame);
            let is_much = places > PLACES_MAX || first.len + bytes + frame.len > BYTES;
            if is_much || !is_taken(&frame) || !succession.goes_on(frame.head, frame.len) {
                break;
            }
            count += 1;
            bytes += frame.len - headers;
        }
        Self {
            burst: Some((burst, from)),
            count,
            headers,
            bytes,
        }
    }

    /// The payload of each.
    pub(super) fn bodies(&self) -> impl Iterator<Item = Body<'b>> + Clone + use<'b> {
        let Self { count, headers, .. } = *self;
        self.burst.into_iter().flat_map(move |(burst, from)| {
            let numbers = from..from.saturating_add(count);
            let frames = numbers.filter_map(|number| burst.get(number)?.ok());
            frames.map(move |frame| {
                let rest = Body::guest(frame.rest, frame.len - frame.head.len());
                rest.behind(frame.head).span(headers, frame.len - headers)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vmnet_lab::sim::Lan;
    use vmnet_lab::sim::packets::{self, Ends};
    use vmnet_virtio::driver::{Shape, Transmit};
    use vmnet_virtio::memory::OwnMemory;
    use vmnet_virtio::net::{BurstLimits, Features, FromGuest};
    use vmnet_wire::ethernet::Mac;
    use vmnet_wire::tcp::{Fields, Flags, Seq};

    /// The gateway of [`Lan`].
    const GATEWAY: Mac = Mac([0x52, 0x55, 0, 0, 0, 1]);

    /// Segments of these lengths, one behind the other, in a burst; and all bytes.
    fn burst(lens: &[usize], to: Mac) -> (Burst, Vec<u8>, OwnMemory) {
        let mut memory = OwnMemory::new(8 << 20).unwrap();
        let shape = Shape {
            size: 128,
            packed: false,
            event_idx: false,
            indirect: 0,
        };
        let mut transmit = Transmit::new(&mut memory, shape, 60_100).unwrap();
        let mut bytes = Vec::new();
        for len in lens {
            let fields = Fields {
                source_port: 1,
                destination_port: 2,
                sequence: Seq(u32::try_from(bytes.len()).unwrap()),
                acknowledgement: Seq(1),
                flags: Flags::ACK,
                window: 1000,
            };
            let payload: Vec<u8> = (bytes.len()..bytes.len() + len)
                .map(|at| at as u8)
                .collect();
            let ends = Ends {
                macs: (Mac([2, 0, 0, 0, 0, 2]), to),
                ips: ([192, 168, 64, 2].into(), [10, 0, 0, 1].into()),
            };
            let frame = packets::tcp(ends, &fields, &[], &payload);
            transmit.send(&[0; 12], &[&frame]).unwrap();
            bytes.extend(payload);
        }
        let _ = transmit.flush();
        let map = Arc::clone(memory.map());
        let mut ring = FromGuest::start(map, transmit.config(), Features::VERSION_1).unwrap();
        let mut burst = Burst::new(BurstLimits {
            frames: 128,
            bytes: 1 << 20,
            head: 80,
        });
        assert_eq!(ring.receive(&mut burst), Ok(lens.len()));
        (burst, bytes, memory)
    }

    fn find(burst: &Burst, host: Option<Mac>) -> Option<Following<'_>> {
        let first = burst.get(0).unwrap().unwrap();
        let lan = Lan::new(1500, |config| config.host = host);
        let succession = lan.network.succession(first.head, first.len)?;
        Some(Following::find(&first, succession, (burst, 1), |_| true))
    }

    #[test]
    fn the_payload_of_all_is_named_once_and_in_order() {
        for lens in [&[1, 20, 26, 27, 1000, 5][..], &[1460; 9], &[60_000, 60_000]] {
            let (burst, bytes, _memory) = burst(lens, GATEWAY);
            let following = find(&burst, None).unwrap();
            assert_eq!(following.count, lens.len() - 1);
            let mut seen = Vec::new();
            following
                .bodies()
                .for_each(|body| body.append_to(&mut seen));
            assert_eq!(seen, bytes[lens[0]..]);
            assert_eq!(following.bytes, seen.len());
        }
    }

    #[test]
    fn one_call_takes_so_many_places_and_bytes() {
        let (small, ..) = burst(&[1000; 100], GATEWAY);
        let count = find(&small, None).unwrap().count;
        assert_eq!(2 * (1 + count), PLACES_MAX, "a copy and a rest of each");
        let (large, ..) = burst(&[60_000; 8], GATEWAY);
        assert_eq!(find(&large, None).unwrap().count, BYTES / 60_054 - 1);
    }

    #[test]
    fn only_the_nat_takes_them() {
        let (for_another, ..) = burst(&[100, 100], Mac([2, 0, 0, 0, 0, 9]));
        assert!(find(&for_another, None).is_none());
        let host = Mac([2, 0, 0, 0, 0, 8]);
        for to in [GATEWAY, host] {
            let (for_host, ..) = burst(&[100, 100], to);
            assert!(find(&for_host, Some(host)).is_none(), "the host takes each");
        }
    }
}
