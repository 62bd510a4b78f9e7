//! Looking again for a moment before sleeping.
//!
//! Whoever sleeps must be woken, and on a machine with few cores that costs more than all else that a small message
//! needs. So after a turn of small messages the lane looks again for a moment, and gives way to others between looks.
//! Where nothing comes, where others need the core, or where much is moved and nobody waits for a single message, it
//! sleeps at once. An idle network costs nothing.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use crate::poller::{Poller, Token};

/// How long to look.
const LOOK: Duration = Duration::from_micros(50);
/// Giving way for longer than this means that others need the core.
const SCARCE: Duration = Duration::from_micros(40);
/// A turn that moved more bytes than this is no turn of small messages.
const SMALL: usize = 8 << 10;
/// While rings have frames, others are asked for events only after so many turns, or so many bytes.
const BUSY_TURNS: u32 = 8;
const BUSY_BYTES: usize = 1 << 20;
/// The first and the longest time without looks after one that was in vain.
const PAUSE_MIN: Duration = Duration::from_micros(200);
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// The longest time for which the lane does not give way, after it took long.
const COURTESY_PAUSE_MAX: Duration = Duration::from_millis(50);

/// When it is worth looking.
#[derive(Debug)]
pub(super) struct Patience {
    courtesy: Courtesy,
    not_before: Instant,
    pause: Duration,
    /// Rings are being looked at since then, and were last at that time.
    looking: Option<(Instant, Instant)>,
    /// Turns since others were asked for events, and bytes moved in them.
    unasked: (u32, usize),
}

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            courtesy: Courtesy::new(now),
            not_before: now,
            pause: PAUSE_MIN,
            looking: None,
            unasked: (0, 0),
        }
    }

    /// Waits for events, at most for `timeout`. The turn before moved `moved` bytes.
    ///
    /// # Errors
    /// As epoll says.
    pub(super) fn wait(
        &mut self,
        poller: &mut Poller,
        timeout: Option<Duration>,
        moved: usize,
        events: &mut Vec<(Token, EventFlags)>,
    ) -> io::Result<()> {
        let sleeps = timeout != Some(Duration::ZERO);
        let worth = (1..=SMALL).contains(&moved) && sleeps;
        if worth && self.look(poller, events)? {
            return Ok(());
        }
        if sleeps {
            self.courtesy.give_way();
        }
        poller.wait(timeout, events)
    }

    /// Somebody may have been woken in this turn.
    pub(super) fn woke(&mut self) {
        self.courtesy.due = true;
    }

    /// The turn before found frames in rings and moved `moved` bytes, and there will be more: whether to take them before
    /// events are asked for, as that costs as much as some frames.
    pub(super) fn goes_on(&mut self, moved: usize) -> bool {
        let (turns, bytes) = self.unasked;
        let (turns, bytes) = (turns + 1, bytes.saturating_add(moved));
        let goes_on = turns < BUSY_TURNS && bytes < BUSY_BYTES;
        self.unasked = if goes_on { (turns, bytes) } else { (0, 0) };
        goes_on
    }

    /// Nothing was found in rings; whether to look again at once. Gives way to others before.
    pub(super) fn look_again(&mut self) -> bool {
        let now = Instant::now();
        let (since, before) = match self.looking {
            Some(looking) => looking,
            None if now < self.not_before => return false,
            None => (now, now),
        };
        if now.duration_since(before) > SCARCE || now.duration_since(since) > LOOK {
            self.looking = None;
            self.vain(now);
            return false;
        }
        self.looking = Some((since, now));
        std::thread::yield_now();
        true
    }

    /// There was something to do.
    pub(super) fn found(&mut self) {
        if self.looking.take().is_some() {
            self.pause = (self.pause / 2).max(PAUSE_MIN);
        }
    }

    /// Looks for a moment. Answers whether something came.
    fn look(
        &mut self,
        poller: &mut Poller,
        events: &mut Vec<(Token, EventFlags)>,
    ) -> io::Result<bool> {
        let start = Instant::now();
        if start < self.not_before {
            return Ok(false);
        }
        let mut before = start;
        loop {
            poller.wait(Some(Duration::ZERO), events)?;
            let now = Instant::now();
            if now.duration_since(before) > SCARCE {
                self.vain(now);
                return Ok(!events.is_empty());
            }
            if !events.is_empty() {
                self.pause = (self.pause / 2).max(PAUSE_MIN);
                return Ok(true);
            }
            if now.duration_since(start) > LOOK {
                self.vain(now);
                return Ok(false);
            }
            before = now;
            std::thread::yield_now();
        }
    }

    fn vain(&mut self, now: Instant) {
        self.not_before = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// Giving way once, after others were woken and before the lane sleeps.
///
/// Whoever is woken by a thread that sleeps a moment later is mostly put on another core by the kernel, and a core that
/// rests takes tens of microseconds to come to life, ten times as long as all else. One that gives way leaves its own
/// core, which is awake, to them. Where programs compute there, that may take long: then it is not done for a while.
#[derive(Debug)]
struct Courtesy {
    due: bool,
    not_before: Instant,
    pause: Duration,
}

impl Courtesy {
    fn new(now: Instant) -> Self {
        Self {
            due: false,
            not_before: now,
            pause: PAUSE_MIN,
        }
    }

    fn give_way(&mut self) {
        if !std::mem::take(&mut self.due) {
            return;
        }
        let before = Instant::now();
        if before < self.not_before {
            return;
        }
        std::thread::yield_now();
        let now = Instant::now();
        if now.duration_since(before) > SCARCE {
            self.not_before = now + self.pause;
            self.pause = (self.pause * 2).min(COURTESY_PAUSE_MAX);
        } else {
            self.pause = PAUSE_MIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poller::READ;
    use rustix::event::{EventfdFlags, eventfd};

    #[test]
    fn others_are_asked_for_events_every_few_turns_of_busy_rings() {
        let mut patience = Patience::new(Instant::now());
        let skipped = (0..16).filter(|_| patience.goes_on(64)).count();
        assert_eq!(skipped, 14);
        assert!(!patience.goes_on(BUSY_BYTES), "much was moved");
        assert!(patience.goes_on(1));
    }

    #[test]
    fn vain_looks_become_rare_and_small_messages_bring_them_back() {
        let mut poller = Poller::new().unwrap();
        let wake = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        poller.add(&wake, Token::Command, READ).unwrap();
        let mut events = Vec::new();
        let mut patience = Patience::new(Instant::now());
        for _ in 0..2000 {
            patience
                .wait(
                    &mut poller,
                    Some(Duration::from_micros(1)),
                    100,
                    &mut events,
                )
                .unwrap();
            assert!(events.is_empty());
        }
        assert!(patience.pause > PAUSE_MIN * 4);
        rustix::io::write(&wake, &1u64.to_ne_bytes()).unwrap();
        patience.not_before = Instant::now();
        let paused = patience.pause;
        patience.wait(&mut poller, None, 100, &mut events).unwrap();
        assert_eq!(events.len(), 1);
        // Unless the test itself was kept from the core for long.
        assert!(patience.pause <= paused || patience.pause <= PAUSE_MAX);
        patience
            .wait(&mut poller, None, 1 << 20, &mut events)
            .unwrap();
        assert_eq!(events.len(), 1);
    }
}
