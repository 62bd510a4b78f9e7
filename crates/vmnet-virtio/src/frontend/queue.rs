//! One ring with the eventfds by which driver and device wake each other.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, write};

use crate::driver::{Receive, Transmit};

/// Two rings of one device.
#[derive(Debug)]
pub struct Pair {
    /// Frames from the device.
    pub receive: Queue<Receive>,
    /// Frames to the device.
    pub transmit: Queue<Transmit>,
}

/// A ring and its eventfds.
///
/// **To wait without a lost wake-up**: `enable_calls` of the driver; if it says that there is something already, or
/// nothing, do not wait; else [`Self::wait`] (or wait by epoll for [`Self::call_fd`]), [`Self::clear`],
/// and look at the ring.
#[derive(Debug)]
pub struct Queue<D> {
    /// The ring, as its driver sees it.
    pub driver: D,
    kick: OwnedFd,
    call: OwnedFd,
}

impl<D> Queue<D> {
    pub(super) fn new(driver: D) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            driver,
            kick: eventfd(0, flags)?,
            call: eventfd(0, flags)?,
        })
    }

    /// Wakes the device: when the driver's `flush` says so.
    ///
    /// # Errors
    /// The kernel refused, which it has no reason to.
    pub fn kick(&self) -> io::Result<()> {
        signal(&self.kick)
    }

    /// Readable when the device has called.
    #[must_use]
    pub fn call_fd(&self) -> BorrowedFd<'_> {
        self.call.as_fd()
    }

    /// Says that there is something to look at, as a call of the device does.
    ///
    /// # Errors
    /// The kernel refused, which it has no reason to.
    pub fn call_ourselves(&self) -> io::Result<()> {
        signal(&self.call)
    }

    pub(super) fn kick_fd(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// Waits for a call, and takes it. False: none came in time.
    ///
    /// # Errors
    /// The kernel refused, which it has no reason to.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(timeout).unwrap_or(Timespec {
            tv_sec: i64::MAX,
            tv_nsec: 0,
        });
        let mut polled = [PollFd::new(&self.call, PollFlags::IN)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => Ok(false),
            Ok(_) => self.clear().map(|()| true),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the calls that have come.
    ///
    /// # Errors
    /// The kernel refused, which it has no reason to.
    pub fn clear(&self) -> io::Result<()> {
        let mut count = [0; 8];
        match read(&self.call, &mut count) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets both sides look at the ring, whatever they waited for.
    pub(super) fn wake_both(&self) -> io::Result<()> {
        signal(&self.kick)?;
        signal(&self.call)
    }
}

impl Queue<Transmit> {
    /// Lets the device see what was sent, and wakes it if it wants to be.
    ///
    /// # Errors
    /// As for [`Self::kick`].
    pub fn flush(&mut self) -> io::Result<()> {
        if self.driver.flush() {
            self.kick()?;
        }
        Ok(())
    }
}

impl Queue<Receive> {
    /// Lets the device see the buffers that are free again, and wakes it if it wants to be.
    ///
    /// # Errors
    /// As for [`Self::kick`].
    pub fn flush(&mut self) -> io::Result<()> {
        if self.driver.flush() {
            self.kick()?;
        }
        Ok(())
    }
}

fn signal(fd: &OwnedFd) -> io::Result<()> {
    match write(fd, &1_u64.to_ne_bytes()) {
        // It is as full as it gets, so whoever waits for it is awake.
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
