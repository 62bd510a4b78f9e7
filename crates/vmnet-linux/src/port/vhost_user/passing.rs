//! The short way: frames that only pass from one guest's ring to another's, many at once.

use vmnet_virtio::net::{Burst, Frame, Header, Run};
use vmnet_wire::ethernet;

use super::spread::Flow;
use super::{Direction::To, Ring, Side, VhostUser, ring};

impl VhostUser {
    /// Gives the guest the frames of `burst` from number `from` on, which begins with `head`, for as long as they are `passing`, which
    /// includes that nothing of them is left to anybody, there is one buffer for each, and nothing to be weighed. Those that were not
    /// given are to be sent as any other.
    #[inline(always)]
    pub(crate) fn pass(
        &mut self,
        head: &[u8],
        burst: &Burst,
        from: usize,
        mtu: usize,
        passing: impl Fn(&Frame<'_>) -> bool,
    ) -> Run {
        let Self {
            rings,
            open,
            spread,
            ..
        } = self;
        if !self.backlog.is_empty() || self.broken.is_some() {
            return Run::default();
        }
        let pair_of = |head: &[u8]| spread.pair(Flow::of(head), open);
        let (pair, is_only) = match open.as_slice() {
            [only] => (Some(*only), true),
            _ => (pair_of(head), false),
        };
        let ring = pair.and_then(|pair| ring(rings, pair, To));
        let Some(Ring {
            side: Side::To(to_guest),
            dirty,
            ..
        }) = ring
        else {
            return Run::default();
        };
        let most = mtu + ethernet::Header::LEN;
        let goes_too = |frame: &Frame<'_>| {
            frame.len <= most && (is_only || pair_of(frame.head) == pair) && passing(frame)
        };
        let frames = burst.from(from).map_while(Result::ok);
        let count = frames.take_while(goes_too).count();
        let run = to_guest.deliver_run(Header::default(), burst, from, count);
        if run.frames > 0 {
            *dirty = true;
            self.credit.earn(run.frames, run.bytes);
        }
        run
    }
}
