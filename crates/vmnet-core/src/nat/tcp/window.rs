//! How much the guest may send: never more than the host's socket takes, nor more than fits into the queue
//! between the guest and us (RFC 9293 §3.8.6).

use vmnet_wire::tcp::Seq;

use crate::nat::tcp::SCALE;
use crate::switch::port::Port;

/// The most that one flow may have on its way.
const MOST: u32 = 8 << 20;
/// What a port's queue holds of large segments, each taken as a quarter of the largest.
const LARGE_SEGMENT: u32 = 16 << 10;

/// The window that the guest sees.
#[derive(Debug)]
pub(crate) struct Window {
    /// The next byte that is expected.
    next: Seq,
    /// The first byte that the guest was not allowed to send. It never moves back.
    edge: Seq,
    /// Bytes that the host's socket has room for.
    room: u32,
    /// The most that was ever offered: what a segment is large or small beside.
    most: u32,
    /// Bytes that the queue between the guest and us holds.
    queue: u32,
    mss: u32,
    /// The guest understands scaled windows.
    scaled: bool,
}

impl Window {
    /// A closed window in front of `next`.
    pub(crate) fn new(next: Seq, port: Option<&Port>, mss: u16, scaled: bool) -> Self {
        let mss = u32::from(mss);
        let queue = port.map_or(64 << 10, |port| {
            let frame = if port.large_segments {
                LARGE_SEGMENT
            } else {
                mss
            };
            u32::try_from(port.queue)
                .unwrap_or(u32::MAX)
                .saturating_mul(frame)
                / 2
        });
        Self {
            next,
            edge: next,
            room: 0,
            most: 0,
            queue: queue.min(MOST),
            mss,
            scaled,
        }
    }

    /// The next byte that is expected.
    pub(crate) fn next(&self) -> Seq {
        self.next
    }

    /// The guest's numbers begin at `next`, its largest segment and its scaling are known.
    pub(crate) fn start(&mut self, next: Seq, mss: u16, scaled: bool) {
        (self.next, self.edge, self.mss, self.scaled) = (next, next, u32::from(mss), scaled);
    }

    /// Bytes, or a FIN, were taken.
    pub(crate) fn take(&mut self, count: u32) {
        self.next = self.next.advance(count);
        if self.edge.before(self.next) {
            self.edge = self.next;
        }
    }

    /// The host's socket has room for so many bytes.
    pub(crate) fn set_room(&mut self, room: usize) {
        self.room = u32::try_from(room).unwrap_or(u32::MAX);
    }

    /// The bytes that the guest may still send.
    pub(crate) fn open(&self) -> u32 {
        self.edge - self.next
    }

    /// The bytes that it may send after [`Self::advertise`].
    pub(crate) fn would_open(&self) -> u32 {
        self.room.min(self.queue).min(self.ceiling())
    }

    /// The first byte that lies behind the window.
    pub(crate) fn edge(&self) -> Seq {
        self.edge
    }

    /// The window as it stands in a header; moves the edge as far as it may.
    ///
    /// The edge moves by at least a segment or half of what there ever was, or not at all
    /// (RFC 9293 §3.8.6.2.2).
    pub(crate) fn advertise(&mut self, in_syn: bool) -> u16 {
        let open = self.open();
        let wanted = self.would_open();
        self.most = self.most.max(wanted);
        if wanted > open && (wanted - open >= self.mss.min(self.most / 2) || open == 0) {
            self.edge = self.next.advance(wanted);
        }
        let ceiling = if in_syn {
            u32::from(u16::MAX)
        } else {
            self.ceiling()
        };
        let shift = if self.scaled && !in_syn { SCALE } else { 0 };
        let shown = self.open().min(ceiling) >> shift;
        // What the scale cannot express was not promised.
        if self.open() > shown << shift {
            self.edge = self.next.advance((shown << shift).max(open.min(ceiling)));
        }
        u16::try_from(shown).unwrap_or(u16::MAX)
    }

    /// What a header can express.
    fn ceiling(&self) -> u32 {
        if self.scaled {
            u32::from(u16::MAX) << SCALE
        } else {
            u32::from(u16::MAX)
        }
    }

    /// So little is open, beside what could be, that a fast guest may have to wait.
    pub(crate) fn is_tight(&self) -> bool {
        self.open() < self.most / 2 || self.most < self.mss
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Room(usize),
        Send(u32),
        Advertise,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0usize..5_000_000).prop_map(Step::Room),
            (0u32..100_000).prop_map(Step::Send),
            Just(Step::Advertise),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        /// The guest's view of the right edge never moves back, and what it shows is what we allow.
        #[test]
        fn the_edge_never_moves_back(steps in steps(), scaled: bool, start: u32, queue in 1usize..5000) {
            let mut port = Port::new(queue);
            port.large_segments = scaled;
            let mut window = Window::new(Seq(start), Some(&port), 1460, scaled);
            let shift = if scaled { u32::from(SCALE) } else { 0 };
            let mut seen = Seq(start);
            for step in steps {
                match step {
                    Step::Room(room) => window.set_room(room),
                    Step::Send(count) => {
                        let count = count.min(window.open());
                        window.take(count);
                        window.set_room((window.room - window.room.min(count)) as usize);
                    }
                    Step::Advertise => {
                        let shown = u32::from(window.advertise(false)) << shift;
                        let edge = window.next().advance(shown);
                        prop_assert!(edge.at_or_before(window.edge()));
                        // Rounding may hide less than one step of the scale.
                        prop_assert!(window.edge() - edge < 1 << shift);
                        prop_assert!(seen.at_or_before(edge.advance(1 << shift)));
                        prop_assert!(shown <= window.queue.max(window.open()));
                        if seen.before(edge) {
                            seen = edge;
                        }
                    }
                }
            }
        }
    }
}
