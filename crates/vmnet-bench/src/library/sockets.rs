//! A pair of datagram sockets between two processes.

use super::{Process, Receiver, Tally};
use crate::service::Failure;
use crate::sys::Batch;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;

/// Bytes that a socket may hold: as much as the kernel allows an ordinary user.
const BUFFER: usize = 4 << 20;

/// Frames a second.
pub(super) fn measure(of: Receiver) -> Result<f64, Failure> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_send_buffer_size(&ours, BUFFER)?;
    let process = Process::start(of, Stdio::from(theirs))?;
    let mut batch = Batch::new(of.batch, of.len);
    // It ends by hanging up.
    while batch.send(ours.as_fd()).is_ok() {}
    process.rate()
}

/// Counts what comes by the standard input.
pub(super) fn receive(of: Receiver) -> Result<(), Failure> {
    let socket: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
    println!("ready");
    std::io::stdout().flush()?;
    let mut batch = Batch::new(of.batch, of.len);
    let mut tally = Tally::new(of);
    loop {
        let came = batch.receive(socket.as_fd())?;
        if let Some(rate) = tally.count(came) {
            println!("{rate}");
            return Ok(());
        }
    }
}
