//! Two taps on a bridge of the kernel, in a namespace of the receiving process: one of them is written to by the sending one.
//!
//! A tap takes and gives one frame by a system call. A batch is so many of them in a row.

use super::ours::{HEADER, frame};
use super::{Process, Receiver, Tally};
use crate::service::Failure;
use openvmnet::Mac;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vmnet_linux::kernel::tap;
use vmnet_linux::sys::fd_passing;

/// The largest frame that passes a bridge in one piece: the kernel cuts what has 64 KiB (`gso_max_size`).
const LARGEST: usize = 65_535;
/// After so long without a frame that counts, none will come.
const PATIENCE: Duration = Duration::from_secs(5);
/// What makes a namespace of one's own, as an ordinary user too.
const APART: [&str; 4] = ["unshare", "--user", "--map-root-user", "--net"];
/// Frames to this one are for nobody that the bridge knows: both taps get them.
const TO: Mac = Mac([2, 0, 0, 0, 0, 2]);
const FROM: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// Frames a second.
pub(super) fn measure(of: Receiver) -> Result<f64, Failure> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let mut process = Process::start_by(&APART, of, Stdio::from(theirs))?;
    let mut descriptors = Vec::new();
    fd_passing::receive(&ours, &mut [0; 1], &mut descriptors)?;
    let tap = descriptors.pop().ok_or("no tap came")?;
    let len = of.len.min(LARGEST);
    let mut bytes = frame(len, TO, FROM);
    if bytes.len() == len {
        bytes.splice(0..0, [0; HEADER]);
    }
    let mut calls: u32 = 0;
    loop {
        for _ in 0..of.batch {
            // It goes with its namespace.
            if write(&tap, &bytes).is_err() {
                return process.rate();
            }
        }
        calls = calls.wrapping_add(1);
        if calls.is_multiple_of(64) && process.is_done()? {
            return process.rate();
        }
    }
}

/// Counts what comes by one tap, after the other was given away by the standard input.
pub(super) fn receive(of: Receiver) -> Result<(), Failure> {
    let (in_front, behind) = (tap::open("tap0")?, tap::open("tap1")?);
    ip("link add bridge0 type bridge mcast_snooping 0")?;
    for link in ["tap0", "tap1"] {
        ip(&format!("link set {link} master bridge0 up"))?;
    }
    ip("link set bridge0 up")?;
    fcntl_setfl(&behind, fcntl_getfl(&behind)? | OFlags::NONBLOCK)?;
    let stdin = std::io::stdin();
    let parent = stdin.as_fd();
    fd_passing::send(parent, &[0], &[in_front.as_fd()])?;
    drop(in_front);
    println!("ready");
    std::io::stdout().flush()?;
    let mut buffer = vec![0; of.len.min(LARGEST) + HEADER];
    let mut tally = Tally::new(of);
    let mut last = Instant::now();
    loop {
        let came = receive_batch(&behind, &mut buffer, of.batch)?;
        if came > 0 {
            last = Instant::now();
        } else if last.elapsed() > PATIENCE {
            return Err("no frame of the size came through the bridge".into());
        }
        if came == 0 {
            wait(&behind, parent)?;
        } else if let Some(rate) = tally.count(came) {
            println!("{rate}");
            return Ok(());
        }
    }
}

/// Takes up to `most` frames: how many were of the size that is counted.
fn receive_batch(tap: &OwnedFd, buffer: &mut [u8], most: usize) -> Result<usize, Errno> {
    let mut came = 0;
    for _ in 0..most {
        match read(tap, &mut *buffer) {
            Ok(len) => came += usize::from(len == buffer.len()),
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(came)
}

/// Waits for a frame. Ends with whoever sends them.
fn wait(tap: &OwnedFd, parent: BorrowedFd<'_>) -> Result<(), Failure> {
    let mut polled = [
        PollFd::new(tap, PollFlags::IN),
        PollFd::from_borrowed_fd(parent, PollFlags::RDHUP),
    ];
    let moment = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    poll(&mut polled, Some(&moment))?;
    match polled.last().is_some_and(|it| !it.revents().is_empty()) {
        true => Err("nobody sends any more".into()),
        false => Ok(()),
    }
}

fn ip(line: &str) -> Result<(), Failure> {
    let done = Command::new("ip").args(line.split(' ')).status()?;
    if done.success() {
        return Ok(());
    }
    Err(format!("ip {line}: {done}").into())
}
