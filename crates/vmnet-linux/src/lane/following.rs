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
