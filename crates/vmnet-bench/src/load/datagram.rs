//! UDP: datagrams of one size at one pace, counted where they arrive.
//!
//! Every datagram begins with the token; only those of the right size and token count. The server's socket is new for
//! each job, and at the address that clients are told: a server with several may not answer from that one by itself. Downwards the client announces itself first, which opens the mapping of a NAT.

use super::tally::Tally;
use crate::sys::{self, BATCH};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// What is asked for as socket buffer; the system clips it (`rmem_max`), at both ends alike.
const BUFFER: i32 = 4 << 20;
/// How often a waiting thread looks whether it was halted.
const LOOK: Duration = Duration::from_millis(50);
/// The announcement of a client: the token and nothing else.
const ANNOUNCEMENT: usize = 8;

fn socket(at: IpAddr, peer: Option<SocketAddr>) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((at, 0))?;
    sys::ask_buffers(socket.as_fd(), BUFFER);
    socket.set_read_timeout(Some(LOOK))?;
    if let Some(peer) = peer {
        socket.connect(peer)?;
    }
    Ok(socket)
}

/// Counts datagrams until halted; answers the port of the socket.
pub(crate) fn receive(
    (at, from): (IpAddr, Option<SocketAddr>),
    size: usize,
    token: u64,
    tally: Arc<Tally>,
) -> io::Result<u16> {
    let socket = socket(at, from)?;
    let port = socket.local_addr()?.port();
    let busy = tally.begin();
    thread::spawn(move || {
        let done = match from {
            Some(_) => announce(&socket, token, &tally),
            None => await_peer(&socket, token, &tally),
        };
        if let Err(error) = done.and_then(|()| count(&socket, size, token, &tally)) {
            tally.fail(&format!("datagram receiver: {error}"));
        }
        drop(busy);
    });
    Ok(port)
}

/// Repeats the announcement until the first datagram waits to be read.
fn announce(socket: &UdpSocket, token: u64, tally: &Tally) -> io::Result<()> {
    while !tally.halted() {
        socket.send(&token.to_be_bytes())?;
        match socket.peek(&mut [0; ANNOUNCEMENT]) {
            Ok(_) => return Ok(()),
            Err(error) if waited(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for the first datagram of the token and connects the socket to whoever sent it.
fn await_peer(socket: &UdpSocket, token: u64, tally: &Tally) -> io::Result<()> {
    let mut first = [0; ANNOUNCEMENT];
    while !tally.halted() {
        match socket.recv_from(&mut first) {
            Ok((_, peer)) if first == token.to_be_bytes() => {
                tally.saw(peer.ip());
                return socket.connect(peer);
            }
            Ok(_) => {}
            Err(error) if waited(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn waited(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn count(socket: &UdpSocket, size: usize, token: u64, tally: &Tally) -> io::Result<()> {
    let token = token.to_be_bytes();
    let mut space = Box::new([[0; 2048]; BATCH]);
    while !tally.halted() {
        let mut packets = 0;
        let got = sys::receive_batch(socket.as_fd(), &mut space, |datagram| {
            packets += usize::from(datagram.len() == size && datagram.starts_with(&token));
        });
        tally.add(packets * size, packets);
        match got {
            Ok(()) => {}
            Err(error) if waited(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends datagrams until halted; answers the port of the socket.
pub(crate) fn send(
    (at, to): (IpAddr, Option<SocketAddr>),
    size: usize,
    rate: u64,
    token: u64,
    tally: Arc<Tally>,
) -> io::Result<u16> {
    let socket = socket(at, to)?;
    let port = socket.local_addr()?.port();
    let busy = tally.begin();
    thread::spawn(move || {
        let ready = if to.is_some() {
            Ok(())
        } else {
            await_peer(&socket, token, &tally)
        };
        if let Err(error) = ready.and_then(|()| pace(&socket, size, rate, token, &tally)) {
            tally.fail(&format!("datagram sender: {error}"));
        }
        drop(busy);
    });
    Ok(port)
}

/// Sends what is due about every 100 µs. What could not be sent in time is forgotten, not made up for in a burst
/// of more than two batches.
fn pace(socket: &UdpSocket, size: usize, rate: u64, token: u64, tally: &Tally) -> io::Result<()> {
    sys::sleep_exactly();
    let mut payload = vec![0x5a; size];
    payload
        .iter_mut()
        .zip(token.to_be_bytes())
        .for_each(|(byte, part)| *byte = part);
    let mut last = Instant::now();
    let mut due = 0.0;
    while !tally.halted() {
        let mut count = BATCH;
        if rate > 0 {
            let now = Instant::now();
            due = f64::min(
                due + (now - last).as_secs_f64() * rate as f64,
                2.0 * BATCH as f64,
            );
            last = now;
            count = (due as usize).min(BATCH);
            if count == 0 || due < f64::min(rate as f64 / 10_000.0, BATCH as f64) {
                thread::sleep(Duration::from_micros(80));
                continue;
            }
        }
        match sys::send_batch(socket.as_fd(), &payload, count) {
            Ok(sent) => {
                tally.add(sent * size, sent);
                due -= sent as f64;
            }
            Err(error) if waited(&error) || error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
